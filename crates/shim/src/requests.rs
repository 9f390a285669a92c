//! Requests: reading them, deciding whether they fit the state, doing them.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use network::Forward;
use runtime::cgroup::Version;
use runtime::{Peer, WindowSize};
use sys::epoll::{Event, Interest};

use crate::codec;
use crate::connection::{Connection, Ending, Role};
use crate::container::{Container, Failure, Parked, Parts, not_running, open_dir};
use crate::log;
use crate::process::{ReadOutcome, read_by};
use crate::protocol::{
    self, Create, Exec, ExecState, FORWARDS_MAX, FailureKind, Phase, ProcessId, Reply, Request,
    SOCKET_NAME, Size, State, Streams,
};
use crate::supervisor::{ATTACHED_MAX, EXECS_MAX, Lifetime, READ_BYTES, Supervisor, Watched};

/// Descriptors that one message may bring: a namespace, the containers that are joined, and published ports.
const DESCRIPTORS_MAX: usize = 1 + PEERS_MAX + FORWARDS_MAX;

/// Containers that one may join: for its network, its IPC and its process ids.
const PEERS_MAX: usize = 3;

/// Mode of the socket: root alone.
const SOCKET_MODE: u32 = 0o600;

impl Supervisor {
    /// A connection is ready for something.
    pub(crate) fn serve(&mut self, event: Event) {
        let Some(connection) = self.connections.get(&event.key) else {
            return;
        };
        let attached = match &connection.role {
            Role::Attached { process, .. } => Some(process.clone()),
            Role::Requests { .. } => None,
        };
        if event.writable {
            self.with_connection(event.key, Connection::flush);
        }
        match attached {
            Some(process) => {
                if event.hung_up {
                    self.drain_hung_up(event.key);
                } else if event.readable {
                    self.take_stdin(event.key);
                }
                if event.writable {
                    self.refresh_outputs(&process);
                }
            }
            None if event.readable => self.read_requests(event),
            None => {}
        }
    }

    fn read_requests(&mut self, event: Event) {
        self.need_scratch();
        let Some(connection) = self.connections.get_mut(&event.key) else {
            return;
        };
        // Whoever does not wait for the answer any more does not want it done either: he has told others that it was
        // not, perhaps long ago, if this shim could not run meanwhile.
        if event.hung_up {
            return self.drop_connection(event.key);
        }
        if !connection.is_flushed() {
            return;
        }
        let Role::Requests { decoder, fds, .. } = &mut connection.role else {
            return;
        };
        let buffer = &mut self.scratch[..READ_BYTES];
        match receive(&connection.stream, buffer, fds) {
            ReadOutcome::Nothing => {}
            ReadOutcome::End => self.drop_connection(event.key),
            // Who was told that nothing more comes is not served: it would not learn what was done.
            ReadOutcome::Bytes(_) if connection.ending != Ending::No => fds.clear(),
            ReadOutcome::Bytes(count) => {
                decoder.push(&self.scratch[..count]);
                fds.truncate(DESCRIPTORS_MAX);
                self.take_requests(event.key);
            }
        }
    }

    /// Takes what has arrived, message by message.
    fn take_requests(&mut self, key: u64) {
        loop {
            let Some(connection) = self.connections.get_mut(&key) else {
                return;
            };
            let control = connection.control;
            let Role::Requests { decoder, fds, .. } = &mut connection.role else {
                return;
            };
            match decoder.next::<Request>() {
                Ok(None) => return,
                Ok(Some(request)) => {
                    let fds = std::mem::take(fds);
                    self.dispatch(key, request, Source { control, fds });
                }
                Err(error) => {
                    let lost = matches!(error, codec::Error::TooLong(_));
                    let text = match &error {
                        codec::Error::TooLong(_) => error.to_string(),
                        codec::Error::Malformed(reason) => format!("{error}: {reason}"),
                    };
                    let failure = Failure::new(FailureKind::Invalid, text);
                    self.reply(key, &failure.into());
                    if lost {
                        self.with_connection(key, |connection| {
                            connection.ending = Ending::Requested;
                            connection.flush()
                        });
                        return;
                    }
                }
            }
        }
    }

    fn reply(&mut self, key: u64, reply: &Reply) {
        let message = codec::encode(reply);
        self.with_connection(key, |connection| connection.send(&message));
    }

