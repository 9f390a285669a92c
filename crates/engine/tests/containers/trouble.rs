//! Requests that cross each other, and a database that cannot be written.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use api::container::config::HealthConfig;
use api::exec::{ExecConfig, ExecStart};
use api::options::{
    AttachOptions, CreateOptions, EventsOptions, ImageRemoveOptions, LoadOptions, LogsOptions,
    StopOptions, WaitCondition,
};
use engine::{Class, Engine, Status};

use crate::common::FORCE;
use crate::common::{
    self, LOOK_EVERY, PATIENCE, Root, busybox_archive, create, eventually, finish, request, running,
};

/// Long enough for an attach to come to its event, far below the five seconds that a commit waits.
const ATTACH_WAITS: Duration = Duration::from_millis(500);

/// The database, held by somebody who writes.
struct Held {
    release: mpsc::SyncSender<()>,
    holder: std::thread::JoinHandle<()>,
}

impl Held {
    fn hold(root: &Root) -> Self {
        let path = root.config.data_root.join("cooper.db");
        let (release, released) = mpsc::sync_channel(1);
        let (held, is_held) = mpsc::sync_channel(1);
        let holder = std::thread::spawn(move || {
            let db = db::Db::open(&path).unwrap();
            db.write::<_, db::Error>(|_| {
                held.send(()).unwrap();
                released.recv().unwrap();
                Ok(())
            })
            .unwrap();
        });
        is_held.recv().unwrap();
        Self { release, holder }
    }

    fn let_go(self) {
        self.release.send(()).unwrap();
        self.holder.join().unwrap();
    }
}

fn status(engine: &Engine, name: &str) -> Status {
    engine.container(name).unwrap().snapshot().status
}

/// Whether the program of this container has begun.
fn has_begun(root: &Root, id: &str, program: &str) -> bool {
    use runtime::cgroup::{Cgroup, CgroupPath};
    let path = CgroupPath::new(&root.config.cgroup_parent, id).unwrap();
    let pids = Cgroup::open(&path).and_then(|cgroup| cgroup.pids());
    pids.unwrap_or_default().iter().any(|pid| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.starts_with(program.as_bytes()))
    })
}

/// As [`eventually`], on this thread alone: while the database is held, the runtime's threads may all wait for it,
/// and its clock with them.
fn patiently(what: &str, holds: impl Fn() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < give_up, "{what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits for what must come; long before the ten seconds after which a kill is given up.
async fn soon<T>(what: &str, task: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(8), task).await {
        Ok(value) => value,
        Err(_) => panic!("{what}"),
    }
}

/// How often a kill may come before the rename that keeps the task busy, and end the launch early.
const CROSSINGS: usize = 20;

