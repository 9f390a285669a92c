//! Being told when the kernel kills for want of memory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sys::cgroupfs;

use super::{Cgroup, Error, Version};

/// A descriptor that epoll reports when a cgroup runs out of memory.
///
/// On v1 an eventfd, readable at each shortage (its removal counts as one). On v2 the open `memory.events`,
/// on which epoll reports an error whenever one of its counters changes: it must be added without interest
/// in reading, since it is always readable.
#[derive(Debug)]
pub struct MemoryWatch {
    fd: OwnedFd,
    version: Version,
}

impl AsFd for MemoryWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl MemoryWatch {
    /// Which of the two it is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Takes the event, so that the next one is reported.
    ///
    /// # Errors
    /// The errno of read.
    pub fn clear(&self) -> io::Result<()> {
        match self.version {
            Version::V1 => sys::epoll::read_counter(self.fd.as_fd()).map(drop),
            Version::V2 => cgroupfs::read_open(self.fd.as_fd()).map(drop),
        }
    }
}

impl Cgroup {
    /// Watches the group's memory; `None` without a memory controller.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn watch_memory(&self) -> Result<Option<MemoryWatch>, Error> {
        let version = self.version();
        let Some(directory) = self.directory("memory") else {
            return Ok(None);
        };
        let dir = directory.dir.as_fd();
        let error = |operation, file, source| directory.error(self.path(), operation, file, source);
        let fd = match version {
            Version::V1 => {
                let control = cgroupfs::open_for_read(dir, "memory.oom_control")
                    .map_err(|source| error("open", "memory.oom_control", source))?;
                let event = sys::epoll::counter().map_err(|source| error("watch", "", source))?;
                let line = cgroupfs::event_line(event.as_fd(), control.as_fd());
                cgroupfs::write(dir, "cgroup.event_control", &line)
                    .map_err(|source| error("write", "cgroup.event_control", source))?;
                event
            }
            Version::V2 => cgroupfs::open_for_read(dir, "memory.events")
                .map_err(|source| error("open", "memory.events", source))?,
        };
        Ok(Some(MemoryWatch { fd, version }))
    }
}
