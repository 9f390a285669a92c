//! Work that changes what a process is, done by a child that ends with it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::{CloneRequest, clone, wait};

/// Has a child do `work` and hands over the descriptor that it makes: a mount from a namespace that only the child
/// enters. Blocks. As for [`clone`] the caller has one thread.
///
/// # Errors
/// The errno of `work`; those of [`clone`] and of the socket between the two.
pub fn errand(work: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    let (ours, theirs) = crate::socket::message_pair()?;
    let child = clone(CloneRequest::default(), || {
        let sent = match work() {
            Ok(fd) => {
                crate::socket::send_with_fds(theirs.as_fd(), &0i32.to_ne_bytes(), &[fd.as_fd()])
            }
            Err(error) => {
                let errno = crate::error::errno(&error).unwrap_or(libc::EIO);
                crate::socket::send_with_fds(theirs.as_fd(), &errno.to_ne_bytes(), &[])
            }
        };
        i32::from(sent.is_err())
    })?;
    drop(theirs);
    let answer = crate::socket::receive_message(ours.as_fd());
    wait(child.pidfd.as_fd())?;
    let (bytes, mut fds) = answer?;
    let errno = bytes
        .as_slice()
        .try_into()
        .map_or(libc::EIO, i32::from_ne_bytes);
    match (errno, fds.pop()) {
        (0, Some(fd)) => Ok(fd),
        (0, None) => Err(io::Error::from_raw_os_error(libc::EIO)),
        (errno, _) => Err(io::Error::from_raw_os_error(errno)),
    }
}
