//! What belongs to somebody else, or may: it is left alone.

use std::os::fd::AsFd as _;

use crate::common::FORCE;
use crate::common::{self, Root, create, eventually, finish, log, request, running};
use api::options::StopOptions;
use engine::{Engine, Status};
use runtime::cgroup::{Cgroup, CgroupPath};

/// The bound for a container whose shim has died; the removal of a cgroup that is pinned is tried for 5 s.
const TOLD_WITHIN: std::time::Duration = std::time::Duration::from_secs(1);

fn status(engine: &Engine, name: &str) -> Status {
    engine.container(name).unwrap().snapshot().status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_touches_no_cgroup_but_its_own_containers_and_its_own_pool() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let parent = &root.config.cgroup_parent;
    let mut below = request(&["sleep", "1000"]);
    below.host_config.cgroup_parent = format!("{parent}/web");
    create(&engine, "below", below).await;
    engine.start("below").await.unwrap();
    engine.shutdown().await.unwrap();
    drop(engine);
    let id = std::fs::read_to_string(root.config.data_root.join("engine-id")).unwrap();
    let stranger = "5".repeat(64);
    let dead = format!("pool-{}-1-0", &id[..8]);
    let foreign = ["service.scope", "pool-00000000-1-0", stranger.as_str()];
    for name in foreign.into_iter().chain([dead.as_str()]) {
        let path = CgroupPath::new(parent, name).unwrap();
        drop(Cgroup::create(&path).unwrap());
    }

    let engine = root.reopen().await;
    assert_eq!(status(&engine, "below"), Status::Running);
    let left = runtime::cgroup::list(parent);
    for name in foreign.into_iter().chain(["web"]) {
        assert!(left.iter().any(|other| other == name), "{name}: {left:?}");
    }
    assert!(!left.contains(&dead), "{left:?}");
    engine.remove("below", &FORCE).await.unwrap();
    engine.shutdown().await.unwrap();
    runtime::cgroup::remove_empty_parent(&format!("{parent}/web"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_data_roots_on_one_exec_root_do_not_end_each_others_containers() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    running(&engine, "mine").await;
    engine.shutdown().await.unwrap();
    drop(engine);

    let mut other = root.config.clone();
    other.data_root = root.directory.path().join("other");
    let engine = Engine::open(other).await.unwrap();
    engine.shutdown().await.unwrap();
    drop(engine);

    let engine = root.reopen().await;
    assert_eq!(status(&engine, "mine"), Status::Running);
    finish(&root, &engine, "mine").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_shim_cannot_be_asked_lives_on_and_is_adopted_when_it_can() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let gate = "trap 'exit 6' TERM; echo ready; while :; do sleep 0.01; done";
    let id = create(&engine, "asked", request(&["sh", "-c", gate])).await;
    engine.start("asked").await.unwrap();
    eventually("the trap is set", || log(&root, &id).contains("ready")).await;
    let pid = engine.container("asked").unwrap().snapshot().facts.pid;
    engine.shutdown().await.unwrap();
    drop(engine);
    // A connect fails with ELOOP: neither an answer nor the absence of a listener.
    let socket = root.config.run_dirs().join(&id).join("shim.sock");
    let away = socket.with_extension("away");
    std::fs::rename(&socket, &away).unwrap();
    std::os::unix::fs::symlink(&socket, &socket).unwrap();

    let engine = root.reopen().await;
    assert_eq!(status(&engine, "asked"), Status::Running);
    std::fs::rename(&away, &socket).unwrap();
    let container = engine.container("asked").unwrap();
    assert_eq!(container.snapshot().facts.pid, pid);
    engine.stop("asked", &StopOptions::default()).await.unwrap();
    assert_eq!(container.snapshot().facts.exit_code, 6);
    finish(&root, &engine, "asked").await;
}

/// Nobody would connect the client: he is told, instead of waiting for a start that does not come.
#[tokio::test(flavor = "multi_thread")]
async fn an_attach_whose_shim_cannot_be_asked_is_an_error() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let id = running(&engine, "deaf").await;
    // A connect fails with ELOOP: neither an answer nor the absence of a listener.
    let socket = root.config.run_dirs().join(&id).join("shim.sock");
    let away = socket.with_extension("away");
    std::fs::rename(&socket, &away).unwrap();
    std::os::unix::fs::symlink(&socket, &socket).unwrap();
    let options = api::options::AttachOptions {
        stream: true,
        stdout: true,
        ..api::options::AttachOptions::default()
    };
    let told = engine.attach("deaf", &options).await.map(|_| ());
    std::fs::rename(&away, &socket).unwrap();
    let told = told.unwrap_err();
    assert_eq!(told.class, engine::Class::Internal, "{}", told.message);
    engine.attach("deaf", &options).await.unwrap();
    finish(&root, &engine, "deaf").await;
}

/// A cgroup that cannot be removed as long as this lives: the host has it mounted somewhere.
pub(crate) struct Pinned(std::path::PathBuf);

impl Pinned {
    /// Pins the cgroup of a container.
    pub(crate) fn of(root: &Root, id: &str) -> Self {
        let v1 = std::path::Path::new("/sys/fs/cgroup/pids");
        let hierarchy = if v1.exists() {
            v1
        } else {
            std::path::Path::new("/sys/fs/cgroup")
        };
        let parent = root.config.cgroup_parent.trim_start_matches('/');
        let directory = hierarchy.join(parent).join(id);
        let mount = sys::command::Command::new("/bin/mount").arg("--bind");
        let mounted = mount.arg(&directory).arg(&directory).output().unwrap();
        assert!(mounted.status.success(), "{mounted:?}");
        Self(directory)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Whoever tries to remove it has it open just now.
        sys::mount::unmount_detached(&self.0).expect("unmount the cgroup");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_on_the_disk_is_told_once_nothing_of_the_run_runs() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let gate = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    let id = create(&engine, "late", request(&["sh", "-c", gate])).await;
    engine.start("late").await.unwrap();
    eventually("the trap is set", || log(&root, &id).contains("ready")).await;
    let pid = engine
        .container("late")
        .unwrap()
        .snapshot()
        .facts
        .pid
        .unwrap();
    engine.shutdown().await.unwrap();
    drop(engine);
    let init = sys::process::open_pidfd(pid).unwrap();
    sys::process::send_signal(init.as_fd(), 15).unwrap();
    let run_dir = root.config.run_dirs().join(&id);
    let recorded = || {
        std::fs::read_dir(&run_dir)
            .unwrap()
            .flatten()
            .any(|entry| entry.file_name() == shim::protocol::EXIT_RECORD_NAME)
    };
    eventually("its exit is recorded", recorded).await;
    // As if the shim had been killed right after it wrote the record, before it removed the cgroup.
    let path = CgroupPath::new(&root.config.cgroup_parent, &id).unwrap();
    eventually("its cgroup is gone", || Cgroup::open(&path).is_err()).await;
    crate::common::kill_shim(&root, &id);
    drop(Cgroup::create(&path).unwrap());
    let pinned = Pinned::of(&root, &id);

    let engine = root.reopen().await;
    let container = engine.container("late").unwrap();
    // Nothing of it runs, and the code is known: what keeps its cgroup there keeps nobody waiting.
    tokio::time::timeout(TOLD_WITHIN, async {
        while container.snapshot().status == Status::Running {
            tokio::time::sleep(crate::common::LOOK_EVERY).await;
        }
    })
    .await
    .expect("its end is told");
    assert_eq!(container.snapshot().status, Status::Exited);
    drop(pinned);
    assert_eq!(container.snapshot().facts.exit_code, 7);
    finish(&root, &engine, "late").await;
}

/// As above, with a shim that dies while somebody looks, and processes that must be killed.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_container_whose_shim_dies_is_told_before_its_cgroup_is_gone() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let id = running(&engine, "widow").await;
    let container = engine.container("widow").unwrap();
    let pid = container.snapshot().facts.pid.unwrap();
    let init = sys::process::open_pidfd(pid).unwrap();
    let pinned = Pinned::of(&root, &id);
    crate::common::kill_shim(&root, &id);
    tokio::time::timeout(TOLD_WITHIN, async {
        while container.snapshot().status == Status::Running {
            tokio::time::sleep(crate::common::LOOK_EVERY).await;
        }
    })
    .await
    .expect("its end is told");
    assert_eq!(container.snapshot().facts.exit_code, 137);
    let now = Some(std::time::Duration::ZERO);
    let ended = sys::process::wait_readable(&[init.as_fd()], now).unwrap();
    assert_eq!(ended, [true], "it was told while it runs");
    // What is left of the run is in the way of nothing but its removal.
    let kept = engine.remove("widow", &FORCE).await.unwrap_err();
    assert!(kept.message.contains("cgroup"), "{}", kept.message);
    drop(pinned);
    finish(&root, &engine, "widow").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_costs_no_data() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let id = create(&engine, "kept", request(&["sleep", "1000"])).await;
    engine.shutdown().await.unwrap();
    drop(engine);
    let data = &root.config.data_root;
    let list = |part: &str| {
        let entries = std::fs::read_dir(data.join(part)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = ["layers", "content/sha256", "containers"].map(list);
    for suffix in ["", "-wal", "-shm"] {
        drop(std::fs::remove_file(
            data.join(format!("cooper.db{suffix}")),
        ));
    }
    // The second start is no other than the first.
    for _ in 0..2 {
        let engine = root.reopen().await;
        assert_eq!(["layers", "content/sha256", "containers"].map(list), before);
        assert!(data.join("containers").join(&id).join("upper").exists());
        let warnings = engine.info().await.unwrap().warnings.unwrap();
        for what in [id.as_str(), "keep-unknown"] {
            assert!(warnings.iter().any(|w| w.contains(what)), "{warnings:?}");
        }
        engine.shutdown().await.unwrap();
    }
    // Decided: what no row knows goes.
    std::fs::remove_file(data.join("keep-unknown")).unwrap();
    let engine = root.reopen().await;
    assert!(list("content/sha256").is_empty());
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_damaged_row_keeps_nobody_from_the_other_containers() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let damaged = running(&engine, "damaged").await;
    running(&engine, "sound").await;
    engine.shutdown().await.unwrap();
    drop(engine);
    let set = |facts: &str| {
        let db = db::Db::open(&root.config.data_root.join("cooper.db")).unwrap();
        let sql = "UPDATE container_states SET facts = ?2 WHERE id = ?1";
        db.write::<_, db::Error>(|tx| Ok(tx.execute(sql, [&damaged, facts]).map(drop)?))
            .unwrap();
    };
    let read = || {
        let db = db::Db::open(&root.config.data_root.join("cooper.db")).unwrap();
        let sql = "SELECT facts FROM container_states WHERE id = ?1";
        db.read::<String, db::Error>(|c| Ok(c.query_row(sql, [&damaged], |row| row.get(0))?))
            .unwrap()
    };
    let facts = read();
    set("not JSON");
    let engine = root.reopen().await;
    assert_eq!(status(&engine, "sound"), Status::Running);
    assert!(engine.container("damaged").is_err());
    let warnings = engine.info().await.unwrap().warnings.unwrap();
    assert!(
        warnings.iter().any(|w| w.contains(&damaged)),
        "{warnings:?}"
    );
    engine.shutdown().await.unwrap();
    drop(engine);
    // Mended: it has run all the time.
    set(&facts);
    let engine = root.reopen().await;
    assert_eq!(status(&engine, "damaged"), Status::Running);
    for name in ["damaged", "sound"] {
        engine.remove(name, &FORCE).await.unwrap();
    }
    root.assert_clean();
    engine.shutdown().await.unwrap();
}
