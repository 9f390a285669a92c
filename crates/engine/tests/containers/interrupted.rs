//! What is ended while it is under way: nothing of it stays, nothing comes afterwards, and its end is told.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use api::exec::{ExecConfig, ExecStart};
use api::options::{StopOptions, WaitCondition};
use runtime::cgroup::{Cgroup, CgroupPath};
use tokio::io::AsyncReadExt as _;

use crate::common::FORCE;
use crate::common::{self, PATIENCE, Root, create, eventually, finish, request, running};
use crate::foreign::Pinned;

/// SIGSTOP.
const SIGSTOP: i32 = 19;

/// SIGCONT.
const SIGCONT: i32 = 18;

/// So many names in the container's hosts file that writing it takes a while.
const HOSTS: usize = 8_000;

/// So many files in the container that removing them takes as long.
const FILES: usize = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_removal_waits_for_the_files_of_a_start_that_it_ends() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    for _ in 0..3 {
        let mut slow = request(&["true"]);
        let hosts = (0..HOSTS).map(|number| format!("host{number}:10.0.0.1"));
        slow.host_config.extra_hosts = Some(hosts.collect());
        let id = create(&engine, "slow", slow).await;
        let directory = root.config.containers_dir().join(&id);
        for number in 0..FILES {
            std::fs::write(directory.join(format!("upper/{number}")), "").unwrap();
        }
        let (of, name) = (engine.clone(), id.clone());
        let starting = tokio::spawn(async move { of.start(&name).await });
        let give_up = Instant::now() + PATIENCE;
        while !directory.join("hostname").exists() {
            assert!(Instant::now() < give_up, "its files are being written");
            tokio::task::yield_now().await;
        }
        engine.remove(&id, &FORCE).await.unwrap();
        assert!(starting.await.unwrap().is_err(), "it was interrupted");
        assert!(!directory.exists());
    }
    root.assert_clean();
    engine.shutdown().await.unwrap();
}

/// The process that holds the directory of this cgroup open: the shim that is parked with it.
fn holder_of(root: &Root, cgroup: &str) -> Option<u32> {
    let directory = format!("{}/{cgroup}", root.config.cgroup_parent);
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd"));
        let fds = fds.into_iter().flatten().flatten();
        let mut links = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        *pid != std::process::id() && links.any(|link| link.ends_with(&directory[1..]))
    })
}

fn parked(root: &Root) -> Vec<String> {
    let mut names = runtime::cgroup::list(&root.config.cgroup_parent);
    names.retain(|name| name.starts_with("pool-"));
    names
}

fn signal(pid: u32, signal: i32) {
    let process = sys::process::open_pidfd(pid).unwrap();
    sys::process::send_signal(process.as_fd(), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_start_that_is_ended_leaves_no_parked_cgroup() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let id = create(&engine, "short", request(&["sleep", "1000"])).await;
    eventually("a shim is parked", || {
        parked(&root).len() == 1 && holder_of(&root, &parked(&root)[0]).is_some()
    })
    .await;
    let name = parked(&root).remove(0);
    let shim = holder_of(&root, &name).unwrap();
    // It stands at the beginning of its work, as one does for a moment that a removal may meet.
    signal(shim, SIGSTOP);
    let (of, at) = (engine.clone(), id.clone());
    let starting = tokio::spawn(async move { of.start(&at).await });
    eventually("another one is parked", || {
        parked(&root).iter().any(|other| *other != name)
    })
    .await;
    engine.remove(&id, &FORCE).await.unwrap();
    assert!(starting.await.unwrap().is_err(), "it was interrupted");
    assert!(!parked(&root).contains(&name), "its cgroup is left");
    assert_eq!(holder_of(&root, &name), None, "its shim is left");
    root.assert_clean();
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_exec_whose_shim_dies_has_not_succeeded() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let id = running(&engine, "box").await;
    let config = ExecConfig {
        cmd: Some(vec!["sleep".to_owned(), "1000".to_owned()]),
        attach_stdout: true,
        ..ExecConfig::default()
    };
    let exec = engine.exec_create("box", config).await.unwrap();
    let started = engine.exec_start(&exec, &ExecStart::default()).await;
    let started = started.unwrap();
    // Its end takes as long as this machine wants.
    let pinned = Pinned::of(&root, &id);
    crate::common::kill_shim(&root, &id);
    let mut output = Vec::new();
    let mut stream = started.stream.unwrap();
    stream.read_to_end(&mut output).await.unwrap();
    started.ended.wait().await;
    // What the docker command line asks now; no code counts as success.
    let told = engine.exec_inspect(&exec).unwrap();
    drop(pinned);
    assert_eq!((told.running, told.exit_code), (false, Some(137)));
    finish(&root, &engine, "box").await;
}

/// Stops the shim of a container, as a disk that hangs does, and answers its process.
fn stop_shim(root: &Root, id: &str) -> OwnedFd {
    let directory = std::fs::File::open(root.config.run_dirs().join(id)).unwrap();
    let socket = sys::socket::connect_at(directory.as_fd(), "shim.sock".as_ref()).unwrap();
    let shim = sys::process::open_pidfd(sys::socket::peer(socket.as_fd()).unwrap().pid).unwrap();
    sys::process::send_signal(shim.as_fd(), SIGSTOP).unwrap();
    shim
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_container_whose_shim_hangs_is_killed_and_removed_without_it() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let id = running(&engine, "held").await;
    stop_shim(&root, &id);
    let now = StopOptions {
        signal: None,
        timeout_seconds: Some(0),
    };
    engine.stop("held", &now).await.unwrap();
    engine.start("held").await.unwrap();
    // One that this engine adopted, and frozen.
    engine.shutdown().await.unwrap();
    drop(engine);
    let engine = root.reopen().await;
    engine.pause("held").await.unwrap();
    stop_shim(&root, &id);
    finish(&root, &engine, "held").await;
}

/// Descriptors of processes that this one has open.
fn pidfds() -> usize {
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|file| file.to_string_lossy().contains("pidfd"))
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stopped_container_holds_no_process() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    create(&engine, "over", request(&["true"])).await;
    let before = pidfds();
    for _ in 0..3 {
        engine.start("over").await.unwrap();
        let ended = engine.wait("over", WaitCondition::NotRunning).unwrap();
        assert_eq!(ended.done().await.status_code, 0);
    }
    eventually("what was held of its runs to be let go", || {
        pidfds() <= before
    })
    .await;
    finish(&root, &engine, "over").await;
}

/// The shim stands still until the engine has given the pause up.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pause_that_was_given_up_is_not_done_later() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let id = running(&engine, "held").await;
    let shim = stop_shim(&root, &id);
    let error = engine.pause("held").await.unwrap_err();
    assert!(
        error.message.contains("did not answer"),
        "{}",
        error.message
    );
    sys::process::send_signal(shim.as_fd(), SIGCONT).unwrap();
    // It takes what it is asked in order: this comes after the pause.
    let config = ExecConfig {
        cmd: Some(vec!["true".to_owned()]),
        ..ExecConfig::default()
    };
    engine.exec_create("held", config).await.unwrap();
    let path = CgroupPath::new(&root.config.cgroup_parent, &id).unwrap();
    assert!(!Cgroup::open(&path).unwrap().is_frozen().unwrap());
    finish(&root, &engine, "held").await;
}
