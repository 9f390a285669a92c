//! Limits of memory, CPU, I/O and processes: dockerd's checks, warnings and defaults
//! (moby `daemon/daemon_unix.go`, `verifyPlatformContainerResources`).

use api::container::host_config::HostConfig;

use super::{Controllers, Machine};
use crate::Error;

/// The smallest memory limit and reservation: 6 MiB.
const MEMORY_MIN_BYTES: i64 = 6 << 20;

/// The period of the CPU quota that `NanoCpus` means, in microseconds.
pub(crate) const NANO_CPUS_PERIOD_US: i64 = 100_000;

/// The shortest CPU period and quota, and the longest period, in microseconds.
const CFS_MIN_US: i64 = 1_000;
const CFS_PERIOD_MAX_US: i64 = 1_000_000;

/// Billionths of a CPU.
const NANO: i64 = 1_000_000_000;

/// Checks all limits; what the kernel lacks is taken out with a warning.
pub(super) fn check(
    host_config: &mut HostConfig,
    warnings: &mut Vec<String>,
    machine: &Machine,
) -> Result<(), Error> {
    check_memory(host_config, warnings, machine.controllers)?;
    check_pids(host_config, warnings, machine.controllers);
    check_cpu(host_config, warnings, machine)?;
    let names_cpus = !host_config.cpuset_cpus.is_empty() || !host_config.cpuset_mems.is_empty();
    if names_cpus && !machine.controllers.cpuset {
        warnings.push(lacking("cpuset", "Cpuset discarded."));
        host_config.cpuset_cpus.clear();
        host_config.cpuset_mems.clear();
    }
    check_cpusets(host_config, machine)?;
    check_io(host_config, warnings, machine)?;
    if host_config.cpu_percent > 0 {
        warnings.push("linux does not support CPU percent. Percent discarded.".to_owned());
        host_config.cpu_percent = 0;
    }
    Ok(())
}

/// dockerd's warning of a limit that the kernel cannot set.
fn lacking(what: &str, consequence: &str) -> String {
    format!("Your kernel does not support {what} or the cgroup is not mounted. {consequence}")
}

/// Takes out what the kernel's memory controller cannot do, or all where there is none.
fn discard_memory(
    host_config: &mut HostConfig,
    warnings: &mut Vec<String>,
    controllers: Controllers,
) {
    if host_config.memory > 0 && !controllers.memory {
        warnings.push(lacking(
            "memory limit capabilities",
            "Limitation discarded.",
        ));
        host_config.memory = 0;
        host_config.memory_swap = -1;
    }
    if host_config.memory > 0 && host_config.memory_swap != -1 && !controllers.swap {
        warnings.push(lacking(
            "swap limit capabilities",
            "Memory limited without swap.",
        ));
        host_config.memory_swap = -1;
    }
    if host_config
        .memory_swappiness
        .is_some_and(|wanted| wanted != -1)
        && !controllers.swappiness
    {
        let consequence = "Memory swappiness discarded.";
        warnings.push(lacking("memory swappiness capabilities", consequence));
        host_config.memory_swappiness = None;
    }
    if host_config.memory_reservation > 0 && !controllers.memory {
        warnings.push(lacking(
            "memory soft limit capabilities",
            "Limitation discarded.",
        ));
        host_config.memory_reservation = 0;
    }
    if !controllers.oom_kill_disable && host_config.oom_kill_disable.take() == Some(true) {
        warnings.push(
            "Your kernel does not support OomKillDisable. OomKillDisable discarded.".to_owned(),
        );
    }
}

fn check_pids(host_config: &mut HostConfig, warnings: &mut Vec<String>, controllers: Controllers) {
    if !controllers.pids && host_config.pids_limit.take().is_some_and(|limit| limit > 0) {
        warnings.push(lacking("PIDs limit capabilities", "PIDs limit discarded."));
    }
}

