//! Reads the counters of a cgroup into [`Stats`].

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use sys::cgroupfs;

use super::group::Directory;
use super::stats::{Blkio, BlkioEntry, Cpu, Memory, Pids, Stats, keyed};
use super::{Cgroup, Error, Version};

/// `USER_HZ`: the unit of `cpuacct.stat`; 100 on every architecture we build for.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

const NANOSECONDS_PER_MICROSECOND: u64 = 1000;

/// The keys of v1 `memory.stat` that Docker shows, as dockerd 28.5.2 answers; those with `total_` include groups below.
const MEMORY_KEYS_V1: [&str; 15] = [
    "cache",
    "rss",
    "rss_huge",
    "mapped_file",
    "dirty",
    "writeback",
    "pgpgin",
    "pgpgout",
    "pgfault",
    "pgmajfault",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
];

/// Those of v1 that exist once.
const MEMORY_LIMIT_KEYS_V1: [&str; 2] = ["hierarchical_memory_limit", "hierarchical_memsw_limit"];

/// The keys of v2 `memory.stat` that Docker shows.
const MEMORY_KEYS_V2: [&str; 31] = [
    "anon",
    "file",
    "kernel_stack",
    "slab",
    "sock",
    "shmem",
    "file_mapped",
    "file_dirty",
    "file_writeback",
    "anon_thp",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
    "slab_reclaimable",
    "slab_unreclaimable",
    "pgfault",
    "pgmajfault",
    "workingset_refault",
    "workingset_activate",
    "workingset_nodereclaim",
    "pgrefill",
    "pgscan",
    "pgsteal",
    "pgactivate",
    "pgdeactivate",
    "pglazyfree",
    "pglazyfreed",
    "thp_fault_alloc",
    "thp_collapse_alloc",
];

impl Cgroup {
    /// Counters, as Docker shows them.
    ///
    /// # Errors
    /// [`Error::Io`]; a controller that is absent is not an error.
    pub fn stats(&self) -> Result<Stats, Error> {
        match self.version() {
            Version::V1 => self.stats_v1(),
            Version::V2 => self.stats_v2(),
        }
    }

    /// How many processes the kernel killed here for want of memory; 0 without a memory controller.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn oom_kills(&self) -> Result<u64, Error> {
        let file = match self.version() {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        match self.directory("memory") {
            None => Ok(0),
            Some(directory) => {
                Ok(keyed(&self.read_from(directory, file)?, "oom_kill").unwrap_or(0))
            }
        }
    }

    fn stats_v1(&self) -> Result<Stats, Error> {
        let mut stats = Stats::default();
        if let Some(directory) = self.directory("cpuacct") {
            let times = self.read_from(directory, "cpuacct.stat")?;
            let per_cpu = self.read_from(directory, "cpuacct.usage_percpu")?;
            stats.cpu.total_ns = self.read_number(directory, "cpuacct.usage")?;
            stats.cpu.per_cpu_ns = per_cpu
                .split_whitespace()
                .filter_map(|field| field.parse().ok())
                .collect();
            stats.cpu.kernel_ns = keyed(&times, "system").unwrap_or(0) * NANOSECONDS_PER_TICK;
            stats.cpu.user_ns = keyed(&times, "user").unwrap_or(0) * NANOSECONDS_PER_TICK;
        }
        if let Some(directory) = self.directory("cpu") {
            let text = self.read_from(directory, "cpu.stat")?;
            throttling(&mut stats.cpu, &text, "throttled_time", 1);
        }
        if let Some(directory) = self.directory("memory") {
            stats.memory = Some(self.memory_v1(directory)?);
        }
        if let Some(directory) = self.directory("pids") {
            stats.pids = Some(self.pids_counters(directory)?);
        }
        if let Some(directory) = self.directory("blkio") {
            stats.blkio = Blkio {
                service_bytes: self.blkio_v1(directory, "io_service_bytes")?,
                serviced: self.blkio_v1(directory, "io_serviced")?,
            };
        }
        Ok(stats)
    }