    fn dispatch(&mut self, key: u64, request: Request, source: Source) {
        let done = match request {
            Request::Park { cgroup } => self.park(&cgroup, &source),
            Request::Create(create) => self.create(*create, source),
            Request::Start => self.start(),
            Request::FindUser(wanted) => self
                .running()
                .and_then(|container| container.find_user(&wanted))
                .map(|()| Reply::Ok),
            Request::Exec(exec) => self.exec(key, *exec),
            Request::Kill {
                process,
                signal,
                all,
            } => self.kill(&process, signal, all),
            Request::Resize { process, size } => self.resize(&process, size),
            Request::Pause => self.pause(),
            Request::Resume => self.resume(),
            Request::Update { resources } => self
                .running()
                .and_then(|container| Ok(container.cgroup()?.apply(&resources)?))
                .map(|()| Reply::Ok),
            Request::Attach { process, streams } => self.attach(key, process, streams),
            Request::CloseStdin { process } => self.close_stdin(&process),
            Request::State => Ok(Reply::State(Box::new(self.state()))),
            Request::Watch => self.watch_notices(key),
            Request::Acknowledge { process } => self.acknowledge(&process),
        };
        // A request that turned the connection into a stream has sent its reply itself.
        match done {
            Ok(reply) if self.is_request_connection(key) => self.reply(key, &reply),
            Ok(_) => {}
            Err(failure) => self.reply(key, &failure.into()),
        }
    }

    fn is_request_connection(&self, key: u64) -> bool {
        self.connections
            .get(&key)
            .is_some_and(|c| matches!(c.role, Role::Requests { .. }))
    }

    fn park(&mut self, path: &protocol::CgroupPath, source: &Source) -> Result<Reply, Failure> {
        if !source.control || self.container.is_some() || self.parked.is_some() {
            return Err(Failure::new(FailureKind::Busy, "cannot park now"));
        }
        self.parked = Some(Parked::new(path)?);
        Ok(Reply::Parked)
    }

    fn create(&mut self, create: Create, source: Source) -> Result<Reply, Failure> {
        if !source.control || self.lifetime != Lifetime::Controlled {
            return Err(Failure::new(FailureKind::Busy, "container already created"));
        }
        self.make(create, source.fds).inspect_err(|_failure| {
            self.lifetime = Lifetime::Ending;
            self.listener = None;
        })
    }

