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

/// How long the reader of an exec pauses: longer than the patience.
const EXEC_PAUSE: Duration = Duration::from_secs(3);

/// How long the reader of a stream that has ended pauses: longer than the limit there was, 5 s.
const LATE_PAUSE: Duration = Duration::from_secs(6);

/// How long a slow reader pauses after each piece.
const SLOWNESS: Duration = Duration::from_millis(2);

#[test]
fn output_goes_to_log_and_client_and_the_exit_comes_last() {
    let script = "read go; printf 'out\\n'; printf 'err' >&2; exit 7";
    let setup = Setup {
        stdin: true,
        stdin_once: true,
        ..PLAIN
    };
    let fixture = Fixture::new(script, setup);
    let mut stream = fixture.attach(ProcessId::Init, Streams::ALL);
    stream.write_all(b"go\n").unwrap();
    let (stdout, stderr) = demultiplex(&rest(&stream));
    assert_eq!((&stdout[..], &stderr[..]), (&b"out\n"[..], &b"err"[..]));
    assert_eq!(fixture.exit(), 7);
    let mut log = fixture.log();
    log.sort();
    assert_eq!(log, ["stderr:err", "stdout:out\n"]);
    let record = fixture.record("exit.json").unwrap();
    assert_eq!((record.id.as_str(), record.exit.code), ("cafe", 7));
    fixture.finish();
}

#[test]
fn the_record_is_there_when_the_notice_comes() {
    let fixture = Fixture::new("exec sleep 100", PLAIN);
    let (mut watching, state) = fixture.watch();
    assert_eq!((state.phase, state.exit), (Phase::Created, None));
    assert!(fixture.record("exit.json").is_none());
    let kill = Request::Kill {
        process: ProcessId::Init,
        signal: 15,
        all: false,
    };
    assert_eq!(fixture.call(&kill), Reply::Ok);
    let notice = watching.notice().unwrap();
    let record = fixture.record("exit.json").unwrap();
    let Notice::Exited { process, exit } = notice else {
        panic!("{notice:?}")
    };
    assert_eq!((process, exit), (ProcessId::Init, record.exit));
    assert_eq!(exit.code, 143);
    assert!(matches!(
        fixture.call(&kill),
        Reply::Failed {
            kind: FailureKind::NotRunning,
            ..
        }
    ));
    fixture.finish();
}

#[test]
fn execs_have_their_own_streams_exits_and_records() {
    let scripts = ["cat; exit 3", "cat >&2; exit 4"];
    let setup = Setup {
        stdin: true,
        stdin_once: false,
        log: true,
    };
    let fixture = Fixture::with_execs("exec sleep 100", &scripts, setup);
    for (number, code) in [(0, 3), (1, 4)] {
        let mut stream = fixture.attach(exec(number), Streams::ALL);
        stream.write_all(b"hello").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let (stdout, stderr) = demultiplex(&rest(&stream));
        let (got, other) = if number == 0 {
            (stdout, stderr)
        } else {
            (stderr, stdout)
        };
        assert_eq!((&got[..], &other[..]), (&b"hello"[..], &b""[..]));
        assert_eq!(fixture.exit_of(&exec(number)), code);
        let record = fixture.record(&format!("exec-e{number}.json")).unwrap();
        assert_eq!(record.exit.code, code);
        let process = exec(number);
        assert_eq!(fixture.call(&Request::Acknowledge { process }), Reply::Ok);
    }
    let (_client, state) = fixture.watch();
    assert_eq!(state.execs, []);
    assert!(fixture.log().is_empty(), "an exec's output is not logged");
    let process = ProcessId::Init;
    let busy = fixture.call(&Request::Acknowledge {
        process: process.clone(),
    });
    assert!(matches!(
        busy,
        Reply::Failed {
            kind: FailureKind::Busy,
            ..
        }
    ));
    let signal = 9;
    let all = false;
    fixture.call(&Request::Kill {
        process,
        signal,
        all,
    });
    assert_eq!(fixture.exit(), 137);
    fixture.finish();
}

