//! What dockerd refuses, in its words: moby `daemon/container.go` (`verifyContainerSettings`),
//! `daemon/daemon_unix.go` and `runconfig/hostconfig_unix.go`. It changes nothing: defaults are `fill_in`'s.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::container::config::{Config, HealthConfig};
use api::container::host_config::{HostConfig, PortMap, RestartPolicy};
use api::network::EndpointsConfig;

use super::{Host, api_path};
use crate::Error;
use crate::error::Class;
use crate::spec::capabilities;
use crate::spec::security::SecurityOptions;

/// The shortest duration a health check may name: one millisecond, in nanoseconds.
const HEALTH_MIN_NS: i64 = 1_000_000;

fn refuse<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::invalid(text))
}

/// The container that a mode `container:<name>` names.
pub(crate) fn mode_container(mode: &str) -> Option<&str> {
    mode.strip_prefix("container:")
}

/// What can be seen from the request alone.
pub(super) fn check_request(
    config: &Config,
    host_config: &HostConfig,
    host: &Host<'_>,
) -> Result<(), Error> {
    check_network_mode(config, host_config)?;
    let runtime = host_config.cpu_realtime_runtime;
    let period = host_config.cpu_realtime_period;
    if runtime != 0 && period != 0 && runtime > period {
        return refuse("cpu real-time runtime cannot be higher than cpu real-time period");
    }
    if !matches!(host_config.uts_mode.as_str(), "" | "host") {
        return refuse(format!("invalid UTS mode: {}", host_config.uts_mode));
    }
    let pid_mode = host_config.pid_mode.as_str();
    let is_container = mode_container(pid_mode).is_some_and(|name| !name.is_empty());
    if !matches!(pid_mode, "" | "host") && !is_container {
        return refuse(format!("invalid PID mode: {pid_mode}"));
    }
    let ipc_mode = host_config.ipc_mode.as_str();
    let is_container = mode_container(ipc_mode).is_some();
    if !matches!(ipc_mode, "" | "none" | "host" | "private" | "shareable") && !is_container {
        return refuse(format!("invalid IPC mode: {ipc_mode}"));
    }
    if !matches!(host_config.cgroupns_mode.as_str(), "" | "private" | "host") {
        return refuse(format!(
            "invalid cgroup namespace mode: {}",
            host_config.cgroupns_mode
        ));
    }
    if !host_config.runtime.is_empty() && !host.runtimes.contains(&host_config.runtime) {
        return refuse(format!(
            "unknown or invalid runtime name: {}",
            host_config.runtime
        ));
    }
    Ok(())
}

fn check_network_mode(config: &Config, host_config: &HostConfig) -> Result<(), Error> {
    let is_set = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let mode = host_config.network_mode.as_str();
    let joins = mode_container(mode);
    if joins == Some("") || mode == "container" {
        return refuse("invalid network mode: invalid container format container:<name|id>");
    }
    let ports = host_config.port_bindings.as_ref();
    let publishes = host_config.publish_all_ports || ports.is_some_and(|ports| !ports.is_empty());
    let exposed = config.exposed_ports.as_ref();
    let conflicts = [
        (
            !config.hostname.is_empty(),
            "conflicting options: hostname and the network mode",
        ),
        (
            is_set(&host_config.links),
            "conflicting options: container type network can't be used with links. This would \
             result in undefined behavior",
        ),
        (
            is_set(&host_config.dns),
            "conflicting options: dns and the network mode",
        ),
        (
            is_set(&host_config.extra_hosts),
            "conflicting options: custom host-to-IP mapping and the network mode",
        ),
        (
            publishes,
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            exposed.is_some_and(|ports| !ports.is_empty()),
            "conflicting options: port exposing and the container type network mode",
        ),
    ];
    if joins.is_some()
        && let Some((_, text)) = conflicts.iter().find(|(conflict, _)| *conflict)
    {
        return refuse(*text);
    }
    if host_config.uts_mode == "host" && !config.hostname.is_empty() {
        return refuse("conflicting options: hostname and the UTS mode");
    }
    if mode == "host" && is_set(&host_config.links) {
        return refuse(
            "conflicting options: host type networking can't be used with links. This would \
             result in undefined behavior",
        );
    }
    Ok(())
}