    fn make(&mut self, mut create: Create, fds: Vec<OwnedFd>) -> Result<Reply, Failure> {
        let mut fds = fds.into_iter();
        let mut next = |what| {
            let missing = || format!("the descriptor of {what} is missing");
            fds.next()
                .ok_or_else(|| Failure::new(FailureKind::Invalid, missing()))
        };
        let netns = match create.netns {
            true => Some(next("the network namespace")?),
            false => None,
        };
        let peers = std::mem::take(&mut create.peers)
            .into_iter()
            .map(|pid| {
                let pidfd = next("a container to be joined")?;
                Ok(Peer { pid, pidfd })
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        let forwards = std::mem::take(&mut create.forwards)
            .into_iter()
            .map(|spec| {
                Ok(Forward {
                    protocol: spec.protocol,
                    socket: next("a published port")?,
                    local: spec.local,
                    target: spec.target,
                })
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        let dir = open_dir(&create.run_dir)?;
        let listener = sys::socket::listen_at(dir.as_fd(), OsStr::new(SOCKET_NAME), SOCKET_MODE)
            .map_err(Failure::io("listen on shim socket"))?;
        let log = create.log.as_ref().map(log::Writer::open).transpose();
        self.log = log.map_err(|error| {
            let text = format!("failed to initialize logging driver: {error}");
            Failure::new(FailureKind::Other, text)
        })?;
        let socket = create.run_dir.join(SOCKET_NAME);
        // What fails before this leaves the parked cgroup to the shim's end.
        let parts = Parts {
            parked: self.parked.take(),
            netns,
            peers,
        };
        let made = Container::create(create, parts);
        let (mut container, process) = made.inspect_err(|_failure| {
            // If this fails too: the directory goes with the container.
            drop(std::fs::remove_file(socket));
        })?;
        let pid = process.pid;
        let known = self
            .watch(listener.as_fd(), Watched::Listener, Interest::READ)
            .and_then(|_key| self.add_process(&ProcessId::Init, process))
            .and_then(|()| self.open_ports(forwards));
        if let Err(error) = known {
            container.destroy()?;
            return Err(Failure::io("watch container")(error));
        }
        self.watch_memory(&mut container);
        self.listener = Some(listener);
        self.container = Some(container);
        self.lifetime = Lifetime::Container;
        sys::fault!("shim.created");
        Ok(Reply::Created { pid })
    }

    /// Without the watch, a kill for memory is seen when the process it hit has exited.
    fn watch_memory(&mut self, container: &mut Container) {
        let watch = container.cgroup().and_then(|c| Ok(c.watch_memory()?));
        let Ok(Some(watch)) = watch else { return };
        let interest = match watch.version() {
            Version::V1 => Interest::READ,
            Version::V2 => Interest::NONE,
        };
        if let Ok(key) = self.watch(watch.as_fd(), Watched::Memory, interest) {
            container.memory_watch = Some((key, watch));
        }
    }

    fn running(&mut self) -> Result<&mut Container, Failure> {
        self.container
            .as_mut()
            .filter(|container| container.phase != Phase::Exited)
            .ok_or_else(not_running)
    }

    fn start(&mut self) -> Result<Reply, Failure> {
        match self.running()?.start() {
            Ok(at_ns) => Ok(Reply::Started { at_ns }),
            Err(failure) if failure.kind == FailureKind::Busy => Err(failure),
            Err(failure) => {
                self.abandon();
                Err(failure)
            }
        }
    }

    /// The program could not be started: nothing ran, nothing is recorded, nothing stays.
    fn abandon(&mut self) {
        if let Some(container) = &mut self.container {
            container.phase = Phase::Exited;
            // What the kernel keeps, the daemon's sweep removes.
            drop(container.destroy());
        }
        if let Some(process) = self.processes.get_mut(&ProcessId::Init) {
            process.announced = true;
        }
        self.finish_clients(&ProcessId::Init);
        self.forget(&ProcessId::Init);
        self.end();
    }

    /// Stops listening; the shim ends when its clients have their bytes.
    fn end(&mut self) {
        self.lifetime = Lifetime::Ending;
        if let Some(listener) = self.listener.take()
            && let Some(container) = &self.container
        {
            drop(listener);
            // The daemon may have removed the directory already.
            drop(std::fs::remove_file(container.run_dir.join(SOCKET_NAME)));
        }
    }

    fn exec(&mut self, key: u64, exec: Exec) -> Result<Reply, Failure> {
        let id = ProcessId::Exec(exec.id.clone());
        if self.processes.contains_key(&id) {
            return Err(Failure::new(FailureKind::Busy, "exec id is in use"));
        }
        if self.processes.len() > EXECS_MAX {
            let text = format!("the container has {EXECS_MAX} exec processes already");
            return Err(Failure::new(FailureKind::Busy, text));
        }
        let streams = exec.attach;
        if streams.is_some() {
            self.admit_stream()?;
        }
        let process = self.running()?.exec(exec)?;
        let pid = process.pid;
        self.add_process(&id, process)
            .map_err(Failure::io("watch exec process"))?;
        if let Some(streams) = streams {
            self.become_stream(key, &id, streams, &Reply::Executed { pid });
        }
        Ok(Reply::Executed { pid })
    }

    fn kill(&mut self, id: &ProcessId, signal: i32, all: bool) -> Result<Reply, Failure> {
        if all {
            self.running()?.signal_all(signal)?;
            return Ok(Reply::Ok);
        }
        let process = self.processes.get(id).filter(|p| p.exit.is_none());
        let process = process.ok_or_else(not_running)?;
        match sys::process::send_signal(process.pidfd.as_fd(), signal) {
            Ok(()) => Ok(Reply::Ok),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let text = format!("no such signal: {signal}");
                Err(Failure::new(FailureKind::Invalid, text))
            }
            Err(error) => Err(Failure::io("signal process")(error)),
        }
    }

    fn resize(&mut self, id: &ProcessId, size: Size) -> Result<Reply, Failure> {
        let process = self.processes.get(id).filter(|p| p.exit.is_none());
        let process = process.ok_or_else(not_running)?;
        if !process.terminal {
            let text = "the process has no terminal";
            return Err(Failure::new(FailureKind::Invalid, text));
        }
        let master = process.outputs.first().ok_or_else(not_running)?;
        let size = WindowSize {
            height: size.height,
            width: size.width,
        };
        sys::pty::resize(master.file.as_fd(), size).map_err(Failure::io("resize terminal"))?;
        Ok(Reply::Ok)
    }

    fn pause(&mut self) -> Result<Reply, Failure> {
        let container = self.running()?;
        if container.phase != Phase::Running {
            return Err(Failure::new(FailureKind::Busy, "container is not running"));
        }
        container.cgroup()?.freeze()?;
        container.phase = Phase::Paused;
        Ok(Reply::Ok)
    }

    fn resume(&mut self) -> Result<Reply, Failure> {
        let container = self.running()?;
        if container.phase != Phase::Paused {
            return Err(Failure::new(FailureKind::Busy, "container is not paused"));
        }
        container.cgroup()?.thaw()?;
        container.phase = Phase::Running;
        Ok(Reply::Ok)
    }

    fn attach(&mut self, key: u64, id: ProcessId, streams: Streams) -> Result<Reply, Failure> {
        if !self.processes.contains_key(&id) {
            return Err(not_running());
        }
        self.admit_stream()?;
        self.become_stream(key, &id, streams, &Reply::Ok);
        Ok(Reply::Ok)
    }

    fn admit_stream(&self) -> Result<(), Failure> {
        let is_stream = |c: &&Connection| matches!(c.role, Role::Attached { .. });
        if self.connections.values().filter(is_stream).count() < ATTACHED_MAX {
            return Ok(());
        }
        let text = format!("the container has {ATTACHED_MAX} attached clients already");
        Err(Failure::new(FailureKind::Busy, text))
    }

    /// Sends the last reply of a connection and makes it a stream; what followed the request is standard input.
    fn become_stream(&mut self, key: u64, id: &ProcessId, streams: Streams, reply: &Reply) {
        self.reply(key, reply);
        let Some(connection) = self.connections.get_mut(&key) else {
            return; // it left meanwhile
        };
        let role = Role::Attached {
            process: id.clone(),
            streams,
            open: true,
        };
        let before = std::mem::replace(&mut connection.role, role);
        if let Role::Requests { decoder, .. } = before {
            self.push_stdin(id, streams, &decoder.into_rest());
        }
        self.refresh(key);
        self.finish_clients(id);
    }

    fn close_stdin(&mut self, id: &ProcessId) -> Result<Reply, Failure> {
        let process = self.processes.get_mut(id).filter(|p| p.exit.is_none());
        let process = process.ok_or_else(not_running)?;
        if !process.terminal
            && let Some(stdin) = &mut process.stdin
        {
            stdin.ended = true;
            self.feed(id);
        }
        Ok(Reply::Ok)
    }

    fn watch_notices(&mut self, key: u64) -> Result<Reply, Failure> {
        let state = self.state();
        if let Some(connection) = self.connections.get_mut(&key)
            && let Role::Requests { watch, .. } = &mut connection.role
        {
            *watch = true;
        }
        Ok(Reply::State(Box::new(state)))
    }

    fn state(&self) -> State {
        let container = self.container.as_ref();
        let init = self.processes.get(&ProcessId::Init);
        let execs = self.processes.iter().filter(|(_, p)| !p.acknowledged);
        State {
            version: protocol::VERSION,
            id: container.map(|c| c.id.clone()).unwrap_or_default(),
            phase: container.map_or(Phase::Idle, |c| c.phase),
            pid: init.map(|process| process.pid),
            started_at_ns: container.and_then(|c| c.started_at_ns),
            exit: init.filter(|p| p.announced).and_then(|p| p.exit),
            oom_killed: container.is_some_and(|c| c.oom_killed),
            log_lines_dropped: self.log.as_ref().map_or(0, log::Writer::lines_dropped),
            execs: execs
                .filter_map(|(id, process)| match id {
                    ProcessId::Init => None,
                    ProcessId::Exec(id) => Some(ExecState {
                        id: id.clone(),
                        pid: process.pid,
                        exit: process.exit.filter(|_| process.announced),
                    }),
                })
                .collect(),
        }
    }

    fn acknowledge(&mut self, id: &ProcessId) -> Result<Reply, Failure> {
        let process = self.processes.get_mut(id).ok_or_else(not_running)?;
        if !process.announced {
            return Err(Failure::new(
                FailureKind::Busy,
                "the process has not exited",
            ));
        }
        process.acknowledged = true;
        match id {
            // An exec's pipe that a background process holds is read, and dropped, to its end.
            ProcessId::Exec(_) if !process.outputs.is_empty() => {}
            ProcessId::Exec(_) => self.forget(id),
            ProcessId::Init => {
                if let Some(container) = &mut self.container {
                    container.remove_cgroup()?;
                }
                self.end();
            }
        }
        Ok(Reply::Ok)
    }

    /// Drops a process and its descriptors.
    pub(crate) fn forget(&mut self, id: &ProcessId) {
        let Some(process) = self.processes.remove(id) else {
            return;
        };
        self.unwatch(process.exit_key, process.pidfd.as_fd());
        for output in &process.outputs {
            self.unwatch(output.key, output.file.as_fd());
        }
        if let Some(stdin) = &process.stdin {
            self.unwatch(stdin.key, stdin.file.as_fd());
        }
    }
}

/// Where a request comes from, and what came with it.
struct Source {
    control: bool,
    fds: Vec<OwnedFd>,
}

/// Reads once, descriptors included.
fn receive(stream: &UnixStream, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> ReadOutcome {
    read_by(|| sys::socket::receive_with_fds(stream.as_fd(), buffer, fds))
}
