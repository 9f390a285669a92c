//! Reading the log of a container: its past (tail, since, until) and, if asked, what is being written.
//!
//! [`Logs`] answers blocks of the wire form (frames, or raw text for a terminal), as `GET
//! /containers/{id}/logs` sends them (Engine API 1.51). Files are read and parsed on blocking threads,
//! one block ahead of the client, and only when the client takes the blocks. The writer is the shim; it is
//! never asked and never waits. Must not decide whether a container may be read.

mod chain;
mod line;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use api::options::LogsOptions;
use api::time::Time;
use bytes::Bytes;
use memchr::{memchr, memrchr};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

pub use chain::ROTATED_FILES_MAX;
pub use line::Stream;

use chain::{Next, Position};

/// Bytes of a log file read at once, and about the size of an answered block.
const BLOCK_BYTES: usize = 256 * 1024;

/// A line longer than this is no line of ours (the shim cuts at 16 KiB, each byte at most six when
/// escaped) and is skipped.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// How often a follower looks for itself, where the kernel has no more inotify instances to give
/// (`fs.inotify.max_user_instances`, by default 128).
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// The form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Each line in a frame that names its stream: the container has no terminal.
    Frames,
    /// The text alone: the container has a terminal.
    Raw,
}

/// Room for several inotify events with names.
const EVENTS_BYTES: usize = 1024;

/// A future that is ready when the container no longer writes.
pub type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The log of one container as a client gets it, block by block.
pub struct Logs {
    work: Work,
    follow: Option<Follow>,
}

enum Work {
    Idle(Box<Reader>),
    Busy(JoinHandle<(Box<Reader>, io::Result<Block>)>),
    Over,
}

struct Follow {
    growth: Growth,
    ended: Option<Ended>,
}

enum Growth {
    /// An inotify descriptor; tokio's name for any descriptor that is only read from is a pipe.
    Watched(pipe::Receiver),
    Unwatched,
}

impl Logs {
    /// Opens the log at `path`. With `follow`, reading goes on until `ended` is ready and the last line
    /// written until then is read. A log that does not exist is empty. Needs a tokio runtime.
    ///
    /// # Errors
    /// The errno of watching the directory of the log.
    pub fn open(path: &Path, options: &LogsOptions, form: Form, ended: Ended) -> io::Result<Self> {
        let follow = if options.follow {
            let directory = path.parent().unwrap_or(Path::new("/"));
            Some(Follow {
                growth: Growth::watch(directory)?,
                ended: Some(ended),
            })
        } else {
            None
        };
        Ok(Self {
            work: Work::Idle(Box::new(Reader::new(path, options, form))),
            follow,
        })
    }

