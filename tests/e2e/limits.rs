//! Limits of containers, in the kernel's files and by their effect, on either version of control groups; and the
//! deepest image there may be.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::archive::{Entry, busybox, config, docker_archive, layer};
use testkit::{TestDaemon, wait_until};

use crate::daemon;
use testkit::client::frames;

/// A container that wants more than its share of a processor is held back this soon: a period is 0.1 s.
const THROTTLED_WITHIN: Duration = Duration::from_secs(20);

/// Layers of an image at most, as with Docker's overlay2.
const LAYERS: usize = 128;

fn body(command: &[&str], limits: &Value) -> Value {
    let mut host = limits.clone();
    host["NetworkMode"] = json!("none");
    json!({"Image": "busybox", "Cmd": command, "HostConfig": host})
}

/// A file of a container's cgroup, by its names in version 2 and in version 1 (with the controller before it).
pub(crate) fn kernel_file(daemon: &TestDaemon, id: &str, v2: &str, v1: &str) -> String {
    let root = Path::new("/sys/fs/cgroup");
    let below = PathBuf::from(daemon.cgroup_parent().trim_start_matches('/')).join(id);
    let path = if root.join("cgroup.controllers").exists() {
        root.join(below).join(v2)
    } else {
        let (controller, file) = v1.split_once('/').expect("a controller and a file");
        root.join(controller).join(below).join(file)
    };
    let text = std::fs::read_to_string(&path);
    text.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .trim_end()
        .to_owned()
}

fn exit(daemon: &TestDaemon, id: &str) -> (Value, String) {
    let client = daemon.client();
    client
        .post(&format!("/containers/{id}/wait"), &Value::Null)
        .expect(200);
    let logs = client
        .get(&format!("/containers/{id}/logs?stdout=1&stderr=1"))
        .expect(200);
    let (out, err) = frames(&logs.body);
    let state = client.get(&format!("/containers/{id}/json")).expect(200);
    (state.json()["State"].clone(), format!("{out}{err}"))
}

#[test]
fn limits_stand_in_the_kernels_files() {
    let Some(daemon) = daemon() else { return };
    let limits = json!({
        "Memory": 64 << 20, "MemorySwap": 64 << 20, "PidsLimit": 77, "NanoCpus": 1_500_000_000_u64,
    });
    let id = daemon.run(&body(&["sleep", "600"], &limits));
    let file = |v2: &str, v1: &str| kernel_file(&daemon, &id, v2, v1);
    assert_eq!(
        file("memory.max", "memory/memory.limit_in_bytes"),
        "67108864"
    );
    assert_eq!(file("pids.max", "pids/pids.max"), "77");
    let quota = file("cpu.max", "cpu/cpu.cfs_quota_us");
    assert!(
        ["150000 100000", "150000"].contains(&quota.as_str()),
        "{quota}"
    );
}

#[test]
fn more_memory_than_allowed_is_a_kill_that_is_reported() {
    let Some(daemon) = daemon() else { return };
    let limits = json!({"Memory": 16 << 20, "MemorySwap": 16 << 20});
    // tail keeps the last line, and this one never ends.
    let id = daemon.run(&body(&["tail", "/dev/zero"], &limits));
    let (state, _) = exit(&daemon, &id);
    assert_eq!(
        (&state["OOMKilled"], &state["ExitCode"]),
        (&json!(true), &json!(137)),
        "{state}"
    );
}

#[test]
fn more_processes_than_allowed_are_refused() {
    let Some(daemon) = daemon() else { return };
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 60 & done";
    let id = daemon.run(&body(&["sh", "-c", script], &json!({"PidsLimit": 5})));
    let (state, said) = exit(&daemon, &id);
    assert_ne!(state["ExitCode"], 0, "{state}");
    assert!(said.contains("can't fork"), "{said}");
}

#[test]
fn more_time_than_allowed_is_not_given() {
    let Some(daemon) = daemon() else { return };
    let limits = json!({"NanoCpus": 100_000_000});
    let id = daemon.run(&body(&["sh", "-c", "while :; do :; done"], &limits));
    wait_until("the container to be held back", THROTTLED_WITHIN, || {
        let stat = kernel_file(&daemon, &id, "cpu.stat", "cpu/cpu.stat");
        let line = stat
            .lines()
            .find_map(|line| line.strip_prefix("nr_throttled "));
        let times: u64 = line.expect("a count").parse().expect("a number");
        (times > 0).then_some(())
    });
}

#[test]
fn an_image_of_128_layers_runs() {
    let Some(daemon) = daemon() else { return };
    let mut layers = vec![layer(&busybox())];
    for number in 1..LAYERS {
        let name = format!("layers/{number}");
        layers.push(layer(&[
            Entry::file(&name, 0o644, name.as_bytes()),
            Entry::file("top", 0o644, name.as_bytes()),
        ]));
    }
    daemon.load(docker_archive("deep:latest", &layers, &config(&["sh"])));
    let script = "cat /top; echo; ls /layers | wc -l; echo new > /layers/1 && cat /layers/1";
    let mut body = body(&["sh", "-c", script], &json!({}));
    body["Image"] = json!("deep");
    let id = daemon.run(&body);
    let (state, said) = exit(&daemon, &id);
    assert_eq!(state["ExitCode"], 0, "{said}");
    assert_eq!(said, "layers/127\n127\nnew\n");
}

/// What runc refuses when a container starts: names that are none, and numbers that the kernel does not take.
#[test]
fn limits_and_profiles_that_cannot_be_are_refused_as_by_dockerd() {
    let Some(daemon) = daemon() else { return };
    let Some(dockerd) = crate::reference(&daemon) else {
        return;
    };
    let limit = |name: &str, soft: i64, hard: i64| json!({"Ulimits": [{"Name": name, "Soft": soft, "Hard": hard}]});
    let profile = |rest: Value| {
        let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        for (key, value) in rest.as_object().expect("an object") {
            profile[key] = value.clone();
        }
        json!({"SecurityOpt": [format!("seccomp={profile}")]})
    };
    let rule = |version: &str| json!({"syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": version}}]});
    let notify = json!({"syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_NOTIFY"}]});
    for host in [
        limit("nofiles", 1, 2),
        limit("", 1, 2),
        limit("nofile", 3, 2),
        limit("nofile", -1, 5),
        limit("as", -1, 100),
        limit("nofile", -5, -5),
        limit("NOFILE", 100, 100),
        limit("core", -2, -2),
        profile(json!({"flags": ["X"]})),
        profile(json!({"flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "/run/x.sock"})),
        profile(rule("x")),
        profile(rule("99.0")),
        profile(notify),
    ] {
        let ask = |client: &testkit::Client| {
            let mut body = body(&["true"], &host);
            body["Image"] = json!(testkit::archive::SHARED_IMAGE);
            let created = client.post("/containers/create", &body).expect(201).json();
            let id = created["Id"].as_str().expect("an id").to_owned();
            let started = client.post(&format!("/containers/{id}/start"), &Value::Null);
            client
                .delete(&format!("/containers/{id}?force=1"))
                .expect(204);
            (started.status, started.text())
        };
        assert_eq!(ask(&daemon.client()), ask(&dockerd), "{host}");
    }
}
