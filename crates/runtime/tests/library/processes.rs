//! What a copied process does, and where it begins.

use std::io::Read;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use runtime::cgroup::{self, Version};
use sys::process::{CloneRequest, Ended, clone, send_signal, wait};
use sys::signal::SIGKILL;

use crate::{Place, ready};

/// How long a process may take to be in all its cgroups. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn a_child_ends_with_the_code_of_its_closure() {
    let child = clone(CloneRequest::default(), || 7).unwrap();
    assert_eq!(wait(child.pidfd.as_fd()).unwrap(), Ended { code: 7 });
}

pub(crate) fn a_killed_child_is_128_and_the_signal() {
    let child = clone(CloneRequest::default(), || {
        loop {
            std::thread::park();
        }
    })
    .unwrap();
    send_signal(child.pidfd.as_fd(), SIGKILL).unwrap();
    assert_eq!(wait(child.pidfd.as_fd()).unwrap(), Ended { code: 137 });
}

/// The kernel counts a thread a moment longer than those who join it.
pub(crate) fn a_thread_that_has_ended_is_no_hindrance() {
    for _ in 0..200 {
        std::thread::spawn(|| {}).join().unwrap();
        let child = clone(CloneRequest::default(), || 0).unwrap();
        assert_eq!(wait(child.pidfd.as_fd()).unwrap(), Ended { code: 0 });
    }
}

pub(crate) fn a_child_keeps_the_descriptors_it_names() {
    let files: Vec<_> = (0..6)
        .map(|_| std::fs::File::open("/dev/null").unwrap())
        .collect();
    let child = clone(CloneRequest::default(), || {
        let open = || files.iter().map(|file| sys::file::stat(file).is_ok());
        let before = open().all(|one| one);
        let keep = [files[3].as_fd(), files[1].as_fd()];
        let closed = sys::process::close_all_but(&keep).is_ok();
        let after: Vec<bool> = open().collect();
        i32::from(!(before && closed && after == [false, true, false, true, false, false]))
    })
    .unwrap();
    assert_eq!(wait(child.pidfd.as_fd()).unwrap(), Ended { code: 0 });
}

/// How the runtime starts a container's first process: on v2 it is born in the group, on v1 it enters at once.
pub(crate) fn a_child_begins_in_its_cgroup() {
    if !ready() {
        return;
    }
    let place = Place::new("born");
    let group = place.cgroup();
    let entry = match cgroup::version() {
        Version::V1 => Some(group.entry().unwrap()),
        Version::V2 => None,
    };
    let (mut reader, writer) = std::io::pipe().unwrap();
    let request = CloneRequest {
        cgroup: group.clone_into(),
        ..CloneRequest::default()
    };
    let child = clone(request, || {
        let entered = entry.as_ref().is_none_or(|entry| entry.enter().is_ok());
        i32::from(!(entered && reader.read(&mut [0]).is_ok()))
    })
    .unwrap();
    let path = format!(":{}", group.path());
    // Hierarchy after hierarchy on v1; one without controllers (v2 beside v1) has no group of ours.
    let end = Instant::now() + PATIENCE;
    loop {
        let membership = std::fs::read_to_string(format!("/proc/{}/cgroup", child.pid)).unwrap();
        let outside: Vec<&str> = membership
            .lines()
            .filter(|line| !line.ends_with(&path))
            .filter(|line| cgroup::version() == Version::V2 || !line.contains("::"))
            .collect();
        if outside.is_empty() {
            break;
        }
        assert!(Instant::now() < end, "outside: {outside:?}");
    }
    assert_eq!(group.pids().unwrap(), [child.pid]);
    group.kill().unwrap();
    wait(child.pidfd.as_fd()).unwrap();
    drop(writer);
}
