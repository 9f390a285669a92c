//! Limits on v1: one file for each, in the hierarchy of its controller.

use std::io;
use std::os::fd::AsFd;

use sys::cgroupfs;

use super::convert::{SHARES_MAX, SHARES_MIN};
use super::devices::{self, Rules};
use super::group::Directory;
use super::{Cgroup, Error};
use crate::oci;

/// `EINVAL`, `EOPNOTSUPP` of `errno(3)`, and the kernel's own `ENOTSUPP`, which leaks from the memory controller.
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;
const ENOTSUPP: i32 = 524;

/// Writes everything that `resources` has.
pub(super) fn apply(group: &Cgroup, resources: &oci::LinuxResources) -> Result<(), Error> {
    if let Some(unified) = resources
        .unified()
        .as_ref()
        .filter(|unified| !unified.is_empty())
    {
        let mut names: Vec<&str> = unified.keys().map(String::as_str).collect();
        names.sort_unstable();
        return Err(Error::Unsupported {
            what: format!("unified resource {}", names.join(", ")),
        });
    }
    if let Some(rules) = resources.devices() {
        apply_devices(group, rules)?;
    }
    if let Some(memory) = resources.memory() {
        apply_memory(group, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        apply_cpu(group, cpu)?;
        apply_cpuset(group, cpu)?;
    }
    if let Some(pids) = resources.pids() {
        let limit = if pids.limit() > 0 {
            pids.limit().to_string()
        } else {
            "max".to_owned()
        };
        set(group, "pids", "pids.max", &limit)?;
    }
    if let Some(block) = resources.block_io() {
        apply_blkio(group, block)?;
    }
    for huge in resources.hugepage_limits().iter().flatten() {
        apply_hugepages(group, huge)?;
    }
    if let Some(network) = resources.network() {
        apply_network(group, network)?;
    }
    for (device, limits) in resources.rdma().iter().flatten() {
        set(group, "rdma", "rdma.max", &rdma_line(device, limits))?;
    }
    Ok(())
}

/// The directory of a controller, or the error that says which limit needs it.
fn need<'a>(group: &'a Cgroup, controller: &str, what: &str) -> Result<&'a Directory, Error> {
    group
        .directory(controller)
        .ok_or_else(|| Error::Unsupported {
            what: what.to_owned(),
        })
}

fn set(group: &Cgroup, controller: &str, file: &str, value: &str) -> Result<(), Error> {
    let directory = need(group, controller, file)?;
    group.write_to(directory, file, value)
}

fn apply_devices(group: &Cgroup, rules: &[oci::LinuxDeviceCgroup]) -> Result<(), Error> {
    let wanted = Rules::from_oci(rules)?;
    let directory = need(group, "devices", "device rules")?;
    let current = Rules::from_list(&group.read_from(directory, "devices.list")?);
    for (file, line) in devices::changes_v1(&current, &wanted)? {
        group.write_to(directory, file, &line)?;
    }
    Ok(())
}

fn apply_memory(group: &Cgroup, memory: &oci::LinuxMemory) -> Result<(), Error> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    let mut both = memory.swap().filter(|swap| *swap != 0);
    if limit == Some(-1) && both.is_none() && has_file(group, "memory.memsw.limit_in_bytes") {
        // No limit on memory with one on memory and swap together would still be a limit (as runc).
        both = Some(-1);
    }
    if memory.check_before_update() == Some(true) {
        check_usage(group, limit, both)?;
    }
    apply_memory_and_swap(group, limit, both)?;
    if let Some(reservation) = memory.reservation().filter(|value| *value != 0) {
        set(
            group,
            "memory",
            "memory.soft_limit_in_bytes",
            &reservation.to_string(),
        )?;
    }
    if let Some(kernel) = memory.kernel().filter(|value| *value != 0) {
        // Kernels since 5.16 know the file and refuse the value; runc has ignored the limit since 2021.
        match set(
            group,
            "memory",
            "memory.kmem.limit_in_bytes",
            &kernel.to_string(),
        ) {
            Err(error)
                if matches!(error.raw_os_error(), Some(EOPNOTSUPP | ENOTSUPP))
                    || is_missing(&error) => {}
            set => set?,
        }
    }
    if let Some(tcp) = memory.kernel_tcp().filter(|value| *value != 0) {
        set(
            group,
            "memory",
            "memory.kmem.tcp.limit_in_bytes",
            &tcp.to_string(),
        )?;
    }
    if memory.disable_oom_killer() == Some(true) {
        set(group, "memory", "memory.oom_control", "1")?;
    }
    match memory.swappiness() {
        None => Ok(()),
        Some(swappiness) if swappiness > 100 => Err(Error::Invalid {
            what: "memory swappiness",
            value: format!("{swappiness} is not in 0-100"),
        }),
        Some(swappiness) => set(
            group,
            "memory",
            "memory.swappiness",
            &swappiness.to_string(),
        ),
    }
}

