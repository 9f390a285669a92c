//! The same archive in a running dockerd and in Cooper: id, names, size and layers agree.
//!
//! Needs a dockerd with a `busybox` image; its socket is named by the environment, or the test says that it
//! was skipped.

#![expect(
    clippy::disallowed_methods,
    reason = "the peer is asked with the docker CLI"
)]

use std::process::Command;

use crate::testing::*;

/// The peer's socket, as a `unix://` address.
const PEER: &str = "COOPER_PEER_DOCKER_HOST";

#[test]
fn an_archive_saved_by_dockerd_gives_the_same_image() {
    let Ok(peer) = std::env::var(PEER) else {
        eprintln!("skipped: {PEER} names no dockerd to compare with");
        return;
    };
    if !testkit::is_root() {
        return;
    }
    let docker = |arguments: &[&str]| {
        let output = Command::new("docker")
            .args(arguments)
            .env("DOCKER_HOST", &peer)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let inspected = docker(&["image", "inspect", "busybox"]);
    let inspected: serde_json::Value = serde_json::from_slice(&inspected).unwrap();
    let expected = &inspected[0];
    let test = TestStore::new();
    test.load(&docker(&["save", "busybox"])).unwrap();
    let image = test.store.resolve("busybox").unwrap();
    let names: Vec<String> = image
        .references
        .iter()
        .map(crate::Reference::familiar)
        .collect();
    let layers: Vec<&str> = image
        .layers
        .iter()
        .map(|layer| layer.diff_id.as_str())
        .collect();
    assert_eq!(expected["Id"], image.id.as_str());
    assert_eq!(expected["RepoTags"], serde_json::json!(names));
    assert_eq!(
        expected["RepoDigests"],
        serde_json::json!(Vec::<String>::new())
    );
    assert_eq!(expected["Size"], image.size_bytes);
    assert_eq!(expected["RootFS"]["Layers"], serde_json::json!(layers));
    assert_eq!(expected["Created"], image.config.created);
    assert_eq!(expected["Architecture"], image.config.architecture);
}
