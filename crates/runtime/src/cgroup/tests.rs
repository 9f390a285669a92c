//! The same tests on v1 and v2: what a limit does, not which file it is in. They need root.

use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

#[path = "tests_disk.rs"]
mod disk;

/// Longest wait for something a test has set in motion: an emulated machine is slow.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(2);

/// How long something must not happen to be believed not to.
const QUIET: Duration = Duration::from_millis(60);

/// A group with a parent of its own, removed with everything in it at the end.
struct Group {
    parent: String,
    cgroup: Option<Cgroup>,
}

impl Group {
    fn new(test: &str) -> Self {
        let parent = format!("/cooper-test-{test}-{}", std::process::id());
        let cgroup = Cgroup::create(&CgroupPath::new(&parent, "c").unwrap()).unwrap();
        Self {
            parent,
            cgroup: Some(cgroup),
        }
    }

    fn get(&self) -> &Cgroup {
        self.cgroup.as_ref().unwrap()
    }

    fn file(&self, controller: &str, file: &str) -> String {
        let directory = self.get().directory(controller).unwrap();
        self.get()
            .read_from(directory, file)
            .unwrap()
            .trim()
            .to_owned()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for name in list(&self.parent) {
            let cgroup = Cgroup::open(&CgroupPath::new(&self.parent, &name).unwrap()).unwrap();
            cgroup.kill().unwrap();
            cgroup.remove().unwrap();
        }
        remove_empty_parent(&self.parent);
    }
}

