//! The shim as a process, with real containers: busybox-static in a directory, no network.
//!
//! What needs no container is tested inside the crate, with ordinary children.
#![expect(clippy::unwrap_used, reason = "a test: helpers fail it by panicking")]

mod fixture;

use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use fixture::{Fixture, Options, demultiplex, rest};
use shim::protocol::{
    Exec, FailureKind, Notice, Phase, ProcessId, Reply, Request, Size, State, Streams, Wanted,
};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

fn init() -> ProcessId {
    ProcessId::Init
}

#[test]
fn a_container_from_create_to_acknowledge() {
    if !testkit::is_root() {
        return;
    }
    let mut fixture = Fixture::spawn("cycle");
    let created = fixture.create(
        &["sh", "-c", "echo out; echo err >&2; exit 7"],
        Options::default(),
    );
    let Reply::Created { pid } = created else {
        panic!("{created:?}")
    };
    assert!(pid > 0);
    // Attached before the start: nothing can be lost.
    let stream = fixture.attach(init(), Streams::OUTPUT);
    let (mut watching, state) = fixture.watch();
    assert_eq!((state.phase, state.pid), (Phase::Created, Some(pid)));
    let begin = Instant::now();
    let started = fixture.call(&Request::Start);
    assert!(
        matches!(started, Reply::Started { at_ns } if at_ns > 0),
        "{started:?}"
    );
    let (stdout, stderr) = demultiplex(&rest(&stream));
    assert_eq!((&stdout[..], &stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    let Notice::Exited { process, exit } = watching.notice().unwrap() else {
        panic!("no exit")
    };
    println!("start to exit: {:?}", begin.elapsed());
    assert_eq!((process, exit.code, exit.oom_killed), (init(), 7, false));
    assert_eq!(fixture.record("exit.json").unwrap().exit, exit);
    let mut log = fixture.log();
    log.sort();
    assert_eq!(log, ["stderr:err\n", "stdout:out\n"]);
    fixture.finish();
}

#[test]
fn a_parked_shim_makes_its_container_in_the_renamed_cgroup() {
    if !testkit::is_root() {
        return;
    }
    let mut fixture = Fixture::spawn("parked");
    let parked = fixture
        .cgroup
        .with_name(&format!("{}-waiting", fixture.cgroup.name()))
        .unwrap();
    let reply = fixture.call(&Request::Park {
        cgroup: parked.clone(),
    });
    assert_eq!(reply, Reply::Parked);
    assert!(runtime::cgroup::list(parked.parent()).contains(&parked.name().to_owned()));
    fixture.create(&["sh", "-c", "cat /proc/self/cgroup"], Options::default());
    let stream = fixture.attach(init(), Streams::OUTPUT);
    fixture.start();
    let text = String::from_utf8(demultiplex(&rest(&stream)).0).unwrap();
    assert!(text.contains(fixture.cgroup.name()), "{text}");
    assert!(!text.contains("-waiting"), "{text}");
    assert_eq!(fixture.exit(), 0);
    assert!(!runtime::cgroup::list(parked.parent()).contains(&parked.name().to_owned()));
    fixture.finish();
}

#[test]
fn a_shim_has_a_name_that_people_know() {
    if !testkit::is_root() {
        return;
    }
    let mut fixture = Fixture::spawn("named");
    fixture.create(&["true"], Options::default());
    assert_eq!(fixture.name(), "cooper-shim");
    fixture.start();
    assert_eq!(fixture.exit(), 0);
    fixture.finish();
}

#[test]
fn the_end_of_control_before_create_leaves_nothing() {
    if !testkit::is_root() {
        return;
    }
    let mut fixture = Fixture::spawn("unused");
    let cgroup = fixture.cgroup.clone();
    assert_eq!(
        fixture.call(&Request::Park {
            cgroup: cgroup.clone()
        }),
        Reply::Parked
    );
    fixture.drop_control();
    assert!(fixture.wait_for_shim().success());
    assert!(!runtime::cgroup::list(cgroup.parent()).contains(&cgroup.name().to_owned()));
}

#[test]
fn a_terminal_is_one_raw_stream_with_a_size() {
    if !testkit::is_root() {
        return;
    }
    let mut fixture = Fixture::spawn("terminal");
    let options = Options {
        terminal: true,
        stdin: true,
        size: Some(Size {
            width: 100,
            height: 30,
        }),
        ..Options::default()
    };
    let script = "stty size; stty -echo; echo ready; read go; stty size; echo err >&2; exit 3";
    fixture.create(&["sh", "-c", script], options);
    let mut stream = fixture.attach(init(), Streams::ALL);
    fixture.start();
    let mut text = String::new();
    while !text.contains("ready\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        text.push(char::from(byte[0]));
    }
    assert_eq!(text, "30 100\r\nready\r\n");
    let size = Size {
        width: 132,
        height: 50,
    };
    assert_eq!(
        fixture.call(&Request::Resize {
            process: init(),
            size
        }),
        Reply::Ok
    );
    stream.write_all(b"go\n").unwrap();
    assert_eq!(
        String::from_utf8(rest(&stream)).unwrap(),
        "50 132\r\nerr\r\n"
    );
    assert_eq!(fixture.exit(), 3);
    let log = ["30 100", "ready", "50 132", "err"].map(|line| format!("stdout:{line}\r\n"));
    assert_eq!(fixture.log(), log);
    fixture.finish();
}

fn exec(id: &str, args: &[&str]) -> Exec {
    let process = serde_json::json!({
        "user": {"uid": 0, "gid": 0}, "args": args, "env": ["PATH=/bin"], "cwd": "/",
    });
    Exec {
        user: Wanted::default(),
        id: id.to_owned(),
        process: serde_json::from_value(process).unwrap(),
        stdin: false,
        size: None,
        attach: None,
    }
}

#[test]
fn execs_run_beside_each_other_with_their_own_ends() {
    if !testkit::is_root() {
        return;
    }
    let mut fixture = Fixture::spawn("exec");
    fixture.create(&["sleep", "100"], Options::default());
    fixture.start();
    let (mut watching, _) = fixture.watch();
    let streams: Vec<_> = (0..4)
        .map(|number| {
            let mut request = exec(
                &format!("e{number}"),
                &["sh", "-c", &format!("cat; exit {number}")],
            );
            (request.stdin, request.attach) = (true, Some(Streams::ALL));
            fixture.exec_stream(request)
        })
        .collect();
    for (number, stream) in streams.iter().enumerate() {
        let mut writing = stream;
        write!(writing, "text {number}").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let (stdout, _) = demultiplex(&rest(stream));
        assert_eq!(stdout, format!("text {number}").as_bytes());
        let Notice::Exited { process, exit } = watching.notice().unwrap() else {
            panic!("no exit")
        };
        assert_eq!(process, ProcessId::Exec(format!("e{number}")));
        assert_eq!(usize::try_from(exit.code).unwrap(), number);
        assert_eq!(
            fixture
                .record(&format!("exec-e{number}.json"))
                .unwrap()
                .exit,
            exit
        );
        assert_eq!(fixture.call(&Request::Acknowledge { process }), Reply::Ok);
    }
    assert!(fixture.state().execs.is_empty());
    fixture.kill(9);
    assert_eq!(fixture.exit(), 137);
    fixture.finish();
}

#[test]
fn a_program_that_cannot_run_is_told_by_its_kind() {
    if !testkit::is_root() {
        return;
    }
    let mut fixture = Fixture::spawn("nope");
    fixture.create(&["sleep", "100"], Options::default());
    fixture.start();
    let kind = |reply: &Reply| match reply {
        Reply::Failed { kind, message } => (*kind, message.clone()),
        other => panic!("{other:?}"),
    };
    let (class, message) = kind(&fixture.call(&Request::Exec(Box::new(exec("a", &["nope"])))));
    assert_eq!(class, FailureKind::NotFound);
    assert!(
        message.contains("exec: \"nope\": executable file not found in $PATH"),
        "{message}"
    );
    let (class, _) = kind(&fixture.call(&Request::Exec(Box::new(exec("b", &["/etc"])))));
    assert_eq!(class, FailureKind::NotExecutable);
    assert!(fixture.state().execs.is_empty());
    fixture.kill(9);
    assert_eq!(fixture.exit(), 137);
    let (class, _) = kind(&fixture.call(&Request::Exec(Box::new(exec("c", &["true"])))));
    assert_eq!(class, FailureKind::NotRunning);
    fixture.finish();
}

#[test]
fn a_failed_create_or_start_ends_the_shim_and_leaves_nothing() {
    if !testkit::is_root() {
        return;
    }
    let mut fixture = Fixture::spawn("failed");
    let mut reply = fixture.create(&["nope"], Options::default());
    if matches!(reply, Reply::Created { .. }) {
        reply = fixture.call(&Request::Start);
    }
    assert!(
        matches!(
            reply,
            Reply::Failed {
                kind: FailureKind::NotFound,
                ..
            }
        ),
        "{reply:?}"
    );
    assert!(fixture.wait_for_shim().success());
    assert!(fixture.record("exit.json").is_none());
    fixture.assert_nothing_left();
}

#[test]
fn pause_resume_and_signals_to_all() {
    if !testkit::is_root() {
        return;
    }
    let mut fixture = Fixture::spawn("pause");
    let script = "trap 'echo term' TERM; (trap 'echo child; exit' TERM; while :; do sleep 0.05; done) & \
        i=0; while kill -0 $! 2>/dev/null; do sleep 0.05; done; exit 4";
    fixture.create(&["sh", "-c", script], Options::default());
    fixture.start();
    assert_eq!(fixture.call(&Request::Pause), Reply::Ok);
    assert_eq!(fixture.state().phase, Phase::Paused);
    let busy = fixture.call(&Request::Exec(Box::new(exec("x", &["true"]))));
    assert!(
        matches!(
            busy,
            Reply::Failed {
                kind: FailureKind::Busy,
                ..
            }
        ),
        "{busy:?}"
    );
    assert_eq!(fixture.call(&Request::Resume), Reply::Ok);
    assert_eq!(fixture.state().phase, Phase::Running);
    // Traps are set a moment after the start: as long as both live, the signal is repeated.
    let (mut watching, _) = fixture.watch();
    let all = Request::Kill {
        process: init(),
        signal: 15,
        all: true,
    };
    let begin = Instant::now();
    while fixture.state().phase == Phase::Running {
        drop(fixture.call(&all));
        assert!(begin.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
    assert!(matches!(watching.notice().unwrap(), Notice::Exited { .. }));
    fixture.finish();
}

#[test]
fn the_daemon_dies_and_another_finds_the_container() {
    if !testkit::is_root() {
        return;
    }
    let mut fixture = Fixture::spawn("orphan");
    let options = Options {
        stdin: true,
        ..Options::default()
    };
    fixture.create(&["sh", "-c", "read line; echo $line; exit 9"], options);
    fixture.start();
    fixture.drop_control();
    let state = fixture.state();
    assert_eq!(
        (state.phase, state.version),
        (Phase::Running, shim::protocol::VERSION)
    );
    let mut stream = fixture.attach(init(), Streams::ALL);
    stream.write_all(b"still here\n").unwrap();
    assert_eq!(demultiplex(&rest(&stream)).0, b"still here\n");
    assert_eq!(fixture.exit(), 9);
    assert_eq!(fixture.record("exit.json").unwrap().exit.code, 9);
    fixture.finish();
}

#[test]
fn a_killed_shim_leaves_a_dead_socket_and_no_record() {
    if !testkit::is_root() {
        return;
    }
    let mut fixture = Fixture::spawn("killed");
    fixture.create(&["sleep", "100"], Options::default());
    fixture.start();
    fixture.kill_shim();
    let error = shim::Client::connect(&fixture.run_dir()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(fixture.run_dir().join("shim.sock").exists());
    assert!(fixture.record("exit.json").is_none());
    // What the daemon does about it, and this fixture's end too: kill the cgroup.
}

#[test]
fn a_kill_for_memory_is_told_and_recorded() {
    if !testkit::is_root() {
        return;
    }
    if !runtime::cgroup::has_controller("memory") {
        println!("skipped: no memory controller");
        return;
    }
    let mut fixture = Fixture::spawn("memory");
    let options = Options {
        memory_bytes: Some(16 << 20),
        ..Options::default()
    };
    fixture.create(&["sh", "-c", "tail /dev/zero; exit 6"], options);
    let (mut watching, _) = fixture.watch();
    fixture.start();
    assert_eq!(watching.notice().unwrap(), Notice::OutOfMemory);
    let exit = loop {
        if let Notice::Exited { exit, .. } = watching.notice().unwrap() {
            break exit;
        }
    };
    assert_eq!((exit.code, exit.oom_killed), (6, true));
    assert!(fixture.state().oom_killed);
    fixture.finish();
}

/// The most a shim with a quiet container may hold for itself, in KiB (issue 2: 400 KiB PSS).
const PRIVATE_KIB_MAX: u64 = 400;
/// What it should hold (DESIGN section 3: 300 KiB).
const PRIVATE_KIB_AIM: u64 = 300;

#[test]
fn a_quiet_shim_is_small() {
    if !testkit::is_root() {
        return;
    }
    let mut fixture = Fixture::spawn("small");
    fixture.create(&["sleep", "100"], Options::default());
    fixture.start();
    for number in 0..3 {
        let id = format!("e{number}");
        let mut request = exec(&id, &["sh", "-c", "head -c 1000000 /dev/zero"]);
        request.attach = Some(Streams::OUTPUT);
        let stream = fixture.exec_stream(request);
        assert_eq!(demultiplex(&rest(&stream)).0.len(), 1_000_000);
        let process = ProcessId::Exec(id);
        while fixture.call(&Request::Acknowledge {
            process: process.clone(),
        }) != Reply::Ok
        {
            std::thread::yield_now();
        }
    }
    // Buffers are given back half a second after the last event.
    let begin = Instant::now();
    let mut memory = fixture.memory();
    while memory["Anonymous"] > PRIVATE_KIB_AIM && begin.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(LOOK_EVERY);
        memory = fixture.memory();
    }
    println!("{memory:?}");
    let anonymous = memory["Anonymous"];
    assert!(anonymous <= PRIVATE_KIB_MAX, "{anonymous} KiB");
    fixture.kill(9);
    assert_eq!(fixture.exit(), 137);
    fixture.finish();
}

#[test]
fn a_full_disk_neither_blocks_nor_kills() {
    if !testkit::is_root() {
        return;
    }
    let mut fixture = Fixture::spawn_with_small_disk("full");
    let script =
        "i=0; while [ $i -lt 3000 ]; do echo \"this is line number $i\"; i=$((i+1)); done; exit 3";
    fixture.create(&["sh", "-c", script], Options::default());
    let stream = fixture.attach(init(), Streams::OUTPUT);
    let (mut watching, _) = fixture.watch();
    fixture.start();
    let (stdout, _) = demultiplex(&rest(&stream));
    let lines = stdout.iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!(lines, 3000);
    let Notice::LogFailed { message } = watching.notice().unwrap() else {
        panic!("no failure")
    };
    assert!(message.contains("No space left on device"), "{message}");
    let Notice::Exited { exit, .. } = watching.notice().unwrap() else {
        panic!("no exit")
    };
    assert_eq!(exit.code, 3);
    let State {
        log_lines_dropped, ..
    } = fixture.state();
    let written = fixture.log();
    for (number, line) in written.iter().enumerate() {
        assert_eq!(*line, format!("stdout:this is line number {number}\n"));
    }
    assert_eq!(
        usize::try_from(log_lines_dropped).unwrap() + written.len(),
        3000
    );
    fixture.finish();
}

/// How long the shim's use of the processor is measured.
const MEASURED: Duration = Duration::from_secs(1);

/// Ticks of processor time that a process has used, of the 100 that a second has.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn limit_descriptors(pid: u32, limit: &str) {
    let limited = sys::command::Command::new("/usr/bin/prlimit")
        .arg("--pid")
        .arg(pid.to_string())
        .arg(format!("--nofile={limit}"))
        .output()
        .unwrap();
    assert!(limited.status.success(), "{limited:?}");
}

#[test]
fn without_descriptors_the_shim_rests_and_then_serves() {
    if !testkit::is_root() {
        return;
    }
    let mut fixture = Fixture::spawn("descriptors");
    fixture.create(&["sleep", "100"], Options::default());
    fixture.start();
    let pid = fixture.shim_pid();
    // The limit is on numbers: the lowest that is free.
    let free = (0..1024).find(|number| !Path::new(&format!("/proc/{pid}/fd/{number}")).exists());
    limit_descriptors(pid, &format!("{}:1024", free.unwrap()));
    let mut waiting = fixture.client();
    let before = ticks(pid);
    std::thread::sleep(MEASURED);
    let used = ticks(pid) - before;
    assert!(used < 20, "{used} ticks of 100");
    limit_descriptors(pid, "1024:1024");
    assert!(matches!(waiting.call(&Request::State), Ok(Reply::State(_))));
    fixture.kill(9);
    assert_eq!(fixture.exit(), 137);
    fixture.finish();
}
