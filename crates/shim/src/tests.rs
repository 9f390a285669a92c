//! The event loop with ordinary children instead of a container: streams, exits, back-pressure, bad clients.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::container::Container;
use crate::process::{Ends, StdinEnd};
use crate::protocol::{
    ExitRecord, FailureKind, Log, Notice, Phase, ProcessId, Reply, Request, SOCKET_NAME, State,
    Streams,
};
use crate::supervisor::{Lifetime, NewProcess, Supervisor, Watched};

mod exits;
mod requests;
mod streams;
mod throughput;

/// A shim in a thread, whose init is an ordinary child.
struct Fixture {
    dir: tempfile::TempDir,
    control: Option<Client>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy)]
struct Setup {
    stdin: bool,
    stdin_once: bool,
    log: bool,
}

const PLAIN: Setup = Setup {
    stdin: false,
    stdin_once: false,
    log: true,
};

/// Its standard input stays open when a client leaves.
const OPEN: Setup = Setup {
    stdin: true,
    ..PLAIN
};

/// Its standard input ends with the client.
const ONCE: Setup = Setup {
    stdin_once: true,
    ..OPEN
};

fn signal(signal: i32) -> Request {
    Request::Kill {
        process: ProcessId::Init,
        signal,
        all: false,
    }
}

fn is_refused(reply: &Reply, wanted: FailureKind) -> bool {
    matches!(reply, Reply::Failed { kind, .. } if *kind == wanted)
}

fn spawn(script: &str, stdin: bool, stdin_end: StdinEnd) -> NewProcess {
    let (ends, [theirs_in, theirs_out, theirs_err]) = Ends::pipes(stdin).unwrap();
    #[expect(clippy::zombie_processes, reason = "the shim under test reaps it")]
    let child = sys::command::Command::new("/bin/sh")
        .arg("-c")
        .arg(script)
        .env("PATH", "/usr/bin:/bin")
        .stdin(theirs_in)
        .stdout(theirs_out)
        .stderr(theirs_err)
        .spawn()
        .unwrap();
    NewProcess {
        pid: child.id(),
        pidfd: sys::process::open_pidfd(child.id()).unwrap(),
        ends,
        stdin,
        stdin_end,
    }
}

impl Fixture {
    /// The init runs `script`.
    fn new(script: &str, setup: Setup) -> Self {
        Self::with_execs(script, &[], setup)
    }

    fn with_execs(script: &str, execs: &[&str], setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut supervisor = Supervisor::new(theirs).unwrap();
        supervisor.stall_limit = STALL;
        let end = if setup.stdin_once {
            StdinEnd::WithClient
        } else {
            StdinEnd::Never
        };
        let handle = std::fs::File::open(dir.path()).unwrap();
        let listener = sys::socket::listen_at(
            std::os::fd::AsFd::as_fd(&handle),
            SOCKET_NAME.as_ref(),
            0o600,
        )
        .unwrap();
        supervisor
            .watch(
                std::os::fd::AsFd::as_fd(&listener),
                Watched::Listener,
                sys::epoll::Interest::READ,
            )
            .unwrap();
        supervisor.listener = Some(listener);
        let log = Log {
            path: dir.path().join("log"),
            max_size_bytes: Some(crate::protocol::LOG_SIZE_DEFAULT_BYTES),
            max_files: crate::protocol::LOG_FILES_DEFAULT,
            attributes: std::collections::BTreeMap::new(),
        };
        supervisor.log = setup.log.then(|| crate::log::Writer::open(&log).unwrap());
        supervisor.container = Some(Container::for_tests("cafe", dir.path()));
        supervisor.lifetime = Lifetime::Container;
        // Spawned here, in the test's thread: children belong to the process, any thread may reap them.
        supervisor
            .add_process(&ProcessId::Init, spawn(script, setup.stdin, end))
            .unwrap();
        for (number, script) in execs.iter().enumerate() {
            let process = spawn(script, setup.stdin, StdinEnd::WithClient);
            supervisor.add_process(&exec(number), process).unwrap();
        }
        let thread = std::thread::spawn(move || supervisor.run().unwrap());
        Self {
            dir,
            control: Some(Client::new(ours)),
            thread: Some(thread),
        }
    }

    fn client(&self) -> Client {
        Client::connect(self.dir.path()).unwrap()
    }

    fn attach(&self, process: ProcessId, streams: Streams) -> UnixStream {
        let mut client = self.client();
        let reply = client.call(&Request::Attach { process, streams });
        assert_eq!(reply.unwrap(), Reply::Ok);
        client.into_stream()
    }

    fn watch(&self) -> (Client, State) {
        let mut client = self.client();
        match client.call(&Request::Watch).unwrap() {
            Reply::State(state) => (client, *state),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the init's exit.
    fn exit(&self) -> i32 {
        self.exit_of(&ProcessId::Init)
    }

    fn exit_of(&self, id: &ProcessId) -> i32 {
        let (mut client, state) = self.watch();
        let known = match id {
            ProcessId::Init => state.exit,
            ProcessId::Exec(id) => {
                let exec = state.execs.iter().find(|exec| exec.id == *id);
                exec.and_then(|exec| exec.exit)
            }
        };
        if let Some(exit) = known {
            return exit.code;
        }
        loop {
            if let Notice::Exited { process, exit } = client.notice().unwrap()
                && process == *id
            {
                return exit.code;
            }
        }
    }

    fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("log")).unwrap();
        let message = |line: &str| -> String {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let (stream, log) = (line["stream"].as_str(), line["log"].as_str());
            format!("{}:{}", stream.unwrap(), log.unwrap())
        };
        text.lines().map(message).collect()
    }

    fn call(&self, request: &Request) -> Reply {
        self.client().call(request).unwrap()
    }

    fn record(&self, name: &str) -> Option<ExitRecord> {
        let text = std::fs::read(self.dir.path().join(name)).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// Attaches to the init with everything, and writes the line that it waits for.
    fn go(&self) -> UnixStream {
        let mut stream = self.attach(ProcessId::Init, Streams::ALL);
        stream.write_all(b"go\n").unwrap();
        stream
    }

    /// Kills an init that runs for ever, and finishes.
    fn kill(self) {
        assert_eq!(self.call(&signal(9)), Reply::Ok);
        self.finish_with(137);
    }

    /// Waits for the init's exit with `code`, and finishes.
    fn finish_with(self, code: i32) {
        assert_eq!(self.exit(), code);
        self.finish();
    }

    /// Acknowledges the init's exit, and waits for the shim's end.
    fn finish(mut self) {
        let process = ProcessId::Init;
        assert_eq!(self.call(&Request::Acknowledge { process }), Reply::Ok);
        self.thread.take().unwrap().join().unwrap();
        assert!(!self.dir.path().join(SOCKET_NAME).exists());
    }
}

fn exec(number: usize) -> ProcessId {
    ProcessId::Exec(format!("e{number}"))
}

/// Everything until the end of the stream.
fn rest(mut stream: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Docker's stream format, taken apart: (stdout, stderr).
fn demultiplex(mut bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some((header, after)) = bytes.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let (payload, after) = after.split_at(usize::try_from(length).unwrap());
        match header {
            [1, 0, 0, 0, ..] => stdout.extend_from_slice(payload),
            [2, 0, 0, 0, ..] => stderr.extend_from_slice(payload),
            _ => panic!("header {header:?}"),
        }
        bytes = after;
    }
    assert!(bytes.is_empty(), "torn header");
    (stdout, stderr)
}

/// The fixture's patience with clients that take nothing.
const STALL: Duration = Duration::from_secs(1);
