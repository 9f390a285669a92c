//! What survives: kill -9 of the daemon at any moment, and of a shim.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::client::frames;
use testkit::{Client, Options, TestDaemon, wait_until};

use crate::lifecycle::body;
use crate::vanished::shim_of;
use crate::{daemon, daemon_with};

/// The bound for a container whose shim has died.
pub(crate) const DEATH_TOLD_WITHIN: Duration = Duration::from_secs(1);

fn state(client: &Client, id: &str) -> Value {
    client
        .get(&format!("/containers/{id}/json"))
        .expect(200)
        .json()["State"]
        .clone()
}

#[test]
fn containers_outlive_the_daemon_with_pid_logs_and_exit_code() {
    let Some(mut daemon) = daemon() else { return };
    let script =
        "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); usleep 10000; done; exit 9";
    let id = daemon.run(&body(&["sh", "-c", script]));
    let sleeper = daemon.run(&body(&["sleep", "600"]));
    let before = state(&daemon.client(), &sleeper);
    daemon.kill();
    daemon.start_again();
    let client = daemon.client();
    let after = state(&client, &sleeper);
    assert_eq!(
        (&after["Pid"], &after["StartedAt"]),
        (&before["Pid"], &before["StartedAt"])
    );
    assert_eq!(after["Running"], true);
    daemon.kill();
    // The container ends while nobody watches.
    let pid = before["Pid"]
        .as_u64()
        .and_then(|pid| u32::try_from(pid).ok())
        .expect("a pid");
    testkit::daemon::signal(pid, "KILL");
    daemon.start_again();
    let waited = client
        .post(&format!("/containers/{id}/wait"), &Value::Null)
        .expect(200)
        .json();
    assert_eq!(waited["StatusCode"], 9);
    let logs = client
        .get(&format!("/containers/{id}/logs?stdout=1"))
        .expect(200);
    let expected: String = (0..200).map(|i| format!("line {i}\n")).collect();
    assert_eq!(frames(&logs.body).0, expected, "no log byte is missing");
    assert_eq!(
        state(&client, &sleeper)["ExitCode"],
        137,
        "an exit that happened meanwhile is reported"
    );
}

#[test]
fn a_container_whose_shim_dies_is_dead_within_a_second_and_leaves_nothing() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let id = daemon.run(&body(&["sleep", "600"]));
    let init = state(&client, &id)["Pid"].to_string();
    let shim = shim_of(&client, &id);
    let begin = Instant::now();
    testkit::daemon::signal(shim, "KILL");
    wait_until(
        "the container to be reported dead",
        DEATH_TOLD_WITHIN,
        || (state(&client, &id)["Running"] == false).then_some(()),
    );
    println!("reported after {:?}", begin.elapsed());
    wait_until("its processes to be gone", DEATH_TOLD_WITHIN, || {
        has_ended(&init).then_some(())
    });
    client
        .post(&format!("/containers/{id}/start"), &Value::Null)
        .expect(204);
}

/// Whether a process is gone, or dead and waits for the machine's init to reap it.
fn has_ended(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with('Z'))
}

#[test]
fn a_second_daemon_on_the_same_root_is_refused() {
    let Some(daemon) = daemon() else { return };
    let output = sys_command(&daemon);
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{printed}");
    assert!(
        printed.contains(&daemon.data_root().display().to_string()),
        "{printed}"
    );
    // It never listened: nobody waits for a daemon that never will be.
    assert!(!printed.contains("API listen on"), "{printed}");
    assert!(!daemon.directory().join("second.sock").exists());
    assert!(daemon.client().answers(), "the first daemon still answers");
}

/// dockerd answers them with 500, as its own failures; `"User": "a\0"` comes back in the words.
#[test]
fn mistakes_of_clients_are_no_errors_of_the_daemon() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let mut settings = body(&["true"]);
    settings["User"] = json!("a\0\u{7}b");
    let id = daemon.create(&settings);
    let start = |id: &str| client.post(&format!("/containers/{id}/start"), &Value::Null);
    assert!(start(&id).status >= 400);
    let mut settings = body(&["true"]);
    settings["HostConfig"]["Dns"] = json!(["nowhere"]);
    let id = daemon.create(&settings);
    start(&id).expect(500);
    let log = daemon.log();
    assert!(
        log.contains("INFO") && log.contains("bad nameserver address nowhere"),
        "{log}"
    );
    assert!(!log.contains("ERROR"), "{log}");
    let control = |c: char| c.is_control() && !matches!(c, '\n' | '\u{1b}');
    assert!(!log.contains(control), "{log:?}");
}

fn sys_command(daemon: &TestDaemon) -> std::process::Output {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test runs the binary under test"
    )]
    std::process::Command::new(env!("CARGO_BIN_EXE_cooper"))
        .arg("daemon")
        .arg(format!("--data-root={}", daemon.data_root().display()))
        .arg(format!(
            "--exec-root={}",
            daemon.directory().join("exec2").display()
        ))
        .arg(format!(
            "--host=unix://{}",
            daemon.directory().join("second.sock").display()
        ))
        .arg("--config-file=/dev/null")
        .output()
        .expect("run the binary")
}

/// A defect in one turn of a container's task: the client is told, a fact is not lost, and the container can be used.
#[test]
fn a_panic_in_a_containers_task_ends_one_turn() {
    let armed = |point: &str| Options {
        environment: vec![(sys::fault::VARIABLE.into(), format!("{point}:panic"))],
        ..Options::default()
    };
    let Some(daemon) = daemon_with(armed("engine.container.renamed")) else {
        return;
    };
    let client = daemon.client();
    let id = daemon.create(&body(&["true"]));
    let rename = |name: &str| {
        client.post(
            &format!("/containers/{id}/rename?name={name}"),
            &Value::Null,
        )
    };
    let refused = rename("first");
    assert_eq!(refused.status, 500);
    assert_eq!(
        refused.json()["message"],
        format!("the engine failed at this request for container {id}: its log says why")
    );
    assert!(daemon.log().contains("armed to panic"), "{}", daemon.log());
    rename("second").expect(204);
    client
        .post(&format!("/containers/{id}/start"), &Value::Null)
        .expect(204);
    drop(daemon);
    let Some(daemon) = daemon_with(armed("engine.container.running")) else {
        return;
    };
    let id = daemon.run(&body(&["sleep", "600"]));
    assert!(daemon.log().contains("armed to panic"), "{}", daemon.log());
    assert_eq!(state(&daemon.client(), &id)["Running"], true);
}