/// The test binary again, as a helper that does one thing: run only `helper_process` with `COOPER_HELPER` set. A shell
/// is not needed, so that the tests run in a machine that has nothing else.
#[expect(
    clippy::disallowed_methods,
    reason = "tests start themselves as helpers"
)]
fn helper(action: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cgroup::tests::helper_process", "--nocapture"])
        .env("COOPER_HELPER", action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets a helper act, which waits for a line first: by then it is in its group.
fn go(child: &mut Child) {
    drop(child.stdin.take());
}

fn wait(child: &mut Child) -> (std::process::ExitStatus, String) {
    go(child);
    let mut output = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut output)
        .unwrap();
    (child.wait().unwrap(), output)
}

/// The other half of [`helper`]; without the variable it is a test that has nothing to do.
#[test]
fn helper_process() {
    let Ok(action) = std::env::var("COOPER_HELPER") else {
        return;
    };
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    match action.as_str() {
        "sleep" => loop {
            std::thread::park();
        },
        "spin" => loop {
            std::hint::spin_loop();
        },
        "hog" => {
            let bytes = std::hint::black_box(vec![1u8; 256 << 20]);
            println!("has {}", bytes.len());
        }
        "fork" => {
            let mut children: Vec<Child> = (0..20).map_while(|_| try_helper("sleep")).collect();
            println!("forked {}", children.len());
            for child in &mut children {
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
        "family" => {
            let mut children: Vec<Child> = (0..5).map(|_| helper("sleep")).collect();
            children
                .iter_mut()
                .for_each(|child| assert!(!child.wait().unwrap().success()));
        }
        "open-null" => println!("null {:?}", std::fs::read("/dev/null").is_ok()),
        "open-zero" => println!("zero {:?}", std::fs::File::open("/dev/zero").is_ok()),
        "write" => {
            use std::io::Write;
            use std::os::unix::fs::OpenOptionsExt;
            let path = std::env::temp_dir().join(format!("cooper-write-{}", std::process::id()));
            // O_DSYNC: each write reaches the disk, and is charged to this process.
            let mut options = std::fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .custom_flags(0o10_000)
                .open(&path)
                .unwrap();
            (0..32).for_each(|_| file.write_all(&[7; 64 << 10]).unwrap());
            std::fs::remove_file(&path).unwrap();
        }
        other => panic!("no helper {other}"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests start themselves as helpers"
)]
fn try_helper(action: &str) -> Option<Child> {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cgroup::tests::helper_process", "--nocapture"])
        .env("COOPER_HELPER", action)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(POLL);
    }
}

fn resources(json: serde_json::Value) -> oci::LinuxResources {
    serde_json::from_value(json).unwrap()
}

#[test]
fn create_open_list_remove() {
    if !testkit::is_root() {
        return;
    }
    let mut group = Group::new("create");
    assert_eq!(list(&group.parent), ["c"]);
    let path = group.get().path().clone();
    let again = Cgroup::create(&path).unwrap();
    assert_eq!(
        again.directories().len(),
        layout::layout().hierarchies.len()
    );
    assert_eq!(Cgroup::open(&path).unwrap().path(), &path);
    assert!(!group.get().is_populated().unwrap());
    group.cgroup.take().unwrap().remove().unwrap();
    assert_eq!(list(&group.parent), Vec::<String>::new());
    let missing = Cgroup::open(&path).unwrap_err();
    assert!(
        matches!(&missing, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound),
        "{missing}"
    );
    again.remove().unwrap();
    remove_empty_parent(&group.parent);
    assert_eq!(list(&group.parent), Vec::<String>::new());
    assert!(!list("/").contains(&group.parent[1..].to_owned()));
}

#[test]
fn join_and_nested_groups() {
    if !testkit::is_root() {
        return;
    }
    let mut group = Group::new("join");
    let mut child = helper("sleep");
    group.get().join(child.id()).unwrap();
    assert_eq!(group.get().pids().unwrap(), [child.id()]);
    assert!(group.get().is_populated().unwrap());
    assert!(!group.get().wait_empty(Duration::from_millis(20)).unwrap());
    let membership = std::fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
    let path = group.get().path().to_string();
    let inside = membership
        .lines()
        .filter(|line| line.ends_with(&format!(":{path}")))
        .count();
    assert_eq!(inside, layout::layout().hierarchies.len(), "{membership}");
    // What a container with its own cgroup mount does: a group inside, and the process there.
    let nested = CgroupPath::new(&path, "inner").unwrap();
    if version() == Version::V1 {
        let nested = Cgroup::create(&nested).unwrap();
        nested.join(child.id()).unwrap();
    }
    assert_eq!(group.get().pids().unwrap(), [child.id()]);
    group.get().kill().unwrap();
    // A process that nobody has reaped is in no group.
    assert!(group.get().wait_empty(PATIENCE).unwrap());
    child.wait().unwrap();
    group.cgroup.take().unwrap().remove().unwrap();
    assert_eq!(list(&group.parent), Vec::<String>::new());
}

#[test]
fn remove_waits_until_the_last_process_is_gone() {
    if !testkit::is_root() {
        return;
    }
    let mut group = Group::new("remove");
    let mut child = helper("sleep");
    group.get().join(child.id()).unwrap();
    let cgroup = group.cgroup.take().unwrap();
    let (sender, removed) = std::sync::mpsc::sync_channel(1);
    let remover = std::thread::spawn(move || sender.send(cgroup.remove()).unwrap());
    assert!(
        removed.recv_timeout(QUIET).is_err(),
        "removed around a living process"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    removed.recv_timeout(PATIENCE).unwrap().unwrap();
    remover.join().unwrap();
    assert_eq!(list(&group.parent), Vec::<String>::new());
}

#[test]
fn destroying_kills_what_is_there_and_needs_nobody() {
    if !testkit::is_root() {
        return;
    }
    let mut group = Group::new("destroy");
    let mut child = helper("sleep");
    group.get().join(child.id()).unwrap();
    group.cgroup.take().unwrap().destroy().unwrap();
    assert!(!child.wait().unwrap().success());
    assert_eq!(list(&group.parent), Vec::<String>::new());
    let empty = Cgroup::create(&CgroupPath::new(&group.parent, "empty").unwrap()).unwrap();
    empty.destroy().unwrap();
    assert_eq!(list(&group.parent), Vec::<String>::new());
}

#[test]
fn a_renamed_group_keeps_its_processes() {
    if !testkit::is_root() {
        return;
    }
    let mut group = Group::new("rename");
    if version() == Version::V2 {
        assert!(matches!(
            group.cgroup.as_mut().unwrap().rename("d"),
            Err(Error::Unsupported { .. })
        ));
        return;
    }
    let mut child = helper("sleep");
    group.get().join(child.id()).unwrap();
    group.cgroup.as_mut().unwrap().rename("d").unwrap();
    assert_eq!(list(&group.parent), ["d"]);
    assert_eq!(group.get().path().name(), "d");
    assert_eq!(group.get().pids().unwrap(), [child.id()]);
    assert!(matches!(
        group.cgroup.as_mut().unwrap().rename("../x"),
        Err(Error::Name(_))
    ));
    // A name that is taken in the last hierarchy alone: the others are renamed back.
    let last = &layout::layout().hierarchies.last().unwrap().root;
    let parent = sys::cgroupfs::open_dir(last.as_fd(), &group.parent[1..]).unwrap();
    assert!(sys::cgroupfs::make_dir(parent.as_fd(), "e").unwrap());
    assert!(group.cgroup.as_mut().unwrap().rename("e").is_err());
    sys::cgroupfs::remove_dir(parent.as_fd(), "e").unwrap();
    assert_eq!(list(&group.parent), ["d"]);
    group.get().kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn freeze_stops_and_thaw_goes_on() {
    if !testkit::is_root() {
        return;
    }
    let group = Group::new("freeze");
    let mut child = helper("spin");
    group.get().join(child.id()).unwrap();
    go(&mut child);
    let used = || group.get().stats().unwrap().cpu.total_ns;
    until("it spins", || used() > 20_000_000);
    assert!(!group.get().is_frozen().unwrap());
    group.get().freeze().unwrap();
    assert!(group.get().is_frozen().unwrap());
    let before = used();
    std::thread::park_timeout(QUIET);
    assert_eq!(used(), before, "a frozen group used the processor");
    group.get().thaw().unwrap();
    until("it goes on", || used() > before + 20_000_000);
    assert!(!group.get().is_frozen().unwrap());
    group.get().freeze().unwrap();
    group.get().kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn kill_reaches_a_family_also_when_frozen() {
    if !testkit::is_root() {
        return;
    }
    for frozen in [false, true] {
        let mut group = Group::new(if frozen { "killf" } else { "kill" });
        let mut child = helper("family");
        group.get().join(child.id()).unwrap();
        go(&mut child);
        until("the family is there", || {
            group.get().pids().unwrap().len() == 6
        });
        if frozen {
            group.get().freeze().unwrap();
        }
        group.get().kill().unwrap();
        child.wait().unwrap();
        group.cgroup.take().unwrap().remove().unwrap();
    }
}

#[test]
fn the_memory_limit_kills_and_is_counted() {
    if !testkit::is_root() {
        return;
    }
    let group = Group::new("memory");
    let limits = serde_json::json!({ "memory": { "limit": 32 << 20, "swap": 64 << 20, "reservation": 16 << 20 } });
    group.get().apply(&resources(limits)).unwrap();
    let mut child = helper("hog");
    group.get().join(child.id()).unwrap();
    let (status, output) = wait(&mut child);
    assert!(
        !status.success() && !output.contains("has"),
        "{status} {output}"
    );
    assert_eq!(group.get().oom_kills().unwrap(), 1);
    let memory = group.get().stats().unwrap().memory.unwrap();
    assert_eq!((memory.limit, memory.oom_kills), (32 << 20, 1));
    assert!(memory.failcnt > 0);
    assert!(
        memory
            .max_usage
            .is_none_or(|max| (20 << 20..=32 << 20).contains(&max)),
        "{memory:?}"
    );
    let key = if version() == Version::V1 {
        "total_rss"
    } else {
        "anon"
    };
    assert!(memory.stats.contains_key(key), "{memory:?}");
}

#[test]
fn memory_limits_change_on_a_live_group() {
    if !testkit::is_root() {
        return;
    }
    let group = Group::new("live");
    // (memory, memory and swap) in MiB: up, down, swap only, and none.
    for (limit, both) in [
        (64, 128),
        (256, 512),
        (16, 32),
        (300, 300),
        (8, 300),
        (-1, -1),
        (64, 64),
    ] {
        let bytes = |mib: i64| if mib < 0 { -1 } else { mib << 20 };
        let limits =
            serde_json::json!({ "memory": { "limit": bytes(limit), "swap": bytes(both) } });
        group
            .get()
            .apply(&resources(limits))
            .unwrap_or_else(|error| panic!("{limit} {both}: {error}"));
        let found = match version() {
            Version::V1 => group.file("memory", "memory.memsw.limit_in_bytes"),
            Version::V2 => group.file("memory", "memory.swap.max"),
        };
        let wanted = match (version(), both) {
            (Version::V1, -1) => "9223372036854771712".to_owned(),
            (Version::V2, -1) => "max".to_owned(),
            (Version::V1, both) => bytes(both).to_string(),
            (Version::V2, both) => bytes(both - limit).to_string(),
        };
        assert_eq!(found, wanted, "{limit} {both}");
    }
}

#[test]
fn the_pids_limit_stops_forks() {
    if !testkit::is_root() {
        return;
    }
    let group = Group::new("pids");
    group
        .get()
        .apply(&resources(serde_json::json!({ "pids": { "limit": 6 } })))
        .unwrap();
    let mut child = helper("fork");
    group.get().join(child.id()).unwrap();
    assert_eq!(group.get().stats().unwrap().pids.unwrap().limit, Some(6));
    let (_, output) = wait(&mut child);
    let forked: u32 = output
        .lines()
        .find_map(|line| line.strip_prefix("forked "))
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..6).contains(&forked), "{forked} children within 6 tasks");
    group
        .get()
        .apply(&resources(serde_json::json!({ "pids": { "limit": -1 } })))
        .unwrap();
    assert_eq!(
        group.get().stats().unwrap().pids.unwrap(),
        Pids {
            current: 0,
            limit: None
        }
    );
}

#[test]
fn the_quota_throttles() {
    if !testkit::is_root() {
        return;
    }
    let group = Group::new("cpu");
    let limits = serde_json::json!({ "cpu": { "shares": 512, "quota": 10_000, "period": 100_000, "cpus": "0" } });
    group.get().apply(&resources(limits)).unwrap();
    let mut child = helper("spin");
    group.get().join(child.id()).unwrap();
    go(&mut child);
    until("it is throttled", || {
        group.get().stats().unwrap().cpu.throttled_periods >= 3
    });
    let cpu = group.get().stats().unwrap().cpu;
    assert!(
        cpu.throttled_ns > 0 && cpu.periods >= cpu.throttled_periods && cpu.total_ns > 0,
        "{cpu:?}"
    );
    assert_eq!(cpu.per_cpu_ns.is_empty(), version() == Version::V2);
    // A live change in both directions, with quota and period bound to each other.
    for (quota, period) in [
        (200_000, 1_000_000),
        (1000, 1000),
        (50_000, 100_000),
        (-1, 100_000),
    ] {
        let limits = serde_json::json!({ "cpu": { "quota": quota, "period": period } });
        group.get().apply(&resources(limits)).unwrap();
    }
    match version() {
        Version::V1 => {
            assert_eq!(group.file("cpu", "cpu.cfs_quota_us"), "-1");
            assert_eq!(group.file("cpu", "cpu.shares"), "512");
        }
        Version::V2 => {
            assert_eq!(group.file("cpu", "cpu.max"), "max 100000");
            assert_eq!(group.file("cpu", "cpu.weight"), "59");
        }
    }
    assert_eq!(group.file("cpuset", "cpuset.cpus"), "0");
    group.get().kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn device_rules_deny_and_change() {
    if !testkit::is_root() {
        return;
    }
    let group = Group::new("devices");
    let null =
        serde_json::json!({ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" });
    let zero =
        serde_json::json!({ "allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm" });
    let none = serde_json::json!({ "allow": false, "access": "rwm" });
    let tries = |action: &str| {
        let mut child = helper(action);
        group.get().join(child.id()).unwrap();
        let (_, output) = wait(&mut child);
        output.contains("true")
    };
    assert!(tries("open-zero"), "before any rule");
    for (rules, null_opens, zero_opens) in [
        (vec![&none, &null], true, false),
        (vec![&none, &null, &zero], true, true),
        (vec![&none, &zero], false, true),
        (vec![&none], false, false),
        (
            vec![&serde_json::json!({ "allow": true, "access": "rwm" })],
            true,
            true,
        ),
        (vec![&none, &null], true, false),
    ] {
        group
            .get()
            .apply(&resources(serde_json::json!({ "devices": rules })))
            .unwrap();
        assert_eq!(
            (tries("open-null"), tries("open-zero")),
            (null_opens, zero_opens),
            "{rules:?}"
        );
    }
}

#[test]
fn entry_moves_the_caller() {
    if !testkit::is_root() {
        return;
    }
    let group = Group::new("entry");
    let entry = group.get().entry().unwrap();
    let own = std::process::id();
    if version() == Version::V1 {
        // The thread of this test alone: a process with one thread is moved whole by the same write.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                entry.enter().unwrap();
                let membership = std::fs::read_to_string("/proc/thread-self/cgroup").unwrap();
                let path = format!(":{}", group.get().path());
                let inside = membership
                    .lines()
                    .filter(|line| line.ends_with(&path))
                    .count();
                assert_eq!(inside, layout::layout().hierarchies.len(), "{membership}");
            });
        });
    } else {
        assert!(group.get().clone_into().is_some());
        let back = current_group();
        entry.enter().unwrap();
        assert_eq!(group.get().pids().unwrap(), [own]);
        sys::cgroupfs::write(back.as_fd(), "cgroup.procs", "0").unwrap();
    }
    until("it is left", || !group.get().is_populated().unwrap());
}

#[test]
fn what_the_host_lacks_is_said() {
    if !testkit::is_root() {
        return;
    }
    let group = Group::new("lacks");
    let limits = resources(
        serde_json::json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }] }),
    );
    match (group.get().apply(&limits), has_controller("hugetlb")) {
        (Ok(()), true) => {
            let file = if version() == Version::V1 {
                "hugetlb.2MB.limit_in_bytes"
            } else {
                "hugetlb.2MB.max"
            };
            assert_eq!(group.file("hugetlb", file), "4194304");
        }
        (Err(Error::Unsupported { what }), false) => {
            assert!(what.contains("hugetlb.2MB"), "{what}")
        }
        (applied, has) => panic!("{applied:?} with hugetlb {has}"),
    }
    assert!(has_controller("memory") && has_controller("devices") && has_controller("freezer"));
    assert!(!has_controller("nonsense"));
}

