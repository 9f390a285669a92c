//! The event loop: who is watched, what is dispatched where, when it ends.
//!
//! One thread, level-triggered epoll, every descriptor under a key that is never used twice (an event of
//! something that was dropped in the same round finds nothing). All waits are here; nothing else blocks,
//! but for the runtime while it makes a process.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use network::Forward;
use network::relay::Relay;
use sys::epoll::{Epoll, Event, Interest};

use crate::codec;
use crate::connection::{Connection, Ending, Gone, Overdue, Role, STALL_LIMIT};
use crate::container::{Container, Parked};
use crate::log;
use crate::process::{DRAIN_BYTES, Ends, Input, Output, Process, StdinEnd, Stream};
use crate::protocol::{FailureKind, Notice, ProcessId, Reply};

/// Bytes of the header before each frame of Docker's stream format.
pub(crate) const HEADER_BYTES: usize = 8;
/// Bytes read at once.
pub(crate) const READ_BYTES: usize = 64 << 10;
/// What one read adds to a client's outbox at most.
pub(crate) const FRAME_BYTES: usize = HEADER_BYTES + READ_BYTES;

/// Connections served at once; with [`EXECS_MAX`] × 4 it stays below the usual limit of 1,024 descriptors. The relay of
/// published ports in the same process has limits of its own: where all are used at once descriptors run out, and what
/// comes next waits in the backlog.
const CONNECTIONS_MAX: usize = 384;
/// How many of them may be streams: the others are for the daemon's requests, so that a container with many
/// attached clients can still be stopped.
pub(crate) const ATTACHED_MAX: usize = 320;
/// How long no connection is accepted after one could not be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Exec processes at once.
pub(crate) const EXECS_MAX: usize = 128;

/// After this long without an event the buffers are given back to the kernel.
const IDLE: Duration = Duration::from_millis(500);

/// What an epoll key stands for.
#[derive(Debug, Clone)]
pub(crate) enum Watched {
    Listener,
    Connection,
    Output(ProcessId, Stream),
    Input(ProcessId),
    Exit(ProcessId),
    Memory,
    Relay,
}

/// Why the loop goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// No container yet: the control connection is what we live for.
    Controlled,
    /// A container: until its exit is acknowledged.
    Container,
    /// Only until every client has its bytes.
    Ending,
}

/// The whole state of a shim.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) epoll: Epoll,
    next_key: u64,
    pub(crate) watched: BTreeMap<u64, Watched>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) listener: Option<UnixListener>,
    /// [`STALL_LIMIT`]; tests have less patience.
    pub(crate) stall_limit: Duration,
    /// When the listener goes back into epoll, if it was taken out.
    listens_again_at: Option<Instant>,
    pub(crate) processes: BTreeMap<ProcessId, Process>,
    pub(crate) container: Option<Container>,
    pub(crate) parked: Option<Parked>,
    pub(crate) log: Option<log::Writer>,
    /// The published ports and their key, until the init has exited.
    relay: Option<(u64, Relay)>,
    pub(crate) lifetime: Lifetime,
    /// Header and payload of the frame being passed on; also the buffer of every other read.
    pub(crate) scratch: Vec<u8>,
}

impl Supervisor {
    /// A shim that serves `control`.
    ///
    /// # Errors
    /// The errno of epoll or fcntl.
    pub(crate) fn new(control: UnixStream) -> io::Result<Self> {
        let mut supervisor = Self {
            epoll: Epoll::new()?,
            next_key: 0,
            watched: BTreeMap::new(),
            connections: BTreeMap::new(),
            listener: None,
            stall_limit: STALL_LIMIT,
            listens_again_at: None,
            processes: BTreeMap::new(),
            container: None,
            parked: None,
            log: None,
            relay: None,
            lifetime: Lifetime::Controlled,
            scratch: Vec::new(),
        };
        control.set_nonblocking(true)?;
        supervisor.add_connection(control, Origin::Control)?;
        Ok(supervisor)
    }

