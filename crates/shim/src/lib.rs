//! The shim: one small process per container, parent of its init, which outlives the daemon.
//!
//! It owns the container's standard streams or terminal, writes the log file, serves attach, and records
//! the exit before it tells anyone. Single-threaded: one epoll loop, no async runtime, buffers that are
//! allocated on demand and given back when idle. The crate holds both ends of the conversation:
//! [`protocol`] and [`codec`] for the daemon (which wraps them in its own async client), [`Client`] for
//! tests and tools, and [`main`] for the role `shim` of the binary.
//!
//! What it must not do: policy. Restart rules, auto-removal, health and events are the daemon's.

pub mod client;
pub mod codec;
pub mod protocol;

mod connection;
mod container;
mod exits;
mod log;
mod process;
mod record;
mod requests;
mod streams;
mod supervisor;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

pub use client::Client;
pub use codec::{Decoder, encode};
pub use protocol::{Exit, ExitRecord, Notice, ProcessId, Reply, Request, State};

/// Runs the role `shim` of the binary: serves the control connection on file descriptor 0.
///
/// The daemon starts it with a connected `AF_UNIX` stream socket as standard input, null standard output
/// and error, in a session of its own. Blocks until the container's exit is acknowledged, or until the
/// control connection ends before a container was created.
#[must_use]
pub fn main() -> ExitCode {
    // A shim that unwinds half-way would hold a container it no longer serves. Dead, the daemon kills
    // what is left of the container and reports it.
    std::panic::set_hook(Box::new(|_panic| std::process::abort()));
    // It is executed by a descriptor, whose number would be its name in ps, top and systemd's log.
    let served = sys::process::set_name(c"cooper-shim")
        .and_then(|()| sys::socket::take_stdin())
        .and_then(supervisor::Supervisor::new)
        .and_then(|mut supervisor| supervisor.run());
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(_nobody_to_tell) => ExitCode::FAILURE,
    }
}
