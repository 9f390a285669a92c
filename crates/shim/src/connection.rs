//! One connection to the shim: what it is for, and what waits to be sent over it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use sys::epoll::Interest;

use crate::codec::Decoder;
use crate::process::Stream;
use crate::protocol::{ProcessId, Streams};

/// How many bytes wait for one attached client at most before its process's output is left in the pipe.
pub(crate) const OUTBOX_BYTES: usize = 1 << 20;

/// How long a client with a full outbox may take nothing before the container's application goes on without it:
/// longer than somebody looks at the first page of a pager, and no application may hang for ever on a client that
/// forgot it. Nobody else reads an exec's output: that waits as long as its client lives, as dockerd does.
pub(crate) const STALL_LIMIT: Duration = Duration::from_secs(60);

/// How long a client may take to close its side once it was sent everything. What it has not read yet stays
/// readable for it.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// How many bytes of replies and notices wait for one client at most: a client that does not read them is dropped.
const MESSAGES_BYTES: usize = 4 << 20;

/// What a connection is for.
#[derive(Debug)]
pub(crate) enum Role {
    /// Requests come in, replies go out; with `watch`, notices go out too.
    Requests {
        decoder: Decoder,
        fds: Vec<OwnedFd>,
        watch: bool,
    },
    /// A byte stream of a process.
    Attached {
        process: ProcessId,
        streams: Streams,
        /// The client still sends standard input.
        open: bool,
    },
}

/// How far the shim's side of the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// More may be sent.
    No,
    /// The write side is shut when the outbox is empty.
    Requested,
    /// It is shut; the client has until then to close its own.
    Shut,
}

/// A connection and its outgoing bytes.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: UnixStream,
    pub(crate) role: Role,
    /// Whether it is the one that the daemon handed us at birth.
    pub(crate) control: bool,
    pub(crate) ending: Ending,
    /// What epoll was told; `None` when the descriptor was taken out after a hang-up.
    pub(crate) interest: Option<Interest>,
    outbox: VecDeque<u8>,
    /// When bytes of the outbox were last taken, or when it last became non-empty.
    progress_at: Instant,
}

/// What a connection is late with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// It takes no more of a process's output, and others wait for it.
    Stalled,
    /// It does not close its side.
    Closing,
}

/// The client is gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gone;

impl Connection {
    pub(crate) fn new(stream: UnixStream, control: bool) -> Self {
        Self {
            stream,
            role: Role::Requests {
                decoder: Decoder::new(),
                fds: Vec::new(),
                watch: false,
            },
            control,
            ending: Ending::No,
            interest: Some(Interest::READ),
            outbox: VecDeque::new(),
            progress_at: Instant::now(),
        }
    }

    /// Sends bytes: directly when nothing waits, and what the socket does not take waits.
    ///
    /// # Errors
    /// [`Gone`] when nobody will read them.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        let mut rest = bytes;
        if self.outbox.is_empty() {
            let sent = self.write_some(rest)?;
            rest = &rest[sent..];
            self.progress_at = Instant::now();
        }
        self.outbox.extend(rest);
        match self.role {
            Role::Requests { .. } if self.outbox.len() > MESSAGES_BYTES => Err(Gone),
            Role::Requests { .. } | Role::Attached { .. } => Ok(()),
        }
    }

    /// Sends what waits, and shuts the write side if that was requested.
    ///
    /// # Errors
    /// [`Gone`] as for [`Connection::send`].
    pub(crate) fn flush(&mut self) -> Result<(), Gone> {
        while !self.outbox.is_empty() {
            let sent = {
                let (front, _) = self.outbox.as_slices();
                write_some(&self.stream, front)?
            };
            if sent == 0 {
                return Ok(());
            }
            self.outbox.drain(..sent);
            self.progress_at = Instant::now();
        }
        if self.ending == Ending::Requested {
            self.ending = Ending::Shut;
            self.progress_at = Instant::now();
            self.stream
                .shutdown(std::net::Shutdown::Write)
                .map_err(|_gone| Gone)?;
        }
        Ok(())
    }

    fn write_some(&self, bytes: &[u8]) -> Result<usize, Gone> {
        write_some(&self.stream, bytes)
    }

    /// The client has closed: it takes nothing more, and only what it sent is still used.
    pub(crate) fn leave(&mut self) {
        self.interest = None;
        self.outbox.clear();
    }

    /// Whether [`Connection::leave`] was called.
    pub(crate) fn has_left(&self) -> bool {
        self.interest.is_none()
    }

    /// Whether nothing waits to be sent.
    pub(crate) fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Whether bytes of `stream` are still to be sent over it.
    pub(crate) fn takes(&self, stream: Stream) -> bool {
        match &self.role {
            Role::Attached { streams, .. } => {
                self.ending == Ending::No && stream.is_in(*streams) && !self.has_left()
            }
            Role::Requests { .. } => false,
        }
    }

    /// Whether `next` more bytes would exceed the limit and `extra`.
    pub(crate) fn is_full(&self, next: usize, extra: usize) -> bool {
        self.outbox.len() + next > OUTBOX_BYTES + extra
    }

    /// When something is to be done about the connection if nothing happens, and what.
    pub(crate) fn deadline(
        &self,
        next: usize,
        stall_limit: Duration,
    ) -> Option<(Instant, Overdue)> {
        if self.has_left() {
            return None;
        }
        let (limit, overdue) = match (&self.role, self.ending) {
            (
                Role::Attached {
                    process: ProcessId::Init,
                    ..
                },
                Ending::No,
            ) if self.is_full(next, 0) => (stall_limit, Overdue::Stalled),
            // The end of a stream is taken by a client whenever it pleases: nobody waits for it.
            (Role::Attached { .. }, Ending::No | Ending::Requested)
            | (Role::Requests { .. }, Ending::No) => return None,
            (Role::Requests { .. }, Ending::Requested) | (_, Ending::Shut) => {
                (CLOSE_LIMIT, Overdue::Closing)
            }
        };
        Some((self.progress_at + limit, overdue))
    }

    /// Ends the stream of a client that takes nothing: after what waits for it comes `last`, and then the end.
    ///
    /// # Errors
    /// [`Gone`] as for [`Connection::send`].
    pub(crate) fn give_up(&mut self, last: &[u8]) -> Result<(), Gone> {
        self.outbox.extend(last);
        self.ending = Ending::Requested;
        self.flush()
    }

    /// What epoll should wait for, given whether reading is welcome.
    pub(crate) fn wanted(&self, read: bool) -> Interest {
        Interest {
            read,
            write: !self.outbox.is_empty(),
        }
    }

    /// Gives spare memory back.
    pub(crate) fn release_memory(&mut self) {
        self.outbox.shrink_to_fit();
    }
}

fn write_some(mut stream: &UnixStream, bytes: &[u8]) -> Result<usize, Gone> {
    loop {
        match stream.write(bytes) {
            Ok(count) => return Ok(count),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(0),
                io::ErrorKind::Interrupted => {}
                _ => return Err(Gone),
            },
        }
    }
}
