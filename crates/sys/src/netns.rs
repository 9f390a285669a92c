//! Network namespaces without a process of their own: made and entered by short-lived threads.
//!
//! A namespace is its descriptor (`/proc/thread-self/ns/net`, opened, never mounted anywhere): it is
//! gone once the last descriptor and the last process of it are.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Stack of the threads that change namespace, in bytes: they run a few system calls.
const STACK_BYTES: usize = 128 * 1024;

/// Makes a network namespace and runs `inside` in it. Returns its descriptor and what `inside` answered.
///
/// # Errors
/// The errno of the thread, of unshare (EPERM, ENOSPC beyond the user's limit) or of opening the
/// namespace; or the error of `inside`.
pub fn create<T: Send>(inside: impl FnOnce() -> io::Result<T> + Send) -> io::Result<(OwnedFd, T)> {
    on_a_thread(|| {
        // SAFETY: without FILES the flag cannot take descriptors away from other threads, and the
        // namespace of this thread alone changes, which ends right after.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
        let fd = current()?;
        let answer = inside()?;
        Ok((fd, answer))
    })
}

/// Runs `inside` on a thread that is in the network namespace `namespace`. Files of `/proc/sys/net` and
/// sockets opened there belong to it.
///
/// # Errors
/// The errno of the thread or of setns, or the error of `inside`.
pub fn enter<T: Send>(
    namespace: BorrowedFd<'_>,
    inside: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    on_a_thread(|| {
        rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
        inside()
    })
}

/// The network namespace of the calling thread.
///
/// # Errors
/// The errno of open.
pub fn current() -> io::Result<OwnedFd> {
    File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
}

/// `lo` is the first interface of every network namespace.
pub const LOOPBACK_INDEX: u32 = 1;

/// Raises `lo` of the calling thread's namespace, in which nobody reaches 127.0.0.1 before.
///
/// # Errors
/// The errno of netlink: EPERM without CAP_NET_ADMIN over the namespace.
pub fn raise_loopback() -> io::Result<()> {
    let changes = crate::link::Changes::new().up(LOOPBACK_INDEX, None);
    crate::link::Links::open()?.apply(changes)
}

/// Two descriptors are of one namespace.
///
/// # Errors
/// The errno of fstat.
pub fn same(one: impl AsFd, other: impl AsFd) -> io::Result<bool> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("netns".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_entered_by_the_thread_and_left_with_it() {
        if !testkit::is_root() {
            return;
        }
        let before = current().unwrap();
        let (fd, inside) = create(current).unwrap();
        assert!(same(&fd, &inside).unwrap());
        assert!(!same(&fd, &before).unwrap());
        let entered = enter(fd.as_fd(), current).unwrap();
        assert!(same(&fd, &entered).unwrap());
        assert!(same(&before, current().unwrap()).unwrap());
    }
}
