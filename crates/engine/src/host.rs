//! What the engine knows of the machine, for the rules that definitions are checked by.

use std::path::Path;

use runtime::cgroup::{self, Cgroup, CgroupPath, has_controller};
use sys::kernel::{self, Version};

use crate::definition::{Controllers, Host, Machine, resources};
use crate::open::Inner;
use crate::{Class, Error, lookup};

/// The runtimes that `HostConfig.Runtime` may name; the first is the default. `runc` is what clients that
/// name Docker's default mean.
pub const RUNTIMES: [&str; 3] = ["runc", "cooper", "io.containerd.runc.v2"];

/// The oldest kernel that containers start on (DESIGN decision 1).
const KERNEL_MIN: Version = (5, 10);

/// Refuses a kernel that lacks what every container needs, in words and not by the errno of some later call.
pub(crate) fn check_kernel(release: &str) -> Result<(), Error> {
    let (major, minor) = KERNEL_MIN;
    match kernel::version(release) {
        Some(version) if version < KERNEL_MIN => Err(Error::new(
            Class::Unavailable,
            format!("Linux {release} is too old: Cooper needs Linux {major}.{minor} or newer"),
        )),
        Some(_) | None => Ok(()),
    }
}

/// Reads the machine's resources. On v2 it makes the cgroup `name` below `parent`, where containers are, and removes it.
pub(crate) fn machine(parent: &str, name: &str) -> Machine {
    let set = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        resources::parse_set(text.trim()).unwrap_or_default()
    };
    let root = Path::new("/sys/fs/cgroup");
    let ((blkio_weight, blkio_weight_device), controllers) = match cgroup::version() {
        cgroup::Version::V1 => (weights_v1(&root.join("blkio")), controllers_v1(root)),
        cgroup::Version::V2 => probed_v2(parent, name),
    };
    Machine {
        cpus: set("/sys/devices/system/cpu/online"),
        memory_nodes: set("/sys/devices/system/node/online"),
        blkio_weight,
        blkio_weight_device,
        controllers,
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

fn controllers_v1(root: &Path) -> Controllers {
    let has = |file: &str| std::fs::exists(root.join(file)).unwrap_or(false);
    Controllers {
        memory: has_controller("memory"),
        swap: has("memory/memory.memsw.limit_in_bytes"),
        swappiness: has("memory/memory.swappiness"),
        oom_kill_disable: has("memory/memory.oom_control"),
        tcp_memory: has("memory/memory.kmem.tcp.limit_in_bytes"),
        cpu: has_controller("cpu"),
        cpuset: has_controller("cpuset"),
        pids: has_controller("pids"),
        io_rates: has("blkio/blkio.throttle.read_bps_device"),
    }
}

/// What a group of v2 has there: a controller may be built out, switched off at boot, or not be handed down as far as
/// to `parent`, and the root has no files to tell it by.
fn probed_v2(parent: &str, name: &str) -> ((bool, bool), Controllers) {
    let made = CgroupPath::new(parent, name).and_then(|path| Cgroup::create(&path));
    let found = offered_v2(&|file| made.as_ref().is_ok_and(|group| group.has_file(file)));
    if let Err(error) = made.and_then(Cgroup::remove) {
        tracing::warn!(error = %crate::error::Chain(&error), "ask the kernel which limits there are");
    }
    found
}

/// Weights of block I/O and of single devices, which are in one file, and the rest.
fn offered_v2(has: &dyn Fn(&str) -> bool) -> ((bool, bool), Controllers) {
    let weighs = has("io.weight") || has("io.bfq.weight");
    let controllers = Controllers {
        memory: has("memory.max"),
        swap: has("memory.swap.max"),
        swappiness: false,
        oom_kill_disable: false,
        tcp_memory: false,
        cpu: has("cpu.max"),
        cpuset: has("cpuset.cpus"),
        pids: has("pids.max"),
        io_rates: has("io.max"),
    };
    ((weighs, weighs), controllers)
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
            cgroup_v2: cgroup::version() == cgroup::Version::V2,
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
            (&["io.max", "io.weight"][..], true),
            (&["io.max", "io.bfq.weight"][..], true),
            (&["io.max"][..], false),
            (&[][..], false),
        ] {
            let (weights, _) = offered_v2(&|file| files.contains(&file));
            assert_eq!(weights, (both, both), "{files:?}");
        }
    }

    /// With `swapaccount=0` and `cgroup_disable=io`, cgroup-v2.rst's files of memory, cpu, cpuset and pids.
    #[test]
    fn what_has_no_file_on_v2_cannot_be_limited() {
        let files = ["memory.max", "cpu.max", "cpuset.cpus", "pids.max"];
        let (_, found) = offered_v2(&|file| files.contains(&file));
        let expected = Controllers {
            swap: false,
            swappiness: false,
            oom_kill_disable: false,
            tcp_memory: false,
            io_rates: false,
            ..crate::reference::machine().controllers
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn only_kernels_below_the_floor_are_refused() {
        for release in ["5.10.0-32-amd64", "6.1.0", "10.0", "unknown"] {
            assert!(check_kernel(release).is_ok(), "{release}");
        }
        for release in ["5.9.16", "5.4.0-150-generic", "4.18.0-553.el8.x86_64"] {
            let told = check_kernel(release).unwrap_err().message;
            let words = format!("Linux {release} is too old: Cooper needs Linux 5.10 or newer");
            assert_eq!(told, words);
        }
    }
}
