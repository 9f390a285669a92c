//! The cgroup file system by held directory descriptors: every name is one component, no link is followed.
//!
//! It knows files and directories, not controllers: what is written where is decided in `runtime::cgroup`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);
const DIRECTORY_MODE: Mode = Mode::RWXU
    .union(Mode::RGRP)
    .union(Mode::XGRP)
    .union(Mode::ROTH)
    .union(Mode::XOTH);

/// First guess for the size of a file; `memory.stat` has about 2 KiB, most have a line.
const READ_CHUNK_BYTES: usize = 4096;

/// Opens the root of a mounted hierarchy.
///
/// # Errors
/// As `open(2)`.
pub fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Opens a directory directly below `dir`.
///
/// # Errors
/// As `openat(2)`; `ELOOP` for a symbolic link.
pub fn open_dir(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())?)
}

/// Makes a cgroup; whether it was not there before.
///
/// # Errors
/// As `mkdirat(2)`, but that it exists is not an error.
pub fn make_dir(dir: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    match rustix::fs::mkdirat(dir, name, DIRECTORY_MODE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes a cgroup that has no processes and no children.
///
/// # Errors
/// As `unlinkat(2)`; `EBUSY` while it is in use.
pub fn remove_dir(dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(
        dir,
        name,
        rustix::fs::AtFlags::REMOVEDIR,
    )?)
}

/// Renames a cgroup below the same parent (v1 only).
///
/// # Errors
/// As `renameat(2)`; `EPERM` on v2.
pub fn rename(dir: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()> {
    Ok(rustix::fs::renameat(dir, from, dir, to)?)
}

/// Opens a control file for writing, to be written later.
///
/// # Errors
/// As `openat(2)`.
pub fn open_for_write(dir: BorrowedFd<'_>, file: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(dir, file, flags, Mode::empty())?)
}

/// Writes a control file in one call, as the kernel wants it.
///
/// # Errors
/// As `openat(2)` and `write(2)`: the errno is the controller's verdict on the value.
pub fn write(dir: BorrowedFd<'_>, file: &str, value: &str) -> io::Result<()> {
    write_open(open_for_write(dir, file)?.as_fd(), value)
}

/// Writes an open control file in one call. Allocates nothing.
///
/// # Errors
/// As `write(2)`.
pub fn write_open(file: BorrowedFd<'_>, value: &str) -> io::Result<()> {
    loop {
        match rustix::io::write(file, value.as_bytes()) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Reads a control file whole.
///
/// # Errors
/// As `openat(2)` and `read(2)`; `InvalidData` when it is not UTF-8.
pub fn read(dir: BorrowedFd<'_>, file: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(dir, file, flags, Mode::empty())?;
    let mut bytes = Vec::with_capacity(READ_CHUNK_BYTES);
    loop {
        bytes.reserve(READ_CHUNK_BYTES);
        match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Whether a file or directory is there.
///
/// # Errors
/// As `faccessat(2)`, but that it is missing is not an error.
pub fn exists(dir: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    match rustix::fs::accessat(
        dir,
        name,
        rustix::fs::Access::EXISTS,
        rustix::fs::AtFlags::empty(),
    ) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// The names of the directories directly below `dir`.
///
/// # Errors
/// As `getdents64(2)`.
pub fn subdirectories(dir: BorrowedFd<'_>) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() != rustix::fs::FileType::Directory || name == c"." || name == c".." {
            continue;
        }
        names.push(CString::from(name).to_string_lossy().into_owned());
    }
    Ok(names)
}

/// Sends SIGKILL; a process that is gone already is a success.
///
/// # Errors
/// As `kill(2)`, but not `ESRCH`; `EINVAL` for a number that is no process id.
pub fn kill(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(Errno::INVAL)?;
    match rustix::process::kill_process(pid, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits, at most `timeout`, until a process has ended (as a zombie too); one that is not there is a success.
///
/// # Errors
/// As `pidfd_open(2)` and `poll(2)`.
pub fn wait_exit(pid: u32, timeout: std::time::Duration) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(Errno::INVAL)?;
    let pidfd = match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let timeout = Timespec::try_from(timeout).map_err(|_| Errno::INVAL)?;
    match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits until `events` (a `cgroup.events` file opened by [`open_events`]) changes, at most `timeout`; whether it did.
///
/// # Errors
/// As `poll(2)`.
pub fn wait_for_event(events: BorrowedFd<'_>, timeout: std::time::Duration) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::from_borrowed_fd(events, PollFlags::PRI)];
    let timeout = Timespec::try_from(timeout).map_err(|_| Errno::INVAL)?;
    match poll(&mut fds, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens `cgroup.events` of a v2 cgroup for [`wait_for_event`].
///
/// # Errors
/// As `openat(2)`.
pub fn open_events(dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(
        dir,
        "cgroup.events",
        flags,
        Mode::empty(),
    )?)
}

/// Opens a control file for reading, and for epoll to report its changes.
///
/// # Errors
/// As `openat(2)`.
pub fn open_for_read(dir: BorrowedFd<'_>, file: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(dir, file, flags, Mode::empty())?)
}

/// What v1's `cgroup.event_control` wants: the descriptor to count on and the one to watch.
#[must_use]
pub fn event_line(counter: BorrowedFd<'_>, watched: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("{} {}", counter.as_raw_fd(), watched.as_raw_fd())
}

/// Reads an open file from its start: `cgroup.events` again after each event.
///
/// # Errors
/// As `pread(2)`.
pub fn read_open(file: BorrowedFd<'_>) -> io::Result<String> {
    let mut bytes = vec![0; READ_CHUNK_BYTES];
    let length = rustix::io::pread(file, &mut bytes[..], 0)?;
    bytes.truncate(length);
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
