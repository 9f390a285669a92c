//! Who gets which bytes of a process, and what a reader does to it that is slow, late or gone.

use super::*;

/// How long the reader of an exec pauses: longer than the patience.
const EXEC_PAUSE: Duration = Duration::from_secs(3);

/// How long the reader of a stream that has ended pauses: longer than the limit there was, 5 s.
const LATE_PAUSE: Duration = Duration::from_secs(6);

/// How long a slow reader pauses after each piece.
const SLOWNESS: Duration = Duration::from_millis(2);

#[test]
fn sixty_four_clients_get_the_same_bytes() {
    let script =
        "read go; i=0; while [ $i -lt 2000 ]; do echo \"line $i of the output\"; i=$((i+1)); done";
    let fixture = Fixture::new(script, OPEN);
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
    fixture.kill();
}

#[test]
fn the_end_of_a_stream_waits_for_a_reader_that_pauses() {
    let fixture = Fixture::new("read go; head -c 900000 /dev/zero", OPEN);
    let stream = fixture.go();
    assert_eq!(fixture.exit(), 0);
    std::thread::sleep(LATE_PAUSE);
    assert_eq!(demultiplex(&rest(&stream)).0.len(), 900_000);
    fixture.finish();
}

#[test]
fn a_slow_client_slows_the_process_and_gets_everything() {
    let script = "read go; head -c 4000000 /dev/zero | tr '\\0' y";
    let fixture = Fixture::new(script, OPEN);
    let mut stream = fixture.go();
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
    fixture.finish_with(0);
}

#[test]
fn half_close_ends_stdin_with_stdin_once_and_output_goes_on() {
    let script = "cat; echo end; exit 5";
    let fixture = Fixture::new(script, ONCE);
    let mut stream = fixture.attach(ProcessId::Init, Streams::ALL);
    stream.write_all(b"text\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(demultiplex(&rest(&stream)).0, b"text\nend\n");
    fixture.finish_with(5);
}

#[test]
fn half_close_without_stdin_once_ends_only_the_session() {
    // dockerd 28.5.2: the connection ends at once, the container's standard input stays open.
    let fixture = Fixture::new("cat; exit 5", OPEN);
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
    fixture.finish_with(5);
}

#[test]
fn bytes_of_a_client_that_has_gone_still_reach_a_slow_reader() {
    let script = "sleep 0.3; head -c 300000 | wc -c";
    let fixture = Fixture::new(script, ONCE);
    let mut stream = fixture.attach(ProcessId::Init, Streams::ALL);
    stream.write_all(&vec![b'x'; 300_000]).unwrap();
    drop(stream);
    assert_eq!(fixture.exit(), 0);
    assert_eq!(fixture.log(), ["stdout:300000\n"]);
    fixture.finish();
}

#[test]
fn the_last_reader_gets_its_bytes_after_the_acknowledgement() {
    let fixture = Fixture::new("read go; head -c 900000 /dev/zero", OPEN);
    let stream = fixture.go();
    assert_eq!(fixture.exit(), 0);
    let process = ProcessId::Init;
    assert_eq!(fixture.call(&Request::Acknowledge { process }), Reply::Ok);
    assert_eq!(demultiplex(&rest(&stream)).0.len(), 900_000);
}