fn check_memory(
    host_config: &mut HostConfig,
    warnings: &mut Vec<String>,
    controllers: Controllers,
) -> Result<(), Error> {
    let refuse = |text: &str| Err(Error::invalid(text));
    if host_config.memory != 0 && host_config.memory < MEMORY_MIN_BYTES {
        return refuse("Minimum memory limit allowed is 6MB");
    }
    discard_memory(host_config, warnings, controllers);
    let memory = host_config.memory;
    let swap = host_config.memory_swap;
    let reservation = host_config.memory_reservation;
    if memory == 0 && swap > 0 {
        return refuse(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
    }
    if memory > 0 && swap > 0 && swap < memory {
        return refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if let Some(swappiness) = host_config.memory_swappiness
        && !(-1..=100).contains(&swappiness)
    {
        return refuse(&format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        ));
    }
    if reservation > 0 && reservation < MEMORY_MIN_BYTES {
        return refuse("Minimum memory reservation allowed is 6MB");
    }
    if memory > 0 && reservation > memory {
        return refuse(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    if host_config.oom_kill_disable == Some(true) && memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can \
             result in the system running out of resources."
                .to_owned(),
        );
    }
    Ok(())
}

fn check_cpu(
    host_config: &mut HostConfig,
    warnings: &mut Vec<String>,
    machine: &Machine,
) -> Result<(), Error> {
    let refuse = |text: String| Err(Error::invalid(text));
    let nano = host_config.nano_cpus;
    if nano > 0 && host_config.cpu_period != 0 {
        return refuse("Conflicting options: Nano CPUs and CPU Period cannot both be set".into());
    }
    if nano > 0 && host_config.cpu_quota != 0 {
        return refuse("Conflicting options: Nano CPUs and CPU Quota cannot both be set".into());
    }
    let has_cpu = machine.controllers.cpu;
    if nano > 0 && !has_cpu {
        return refuse(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the \
             cgroup is not mounted"
                .into(),
        );
    }
    let cpus = i64::try_from(machine.cpus.len()).unwrap_or(i64::MAX / NANO);
    if nano < 0 || nano > cpus * NANO {
        return refuse(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        ));
    }
    if host_config.cpu_shares < 0 {
        return refuse(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            host_config.cpu_shares
        ));
    }
    if host_config.cpu_shares > 0 && !has_cpu {
        warnings.push(lacking("CPU shares", "Shares discarded."));
        host_config.cpu_shares = 0;
    }
    if (host_config.cpu_period != 0 || host_config.cpu_quota != 0) && !has_cpu {
        warnings.push(
            "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded."
                .to_owned(),
        );
        (host_config.cpu_period, host_config.cpu_quota) = (0, 0);
    }
    let period = host_config.cpu_period;
    if period != 0 && !(CFS_MIN_US..=CFS_PERIOD_MAX_US).contains(&period) {
        return refuse(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
                .into(),
        );
    }
    if host_config.cpu_quota > 0 && host_config.cpu_quota < CFS_MIN_US {
        return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)".into());
    }
    Ok(())
}

fn check_cpusets(host_config: &HostConfig, machine: &Machine) -> Result<(), Error> {
    let sets = [
        (&host_config.cpuset_cpus, "cpus", "CPUs", &machine.cpus),
        (
            &host_config.cpuset_mems,
            "mems",
            "memory nodes",
            &machine.memory_nodes,
        ),
    ];
    for (wanted, option, what, available) in sets {
        let Some(numbers) = parse_set(wanted) else {
            return Err(Error::invalid(format!(
                "Invalid value {wanted} for cpuset {option}: invalid format: {wanted}"
            )));
        };
        if numbers.iter().any(|number| !available.contains(number)) {
            return Err(Error::invalid(format!(
                "Requested {what} are not available - requested {wanted}, available: {}",
                render_set(available)
            )));
        }
    }
    Ok(())
}

/// The largest CPU number a set may name; the kernel's own limit is 8192.
const CPU_MAX: u32 = 8192;

