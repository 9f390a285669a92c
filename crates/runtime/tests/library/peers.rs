//! Joining another container's namespaces and shared memory.

use std::fs;
use std::os::fd::AsFd;

use runtime::cgroup::Cgroup;
use runtime::{Init, Peer, oci};
use serde_json::{Value, json};

use crate::{Place, create, create_beside, end, pipes, ready, spec};

/// A pid by which no spec may be served: this process's, whose namespaces and root are the host's.
fn host() -> u32 {
    std::process::id()
}

fn changed(args: &[&str], change: impl FnOnce(&mut Value)) -> oci::Spec {
    let mut value = serde_json::to_value(spec(args)).unwrap();
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn mount(value: &mut Value, mount: Value) {
    value["mounts"].as_array_mut().unwrap().push(mount);
}

/// A container that sleeps after a script, with the script's output already read.
fn donor(place: &Place, script: &str, shared_memory: bool) -> (Init, String) {
    use std::io::{BufRead, BufReader};
    let script = format!("{script}; echo ready; exec sleep 300");
    let spec = changed(&["sh", "-c", &script], |value| {
        if shared_memory {
            mount(
                value,
                json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["mode=1777"]}),
            );
        }
    });
    let (io, output) = pipes();
    let mut init = create(place, &spec, io).unwrap();
    init.start().unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(output);
    while !said.ends_with("ready\n") {
        assert_ne!(lines.read_line(&mut said).unwrap(), 0, "{said}");
    }
    (init, said)
}

/// A spec that joins the process it knows as `pid`.
fn joining(args: &[&str], pid: u32) -> oci::Spec {
    changed(args, |value| {
        for namespace in value["linux"]["namespaces"].as_array_mut().unwrap() {
            let file = match namespace["type"].as_str().unwrap() {
                "network" => "net",
                "ipc" => "ipc",
                "pid" => "pid",
                _ => continue,
            };
            namespace["path"] = json!(format!("/proc/{pid}/ns/{file}"));
        }
        mount(
            value,
            json!({"destination": "/dev/shm", "type": "bind", "source": format!("/proc/{pid}/root/dev/shm"),
                   "options": ["rbind", "rprivate"]}),
        );
    })
}

/// The donor under a pid that is another process's: as if its own had been used again.
fn mistaken(init: &Init) -> Peer {
    Peer {
        pid: host(),
        pidfd: init.pidfd.try_clone().unwrap(),
    }
}

pub(crate) fn namespaces_and_shared_memory_come_from_the_process_not_from_its_number() {
    if !ready() {
        return;
    }
    let (theirs, ours) = (Place::new("donor"), Place::new("joining"));
    let namespaces = "for kind in net ipc pid; do readlink /proc/self/ns/$kind; done";
    let script = format!("echo shared > /dev/shm/note; {namespaces}");
    let (donor, said) = donor(&theirs, &script, true);
    assert_eq!(said.matches(":[").count(), 3, "{said}");
    let script = format!("{namespaces}; cat /dev/shm/note; echo back > /dev/shm/answer");
    let (io, output) = pipes();
    let spec = joining(&["sh", "-c", &script], host());
    let mut init = create_beside(&ours, &spec, io, &[mistaken(&donor)]).unwrap();
    init.start().unwrap();
    let (code, joined) = end(&init, output);
    assert_eq!((code, joined), (0, said.replace("ready", "shared")));
    let answer = format!("/proc/{}/root/dev/shm/answer", donor.pid);
    assert_eq!(fs::read_to_string(answer).unwrap(), "back\n");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains("/dev/shm/"), "{table}");
}

/// A donor without shared memory of its own makes what it likes in its place.
pub(crate) fn a_link_in_the_place_of_the_shared_memory_leads_nowhere() {
    if !ready() {
        return;
    }
    for script in [
        "ln -s / /dev/shm",
        "mkdir /dev/shm",
        "true",
        "ln -s /proc/1/root /dev/shm",
    ] {
        let (theirs, ours) = (Place::new("donor"), Place::new("joining"));
        let (donor, _) = donor(&theirs, script, false);
        let spec = joining(&["true"], host());
        let error = create_beside(&ours, &spec, pipes().0, &[mistaken(&donor)]).unwrap_err();
        assert!(error.to_string().contains("/dev/shm"), "{script}: {error}");
    }
}

pub(crate) fn a_process_of_another_cgroup_is_no_peer() {
    if !ready() {
        return;
    }
    let place = Place::new("donor");
    let (init, _) = donor(&place, "true", true);
    let peer = Peer::open(init.pid, &init.cgroup).unwrap();
    assert_eq!(
        sys::process::number_of(peer.pidfd.as_fd()).unwrap(),
        init.pid
    );
    let gone = |pid: u32, cgroup: &Cgroup| Peer::open(pid, cgroup).unwrap_err().kind();
    assert_eq!(gone(host(), &init.cgroup), std::io::ErrorKind::NotFound);
    sys::process::send_signal(init.pidfd.as_fd(), 9).unwrap();
    sys::process::wait(init.pidfd.as_fd()).unwrap();
    assert_eq!(gone(init.pid, &init.cgroup), std::io::ErrorKind::NotFound);
}
