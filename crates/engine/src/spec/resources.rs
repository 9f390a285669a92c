//! Limits of a container: `HostConfig` in the OCI's terms, for creating and for updating.

use std::path::Path;

use api::container::host_config::{HostConfig, ThrottleDevice};
use runtime::oci;

use super::devices::{self, Device};
use super::failed;
use crate::Error;
use crate::definition::resources::NANO_CPUS_PERIOD_US;

/// The limits that `HostConfig` sets; devices are not among them.
///
/// # Errors
/// Internal, with dockerd's text, for a throttled device that does not exist.
pub fn resources(host_config: &HostConfig, cgroup_v2: bool) -> Result<oci::LinuxResources, Error> {
    let mut resources = oci::LinuxResources::default();
    resources
        .set_devices(None)
        .set_memory(Some(memory(host_config, cgroup_v2)))
        .set_cpu(cpu(host_config))
        .set_pids(host_config.pids_limit.map(|limit| {
            let mut pids = oci::LinuxPids::default();
            pids.set_limit(limit);
            pids
        }))
        .set_block_io(block_io(host_config)?);
    Ok(resources)
}

fn memory(host_config: &HostConfig, cgroup_v2: bool) -> oci::LinuxMemory {
    let positive = |bytes: i64| Some(bytes).filter(|bytes| *bytes > 0);
    let mut memory = oci::LinuxMemory::default();
    memory
        .set_limit(positive(host_config.memory))
        .set_reservation(positive(host_config.memory_reservation))
        .set_swap(positive(host_config.memory_swap))
        .set_kernel_tcp(positive(host_config.kernel_memory_tcp));
    // cgroup v2 has neither.
    if !cgroup_v2 {
        let swappiness = host_config.memory_swappiness;
        memory
            .set_swappiness(swappiness.and_then(|percent| u64::try_from(percent).ok()))
            .set_disable_oom_killer(host_config.oom_kill_disable);
    }
    memory
}

fn cpu(host_config: &HostConfig) -> Option<oci::LinuxCpu> {
    let number = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    let text = |set: &String| Some(set.clone()).filter(|set| !set.is_empty());
    let (mut period, mut quota) = (host_config.cpu_period, host_config.cpu_quota);
    if host_config.nano_cpus > 0 {
        period = NANO_CPUS_PERIOD_US;
        quota = host_config.nano_cpus * (NANO_CPUS_PERIOD_US / 1000) / 1_000_000;
    }
    let mut cpu = oci::LinuxCpu::default();
    cpu.set_shares(number(host_config.cpu_shares))
        .set_period(number(period))
        .set_quota(Some(quota).filter(|quota| *quota != 0))
        .set_realtime_period(number(host_config.cpu_realtime_period))
        .set_realtime_runtime(
            Some(host_config.cpu_realtime_runtime).filter(|runtime| *runtime != 0),
        )
        .set_cpus(text(&host_config.cpuset_cpus))
        .set_mems(text(&host_config.cpuset_mems));
    Some(cpu).filter(|cpu| *cpu != oci::LinuxCpu::default())
}

fn block_io(host_config: &HostConfig) -> Result<Option<oci::LinuxBlockIo>, Error> {
    let mut block_io = oci::LinuxBlockIo::default();
    block_io.set_weight(Some(host_config.blkio_weight).filter(|weight| *weight > 0));
    let mut weighted = Vec::new();
    for device in host_config.blkio_weight_device.iter().flatten() {
        let node = throttled(&device.path)?;
        let entry = oci::LinuxWeightDeviceBuilder::default()
            .major(node.major)
            .minor(node.minor)
            .weight(device.weight);
        weighted.push(entry.build().expect("the numbers are set"));
    }
    block_io.set_weight_device(Some(weighted).filter(|list| !list.is_empty()));
    block_io
        .set_throttle_read_bps_device(throttles(&host_config.blkio_device_read_bps)?)
        .set_throttle_write_bps_device(throttles(&host_config.blkio_device_write_bps)?)
        .set_throttle_read_iops_device(throttles(&host_config.blkio_device_read_iops)?)
        .set_throttle_write_iops_device(throttles(&host_config.blkio_device_write_iops)?);
    Ok(Some(block_io).filter(|block_io| *block_io != oci::LinuxBlockIo::default()))
}

