//! Where the hierarchies are: read once from `/proc/self/mountinfo`, their roots held open.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use super::{Error, Version};

/// Controllers of v1 whose hierarchies a container joins; Docker's set. A hierarchy with none of them is left alone.
const CONTROLLERS_V1: [&str; 14] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "rdma",
    "misc",
];

/// The one named hierarchy that is joined: systemd keeps its units there.
const SYSTEMD: &str = "name=systemd";

/// Controllers handed down to the groups below on v2, where they are there.
const CONTROLLERS_V2: [&str; 7] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"];

/// One mounted hierarchy.
#[derive(Debug)]
pub(super) struct Hierarchy {
    /// v1: its controllers, `name=systemd` for systemd's; v2: those that can be handed down.
    pub(super) controllers: Vec<String>,
    /// The directory it is mounted on, held open: everything else is relative to this.
    pub(super) root: OwnedFd,
}

impl Hierarchy {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    /// How errors name it.
    pub(super) fn label(&self) -> &str {
        self.controllers.first().map_or("unified", String::as_str)
    }
}

/// All hierarchies of this host that containers live in.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) version: Version,
    pub(super) hierarchies: Vec<Hierarchy>,
}

/// The layout, detected at the first call. The mounts of a host do not change under a running engine.
pub(super) fn layout() -> &'static Layout {
    static LAYOUT: OnceLock<Layout> = OnceLock::new();
    LAYOUT.get_or_init(|| {
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        open(&parse(&mountinfo, &membership))
    })
}

/// The layout, or the error that there is none.
pub(super) fn usable() -> Result<&'static Layout, Error> {
    let layout = layout();
    if layout.hierarchies.is_empty() {
        Err(Error::NoHierarchy)
    } else {
        Ok(layout)
    }
}

/// What the mount table says, before anything is opened.
#[derive(Debug, PartialEq, Eq)]
struct Mounts {
    version: Version,
    /// Controllers and mount point; on v2 one entry with no controllers.
    mounts: Vec<(Vec<String>, PathBuf)>,
}

/// Reads the mount table (`proc_pid_mountinfo(5)`) and `/proc/self/cgroup`, which lists the hierarchies that exist: a
/// v1 mount whose controllers are in no line there is another namespace's and not ours.
fn parse(mountinfo: &str, membership: &str) -> Mounts {
    let mut v1: Vec<(Vec<String>, PathBuf)> = Vec::new();
    let mut v2: Vec<PathBuf> = Vec::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else {
            continue;
        };
        let Some(mount_point) = before.split(' ').nth(4).map(unescape) else {
            continue;
        };
        let mut after = after.split(' ');
        let kind = after.next().unwrap_or_default();
        let options = after.nth(1).unwrap_or_default();
        if kind == "cgroup2" {
            v2.push(PathBuf::from(mount_point));
        } else if kind == "cgroup" {
            let known = |option: &&str| CONTROLLERS_V1.contains(option) || *option == SYSTEMD;
            let controllers: Vec<String> = options
                .split(',')
                .filter(known)
                .map(str::to_owned)
                .collect();
            let ours = controllers.iter().all(|name| is_member(membership, name));
            let again = v1.iter().any(|(other, _)| *other == controllers);
            if !controllers.is_empty() && ours && !again {
                v1.push((controllers, PathBuf::from(mount_point)));
            }
        }
    }
    let has_controllers = v1
        .iter()
        .any(|(names, _)| names.iter().any(|name| name != SYSTEMD));
    match v2.into_iter().next() {
        Some(unified) if !has_controllers => Mounts {
            version: Version::V2,
            mounts: vec![(Vec::new(), unified)],
        },
        _ => Mounts {
            version: Version::V1,
            mounts: v1,
        },
    }
}

fn is_member(membership: &str, controller: &str) -> bool {
    membership.lines().any(|line| {
        line.split(':')
            .nth(1)
            .is_some_and(|names| names.split(',').any(|name| name == controller))
    })
}

/// Undoes the octal escapes of the mount table (`\040` is a blank).
fn unescape(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest
            .get(at + 1..at + 4)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn open(mounts: &Mounts) -> Layout {
    let hierarchies = mounts.mounts.iter().filter_map(|(controllers, mount)| {
        let root = sys::cgroupfs::open_root(mount).ok()?;
        let controllers = match mounts.version {
            Version::V1 => controllers.clone(),
            Version::V2 => delegable(&root).ok()?,
        };
        Some(Hierarchy { controllers, root })
    });
    Layout {
        version: mounts.version,
        hierarchies: hierarchies.collect(),
    }
}

fn delegable(root: &OwnedFd) -> io::Result<Vec<String>> {
    let there = sys::cgroupfs::read(root.as_fd(), "cgroup.controllers")?;
    Ok(there
        .split_whitespace()
        .filter(|name| CONTROLLERS_V2.contains(name))
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:32 / /elsewhere rw,relatime - cgroup cgroup rw,memory
37 31 0:33 / /sys/fs/cgroup/gone rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:39 / /sys/fs/cgroup/other rw,relatime - cgroup cgroup rw,name=other
";
    const MEMBERSHIP: &str = "9:name=systemd:/\n4:memory:/a\n1:cpu,cpuacct:/\n0::/\n";

    #[test]
    fn hybrid_is_v1_without_the_unified_mount() {
        let mounts = parse(HYBRID, MEMBERSHIP);
        assert_eq!(
            mounts,
            Mounts {
                version: Version::V1,
                mounts: vec![
                    (
                        names(&["cpu", "cpuacct"]),
                        "/sys/fs/cgroup/cpu,cpuacct".into()
                    ),
                    (names(&["memory"]), "/sys/fs/cgroup/memory".into()),
                    (names(&["name=systemd"]), "/sys/fs/cgroup/systemd".into()),
                ]
            }
        );
    }

    #[test]
    fn unified_is_v2_also_beside_a_named_v1_hierarchy() {
        let mountinfo = "\
25 30 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
26 30 0:23 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
";
        let mounts = parse(mountinfo, "1:name=systemd:/\n0::/\n");
        assert_eq!(mounts.version, Version::V2);
        assert_eq!(
            mounts.mounts,
            vec![(vec![], PathBuf::from("/sys/fs/cgroup"))]
        );
    }

    #[test]
    fn mount_points_are_unescaped() {
        let mountinfo = "25 30 0:22 / /my\\040cg rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            parse(mountinfo, "0::/\n").mounts[0].1,
            PathBuf::from("/my cg")
        );
        assert_eq!(unescape("a\\b\\134c"), "a\\b\\c");
    }

    #[test]
    fn no_mounts_is_v1_with_nothing() {
        assert_eq!(
            parse("", ""),
            Mounts {
                version: Version::V1,
                mounts: vec![]
            }
        );
    }
}