    fn memory_v1(&self, directory: &Directory) -> Result<Memory, Error> {
        let text = self.read_from(directory, "memory.stat")?;
        let total = MEMORY_KEYS_V1.iter().map(|key| format!("total_{key}"));
        let keys = MEMORY_KEYS_V1
            .iter()
            .chain(&MEMORY_LIMIT_KEYS_V1)
            .map(|key| (*key).to_owned())
            .chain(total);
        Ok(Memory {
            usage: self.read_number(directory, "memory.usage_in_bytes")?,
            max_usage: Some(self.read_number(directory, "memory.max_usage_in_bytes")?),
            limit: self
                .read_number(directory, "memory.limit_in_bytes")?
                .min(machine_memory_bytes()),
            failcnt: self.read_number(directory, "memory.failcnt")?,
            stats: select(&text, keys),
            oom_kills: self.oom_kills()?,
        })
    }

    /// The throttling layer counts for every scheduler; with the groups below where the kernel can (5.2).
    fn blkio_v1(&self, directory: &Directory, name: &str) -> Result<Vec<BlkioEntry>, Error> {
        let recursive = format!("blkio.throttle.{name}_recursive");
        let file = match cgroupfs::exists(directory.dir.as_fd(), &recursive) {
            Ok(true) => recursive,
            _ => format!("blkio.throttle.{name}"),
        };
        Ok(blkio_entries(&self.read_from(directory, &file)?))
    }

    fn stats_v2(&self) -> Result<Stats, Error> {
        let mut stats = Stats::default();
        // cpu.stat is there without the controller too, short of the throttling part.
        if let Some(directory) = self.directories().first() {
            let text = self.read_from(directory, "cpu.stat")?;
            let time = |key| keyed(&text, key).unwrap_or(0) * NANOSECONDS_PER_MICROSECOND;
            stats.cpu.total_ns = time("usage_usec");
            stats.cpu.user_ns = time("user_usec");
            stats.cpu.kernel_ns = time("system_usec");
            throttling(
                &mut stats.cpu,
                &text,
                "throttled_usec",
                NANOSECONDS_PER_MICROSECOND,
            );
        }
        if let Some(directory) = self.directory("memory") {
            stats.memory = Some(self.memory_v2(directory)?);
        }
        if let Some(directory) = self.directory("pids") {
            stats.pids = Some(self.pids_counters(directory)?);
        }
        if let Some(directory) = self.directory("io") {
            stats.blkio = io_entries(&self.read_from(directory, "io.stat")?);
        }
        Ok(stats)
    }

    fn memory_v2(&self, directory: &Directory) -> Result<Memory, Error> {
        let text = self.read_from(directory, "memory.stat")?;
        let events = self.read_from(directory, "memory.events")?;
        let limit = self.read_from(directory, "memory.max")?;
        let mut stats = select(&text, MEMORY_KEYS_V2.iter().map(|key| (*key).to_owned()));
        // Since Linux 5.9 the refault counters come in two, which the one key of Docker adds up.
        for key in ["workingset_refault", "workingset_activate"] {
            let parts = ["anon", "file"].map(|part| keyed(&text, &format!("{key}_{part}")));
            if let (None, [Some(anon), Some(file)]) = (keyed(&text, key), parts) {
                stats.insert(key.to_owned(), anon + file);
            }
        }
        Ok(Memory {
            usage: self.read_number(directory, "memory.current")?,
            max_usage: self.read_number(directory, "memory.peak").ok(),
            limit: limit
                .trim()
                .parse()
                .unwrap_or(u64::MAX)
                .min(machine_memory_bytes()),
            failcnt: keyed(&events, "oom").unwrap_or(0),
            stats,
            oom_kills: keyed(&events, "oom_kill").unwrap_or(0),
        })
    }

