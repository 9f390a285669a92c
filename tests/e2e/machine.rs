//! What the machine lacks and what it has: an old kernel, controllers that are off, and control groups of version 2
//! in particular. `cargo xtask vm` boots machines on which these tests see the other side.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::client::frames;
use testkit::{Client, TestDaemon, wait_until};

use crate::daemon;
use crate::lifecycle::body;
use crate::limits::kernel_file;
use crate::vanished::shim_of;

/// A kernel's refusal is told at once; a daemon that starts instead is ended after this, in seconds.
const REFUSED_WITHIN_S: &str = "10";

/// A container whose shim hangs is dead by then: five seconds for the shim, two until it is given up, and some.
const FORCED_WITHIN: Duration = Duration::from_secs(10);

#[expect(
    clippy::disallowed_methods,
    reason = "a test runs what an administrator runs"
)]
fn program(name: &str) -> std::process::Command {
    std::process::Command::new(name)
}

/// Runs a container's command to its end: its code and what it said.
fn run(daemon: &TestDaemon, body: &Value) -> (i64, String) {
    let client = daemon.client();
    let id = daemon.run(body);
    let waited = client.post(&format!("/containers/{id}/wait"), &Value::Null);
    let code = waited.expect(200).json()["StatusCode"].as_i64();
    let logs = format!("/containers/{id}/logs?stdout=1&stderr=1");
    let (out, err) = frames(&client.get(&logs).expect(200).body);
    client.delete(&format!("/containers/{id}")).expect(204);
    (code.expect("a code"), format!("{out}{err}"))
}

/// As [`body`], with more in its `HostConfig`.
fn with(command: &[&str], host: &Value) -> Value {
    let mut body = body(command);
    for (key, value) in host.as_object().expect("an object") {
        body["HostConfig"][key] = value.clone();
    }
    body
}

fn inspect(client: &Client, id: &str) -> Value {
    let path = format!("/containers/{id}/json");
    client.get(&path).expect(200).json()
}

fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A program that is told that it runs on Linux 2.6 (setarch(8)), as dockerd refuses what is older than 3.10.
#[test]
fn a_kernel_that_is_too_old_is_refused_in_words() {
    let Some(daemon) = daemon() else { return };
    let second = |name: &str| daemon.directory().join(name).display().to_string();
    let output = program("setarch")
        .args(["--uname-2.6", "timeout", REFUSED_WITHIN_S])
        .args([env!("CARGO_BIN_EXE_cooper"), "daemon", "--bridge=none"])
        .args(["--config-file=/dev/null", "--data-root", &second("old")])
        .args(["--exec-root", &second("old-run")])
        .args(["--host", &format!("unix://{}", second("old.sock"))])
        .output()
        .expect("setarch of util-linux");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("Linux 2.6.") && said.contains("Cooper needs Linux 5.10 or newer"),
        "{said}"
    );
}

/// Whether the kernel has a controller, in the words of `/proc/cgroups`, which says it for both versions.
fn is_enabled(controller: &str) -> bool {
    let table = std::fs::read_to_string("/proc/cgroups").expect("the kernel's table");
    table.lines().any(|line| {
        let mut fields = line.split('\t');
        fields.next() == Some(controller) && fields.nth(2) == Some("1")
    })
}

/// Whether the kernel was booted without accounting of swap, which one can before Linux 6.1.
fn swap_is_off() -> bool {
    let line = std::fs::read_to_string("/proc/cmdline").expect("the kernel's command line");
    let version = sys::kernel::version(&sys::kernel::release());
    line.contains("swapaccount=0") && version < Some((6, 1))
}

/// dockerd's words for what cannot be set (moby `daemon/daemon_unix.go`, `verifyPlatformContainerResources`).
fn lacking(what: &str, consequence: &str) -> String {
    format!("Your kernel does not support {what} or the cgroup is not mounted. {consequence}")
}

fn disk() -> String {
    let disks = std::fs::read_dir("/sys/block").expect("the disks");
    let names = disks.map(|entry| entry.expect("a disk").file_name());
    let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
    names.retain(|name| Path::new("/dev").join(name).exists());
    format!("/dev/{}", names.iter().max().expect("a disk"))
}

