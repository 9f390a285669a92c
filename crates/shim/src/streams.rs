//! Standard streams: from the process to the log and to every attached client, and from clients to the process.
//!
//! Nothing is read that cannot be put somewhere: while a client's outbox is full its process's pipe is left
//! alone, and while the process does not read its standard input clients are left alone.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use sys::clock::Stamp;
use sys::epoll::Interest;

use crate::connection::{Ending, Gone, Role};
use crate::process::{ReadOutcome, StdinEnd, Stream, read_some};
use crate::protocol::{Notice, ProcessId, Streams};
use crate::supervisor::{FRAME_BYTES, HEADER_BYTES, READ_BYTES, Supervisor};

impl Supervisor {
    /// Reads an output once and passes on what it gave.
    pub(crate) fn pass_on(&mut self, id: &ProcessId, stream: Stream) {
        self.need_scratch();
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        let Some(at) = process.outputs.iter().position(|o| o.stream == stream) else {
            return;
        };
        let output = &mut process.outputs[at];
        if output.interest == Interest::NONE {
            return; // a hang-up is reported although clients are full
        }
        match read_some(&output.file, &mut self.scratch[HEADER_BYTES..]) {
            ReadOutcome::Nothing => {}
            ReadOutcome::Bytes(count) => {
                if process.logged
                    && let Some(log) = &mut self.log
                {
                    let bytes = &self.scratch[HEADER_BYTES..HEADER_BYTES + count];
                    let append = |piece: crate::log::Piece<'_>| log.append(stream.name(), piece);
                    output.splitter.push(bytes, &Stamp::now(), append);
                }
                self.deliver(id, stream, count);
                self.flush_log();
            }
            ReadOutcome::End => self.end_output(id, at),
        }
    }

    /// Sends the frame in `scratch` to every client that wants it.
    fn deliver(&mut self, id: &ProcessId, stream: Stream, count: usize) {
        let Some(process) = self.processes.get(id) else {
            return;
        };
        let terminal = process.terminal;
        let extra = process.drain_bytes();
        let length = u32::try_from(count).expect("a read is shorter than 4 GiB");
        let mut header = [stream.number(), 0, 0, 0, 0, 0, 0, 0];
        header[4..].copy_from_slice(&length.to_be_bytes());
        self.scratch[..HEADER_BYTES].copy_from_slice(&header);
        let from = if terminal { HEADER_BYTES } else { 0 };
        let scratch = std::mem::take(&mut self.scratch);
        let frame = &scratch[from..HEADER_BYTES + count];
        let mut full = false;
        for key in self.attached(id) {
            let Some(connection) = self.connections.get_mut(&key) else {
                continue;
            };
            if !connection.takes(stream) {
                continue;
            }
            let sent = connection.send(frame);
            full |= connection.is_full(FRAME_BYTES, extra);
            match sent {
                Ok(()) => self.refresh(key),
                Err(Gone) => self.drop_connection(key),
            }
        }
        self.scratch = scratch;
        if full {
            self.refresh_outputs(id);
        }
    }

    /// The application goes on without a client that takes nothing. It is told, whenever it reads on.
    pub(crate) fn give_up(&mut self, key: u64) {
        let Some(connection) = self.connections.get(&key) else {
            return;
        };
        let Role::Attached { process: id, .. } = &connection.role else {
            return;
        };
        let id = id.clone();
        let terminal = self.processes.get(&id).is_some_and(|p| p.terminal);
        let last = last_words(terminal, self.stall_limit);
        self.with_connection(key, |connection| connection.give_up(&last));
        self.refresh_outputs(&id);
    }

    fn attached(&self, id: &ProcessId) -> Vec<u64> {
        let is_attached =
            |role: &Role| matches!(role, Role::Attached { process, .. } if process == id);
        self.connections
            .iter()
            .filter(|(_, connection)| is_attached(&connection.role))
            .map(|(&key, _)| key)
            .collect()
    }

    /// Writes the log lines collected, and says so if the disk did not take them.
    pub(crate) fn flush_log(&mut self) {
        let Some(log) = &mut self.log else { return };
        log.flush();
        if let Some(message) = log.take_failure() {
            self.notify(&Notice::LogFailed { message });
        }
    }