/// Starts a container, has its program begin while its task is busy, and has it killed meanwhile. False when the kill
/// came too early for that.
async fn cross(root: &Root, engine: &Engine, id: &str, other_name: String) -> bool {
    let held = Held::hold(root);
    let (of, name) = (engine.clone(), id.to_owned());
    let starting = tokio::spawn(async move { of.start(&name).await });
    patiently("it is being started", || {
        root.run_dirs().contains(&id.to_owned())
    });
    // The task is busy with this until the database is free, and finds the kill before the launch.
    let (of, name, wanted) = (engine.clone(), id.to_owned(), other_name.clone());
    let renaming = tokio::spawn(async move { of.rename(&name, &wanted).await });
    patiently("the rename is with the task", || {
        common::saved_name(root, id) == other_name
    });
    let (of, name) = (engine.clone(), id.to_owned());
    let killing = tokio::spawn(async move { of.kill(&name, "KILL".parse().unwrap()).await });
    patiently("its program runs, or never will", || {
        has_begun(root, id, "sleep") || !root.run_dirs().contains(&id.to_owned())
    });
    let crossed = has_begun(root, id, "sleep");
    held.let_go();
    soon("the rename ends", renaming).await.unwrap().unwrap();
    soon("the kill ends", killing).await.unwrap().unwrap();
    drop(soon("the start ends", starting).await.unwrap());
    crossed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_kill_that_crosses_the_end_of_a_launch_ends_it_and_the_next_run_lives() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let id = create(&engine, "crossed", request(&["sleep", "1000"])).await;
    let container = engine.container(&id).unwrap();
    let mut crossings = 0;
    while !cross(&root, &engine, &id, format!("other{crossings}")).await {
        crossings += 1;
        assert!(crossings < CROSSINGS, "the kill always comes first");
    }
    eventually("it does not run", || {
        matches!(
            container.snapshot().status,
            Status::Exited | Status::Created
        )
    })
    .await;
    soon("it starts again", engine.start(&id)).await.unwrap();
    assert_eq!(status(&engine, &id), Status::Running);
    assert!(has_begun(&root, &id, "sleep"));
    soon("it goes", engine.remove(&id, &FORCE)).await.unwrap();
    root.assert_clean();
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_attaches_while_it_starts_is_connected_to_this_run() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let id = create(&engine, "late", request(&["sleep", "1000"])).await;
    let held = Held::hold(&root);
    let of = engine.clone();
    let starting = tokio::spawn(async move { of.start("late").await });
    patiently("its program runs", || has_begun(&root, &id, "sleep"));
    let of = engine.clone();
    let attaching = tokio::spawn(async move {
        let options = AttachOptions {
            stream: true,
            stdout: true,
            ..AttachOptions::default()
        };
        of.attach("late", &options).await.unwrap()
    });
    // It has asked, and its event waits for the database.
    let asked = Instant::now();
    patiently("it waits", || asked.elapsed() > ATTACH_WAITS);
    assert!(!attaching.is_finished());
    held.let_go();
    soon("it starts", starting).await.unwrap().unwrap();
    let attached = soon("the attach is answered", attaching).await.unwrap();
    assert!(soon("it is connected", attached.stream()).await.is_some());
    finish(&root, &engine, "late").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_cannot_be_saved_is_stopped_all_the_same() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    running(&engine, "filler").await;
    let pid = engine.container("filler").unwrap().snapshot().facts.pid;
    let held = Held::hold(&root);
    let of = engine.clone();
    let stopping = tokio::spawn(async move {
        let now = StopOptions {
            signal: None,
            timeout_seconds: Some(0),
        };
        of.stop("filler", &now).await
    });
    let process = format!("/proc/{}/root/bin", pid.unwrap());
    patiently("it is dead", || !std::path::Path::new(&process).exists());
    held.let_go();
    soon("the stop is answered", stopping)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status(&engine, "filler"), Status::Exited);
    finish(&root, &engine, "filler").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_second_start_of_an_exec_does_not_hide_its_end() {
    let Some((_root, engine)) = common::ready().await else {
        return;
    };
    running(&engine, "box").await;
    let detached = ExecStart {
        detach: true,
        ..ExecStart::default()
    };
    for _ in 0..20 {
        let config = ExecConfig {
            cmd: Some(vec!["true".to_owned()]),
            ..ExecConfig::default()
        };
        let id = engine.exec_create("box", config).await.unwrap();
        engine.exec_start(&id, &detached).await.unwrap();
        let (of, again, options) = (engine.clone(), id.clone(), detached.clone());
        let hammering = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Handle::current();
            while of.exec_inspect(&again).unwrap().running {
                let refused = runtime.block_on(of.exec_start(&again, &options));
                assert_eq!(refused.unwrap_err().class, Class::Conflict);
            }
        });
        soon("it ends", hammering).await.unwrap();
        eventually("its end stays known", || {
            engine.exec_inspect(&id).unwrap().exit_code == Some(0)
        })
        .await;
    }
    engine.remove("box", &FORCE).await.unwrap();
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_at_the_end_are_not_told_that_the_container_is_gone() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    running(&engine, "stays").await;
    let container = engine.container("stays").unwrap();
    let of = engine.clone();
    // As process 1 without a handler, sleep does not end of SIGTERM.
    let stopping = tokio::spawn(async move {
        let patient = StopOptions {
            signal: None,
            timeout_seconds: Some(600),
        };
        of.stop("stays", &patient).await
    });
    eventually("the stop is under way", || {
        container.snapshot().facts.manually_stopped
    })
    .await;
    engine.shutdown().await.unwrap();
    let error = soon("it is answered", stopping).await.unwrap().unwrap_err();
    assert_eq!(error.class, Class::Unavailable, "{}", error.message);
    let error = engine.start("stays").await.unwrap_err();
    assert_eq!(error.class, Class::Unavailable, "{}", error.message);
    drop((engine, container));
    let engine = root.reopen().await;
    assert_eq!(status(&engine, "stays"), Status::Running);
    engine.remove("stays", &FORCE).await.unwrap();
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_fails_early_leaves_no_parked_cgroup() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let id = create(&engine, "unlogged", request(&["true"])).await;
    let parked = || {
        let names = runtime::cgroup::list(&root.config.cgroup_parent);
        let parked = names.into_iter().filter(|name| name.starts_with("pool-"));
        parked.collect::<Vec<_>>()
    };
    eventually("a shim is parked", || parked().len() == 1).await;
    let before = parked();
    let log = root
        .config
        .containers_dir()
        .join(&id)
        .join(format!("{id}-json.log"));
    std::fs::create_dir(&log).unwrap();
    let error = engine.start("unlogged").await.unwrap_err();
    assert!(
        error.message.contains("logging driver"),
        "{}",
        error.message
    );
    eventually("another one is parked, and the first is gone", || {
        parked().len() == 1 && parked() != before
    })
    .await;
    engine.remove("unlogged", &FORCE).await.unwrap();
    engine.shutdown().await.unwrap();
}