/// The merged configuration; its working directory is cleaned.
pub(super) fn check_config(config: &mut Config) -> Result<(), Error> {
    if !config.working_dir.is_empty() {
        let cleaned = api_path(&config.working_dir);
        if !cleaned.starts_with('/') {
            return refuse(format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                config.working_dir
            ));
        }
        config.working_dir = cleaned;
    }
    let signal = config.stop_signal.as_str();
    let is_number = signal.parse::<i32>().is_ok_and(|number| number != 0);
    if !signal.is_empty() && !is_number && signal.parse::<sys::signal::Signal>().is_err() {
        return refuse(format!("invalid signal: {signal}"));
    }
    let mut env = config.env.iter().flatten();
    if let Some(variable) = env.find(|variable| variable.is_empty() || variable.starts_with('=')) {
        return refuse(format!("invalid environment variable: {variable}"));
    }
    match &config.healthcheck {
        Some(healthcheck) => check_health(healthcheck),
        None => Ok(()),
    }
}

/// Whether other containers are to be known by names of the client's choice.
pub(crate) fn has_links(host_config: &HostConfig) -> bool {
    host_config
        .links
        .as_ref()
        .is_some_and(|links| !links.is_empty())
}

/// Whether something is to be run regularly that says how the container is.
pub(crate) fn has_health_check(config: &Config) -> bool {
    let test = config
        .healthcheck
        .as_ref()
        .and_then(|health| health.test.as_ref());
    let kind = test.and_then(|test| test.first());
    kind.is_some_and(|kind| kind != "NONE")
}

fn check_health(health: &HealthConfig) -> Result<(), Error> {
    let durations = [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ];
    if let Some((name, _)) = durations
        .iter()
        .find(|(_, duration)| *duration != 0 && *duration < HEALTH_MIN_NS)
    {
        return refuse(format!("{name} in Healthcheck cannot be less than 1ms"));
    }
    if health.retries < 0 {
        return refuse("Retries in Healthcheck cannot be negative");
    }
    Ok(())
}

/// What does not depend on the machine.
pub(super) fn check_host_config(
    host_config: &HostConfig,
    warnings: &mut Vec<String>,
    host: &Host<'_>,
) -> Result<(), Error> {
    let restart = &host_config.restart_policy;
    if host_config.auto_remove && !matches!(restart.name.as_str(), "" | "no") {
        return refuse("can't create 'AutoRemove' container with restart policy");
    }
    super::mounts::check(host_config, warnings, host)?;
    for extra in host_config.extra_hosts.iter().flatten() {
        check_extra_host(extra)?;
    }
    if let Some(ports) = &host_config.port_bindings {
        check_ports(ports)?;
    }
    check_restart_policy(restart)?;
    capabilities::normalize(host_config.cap_add.as_deref())
        .map_err(|error| Error::invalid(format!("invalid CapAdd: {error}")))?;
    capabilities::normalize(host_config.cap_drop.as_deref())
        .map_err(|error| Error::invalid(format!("invalid CapDrop: {error}")))?;
    if !matches!(host_config.isolation.as_str(), "" | "default") {
        return refuse(format!(
            "invalid isolation ({}): linux only supports 'default'",
            host_config.isolation
        ));
    }
    let annotations = host_config.annotations.as_ref();
    if annotations.is_some_and(|annotations| annotations.contains_key("")) {
        return refuse(
            "invalid Annotations: the empty string is not permitted as an annotation key",
        );
    }
    Ok(())
}

fn check_extra_host(extra: &str) -> Result<(), Error> {
    let at = extra.find('=').or_else(|| extra.find(':'));
    let Some((name, address)) = at.map(|at| (&extra[..at], &extra[at + 1..])) else {
        return refuse(format!("bad format for add-host: \"{extra}\""));
    };
    if name.is_empty() || address.is_empty() {
        return refuse(format!("bad format for add-host: \"{extra}\""));
    }
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if address != "host-gateway" && bare.unwrap_or(address).parse::<IpAddr>().is_err() {
        return refuse(format!("invalid IP address in add-host: \"{address}\""));
    }
    Ok(())
}

fn check_ports(ports: &PortMap) -> Result<(), Error> {
    let bad = |text: &str| Error::invalid(format!("invalid port specification: \"{text}\""));
    for (port, bindings) in ports {
        let number = port
            .split_once('/')
            .map_or(port.as_str(), |(number, _)| number);
        if !number.is_empty() && number.parse::<u16>().is_err() {
            return Err(bad(number));
        }
        for binding in bindings.iter().flatten() {
            if !binding.host_port.is_empty() && port_range(&binding.host_port).is_none() {
                return Err(bad(&binding.host_port));
            }
        }
    }
    Ok(())
}

/// Reads `80` or `8000-8010`.
pub(crate) fn port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return None;
    }
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