    fn end_output(&mut self, id: &ProcessId, at: usize) {
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        let mut output = process.outputs.remove(at);
        if process.logged
            && let Some(log) = &mut self.log
        {
            let append = |piece: crate::log::Piece<'_>| log.append(output.stream.name(), piece);
            output.splitter.finish(&Stamp::now(), append);
        }
        let forgotten = process.acknowledged && process.outputs.is_empty();
        self.unwatch(output.key, output.file.as_fd());
        self.flush_log();
        self.finish_clients(id);
        self.announce_if_drained(id);
        if forgotten {
            self.forget(id);
        }
    }

    /// Ends the streams of clients that will get nothing more.
    pub(crate) fn finish_clients(&mut self, id: &ProcessId) {
        for key in self.attached(id) {
            let (Some(connection), process) = (self.connections.get(&key), self.processes.get(id))
            else {
                continue;
            };
            let over = match &connection.role {
                Role::Attached { streams, .. } => process.is_none_or(|p| p.is_over_for(*streams)),
                Role::Requests { .. } => false,
            };
            if over && connection.ending == Ending::No {
                self.with_connection(key, |connection| {
                    connection.ending = Ending::Requested;
                    connection.flush()
                });
            }
        }
    }

    /// Reads outputs, or leaves them, as the clients' outboxes allow.
    pub(crate) fn refresh_outputs(&mut self, id: &ProcessId) {
        let extra = self.drain_bytes(id);
        let blocked = |stream: Stream| {
            self.connections.values().any(|connection| {
                let ours =
                    matches!(&connection.role, Role::Attached { process, .. } if process == id);
                ours && connection.takes(stream) && connection.is_full(FRAME_BYTES, extra)
            })
        };
        let blocked = [blocked(Stream::Stdout), blocked(Stream::Stderr)];
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        for output in &mut process.outputs {
            let is_blocked = match output.stream {
                Stream::Stdout => blocked[0],
                Stream::Stderr => blocked[1],
            };
            let wanted = if is_blocked {
                Interest::NONE
            } else {
                Interest::READ
            };
            if output.interest == wanted {
                continue;
            }
            // A blocked output is taken out: epoll would report its hang-up for ever.
            let done = if is_blocked {
                self.epoll.delete(output.file.as_fd())
            } else {
                self.epoll.add(output.file.as_fd(), output.key, wanted)
            };
            if done.is_ok() {
                output.interest = wanted;
            }
        }
    }

    /// Whether a client's standard input has to wait for the process.
    pub(crate) fn is_stdin_full(&self, id: &ProcessId, streams: Streams) -> bool {
        streams.stdin
            && self
                .processes
                .get(id)
                .and_then(|process| process.stdin.as_ref())
                .is_some_and(crate::process::Input::is_full)
    }

    /// Which streams of which process a client is attached to, while it still sends.
    fn sender(&self, key: u64) -> Option<(ProcessId, Streams)> {
        let Role::Attached {
            process,
            streams,
            open: true,
        } = &self.connections.get(&key)?.role
        else {
            return None;
        };
        Some((process.clone(), *streams))
    }

    /// Takes what an attached client sent.
    pub(crate) fn take_stdin(&mut self, key: u64) {
        self.need_scratch();
        let Some((id, streams)) = self.sender(key) else {
            return;
        };
        let connection = &self.connections[&key];
        match read_some(&connection.stream, &mut self.scratch[..READ_BYTES]) {
            ReadOutcome::Nothing => {}
            ReadOutcome::Bytes(count) => {
                let scratch = std::mem::take(&mut self.scratch);
                self.push_stdin(&id, streams, &scratch[..count]);
                self.scratch = scratch;
            }
            ReadOutcome::End => self.end_client_input(key, &id, streams),
        }
    }

    /// Gives bytes of a client to the process; without standard input they are dropped.
    pub(crate) fn push_stdin(&mut self, id: &ProcessId, streams: Streams, bytes: &[u8]) {
        let stdin = self.processes.get_mut(id).and_then(|p| p.stdin.as_mut());
        if let Some(stdin) = stdin
            && streams.stdin
            && !stdin.ended
        {
            stdin.push(bytes);
            self.feed(id);
        }
    }