/// The v2 group of this process.
fn current_group() -> std::os::fd::OwnedFd {
    let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = membership
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap();
    let mut dir = layout::layout().hierarchies[0].root.try_clone().unwrap();
    for component in path.split('/').filter(|component| !component.is_empty()) {
        dir = sys::cgroupfs::open_dir(dir.as_fd(), component).unwrap();
    }
    dir
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    if !testkit::is_root() {
        return;
    }
    let group = Group::new("sense");
    let apply = |json| group.get().apply(&resources(json)).unwrap_err();
    let devices = serde_json::json!([{ "allow": true, "type": "c", "access": "x" }]);
    assert!(matches!(
        apply(serde_json::json!({ "devices": devices })),
        Error::Invalid { .. }
    ));
    if version() == Version::V1 {
        assert_eq!(
            apply(serde_json::json!({ "cpu": { "shares": 1 } })).to_string(),
            "invalid cpu shares: the minimum allowed cpu-shares is 2"
        );
        assert!(matches!(
            apply(serde_json::json!({ "memory": { "swappiness": 101 } })),
            Error::Invalid { .. }
        ));
        assert!(matches!(
            apply(serde_json::json!({ "unified": { "memory.max": "1" } })),
            Error::Unsupported { .. }
        ));
    } else {
        assert!(matches!(
            apply(serde_json::json!({ "unified": { "../cgroup.procs": "1" } })),
            Error::Invalid { .. }
        ));
        assert!(matches!(
            apply(serde_json::json!({ "unified": { "cgroup.kill": "1" } })),
            Error::Invalid { .. }
        ));
    }
    let error = apply(serde_json::json!({ "cpu": { "cpus": "9999" } }));
    assert!(
        error.raw_os_error().is_some() && error.to_string().contains("cpuset.cpus"),
        "{error}"
    );
}
