//! An exit: its record, its notice, and what it waits for.

use super::*;

#[test]
fn output_goes_to_log_and_client_and_the_exit_comes_last() {
    let script = "read go; printf 'out\\n'; printf 'err' >&2; exit 7";
    let fixture = Fixture::new(script, ONCE);
    let stream = fixture.go();
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
    let kill = signal(15);
    assert_eq!(fixture.call(&kill), Reply::Ok);
    let notice = watching.notice().unwrap();
    let record = fixture.record("exit.json").unwrap();
    let Notice::Exited { process, exit } = notice else {
        panic!("{notice:?}")
    };
    assert_eq!((process, exit), (ProcessId::Init, record.exit));
    assert_eq!(exit.code, 143);
    assert!(is_refused(&fixture.call(&kill), FailureKind::NotRunning));
    fixture.finish();
}

#[test]
fn execs_have_their_own_streams_exits_and_records() {
    let scripts = ["cat; exit 3", "cat >&2; exit 4"];
    let fixture = Fixture::with_execs("exec sleep 100", &scripts, OPEN);
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
    assert!(is_refused(&busy, FailureKind::Busy));
    fixture.kill();
}

#[test]
fn a_background_child_delays_the_announcement_only_so_long() {
    let fixture = Fixture::new("echo now; sleep 6 & exit 2", PLAIN);
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