/// Every machine says the same of itself: with all controllers nothing is taken out, and without one its limits are.
#[test]
fn limits_are_set_or_taken_out_with_a_warning_and_the_container_runs() {
    let Some(daemon) = daemon() else { return };
    let rates = json!([{"Path": disk(), "Rate": 1_048_576}]);
    let host = json!({
        "Memory": 64 << 20, "MemorySwap": 128 << 20, "MemoryReservation": 32 << 20, "PidsLimit": 77,
        "CpuShares": 512, "CpuQuota": 50_000, "CpusetCpus": "0", "BlkioDeviceReadBps": rates,
        "BlkioDeviceWriteIOps": rates,
    });
    let created = daemon
        .client()
        .post("/containers/create", &with(&["sleep", "600"], &host));
    let created = created.expect(201).json();
    let id = created["Id"].as_str().expect("an id");
    let read = "Block I/O BPS read limit discarded.";
    let write = "Block I/O IOPS write limit discarded.";
    let swap = "Memory limited without swap.";
    let (memory, io) = (is_enabled("memory"), is_enabled("blkio"));
    let off = "Limitation discarded.";
    let table = [
        (memory, lacking("memory limit capabilities", off)),
        (
            !memory || !swap_is_off(),
            lacking("swap limit capabilities", swap),
        ),
        (memory, lacking("memory soft limit capabilities", off)),
        (
            is_enabled("pids"),
            lacking("PIDs limit capabilities", "PIDs limit discarded."),
        ),
        (
            is_enabled("cpu"),
            lacking("CPU shares", "Shares discarded."),
        ),
        (
            is_enabled("cpu"),
            "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded."
                .to_owned(),
        ),
        (is_enabled("cpuset"), lacking("cpuset", "Cpuset discarded.")),
        (io, lacking("BPS Block I/O read limit", read)),
        (io, lacking("IOPS Block write limit", write)),
    ];
    let missing = table.into_iter().filter(|(there, _)| !there);
    let expected: Vec<String> = missing.map(|(_, words)| words).collect();
    println!("expected: {expected:?}");
    assert_eq!(created["Warnings"], json!(expected));
    let start = format!("/containers/{id}/start");
    daemon.client().post(&start, &Value::Null).expect(204);
    let shown = inspect(&daemon.client(), id)["HostConfig"].clone();
    let left = |key: &str, there: bool, none: Value| {
        let wanted = if there { host[key].clone() } else { none };
        assert_eq!(shown[key], wanted, "{key}");
    };
    left("Memory", memory, json!(0));
    left("PidsLimit", is_enabled("pids"), Value::Null);
    left("CpuShares", is_enabled("cpu"), json!(0));
    left("CpusetCpus", is_enabled("cpuset"), json!(""));
    left("BlkioDeviceReadBps", io, json!([]));
    let told = daemon.client().get("/info").expect(200).json();
    assert_eq!(told["MemoryLimit"], memory);
    assert_eq!(told["SwapLimit"], memory && !swap_is_off());
    assert_eq!(told["PidsLimit"], is_enabled("pids"));
}

/// The scale is runc's: 10…1000 of Docker's to 1…10000 of `io.weight`; BFQ's own file takes Docker's.
#[test]
fn the_weight_of_block_io_is_written_where_the_kernel_has_it() {
    let Some(daemon) = daemon() else { return };
    if !is_v2() || !is_enabled("blkio") {
        println!("skipped: this machine has no io controller of version 2");
        return;
    }
    let weight = |file: &str| {
        let id = daemon.run(&with(&["sleep", "600"], &json!({"BlkioWeight": 300})));
        kernel_file(&daemon, &id, file, "blkio/blkio.weight")
    };
    let has_bfq = Path::new("/sys/module/bfq").exists();
    if !has_bfq {
        assert_eq!(weight("io.weight"), "default 2930");
    }
    if testkit::is_emulated() {
        assert!(
            program("modprobe")
                .arg("bfq")
                .status()
                .expect("modprobe")
                .success()
        );
        assert_eq!(weight("io.bfq.weight"), "default 300");
    }
}

/// What a container may open is decided by the kernel, not by what is in its /dev.
#[test]
fn a_device_that_was_not_given_cannot_be_opened() {
    let Some(daemon) = daemon() else { return };
    let refused = "Operation not permitted";
    let script = "mknod /tap c 10 200 && head -c 0 /tap && echo opened";
    let (_, said) = run(&daemon, &body(&["sh", "-c", script]));
    assert!(said.contains(refused), "{said}");
    for host in [
        json!({"DeviceCgroupRules": ["c 10:200 rwm"]}),
        json!({"Privileged": true}),
    ] {
        let (_, said) = run(&daemon, &with(&["sh", "-c", script], &host));
        assert!(!said.contains(refused), "{host}: {said}");
    }
    let (_, said) = run(
        &daemon,
        &body(&[
            "sh",
            "-c",
            "echo x > /dev/null && head -c 1 /dev/zero | wc -c",
        ]),
    );
    assert_eq!(said, "1\n");
}

/// Runs an exec to its end and answers what it said.
fn exec(client: &Client, id: &str, command: &[&str]) -> String {
    let request = json!({"Cmd": command, "AttachStdout": true, "AttachStderr": true});
    let made = client.post(&format!("/containers/{id}/exec"), &request);
    let made = made.expect(201).json();
    let path = format!("/exec/{}/start", made["Id"].as_str().expect("an id"));
    let answer = client.post(&path, &json!({"Detach": false, "Tty": false}));
    let (out, err) = frames(&answer.expect(200).body);
    format!("{out}{err}")
}

fn membership(pid: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its groups")
}