    /// The same two files on v1 and v2.
    fn pids_counters(&self, directory: &Directory) -> Result<Pids, Error> {
        Ok(Pids {
            current: self.read_number(directory, "pids.current")?,
            limit: self.read_from(directory, "pids.max")?.trim().parse().ok(),
        })
    }
}

fn throttling(cpu: &mut Cpu, text: &str, time_key: &str, unit_ns: u64) {
    cpu.periods = keyed(text, "nr_periods").unwrap_or(0);
    cpu.throttled_periods = keyed(text, "nr_throttled").unwrap_or(0);
    cpu.throttled_ns = keyed(text, time_key).unwrap_or(0) * unit_ns;
}

fn select(text: &str, keys: impl Iterator<Item = String>) -> BTreeMap<String, u64> {
    keys.filter_map(|key| keyed(text, &key).map(|value| (key, value)))
        .collect()
}

/// v1: `254:0 Read 770048`; the line `Total 6795` has no device and is not shown.
fn blkio_entries(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let mut fields = line.split(' ');
        let (major, minor) = fields.next()?.split_once(':')?;
        Some(BlkioEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: fields.next()?.to_owned(),
            value: fields.next()?.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

/// v2: `254:0 rbytes=… wbytes=… rios=… wios=… dbytes=… dios=…`.
fn io_entries(text: &str) -> Blkio {
    let mut blkio = Blkio::default();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let Some((major, minor)) = fields.next().and_then(|device| device.split_once(':')) else {
            continue;
        };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else {
            continue;
        };
        for field in fields {
            let Some((key, value)) = field.split_once('=') else {
                continue;
            };
            let Ok(value) = value.parse() else { continue };
            let (list, op) = match key {
                "rbytes" => (&mut blkio.service_bytes, "read"),
                "wbytes" => (&mut blkio.service_bytes, "write"),
                "rios" => (&mut blkio.serviced, "read"),
                "wios" => (&mut blkio.serviced, "write"),
                _ => continue,
            };
            list.push(BlkioEntry {
                major,
                minor,
                op: op.to_owned(),
                value,
            });
        }
    }
    blkio
}

/// The memory of the machine: a limit above it, or none, is shown as this (as dockerd does).
fn machine_memory_bytes() -> u64 {
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let field = text.lines().find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        });
        field.map_or(u64::MAX, |kib: u64| kib * 1024)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(op: &str, value: u64) -> BlkioEntry {
        BlkioEntry {
            major: 254,
            minor: 0,
            op: op.to_owned(),
            value,
        }
    }

    #[test]
    fn blkio_lines_of_v1() {
        let text = "254:0 Read 770048\n254:0 Write 0\n254:0 Total 770048\nTotal 770048\n";
        assert_eq!(
            blkio_entries(text),
            [
                entry("Read", 770_048),
                entry("Write", 0),
                entry("Total", 770_048)
            ]
        );
    }

    #[test]
    fn io_lines_of_v2() {
        let text = "254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=5 dios=6\n8:0 \n";
        let blkio = io_entries(text);
        assert_eq!(blkio.service_bytes, [entry("read", 10), entry("write", 20)]);
        assert_eq!(blkio.serviced, [entry("read", 1), entry("write", 2)]);
    }

    #[test]
    fn throttling_in_both_units() {
        let mut cpu = Cpu::default();
        throttling(
            &mut cpu,
            "nr_periods 5\nnr_throttled 2\nthrottled_time 7\n",
            "throttled_time",
            1,
        );
        assert_eq!(
            (cpu.periods, cpu.throttled_periods, cpu.throttled_ns),
            (5, 2, 7)
        );
        throttling(
            &mut cpu,
            "nr_periods 5\nnr_throttled 2\nthrottled_usec 7\n",
            "throttled_usec",
            1000,
        );
        assert_eq!(cpu.throttled_ns, 7000);
    }

    #[test]
    fn the_machine_has_memory() {
        assert!((1 << 20..u64::MAX).contains(&machine_memory_bytes()));
    }
}
