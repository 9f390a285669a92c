//! The runtime suite: one set of tests for any OCI runtime. It passes on runc first, then on ours.
//!
//! `COOPER_SUITE_RUNTIME` names the runtimes, separated by `:` (absolute paths or names in PATH); without it runc is
//! tested if it is installed, and ours (the example `oci` of this crate). Root and a static busybox are needed.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests: a failure is the test's, and what ran is told"
)]

#[macro_use]
mod support;

mod cgroups;
mod credentials;
mod errors;
mod execs;
mod lifecycle;
mod mounts;
mod namespaces;
mod process;
mod races;
mod security;
mod terminal;