/// dockerd 28.5.2: 501 with these words; and 409 while a container is removed.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_container_that_keeps_none_is_refused() {
    let Some((_root, engine)) = common::ready().await else {
        return;
    };
    let mut silent = request(&["true"]);
    silent.host_config.log_config.r#type = "none".to_owned();
    create(&engine, "silent", silent).await;
    let refused = engine
        .logs("silent", &LogsOptions::default())
        .err()
        .unwrap();
    assert_eq!(
        (refused.class, refused.message.as_str()),
        (
            Class::NotImplemented,
            "configured logging driver does not support reading"
        )
    );
    engine.remove("silent", &FORCE).await.unwrap();
    engine.shutdown().await.unwrap();
}

/// Recorded from dockerd 28.5.2: `docker load`, `docker tag`, `docker rmi` of both names.
#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_images_is_told() {
    if !crate::common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = root.reopen().await;
    let mut events = engine.events(EventsOptions::default()).unwrap();
    let archive = Box::new(std::io::Cursor::new(busybox_archive()));
    let mut loading = engine.image_load(LoadOptions::default(), archive);
    while let Some(message) = loading.recv().await {
        message.unwrap();
    }
    engine.image_tag("busybox", "other/one", "x").await.unwrap();
    let id = engine.image_inspect("busybox").await.unwrap().id;
    for name in ["busybox:latest", "other/one:x"] {
        engine
            .image_remove(name, &ImageRemoveOptions::default())
            .await
            .unwrap();
    }
    let expected = [
        ("load", id.as_str()),
        ("tag", "other/one:x"),
        ("untag", id.as_str()),
        ("untag", id.as_str()),
        ("delete", id.as_str()),
    ];
    for (action, name) in expected {
        let event = soon(action, events.next()).await.unwrap().unwrap();
        assert_eq!(
            (event.r#type.as_str(), event.action.as_str()),
            ("image", action)
        );
        assert_eq!(event.actor.id, id, "{action}");
        assert_eq!(event.actor.attributes["name"], name, "{action}");
    }
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_in_the_hosts_process_namespace_ends_with_its_container() {
    let Some((_root, engine)) = common::ready().await else {
        return;
    };
    let mut host = request(&["sleep", "1000"]);
    host.host_config.pid_mode = "host".to_owned();
    create(&engine, "host", host).await;
    engine.start("host").await.unwrap();
    let config = ExecConfig {
        cmd: Some(vec!["sleep".to_owned(), "1000".to_owned()]),
        ..ExecConfig::default()
    };
    let id = engine.exec_create("host", config).await.unwrap();
    let detached = ExecStart {
        detach: true,
        ..ExecStart::default()
    };
    engine.exec_start(&id, &detached).await.unwrap();
    engine.kill("host", "KILL".parse().unwrap()).await.unwrap();
    eventually("it has ended too", || {
        !engine.exec_inspect(&id).unwrap().running
    })
    .await;
    engine.remove("host", &FORCE).await.unwrap();
    engine.shutdown().await.unwrap();
}

/// dockerd 28.5.2: 400 with these words.
#[tokio::test(flavor = "multi_thread")]
async fn a_private_ipc_namespace_is_not_joined() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let mut donor = request(&["sleep", "1000"]);
    donor.host_config.ipc_mode = "private".to_owned();
    let id = create(&engine, "donor", donor).await;
    engine.start("donor").await.unwrap();
    let mut joins = request(&["true"]);
    joins.host_config.ipc_mode = "container:donor".to_owned();
    create(&engine, "joins", joins).await;
    let error = engine.start("joins").await.unwrap_err();
    let words = format!(
        "failed to join IPC namespace: container {id}: non-shareable IPC \
         (hint: use IpcMode:shareable for the donor container)"
    );
    assert_eq!(
        (error.class, error.message),
        (Class::InvalidParameter, words)
    );
    for name in ["joins", "donor"] {
        engine.remove(name, &FORCE).await.unwrap();
    }
    root.assert_clean();
    engine.shutdown().await.unwrap();
}