fn throttles(
    list: &Option<Vec<ThrottleDevice>>,
) -> Result<Option<Vec<oci::LinuxThrottleDevice>>, Error> {
    let mut throttles = Vec::new();
    for device in list.iter().flatten() {
        let node = throttled(&device.path)?;
        let entry = oci::LinuxThrottleDeviceBuilder::default()
            .major(node.major)
            .minor(node.minor)
            .rate(device.rate);
        throttles.push(entry.build().expect("the numbers are set"));
    }
    Ok(Some(throttles).filter(|list| !list.is_empty()))
}

fn throttled(path: &str) -> Result<Device, Error> {
    let found = devices::at(Path::new(path))
        .map_err(|error| failed(format!("stat {path}: {}", go_errno(&error))))?;
    found
        .into_iter()
        .next()
        .ok_or_else(|| failed(format!("{path}: not a device node")))
}

/// An errno in Go's words.
fn go_errno(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// Nodes and cgroup rules beyond those of every container.
pub(super) struct Given {
    pub(super) nodes: Vec<oci::LinuxDevice>,
    pub(super) rules: Vec<oci::LinuxDeviceCgroup>,
}

/// What `HostConfig.Devices`, `DeviceCgroupRules` and `Privileged` add.
pub(super) fn devices(host_config: &HostConfig) -> Result<Given, Error> {
    let mut given = Given {
        nodes: Vec::new(),
        rules: Vec::new(),
    };
    if let Some(request) = host_config.device_requests.iter().flatten().next() {
        let capabilities: Vec<String> = request
            .capabilities
            .iter()
            .flatten()
            .map(|all| format!("[{}]", all.join(" ")))
            .collect();
        return Err(failed(format!(
            "could not select device driver \"{}\" with capabilities: [{}]",
            request.driver,
            capabilities.join(" ")
        )));
    }
    if host_config.privileged {
        let all = devices::all().map_err(|error| Error::internal("read /dev", error))?;
        given.nodes = all.iter().map(Device::node).collect();
        given
            .rules
            .push(devices::rule(true, None, None, None, "rwm"));
        return Ok(given);
    }
    for mapping in host_config.devices.iter().flatten() {
        add_device(mapping, &mut given)?;
    }
    for text in host_config.device_cgroup_rules.iter().flatten() {
        let rule = devices::parse_rule(text)
            .ok_or_else(|| failed(format!("invalid device cgroup rule format: '{text}'")))?;
        given.rules.push(rule);
    }
    Ok(given)
}

fn add_device(
    mapping: &api::container::host_config::DeviceMapping,
    given: &mut Given,
) -> Result<(), Error> {
    let host_path = mapping.path_on_host.as_str();
    let found = devices::at(Path::new(host_path)).map_err(|error| {
        failed(format!(
            "error gathering device information while adding custom device \"{host_path}\": {}",
            go_errno(&error)
        ))
    })?;
    let resolved = std::fs::canonicalize(host_path).unwrap_or_else(|_| host_path.into());
    for mut device in found {
        let below = Path::new(&device.path)
            .strip_prefix(host_path)
            .or_else(|_| Path::new(&device.path).strip_prefix(&resolved));
        let mut target = std::path::PathBuf::from(match mapping.path_in_container.as_str() {
            "" => host_path,
            own => own,
        });
        if let Ok(below) = below
            && !below.as_os_str().is_empty()
        {
            target.push(below);
        }
        device.path = target.to_string_lossy().into_owned();
        let access = match mapping.cgroup_permissions.as_str() {
            "" => "rwm",
            own => own,
        };
        given.rules.push(device.rule(access));
        given.nodes.push(device.node());
    }
    Ok(())
}