/// The kernel demands memory ≤ memory+swap at every moment: when the new memory limit would pass the old sum, the sum
/// is raised first, else memory is lowered first.
fn apply_memory_and_swap(
    group: &Cgroup,
    limit: Option<i64>,
    both: Option<i64>,
) -> Result<(), Error> {
    let set_limit = || match limit {
        None => Ok(()),
        Some(limit) => set(group, "memory", "memory.limit_in_bytes", &limit.to_string()),
    };
    let set_both = || match both {
        None => Ok(()),
        Some(both) => match set(
            group,
            "memory",
            "memory.memsw.limit_in_bytes",
            &both.to_string(),
        ) {
            Err(error) if is_missing(&error) && both == -1 => Ok(()),
            Err(error) if is_missing(&error) => Err(Error::Unsupported {
                what: "memory swap limit".to_owned(),
            }),
            set => set,
        },
    };
    let raise_first = match (limit, both) {
        (Some(_), Some(both)) => {
            let directory = need(group, "memory", "memory limit")?;
            let current = group.read_number(directory, "memory.limit_in_bytes")?;
            u64::try_from(both).map_or(true, |both| current < both)
        }
        _ => false,
    };
    if raise_first {
        set_both()?;
        set_limit()
    } else {
        set_limit()?;
        set_both()
    }
}

fn check_usage(group: &Cgroup, limit: Option<i64>, both: Option<i64>) -> Result<(), Error> {
    let directory = need(group, "memory", "memory limit")?;
    for (wanted, file) in [
        (limit, "memory.usage_in_bytes"),
        (both, "memory.memsw.usage_in_bytes"),
    ] {
        let Some(wanted) = wanted.and_then(|wanted| u64::try_from(wanted).ok()) else {
            continue;
        };
        let usage = group.read_number(directory, file)?;
        if wanted < usage {
            return Err(Error::Invalid {
                what: "memory limit",
                value: format!("{wanted} is below the current usage {usage}"),
            });
        }
    }
    Ok(())
}

fn apply_cpu(group: &Cgroup, cpu: &oci::LinuxCpu) -> Result<(), Error> {
    if let Some(shares) = cpu.shares().filter(|value| *value != 0) {
        if !(SHARES_MIN..=SHARES_MAX).contains(&shares) {
            // The kernel would clamp it silently; runc reads it back and refuses.
            let value = if shares < SHARES_MIN {
                format!("the minimum allowed cpu-shares is {SHARES_MIN}")
            } else {
                format!("the maximum allowed cpu-shares is {SHARES_MAX}")
            };
            return Err(Error::Invalid {
                what: "cpu shares",
                value,
            });
        }
        set(group, "cpu", "cpu.shares", &shares.to_string())?;
    }
    apply_quota(group, cpu)?;
    if let Some(idle) = cpu.idle() {
        set(group, "cpu", "cpu.idle", &idle.to_string())?;
    }
    if let Some(period) = cpu.realtime_period().filter(|value| *value != 0) {
        set(group, "cpu", "cpu.rt_period_us", &period.to_string())?;
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|value| *value != 0) {
        set(group, "cpu", "cpu.rt_runtime_us", &runtime.to_string())?;
    }
    Ok(())
}

/// Quota, period and burst bound each other, so on a live group either order can be refused (EINVAL): what fails
/// before the quota is written is tried again after it (as runc).
fn apply_quota(group: &Cgroup, cpu: &oci::LinuxCpu) -> Result<(), Error> {
    let quota = cpu.quota().filter(|value| *value != 0);
    let period = cpu
        .period()
        .filter(|value| *value != 0)
        .map(|value| ("cpu.cfs_period_us", value));
    let burst = cpu.burst().map(|value| ("cpu.cfs_burst_us", value));
    let mut again = Vec::new();
    for (file, value) in period.into_iter().chain(burst) {
        match set(group, "cpu", file, &value.to_string()) {
            Err(error) if quota.is_some() && error.raw_os_error() == Some(EINVAL) => {
                again.push((file, value))
            }
            Err(error) if file == "cpu.cfs_burst_us" && is_missing(&error) && value == 0 => {}
            set => set?,
        }
    }
    if let Some(quota) = quota {
        set(group, "cpu", "cpu.cfs_quota_us", &quota.to_string())?;
    }
    again
        .into_iter()
        .try_for_each(|(file, value)| set(group, "cpu", file, &value.to_string()))
}