#[test]
fn an_exec_is_in_the_containers_group() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let id = daemon.run(&body(&["sleep", "600"]));
    let init = inspect(&client, &id)["State"]["Pid"].to_string();
    let request = json!({"Cmd": ["sleep", "500"]});
    let made = client.post(&format!("/containers/{id}/exec"), &request);
    let exec_id = made.expect(201).json()["Id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let start = format!("/exec/{exec_id}/start");
    client.post(&start, &json!({"Detach": true})).expect(200);
    let shown = client
        .get(&format!("/exec/{exec_id}/json"))
        .expect(200)
        .json();
    assert_eq!(membership(&shown["Pid"].to_string()), membership(&init));
    assert!(membership(&init).contains(&id), "{}", membership(&init));
    if is_v2() {
        // A namespace of its own, as dockerd gives on version 2.
        assert_eq!(exec(&client, &id, &["cat", "/proc/self/cgroup"]), "0::/\n");
    }
}

/// A group of version 2 that hands controllers down has no processes (cgroup-v2.rst, "No Internal Process Constraint"):
/// what a systemd in a container makes of its own. runc joins the first process's group then.
#[test]
fn an_exec_goes_into_a_container_that_has_divided_its_group() {
    let Some(daemon) = daemon() else { return };
    if !is_v2() {
        println!("skipped: this machine has control groups of version 1");
        return;
    }
    let client = daemon.client();
    let script = "cd /sys/fs/cgroup && mkdir init && echo 1 > init/cgroup.procs && \
                  echo +pids > cgroup.subtree_control && echo ready && exec sleep 600";
    let id = daemon.run(&with(&["sh", "-c", script], &json!({"Privileged": true})));
    wait_until("the container to divide its group", FORCED_WITHIN, || {
        let logs = client.get(&format!("/containers/{id}/logs?stdout=1&stderr=1"));
        let (out, err) = frames(&logs.expect(200).body);
        assert_eq!(err, "");
        (out == "ready\n").then_some(())
    });
    assert_eq!(
        exec(&client, &id, &["cat", "/proc/self/cgroup"]),
        "0::/init\n"
    );
    client
        .delete(&format!("/containers/{id}?force=1"))
        .expect(204);
}

#[test]
fn a_container_is_below_the_parent_that_is_named() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let parent = format!("{}/below/it", daemon.cgroup_parent());
    let host = json!({"CgroupParent": parent, "Memory": 64 << 20});
    let id = daemon.run(&with(&["sleep", "600"], &host));
    let pid = inspect(&client, &id)["State"]["Pid"].to_string();
    let groups = membership(&pid);
    let place = format!(":{parent}/{id}");
    assert!(
        groups.lines().any(|line| line.ends_with(&place)),
        "{groups}"
    );
    let limit = kernel_file(
        &daemon,
        &format!("below/it/{id}"),
        "memory.max",
        "memory/memory.limit_in_bytes",
    );
    assert_eq!(limit, "67108864");
    client
        .delete(&format!("/containers/{id}?force=1"))
        .expect(204);
    assert_eq!(runtime::cgroup::list(&parent), [""; 0]);
    // The parent is whose name it is, and stays.
    runtime::cgroup::remove_empty_parent(&parent);
}

/// Kills a container whose shim hangs, by force; whoever runs it can start it again.
fn is_killed_all_the_same(client: &Client, id: &str, shim: u32) {
    client
        .post(&format!("/containers/{id}/kill"), &Value::Null)
        .expect(204);
    let state = inspect(client, id)["State"].clone();
    assert_eq!(
        (&state["Status"], &state["ExitCode"], &state["Paused"]),
        (&json!("exited"), &json!(137), &json!(false)),
        "{state}"
    );
    wait_until("the shim to be gone", FORCED_WITHIN, || {
        let stat = std::fs::read_to_string(format!("/proc/{shim}/stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with('Z'))
            .then_some(())
    });
    client
        .post(&format!("/containers/{id}/start"), &Value::Null)
        .expect(204);
    assert_ne!(shim_of(client, id), shim);
}

#[test]
fn a_container_whose_shim_hangs_is_killed_by_force() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let id = daemon.run(&body(&["sleep", "600"]));
    let shim = shim_of(&client, &id);
    testkit::daemon::signal(shim, "STOP");
    is_killed_all_the_same(&client, &id, shim);
}

/// A shim that hangs says neither that the container is frozen nor that it is not.
#[test]
fn a_pause_that_a_shim_never_answers_is_an_error_and_leaves_a_container_that_can_be_killed() {
    if !testkit::is_emulated() && !testkit::long() {
        return;
    }
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let id = daemon.run(&body(&["sleep", "600"]));
    let shim = shim_of(&client, &id);
    testkit::daemon::signal(shim, "STOP");
    let paused = client.post(&format!("/containers/{id}/pause"), &Value::Null);
    assert_eq!(paused.status, 500, "{}", paused.text());
    assert!(
        paused.text().contains("did not answer within 10 s"),
        "{}",
        paused.text()
    );
    let state = inspect(&client, &id)["State"].clone();
    assert_eq!(
        (&state["Status"], &state["Paused"]),
        (&json!("running"), &json!(false))
    );
    is_killed_all_the_same(&client, &id, shim);
}
