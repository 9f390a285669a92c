//! What the engine knows of the machine, for the rules that definitions are checked by.

use std::path::Path;

use runtime::cgroup::{Version, has_controller};

use crate::definition::{Controllers, Host, Machine, resources};
use crate::open::Inner;
use crate::{Error, lookup};

/// The runtimes that `HostConfig.Runtime` may name; the first is the default. `runc` is what clients that
/// name Docker's default mean.
pub const RUNTIMES: [&str; 3] = ["runc", "cooper", "io.containerd.runc.v2"];

/// Reads the machine's resources.
pub(crate) fn machine() -> Machine {
    let set = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        resources::parse_set(text.trim()).unwrap_or_default()
    };
    let weights = match runtime::cgroup::version() {
        Version::V1 => weights_v1(Path::new("/sys/fs/cgroup/blkio")),
        Version::V2 if has_controller("io") => weights_v2(Path::new("/sys/fs/cgroup")),
        Version::V2 => (false, false),
    };
    Machine {
        cpus: set("/sys/devices/system/cpu/online"),
        memory_nodes: set("/sys/devices/system/node/online"),
        blkio_weight: weights.0,
        blkio_weight_device: weights.1,
        controllers: Controllers::read(),
    }
}

/// Whether the hierarchy has weights of block I/O, and of single devices.
fn weights_v1(root: &Path) -> (bool, bool) {
    let has = |file: &str| std::fs::exists(root.join(file)).unwrap_or(false);
    (
        has("blkio.weight") || has("blkio.bfq.weight"),
        has("blkio.weight_device") || has("blkio.bfq.weight_device"),
    )
}

/// The same on v2, where one file has both. The root itself has no weight; where no cgroup below it has the controller
/// either, the first container will show (moby: where the controller is).
fn weights_v2(root: &Path) -> (bool, bool) {
    let groups = std::fs::read_dir(root).into_iter().flatten().flatten();
    let has = |group: &Path, file: &str| std::fs::exists(group.join(file)).unwrap_or(false);
    let with_io: Vec<_> = groups
        .map(|entry| entry.path())
        .filter(|group| has(group, "io.stat"))
        .collect();
    let weighs =
        |group: &std::path::PathBuf| has(group, "io.weight") || has(group, "io.bfq.weight");
    let weighs = with_io.is_empty() || with_io.iter().any(weighs);
    (weighs, weighs)
}

impl Controllers {
    /// Asks the kernel.
    pub(crate) fn read() -> Self {
        let memory = has_controller("memory");
        let v1 = |file: &str| {
            let memory = Path::new("/sys/fs/cgroup/memory");
            std::fs::exists(memory.join(file)).unwrap_or(false)
        };
        Self {
            memory,
            swap: match runtime::cgroup::version() {
                Version::V1 => v1("memory.memsw.limit_in_bytes"),
                Version::V2 => memory,
            },
            swappiness: v1("memory.swappiness"),
            oom_kill_disable: v1("memory.oom_control"),
            tcp_memory: v1("memory.kmem.tcp.limit_in_bytes"),
            cpu: has_controller("cpu"),
            cpuset: has_controller("cpuset"),
            pids: has_controller("pids"),
        }
    }
}

/// The bounding set of this process, as a mask.
pub(crate) fn bounding() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

impl Inner {
    /// Lets the rules look at the machine, the settings and the other containers.
    pub(crate) fn with_host<T>(&self, look: impl FnOnce(&Host<'_>) -> T) -> T {
        let defaults = self.defaults.load();
        let runtimes = RUNTIMES.map(str::to_owned);
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        look(&Host {
            defaults: &defaults,
            machine: &self.machine,
            runtimes: &runtimes,
            cgroup_v2: runtime::cgroup::version() == Version::V2,
            hostname: hostname.trim(),
            find: &|name| -> Result<_, Error> {
                Ok(lookup::container(&self.index, name)?.id().clone())
            },
            mounts_of: &|id| {
                let container = self.index.by_id(id);
                container.map_or_else(Vec::new, |found| found.snapshot().definition.mounts.clone())
            },
            exists: &|path| std::fs::exists(path).unwrap_or(false),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        root
    }

    /// Files as the kernel has them: Documentation/admin-guide/cgroup-v2.rst, "IO Interface Files"; BFQ's are its own.
    #[test]
    fn weights_of_block_io_are_found_in_both_versions() {
        for (files, both) in [
            (&["blkio.weight", "blkio.weight_device"][..], true),
            (&["blkio.bfq.weight", "blkio.bfq.weight_device"][..], true),
            (&["blkio.throttle.read_bps_device"][..], false),
        ] {
            assert_eq!(weights_v1(tree(files).path()), (both, both), "{files:?}");
        }
        for (files, both) in [
            (
                &["cgroup.controllers", "a/io.stat", "a/io.weight"][..],
                true,
            ),
            (
                &["a/io.stat", "a/io.bfq.weight", "b/cgroup.procs"][..],
                true,
            ),
            (&["a/io.stat", "a/io.max"][..], false),
            (&["cgroup.controllers", "a/cgroup.procs"][..], true),
        ] {
            assert_eq!(weights_v2(tree(files).path()), (both, both), "{files:?}");
        }
    }
}