fn apply_cpuset(group: &Cgroup, cpu: &oci::LinuxCpu) -> Result<(), Error> {
    for (list, file) in [(cpu.cpus(), "cpuset.cpus"), (cpu.mems(), "cpuset.mems")] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            set(group, "cpuset", file, list)?;
        }
    }
    Ok(())
}

fn apply_blkio(group: &Cgroup, block: &oci::LinuxBlockIo) -> Result<(), Error> {
    let weight = block.weight().filter(|value| *value != 0);
    if let Some(weight) = weight {
        set_blkio_weight(group, "weight", &weight.to_string())?;
    }
    if let Some(weight) = block.leaf_weight().filter(|value| *value != 0) {
        set(group, "blkio", "blkio.leaf_weight", &weight.to_string())?;
    }
    for device in block.weight_device().iter().flatten() {
        let number = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = device.weight() {
            set_blkio_weight(group, "weight_device", &format!("{number} {weight}"))?;
        }
        if let Some(weight) = device.leaf_weight() {
            set(
                group,
                "blkio",
                "blkio.leaf_weight_device",
                &format!("{number} {weight}"),
            )?;
        }
    }
    for (devices, file) in [
        (
            block.throttle_read_bps_device(),
            "blkio.throttle.read_bps_device",
        ),
        (
            block.throttle_write_bps_device(),
            "blkio.throttle.write_bps_device",
        ),
        (
            block.throttle_read_iops_device(),
            "blkio.throttle.read_iops_device",
        ),
        (
            block.throttle_write_iops_device(),
            "blkio.throttle.write_iops_device",
        ),
    ] {
        for device in devices.iter().flatten() {
            set(
                group,
                "blkio",
                file,
                &format!("{}:{} {}", device.major(), device.minor(), device.rate()),
            )?;
        }
    }
    Ok(())
}

/// The weight belongs to the I/O scheduler: BFQ's file where it is, else the name of the former CFQ.
fn set_blkio_weight(group: &Cgroup, suffix: &str, value: &str) -> Result<(), Error> {
    let what = "blkio weight";
    let directory = need(group, "blkio", what)?;
    for file in [format!("blkio.bfq.{suffix}"), format!("blkio.{suffix}")] {
        if cgroupfs::exists(directory.dir.as_fd(), &file)
            .map_err(|source| directory.error(group.path(), "look for", &file, source))?
        {
            return group.write_to(directory, &file, value);
        }
    }
    Err(Error::Unsupported {
        what: what.to_owned(),
    })
}

fn apply_hugepages(group: &Cgroup, huge: &oci::LinuxHugepageLimit) -> Result<(), Error> {
    let size = huge.page_size();
    if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Error::Invalid {
            what: "huge page size",
            value: size.clone(),
        });
    }
    let limit = huge.limit().to_string();
    set(
        group,
        "hugetlb",
        &format!("hugetlb.{size}.limit_in_bytes"),
        &limit,
    )?;
    // Reservations are limited as well where the kernel can (5.7), or a fault kills instead of an mmap failing.
    match set(
        group,
        "hugetlb",
        &format!("hugetlb.{size}.rsvd.limit_in_bytes"),
        &limit,
    ) {
        Err(error) if is_missing(&error) => Ok(()),
        set => set,
    }
}

fn apply_network(group: &Cgroup, network: &oci::LinuxNetwork) -> Result<(), Error> {
    if let Some(class) = network.class_id().filter(|class| *class != 0) {
        set(group, "net_cls", "net_cls.classid", &class.to_string())?;
    }
    for priority in network.priorities().iter().flatten() {
        let line = format!("{} {}", priority.name(), priority.priority());
        set(group, "net_prio", "net_prio.ifpriomap", &line)?;
    }
    Ok(())
}

/// A line of `rdma.max`, the same on v2.
pub(super) fn rdma_line(device: &str, limits: &oci::LinuxRdma) -> String {
    let part = |name: &str, value: Option<u32>| {
        value
            .map(|value| format!(" {name}={value}"))
            .unwrap_or_default()
    };
    format!(
        "{device}{}{}",
        part("hca_handle", limits.hca_handles()),
        part("hca_object", limits.hca_objects())
    )
}

fn has_file(group: &Cgroup, file: &str) -> bool {
    group
        .directory("memory")
        .is_some_and(|directory| cgroupfs::exists(directory.dir.as_fd(), file).unwrap_or(false))
}

/// Whether the control file is not there.
pub(super) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}