    /// A client has half-closed. As dockerd does: that ends the standard input it is the only source of, and
    /// otherwise the client's session (measured: without StdinOnce, or with a terminal).
    fn end_client_input(&mut self, key: u64, id: &ProcessId, streams: Streams) {
        self.with_connection(key, |connection| {
            if let Role::Attached { open, .. } = &mut connection.role {
                *open = false;
            }
            Ok(())
        });
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        let ends_stdin = process.stdin_end == StdinEnd::WithClient && !process.terminal;
        let Some(stdin) = process.stdin.as_mut().filter(|_| streams.stdin) else {
            return;
        };
        if ends_stdin {
            stdin.ended = true;
            self.feed(id);
        } else {
            self.with_connection(key, |connection| {
                if connection.ending == Ending::No {
                    connection.ending = Ending::Requested;
                }
                connection.flush()
            });
        }
    }

    /// Writes pending standard input, closes it when it is over, lets clients send again.
    pub(crate) fn feed(&mut self, id: &ProcessId) {
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        let Some(stdin) = &mut process.stdin else {
            return;
        };
        let was_full = stdin.is_full();
        let goes_on = stdin.write_pending();
        let is_full = stdin.is_full();
        let wanted = stdin.wanted();
        if !goes_on {
            let stdin = process.stdin.take();
            if let Some(stdin) = stdin {
                self.unwatch(stdin.key, stdin.file.as_fd());
            }
        } else if stdin.interest != wanted
            && self
                .epoll
                .modify(stdin.file.as_fd(), stdin.key, wanted)
                .is_ok()
        {
            stdin.interest = wanted;
        }
        if !goes_on || was_full != is_full {
            self.refresh_attached(id);
        }
    }

    pub(crate) fn refresh_attached(&mut self, id: &ProcessId) {
        for key in self.attached(id) {
            let hung_up = self
                .connections
                .get(&key)
                .is_some_and(crate::connection::Connection::has_left);
            if hung_up {
                self.drain_hung_up(key);
            } else {
                self.refresh(key);
            }
        }
    }

    /// A client that has closed altogether: what it sent before still goes to the process, as far as that
    /// takes it; then it is forgotten.
    pub(crate) fn drain_hung_up(&mut self, key: u64) {
        loop {
            let Some((process, streams)) = self.sender(key) else {
                return self.drop_connection(key);
            };
            if self.is_stdin_full(&process, streams) {
                // Out of epoll, which would report the hang-up for ever; `feed` comes back here.
                return self.take_out(key);
            }
            self.take_stdin(key);
        }
    }

    fn take_out(&mut self, key: u64) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        if connection.has_left() {
            return;
        }
        connection.leave();
        // Cannot fail for a descriptor that is in it.
        drop(self.epoll.delete(connection.stream.as_fd()));
        if let Role::Attached { process, .. } = &connection.role {
            let process = process.clone();
            self.refresh_outputs(&process);
        }
    }

    /// Announces an exit whose output has ended.
    pub(crate) fn announce_if_drained(&mut self, id: &ProcessId) {
        let now = Instant::now();
        if let Some(process) = self.processes.get(id)
            && !process.announced
            && process.is_drained(now)
        {
            self.announce(id);
        }
    }
}

/// The number of errors in Docker's stream format (moby `pkg/stdcopy`, `Systemerr`): clients end with their text.
const SYSTEM_ERROR: u8 = 3;

/// What ends the stream of a client that lost output: an error frame, or a line on its terminal.
fn last_words(terminal: bool, limit: Duration) -> Vec<u8> {
    let text = format!(
        "output was lost from here on: this client read nothing for {} s, and the container does not wait longer",
        limit.as_secs()
    );
    if terminal {
        return format!("\r\n{text}\r\n").into_bytes();
    }
    let length = u32::try_from(text.len()).expect("one line is shorter than 4 GiB");
    let mut frame = vec![SYSTEM_ERROR, 0, 0, 0];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    frame
}
