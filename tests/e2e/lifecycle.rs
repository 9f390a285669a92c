//! Create, start, wait, logs, exec, stop, remove: the path every client walks.

use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use testkit::client::frames;

use crate::daemon;

/// A container's body: busybox, no network.
pub(crate) fn body(command: &[&str]) -> Value {
    json!({"Image": "busybox", "Cmd": command, "HostConfig": {"NetworkMode": "none"}})
}

#[test]
fn a_container_runs_writes_and_is_removed() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let id = daemon.run(&body(&["sh", "-c", "echo out; echo err >&2; exit 7"]));
    let waited = client
        .post(&format!("/containers/{id}/wait"), &Value::Null)
        .expect(200)
        .json();
    assert_eq!(waited, json!({"StatusCode": 7}));
    let logs = client
        .get(&format!("/containers/{id}/logs?stdout=1&stderr=1"))
        .expect(200);
    assert_eq!(frames(&logs.body), ("out\n".to_owned(), "err\n".to_owned()));
    let state = client
        .get(&format!("/containers/{id}/json"))
        .expect(200)
        .json()["State"]
        .clone();
    assert_eq!(state["Status"], "exited");
    assert_eq!(state["ExitCode"], 7);
    assert_eq!(state["Running"], false);
    client.delete(&format!("/containers/{id}")).expect(204);
    client.get(&format!("/containers/{id}/json")).expect(404);
}

#[test]
fn starting_twice_is_not_modified_and_removing_a_running_one_conflicts() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let id = daemon.run(&body(&["sleep", "600"]));
    let again = client.post(&format!("/containers/{id}/start"), &Value::Null);
    assert_eq!((again.status, again.text().as_str()), (304, ""));
    let refused = client
        .delete(&format!("/containers/{id}"))
        .expect(409)
        .json();
    let message = refused["message"].as_str().expect("a message");
    assert!(
        message
            .contains("container is running: stop the container before removing or force remove"),
        "{message}"
    );
    client
        .delete(&format!("/containers/{}?force=1", &id[..12]))
        .expect(204);
}

#[test]
fn stop_asks_with_sigterm_first_and_kills_at_the_deadline() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let script = "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let polite = daemon.run(&body(&["sh", "-c", script]));
    let deaf = daemon.run(&body(&[
        "sh",
        "-c",
        "trap '' TERM; echo ready; while :; do sleep 0.1; done",
    ]));
    for id in [&polite, &deaf] {
        let mut logs = client.open(
            "GET",
            &format!("/containers/{id}/logs?stdout=1&follow=1"),
            &[],
            b"",
        );
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(b"ready") {
            logs.stream
                .read_exact(&mut byte)
                .expect("the container says that it is ready");
            seen.push(byte[0]);
        }
    }
    client
        .post(&format!("/containers/{polite}/stop"), &Value::Null)
        .expect(204);
    let state = client.get(&format!("/containers/{polite}/json")).json()["State"].clone();
    assert_eq!(state["ExitCode"], 3);
    let begin = Instant::now();
    client
        .post(&format!("/containers/{deaf}/stop?t=1"), &Value::Null)
        .expect(204);
    assert!(
        begin.elapsed() >= Duration::from_millis(900),
        "killed after {:?}",
        begin.elapsed()
    );
    let state = client.get(&format!("/containers/{deaf}/json")).json()["State"].clone();
    assert_eq!(state["ExitCode"], 137);
    assert_eq!(
        client
            .post(&format!("/containers/{deaf}/stop"), &Value::Null)
            .status,
        304
    );
}

