//! Control groups, v1 and v2, through the cgroup file system alone (Docker's `cgroupfs` driver).
//!
//! Owns the detection of the hierarchies, every directory below Cooper's parent, limits, device rules,
//! freezing, killing and counters. Every open is relative to a directory descriptor that is held, and
//! no function here follows a path a container can influence. It must not decide which limits a container gets.

mod convert;
mod devices;
mod group;
mod layout;
mod memory_watch;
mod path;
mod processes;
mod sample;
mod stats;
mod v1;
mod v2;

use std::io;
use std::os::fd::AsFd;

pub use group::{Cgroup, Entry, list, remove_empty_parent};
pub use memory_watch::MemoryWatch;
pub use path::{CgroupPath, PARENT};
pub use stats::{Blkio, BlkioEntry, Cpu, Memory, Pids, Stats};

use sys::cgroupfs;

use crate::oci;
use group::Directory;

/// What went wrong with a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name or parent of a cgroup is not acceptable.
    #[error("invalid cgroup name {0:?}")]
    Name(String),
    /// No usable hierarchy is mounted.
    #[error("no cgroup hierarchy is mounted on this host")]
    NoHierarchy,
    /// A limit was asked for whose controller or file this host lacks.
    #[error("{what} is not supported by this host's cgroups")]
    Unsupported {
        /// The limit, in the words of the OCI spec.
        what: String,
    },
    /// A limit has a value that cannot be expressed.
    #[error("invalid {what}: {value}")]
    Invalid {
        /// The limit, in the words of the OCI spec.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// The kernel refused an operation on a cgroup directory or file.
    #[error("{operation} {file}: {source}")]
    Io {
        /// What was done: `open`, `write "5M" to`, …
        operation: String,
        /// Controller and path below its mount.
        file: String,
        /// The errno.
        source: io::Error,
    },
    /// The group still had processes when the time for removing it was over.
    #[error("cgroup {path} still has processes")]
    Busy {
        /// The cgroup.
        path: CgroupPath,
    },
}

impl Error {
    /// The errno of the kernel's refusal, if it was one.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            Self::Name(_)
            | Self::NoHierarchy
            | Self::Unsupported { .. }
            | Self::Invalid { .. }
            | Self::Busy { .. } => None,
        }
    }
}

/// Which interface the host's controllers are on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// One hierarchy for each controller (a controller-less v2 mount beside it does not count).
    V1,
    /// The unified hierarchy.
    V2,
}

/// The version the host uses; read once from `/proc/self/mountinfo`.
#[must_use]
pub fn version() -> Version {
    layout::layout().version
}

/// Whether a controller (`memory`, `cpu`, `pids`, `cpuset`, `blkio`/`io`, `freezer`, `devices`, …) can be used here.
/// On v2 `devices` and `freezer` are always there.
#[must_use]
pub fn has_controller(name: &str) -> bool {
    let layout = layout::layout();
    let in_core = layout.version == Version::V2 && matches!(name, "devices" | "freezer");
    let name = if layout.version == Version::V2 && name == "blkio" {
        "io"
    } else {
        name
    };
    in_core
        || layout
            .hierarchies
            .iter()
            .any(|hierarchy| hierarchy.has(name))
}

impl Cgroup {
    /// Writes limits and device rules, in an order the kernel accepts on a live group too. What `resources` leaves
    /// out keeps its value; so do device rules when there is no list at all.
    ///
    /// # Errors
    /// The first limit that cannot be set, by class; limits before it stay set.
    pub fn apply(&self, resources: &oci::LinuxResources) -> Result<(), Error> {
        match self.version() {
            Version::V1 => v1::apply(self, resources),
            Version::V2 => v2::apply(self, resources),
        }
    }

    /// Whether a control file is there: its controller is, and has been handed down to this group.
    #[must_use]
    pub fn has_file(&self, file: &str) -> bool {
        let directories = self.directories().iter();
        let mut found = directories.map(|directory| cgroupfs::exists(directory.dir.as_fd(), file));
        found.any(|found| found.unwrap_or(false))
    }

    fn write_to(&self, directory: &Directory, file: &str, value: &str) -> Result<(), Error> {
        cgroupfs::write(directory.dir.as_fd(), file, value).map_err(|source| {
            directory.error(self.path(), &format!("write {value:?} to"), file, source)
        })
    }

    fn read_from(&self, directory: &Directory, file: &str) -> Result<String, Error> {
        cgroupfs::read(directory.dir.as_fd(), file)
            .map_err(|source| directory.error(self.path(), "read", file, source))
    }

    fn read_number(&self, directory: &Directory, file: &str) -> Result<u64, Error> {
        let text = self.read_from(directory, file)?;
        text.trim().parse().map_err(|_| {
            let source = io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{:?} is no number", text.trim()),
            );
            directory.error(self.path(), "read", file, source)
        })
    }
}

#[cfg(test)]
mod tests;
