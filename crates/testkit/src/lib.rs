//! What end-to-end tests share: a daemon of their own, a client, small images, a census of what may leak.
//!
//! A dev-dependency only. Everything here panics on failure with a sentence that says what was expected:
//! a test that cannot be set up has failed.
#![expect(
    clippy::missing_panics_doc,
    clippy::print_stdout,
    reason = "every function of a test kit panics when the test has failed, and says what it skips"
)]

pub mod archive;
pub mod client;
pub mod daemon;
pub mod differential;
mod held;
pub mod leaks;
pub mod network;
pub mod peers;

use std::path::Path;
use std::time::{Duration, Instant};

pub use client::{Client, Response};
pub use daemon::{Options, TestDaemon};

/// How often [`wait_until`] looks again.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How much longer everything takes in the emulated machine of `cargo xtask vm`.
const EMULATED_TIMES: u32 = 10;

/// Whether this is the emulated machine of `cargo xtask vm`.
pub fn is_emulated() -> bool {
    std::env::var_os("COOPER_VM").is_some()
}

/// A limit that is right for this machine.
pub fn patience(limit: Duration) -> Duration {
    if is_emulated() {
        limit * EMULATED_TIMES
    } else {
        limit
    }
}

/// Waits until `condition` answers something, and fails the test, naming `what`, when `limit` has passed.
pub fn wait_until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let limit = patience(limit);
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "waited {limit:?} in vain: {what}"
        );
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// Whether this test can run as root; under CI it must.
pub fn is_root() -> bool {
    needs("root", sys::process::is_root())
}

/// Whether a test that needs `what` can run: when it is not `there`, the test is skipped with a word, and under CI that
/// is a failure.
pub fn needs(what: &str, there: bool) -> bool {
    if !there {
        assert!(!is_ci(), "this machine must run the tests that need {what}");
        println!("skipped: needs {what}");
    }
    there
}

/// Fails the test when `program` is older than one of the sources that Cargo made it from: a test of one crate does not
/// build the programs of others, and would say something about yesterday's.
pub fn assert_fresh(program: &Path) {
    let modified = |path: &Path| {
        std::fs::metadata(path)
            .and_then(|file| file.modified())
            .ok()
    };
    // Elsewhere than where it was built there is neither the list nor the sources.
    let Ok(list) = std::fs::read_to_string(program.with_extension("d")) else {
        return;
    };
    let (_, sources) = list.split_once(": ").expect("a rule of make");
    let newer = sources
        .split_whitespace()
        .find(|source| modified(Path::new(source)) > modified(program));
    assert_eq!(
        newer,
        None,
        "newer than {}: build it (cargo build --bins --examples)",
        program.display()
    );
}

/// Whether a skip is a failure (`CI=true`).
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// Whether the longer suites are asked for (`cargo xtask test --long`).
pub fn long() -> bool {
    let long = std::env::var_os("COOPER_LONG").is_some();
    if !long {
        println!("skipped: part of `cargo xtask test --long`");
    }
    long
}