/// What one writes the other reads, and both have one IPC namespace; also after the donor was started again.
#[tokio::test(flavor = "multi_thread")]
async fn a_shareable_ipc_namespace_is_joined() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let script =
        "echo shared > /dev/shm/note; readlink /proc/self/ns/ipc > /dev/shm/ipc; exec sleep 1000";
    let mut donor = request(&["sh", "-c", script]);
    donor.host_config.ipc_mode = "shareable".to_owned();
    create(&engine, "donor", donor).await;
    let script = "until test -s /dev/shm/ipc; do :; done; \
                  grep -q shared /dev/shm/note && readlink /proc/self/ns/ipc | grep -q -F \"$(cat /dev/shm/ipc)\"";
    let mut joins = request(&["sh", "-c", script]);
    joins.host_config.ipc_mode = "container:donor".to_owned();
    joins.host_config.network_mode = "container:donor".to_owned();
    joins.host_config.pid_mode = "container:donor".to_owned();
    create(&engine, "joins", joins).await;
    for _ in 0..2 {
        engine.start("donor").await.unwrap();
        engine.start("joins").await.unwrap();
        let ended = engine.wait("joins", WaitCondition::NotRunning).unwrap();
        assert_eq!(ended.done().await.status_code, 0);
        engine.kill("donor", "KILL".parse().unwrap()).await.unwrap();
        let ended = engine.wait("donor", WaitCondition::NotRunning).unwrap();
        assert_eq!(ended.done().await.status_code, 137);
    }
    for name in ["joins", "donor"] {
        engine.remove(name, &FORCE).await.unwrap();
    }
    root.assert_clean();
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_that_is_not_run_is_said_to_be_so() {
    let Some((_root, engine)) = common::ready().await else {
        return;
    };
    for (test, warns) in [(["CMD", "true"], true), (["NONE", ""], false)] {
        let mut checked = request(&["true"]);
        checked.config.healthcheck = Some(HealthConfig {
            test: Some(test.map(str::to_owned).to_vec()),
            ..HealthConfig::default()
        });
        let created = engine
            .create(CreateOptions::default(), checked)
            .await
            .unwrap();
        let warned = created.warnings.iter().any(|w| w.contains("Health checks"));
        assert_eq!(warned, warns, "{:?}", created.warnings);
        engine.remove(&created.id, &FORCE).await.unwrap();
    }
    engine.shutdown().await.unwrap();
}
