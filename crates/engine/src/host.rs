//! What the engine knows of the machine, for the rules that definitions are checked by.

use crate::definition::{Host, Machine, resources};
use crate::open::Inner;
use crate::{Error, lookup};

/// The runtimes that `HostConfig.Runtime` may name; the first is the default. `runc` is what clients that
/// name Docker's default mean.
const RUNTIMES: [&str; 3] = ["runc", "cooper", "io.containerd.runc.v2"];

/// Reads the machine's resources.
pub(crate) fn machine() -> Machine {
    let set = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        resources::parse_set(text.trim()).unwrap_or_default()
    };
    let exists = |paths: [&str; 2]| {
        paths
            .iter()
            .any(|path| std::fs::exists(path).unwrap_or(false))
    };
    Machine {
        cpus: set("/sys/devices/system/cpu/online"),
        memory_nodes: set("/sys/devices/system/node/online"),
        blkio_weight: exists([
            "/sys/fs/cgroup/blkio/blkio.weight",
            "/sys/fs/cgroup/blkio/blkio.bfq.weight",
        ]),
        blkio_weight_device: exists([
            "/sys/fs/cgroup/blkio/blkio.weight_device",
            "/sys/fs/cgroup/blkio/blkio.bfq.weight_device",
        ]),
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
            cgroup_v2: runtime::cgroup::version() == runtime::cgroup::Version::V2,
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