#[test]
fn sixty_four_clients_get_the_same_bytes() {
    let script =
        "read go; i=0; while [ $i -lt 2000 ]; do echo \"line $i of the output\"; i=$((i+1)); done";
    let setup = Setup {
        stdin: true,
        ..PLAIN
    };
    let fixture = Fixture::new(script, setup);
    let streams: Vec<_> = (0..64)
        .map(|_| fixture.attach(ProcessId::Init, Streams::OUTPUT))
        .collect();
    let readers: Vec<_> = streams
        .into_iter()
        .map(|stream| std::thread::spawn(move || demultiplex(&rest(&stream)).0))
        .collect();
    let mut first = fixture.attach(ProcessId::Init, Streams::ALL);
    first.write_all(b"go\n").unwrap();
    let expected = demultiplex(&rest(&first)).0;
    assert_eq!(expected.iter().filter(|&&byte| byte == b'\n').count(), 2000);
    for reader in readers {
        assert!(reader.join().unwrap() == expected);
    }
    assert_eq!(fixture.exit(), 0);
    assert_eq!(fixture.log().len(), 2000);
    fixture.finish();
}

#[test]
fn a_client_that_reads_nothing_is_told_so_and_the_others_lose_nothing() {
    let script = "read go; head -c 8000000 /dev/zero | tr '\\0' x; echo";
    let setup = Setup {
        stdin: true,
        log: false,
        stdin_once: false,
    };
    let fixture = Fixture::new(script, setup);
    let silent = fixture.attach(ProcessId::Init, Streams::OUTPUT);
    let mut stream = fixture.attach(ProcessId::Init, Streams::ALL);
    let begin = Instant::now();
    stream.write_all(b"go\n").unwrap();
    let (stdout, _) = demultiplex(&rest(&stream));
    assert_eq!(stdout.len(), 8_000_001);
    let taken = begin.elapsed();
    assert!(
        taken >= STALL && taken < STALL + Duration::from_secs(3),
        "{taken:?}"
    );
    assert_eq!(fixture.exit(), 0);
    // What it was sent before is less than its buffer and the socket's; then comes an error frame (type 3 of moby's
    // pkg/stdcopy), however late it reads.
    let sent = rest(&silent);
    assert!(sent.len() < 2_000_000, "{}", sent.len());
    let at = sent.iter().rposition(|&byte| byte == 3).unwrap();
    demultiplex(&sent[..at]);
    let (header, text) = sent[at..].split_at(8);
    assert_eq!(header[..4], [3, 0, 0, 0]);
    let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    assert_eq!(usize::try_from(length).unwrap(), text.len());
    let text = String::from_utf8_lossy(text);
    assert!(text.starts_with("output was lost from here on"), "{text}");
    fixture.finish();
}

#[test]
fn the_only_reader_of_an_exec_may_pause_as_long_as_it_likes() {
    let script = "head -c 4000000 /dev/zero | tr '\\0' z";
    let fixture = Fixture::with_execs("exec sleep 100", &[script], PLAIN);
    let stream = fixture.attach(exec(0), Streams::OUTPUT);
    std::thread::sleep(EXEC_PAUSE);
    assert_eq!(demultiplex(&rest(&stream)).0.len(), 4_000_000);
    assert_eq!(fixture.exit_of(&exec(0)), 0);
    fixture.call(&Request::Kill {
        process: ProcessId::Init,
        signal: 9,
        all: false,
    });
    assert_eq!(fixture.exit(), 137);
    fixture.finish();
}

#[test]
fn the_end_of_a_stream_waits_for_a_reader_that_pauses() {
    let setup = Setup {
        stdin: true,
        ..PLAIN
    };
    let fixture = Fixture::new("read go; head -c 900000 /dev/zero", setup);
    let mut stream = fixture.attach(ProcessId::Init, Streams::ALL);
    stream.write_all(b"go\n").unwrap();
    assert_eq!(fixture.exit(), 0);
    std::thread::sleep(LATE_PAUSE);
    assert_eq!(demultiplex(&rest(&stream)).0.len(), 900_000);
    fixture.finish();
}

