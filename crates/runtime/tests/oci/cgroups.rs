//! Cgroups: the path, membership, limits that can be read back.

use std::fs;
use std::path::Path;

use runtime::cgroup::{Cgroup, CgroupPath};
use serde_json::json;

use crate::support::cgroup_parent;

/// Reads a file of a container's cgroup, in a v1 controller or on v2.
fn limit(id: &str, controller: &str, v1: &str, v2: &str) -> Option<String> {
    let old = Path::new("/sys/fs/cgroup")
        .join(controller)
        .join(cgroup_parent())
        .join(id)
        .join(v1);
    let new = Path::new("/sys/fs/cgroup")
        .join(cgroup_parent())
        .join(id)
        .join(v2);
    fs::read_to_string(old)
        .or_else(|_| fs::read_to_string(new))
        .ok()
        .map(|text| text.trim().to_owned())
}

#[test]
fn every_process_is_in_the_cgroup_of_the_spec() {
    each!(bundle, {
        bundle.sleeping();
        let path = format!("/{}/{}", cgroup_parent(), bundle.id);
        let text = fs::read_to_string(format!("/proc/{}/cgroup", bundle.pid())).unwrap();
        assert!(text.lines().any(|line| line.ends_with(&path)), "{text}");
        let outside: Vec<&str> = text
            .lines()
            .filter(|line| !line.ends_with(&path) && !line.starts_with("0::"))
            .collect();
        assert!(outside.is_empty(), "{text}");
        let seen = bundle.exec_says("cat /proc/self/cgroup");
        assert!(seen.lines().any(|line| line.ends_with(&path)), "{seen}");
    });
}

#[test]
fn limits_are_written() {
    each!(bundle, {
        bundle.spec["linux"]["resources"]["memory"] = json!({"limit": 33_554_432});
        bundle.spec["linux"]["resources"]["pids"] = json!({"limit": 42});
        bundle.spec["linux"]["resources"]["cpu"] =
            json!({"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0"});
        bundle.sleeping();
        let id = bundle.id.clone();
        assert_eq!(
            limit(&id, "memory", "memory.limit_in_bytes", "memory.max").unwrap(),
            "33554432"
        );
        assert_eq!(limit(&id, "pids", "pids.max", "pids.max").unwrap(), "42");
        assert_eq!(
            limit(&id, "cpuset", "cpuset.cpus", "cpuset.cpus").unwrap(),
            "0"
        );
        if Path::new("/sys/fs/cgroup/cpu").exists() {
            assert_eq!(limit(&id, "cpu", "cpu.shares", "").unwrap(), "512");
            assert_eq!(limit(&id, "cpu", "cpu.cfs_quota_us", "").unwrap(), "50000");
        }
        assert_eq!(bundle.exec_says("nproc"), "1");
    });
}

#[test]
fn limits_hold() {
    each!(bundle, {
        bundle.spec["linux"]["resources"]["pids"] = json!({"limit": 4});
        let said = bundle.sh("for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; echo forked");
        assert!(said.err.contains("fork") || said.code != 0, "{said:?}");
    });
}

#[test]
fn the_cgroup_is_visible_read_only_inside() {
    each!(bundle, {
        bundle.spec["linux"]["resources"]["memory"] = json!({"limit": 33_554_432});
        if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            // On v2 the mount shows the whole host's groups without a namespace (Docker's default there is private).
            bundle.namespaces(|all| all.push(json!({"type": "cgroup"})));
        }
        let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max; \
                      (mkdir /sys/fs/cgroup/memory/x || mkdir /sys/fs/cgroup/x/y) 2>/dev/null || echo refused";
        assert_eq!(bundle.says(script), "33554432\nrefused");
    });
}

#[test]
fn deleting_removes_the_cgroup() {
    each!(bundle, {
        bundle.sleeping();
        assert!(limit(&bundle.id, "pids", "pids.max", "pids.max").is_some());
        bundle.call(&["delete", "--force", &bundle.id]).text();
        assert!(limit(&bundle.id, "pids", "pids.max", "pids.max").is_none());
    });
}

#[test]
fn a_failed_create_leaves_no_cgroup() {
    each!(bundle, {
        bundle.args(&["/nope"]);
        assert_ne!(bundle.run().code, 0);
        assert!(limit(&bundle.id, "pids", "pids.max", "pids.max").is_none());
    });
}

/// A process of somebody else's in the group that a spec names. The test's own, which outlives the container or not.
struct Stranger {
    child: std::process::Child,
    group: CgroupPath,
}

impl Stranger {
    fn new(id: &str) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "a process that is no container's"
        )]
        let child = std::process::Command::new("/bin/sleep")
            .arg("300")
            .spawn()
            .unwrap();
        let group = CgroupPath::new(&format!("/{}", cgroup_parent()), id).unwrap();
        Cgroup::create(&group).unwrap().join(child.id()).unwrap();
        Self { child, group }
    }

    fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        Cgroup::open(&self.group).and_then(Cgroup::remove).unwrap();
    }
}

/// runc 1.1 warns here, and refuses since 1.2.
#[test]
fn a_cgroup_in_which_somebody_runs_is_not_taken() {
    each!(bundle, {
        if !bundle.runtime.is_ours() {
            continue;
        }
        let mut stranger = Stranger::new(&bundle.id);
        let said = bundle.sh("true").failure();
        let words = "container's cgroup is not empty: 1 process(es) found";
        assert!(said.contains(words), "{said}");
        drop(bundle.call(&["delete", "--force", &bundle.id]));
        assert!(stranger.lives());
        assert!(Cgroup::open(&stranger.group).unwrap().pids().unwrap().len() == 1);
    });
}

/// An empty group may be taken. It stays where it was before, also when the create fails.
#[test]
fn a_cgroup_that_was_there_before_stays() {
    each!(bundle, {
        if !bundle.runtime.is_ours() {
            continue;
        }
        let path = CgroupPath::new(&format!("/{}", cgroup_parent()), &bundle.id).unwrap();
        drop(Cgroup::create(&path).unwrap());
        bundle.sleeping();
        let group = Cgroup::open(&path).unwrap();
        assert_eq!(group.pids().unwrap().len(), 1);
        bundle.call(&["delete", "--force", &bundle.id]).text();
        assert!(group.pids().unwrap().is_empty());
        bundle.args(&["/nope"]);
        assert_ne!(bundle.run().code, 0);
        assert!(group.pids().unwrap().is_empty());
        group.remove().unwrap();
    });
}

/// Who wants a scope of systemd's is told that there will be none.
#[test]
fn cgroups_of_systemd_are_refused() {
    each!(bundle, {
        if !bundle.runtime.is_ours() {
            continue;
        }
        bundle.args(&["/bin/true"]);
        assert_eq!(bundle.run().code, 0);
        let said = bundle
            .call(&["--systemd-cgroup", "run", &bundle.id])
            .failure();
        assert!(said.contains("systemd cgroup flag passed"), "{said}");
        bundle.spec["linux"]["cgroupsPath"] = json!("machine.slice:cooper:suite");
        let said = bundle.sh("true").failure();
        assert!(said.contains("machine.slice:cooper:suite"), "{said}");
    });
}
