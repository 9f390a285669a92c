//! Readiness: epoll, and what a single-threaded event loop needs beside it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

/// What to wait for. Errors and hang-ups are always reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest {
    /// Bytes to read, a connection to accept, an exited process.
    pub read: bool,
    /// Room to write.
    pub write: bool,
}

impl Interest {
    /// Waits for errors and hang-ups only.
    pub const NONE: Self = Self {
        read: false,
        write: false,
    };
    /// Waits for something to read.
    pub const READ: Self = Self {
        read: true,
        write: false,
    };
    /// Waits for room to write.
    pub const WRITE: Self = Self {
        read: false,
        write: true,
    };

    fn flags(self) -> epoll::EventFlags {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, self.read);
        flags.set(epoll::EventFlags::OUT, self.write);
        flags
    }
}

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The key given when the descriptor was added.
    pub key: u64,
    /// Reading will not block (an end of file or an error counts).
    pub readable: bool,
    /// Writing will not block (an error counts).
    pub writable: bool,
    /// The peer is gone: of a pipe, the other end is closed; of a socket, both directions are.
    pub hung_up: bool,
}

/// The longest wait that `epoll_pwait` can be asked for: Linux 5.10 has no other call, and counts milliseconds in an int.
/// Who waits longer is woken without an event, as after an interruption.
const TIMEOUT_MAX: Duration = Duration::from_millis(i32::MAX as u64);

/// How many events one wait returns at most; the kernel keeps the others for the next.
pub const EVENTS_MAX: usize = 32;

/// A set of descriptors to wait for (level-triggered, close-on-exec).
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// An empty set.
    ///
    /// # Errors
    /// The errno of epoll_create1.
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Adds a descriptor under `key`.
    ///
    /// # Errors
    /// The errno of epoll_ctl; `EPERM` for a regular file.
    pub fn add(&self, fd: BorrowedFd<'_>, key: u64, interest: Interest) -> io::Result<()> {
        epoll::add(
            &self.0,
            fd,
            epoll::EventData::new_u64(key),
            interest.flags(),
        )?;
        Ok(())
    }

    /// Changes what to wait for.
    ///
    /// # Errors
    /// The errno of epoll_ctl; `ENOENT` for one that was not added.
    pub fn modify(&self, fd: BorrowedFd<'_>, key: u64, interest: Interest) -> io::Result<()> {
        epoll::modify(
            &self.0,
            fd,
            epoll::EventData::new_u64(key),
            interest.flags(),
        )?;
        Ok(())
    }

    /// Takes a descriptor out, hang-ups included.
    ///
    /// # Errors
    /// The errno of epoll_ctl; `ENOENT` for one that was not added.
    pub fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        epoll::delete(&self.0, fd)?;
        Ok(())
    }

    /// Waits until something happens or `timeout` is over, and puts what happened into `events`.
    /// An interrupted wait returns nothing. Blocks; without a timeout, for ever.
    ///
    /// # Errors
    /// The errno of epoll_wait.
    pub fn wait(&self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        let timeout = timeout
            .map(|limit| limit.min(TIMEOUT_MAX))
            .map(|limit| Timespec {
                tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(limit.subsec_nanos()),
            });
        let mut buffer = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; EVENTS_MAX];
        let count = match epoll::wait(&self.0, &mut buffer[..], timeout.as_ref()) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        events.extend(buffer[..count].iter().map(|event| {
            let flags = event.flags;
            let failed = flags.contains(epoll::EventFlags::ERR);
            let hung_up = flags.contains(epoll::EventFlags::HUP);
            Event {
                key: event.data.u64(),
                readable: failed || hung_up || flags.contains(epoll::EventFlags::IN),
                writable: failed || flags.contains(epoll::EventFlags::OUT),
                hung_up: failed || hung_up,
            }
        }));
        Ok(())
    }
}

/// The set itself is readable while something in it is ready, so that sets can be nested.
impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes reads and writes through this open file return `WouldBlock` instead of waiting.
///
/// # Errors
/// The errno of fcntl.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?;
    Ok(())
}

/// Sets how many bytes a pipe holds before its writer waits. The kernel takes memory only as it fills.
///
/// # Errors
/// `EPERM` over the limit of an unprivileged user, `EBUSY` for less than is in it.
pub fn set_pipe_size(pipe: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    rustix::pipe::fcntl_setpipe_size(pipe, bytes)?;
    Ok(())
}

/// A counter that the kernel can be told to count events on (eventfd; non-blocking, close-on-exec).
///
/// # Errors
/// The errno of eventfd2.
pub fn counter() -> io::Result<OwnedFd> {
    use rustix::event::EventfdFlags;
    Ok(rustix::event::eventfd(
        0,
        EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
    )?)
}

/// Takes what a [`counter`] has counted, and sets it back to zero.
///
/// # Errors
/// `EAGAIN` when it is zero.
pub fn read_counter(counter: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::io::read(counter, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn reports_readable_then_hung_up_then_nothing() {
        let epoll = Epoll::new().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        epoll.add(reader.as_fd(), 7, Interest::READ).unwrap();
        let mut events = Vec::new();
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events, []);
        writer.write_all(b"x").unwrap();
        epoll.wait(&mut events, None).unwrap();
        let expected = Event {
            key: 7,
            readable: true,
            writable: false,
            hung_up: false,
        };
        assert_eq!(events, [expected]);
        epoll.modify(reader.as_fd(), 8, Interest::NONE).unwrap();
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events, []);
        drop(writer);
        epoll.wait(&mut events, None).unwrap();
        assert!(events[0].hung_up && events[0].key == 8);
        epoll.wait(&mut events, Some(Duration::MAX)).unwrap();
        assert!(events[0].hung_up, "a long wait is none at all");
        epoll.delete(reader.as_fd()).unwrap();
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events, []);
    }

    #[test]
    fn nonblocking_read_of_an_empty_pipe_returns() {
        let (mut reader, _writer) = io::pipe().unwrap();
        set_nonblocking(reader.as_fd()).unwrap();
        let error = io::Read::read(&mut reader, &mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