#[test]
fn attached_clients_leave_places_for_requests() {
    let fixture = Fixture::new("exec sleep 100", PLAIN);
    let process = ProcessId::Init;
    let attach = Request::Attach {
        process: process.clone(),
        streams: Streams::OUTPUT,
    };
    let attached: Vec<Client> = (0..crate::supervisor::ATTACHED_MAX)
        .map(|_| {
            let mut client = fixture.client();
            assert_eq!(client.call(&attach).unwrap(), Reply::Ok);
            client
        })
        .collect();
    let refused = fixture.client().call(&attach).unwrap();
    assert!(
        matches!(&refused, Reply::Failed { kind: FailureKind::Busy, message } if message.contains("attached clients")),
        "{refused:?}"
    );
    let signal = 9;
    let kill = Request::Kill {
        process,
        signal,
        all: false,
    };
    assert_eq!(fixture.call(&kill), Reply::Ok);
    drop(attached);
    assert_eq!(fixture.exit(), 137);
    fixture.finish();
}

#[test]
fn a_slow_client_slows_the_process_and_gets_everything() {
    let script = "read go; head -c 4000000 /dev/zero | tr '\\0' y";
    let setup = Setup {
        stdin: true,
        ..PLAIN
    };
    let fixture = Fixture::new(script, setup);
    let mut stream = fixture.attach(ProcessId::Init, Streams::ALL);
    stream.write_all(b"go\n").unwrap();
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 100_000]);
    loop {
        let count = stream.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(&buffer[..count]);
        std::thread::sleep(SLOWNESS); // that is what makes it slow
    }
    assert_eq!(demultiplex(&bytes).0.len(), 4_000_000);
    assert_eq!(fixture.exit(), 0);
    fixture.finish();
}

#[test]
fn half_close_ends_stdin_with_stdin_once_and_output_goes_on() {
    let script = "cat; echo end; exit 5";
    let setup = Setup {
        stdin: true,
        stdin_once: true,
        log: true,
    };
    let fixture = Fixture::new(script, setup);
    let mut stream = fixture.attach(ProcessId::Init, Streams::ALL);
    stream.write_all(b"text\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(demultiplex(&rest(&stream)).0, b"text\nend\n");
    assert_eq!(fixture.exit(), 5);
    fixture.finish();
}

#[test]
fn half_close_without_stdin_once_ends_only_the_session() {
    // dockerd 28.5.2: the connection ends at once, the container's standard input stays open.
    let setup = Setup {
        stdin: true,
        stdin_once: false,
        log: true,
    };
    let fixture = Fixture::new("cat; exit 5", setup);
    let mut first = fixture.attach(ProcessId::Init, Streams::ALL);
    first.write_all(b"one\n").unwrap();
    let mut header = [0; 12];
    first.read_exact(&mut header).unwrap();
    first.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(rest(&first).is_empty());
    let mut second = fixture.attach(ProcessId::Init, Streams::ALL);
    second.write_all(b"two\n").unwrap();
    second.read_exact(&mut header).unwrap();
    assert_eq!(&header[8..], b"two\n");
    let process = ProcessId::Init;
    assert_eq!(fixture.call(&Request::CloseStdin { process }), Reply::Ok);
    assert_eq!(fixture.exit(), 5);
    fixture.finish();
}

#[test]
fn bytes_of_a_client_that_has_gone_still_reach_a_slow_reader() {
    let script = "sleep 0.3; head -c 300000 | wc -c";
    let setup = Setup {
        stdin: true,
        stdin_once: true,
        log: true,
    };
    let fixture = Fixture::new(script, setup);
    let mut stream = fixture.attach(ProcessId::Init, Streams::ALL);
    stream.write_all(&vec![b'x'; 300_000]).unwrap();
    drop(stream);
    assert_eq!(fixture.exit(), 0);
    assert_eq!(fixture.log(), ["stdout:300000\n"]);
    fixture.finish();
}

#[test]
fn a_background_child_delays_the_announcement_only_so_long() {
    let setup = Setup { log: true, ..PLAIN };
    let fixture = Fixture::new("echo now; sleep 6 & exit 2", setup);
    let begin = Instant::now();
    let stream = fixture.attach(ProcessId::Init, Streams::OUTPUT);
    assert_eq!(fixture.exit(), 2);
    let limit = crate::process::DRAIN_LIMIT;
    let taken = begin.elapsed();
    assert!(taken < limit + Duration::from_secs(2), "{taken:?}");
    assert!(taken > limit - Duration::from_millis(500), "{taken:?}");
    drop(rest(&stream)); // ends too
    assert_eq!(fixture.log(), ["stdout:now\n"]);
    fixture.finish();
}

#[test]
fn the_daemon_may_vanish() {
    let mut fixture = Fixture::new("exec sleep 100", PLAIN);
    drop(fixture.control.take());
    let (_client, state) = fixture.watch();
    assert_eq!(state.id, "cafe");
    let kill = Request::Kill {
        process: ProcessId::Init,
        signal: 9,
        all: false,
    };
    assert_eq!(fixture.call(&kill), Reply::Ok);
    assert_eq!(fixture.exit(), 137);
    fixture.finish();
}

#[test]
fn without_a_container_the_end_of_control_is_the_end() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut supervisor = Supervisor::new(theirs).unwrap();
    let mut client = Client::new(ours);
    let thread = std::thread::spawn(move || supervisor.run().unwrap());
    let Reply::State(state) = client.call(&Request::State).unwrap() else {
        panic!("no state")
    };
    assert_eq!(state.phase, Phase::Idle);
    let start = client.call(&Request::Start).unwrap();
    assert!(matches!(
        start,
        Reply::Failed {
            kind: FailureKind::NotRunning,
            ..
        }
    ));
    drop(client);
    thread.join().unwrap();
}

