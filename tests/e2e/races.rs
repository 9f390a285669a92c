//! Requests that meet the end of a container, and shims that hang: a client is told what is so, in dockerd's words.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::Client;

use crate::daemon;
use crate::lifecycle::body;
use crate::vanished::shim_of;

/// Clients that ask at once, each for one thing, all of the same container.
const CLIENTS: usize = 64;

/// How long they do.
const STORM: Duration = Duration::from_secs(4);

/// What a request that a hung shim does not answer may take: the engine's bound of 10 s, and the machine's slowness.
const HUNG_TOLD_WITHIN: Duration = Duration::from_secs(14);

/// Asks again and again for one of the things that a container's end makes impossible; the words of each answer that
/// is a 500, and how much was done.
fn storm(client: &Client, number: usize) -> (Vec<String>, usize) {
    let (mut words, mut done, begin) = (Vec::new(), 0, Instant::now());
    let mut session = client.session().expect("a connection");
    let mut ask = |method: &str, path: &str, body: Option<Value>| {
        let headers = [("Content-Type", "application/json")];
        let bytes = body.map(|body| body.to_string()).unwrap_or_default();
        let answer = session.request(method, path, &headers, bytes.into_bytes());
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error:#}"));
        done += usize::from(answer.status < 300);
        if answer.status >= 500 {
            let text = answer.text();
            words.push(format!("{method} {path}: {} {text}", answer.status));
        }
        answer
    };
    // It ends by itself, soon.
    let mut create = body(&["usleep", "20000"]);
    create["Tty"] = json!(true);
    let mut round = 0;
    while begin.elapsed() < STORM {
        round += 1;
        match number {
            0 if round % 100 == 1 => {
                ask("DELETE", "/containers/storm?force=1", None);
                ask(
                    "POST",
                    "/containers/create?name=storm",
                    Some(create.clone()),
                );
            }
            0..4 => {
                // A kill that meets a start ends that.
                let paused = ask("POST", "/containers/storm/pause", None);
                if paused.status == 204 {
                    ask("POST", "/containers/storm/kill?signal=KILL", None);
                }
            }
            4..8 => drop(ask("GET", "/containers/storm/top", None)),
            8..16 => drop(ask("POST", "/containers/storm/start", None)),
            16..28 => drop(ask("POST", "/containers/storm/kill?signal=HUP", None)),
            28..40 => drop(ask("GET", "/containers/storm/top", None)),
            40..48 => drop(ask("POST", "/containers/storm/resize?h=10&w=10", None)),
            _ => {
                let exec = json!({"Cmd": ["true"]});
                let made = ask("POST", "/containers/storm/exec", Some(exec));
                if made.status == 201 {
                    let made = made.json();
                    let start = format!("/exec/{}/start", made["Id"].as_str().expect("an id"));
                    ask("POST", &start, Some(json!({"Detach": true})));
                }
            }
        }
    }
    (words, done)
}

#[test]
fn no_request_that_meets_an_exit_is_told_as_a_failure_of_the_engine() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let (words, done): (Vec<_>, Vec<_>) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let client = &client;
                scope.spawn(move || storm(client, number))
            })
            .collect();
        let told = clients.into_iter().map(|one| one.join().expect("it asks"));
        told.unzip()
    });
    let words = words.concat();
    assert!(words.is_empty(), "{} failures: {words:#?}", words.len());
    let done: usize = done.iter().sum();
    assert!(done > CLIENTS / 4, "only {done} requests met one that runs");
}

/// A process that is stopped, until this is dropped.
struct Stopped(u32);

impl Stopped {
    fn new(pid: u32) -> Self {
        testkit::daemon::signal(pid, "STOP");
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // A test that fails must not leave it so; otherwise it has been killed.
        if std::thread::panicking() {
            testkit::daemon::signal(self.0, "CONT");
        }
    }
}

/// What was asked of a shim that hangs is answered within the time of a kill, and says what helps.
#[test]
fn a_shim_that_hangs_is_told_and_the_container_can_be_removed() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let id = daemon.run(&body(&["sleep", "600"]));
    let exec = client
        .post(&format!("/containers/{id}/exec"), &json!({"Cmd": ["true"]}))
        .expect(201)
        .json();
    let exec = exec["Id"].as_str().expect("an id").to_owned();
    let stopped = Stopped::new(shim_of(&client, &id));
    let asked = [
        (format!("/containers/{id}/pause"), Value::Null),
        (format!("/containers/{id}/kill?signal=HUP"), Value::Null),
        (format!("/containers/{id}/exec"), json!({"Cmd": ["true"]})),
        (format!("/exec/{exec}/start"), json!({"Detach": true})),
    ];
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for (path, body) in &asked {
            let client = &client;
            scope.spawn(move || {
                let answer = client.post(path, body);
                assert_eq!(answer.status, 500, "{path}: {}", answer.text());
                assert!(
                    answer.text().contains("docker rm -f"),
                    "{path}: {}",
                    answer.text()
                );
            });
        }
    });
    assert!(begin.elapsed() < HUNG_TOLD_WITHIN, "{:?}", begin.elapsed());
    // The pause was given up, and what is asked of the cgroup needs no shim.
    let unpaused = client.post(&format!("/containers/{id}/unpause"), &Value::Null);
    let words = format!("Container {id} is not paused");
    assert_eq!(
        (unpaused.status, unpaused.json()["message"].as_str()),
        (500, Some(words.as_str()))
    );
    assert!(begin.elapsed() < HUNG_TOLD_WITHIN, "{:?}", begin.elapsed());
    client
        .delete(&format!("/containers/{id}?force=1"))
        .expect(204);
    drop(stopped);
}
