//! What a cgroup used, in the terms of Docker's stats endpoint
//! (`GET /containers/{id}/stats`), the same shape for v1 and v2.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One sample. A controller that is not there leaves its part at the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Memory; `None` without a memory controller.
    pub memory: Option<Memory>,
    /// Tasks; `None` without a pids controller.
    pub pids: Option<Pids>,
    /// Block devices.
    pub blkio: Blkio,
}

/// Processor time; times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// All time used.
    pub total_ns: u64,
    /// Time per processor that can exist; v1 only, empty on v2 (as Docker omits it there).
    pub per_cpu_ns: Vec<u64>,
    /// Time in the kernel.
    pub kernel_ns: u64,
    /// Time in user mode.
    pub user_ns: u64,
    /// Quota periods that passed.
    pub periods: u64,
    /// Of them, those in which the group was throttled.
    pub throttled_periods: u64,
    /// Time spent throttled.
    pub throttled_ns: u64,
}

/// Memory, in bytes unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// In use now, page cache included.
    pub usage: u64,
    /// Highest use; v1, and v2 since Linux 5.19.
    pub max_usage: Option<u64>,
    /// The limit, at most the machine's memory.
    pub limit: u64,
    /// How often the limit was hit (v1 `memory.failcnt`, v2 the `oom` event, as Docker shows it).
    pub failcnt: u64,
    /// The keys Docker shows under `stats`; they differ between v1 and v2.
    pub stats: BTreeMap<String, u64>,
    /// Processes killed by the kernel for want of memory.
    pub oom_kills: u64,
}

/// Tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pids {
    /// Tasks now.
    pub current: u64,
    /// The limit; `None` is no limit.
    pub limit: Option<u64>,
}

/// Block device counters: the two of Docker's `*_recursive` arrays that kernels since 5.0 fill (the others counted
/// for the CFQ scheduler; Docker shows them as `[]` on v1 and `null` on v2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blkio {
    /// Bytes moved: `io_service_bytes_recursive`.
    pub service_bytes: Vec<BlkioEntry>,
    /// Operations done: `io_serviced_recursive`.
    pub serviced: Vec<BlkioEntry>,
}

/// One counter of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkioEntry {
    /// Device number.
    pub major: u64,
    /// Device number.
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total` on v1; `read`, `write` on v2.
    pub op: String,
    /// The counter.
    pub value: u64,
}

/// One value of a flat keyed file: `key value` in each line.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(key)?.strip_prefix(' ')?;
        value.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::keyed;

    #[test]
    fn a_key_is_matched_whole() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(keyed(text, "oom_kill"), Some(3));
        assert_eq!(keyed(text, "oom"), None);
        assert_eq!(keyed("", "oom"), None);
    }
}
