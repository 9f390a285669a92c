//! Groups are made, joined, renamed, frozen, killed and removed.

use super::*;

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
