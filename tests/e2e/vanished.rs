//! Clients that vanish in the middle of a request or a stream: nothing in the daemon is left of them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Client, TestDaemon, wait_until};

use crate::daemon;
use crate::lifecycle::body;

/// What is left of a client is gone by then.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(5);

/// Clients that vanish at once, in each way.
const CLIENTS: usize = 20;

/// Rounds of clients before anything is counted, until the allocator has what it needs for them; and those that are.
const WARM_ROUNDS: usize = 8;
const ROUNDS: usize = 6;

/// What the allocator may keep more after some hundred clients than after the hundreds before them.
const MEMORY_SLACK_KB: u64 = 3072;

/// What the state database may keep open for readers to come: 4 connections of 3 files. A descriptor that stays
/// behind with each client is more.
const READERS_FILES: usize = 12;

/// Descriptors and tasks of the daemon, its own count of event listeners, and the shims' descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    files: usize,
    tasks: i64,
    listeners: i64,
    shim_files: usize,
}

fn files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its descriptors")
        .count()
}

fn resident_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .expect("a size")
}

fn held(daemon: &TestDaemon, shim: u32) -> Held {
    let info = daemon.client().get("/info").expect(200).json();
    Held {
        files: files(daemon.pid()),
        tasks: info["NGoroutines"].as_i64().expect("a number"),
        listeners: info["NEventsListener"].as_i64().expect("a number"),
        shim_files: files(shim),
    }
}

/// The parent of a container's init.
pub(crate) fn shim_of(client: &Client, id: &str) -> u32 {
    let inspected = client
        .get(&format!("/containers/{id}/json"))
        .expect(200)
        .json();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", inspected["State"]["Pid"]));
    let stat = stat.expect("the init runs");
    let parent = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(1));
    parent.and_then(|pid| pid.parse().ok()).expect("a parent")
}

/// Sends a request and reads `until` something of the answer is there, if anything is wanted of it.
fn send(client: &Client, request: &str, until: Option<&str>) -> UnixStream {
    let mut stream = UnixStream::connect(client.socket()).expect("connect");
    stream.write_all(request.as_bytes()).expect("send");
    let mut seen = Vec::new();
    let mut byte = [0];
    while let Some(until) = until
        && !seen.ends_with(until.as_bytes())
    {
        stream
            .read_exact(&mut byte)
            .unwrap_or_else(|error| panic!("{error} after {}", String::from_utf8_lossy(&seen)));
        seen.push(byte[0]);
    }
    stream
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: docker\r\n\r\n")
}

fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: docker\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: tcp\r\n";

/// One client in each way; they stay as long as the answer does.
fn each_way(client: &Client, chatty: &str, quiet: &str, registry: u16) -> Vec<UnixStream> {
    let stream = "stream=1&stdin=1&stdout=1&stderr=1";
    let attach = |id: &str| post(&format!("/containers/{id}/attach?{stream}"), UPGRADE, "");
    let logs = |id: &str| get(&format!("/containers/{id}/logs?follow=1&stdout=1"));
    let exec = json!({"Cmd": ["cat"], "AttachStdin": true, "AttachStdout": true});
    let exec = client
        .post(&format!("/containers/{quiet}/exec"), &exec)
        .expect(201)
        .json();
    let exec = format!("/exec/{}/start", exec["Id"].as_str().expect("an id"));
    let json = format!("{UPGRADE}Content-Type: application/json\r\n");
    // A tar of which only the beginning comes.
    let load = "POST /images/load HTTP/1.1\r\nHost: docker\r\nContent-Type: application/x-tar\r\n\
                Content-Length: 100000\r\n\r\nmanifest.json";
    let pull = format!("/images/create?fromImage=127.0.0.1:{registry}/slow&tag=one");
    vec![
        send(client, &attach(chatty), Some("tick")),
        send(client, &attach(quiet), Some("\r\n\r\n")),
        send(client, &logs(chatty), Some("tick")),
        send(client, &logs(quiet), Some("\r\n\r\n")),
        send(
            client,
            &post(&format!("/containers/{quiet}/wait"), "", ""),
            None,
        ),
        send(
            client,
            &post(
                &format!("/containers/{quiet}/wait?condition=removed"),
                "",
                "",
            ),
            None,
        ),
        send(client, &get("/events"), Some("\r\n\r\n")),
        send(client, &post(&exec, &json, "{}"), Some("\r\n\r\n")),
        send(client, load, None),
        send(client, &post(&pull, "", ""), None),
        send(client, "GET /contain", None),
        send(client, &get("/containers/json"), None),
    ]
}

