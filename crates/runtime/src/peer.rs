//! A running container whose namespaces or shared memory another one joins.
//!
//! It is its first process, held by a pidfd: a pid may be another process's by the time a path with it is opened, and
//! a path through another container's root leads where that container wants.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use sys::file::{self, Filesystem, Kind};
use sys::mount::{self, Depth};
use sys::namespace::{self, Set};
use sys::path::{self, OpenFlags};
use sys::process;

use crate::cgroup::Cgroup;

/// The shared memory of a container, below its root.
const SHARED_MEMORY: &str = "dev/shm";

/// `EINVAL` and `ESRCH` of `errno(3)`.
const EINVAL: i32 = 22;
const ESRCH: i32 = 3;

/// The first process of a running container, to be joined.
///
/// What a spec names as `/proc/<pid>/ns/…` or as `/proc/<pid>/root/dev/shm` with its pid is taken from the pidfd; those
/// paths are not looked at.
#[derive(Debug)]
pub struct Peer {
    /// The pid by which the spec names it.
    pub pid: u32,
    /// Itself.
    pub pidfd: OwnedFd,
}

impl Peer {
    /// Opens the process `pid`, which must be in `cgroup`: only a process of that container's can have come to be there.
    ///
    /// # Errors
    /// `NotFound` when it has ended; the errno of `pidfd_open(2)`, or the cgroup's refusal.
    pub fn open(pid: u32, cgroup: &Cgroup) -> io::Result<Self> {
        let gone = |error: io::Error| match error.raw_os_error() {
            Some(ESRCH) => io::ErrorKind::NotFound.into(),
            _ => error,
        };
        let pidfd = process::open_pidfd(pid).map_err(gone)?;
        let members = cgroup.pids().map_err(io::Error::other)?;
        // The number was this process's all the time only if it has not been reaped by now.
        let still = process::number_of(pidfd.as_fd()).map_err(gone)?;
        if still == pid && members.contains(&pid) {
            return Ok(Self { pid, pidfd });
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// The descriptor to join for a namespace that a spec names by `path`; `None` when it is not this process's.
    pub(crate) fn namespace(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        match self.own(path).map(|rest| rest.starts_with("ns")) {
            Some(true) => self.pidfd.try_clone().map(Some),
            Some(false) | None => Ok(None),
        }
    }

    /// The shared memory that a spec names by `path`, as a detached mount; `None` when it is not this process's.
    pub(crate) fn tree(&self, path: &Path) -> Option<io::Result<OwnedFd>> {
        let own = self.own(path)?.strip_prefix("root").ok()?;
        (own == Path::new(SHARED_MEMORY)).then(|| shared_memory(self.pidfd.as_fd()))
    }

    /// What follows `/proc/<pid>/`.
    fn own<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        path.strip_prefix("/proc")
            .ok()?
            .strip_prefix(self.pid.to_string())
            .ok()
    }
}

/// A copy of the shared memory's mount, made by a child in the container's mount namespace: no other may copy it.
fn shared_memory(init: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    process::errand(|| {
        process::set_not_dumpable()?;
        namespace::join(init, Set::MOUNT)?;
        // Who joins a mount namespace begins in its root.
        let root = path::open_directory(Path::new("/"))?;
        let flags = OpenFlags::PATH | OpenFlags::DIRECTORY;
        let place = path::open_in_root(root.as_fd(), Path::new(SHARED_MEMORY), flags)?;
        let found = file::stat(&place)?;
        let is_tmpfs = file::filesystem(&place)?.0 == Filesystem::Tmpfs;
        if found.kind != Kind::Directory || !is_tmpfs || !mount::is_mounted(place.as_fd())? {
            return Err(io::Error::from_raw_os_error(EINVAL));
        }
        mount::clone_tree(place.as_fd(), Path::new(""), Depth::One)
    })
    .map_err(|error| match error.raw_os_error() {
        Some(EINVAL) => io::Error::other("non-shareable IPC: no shared memory is mounted there"),
        _ => error,
    })
}