#[test]
fn garbage_and_oversize_are_refused_and_the_shim_lives() {
    let fixture = Fixture::new("exec sleep 100", PLAIN);
    let frame = |content: &[u8]| {
        let mut frame = u32::try_from(content.len()).unwrap().to_le_bytes().to_vec();
        frame.extend_from_slice(content);
        frame
    };
    let receive = |stream: &mut UnixStream| -> Reply {
        let mut decoder = crate::Decoder::new();
        loop {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            decoder.push(&byte);
            if let Some(reply) = decoder.next().unwrap() {
                return reply;
            }
        }
    };
    let refused = |reply: &Reply| {
        matches!(
            reply,
            Reply::Failed {
                kind: FailureKind::Invalid,
                ..
            }
        )
    };
    let connect = || UnixStream::connect(fixture.dir.path().join(SOCKET_NAME)).unwrap();
    // Malformed frames, then a good one on the same connection, byte by byte.
    let mut stream = connect();
    for garbage in [&b"{"[..], b"\"no such request\"", b"", b"\xff\xfe"] {
        stream.write_all(&frame(garbage)).unwrap();
        let reply = receive(&mut stream);
        assert!(refused(&reply), "{reply:?}");
    }
    for byte in frame(b"\"state\"") {
        stream.write_all(&[byte]).unwrap();
    }
    assert!(matches!(receive(&mut stream), Reply::State(_)));
    // A length over the limit ends the connection.
    let mut stream = connect();
    stream.write_all(&u32::MAX.to_le_bytes()).unwrap();
    assert!(refused(&receive(&mut stream)));
    assert!(rest(&stream).is_empty());
    // Torn frames and silent clients.
    drop(connect());
    let mut stream = connect();
    stream.write_all(&[200, 0, 0, 0, b'{']).unwrap();
    drop(stream);
    let create = br#"{"park":{"cgroup":{"parent":"/x","name":"y"}}}"#;
    let mut stream = connect();
    stream.write_all(&frame(create)).unwrap();
    assert!(matches!(receive(&mut stream), Reply::Failed { .. }));
    let process = ProcessId::Init;
    fixture.call(&Request::Kill {
        process,
        signal: 9,
        all: false,
    });
    assert_eq!(fixture.exit(), 137);
    fixture.finish();
}

