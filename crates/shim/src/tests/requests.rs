//! What is asked of a shim, by how many, in which form, and that it outlives them.

use super::*;

#[test]
fn attached_clients_leave_places_for_requests() {
    let fixture = Fixture::new("exec sleep 100", PLAIN);
    let attach = Request::Attach {
        process: ProcessId::Init,
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
    assert_eq!(fixture.call(&signal(9)), Reply::Ok);
    drop(attached);
    fixture.finish_with(137);
}

#[test]
fn the_daemon_may_vanish() {
    let mut fixture = Fixture::new("exec sleep 100", PLAIN);
    drop(fixture.control.take());
    let (_client, state) = fixture.watch();
    assert_eq!(state.id, "cafe");
    fixture.kill();
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
    assert!(is_refused(&start, FailureKind::NotRunning));
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
    let refused = |reply: &Reply| is_refused(reply, FailureKind::Invalid);
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
    fixture.kill();
}

#[test]
fn too_many_connections_are_told_so_and_not_served() {
    let fixture = Fixture::new("exec sleep 100", PLAIN);
    let mut held: Vec<Client> = (0..383).map(|_| fixture.client()).collect();
    let kill = signal(9);
    let reply = fixture.client().call(&kill).unwrap();
    assert!(is_refused(&reply, FailureKind::Busy), "{reply:?}");
    // Events are handled in turn: by the second answer, what the refused client asked would have been done.
    for _ in 0..2 {
        assert_eq!(held[0].call(&signal(0)).unwrap(), Reply::Ok);
    }
    std::thread::sleep(REFUSED_PAUSE);
    let Reply::State(state) = held[0].call(&Request::State).unwrap() else {
        panic!("no state");
    };
    assert_eq!(state.exit, None);
    assert_eq!(held[0].call(&kill).unwrap(), Reply::Ok);
    drop(held);
    fixture.finish_with(137);
}

/// Within this a process that was killed would be known to be dead.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);