#[test]
fn exec_runs_beside_the_container_and_reports_its_code() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let id = daemon.run(&body(&["sleep", "600"]));
    let request =
        json!({"Cmd": ["sh", "-c", "cat; exit 5"], "AttachStdin": true, "AttachStdout": true});
    let exec = client
        .post(&format!("/containers/{id}/exec"), &request)
        .expect(201)
        .json();
    let exec = exec["Id"].as_str().expect("an exec id");
    let headers = [
        ("Content-Type", "application/json"),
        ("Connection", "Upgrade"),
        ("Upgrade", "tcp"),
    ];
    let start = json!({"Detach": false, "Tty": false}).to_string();
    let mut open = client.open(
        "POST",
        &format!("/exec/{exec}/start"),
        &headers,
        start.as_bytes(),
    );
    assert_eq!(open.status, 101, "{}", open.head);
    assert!(
        open.head.starts_with("HTTP/1.1 101 UPGRADED\r\n"),
        "{}",
        open.head
    );
    std::io::Write::write_all(&mut open.stream, b"typed\n").expect("type");
    open.stream
        .shutdown(std::net::Shutdown::Write)
        .expect("half-close");
    let mut output = Vec::new();
    open.stream
        .read_to_end(&mut output)
        .expect("the output after the half-close");
    assert_eq!(frames(&output), ("typed\n".to_owned(), String::new()));
    let inspected = client.get(&format!("/exec/{exec}/json")).expect(200).json();
    assert_eq!(
        (&inspected["Running"], &inspected["ExitCode"]),
        (&json!(false), &json!(5))
    );
    // Attached, dockerd says this inside of a stream that was a 200 already.
    let again = json!({"Detach": true});
    let second = client.post(&format!("/exec/{exec}/start"), &again);
    assert_eq!(second.status, 409, "{}", second.text());
}

#[test]
fn a_missing_command_is_refused_with_dockers_words() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let cases = [
        (json!(["/nope"]), "no such file or directory", 127),
        (json!(["nope"]), "executable file not found in $PATH", 127),
        (json!(["/etc"]), "permission denied", 126),
    ];
    for (command, text, code) in cases {
        let id = daemon.create(&json!({
            "Image": "busybox", "Entrypoint": command, "HostConfig": {"NetworkMode": "none"},
        }));
        let refused = client
            .post(&format!("/containers/{id}/start"), &Value::Null)
            .expect(400)
            .json();
        let message = refused["message"].as_str().expect("a message");
        assert!(message.contains(text), "{command}: {message}");
        let state = client.get(&format!("/containers/{id}/json")).json()["State"].clone();
        assert_eq!(state["ExitCode"], code, "{command}: {state}");
        assert_eq!(state["Status"], "created", "{command}: {state}");
    }
}

#[test]
fn pause_freezes_and_unpause_thaws() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let id = daemon.run(&body(&["sleep", "600"]));
    client
        .post(&format!("/containers/{id}/pause"), &Value::Null)
        .expect(204);
    let state = client.get(&format!("/containers/{id}/json")).json()["State"].clone();
    assert_eq!(
        (&state["Paused"], &state["Status"]),
        (&json!(true), &json!("paused"))
    );
    let exec = client.post(&format!("/containers/{id}/exec"), &json!({"Cmd": ["true"]}));
    assert_eq!(exec.status, 409, "{}", exec.text());
    client
        .post(&format!("/containers/{id}/unpause"), &Value::Null)
        .expect(204);
    assert_eq!(
        client.get(&format!("/containers/{id}/json")).json()["State"]["Paused"],
        false
    );
}

#[test]
fn a_size_that_cannot_be_measured_is_an_error_and_not_zero() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let id = daemon.run(&body(&["true"]));
    client
        .post(&format!("/containers/{id}/wait"), &Value::Null)
        .expect(200);
    client.get("/containers/json?all=1&size=1").expect(200);
    let upper = daemon.data_root().join(format!("containers/{id}/upper"));
    std::fs::remove_dir_all(&upper).expect("take the layer away");
    std::fs::write(&upper, "no directory").expect("a file in its place");
    let refused = client.get("/containers/json?all=1&size=1");
    assert_eq!(refused.status, 500, "{}", refused.text());
    client.get("/containers/json?all=1").expect(200);
}

/// A container must not be able to write the binary that its first process shows.
#[test]
fn shims_and_inits_run_from_a_sealed_binary() {
    let Some(daemon) = daemon() else { return };
    let id = daemon.run(&serde_json::json!({
        "Image": "busybox", "Cmd": ["sleep", "600"],
        "HostConfig": {"NetworkMode": "none", "Init": true},
    }));
    let inspected = daemon.client().get(&format!("/containers/{id}/json"));
    let init = inspected.expect(200).json()["State"]["Pid"].to_string();
    let stat = std::fs::read_to_string(format!("/proc/{init}/stat")).expect("the init runs");
    let parent = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(1));
    for pid in [init.as_str(), parent.expect("a parent")] {
        let opened = std::fs::File::options()
            .write(true)
            .open(format!("/proc/{pid}/exe"));
        let error = opened.expect_err("nobody can write our binary");
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ReadOnlyFilesystem,
            "{error}"
        );
    }
}
