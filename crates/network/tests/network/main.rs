//! The network crate as root: whole hosts in network namespaces of their own.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows only #[test] functions as tests, and these are their helpers"
)]

mod host;
mod latency;
mod lifecycle;
mod owners;
mod traffic;
