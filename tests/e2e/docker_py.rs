//! docker-py from PyPI on Cooper and on dockerd: one program, line by line the same output.

use std::path::{Path, PathBuf};

use testkit::archive::{self, Entry};

use crate::daemon;
use crate::pull::Registry;

/// Where `cargo xtask test` installs docker-py.
fn python() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".cache/docker-py/bin/python");
    if python.exists() {
        return Some(python);
    }
    assert!(!testkit::is_ci(), "{} is missing", python.display());
    println!("skipped: {} is made by cargo xtask test", python.display());
    None
}

/// What the scenario prints when it talks to `host`.
fn scenario(python: &Path, host: &str, archive: &Path, image: &str, remote: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/docker_py/scenario.py");
    let output = sys::command::Command::new(python)
        .env("HOME", "/nonexistent")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(&script)
        .arg(host)
        .arg(archive)
        .arg(image)
        .arg(remote)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", python.display()));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "docker-py on {host}: {}\n{printed}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

/// A busybox of this run's own, so that the reference engine has no image or container that looks like ours.
fn own_image(directory: &Path, registry: &Registry) -> (PathBuf, String, String) {
    let mark = format!("m{}", std::process::id());
    let layers = [
        archive::layer(&archive::busybox()),
        archive::layer(&[Entry::file("mark", 0o644, mark.clone())]),
    ];
    let image = format!("cooper-py/busybox:{mark}");
    let path = directory.join("image.tar");
    let tar = archive::docker_archive(&image, &layers, &archive::config(&["sh"]));
    archive::write(&path, &tar);
    let name = format!("py/busybox:{mark}");
    registry.push(&path, &name);
    (path, image, format!("{}/{name}", registry.address))
}

/// Lines of two outputs that differ, unless they begin with the name of a step that may.
fn differences(theirs: &str, ours: &str) -> Vec<String> {
    let pairs = theirs.lines().zip(ours.lines());
    let mut found: Vec<String> = pairs
        .filter(|(theirs, ours)| theirs != ours)
        .map(|(theirs, ours)| format!("dockerd: {theirs}\ncooper:  {ours}"))
        .collect();
    if theirs.lines().count() != ours.lines().count() {
        found.push(format!("== dockerd\n{theirs}== cooper\n{ours}"));
    }
    found
}

#[test]
fn t13_a_docker_py_program_sees_the_same_engine() {
    let Some(python) = python() else { return };
    let Some(daemon) = daemon() else { return };
    let registry = Registry::start();
    let (archive, image, remote) = own_image(daemon.directory(), &registry);
    let ours = scenario(&python, &daemon.host(), &archive, &image, &remote);
    assert!(
        ours.lines().count() > 70 && ours.contains("# refusals"),
        "{ours}"
    );
    let Some(peer) = testkit::peers::dockerd() else {
        return;
    };
    let host = format!("unix://{}", peer.socket().display());
    let theirs = scenario(&python, &host, &archive, &image, &remote);
    let found = differences(&theirs, &ours);
    assert!(found.is_empty(), "{}", found.join("\n"));
}
