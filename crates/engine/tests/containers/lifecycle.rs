//! Containers from create to remove, on a real engine with network none.

use std::os::fd::AsFd as _;
use std::time::Duration;

use crate::common::{Root, create, eventually, log, request, shim};
use api::options::{RemoveOptions, StopOptions, WaitCondition};
use engine::{Class, Engine, Status};
use sys::signal::Signal;

async fn wait(engine: &Engine, name: &str) -> i64 {
    let waiting = engine.wait(name, WaitCondition::NotRunning).unwrap();
    tokio::time::timeout(crate::common::PATIENCE, waiting.done())
        .await
        .unwrap()
        .status_code
}

const FORCE: RemoveOptions = RemoveOptions {
    force: true,
    volumes: false,
    link: false,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_program_runs_and_its_exit_code_and_output_are_kept() {
    if !crate::common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = root.engine().await;
    let id = create(&engine, "one", request(&["sh", "-c", "echo hello; exit 7"])).await;
    assert_eq!(
        engine.container("one").unwrap().snapshot().status,
        Status::Created
    );
    engine.start("one").await.unwrap();
    assert_eq!(wait(&engine, &id[..12]).await, 7);
    let snapshot = engine.container("one").unwrap().snapshot();
    assert_eq!(snapshot.status, Status::Exited);
    assert_eq!(snapshot.facts.exit_code, 7);
    assert!(snapshot.facts.finished_at_ns >= snapshot.facts.started_at_ns);
    assert!(
        log(&root, &id).contains(r#""log":"hello\n""#),
        "{}",
        log(&root, &id)
    );
    engine
        .remove("one", &RemoveOptions::default())
        .await
        .unwrap();
    assert_eq!(
        engine.container("one").unwrap_err().message,
        "No such container: one"
    );
    root.assert_clean();
    engine.shutdown().await.unwrap();
}

/// The root of a run ends with its shim, once the kernel has written what is below it to disk: these bytes take a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_begins_after_the_end_of_the_last_ones_shim() {
    if !crate::common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = root.engine().await;
    let write = "busybox head -c 200000000 /dev/zero > /much; echo written; exec sleep 600";
    let id = create(&engine, "again", request(&["sh", "-c", write])).await;
    engine.start("again").await.unwrap();
    eventually("the bytes are written", || {
        log(&root, &id).contains("written")
    })
    .await;
    let shim = shim(&root, &id);
    engine.kill("again", Signal::KILL).await.unwrap();
    assert_eq!(wait(&engine, "again").await, 137);
    engine.start("again").await.unwrap();
    let ended = sys::process::wait_readable(&[shim.as_fd()], Some(Duration::ZERO)).unwrap();
    assert_eq!(ended, [true]);
    engine.remove("again", &FORCE).await.unwrap();
    root.assert_clean();
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_stop_pause_and_force() {
    if !crate::common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = root.engine().await;
    let trap = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done";
    let id = create(&engine, "box", request(&["sh", "-c", trap])).await;
    let stop = StopOptions::default();

    let error = engine.kill("box", Signal::KILL).await.unwrap_err();
    assert_eq!(
        (error.class, error.message),
        (
            Class::Conflict,
            format!("cannot kill container: box: container {id} is not running")
        )
    );
    assert_eq!(
        engine.stop("box", &stop).await.unwrap_err().class,
        Class::NotModified
    );

    engine.start("box").await.unwrap();
    assert_eq!(
        engine.start("box").await.unwrap_err().class,
        Class::NotModified
    );
    eventually("the trap is set", || log(&root, &id).contains("ready")).await;
    assert_eq!(
        engine
            .remove("box", &RemoveOptions::default())
            .await
            .unwrap_err()
            .message,
        "cannot remove container \"box\": container is running: \
         stop the container before removing or force remove"
    );
    engine.pause("box").await.unwrap();
    assert_eq!(
        engine.container("box").unwrap().snapshot().status,
        Status::Paused
    );
    assert_eq!(
        engine.pause("box").await.unwrap_err().message,
        format!("Container {id} is already paused")
    );
    assert_eq!(
        engine.start("box").await.unwrap_err().message,
        "cannot start a paused container, try unpause instead"
    );
    engine.unpause("box").await.unwrap();
    assert_eq!(
        engine.unpause("box").await.unwrap_err().message,
        format!("Container {id} is not paused")
    );
    engine.kill("box", "WINCH".parse().unwrap()).await.unwrap();
    engine.stop("box", &stop).await.unwrap();
    assert_eq!(
        engine.container("box").unwrap().snapshot().facts.exit_code,
        5
    );

    engine.remove("box", &FORCE).await.unwrap();
    root.assert_clean();
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_makes_a_new_process_and_force_removes_a_paused_one() {
    if !crate::common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = root.engine().await;
    let stop = StopOptions {
        signal: None,
        timeout_seconds: Some(0),
    };
    create(&engine, "box", request(&["sleep", "1000"])).await;
    engine.restart("box", &stop).await.unwrap();
    let first = engine
        .container("box")
        .unwrap()
        .snapshot()
        .facts
        .pid
        .unwrap();
    engine.restart("box", &stop).await.unwrap();
    let second = engine
        .container("box")
        .unwrap()
        .snapshot()
        .facts
        .pid
        .unwrap();
    assert_ne!(first, second);
    engine.pause("box").await.unwrap();
    engine.remove("box", &FORCE).await.unwrap();
    root.assert_clean();
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_is_not_heeded_kills_and_others_are_decided_meanwhile() {
    if !crate::common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = root.engine().await;
    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.01; done";
    let id = create(&engine, "deaf", request(&["sh", "-c", deaf])).await;
    engine.start("deaf").await.unwrap();
    eventually("the trap is set", || log(&root, &id).contains("ready")).await;
    let second = StopOptions {
        signal: None,
        timeout_seconds: Some(1),
    };
    engine.stop("deaf", &second).await.unwrap();
    assert_eq!(
        engine.container("deaf").unwrap().snapshot().facts.exit_code,
        137
    );

    engine.start("deaf").await.unwrap();
    let stopping = engine.clone();
    let forever = StopOptions {
        signal: None,
        timeout_seconds: Some(-1),
    };
    let stop = tokio::spawn(async move { stopping.stop("deaf", &forever).await });
    let container = engine.container("deaf").unwrap();
    eventually("the stop is under way", || {
        container.snapshot().facts.manually_stopped
    })
    .await;
    engine.remove("deaf", &FORCE).await.unwrap();
    stop.await.unwrap().unwrap();
    root.assert_clean();
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_starts_have_dockers_codes_and_texts() {
    if !crate::common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = root.engine().await;
    let table = [
        (
            "nope",
            127,
            "exec: \"nope\": executable file not found in $PATH",
        ),
        (
            "/nope",
            127,
            "exec: \"/nope\": stat /nope: no such file or directory",
        ),
        ("/etc/plain", 126, "exec: \"/etc/plain\": permission denied"),
        (
            "/etc",
            126,
            "exec: \"/etc\": is a directory: permission denied",
        ),
    ];
    for (program, code, reason) in table {
        create(&engine, "bad", request(&[program])).await;
        let error = engine.start("bad").await.unwrap_err();
        assert_eq!(error.class, Class::InvalidParameter, "{program}");
        assert_eq!(
            error.message,
            format!(
                "failed to create task for container: failed to create shim task: OCI runtime \
                 create failed: runc create failed: unable to start container process: error \
                 during container init: {reason}"
            )
        );
        let snapshot = engine.container("bad").unwrap().snapshot();
        assert_eq!(snapshot.status, Status::Created);
        assert_eq!(snapshot.facts.exit_code, code, "{program}");
        assert_eq!(snapshot.facts.error, error.message);
        assert_eq!(root.cgroups(), Vec::<String>::new());
        assert_eq!(root.run_dirs(), Vec::<String>::new());
        engine
            .remove("bad", &RemoveOptions::default())
            .await
            .unwrap();
    }
    let mut removing = request(&["nope"]);
    removing.host_config.auto_remove = true;
    create(&engine, "rm", removing).await;
    let removed = engine.wait("rm", WaitCondition::Removed).unwrap();
    assert_eq!(
        engine.start("rm").await.unwrap_err().class,
        Class::InvalidParameter
    );
    assert_eq!(removed.done().await.status_code, 127);
    root.assert_clean();
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_hold_to_their_condition() {
    if !crate::common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = root.engine().await;
    let mut removing = request(&["sh", "-c", "exit 3"]);
    removing.host_config.auto_remove = true;
    create(&engine, "rm", removing).await;
    let next = engine.wait("rm", WaitCondition::NextExit).unwrap();
    let removed = engine.wait("rm", WaitCondition::Removed).unwrap();
    let not_running = engine.wait("rm", WaitCondition::NotRunning).unwrap();
    assert_eq!(not_running.done().await.status_code, 0);
    engine.start("rm").await.unwrap();
    assert_eq!(next.done().await.status_code, 3);
    assert_eq!(removed.done().await.status_code, 3);
    assert_eq!(engine.container("rm").unwrap_err().class, Class::NotFound);
    root.assert_clean();

    create(&engine, "two", request(&["true"])).await;
    engine.start("two").await.unwrap();
    assert_eq!(wait(&engine, "two").await, 0);
    let past = engine.wait("two", WaitCondition::NextExit).unwrap();
    let waited = tokio::time::timeout(std::time::Duration::from_millis(50), past.done()).await;
    assert!(waited.is_err(), "a past exit is not the next one");
    engine.remove("two", &FORCE).await.unwrap();
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_policies_restart() {
    if !crate::common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = root.engine().await;
    let mut failing = request(&["sh", "-c", "exit 9"]);
    failing.host_config.restart_policy.name = "on-failure".to_owned();
    failing.host_config.restart_policy.maximum_retry_count = 2;
    create(&engine, "failing", failing).await;
    engine.start("failing").await.unwrap();
    let container = engine.container("failing").unwrap();
    eventually("it gives up after two retries", || {
        let snapshot = container.snapshot();
        snapshot.status == Status::Exited && snapshot.facts.restart_count == 2
    })
    .await;
    assert_eq!(container.snapshot().facts.exit_code, 9);

    let mut always = request(&["false"]);
    always.host_config.restart_policy.name = "always".to_owned();
    create(&engine, "always", always).await;
    engine.start("always").await.unwrap();
    let container = engine.container("always").unwrap();
    eventually("it is restarted", || {
        let snapshot = container.snapshot();
        snapshot.facts.restart_count >= 2 && snapshot.status == Status::Restarting
    })
    .await;
    engine
        .stop("always", &StopOptions::default())
        .await
        .unwrap();
    assert_eq!(container.snapshot().status, Status::Exited);
    for name in ["failing", "always"] {
        engine
            .remove(name, &RemoveOptions::default())
            .await
            .unwrap();
    }
    root.assert_clean();
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_claimed_renamed_and_given_back() {
    if !crate::common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = root.engine().await;
    let id = create(&engine, "one", request(&["true"])).await;
    let options = api::options::CreateOptions {
        name: "/one".to_owned(),
        platform: None,
    };
    let taken = engine
        .create(options, request(&["true"]))
        .await
        .unwrap_err();
    assert_eq!(
        (taken.class, taken.message),
        (
            Class::Conflict,
            format!(
                "Conflict. The container name \"/one\" is already in use by container \"{id}\". \
                 You have to remove (or rename) that container to be able to reuse that name."
            )
        )
    );
    assert_eq!(root.container_dirs(), std::slice::from_ref(&id));
    engine.rename("one", "two").await.unwrap();
    assert_eq!(
        engine.rename("two", "two").await.unwrap_err().message,
        "Renaming a container with the same name as its current name"
    );
    let other = create(&engine, "one", request(&["true"])).await;
    assert_eq!(
        engine.rename("one", "two").await.unwrap_err().class,
        Class::Conflict
    );
    assert_eq!(engine.container("two").unwrap().id().as_str(), id);
    assert_eq!(engine.container("one").unwrap().id().as_str(), other);
    engine.shutdown().await.unwrap();
    drop(engine);
    let engine = root.reopen().await;
    assert_eq!(engine.container("two").unwrap().id().as_str(), id);
    engine.shutdown().await.unwrap();
}
