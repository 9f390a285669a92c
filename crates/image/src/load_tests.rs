//! Loading archives: what becomes visible, what an error leaves, and that twice is once.

use crate::testing::*;
use crate::*;

fn busybox() -> Vec<u8> {
    let binary = std::fs::read("/bin/busybox").unwrap_or_else(|_| b"no busybox here".to_vec());
    let layer = TarMaker::new()
        .directory("bin/", 0o755)
        .file_mode("bin/busybox", 0o755, &binary)
        .hard_link("bin/sh", "bin/busybox")
        .symlink("bin/ash", "busybox")
        .done();
    docker_archive(&["busybox:latest", "localhost:5000/some/box:1"], &[layer])
}

#[test]
fn a_docker_archive_becomes_an_image() {
    if !testkit::is_root() {
        return;
    }
    let test = TestStore::new();
    let loaded = test.load(&busybox()).unwrap();
    let names: Vec<String> = loaded
        .iter()
        .map(|image| image.reference.clone().unwrap().familiar())
        .collect();
    assert_eq!(names, ["busybox:latest", "localhost:5000/some/box:1"]);
    let image = test.store.resolve("busybox").unwrap();
    assert_eq!(image.id, loaded[0].id);
    assert_eq!(
        image.config.config.as_ref().unwrap().cmd,
        Some(vec!["sh".to_owned()])
    );
    assert_eq!(Digest::of(&image.config.raw), image.id);
    let layer = test.layer("busybox", 0);
    let bytes = std::fs::metadata(layer.join("bin/busybox")).unwrap().len();
    assert_eq!(
        image.size_bytes,
        bytes + 7,
        "each inode once, symbolic links by their length"
    );
    assert_eq!(
        std::fs::read_link(layer.join("bin/ash")).unwrap().to_str(),
        Some("busybox")
    );
}

#[test]
fn loading_twice_changes_nothing() {
    if !testkit::is_root() {
        return;
    }
    let test = TestStore::new();
    let first = test.load(&busybox()).unwrap();
    let files = test.files();
    let (second, events) = load(&test.store, &gzip(&busybox())).unwrap();
    assert_eq!(first, second);
    assert_eq!(test.files(), files);
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, LoadProgress::Layer { .. })),
        "{events:?}"
    );
    assert_eq!(test.store.list().unwrap().len(), 1);
}

#[test]
fn nobody_waits_for_another_ones_half_a_blob_to_be_hashed() {
    let test = TestStore::new();
    let digest = Digest::of(b"large");
    let part = test
        .root
        .join("content/ingest")
        .join(format!("sha256-{}.part", digest.hex()));
    // A hole: read and hashed as long as data, and takes no room.
    std::fs::File::create(&part)
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    let is_open = || {
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .any(|fd| std::fs::read_link(fd.unwrap().path()).is_ok_and(|path| path == part))
    };
    let (ended, order) = std::sync::mpsc::sync_channel(2);
    std::thread::scope(|scope| {
        let first = ended.clone();
        scope.spawn(|| {
            let first = first;
            let writer = test.store.blob_writer(Some(&digest)).unwrap();
            first.send("the one that resumes").unwrap();
            drop(writer);
        });
        while !is_open() {
            std::thread::yield_now();
        }
        drop(test.store.blob_writer(None).unwrap());
        ended.send("the other one").unwrap();
    });
    let order: Vec<_> = order.try_iter().collect();
    assert_eq!(order, ["the other one", "the one that resumes"]);
}

/// An error with this text, and a store as empty as before.
fn refused(archive: &[u8], text: &str) {
    if !testkit::is_root() {
        return;
    }
    let test = TestStore::new();
    let before = test.files();
    let error = test.load(archive).unwrap_err();
    assert_eq!(error.to_string(), text);
    assert_eq!(test.files(), before, "{text}");
    assert!(test.store.list().unwrap().is_empty());
}