/// The least that a daemon holds within the time it may take to forget a client.
fn least(daemon: &TestDaemon, shim: u32) -> Held {
    let (mut least, begin) = (held(daemon, shim), Instant::now());
    wait_until("the daemon to come to rest", FORGOTTEN_WITHIN * 2, || {
        let now = held(daemon, shim);
        least = Held {
            files: least.files.min(now.files),
            tasks: least.tasks.min(now.tasks),
            listeners: least.listeners.min(now.listeners),
            shim_files: least.shim_files.min(now.shim_files),
        };
        (begin.elapsed() > FORGOTTEN_WITHIN).then_some(least)
    })
}

/// What a daemon holds once it holds no more than `before`.
fn at_rest(daemon: &TestDaemon, shim: u32, before: Held) -> Held {
    let deadline = Instant::now() + FORGOTTEN_WITHIN;
    loop {
        let now = held(daemon, shim);
        let calm = now.files <= before.files + READERS_FILES
            && now.tasks <= before.tasks
            && now.listeners <= before.listeners
            && now.shim_files <= before.shim_files;
        if calm {
            return now;
        }
        assert!(
            Instant::now() < deadline,
            "{now:?} is left, at the beginning {before:?}"
        );
    }
}

#[test]
fn nothing_is_left_of_clients_that_vanish() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let mut open = body(&["sh", "-c", "while :; do echo tick; usleep 20000; done"]);
    open["OpenStdin"] = json!(true);
    let chatty = daemon.run(&open);
    open["Cmd"] = json!(["sleep", "600"]);
    let quiet = daemon.run(&open);
    let shim = shim_of(&client, &quiet);
    // A registry that takes every connection and never says a word.
    let registry = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = registry.local_addr().expect("its address").port();
    let round = || -> Vec<UnixStream> {
        let clients = (0..CLIENTS).flat_map(|_| each_way(&client, &chatty, &quiet, port));
        clients.collect()
    };
    // Whatever is made once and kept is made by the first ones.
    for _ in 0..WARM_ROUNDS {
        drop(round());
        end_execs(&client, &quiet);
    }
    let before = least(&daemon, shim);
    let mut sizes = Vec::new();
    for _ in 0..ROUNDS {
        let clients = round();
        let during = held(&daemon, shim);
        assert!(
            during.files >= before.files + CLIENTS * 10,
            "{during:?}, {before:?}"
        );
        assert!(
            during.tasks > before.tasks,
            "tasks are counted: {during:?}, {before:?}"
        );
        drop(clients);
        end_execs(&client, &quiet);
        let after = at_rest(&daemon, shim, before);
        sizes.push(resident_kb(daemon.pid()));
        println!("{before:?} {during:?} {after:?}");
    }
    println!("KiB after each round: {sizes:?}");
    // The least of each half: what a round keeps for the moment is noise.
    let least = |sizes: &[u64]| *sizes.iter().min().expect("a round");
    let (first, last) = sizes.split_at(ROUNDS / 2);
    assert!(least(last) <= least(first) + MEMORY_SLACK_KB, "{sizes:?}");
    // And the containers never noticed.
    for id in [&chatty, &quiet] {
        let state = client
            .get(&format!("/containers/{id}/json"))
            .expect(200)
            .json();
        assert_eq!(state["State"]["Running"], true);
    }
}

/// The exec's `cat` ends with its client: nobody else can end its input.
fn end_execs(client: &Client, id: &str) {
    wait_until(
        "the execs of vanished clients to end",
        FORGOTTEN_WITHIN,
        || {
            let inspected = client
                .get(&format!("/containers/{id}/json"))
                .expect(200)
                .json();
            let execs = &inspected["ExecIDs"];
            (*execs == Value::Null || *execs == json!([])).then_some(())
        },
    );
}
