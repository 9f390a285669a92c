//! Limits on v2: the OCI spec speaks of v1, so most values are converted.

use std::os::fd::AsFd;

use sys::cgroupfs;

use super::convert::{
    PERIOD_DEFAULT_US, io_weight_of_blkio, or_max, swap_of_memsw, weight_of_shares,
};
use super::devices::{self, Rules};
use super::group::Directory;
use super::v1::{is_missing, rdma_line};
use super::{Cgroup, Error};
use crate::oci;

/// `EINVAL` of `errno(3)`.
const EINVAL: i32 = 22;

/// Writes everything that `resources` has. What v2 has no counterpart for (kernel memory, swappiness, the OOM killer's
/// switch, real-time budgets, net_cls and net_prio) is left out, as runc does.
pub(super) fn apply(group: &Cgroup, resources: &oci::LinuxResources) -> Result<(), Error> {
    let directory = group.directories().first().ok_or(Error::NoHierarchy)?;
    let files = Files { group, directory };
    if let Some(rules) = resources.devices() {
        files.apply_devices(rules)?;
    }
    if let Some(memory) = resources.memory() {
        files.apply_memory(memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        files.apply_cpu(cpu)?;
    }
    if let Some(pids) = resources.pids() {
        let limit = if pids.limit() > 0 { pids.limit() } else { -1 };
        files.set("pids.max", &or_max(limit))?;
    }
    if let Some(block) = resources.block_io() {
        files.apply_io(block)?;
    }
    for huge in resources.hugepage_limits().iter().flatten() {
        files.apply_hugepages(huge)?;
    }
    for (device, limits) in resources.rdma().iter().flatten() {
        files.set("rdma.max", &rdma_line(device, limits))?;
    }
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        files.apply_unified(file, value)?;
    }
    Ok(())
}

/// The control files of one group.
struct Files<'a> {
    group: &'a Cgroup,
    directory: &'a Directory,
}

impl Files<'_> {
    /// Writes a file; a missing one means that its controller is off or the kernel too old.
    fn set(&self, file: &str, value: &str) -> Result<(), Error> {
        match self.group.write_to(self.directory, file, value) {
            Err(error) if is_missing(&error) => Err(Error::Unsupported {
                what: file.to_owned(),
            }),
            set => set,
        }
    }

    fn exists(&self, file: &str) -> bool {
        cgroupfs::exists(self.directory.dir.as_fd(), file).unwrap_or(false)
    }

    fn apply_devices(&self, rules: &[oci::LinuxDeviceCgroup]) -> Result<(), Error> {
        let program = devices::program_v2(&Rules::from_oci(rules)?);
        let wrap = |operation: &'static str| {
            move |source| {
                self.directory
                    .error(self.group.path(), operation, "", source)
            }
        };
        let program =
            sys::bpf::load_cgroup_device(&program).map_err(wrap("load device rules for"))?;
        sys::bpf::replace_cgroup_device(self.directory.dir.as_fd(), program.as_fd())
            .map_err(wrap("attach device rules to"))
    }

    fn apply_memory(&self, memory: &oci::LinuxMemory) -> Result<(), Error> {
        let limit = memory.limit().filter(|limit| *limit != 0);
        let swap = swap_of_memsw(memory.swap().unwrap_or(0), limit.unwrap_or(0))?;
        if let (Some(true), Some(wanted)) = (
            memory.check_before_update(),
            limit.and_then(|limit| u64::try_from(limit).ok()),
        ) {
            let usage = self.group.read_number(self.directory, "memory.current")?;
            if wanted < usage {
                let value = format!("{wanted} is below the current usage {usage}");
                return Err(Error::Invalid {
                    what: "memory limit",
                    value,
                });
            }
        }
        match swap {
            None => {}
            // Without swap accounting there is no file, and nothing to be lifted or forbidden.
            Some(swap) if swap <= 0 && !self.exists("memory.swap.max") => {}
            Some(swap) => self.set("memory.swap.max", &or_max(swap))?,
        }
        if let Some(limit) = limit {
            self.set("memory.max", &or_max(limit))?;
        }
        match memory.reservation().filter(|value| *value != 0) {
            None => Ok(()),
            Some(reservation) => self.set("memory.low", &or_max(reservation)),
        }
    }

    fn apply_cpu(&self, cpu: &oci::LinuxCpu) -> Result<(), Error> {
        if let Some(idle) = cpu.idle() {
            self.set("cpu.idle", &idle.to_string())?;
        }
        // The weight of an idle group is fixed: the kernel refuses another.
        if let Some(shares) = cpu
            .shares()
            .filter(|value| *value != 0 && cpu.idle() != Some(1))
        {
            self.set("cpu.weight", &weight_of_shares(shares).to_string())?;
        }
        self.apply_quota(cpu)?;
        for (list, file) in [(cpu.cpus(), "cpuset.cpus"), (cpu.mems(), "cpuset.mems")] {
            if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
                self.set(file, list)?;
            }
        }
        Ok(())
    }

    /// `cpu.max` holds quota and period together: what is not given keeps its value. A burst above the present quota
    /// is refused, so it is tried again after it.
    fn apply_quota(&self, cpu: &oci::LinuxCpu) -> Result<(), Error> {
        let quota = cpu.quota().filter(|value| *value != 0);
        let period = cpu.period().filter(|value| *value != 0);
        let changes = quota.is_some() || period.is_some();
        let mut burst = cpu.burst().map(|value| value.to_string());
        if let Some(value) = &burst {
            match self.set("cpu.max.burst", value) {
                Ok(()) => burst = None,
                Err(Error::Unsupported { .. }) if value == "0" => burst = None,
                Err(error) if changes && error.raw_os_error() == Some(EINVAL) => {}
                Err(error) => return Err(error),
            }
        }
        if changes {
            let current = self
                .group
                .read_from(self.directory, "cpu.max")
                .unwrap_or_default();
            self.set("cpu.max", &cpu_max(&current, quota, period))?;
        }
        burst.map_or(Ok(()), |value| self.set("cpu.max.burst", &value))
    }

    fn apply_io(&self, block: &oci::LinuxBlockIo) -> Result<(), Error> {
        if let Some(weight) = block.weight().filter(|value| *value != 0) {
            if self.exists("io.bfq.weight") {
                self.set("io.bfq.weight", &weight.to_string())?;
            } else {
                self.set("io.weight", &io_weight_of_blkio(weight).to_string())?;
            }
        }
        for device in block.weight_device().iter().flatten() {
            let Some(weight) = device.weight().filter(|value| *value != 0) else {
                continue;
            };
            let number = format!("{}:{}", device.major(), device.minor());
            if self.exists("io.bfq.weight") {
                self.set("io.bfq.weight", &format!("{number} {weight}"))?;
            } else {
                self.set(
                    "io.weight",
                    &format!("{number} {}", io_weight_of_blkio(weight)),
                )?;
            }
        }
        for (devices, key) in [
            (block.throttle_read_bps_device(), "rbps"),
            (block.throttle_write_bps_device(), "wbps"),
            (block.throttle_read_iops_device(), "riops"),
            (block.throttle_write_iops_device(), "wiops"),
        ] {
            for device in devices.iter().flatten() {
                self.set("io.max", &io_max(device, key))?;
            }
        }
        Ok(())
    }

    fn apply_hugepages(&self, huge: &oci::LinuxHugepageLimit) -> Result<(), Error> {
        let size = huge.page_size();
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Error::Invalid {
                what: "huge page size",
                value: size.clone(),
            });
        }
        self.set(&format!("hugetlb.{size}.max"), &or_max(huge.limit()))?;
        match self.set(&format!("hugetlb.{size}.rsvd.max"), &or_max(huge.limit())) {
            Err(Error::Unsupported { .. }) => Ok(()),
            set => set,
        }
    }

    /// A file of v2 by its own name. Control files only: no path, and nothing that would move, freeze or kill.
    fn apply_unified(&self, file: &str, value: &str) -> Result<(), Error> {
        if file.contains('/')
            || !file.contains('.')
            || file.starts_with("cgroup.") && !is_tunable(file)
        {
            return Err(Error::Invalid {
                what: "unified resource",
                value: file.to_owned(),
            });
        }
        // Files of one value for each device take a line in each write.
        value.lines().try_for_each(|line| self.set(file, line))
    }
}

