//! What a daemon leaves behind when it ends or is killed, and what the next one makes of it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::{FORCE, Root, create, eventually, request};
use api::options::{RemoveOptions, StopOptions, WaitCondition};
use engine::{Config, Engine, Status};

/// Every crash point of the engine but those of the volumes; a test compares the lists with the sources.
const POINTS: &[&str] = &[
    "engine.container.deleted",
    "engine.container.exited",
    "engine.container.removing",
    "engine.container.renamed",
    "engine.container.running",
    "engine.create.claimed",
    "engine.create.directory",
    "engine.create.files",
    "engine.create.held",
    "engine.create.ready",
    "engine.destroy.files",
    "engine.destroy.image",
    "engine.destroy.run",
    "engine.destroy.volumes",
    "engine.launch.attached",
    "engine.launch.created",
    "engine.launch.run_dir",
    "engine.launch.started",
    "engine.rename.file",
    "engine.retire.acknowledged",
    "engine.retire.detached",
];

/// Tells the re-executed test binary which root to work on.
const ROOT: &str = "COOPER_TEST_ROOT";

/// Tells it the cgroup of that root.
const CGROUP: &str = "COOPER_TEST_CGROUP";

#[test]
fn the_list_of_crash_points_is_whole() {
    let mut found = Vec::new();
    let mut queue = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = queue.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                queue.push(path);
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            for part in text.split("fault!(\"").skip(1) {
                found.push(part.split('"').next().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found.dedup();
    let listed = [POINTS, crate::volumes::killed::POINTS].concat();
    assert_eq!(found, listed);
}

/// The victim: works through a container's life on the root of its parent. Runs only as a child.
#[test]
fn victim() {
    let Ok(root) = std::env::var(ROOT) else {
        return;
    };
    let root = std::path::PathBuf::from(root);
    let mut config = Config::new(
        &root.join("data"),
        &root.join("exec"),
        &crate::common::cooper(),
    );
    config.cgroup_parent = std::env::var(CGROUP).unwrap();
    config.pool_size = 1;
    config.bridge.name = None;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let engine = Engine::open(config)
            .await
            .unwrap_or_else(|e| panic!("{}", e.message));
        let acknowledge = |what: &str| {
            std::fs::write(root.join(what), "").unwrap();
        };
        create(&engine, "victim", request(&["sh", "-c", "exit 4"])).await;
        acknowledge("created");
        engine.rename("victim", "renamed").await.unwrap();
        engine.rename("renamed", "victim").await.unwrap();
        engine.start("victim").await.unwrap();
        acknowledge("started");
        let waiting = engine.wait("victim", WaitCondition::NotRunning).unwrap();
        assert_eq!(waiting.done().await.status_code, 4);
        acknowledge("exited");
        // The run directory goes beside; a removal waits for that.
        engine
            .remove("victim", &RemoveOptions::default())
            .await
            .unwrap();
        acknowledge("removed");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_at_any_step_loses_nothing_it_acknowledged() {
    if !crate::common::can_run() {
        return;
    }
    for point in POINTS {
        let root = Root::new();
        let engine = root.engine().await;
        let keeper_id = create(&engine, "keeper", request(&["sleep", "1000"])).await;
        engine.start("keeper").await.unwrap();
        let keeper = engine.container("keeper").unwrap().snapshot().facts.pid;
        engine.shutdown().await.unwrap();
        drop(engine);

        kill_at(&root, point).await;
        let engine = root.reopen().await;
        let acknowledged = |what: &str| root.directory.path().join(what).exists();
        let after = engine.container("keeper").unwrap().snapshot();
        assert_eq!(
            (after.status, after.facts.pid),
            (Status::Running, keeper),
            "{point}"
        );
        if acknowledged("removed") {
            panic!("{point}: the daemon was not killed");
        }
        let victim = engine.container("victim");
        let victim = victim.or_else(|_| engine.container("renamed")).ok();
        check_unsaved(&root, point, &keeper_id, victim.is_some());
        if let Some(victim) = &victim {
            eventually("its exit is known", || {
                !victim.snapshot().status.has_process() || victim.snapshot().removed
            })
            .await;
            let facts = victim.snapshot().facts.clone();
            if acknowledged("started") {
                assert_eq!(facts.exit_code, 4, "{point}");
            }
            if victim.snapshot().status != Status::Removing {
                engine
                    .remove(victim.id().as_str(), &FORCE)
                    .await
                    .unwrap_or_else(|e| panic!("{point}: {}", e.message));
            }
            eventually(
                &format!("{point}: it is gone, {:?}", victim.snapshot()),
                || victim.snapshot().removed,
            )
            .await;
        } else {
            assert!(
                !acknowledged("created") || acknowledged("exited"),
                "{point}: an acknowledged container is lost"
            );
        }
        // Its name and everything of it is free again.
        create(&engine, "victim", request(&["true"])).await;
        for name in ["victim", "keeper"] {
            engine.remove(name, &FORCE).await.unwrap();
        }
        root.assert_clean();
        engine.shutdown().await.unwrap();
    }
}

/// What was not saved yet is not there: neither half a container nor a run.
fn check_unsaved(root: &Root, point: &str, keeper: &str, victim: bool) {
    if point.starts_with("engine.create.") && point != "engine.create.ready" {
        assert!(!victim, "{point}: half a container");
    }
    if point.starts_with("engine.launch.") {
        assert_eq!(
            root.cgroups(),
            [keeper],
            "{point}: a run that was never saved"
        );
        assert_eq!(
            root.run_dirs(),
            [keeper],
            "{point}: a run that was never saved"
        );
    }
}

async fn kill_at(root: &Root, point: &str) {
    let mut command = tokio_command(root);
    command.env("COOPER_FAULT", point);
    let status = tokio::task::spawn_blocking(move || command.status().unwrap())
        .await
        .unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9),
        "{point} was not passed: {status}"
    );
}

#[expect(
    clippy::disallowed_methods,
    reason = "the child is this test itself, with an environment of its own"
)]
fn tokio_command(root: &Root) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["crash::victim", "--exact", "--nocapture"])
        .env(ROOT, root.directory.path())
        .env(CGROUP, &root.config.cgroup_parent)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_survive_the_daemon_and_exits_meanwhile_are_reported() {
    if !crate::common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = root.engine().await;
    let stays = create(&engine, "stays", request(&["sleep", "1000"])).await;
    create(&engine, "paused", request(&["sleep", "1000"])).await;
    let gate = "trap 'exit 6' TERM; echo ready; while :; do sleep 0.01; done";
    let ends = create(&engine, "ends", request(&["sh", "-c", gate])).await;
    let mut removing = request(&["sh", "-c", gate]);
    removing.host_config.auto_remove = true;
    let vanishes = create(&engine, "vanishes", removing).await;
    for name in ["stays", "paused", "ends", "vanishes"] {
        engine.start(name).await.unwrap();
    }
    for id in [&ends, &vanishes] {
        eventually("the trap is set", || {
            crate::common::log(&root, id).contains("ready")
        })
        .await;
    }
    engine.pause("paused").await.unwrap();
    let pid = |engine: &Engine, name: &str| engine.container(name).unwrap().snapshot().facts.pid;
    let before = (pid(&engine, "stays"), pid(&engine, "paused"));
    let ending = [pid(&engine, &ends), pid(&engine, &vanishes)];
    engine.shutdown().await.unwrap();
    drop(engine);

    for pid in ending {
        sys::process::kill(pid.unwrap(), 15).unwrap();
    }
    let record = |id: &str| root.config.run_dirs().join(id).join("exit.json");
    eventually("both have exited", || {
        record(&ends).exists() && record(&vanishes).exists()
    })
    .await;

    let engine = root.reopen().await;
    assert_eq!((pid(&engine, "stays"), pid(&engine, "paused")), before);
    let status = |name: &str| engine.container(name).unwrap().snapshot().status;
    assert_eq!(
        (status("stays"), status("paused")),
        (Status::Running, Status::Paused)
    );
    eventually("the exit is reported", || status("ends") == Status::Exited).await;
    assert_eq!(
        engine.container("ends").unwrap().snapshot().facts.exit_code,
        6
    );
    eventually("it removed itself", || engine.container(&vanishes).is_err()).await;
    engine.unpause("paused").await.unwrap();
    engine
        .stop(
            "stays",
            &StopOptions {
                signal: None,
                timeout_seconds: Some(0),
            },
        )
        .await
        .unwrap();
    assert_eq!(
        engine.container(&stays).unwrap().snapshot().facts.exit_code,
        137
    );
    for name in ["stays", "paused", "ends"] {
        engine.remove(name, &FORCE).await.unwrap();
    }
    root.assert_clean();
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_shim_is_killed_is_dead_within_a_second() {
    if !crate::common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = root.engine().await;
    let id = create(&engine, "orphan", request(&["sleep", "1000"])).await;
    for adopted in [false, true] {
        let engine = if adopted {
            engine.start("orphan").await.unwrap();
            engine.shutdown().await.unwrap();
            root.reopen().await
        } else {
            engine.start("orphan").await.unwrap();
            engine.clone()
        };
        let container = engine.container("orphan").unwrap();
        let init = container.snapshot().facts.pid.unwrap();
        let killed = Instant::now();
        crate::common::kill_shim(&root, &id);
        eventually("it is reported dead", || {
            container.snapshot().status == Status::Exited
        })
        .await;
        assert!(
            killed.elapsed() < Duration::from_secs(1),
            "{:?}",
            killed.elapsed()
        );
        assert_eq!(container.snapshot().facts.exit_code, 137);
        assert!(!std::path::Path::new(&format!("/proc/{init}/root/bin")).exists());
        eventually("nothing of the run is left", || {
            root.cgroups().is_empty() && root.run_dirs().is_empty()
        })
        .await;
        if adopted {
            engine.remove("orphan", &FORCE).await.unwrap();
            root.assert_clean();
            engine.shutdown().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_engine_on_the_root_is_refused() {
    if !crate::common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = root.engine().await;
    let error = Engine::open(root.config.clone()).await.err().unwrap();
    assert!(
        error.message.contains("another Cooper is running"),
        "{}",
        error.message
    );
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_decide_what_starts_at_boot() {
    if !crate::common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = root.engine().await;
    let now = StopOptions {
        signal: None,
        timeout_seconds: Some(0),
    };
    for policy in ["always", "unless-stopped"] {
        let mut request = request(&["sleep", "1000"]);
        request.host_config.restart_policy.name = policy.to_owned();
        create(&engine, policy, request).await;
        engine.start(policy).await.unwrap();
        engine.stop(policy, &now).await.unwrap();
    }
    engine.shutdown().await.unwrap();
    drop(engine);
    let engine = root.reopen().await;
    let status = |name: &str| engine.container(name).unwrap().snapshot().status;
    eventually("always starts at boot", || {
        status("always") == Status::Running
    })
    .await;
    assert_eq!(status("unless-stopped"), Status::Exited);
    for policy in ["always", "unless-stopped"] {
        engine.remove(policy, &FORCE).await.unwrap();
    }
    root.assert_clean();
    engine.shutdown().await.unwrap();
}