    /// The next block, or `None` at the end. Safe to cancel.
    ///
    /// # Errors
    /// The errno of reading the log.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let (reader, result) = self.step().await?;
            let block = match result {
                Ok(block) => block,
                Err(error) => return Some(Err(error)),
            };
            self.work = match (block.end, self.follow.is_some()) {
                (End::Over, _) | (End::Drained, false) => Work::Over,
                (End::Drained, true) => Work::Idle(reader),
                (End::More, _) => begin(reader),
            };
            if !block.bytes.is_empty() {
                return Some(Ok(block.bytes));
            }
            if matches!(self.work, Work::Idle(_)) {
                self.wait_for_growth().await;
            }
        }
    }

    async fn step(&mut self) -> Option<(Box<Reader>, io::Result<Block>)> {
        if let Work::Idle(_) = self.work {
            let Work::Idle(reader) = std::mem::replace(&mut self.work, Work::Over) else {
                unreachable!("the line above looked");
            };
            self.work = begin(reader);
        }
        let Work::Busy(handle) = &mut self.work else {
            return None;
        };
        let answer = handle.await;
        self.work = Work::Over;
        match answer {
            Ok(answer) => Some(answer),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Returns when the log may have grown. Once the container has ended, reading goes on to the end of
    /// what is there, and that is all.
    async fn wait_for_growth(&mut self) {
        let Some(follow) = &mut self.follow else {
            return;
        };
        let Some(ended) = &mut follow.ended else {
            return;
        };
        tokio::select! {
            () = ended => self.follow = None,
            () = follow.growth.wait() => {}
        }
    }
}

fn begin(mut reader: Box<Reader>) -> Work {
    // Awaited by the stream; a client that leaves meanwhile leaves one read of a file behind.
    Work::Busy(tokio::task::spawn_blocking(move || {
        let block = reader.block();
        (reader, block)
    }))
}

impl Growth {
    fn watch(directory: &Path) -> io::Result<Self> {
        match sys::inotify::watch(directory).and_then(pipe::Receiver::from_owned_fd_unchecked) {
            Ok(events) => Ok(Self::Watched(events)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
            Err(error) => {
                tracing::debug!(%error, "no inotify instance for a log follower: it looks by itself");
                Ok(Self::Unwatched)
            }
        }
    }

    async fn wait(&mut self) {
        if let Self::Watched(events) = self {
            match take_events(events).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(%error, "inotify failed: a log follower looks by itself");
                    *self = Self::Unwatched;
                }
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Waits for an event and takes all there are: what they say does not matter.
async fn take_events(events: &pipe::Receiver) -> io::Result<()> {
    events.readable().await?;
    let mut buffer = [0; EVENTS_BYTES];
    loop {
        match events.try_read(&mut buffer) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// A block of the wire form, and what comes after it.
#[derive(Debug)]
struct Block {
    bytes: Bytes,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// There is more to read.
    More,
    /// All that was written is read.
    Drained,
    /// Nothing further is wanted.
    Over,
}

/// Reads and renders; blocks the thread. Holds no buffer between the blocks of an idle follower.
struct Reader {
    path: PathBuf,
    wanted: Wanted,
    tail: Option<u64>,
    started: bool,
    files: VecDeque<Position>,
    /// The beginning of a line whose end was not read yet.
    rest: Vec<u8>,
    /// Skipping to the next newline, after a line that is too long.
    skipping: bool,
}

impl Reader {
    fn new(path: &Path, options: &LogsOptions, form: Form) -> Self {
        Self {
            path: path.to_owned(),
            wanted: Wanted {
                stdout: options.stdout,
                stderr: options.stderr,
                timestamps: options.timestamps,
                details: options.details,
                since_ns: options.since.map(Time::unix_nanos),
                until_ns: options.until.map(Time::unix_nanos),
                form,
            },
            tail: options.tail,
            started: false,
            files: VecDeque::new(),
            rest: Vec::new(),
            skipping: false,
        }
    }

    /// Renders about [`BLOCK_BYTES`], less at the end of what is written.
    fn block(&mut self) -> io::Result<Block> {
        if !self.started {
            self.files = chain::start(&self.path, self.tail)?.into();
            self.started = true;
        }
        let mut out = Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 4);
        let mut input = vec![0; BLOCK_BYTES];
        let end = loop {
            if out.len() >= BLOCK_BYTES {
                break End::More;
            }
            let Some(position) = self.files.front_mut() else {
                match chain::newest(&self.path)? {
                    Some(position) => self.files.push_back(position),
                    None => break End::Drained,
                }
                continue;
            };
            let count = position.file.read_at(&mut input, position.offset)?;
            if count == 0 {
                if self.advance()? {
                    continue;
                }
                break End::Drained;
            }
            position.offset += count as u64;
            if self.render(&input[..count], &mut out) == End::Over {
                break End::Over;
            }
        };
        Ok(Block {
            bytes: Bytes::from(out),
            end,
        })
    }

    /// Goes to the file after the one at its end; false when there is none.
    fn advance(&mut self) -> io::Result<bool> {
        if self.files.len() > 1 {
            self.files.pop_front();
            self.rest.clear();
            return Ok(true);
        }
        let Some(current) = self.files.front() else {
            return Ok(false);
        };
        let next = match chain::next(&self.path, current)? {
            Next::Rotated(next) => next,
            Next::Same => return self.begin_again_if_emptied(),
            Next::Missing => return Ok(false),
        };
        // Nothing is written to a file after it was renamed, but something may have been between our
        // last read and the rename: only a file at its end now is finished.
        if current.file.metadata()?.len() > current.offset {
            return Ok(true);
        }
        self.files = VecDeque::from([next]);
        self.rest.clear();
        Ok(true)
    }

    /// Somebody may empty the file under the shim's hands (`truncate -s 0`): what is written then begins at zero.
    fn begin_again_if_emptied(&mut self) -> io::Result<bool> {
        let Some(current) = self.files.front_mut() else {
            return Ok(false);
        };
        if current.file.metadata()?.len() >= current.offset {
            return Ok(false);
        }
        current.offset = 0;
        self.rest.clear();
        self.skipping = false;
        Ok(true)
    }

    /// Renders the lines that `input` completes.
    fn render(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> End {
        if self.skipping || !self.rest.is_empty() {
            let Some(newline) = memchr(b'\n', input) else {
                self.keep(input);
                return End::More;
            };
            let (head, tail) = input.split_at(newline + 1);
            input = tail;
            if !std::mem::take(&mut self.skipping) {
                let mut line = std::mem::take(&mut self.rest);
                line.extend_from_slice(&head[..newline]);
                if self.wanted.render(&line, out) == End::Over {
                    return End::Over;
                }
            }
        }
        let Some(last) = memrchr(b'\n', input) else {
            self.keep(input);
            return End::More;
        };
        let (lines, rest) = input.split_at(last + 1);
        let mut lines = lines;
        while let Some(newline) = memchr(b'\n', lines) {
            if self.wanted.render(&lines[..newline], out) == End::Over {
                return End::Over;
            }
            lines = &lines[newline + 1..];
        }
        self.keep(rest);
        End::More
    }

    fn keep(&mut self, part: &[u8]) {
        if self.skipping || self.rest.len() + part.len() > LINE_BYTES_MAX {
            self.rest = Vec::new();
            self.skipping = true;
            return;
        }
        self.rest.extend_from_slice(part);
    }
}

/// Which lines are wanted, and in which form.
struct Wanted {
    stdout: bool,
    stderr: bool,
    timestamps: bool,
    details: bool,
    since_ns: Option<i64>,
    until_ns: Option<i64>,
    form: Form,
}

/// Bytes of the header of a frame.
const HEADER_BYTES: usize = 8;

impl Wanted {
    /// Renders one line, if it is wanted. A line that cannot be parsed is left out: after a power cut the
    /// last one may be torn, and the next run of the container wrote behind it.
    fn render(&self, line: &[u8], out: &mut Vec<u8>) -> End {
        let begin = out.len();
        let header = match self.form {
            Form::Frames => HEADER_BYTES,
            Form::Raw => 0,
        };
        out.resize(begin + header, 0);
        let plain = !self.timestamps && !self.details;
        let mut text = Vec::new();
        let parsed = line::parse(line, if plain { out } else { &mut text });
        let Some(parsed) = parsed else {
            out.truncate(begin);
            return End::More;
        };
        match self.judge(&parsed) {
            Verdict::Wanted => {}
            Verdict::Unwanted => {
                out.truncate(begin);
                return End::More;
            }
            Verdict::Late => {
                out.truncate(begin);
                return End::Over;
            }
        }
        if self.timestamps {
            line::append_fixed_time(parsed.time.as_bytes(), out);
            out.push(b' ');
        }
        if self.details {
            append_details(&parsed.attributes, out);
            out.push(b' ');
        }
        out.extend_from_slice(&text);
        if header > 0 {
            let length = u32::try_from(out.len() - begin - header).unwrap_or(u32::MAX);
            out[begin] = parsed.stream as u8;
            out[begin + 4..begin + header].copy_from_slice(&length.to_be_bytes());
        }
        End::More
    }

    fn judge(&self, line: &line::Line<'_>) -> Verdict {
        if self.since_ns.is_some() || self.until_ns.is_some() {
            let at = line::nanoseconds(line.time.as_bytes());
            if let (Some(at), Some(until)) = (at, self.until_ns)
                && at > until
            {
                return Verdict::Late;
            }
            if at < self.since_ns {
                return Verdict::Unwanted;
            }
        }
        let wanted = match line.stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        };
        if wanted {
            Verdict::Wanted
        } else {
            Verdict::Unwanted
        }
    }
}

enum Verdict {
    Wanted,
    Unwanted,
    /// Written after the last moment that is wanted, and so is all that follows.
    Late,
}

/// `key=value,key=value`, each escaped as in a query (moby `daemon/logger/jsonfilelog`, `attrs`).
fn append_details(attributes: &[(String, String)], out: &mut Vec<u8>) {
    for (number, (key, value)) in attributes.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        append_escaped(key, out);
        out.push(b'=');
        append_escaped(value, out);
    }
}

fn append_escaped(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte),
            b' ' => out.push(b'+'),
            _ => out.extend([
                b'%',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]),
        }
    }
}