/// The files of the core that are limits.
fn is_tunable(file: &str) -> bool {
    matches!(
        file,
        "cgroup.max.depth" | "cgroup.max.descendants" | "cgroup.pressure"
    )
}

/// The new `cpu.max` from the present one.
fn cpu_max(current: &str, quota: Option<i64>, period: Option<u64>) -> String {
    let mut fields = current.split_whitespace();
    let current_quota = fields.next().unwrap_or("max").to_owned();
    let current_period = fields
        .next()
        .and_then(|field| field.parse().ok())
        .unwrap_or(PERIOD_DEFAULT_US);
    format!(
        "{} {}",
        quota.map_or(current_quota, or_max),
        period.unwrap_or(current_period)
    )
}

/// A line of `io.max`; on v1 a rate of 0 lifts the limit.
fn io_max(device: &oci::LinuxThrottleDevice, key: &str) -> String {
    let rate = match device.rate() {
        0 => "max".to_owned(),
        rate => rate.to_string(),
    };
    format!("{}:{} {key}={rate}", device.major(), device.minor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_max_keeps_the_other_half() {
        for (current, quota, period, wanted) in [
            ("max 100000\n", Some(50_000), None, "50000 100000"),
            ("50000 100000\n", None, Some(200_000), "50000 200000"),
            ("50000 100000\n", Some(-1), None, "max 100000"),
            ("", Some(5000), Some(10_000), "5000 10000"),
            ("", None, Some(10_000), "max 10000"),
        ] {
            assert_eq!(cpu_max(current, quota, period), wanted, "{current:?}");
        }
    }

    #[test]
    fn a_rate_of_zero_lifts_the_limit() {
        let device = |rate| {
            oci::LinuxThrottleDeviceBuilder::default()
                .major(8)
                .minor(16)
                .rate(rate)
                .build()
                .unwrap()
        };
        assert_eq!(io_max(&device(0u64), "rbps"), "8:16 rbps=max");
        assert_eq!(io_max(&device(1000u64), "wiops"), "8:16 wiops=1000");
    }
}