    /// Serves until there is nothing left to live for.
    ///
    /// # Errors
    /// The errno of epoll_wait, which a working kernel never gives.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::new();
        let mut idle_at = None;
        while !self.is_over() {
            let now = Instant::now();
            let until = self.deadline().into_iter().chain(idle_at).min();
            let timeout = until.map(|at| at.saturating_duration_since(now));
            self.epoll.wait(&mut events, timeout)?;
            for event in &events {
                self.handle(*event);
            }
            let now = Instant::now();
            self.expire(now);
            if !events.is_empty() {
                idle_at = Some(now + IDLE);
            } else if idle_at.is_some_and(|at| now >= at) {
                self.release_memory();
                idle_at = None;
            }
        }
        if let Some(parked) = self.parked.take() {
            // What the kernel keeps, the daemon's sweep removes.
            drop(parked.remove());
        }
        // Before the connections: where they end, the root has ended.
        drop(self.container.take());
        Ok(())
    }

    fn is_over(&self) -> bool {
        match self.lifetime {
            Lifetime::Controlled => !self.connections.values().any(|c| c.control),
            Lifetime::Container => false,
            Lifetime::Ending => self.connections.values().all(|connection| {
                let served = match connection.role {
                    Role::Requests { .. } => true,
                    Role::Attached { .. } => connection.ending == Ending::Shut,
                };
                served && connection.is_flushed()
            }),
        }
    }

    fn handle(&mut self, event: Event) {
        let Some(watched) = self.watched.get(&event.key).cloned() else {
            return;
        };
        match watched {
            Watched::Listener => self.accept(),
            Watched::Connection => self.serve(event),
            Watched::Output(process, stream) => self.pass_on(&process, stream),
            Watched::Input(process) => self.feed(&process),
            Watched::Exit(process) => self.reap(&process),
            Watched::Memory => self.memory_event(),
            Watched::Relay => self.turn_relay(),
        }
    }

    /// A key for `watched`, in force once the descriptor is added.
    ///
    /// # Errors
    /// The errno of epoll_ctl.
    pub(crate) fn watch(
        &mut self,
        fd: BorrowedFd<'_>,
        watched: Watched,
        interest: Interest,
    ) -> io::Result<u64> {
        let key = self.next_key;
        self.next_key += 1;
        self.epoll.add(fd, key, interest)?;
        self.watched.insert(key, watched);
        Ok(key)
    }

    /// Forgets a key. The descriptor leaves epoll when it is closed, but for those with a duplicate.
    pub(crate) fn unwatch(&mut self, key: u64, fd: BorrowedFd<'_>) {
        self.watched.remove(&key);
        // It may have been taken out before, after a hang-up.
        drop(self.epoll.delete(fd));
    }

    /// Adds a process whose standard streams are `ends`.
    ///
    /// # Errors
    /// The errno of epoll_ctl or dup; the process is then not known.
    pub(crate) fn add_process(&mut self, id: &ProcessId, new: NewProcess) -> io::Result<()> {
        let exit_key = self.watch(new.pidfd.as_fd(), Watched::Exit(id.clone()), Interest::READ)?;
        let mut process = Process {
            pid: new.pid,
            pidfd: new.pidfd,
            exit_key,
            terminal: matches!(new.ends, Ends::Terminal(_)),
            stdin: None,
            stdin_end: new.stdin_end,
            outputs: Vec::new(),
            logged: *id == ProcessId::Init && self.log.is_some(),
            exit: None,
            exited_at: None,
            announced: false,
            acknowledged: false,
        };
        let (stdin, outputs) = match new.ends {
            Ends::Pipes {
                stdin,
                stdout,
                stderr,
            } => (
                stdin,
                vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)],
            ),
            Ends::Terminal(master) => {
                let writing = new.stdin.then(|| master.try_clone()).transpose()?;
                (writing, vec![(Stream::Stdout, master)])
            }
        };
        for (stream, fd) in outputs {
            let watched = Watched::Output(id.clone(), stream);
            let key = self.watch(fd.as_fd(), watched, Interest::READ)?;
            process.outputs.push(Output {
                stream,
                file: fd.into(),
                key,
                interest: Interest::READ,
                splitter: log::Splitter::default(),
            });
        }
        if let Some(fd) = stdin {
            let key = self.watch(fd.as_fd(), Watched::Input(id.clone()), Interest::NONE)?;
            process.stdin = Some(Input::new(fd.into(), key));
        }
        self.processes.insert(id.clone(), process);
        Ok(())
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        // One at a time: epoll reports the next, and a failure must not end the shim.
        let stream = match listener.accept() {
            Ok((stream, _address)) => stream,
            Err(error) => {
                if !is_the_clients(&error) {
                    self.stop_listening();
                }
                return;
            }
        };
        let full = self.connections.len() >= CONNECTIONS_MAX;
        let Ok(key) = stream
            .set_nonblocking(true)
            .and_then(|()| self.add_connection(stream, Origin::Socket))
        else {
            return;
        };
        if full {
            let reply = Reply::Failed {
                kind: FailureKind::Busy,
                message: format!("the shim serves {CONNECTIONS_MAX} connections already"),
            };
            self.with_connection(key, |connection| {
                connection.ending = Ending::Requested;
                connection.send(&codec::encode(&reply))?;
                connection.flush()
            });
        }
    }

    /// No descriptor or memory for a connection: it stays in the backlog, and epoll would report it without end.
    fn stop_listening(&mut self) {
        if let Some(listener) = &self.listener
            && self.epoll.delete(listener.as_fd()).is_ok()
        {
            self.listens_again_at = Some(Instant::now() + ACCEPT_PAUSE);
        }
    }

    fn listen_again(&mut self, now: Instant) {
        if self.listens_again_at.is_none_or(|at| now < at) {
            return;
        }
        let mut listening = self.watched.iter();
        let key = listening.find(|(_, watched)| matches!(watched, Watched::Listener));
        let added = match (&self.listener, key) {
            (Some(listener), Some((&key, _))) => {
                self.epoll.add(listener.as_fd(), key, Interest::READ)
            }
            _ => Ok(()),
        };
        self.listens_again_at = added.is_err().then(|| now + ACCEPT_PAUSE);
    }

    fn add_connection(&mut self, stream: UnixStream, origin: Origin) -> io::Result<u64> {
        let key = self.watch(stream.as_fd(), Watched::Connection, Interest::READ)?;
        let connection = Connection::new(stream, origin == Origin::Control);
        self.connections.insert(key, connection);
        Ok(key)
    }

    /// Does something with a connection, then brings epoll up to date, or drops it.
    pub(crate) fn with_connection(
        &mut self,
        key: u64,
        action: impl FnOnce(&mut Connection) -> Result<(), Gone>,
    ) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        match action(connection) {
            Ok(()) => self.refresh(key),
            Err(Gone) => self.drop_connection(key),
        }
    }

    /// Tells epoll what a connection waits for.
    pub(crate) fn refresh(&mut self, key: u64) {
        let Some(connection) = self.connections.get(&key) else {
            return;
        };
        let read = match &connection.role {
            Role::Requests { .. } => connection.is_flushed(),
            Role::Attached {
                process,
                streams,
                open,
            } => *open && !self.is_stdin_full(process, *streams),
        };
        let wanted = connection.wanted(read);
        if let Some(interest) = connection.interest
            && interest != wanted
            && self
                .epoll
                .modify(connection.stream.as_fd(), key, wanted)
                .is_ok()
            && let Some(connection) = self.connections.get_mut(&key)
        {
            connection.interest = Some(wanted);
        }
    }

    /// Forgets a client. Its process's output may flow again.
    pub(crate) fn drop_connection(&mut self, key: u64) {
        let Some(connection) = self.connections.remove(&key) else {
            return;
        };
        self.unwatch(key, connection.stream.as_fd());
        if let Role::Attached { process, .. } = connection.role {
            self.refresh_outputs(&process);
        }
    }

    /// Sends a notice to every connection that watches.
    pub(crate) fn notify(&mut self, notice: &Notice) {
        let message = codec::encode(notice);
        let watching: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| matches!(c.role, Role::Requests { watch: true, .. }))
            .map(|(&key, _)| key)
            .collect();
        for key in watching {
            self.with_connection(key, |connection| connection.send(&message));
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let connections = self.connections.values();
        let connections =
            connections.filter_map(|c| Some(c.deadline(FRAME_BYTES, self.stall_limit)?.0));
        let processes = self.processes.values().filter_map(Process::deadline);
        let relay = self
            .relay
            .as_ref()
            .and_then(|(_key, relay)| relay.timeout());
        let relay = relay.map(|after| Instant::now() + after);
        let listener = self.listens_again_at;
        let others = processes.chain(relay).chain(listener);
        connections.chain(others).min()
    }

    /// Takes over published ports.
    ///
    /// # Errors
    /// The errno of epoll.
    pub(crate) fn open_ports(&mut self, forwards: Vec<Forward>) -> io::Result<()> {
        if forwards.is_empty() {
            return Ok(());
        }
        let relay = Relay::new(forwards)?;
        let key = self.watch(relay.as_fd(), Watched::Relay, Interest::READ)?;
        self.relay = Some((key, relay));
        Ok(())
    }

    /// Gives published ports back: whoever hears of the exit may use them at once.
    pub(crate) fn close_ports(&mut self) {
        if let Some((key, relay)) = self.relay.take() {
            self.unwatch(key, relay.as_fd());
        }
    }

    fn turn_relay(&mut self) {
        if let Some((_key, relay)) = &mut self.relay {
            relay.turn();
        }
    }

    fn expire(&mut self, now: Instant) {
        let due = |(_key, relay): &(u64, Relay)| relay.timeout() == Some(Duration::ZERO);
        if self.relay.as_ref().is_some_and(due) {
            self.turn_relay();
        }
        self.listen_again(now);
        let limit = self.stall_limit;
        let due = |c: &Connection| c.deadline(FRAME_BYTES, limit).filter(|(at, _)| now >= *at);
        let overdue: Vec<(u64, Overdue)> = self
            .connections
            .iter()
            .filter_map(|(&key, connection)| Some((key, due(connection)?.1)))
            .collect();
        for (key, overdue) in overdue {
            match overdue {
                Overdue::Stalled => self.give_up(key),
                Overdue::Closing => self.drop_connection(key),
            }
        }
        let exited: Vec<ProcessId> = self
            .processes
            .iter()
            .filter(|(_, process)| !process.announced && process.is_drained(now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in exited {
            self.announce(&id);
        }
    }

    /// Makes the buffer, of pages that no one has touched: a short message must not pay for all of them.
    pub(crate) fn need_scratch(&mut self) {
        if self.scratch.is_empty() {
            self.scratch = vec![0; FRAME_BYTES];
        }
    }

    fn release_memory(&mut self) {
        self.scratch = Vec::new();
        for connection in self.connections.values_mut() {
            connection.release_memory();
        }
        for process in self.processes.values_mut() {
            if let Some(stdin) = &mut process.stdin {
                stdin.release_memory();
            }
        }
        if let Some(log) = &mut self.log {
            log.release_memory();
        }
        sys::memory::trim();
        if self.container.is_some() {
            // A parked shim keeps what its first request needs at once.
            sys::memory::release_code();
        }
    }

    /// What more may wait for a client of this process.
    pub(crate) fn drain_bytes(&self, process: &ProcessId) -> usize {
        match self.processes.get(process) {
            Some(process) => process.drain_bytes(),
            None => DRAIN_BYTES,
        }
    }
}

/// Whether a failed accept is the fault of one client: it left, or the firewall refused it.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::WouldBlock | Kind::Interrupted | Kind::ConnectionAborted | Kind::PermissionDenied
    )
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Control,
    Socket,
}

/// A process to be supervised.
#[derive(Debug)]
pub(crate) struct NewProcess {
    pub(crate) pid: u32,
    pub(crate) pidfd: std::os::fd::OwnedFd,
    pub(crate) ends: Ends,
    /// Whether standard input is open (a terminal is one descriptor for both directions).
    pub(crate) stdin: bool,
    pub(crate) stdin_end: StdinEnd,
}
