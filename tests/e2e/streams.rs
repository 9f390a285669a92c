//! Clients that pause, vanish or stay too long, and what becomes of their streams.

use std::io::Read as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{TestDaemon, wait_until};

use crate::daemon;
use crate::lifecycle::body;
use testkit::client::frames;

/// Long enough for somebody to read the first page of a pager; the shim's limit was 5 s.
const PAUSE: Duration = Duration::from_secs(10);

/// What the writing program gives: more than all buffers on the way hold.
const WRITTEN_BYTES: usize = 3_000_000;

/// The daemon waits 5 s for what does not end by itself, so this is less.
const ENDS_WITHIN: Duration = Duration::from_secs(4);

/// How soon a client that vanished is noticed.
const NOTICED_WITHIN: Duration = Duration::from_secs(5);

const UPGRADE: [(&str, &str); 2] = [("Connection", "Upgrade"), ("Upgrade", "tcp")];

fn writer() -> Value {
    let script = format!("head -c {WRITTEN_BYTES} /dev/zero | tr '\\0' x");
    body(&["sh", "-c", &script])
}

#[test]
fn docker_run_into_a_pager_loses_nothing() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let id = daemon.create(&writer());
    let attach = format!("/containers/{id}/attach?stream=1&stdout=1&stderr=1");
    let mut open = client.open("POST", &attach, &UPGRADE, b"");
    client
        .post(&format!("/containers/{id}/start"), &Value::Null)
        .expect(204);
    std::thread::sleep(PAUSE); // the reader's pause
    let mut shown = Vec::new();
    open.stream.read_to_end(&mut shown).expect("the output");
    assert_eq!(frames(&shown).0.len(), WRITTEN_BYTES);
}

#[test]
fn an_exec_whose_reader_pauses_loses_nothing() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let id = daemon.run(&body(&["sleep", "600"]));
    let mut exec = writer();
    exec["AttachStdout"] = true.into();
    let created = client
        .post(&format!("/containers/{id}/exec"), &exec)
        .expect(201)
        .json();
    let exec = created["Id"].as_str().expect("an id");
    let start = json!({"Detach": false, "Tty": false}).to_string();
    let headers = [UPGRADE[0], UPGRADE[1], ("Content-Type", "application/json")];
    let path = format!("/exec/{exec}/start");
    let mut open = client.open("POST", &path, &headers, start.as_bytes());
    std::thread::sleep(PAUSE); // the reader's pause
    let mut shown = Vec::new();
    open.stream.read_to_end(&mut shown).expect("the output");
    assert_eq!(frames(&shown).0.len(), WRITTEN_BYTES);
    let ended = client.get(&format!("/exec/{exec}/json")).expect(200).json();
    assert_eq!(
        (&ended["Running"], &ended["ExitCode"]),
        (&json!(false), &json!(0))
    );
}

/// Sockets that the daemon has open.
fn sockets(daemon: &TestDaemon) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("its descriptors");
    let is_socket = |entry: &std::fs::DirEntry| {
        std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
    };
    entries.flatten().filter(is_socket).count()
}

#[test]
fn clients_that_vanish_from_a_quiet_container_are_let_go() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let running = daemon.run(&body(&["sleep", "600"]));
    let created = daemon.create(&body(&["sleep", "600"]));
    let before = sockets(&daemon);
    let attach = |id: &String| {
        let path = format!("/containers/{id}/attach?stream=1&stdout=1");
        client.open("POST", &path, &UPGRADE, b"")
    };
    let held: Vec<_> = (0..10)
        .flat_map(|_| [attach(&running), attach(&created)])
        .collect();
    assert!(sockets(&daemon) >= before + 20);
    drop(held);
    wait_until("the daemon to let them go", NOTICED_WITHIN, || {
        (sockets(&daemon) <= before).then_some(())
    });
}

#[test]
fn the_daemon_ends_at_once_although_clients_follow() {
    let Some(mut daemon) = daemon() else { return };
    let client = daemon.client();
    let id = daemon.run(&body(&["sleep", "600"]));
    let mut events = client.open("GET", "/events", &[], b"");
    let _logs = client.open(
        "GET",
        &format!("/containers/{id}/logs?follow=1&stdout=1"),
        &[],
        b"",
    );
    let _wait = client.open("POST", &format!("/containers/{id}/wait"), &[], b"");
    let begin = Instant::now();
    daemon.stop();
    let taken = begin.elapsed();
    assert!(taken < ENDS_WITHIN, "{taken:?}");
    // A last chunk: the stream ended, it did not break.
    let mut rest = String::new();
    events.stream.read_to_string(&mut rest).expect("the end");
    assert!(rest.ends_with("0\r\n\r\n"), "{rest:?}");
    daemon.start_again();
    let found = client
        .get(&format!("/containers/{id}/json"))
        .expect(200)
        .json();
    assert_eq!(found["State"]["Running"], true);
}

/// A log that cannot be read on is told in the stream, in dockerd's words: the CLI fails then instead of ending as if
/// that had been all.
#[test]
fn a_log_that_cannot_be_read_is_told_to_its_readers() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    for tty in [false, true] {
        let mut body = body(&["echo", "hello"]);
        body["Tty"] = tty.into();
        let id = daemon.run(&body);
        client
            .post(&format!("/containers/{id}/wait"), &Value::Null)
            .expect(200);
        let log = daemon
            .data_root()
            .join(format!("containers/{id}/{id}-json.log"));
        std::fs::rename(&log, log.with_extension("away")).expect("move the log");
        // What opens and cannot be read.
        std::fs::create_dir(&log).expect("a directory in the log's place");
        let told = "Error grabbing logs: Is a directory (os error 21)\n";
        let frame = match tty {
            true => told.as_bytes().to_vec(),
            false => {
                let length = u8::try_from(told.len()).expect("a short text");
                [&[3, 0, 0, 0, 0, 0, 0, length], told.as_bytes()].concat()
            }
        };
        let logs = client
            .get(&format!("/containers/{id}/logs?stdout=1&stderr=1"))
            .expect(200);
        assert_eq!(logs.body, frame, "tty {tty}");
        let path = format!("/containers/{id}/attach?logs=1&stdout=1&stderr=1");
        let mut attached = client.open("POST", &path, &UPGRADE, b"");
        let mut shown = Vec::new();
        attached.stream.read_to_end(&mut shown).expect("the replay");
        assert_eq!(shown, frame, "attach, tty {tty}");
    }
}
