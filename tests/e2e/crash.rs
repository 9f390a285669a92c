//! What survives: kill -9 of the daemon at any moment, of a shim, and at every durable step.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Client, Options, TestDaemon, wait_until};

use crate::lifecycle::body;
use crate::{daemon, daemon_with};
use testkit::client::frames;

/// A container whose shim died is reported dead this soon (issue: within a second), with room for a busy machine.
const DEATH_SEEN_WITHIN: Duration = Duration::from_secs(5);

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
    let stat = std::fs::read_to_string(format!("/proc/{init}/stat")).expect("the init runs");
    let shim = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(1))
        .expect("a parent");
    let begin = Instant::now();
    testkit::daemon::signal(shim.parse().expect("a pid"), "KILL");
    wait_until(
        "the container to be reported dead",
        DEATH_SEEN_WITHIN,
        || (state(&client, &id)["Running"] == false).then_some(()),
    );
    println!("reported after {:?}", begin.elapsed());
    wait_until("its processes to be gone", DEATH_SEEN_WITHIN, || {
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
    assert!(daemon.client().answers(), "the first daemon still answers");
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

/// The crates whose steps a daemon makes in the walk; the others' points have their own tests, in those crates
/// (the shim is another process, whose environment the daemon does not hand on).
const WALKED: [&str; 5] = ["db", "engine", "image", "runtime", "sys"];

/// Steps of a start after the machine itself went down; the tests of the crate image make them.
const AFTER_UNCLEAN_BOOT: [&str; 2] = ["image.layer-removed-for-repair", "image.layer-repaired"];

/// Every `fault!("…")` in the sources of the walked crates, and all others: a new one is tested without being
/// listed anywhere.
pub(crate) fn fault_points() -> (BTreeSet<String>, BTreeSet<String>) {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates");
    let walked = WALKED
        .iter()
        .flat_map(|name| points_below(&crates.join(name)));
    let walked: BTreeSet<String> = walked.collect();
    let all = points_below(&crates);
    let walked: BTreeSet<String> = walked
        .into_iter()
        .filter(|point| !AFTER_UNCLEAN_BOOT.contains(&point.as_str()))
        // The walk has no volume; the engine's own tests kill at each of these steps.
        .filter(|point| !point.starts_with("volume."))
        .collect();
    let others = all.difference(&walked).cloned().collect();
    (walked, others)
}

fn points_below(directory: &Path) -> BTreeSet<String> {
    let mut points = BTreeSet::new();
    let mut queue = vec![directory.to_owned()];
    while let Some(directory) = queue.pop() {
        for entry in std::fs::read_dir(directory).expect("the sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                queue.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(&path).expect("a source");
                let calls = source.split("fault!(\"").skip(1);
                points.extend(calls.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }
    // The macro's own documentation.
    points.remove("name");
    points
}

/// What the client was told: the promise that a restart must keep.
#[derive(Debug, Default)]
struct Acknowledged {
    created: Option<String>,
    started: bool,
    exited: Option<i64>,
    removed: bool,
}

/// Walks through everything that makes a durable step; stops at the first broken connection.
fn walk(client: &Client, acknowledged: &mut Acknowledged) -> Option<()> {
    let archive = testkit::archive::docker_archive(
        "second:latest",
        &[testkit::archive::layer(&[testkit::archive::Entry::file(
            "x", 0o644, "x",
        )])],
        &json!({}),
    );
    let ask = |method: &str, path: String, body: &Value| {
        let bytes = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        client
            .try_request(
                method,
                &path,
                &[("content-type", "application/json")],
                bytes,
            )
            .ok()
    };
    client
        .try_request(
            "POST",
            "/images/load",
            &[("content-type", "application/x-tar")],
            archive,
        )
        .ok()?;
    let request = body(&[
        "sh",
        "-c",
        "trap 'exit 4' TERM; while :; do usleep 10000; done",
    ]);
    let created = ask("POST", "/containers/create?name=walker".into(), &request)?;
    let id = created.expect(201).json()["Id"]
        .as_str()
        .expect("an id")
        .to_owned();
    acknowledged.created = Some(id.clone());
    ask("POST", format!("/containers/{id}/start"), &Value::Null)?.expect(204);
    acknowledged.started = true;
    let exec = ask(
        "POST",
        format!("/containers/{id}/exec"),
        &json!({"Cmd": ["true"]}),
    )?
    .expect(201);
    let exec = exec.json()["Id"].as_str().expect("an exec id").to_owned();
    ask(
        "POST",
        format!("/exec/{exec}/start"),
        &json!({"Detach": true}),
    )?
    .expect(200);
    ask("POST", format!("/containers/{id}/stop?t=5"), &Value::Null)?.expect(204);
    let waited = ask("POST", format!("/containers/{id}/wait"), &Value::Null)?.expect(200);
    acknowledged.exited = waited.json()["StatusCode"].as_i64();
    let tag = "/images/second:latest/tag?repo=third&tag=latest";
    ask("POST", tag.into(), &Value::Null)?.expect(201);
    ask("DELETE", "/images/third:latest".into(), &Value::Null)?.expect(200);
    ask("DELETE", "/images/second:latest".into(), &Value::Null)?.expect(200);
    ask("DELETE", format!("/containers/{id}"), &Value::Null)?.expect(204);
    acknowledged.removed = true;
    Some(())
}

/// Checks what was promised; nothing when the daemon dies meanwhile, as a late step can be the armed one.
fn check_promises(point: &str, client: &Client, acknowledged: &Acknowledged) -> Option<()> {
    let get = |path: &str| client.try_request("GET", path, &[], Vec::new()).ok();
    let list = get("/containers/json?all=1")?.expect(200).json();
    let list = list.as_array().expect("a list");
    let Some(id) = &acknowledged.created else {
        assert!(list.len() <= 1, "{point}: {list:?}");
        return Some(());
    };
    if acknowledged.removed {
        assert!(list.is_empty(), "{point}: removed, yet {list:?}");
        return Some(());
    }
    // A remove that was under way may have been finished by the restart.
    let Some(container) = list.iter().find(|container| container["Id"] == json!(id)) else {
        assert!(
            acknowledged.exited.is_some(),
            "{point}: the created container is lost"
        );
        return Some(());
    };
    let id = container["Id"].as_str().expect("an id");
    let inspected = get(&format!("/containers/{id}/json"))?;
    if inspected.status == 404 && acknowledged.exited.is_some() {
        return Some(()); // finished since the list
    }
    let state = inspected.expect(200).json()["State"].clone();
    if let Some(code) = acknowledged.exited {
        assert_eq!(state["ExitCode"], code, "{point}: {state}");
        // The remove that was under way is an intent that the restart carries out.
        let fine = state["Status"] == "exited" || state["Status"] == "removing";
        assert!(fine, "{point}: {state}");
    } else if acknowledged.started {
        let fine = state["Running"] == true || state["Status"] == "exited";
        assert!(fine, "{point}: started, yet {state}");
    }
    Some(())
}

#[test]
fn nothing_acknowledged_is_lost_at_any_durable_step() {
    if !testkit::is_root() {
        return;
    }
    let (points, others) = fault_points();
    println!("not walked here: {others:?}");
    assert!(points.len() >= 10, "only {points:?}");
    let mut reached = BTreeSet::new();
    for point in &points {
        let armed = Options {
            environment: vec![("COOPER_FAULT".into(), point.clone())],
            ..Options::default()
        };
        let mut daemon = TestDaemon::launch_with(env!("CARGO_BIN_EXE_cooper"), armed);
        let mut acknowledged = Acknowledged::default();
        if daemon.ready_or_ended() {
            let loaded = daemon.client().try_request(
                "POST",
                "/images/load?quiet=1",
                &[("content-type", "application/x-tar")],
                testkit::archive::busybox_archive(),
            );
            if loaded.is_ok() {
                walk(&daemon.client(), &mut acknowledged);
            }
        }
        while check_promises(point, &daemon.client(), &acknowledged).is_none() || daemon.has_ended()
        {
            reached.insert(point.clone());
            daemon.wait();
            daemon.start_again();
        }
        // The next start needs no hand: the same walk now runs to its end.
        daemon.load_busybox();
        let leftover = daemon.client().delete("/containers/walker?force=1");
        assert!(
            [204, 404].contains(&leftover.status),
            "{point}: {}",
            leftover.text()
        );
        let mut again = Acknowledged::default();
        walk(&daemon.client(), &mut again)
            .unwrap_or_else(|| panic!("{point}: {again:?}\n{}", daemon.log()));
    }
    println!("{} of {} points were reached", reached.len(), points.len());
    let missed: Vec<_> = points.difference(&reached).collect();
    assert!(
        missed.is_empty(),
        "points that the walk never reaches: {missed:?}"
    );
}

#[test]
fn a_full_walk_without_faults_works() {
    let Some(daemon) = daemon_with(Options::default()) else {
        return;
    };
    let mut acknowledged = Acknowledged::default();
    walk(&daemon.client(), &mut acknowledged)
        .unwrap_or_else(|| panic!("{acknowledged:?}\n{}", daemon.log()));
    assert_eq!(acknowledged.exited, Some(4));
}
