//! One process the shim is the parent of: its standard streams, its exit.
//!
//! ```text
//! running ── pidfd readable: reaped, record written ──▶ exited, draining
//! draining ── outputs at their end, or DRAIN_LIMIT ───▶ announced
//! announced ── Acknowledge ───────────────────────────▶ forgotten (an exec with an open pipe: when it ends)
//! ```

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use sys::epoll::Interest;

use crate::log::Splitter;
use crate::protocol::{Exit, Streams};

/// Bytes a standard stream's pipe holds: fewer wake-ups for a process that writes much. The kernel takes
/// pages only for what is in it.
const PIPE_BYTES: usize = 256 << 10;

/// How long the announcement of an exit waits for the output to end. A background process that keeps the
/// pipe open does not delay it further (dockerd waits as long, measured).
pub(crate) const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// What more than its limit may wait for a client once the process has exited: all that its pipes can hold.
pub(crate) const DRAIN_BYTES: usize = 3 * PIPE_BYTES;

/// How many bytes of standard input wait for the process at most before clients are left unread.
pub(crate) const STDIN_BYTES: usize = 64 << 10;

/// An output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// Its name in the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// Its number in Docker's stream format.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    /// Whether a client of `streams` gets it.
    pub(crate) fn is_in(self, streams: Streams) -> bool {
        match self {
            Self::Stdout => streams.stdout,
            Self::Stderr => streams.stderr,
        }
    }
}

/// The reading end of an output stream.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stream: Stream,
    pub(crate) file: File,
    pub(crate) key: u64,
    pub(crate) interest: Interest,
    pub(crate) splitter: Splitter,
}

/// What one read gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    Bytes(usize),
    Nothing,
    End,
}

/// Reads once. A terminal whose last user has gone answers `EIO`: that is its end.
pub(crate) fn read_some(mut file: impl Read, buffer: &mut [u8]) -> ReadOutcome {
    read_by(|| file.read(buffer))
}

/// As [`read_some`], by a call that reads once.
pub(crate) fn read_by(mut read: impl FnMut() -> io::Result<usize>) -> ReadOutcome {
    loop {
        match read() {
            Ok(0) => return ReadOutcome::End,
            Ok(count) => return ReadOutcome::Bytes(count),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return ReadOutcome::Nothing,
                io::ErrorKind::Interrupted => {}
                _ => return ReadOutcome::End,
            },
        }
    }
}

/// The writing end of standard input.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) file: File,
    pub(crate) key: u64,
    pub(crate) interest: Interest,
    pending: VecDeque<u8>,
    /// No more comes: it is closed when nothing is pending.
    pub(crate) ended: bool,
}

impl Input {
    pub(crate) fn new(file: File, key: u64) -> Self {
        Self {
            file,
            key,
            interest: Interest::NONE,
            pending: VecDeque::new(),
            ended: false,
        }
    }

    /// Takes bytes of a client.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.pending.extend(bytes);
    }

    /// Whether clients have to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.pending.len() >= STDIN_BYTES
    }

    /// Writes what the process takes. `false` when the input is over: nobody reads it, or all was written and it ended.
    pub(crate) fn write_pending(&mut self) -> bool {
        while !self.pending.is_empty() {
            let (front, _) = self.pending.as_slices();
            match self.file.write(front) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return true,
                    io::ErrorKind::Interrupted => {}
                    _ => return false,
                },
            }
        }
        !self.ended
    }

    /// What epoll should wait for.
    pub(crate) fn wanted(&self) -> Interest {
        Interest {
            read: false,
            write: !self.pending.is_empty(),
        }
    }

    /// Gives spare memory back.
    pub(crate) fn release_memory(&mut self) {
        self.pending.shrink_to_fit();
    }
}

/// Our ends of a process's standard streams, non-blocking.
#[derive(Debug)]
pub(crate) enum Ends {
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    Terminal(OwnedFd),
}

impl Ends {
    /// Makes the pipes of a process: our ends, and the three descriptors it gets. Without `stdin` it reads /dev/null.
    ///
    /// # Errors
    /// The errno of pipe or open.
    pub(crate) fn pipes(stdin: bool) -> io::Result<(Self, [OwnedFd; 3])> {
        let (ours_in, theirs_in) = if stdin {
            let (reader, writer) = io::pipe()?;
            sys::epoll::set_nonblocking(writer.as_fd())?;
            (Some(OwnedFd::from(writer)), OwnedFd::from(reader))
        } else {
            (None, OwnedFd::from(File::open("/dev/null")?))
        };
        let (stdout, theirs_out) = output_pipe()?;
        let (stderr, theirs_err) = output_pipe()?;
        let ours = Self::Pipes {
            stdin: ours_in,
            stdout,
            stderr,
        };
        Ok((ours, [theirs_in, theirs_out, theirs_err]))
    }

    /// Takes the master of a terminal.
    ///
    /// # Errors
    /// The errno of fcntl.
    pub(crate) fn terminal(master: OwnedFd) -> io::Result<Self> {
        sys::epoll::set_nonblocking(master.as_fd())?;
        Ok(Self::Terminal(master))
    }
}

fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    sys::epoll::set_nonblocking(reader.as_fd())?;
    // The default size does as well: a user's share of pipe memory may be used up.
    drop(sys::epoll::set_pipe_size(reader.as_fd(), PIPE_BYTES));
    Ok((reader.into(), writer.into()))
}

/// When standard input ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StdinEnd {
    /// A client's half-close ends it.
    WithClient,
    /// A client's half-close ends only that client's session.
    Never,
}

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) exit_key: u64,
    pub(crate) terminal: bool,
    pub(crate) stdin: Option<Input>,
    pub(crate) stdin_end: StdinEnd,
    pub(crate) outputs: Vec<Output>,
    /// Whether its output goes into the log.
    pub(crate) logged: bool,
    pub(crate) exit: Option<Exit>,
    /// Since when it is drained.
    pub(crate) exited_at: Option<Instant>,
    pub(crate) announced: bool,
    pub(crate) acknowledged: bool,
}

impl Process {
    /// Whether the exit can be announced now.
    pub(crate) fn is_drained(&self, now: Instant) -> bool {
        self.exited_at
            .is_some_and(|at| self.outputs.is_empty() || now >= at + DRAIN_LIMIT)
    }

    /// When the exit is announced at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.exited_at
            .filter(|_| !self.announced)
            .map(|at| at + DRAIN_LIMIT)
    }

    /// Whether a client of `streams` will get nothing more.
    pub(crate) fn is_over_for(&self, streams: Streams) -> bool {
        let wants = |stream: Stream| stream.is_in(streams);
        let any = wants(Stream::Stdout) || wants(Stream::Stderr);
        self.announced || (any && !self.outputs.iter().any(|output| wants(output.stream)))
    }

    /// What more than its limit may wait for a client.
    pub(crate) fn drain_bytes(&self) -> usize {
        if self.exit.is_some() { DRAIN_BYTES } else { 0 }
    }
}
