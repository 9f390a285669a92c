//! The OCI runtime: a spec becomes a list of operations as plain data, and one loop applies it in the child.
//!
//! A library for the shim, and behind [`cli`] the command line that containerd or podman can call.
//! Callers are single-threaded: a container's process begins as a copy of its caller. It must not
//! decide policy (which mounts, limits and capabilities a container gets is in the spec) and it keeps
//! no state; only [`cli`] has a state directory.
//!
//! ```text
//! spec ─ plan ─▶ Plan ──────────────▶ apply (in the child) ─▶ wait for start ─▶ execve
//!                 │  sources opened   ▲
//!                 └─ by the caller ───┘ into its cgroup before its first step
//! ```

pub mod capabilities;
pub mod cgroup;
pub mod seccomp;

mod apply;
pub mod cli;
mod create;
mod error;
mod exec;
mod hook;
mod init;
mod launch;
mod message;
mod peer;
mod plan;
mod rootfs;
pub mod user;

pub use create::{Create, Init, Prepared, StartGate, create};
pub use error::{Error, FailureClass};
pub use exec::{Exec, Executed, exec, find_user};
pub use oci_spec::runtime as oci;
pub use peer::Peer;
pub use rootfs::{Overlay, Rootfs};
pub use sys::pty::WindowSize;

use std::os::fd::OwnedFd;

/// Where the standard streams of a process come from.
#[derive(Debug)]
pub enum Io {
    /// Three descriptors the process gets as 0, 1 and 2.
    Pipes {
        /// Becomes descriptor 0.
        stdin: OwnedFd,
        /// Becomes descriptor 1.
        stdout: OwnedFd,
        /// Becomes descriptor 2.
        stderr: OwnedFd,
    },
    /// A terminal made in the container's own devpts; its master comes back to the caller.
    Terminal {
        /// The size it begins with.
        size: Option<WindowSize>,
    },
}
