//! The descriptors of this process by number, and new ones: pipes, files in memory, waiting for bytes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::error::check;

/// What becomes of the descriptors in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseHow {
    /// They are closed.
    Now,
    /// They are closed by the next successful execve.
    OnExec,
}

/// Closes every descriptor from `first` to `last`, or marks it.
///
/// Descriptors owned by values in this process dangle afterwards: only a child that is about to
/// become another program, and forgets those values, calls this.
///
/// # Errors
/// The errno of `close_range(2)` (Linux 5.9; the flag 5.11, emulated on 5.10).
pub fn close_range(first: u32, last: u32, how: CloseHow) -> io::Result<()> {
    let flags = match how {
        CloseHow::Now => 0,
        CloseHow::OnExec => libc::CLOSE_RANGE_CLOEXEC,
    };
    // SAFETY: closing descriptors touches no memory; who owned them does not run on (contract above).
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    match check(result) {
        Err(error) if how == CloseHow::OnExec && error.raw_os_error() == Some(libc::EINVAL) => {
            close_on_exec_each(first)
        }
        other => other.map(drop),
    }
}

/// Closes every descriptor from 3 on but these.
///
/// As with [`close_range`] the values that own the others dangle: only a child that forgets them calls this.
///
/// # Errors
/// The errno of `close_range(2)`.
pub fn close_all_but(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let numbers = keep.iter().map(AsRawFd::as_raw_fd);
    let mut numbers: Vec<u32> = numbers.filter_map(|one| one.try_into().ok()).collect();
    numbers.sort_unstable();
    let mut next = 3;
    for number in numbers.into_iter().filter(|number| *number >= 3) {
        if number > next {
            close_range(next, number - 1, CloseHow::Now)?;
        }
        next = number + 1;
    }
    close_range(next, u32::MAX, CloseHow::Now)
}

fn close_on_exec_each(first: u32) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if i64::from(number) >= i64::from(first) {
            // SAFETY: F_SETFD on a number takes no pointer; EBADF for the listing's own descriptor is harmless.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Makes `target` a copy of `fd` that survives execve (also when both are the same number).
///
/// # Errors
/// The errno of `dup2(2)`.
pub fn duplicate_to(fd: BorrowedFd<'_>, target: i32) -> io::Result<()> {
    if fd.as_raw_fd() == target {
        // SAFETY: F_SETFD takes no pointer.
        let result = unsafe { libc::fcntl(target, libc::F_SETFD, 0) };
        return check(result.into()).map(drop);
    }
    // SAFETY: dup2 takes no pointer; `target` is a standard stream or a number the caller reserved in this child.
    let result = unsafe { libc::dup2(fd.as_raw_fd(), target) };
    check(result.into()).map(drop)
}

/// Moves `fd` to exactly `target`, close-on-exec, replacing what was there.
///
/// # Errors
/// The errno of `dup3(2)`.
pub fn move_to(fd: OwnedFd, target: i32) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() == target {
        return Ok(fd);
    }
    // SAFETY: dup3 takes no pointer; the caller, a child about to close everything else, reserved `target`.
    let result = unsafe { libc::dup3(fd.as_raw_fd(), target, libc::O_CLOEXEC) };
    check(result.into())?;
    // SAFETY: `target` is now a descriptor made by us.
    Ok(unsafe { OwnedFd::from_raw_fd(target) })
}

/// A copy of `fd` with a number not below `minimum`, close-on-exec.
///
/// # Errors
/// The errno of `fcntl(2)`.
pub fn duplicate_above(fd: BorrowedFd<'_>, minimum: i32) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, minimum)?)
}

/// Borrows one of the standard streams, or another number that is known to be open.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn borrow_number(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes no pointer and fails for a number that is not open.
    let result = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) };
    check(result.into())?;
    // SAFETY: the kernel just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// A file in memory with these bytes, to be handed to another process.
///
/// # Errors
/// The errno of `memfd_create(2)` or the write.
pub fn memory_file(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::io::{Seek, Write};
    let fd = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

/// Makes a pipe: `(read end, write end)`, both close-on-exec.
///
/// # Errors
/// The errno of `pipe2(2)`.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Waits until one of the descriptors can be read or has ended; says which. `None` after the time given.
///
/// # Errors
/// The errno of `poll(2)`.
pub fn wait_readable(
    fds: &[BorrowedFd<'_>],
    timeout: Option<std::time::Duration>,
) -> io::Result<Vec<bool>> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::new(fd, PollFlags::IN))
        .collect();
    let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
    rustix::io::retry_on_intr(|| poll(&mut polled, timeout.as_ref()))?;
    Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect())
}