fn layer() -> Vec<u8> {
    TarMaker::new().file("file", b"content").done()
}

#[test]
fn malformed_archives_are_refused_in_dockers_words() {
    let no_manifest = "invalid archive: does not contain a manifest.json";
    refused(b"", no_manifest);
    refused(&TarMaker::new().file("x", b"y").done(), no_manifest);
    refused(b"garbage", "unexpected EOF");
    refused(&[b'g'; 2048], "archive/tar: invalid tar header");
    let manifest = |text: &str| {
        TarMaker::new()
            .file("manifest.json", text.as_bytes())
            .done()
    };
    refused(&manifest("{"), "unexpected EOF");
    refused(
        &manifest(r#"[{"Config":"nope.json","Layers":[]}]"#),
        "open nope.json: no such file or directory",
    );
    refused(
        &manifest(r#"[{"Config":"../../etc/passwd","Layers":[]}]"#),
        "\"../../etc/passwd\" is outside of the layer",
    );
    refused(
        &docker_archive(&["BAD:latest"], &[layer()]),
        "invalid reference format: repository name (library/BAD) must be lowercase",
    );
    refused(
        &docker_archive(&["notag"], &[layer()]),
        "invalid tag \"notag\"",
    );
    let digest = format!("zzz@{}", Digest::of(b""));
    refused(
        &docker_archive(&[&digest], &[layer()]),
        &format!("invalid tag {digest:?}"),
    );
    refused(
        &archive_of(&["a:1"], &[layer()], "{}"),
        "invalid image JSON, no RootFS key",
    );
    let rootfs = r#"{"rootfs":{"type":"layers","diff_ids":[]}}"#;
    refused(
        &archive_of(&["a:1"], &[layer()], rootfs),
        "invalid manifest, layers length mismatch: expected 1, got 0",
    );
    let windows = r#"{"os":"windows","rootfs":{"type":"layers"}}"#;
    refused(
        &archive_of(&["a:1"], &[], windows),
        "cannot load windows image on linux",
    );
}

#[test]
fn a_layer_with_another_digest_leaves_nothing() {
    let wrong = Digest::of(b"something else");
    let config = format!(
        r#"{{"rootfs":{{"type":"layers","diff_ids":["{}","{wrong}"]}}}}"#,
        Digest::of(&layer())
    );
    let second = TarMaker::new().file("second", b"").done();
    let found = Digest::of(&second);
    refused(
        &archive_of(&["a:1"], &[layer(), second], &config),
        &format!("invalid diffID for layer 1: expected \"{wrong}\", got \"{found}\""),
    );
}

#[test]
fn an_evil_layer_leaves_nothing() {
    let evil = TarMaker::new().file("fine", b"").file("../x", b"").done();
    refused(
        &docker_archive(&["a:1"], &[layer(), evil]),
        "failed to register layer: \"../x\" is outside of the layer",
    );
}

#[test]
fn an_image_without_name_is_loaded_by_its_id() {
    if !testkit::is_root() {
        return;
    }
    let test = TestStore::new();
    let loaded = test.load(&docker_archive(&[], &[layer()])).unwrap();
    assert_eq!(loaded[0].reference, None);
    assert!(
        test.store
            .resolve(loaded[0].id.short())
            .unwrap()
            .references
            .is_empty()
    );
}

#[test]
fn the_id_alone_is_found_as_the_whole_image_is() {
    if !testkit::is_root() {
        return;
    }
    let test = TestStore::new();
    let loaded = test.load(&docker_archive(&["a:1"], &[layer()])).unwrap();
    let id = &loaded[0].id;
    let absent = "1".repeat(64);
    let digest = format!("sha256:{absent}");
    for name in ["a:1", id.as_str(), id.hex(), id.short()] {
        assert_eq!(test.store.resolve(name).unwrap().id, *id, "{name}");
        assert_eq!(test.store.resolve_id(name).unwrap(), *id, "{name}");
    }
    for name in ["a", "b:1", "A", "", &absent, &digest, "sha256:f"] {
        let whole = test.store.resolve(name).unwrap_err().to_string();
        let alone = test.store.resolve_id(name).unwrap_err().to_string();
        assert_eq!(alone, whole, "{name}");
    }
}

#[test]
fn old_archives_link_layers_to_each_other() {
    if !testkit::is_root() {
        return;
    }
    let diff_id = Digest::of(&layer());
    let config =
        format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{diff_id}","{diff_id}"]}}}}"#);
    let archive = TarMaker::new()
        .file("a/layer.tar", &layer())
        .file("a/VERSION", b"1.0")
        .file("a/json", b"{}")
        .symlink("b/layer.tar", "../a/layer.tar")
        .file("c.json", config.as_bytes())
        .file(
            "manifest.json",
            br#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["a/layer.tar","b/layer.tar"]}]"#,
        )
        .file("repositories", b"{}")
        .done();
    let test = TestStore::new();
    test.load(&archive).unwrap();
    assert_eq!(test.store.resolve("a:1").unwrap().layers.len(), 2);
}

/// An OCI layout of one image with gzip layers, and what its index says.
fn oci_layout(annotations: &str, nested: bool) -> (Vec<u8>, Digest, Digest) {
    let packed = gzip(&layer());
    let diff_id = Digest::of(&layer());
    let config =
        format!(r#"{{"os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#);
    let descriptor = |kind: &str, bytes: &[u8], extra: &str| {
        let digest = Digest::of(bytes);
        format!(
            r#"{{"mediaType":"{kind}","digest":"{digest}","size":{}{extra}}}"#,
            bytes.len()
        )
    };
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
        descriptor(
            "application/vnd.oci.image.config.v1+json",
            config.as_bytes(),
            ""
        ),
        descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &packed, "")
    );
    let host = manifest::Platform::host();
    let platform = format!(r#","platform":{}"#, serde_json::to_string(&host).unwrap());
    let inner = format!(
        r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#,
        descriptor(
            manifest::media_type::OCI_MANIFEST,
            b"not here",
            r#","platform":{"os":"linux","architecture":"s390x"}"#
        ),
        descriptor(
            manifest::media_type::OCI_MANIFEST,
            manifest.as_bytes(),
            &platform
        )
    );
    let annotations = format!(r#","annotations":{{{annotations}}}"#);
    let top = if nested {
        descriptor(
            manifest::media_type::OCI_INDEX,
            inner.as_bytes(),
            &annotations,
        )
    } else {
        descriptor(
            manifest::media_type::OCI_MANIFEST,
            manifest.as_bytes(),
            &annotations,
        )
    };
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{top}]}}"#);
    let mut tar = TarMaker::new()
        .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", index.as_bytes());
    for blob in [
        packed.as_slice(),
        config.as_bytes(),
        manifest.as_bytes(),
        inner.as_bytes(),
    ] {
        tar = tar.file(&format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
    }
    (
        tar.done(),
        Digest::of(config.as_bytes()),
        Digest::of(manifest.as_bytes()),
    )
}

#[test]
fn oci_layouts_have_names_in_annotations() {
    if !testkit::is_root() {
        return;
    }
    for (annotations, nested, name) in [
        (
            r#""io.containerd.image.name":"docker.io/library/x:1""#,
            false,
            Some("x:1"),
        ),
        (
            r#""org.opencontainers.image.ref.name":"some/x:2""#,
            true,
            Some("some/x:2"),
        ),
        (
            r#""org.opencontainers.image.ref.name":"latest""#,
            true,
            None,
        ),
    ] {
        let (archive, id, manifest) = oci_layout(annotations, nested);
        let test = TestStore::new();
        let loaded = test.load(&archive).unwrap();
        assert_eq!(loaded[0].id, id);
        assert_eq!(
            loaded[0]
                .reference
                .as_ref()
                .map(Reference::familiar)
                .as_deref(),
            name
        );
        let image = test.store.get(&id).unwrap();
        assert_eq!(image.manifest, Some(manifest.clone()));
        let stored = test.store.read_document(&manifest).unwrap();
        assert_eq!(
            Digest::of(&stored),
            manifest,
            "the manifest is kept as it came"
        );
        let blob = test
            .root
            .join("content/sha256")
            .join(Digest::of(&gzip(&layer())).hex());
        assert!(blob.is_file(), "the layer stays compressed");
    }
}

#[test]
fn an_oci_layout_that_lies_is_refused() {
    let (archive, id, _) = oci_layout("", false);
    let position = archive
        .windows(5)
        .position(|bytes| bytes == b"linux")
        .unwrap();
    let mut changed = archive;
    changed[position..position + 5].copy_from_slice(b"Linux");
    if !testkit::is_root() {
        return;
    }
    let test = TestStore::new();
    let error = test.load(&changed).unwrap_err();
    assert!(
        matches!(&error, Error::DigestMismatch { expected, .. } if *expected == id),
        "{error}"
    );
    assert_eq!(test.files(), Vec::<String>::new());
}

#[test]
fn a_download_goes_on_where_it_stopped() {
    use std::io::Write;
    let test = TestStore::new();
    let whole = vec![7; 100_000];
    let digest = Digest::of(&whole);
    let mut writer = test.store.blob_writer(Some(&digest)).unwrap();
    writer.write_all(&whole[..60_000]).unwrap();
    let other = test.store.blob_writer(Some(&digest)).unwrap();
    assert_eq!(other.offset_bytes(), 0, "two at once do not share a file");
    drop(other);
    drop(writer);
    let store = open(&test.root).unwrap();
    let mut writer = store.blob_writer(Some(&digest)).unwrap();
    assert_eq!(writer.offset_bytes(), 60_000);
    writer.write_all(&whole[60_000..]).unwrap();
    let lease = store.lease();
    store.store_blob(&lease, writer.finish().unwrap()).unwrap();
    assert_eq!(store.lease_blob(&lease, &digest).unwrap(), Some(100_000));
    let mut wrong = store.blob_writer(Some(&Digest::of(b"x"))).unwrap();
    wrong.write_all(b"y").unwrap();
    assert!(matches!(wrong.finish(), Err(Error::DigestMismatch { .. })));
    assert_eq!(
        test.files().len(),
        1,
        "a wrong blob leaves nothing: {:?}",
        test.files()
    );
    drop(lease);
    assert_eq!(
        test.files(),
        Vec::<String>::new(),
        "nothing needs the blob any more"
    );
}

/// A client may leave at any moment: what it wanted is nowhere then, or whole.
#[test]
fn a_load_that_nobody_wants_any_more_leaves_nothing() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    if !testkit::is_root() {
        return;
    }
    let layer = |content| TarMaker::new().file_mode("file", 0o644, content).done();
    let archive = docker_archive(&["a:1"], &[layer(b"one"), layer(b"two")]);
    for allowed in 0.. {
        let test = TestStore::new();
        let asked = AtomicUsize::new(0);
        let wanted = || asked.fetch_add(1, Ordering::Relaxed) < allowed;
        let loaded = test
            .store
            .load_while(&wanted, &mut archive.as_slice(), &mut |_| {});
        match loaded {
            Ok(loaded) => {
                assert!(allowed > 4, "it was hardly asked: {allowed}");
                assert_eq!(loaded.len(), 1);
                return;
            }
            Err(error) => assert!(matches!(error, Error::GivenUp), "{error}"),
        }
        assert_eq!(test.store.list().unwrap().len(), 0);
        assert_eq!(test.files(), Vec::<String>::new(), "after {allowed}");
    }
}