/// Reads `0-2,7`; an empty text is an empty set.
pub(crate) fn parse_set(text: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    if text.is_empty() {
        return Some(numbers);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > CPU_MAX {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Writes a sorted set as the kernel does.
fn render_set(numbers: &[u32]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(&first) = numbers.get(at) {
        let run = numbers[at..]
            .iter()
            .zip(first..)
            .take_while(|(number, expected)| *number == expected)
            .count();
        at += run;
        let last = numbers[at - 1];
        parts.push(if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        });
    }
    parts.join(",")
}

fn check_io(
    host_config: &mut HostConfig,
    warnings: &mut Vec<String>,
    machine: &Machine,
) -> Result<(), Error> {
    if host_config.io_maximum_bandwidth > 0 {
        return Err(Error::invalid(
            "invalid option: QoS maximum bandwidth configuration is not supported on linux",
        ));
    }
    if host_config.io_maximum_iops > 0 {
        return Err(Error::invalid(
            "invalid option: QoS maximum IOPs configuration is not supported on linux",
        ));
    }
    if host_config.blkio_weight > 0 && !machine.blkio_weight {
        warnings.push(
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. \
             Weight discarded."
                .to_owned(),
        );
        host_config.blkio_weight = 0;
    }
    if host_config.blkio_weight > 0 && !(10..=1000).contains(&host_config.blkio_weight) {
        return Err(Error::invalid("Range of blkio weight is from 10 to 1000"));
    }
    let weighted = host_config.blkio_weight_device.as_ref();
    if weighted.is_some_and(|devices| !devices.is_empty()) && !machine.blkio_weight_device {
        warnings.push(
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. \
             Weight-device discarded."
                .to_owned(),
        );
        host_config.blkio_weight_device = Some(Vec::new());
    }
    if !machine.controllers.io_rates {
        discard_rates(host_config, warnings);
    }
    Ok(())
}

fn discard_rates(host_config: &mut HostConfig, warnings: &mut Vec<String>) {
    for (rates, what, name) in [
        (
            &mut host_config.blkio_device_read_bps,
            "BPS Block I/O read",
            "BPS read",
        ),
        (
            &mut host_config.blkio_device_write_bps,
            "BPS Block I/O write",
            "BPS write",
        ),
        (
            &mut host_config.blkio_device_read_iops,
            "IOPS Block read",
            "IOPS read",
        ),
        (
            &mut host_config.blkio_device_write_iops,
            "IOPS Block write",
            "IOPS write",
        ),
    ] {
        if rates.as_ref().is_some_and(|rates| !rates.is_empty()) {
            let consequence = format!("Block I/O {name} limit discarded.");
            warnings.push(lacking(&format!("{what} limit"), &consequence));
            *rates = Some(Vec::new());
        }
    }
}

/// Fills in what follows from other values.
pub(super) fn fill_in(host_config: &mut HostConfig, machine: &Machine) {
    if host_config.memory > 0 && host_config.memory_swap == 0 {
        host_config.memory_swap = host_config.memory.saturating_mul(2);
    }
    if machine.controllers.oom_kill_disable && host_config.oom_kill_disable.is_none() {
        host_config.oom_kill_disable = Some(false);
    }
    if host_config.pids_limit.is_some_and(|limit| limit <= 0) {
        host_config.pids_limit = None;
    }
}

#[cfg(test)]
mod tests {
    use api::container::host_config::ThrottleDevice;

    use super::*;

    /// A Raspberry Pi as it comes. The words are moby's, `daemon/daemon_unix.go`.
    #[test]
    fn limits_that_the_kernel_cannot_set_are_taken_out_with_a_warning() {
        let mut machine = crate::reference::machine();
        let rates = || Some(vec![ThrottleDevice::default()]);
        let asked = || HostConfig {
            memory: 64 << 20,
            memory_swap: 128 << 20,
            memory_reservation: 32 << 20,
            oom_kill_disable: Some(true),
            pids_limit: Some(10),
            cpu_shares: 7,
            cpu_quota: 50_000,
            cpuset_cpus: "0".to_owned(),
            blkio_device_read_bps: rates(),
            blkio_device_write_bps: rates(),
            blkio_device_read_iops: rates(),
            blkio_device_write_iops: rates(),
            ..HostConfig::default()
        };
        let mut warnings = Vec::new();
        check(&mut asked(), &mut warnings, &machine).unwrap();
        assert_eq!(warnings, [""; 0]);
        machine.controllers = Controllers {
            memory: false,
            swap: false,
            swappiness: false,
            oom_kill_disable: false,
            tcp_memory: false,
            cpu: false,
            cpuset: false,
            pids: false,
            io_rates: false,
        };
        let mut host_config = asked();
        check(&mut host_config, &mut warnings, &machine).unwrap();
        fill_in(&mut host_config, &machine);
        assert_eq!(
            warnings,
            [
                "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
                "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.",
                "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
                "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
                "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
                "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
                "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.",
                "Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded.",
                "Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded.",
                "Your kernel does not support IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded.",
                "Your kernel does not support IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded.",
            ]
        );
        let left = HostConfig {
            memory_swap: -1,
            blkio_device_read_bps: Some(Vec::new()),
            blkio_device_write_bps: Some(Vec::new()),
            blkio_device_read_iops: Some(Vec::new()),
            blkio_device_write_iops: Some(Vec::new()),
            ..HostConfig::default()
        };
        assert_eq!(host_config, left);
        host_config.nano_cpus = 1;
        assert!(check(&mut host_config, &mut Vec::new(), &machine).is_err());
    }

    #[test]
    fn sets() {
        let table: [(&str, Option<&[u32]>); 7] = [
            ("", Some(&[])),
            ("0", Some(&[0])),
            ("0-2,7", Some(&[0, 1, 2, 7])),
            ("a", None),
            ("0,", None),
            ("1-0", None),
            ("0-999999999", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_set(text).as_deref(), expected, "{text}");
        }
        assert_eq!(render_set(&[0, 1, 2, 7]), "0-2,7");
        assert_eq!(render_set(&[]), "");
    }
}