#[test]
fn the_last_reader_gets_its_bytes_after_the_acknowledgement() {
    let setup = Setup {
        stdin: true,
        ..PLAIN
    };
    let fixture = Fixture::new("read go; head -c 900000 /dev/zero", setup);
    let mut stream = fixture.attach(ProcessId::Init, Streams::ALL);
    stream.write_all(b"go\n").unwrap();
    assert_eq!(fixture.exit(), 0);
    let process = ProcessId::Init;
    assert_eq!(fixture.call(&Request::Acknowledge { process }), Reply::Ok);
    assert_eq!(demultiplex(&rest(&stream)).0.len(), 900_000);
}

#[test]
fn too_many_connections_are_told_so_and_not_served() {
    let fixture = Fixture::new("exec sleep 100", PLAIN);
    let mut held: Vec<Client> = (0..383).map(|_| fixture.client()).collect();
    let kill = Request::Kill {
        process: ProcessId::Init,
        signal: 9,
        all: false,
    };
    let reply = fixture.client().call(&kill);
    let busy = matches!(
        reply,
        Ok(Reply::Failed {
            kind: FailureKind::Busy,
            ..
        })
    );
    assert!(busy, "{reply:?}");
    // Events are handled in turn: by the second answer, what the refused client asked would have been done.
    for _ in 0..2 {
        let alive = Request::Kill {
            process: ProcessId::Init,
            signal: 0,
            all: false,
        };
        assert_eq!(held[0].call(&alive).unwrap(), Reply::Ok);
    }
    std::thread::sleep(REFUSED_PAUSE);
    let Reply::State(state) = held[0].call(&Request::State).unwrap() else {
        panic!("no state");
    };
    assert_eq!(state.exit, None);
    assert_eq!(held[0].call(&kill).unwrap(), Reply::Ok);
    drop(held);
    assert_eq!(fixture.exit(), 137);
    fixture.finish();
}

/// Within this a process that was killed would be known to be dead.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);

/// Megabytes that the throughput test moves; `COOPER_SHIM_BENCH_MB` asks for more in a release build.
const THROUGHPUT_MB: usize = 30;

#[test]
fn throughput_is_printed() {
    let megabytes = std::env::var("COOPER_SHIM_BENCH_MB")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(THROUGHPUT_MB);
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("lines");
    std::fs::write(&source, ("x".repeat(99) + "\n").repeat(10_000)).unwrap();
    let script = format!(
        "read go; exec cat $(i=0; while [ $i -lt {megabytes} ]; do echo {}; i=$((i+1)); done)",
        source.display()
    );
    for log in [false, true] {
        for attached in [true, false] {
            let setup = Setup {
                stdin: true,
                stdin_once: true,
                log,
            };
            let fixture = Fixture::new(&script, setup);
            let reader = attached.then(|| fixture.attach(ProcessId::Init, Streams::OUTPUT));
            let mut feeder = fixture.attach(
                ProcessId::Init,
                Streams {
                    stdin: true,
                    stdout: false,
                    stderr: false,
                },
            );
            let begin = Instant::now();
            feeder.write_all(b"go\n").unwrap();
            let mut total = 0;
            if let Some(mut stream) = reader {
                let mut buffer = vec![0; 256 << 10];
                loop {
                    let count = stream.read(&mut buffer).unwrap();
                    if count == 0 {
                        break;
                    }
                    total += count;
                }
            }
            drop(feeder);
            assert_eq!(fixture.exit(), 0);
            let taken = begin.elapsed();
            let rate = f64::from(u32::try_from(megabytes).unwrap()) / taken.as_secs_f64();
            println!(
                "log {log}, attached {attached}: {megabytes} MB in {taken:?}: {rate:.0} MB/s, {total} bytes"
            );
            fixture.finish();
        }
    }
}