fn check_restart_policy(policy: &RestartPolicy) -> Result<(), Error> {
    let count = policy.maximum_retry_count;
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" if count == 0 => Ok(()),
        "" | "no" | "always" | "unless-stopped" => {
            let negative = if count < 0 {
                " and cannot be negative"
            } else {
                ""
            };
            refuse(format!(
                "invalid restart policy: maximum retry count can only be used with \
                 'on-failure'{negative}"
            ))
        }
        "on-failure" if count < 0 => {
            refuse("invalid restart policy: maximum retry count cannot be negative")
        }
        "on-failure" => Ok(()),
        other => refuse(format!(
            "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', \
             'on-failure', or 'unless-stopped'"
        )),
    }
}

/// What depends on the machine and the daemon.
pub(super) fn check_platform(
    host_config: &HostConfig,
    warnings: &mut Vec<String>,
    host: &Host<'_>,
) -> Result<(), Error> {
    if host_config.shm_size < 0 {
        return refuse("SHM size can not be less than 0");
    }
    if !(-1000..=1000).contains(&host_config.oom_score_adj) {
        return refuse(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host_config.oom_score_adj
        ));
    }
    let ports = host_config.port_bindings.as_ref();
    if host_config.network_mode == "host" && ports.is_some_and(|ports| !ports.is_empty()) {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    SecurityOptions::parse(host_config.security_opt.as_deref().unwrap_or_default())
        .map_err(|error| Error::new(Class::Internal, error.to_string()))?;
    if let Some(option) = host_config
        .storage_opt
        .iter()
        .flat_map(BTreeMap::keys)
        .next()
    {
        let text = if option == "size" {
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option".into()
        } else {
            format!("Unknown option {option}")
        };
        return Err(Error::new(Class::Internal, text));
    }
    for link in host_config.links.iter().flatten() {
        let (target, _) = parse_link(link)?;
        (host.find)(target).map_err(|error| {
            Error::invalid(format!(
                "could not get container for {target}: {}",
                error.message
            ))
        })?;
    }
    Ok(())
}

/// `target[:alias]`.
pub(super) fn parse_link(link: &str) -> Result<(&str, &str), Error> {
    if link.is_empty() {
        return Err(Error::new(
            Class::Internal,
            "empty string specified for links",
        ));
    }
    let (target, alias) = link.split_once(':').unwrap_or((link, link));
    if alias.contains(':') {
        return Err(Error::new(
            Class::Internal,
            format!("bad format for links: {link}"),
        ));
    }
    let alias = alias.rsplit('/').next().unwrap_or(alias);
    Ok((target.trim_start_matches('/'), alias))
}

/// The settings of the network that the container starts in.
pub(super) fn check_endpoints(
    host_config: &HostConfig,
    endpoints: &EndpointsConfig,
) -> Result<(), Error> {
    let network = host_config.network_mode.as_str();
    let endpoint = endpoints.get(network).and_then(Option::as_ref);
    if let Some(mac) = endpoint.map(|endpoint| endpoint.mac_address.as_str())
        && !mac.is_empty()
        && !is_mac(mac)
        && mode_container(network).is_none()
    {
        return refuse(format!(
            "invalid config for network {network}: invalid MAC address {mac}"
        ));
    }
    let (Some(endpoint), "bridge") = (endpoint, network) else {
        return Ok(());
    };
    let mut errors = Vec::new();
    if let Some(ipam) = &endpoint.ipam_config {
        let addresses = [("IPv4", &ipam.ipv4_address), ("IPv6", &ipam.ipv6_address)];
        if addresses.iter().any(|(_, address)| !address.is_empty()) {
            errors.push(
                "user specified IP address is supported on user defined networks only".to_owned(),
            );
            for (family, address) in addresses {
                if !address.is_empty() && address.parse::<IpAddr>().is_err() {
                    errors.push(format!("invalid {family} address: {address}"));
                }
            }
            errors.push(
                "user specified IP address is supported only when connecting to networks with \
                 user configured subnets"
                    .to_owned(),
            );
        }
    }
    if endpoint
        .aliases
        .as_ref()
        .is_some_and(|aliases| !aliases.is_empty())
    {
        errors.push(
            "network-scoped alias is supported only for containers in user defined networks"
                .to_owned(),
        );
    }
    let text = match errors.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => many
            .iter()
            .map(|error| format!("* {error}"))
            .collect::<Vec<_>>()
            .join("\n"),
    };
    refuse(format!(
        "invalid config for network bridge: invalid endpoint settings:\n{text}"
    ))
}

fn is_mac(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let parts: Vec<&str> = text.split(separator).collect();
    let is_byte = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    parts.len() == 6 && parts.iter().all(is_byte)
}
