//! The defaults that dockerd fills into a request that the rules let pass (moby `daemon/daemon_unix.go`,
//! `adaptContainerSettings`).

use api::container::config::Config;
use api::container::host_config::{HostConfig, Ulimit};

use super::rules::{mode_container, parse_link};
use super::{Host, Origin, none_if_empty, or_empty};
use crate::{ContainerId, Error};

/// Paths of /proc and /sys that a container without privileges must not read.
const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths of /proc that a container without privileges must not write.
const READONLY_PATHS: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Fills in dockerd's defaults.
pub(super) fn fill_in(
    config: &mut Config,
    host_config: &mut HostConfig,
    origin: &Origin<'_>,
    host: &Host<'_>,
) -> Result<(), Error> {
    let default = |own: &mut String, value: &str| {
        if own.is_empty() {
            value.clone_into(own);
        }
    };
    host_config.kernel_memory = 0;
    if host_config.memory_swappiness == Some(-1) {
        host_config.memory_swappiness = None;
    }
    if origin.image.is_some() {
        config.labels = or_empty(config.labels.take());
    }
    fill_in_modes(host_config, origin, host)?;
    let runtime = host.runtimes.first().map_or("", String::as_str);
    default(&mut host_config.runtime, runtime);
    default(&mut host_config.restart_policy.name, "no");
    if host_config.shm_size == 0 {
        host_config.shm_size = host.defaults.shm_size_bytes;
    }
    if !host_config.privileged {
        let owned = |paths: &[&str]| Some(paths.iter().map(ToString::to_string).collect());
        if host_config.masked_paths.is_none() {
            host_config.masked_paths = owned(MASKED_PATHS);
        }
        if host_config.readonly_paths.is_none() {
            host_config.readonly_paths = owned(READONLY_PATHS);
        }
    }
    let shares_host =
        host_config.ipc_mode == "host" || host_config.pid_mode == "host" || host_config.privileged;
    if shares_host {
        let label = "label=disable".to_owned();
        let options = host_config.security_opt.get_or_insert_default();
        if !options.contains(&label) {
            options.push(label);
        }
    }
    fill_in_ulimits(host_config, host);
    let hostname = match host_config.network_mode.as_str() {
        "host" => host.hostname,
        _ => origin.id.short(),
    };
    if mode_container(&host_config.network_mode).is_none() {
        default(&mut config.hostname, hostname);
    }
    Ok(())
}

fn fill_in_modes(
    host_config: &mut HostConfig,
    origin: &Origin<'_>,
    host: &Host<'_>,
) -> Result<(), Error> {
    let by_id = |id: &ContainerId| format!("container:{id}");
    // A network of a container that is not there yet is refused at start, as by dockerd.
    if let Some(name) = mode_container(&host_config.network_mode)
        && let Ok(id) = (host.find)(name)
    {
        host_config.network_mode = by_id(&id);
    }
    for mode in [&mut host_config.pid_mode, &mut host_config.ipc_mode] {
        if let Some(name) = mode_container(mode)
            && !name.is_empty()
        {
            let found = (host.find)(name).map_err(|error| Error::invalid(error.message))?;
            *mode = by_id(&found);
        }
    }
    if host_config.ipc_mode.is_empty() {
        host_config.ipc_mode.clone_from(&host.defaults.ipc_mode);
    }
    if host_config.cgroupns_mode.is_empty() {
        let default = host.defaults.cgroupns_mode.as_deref();
        let mode = cgroup_namespace(default, host.cgroup_v2, host_config.privileged);
        mode.clone_into(&mut host_config.cgroupns_mode);
    }
    for link in host_config.links.iter_mut().flatten() {
        let (target, alias) = parse_link(link)?;
        *link = format!("/{target}:/{}/{alias}", origin.name);
    }
    host_config.links = none_if_empty(host_config.links.take());
    Ok(())
}

fn fill_in_ulimits(host_config: &mut HostConfig, host: &Host<'_>) {
    for (name, soft, hard) in &host.defaults.ulimits {
        let own = host_config.ulimits.get_or_insert_default();
        if own.iter().all(|ulimit| ulimit.name != *name) {
            own.push(Ulimit {
                name: name.clone(),
                hard: *hard,
                soft: *soft,
            });
        }
    }
}

/// What a container gets that does not say: on v1 never its own when it is privileged, as by moby's
/// `adaptContainerSettings`.
fn cgroup_namespace(default: Option<&str>, v2: bool, privileged: bool) -> &'static str {
    let private = default.map_or(v2, |mode| mode == "private");
    match private && (v2 || !privileged) {
        true => "private",
        false => "host",
    }
}

#[cfg(test)]
mod tests {
    use super::cgroup_namespace;

    #[test]
    fn cgroup_namespaces_are_private_on_v2_for_privileged_containers_too() {
        for (default, v2, privileged, mode) in [
            (None, false, false, "host"),
            (None, false, true, "host"),
            (None, true, false, "private"),
            (None, true, true, "private"),
            (Some("private"), false, false, "private"),
            (Some("private"), false, true, "host"),
            (Some("host"), true, false, "host"),
            (Some("host"), true, true, "host"),
        ] {
            let found = cgroup_namespace(default, v2, privileged);
            assert_eq!(found, mode, "{default:?} {v2} {privileged}");
        }
    }
}
