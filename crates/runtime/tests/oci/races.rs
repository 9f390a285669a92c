//! A container's files change while it is set up: what is made, mounted or hidden stays inside of its root.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;
use sys::file::{exchange_at, open_directory};

use crate::support::Bundle;

/// Starts in a race, of ours and of the reference; the longer suite has ten times as many.
const STARTS: usize = 200;
const STARTS_OF_THE_REFERENCE: usize = 10;

/// What lies on the host where the links lead, and must stay as it is.
fn canary(bundle: &Bundle) -> std::path::PathBuf {
    let canary = bundle.path("canary");
    fs::create_dir(&canary).unwrap();
    fs::create_dir(canary.join("masked")).unwrap();
    for name in ["secret", "masked/secret"] {
        fs::write(canary.join(name), "the host's").unwrap();
    }
    canary
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The rename-exchange of mount targets and masked paths (CVE-2021-30465, CVE-2023-28642, CVE-2025-31133 and their kin).
#[test]
fn targets_that_change_places_with_links_lead_nowhere() {
    each!(bundle, {
        let canary = canary(&bundle);
        fs::create_dir_all(bundle.root("data/real/masked")).unwrap();
        symlink(&canary, bundle.root("data/link")).unwrap();
        let bound = bundle.path("bound");
        fs::write(&bound, "bound").unwrap();
        for (number, place) in ["data/real", "data/real/deep/er"].iter().enumerate() {
            bundle.mount(json!({"destination": format!("/{place}/tmpfs{number}"), "type": "tmpfs", "source": "tmpfs"}));
            bundle.mount(json!({"destination": format!("/{place}/bound{number}"), "type": "bind", "source": bound,
                                "options": ["bind"]}));
        }
        let paths = bundle.spec["linux"]["maskedPaths"].as_array_mut().unwrap();
        paths.push(json!("/data/real/masked"));
        let paths = bundle.spec["linux"]["readonlyPaths"]
            .as_array_mut()
            .unwrap();
        paths.push(json!("/data/real"));
        // What it sees of the host, by whichever of the two names.
        bundle.args(&[
            "/bin/sh",
            "-c",
            "cat /data/*/secret /data/*/masked/secret 2>/dev/null; true",
        ]);
        let data = open_directory(&bundle.root("data")).unwrap();
        let over = AtomicBool::new(false);
        let exchanges = AtomicU64::new(0);
        let factor = if std::env::var_os("COOPER_LONG").is_some() {
            10
        } else {
            1
        };
        let starts = if bundle.runtime.is_ours() {
            STARTS
        } else {
            STARTS_OF_THE_REFERENCE
        };
        let ran = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    exchange_at(data.as_fd(), b"real", b"link").unwrap();
                    exchanges.fetch_add(1, Ordering::Relaxed);
                }
            });
            let mut ran = 0;
            for _ in 0..starts * factor {
                let ended = bundle.run();
                ran += usize::from(ended.code == 0);
                if ended.out.contains("the host's") {
                    over.store(true, Ordering::Relaxed);
                    panic!("{ended:?}");
                }
            }
            over.store(true, Ordering::Relaxed);
            ran
        });
        println!("{ran} ran, {exchanges:?} exchanges");
        assert!(exchanges.into_inner() > 1000);
        let mut left = names(&canary);
        if !bundle.runtime.is_ours() {
            // Debian's runc is of before the mend of CVE-2024-45310: mount points, empty ones, are made through the link.
            left.retain(|name| {
                !["bound", "tmpfs", "deep"]
                    .iter()
                    .any(|made| name.starts_with(made))
            });
        }
        assert_eq!(left, ["masked", "secret"]);
        assert_eq!(names(&canary.join("masked")), ["secret"]);
        for name in ["secret", "masked/secret"] {
            assert_eq!(fs::read_to_string(canary.join(name)).unwrap(), "the host's");
        }
    });
}
