//! End to end: the real binary, as root, on real kernels.

#![expect(
    clippy::print_stdout,
    reason = "a test says what it skips and what it saw"
)]

mod crash;
mod data_root;
mod differential;
mod disk_full;
mod docker_cli;
mod docker_py;
mod kill_matrix;
mod lifecycle;
mod limits;
mod machine;
mod network;
mod pull;
mod races;
mod refusals;
mod reload;
mod streams;
mod tutorials;
mod vanished;
mod volumes;
mod weather;

use testkit::{Options, TestDaemon};

/// A daemon of the binary under test with busybox:latest in it; nothing, with a line that says so, without root.
fn daemon() -> Option<TestDaemon> {
    daemon_with(Options::default())
}

fn daemon_with(options: Options) -> Option<TestDaemon> {
    if !testkit::is_root() {
        return None;
    }
    let daemon = TestDaemon::start_with(env!("CARGO_BIN_EXE_cooper"), options);
    daemon.load_busybox();
    Some(daemon)
}

/// The reference engine; it and `daemon` have one and the same image as [`testkit::archive::SHARED_IMAGE`].
fn reference(daemon: &TestDaemon) -> Option<testkit::Client> {
    let dockerd = testkit::peers::dockerd()?;
    let tag = "/images/busybox/tag?repo=cooper-test/busybox&tag=latest";
    daemon
        .client()
        .post(tag, &serde_json::Value::Null)
        .expect(201);
    Some(dockerd)
}
