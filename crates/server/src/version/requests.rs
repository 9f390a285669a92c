//! What each row of the create table does.

use api::container::CreateRequest;
use api::container::mount::{BindOptions, Mount};

/// Nothing to tell, nothing to refuse.
type Outcome = Result<Option<String>, String>;

fn mounts(request: &mut CreateRequest) -> impl Iterator<Item = &mut Mount> {
    request.host_config.mounts.iter_mut().flatten()
}

fn binds(request: &mut CreateRequest) -> impl Iterator<Item = &mut BindOptions> {
    mounts(request).filter_map(|mount| mount.bind_options.as_mut())
}

pub(super) fn unlimited_pids_are_no_limit(request: &mut CreateRequest) -> Outcome {
    let limit = &mut request.host_config.pids_limit;
    *limit = limit.filter(|limit| *limit > 0);
    Ok(None)
}

pub(super) fn no_non_recursive_binds(request: &mut CreateRequest) -> Outcome {
    binds(request).for_each(|bind| bind.non_recursive = false);
    Ok(None)
}

pub(super) fn no_kernel_tcp_memory(request: &mut CreateRequest) -> Outcome {
    request.host_config.kernel_memory_tcp = 0;
    Ok(None)
}

pub(super) fn ipc_was_shareable(request: &mut CreateRequest) -> Outcome {
    let mode = &mut request.host_config.ipc_mode;
    if mode.is_empty() {
        "shareable".clone_into(mode);
    }
    Ok(None)
}

pub(super) fn cgroup_namespace_was_the_hosts_on_v1(request: &mut CreateRequest) -> Outcome {
    let mode = &mut request.host_config.cgroupns_mode;
    if mode.is_empty() && !cgroup_v2() {
        "host".clone_into(mode);
    }
    Ok(None)
}

/// v2 alone has this file at the root of its one hierarchy.
fn cgroup_v2() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

pub(super) fn no_console_size(request: &mut CreateRequest) -> Outcome {
    request.host_config.console_size = [0, 0];
    Ok(None)
}

pub(super) fn options_of_other_mount_types_were_ignored(request: &mut CreateRequest) -> Outcome {
    for mount in mounts(request) {
        if mount.r#type != "bind" {
            mount.bind_options = None;
        }
        if mount.r#type != "volume" {
            mount.volume_options = None;
        }
        if mount.r#type != "tmpfs" {
            mount.tmpfs_options = None;
        }
    }
    Ok(None)
}

pub(super) fn no_create_mountpoint(request: &mut CreateRequest) -> Outcome {
    binds(request).for_each(|bind| bind.create_mountpoint = false);
    Ok(None)
}

pub(super) fn kernel_memory_is_gone(request: &mut CreateRequest) -> Outcome {
    request.host_config.kernel_memory = 0;
    Ok(None)
}

pub(super) fn no_annotations(request: &mut CreateRequest) -> Outcome {
    request.host_config.annotations = None;
    Ok(None)
}

pub(super) fn one_network_only(request: &mut CreateRequest) -> Outcome {
    if request.endpoints.len() > 1 {
        let names: Vec<&str> = request.endpoints.keys().map(String::as_str).collect();
        return Err(format!(
            "Container cannot be created with multiple network endpoints: {}",
            names.join(", ")
        ));
    }
    Ok(None)
}

pub(super) fn no_start_interval(request: &mut CreateRequest) -> Outcome {
    if let Some(check) = &mut request.config.healthcheck {
        check.start_interval = 0;
    }
    Ok(None)
}

pub(super) fn read_only_binds_were_not_recursive(request: &mut CreateRequest) -> Outcome {
    for mount in mounts(request).filter(|mount| mount.r#type == "bind") {
        let bind = mount.bind_options.get_or_insert_default();
        bind.read_only_non_recursive = mount.read_only;
        bind.read_only_force_recursive = false;
    }
    Ok(None)
}

pub(super) fn no_volume_subpath(request: &mut CreateRequest) -> Outcome {
    let asked = |mount: &mut Mount| {
        mount
            .volume_options
            .as_ref()
            .is_some_and(|options| !options.subpath.is_empty())
    };
    if mounts(request).any(asked) {
        return Err("VolumeOptions.Subpath needs API v1.45 or newer".to_owned());
    }
    Ok(None)
}

pub(super) fn no_gateway_priority(request: &mut CreateRequest) -> Outcome {
    for endpoint in request.endpoints.values_mut().flatten() {
        endpoint.gw_priority = 0;
    }
    Ok(None)
}

/// The default network is the bridge from here on, and the endpoint that was given for it is the bridge's.
pub(super) fn the_default_network_is_the_bridge(request: &mut CreateRequest) -> Outcome {
    request.name_default_network();
    Ok(None)
}

pub(super) fn no_mac_address_of_an_endpoint(request: &mut CreateRequest) -> Outcome {
    for endpoint in request.endpoints.values_mut().flatten() {
        endpoint.mac_address.clear();
    }
    Ok(None)
}

/// Whether the network mode gives the container an endpoint with an address of its own.
fn has_endpoint(request: &CreateRequest) -> bool {
    let mode = request.host_config.network_mode.as_str();
    !matches!(mode, "none" | "host") && !mode.starts_with("container:")
}

/// Gives a container-wide MAC address to the endpoint called `name`.
fn move_mac_address(request: &mut CreateRequest, name: String) -> Result<(), String> {
    let address = std::mem::take(&mut request.config.mac_address);
    let endpoint = request.endpoints.entry(name).or_default();
    let endpoint = endpoint.get_or_insert_default();
    if !endpoint.mac_address.is_empty() && endpoint.mac_address != address {
        return Err(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, \
             or be left empty"
                .to_owned(),
        );
    }
    endpoint.mac_address = address;
    Ok(())
}

/// Until 1.43 an only endpoint was the one of the network mode, whatever its name.
pub(super) fn mac_address_of_the_container(request: &mut CreateRequest) -> Outcome {
    if request.config.mac_address.is_empty() {
        return Ok(None);
    }
    if !has_endpoint(request) {
        return Err("conflicting options: mac-address and the network mode".to_owned());
    }
    let mode = &request.host_config.network_mode;
    let name = match request.endpoints.keys().next() {
        Some(only) if request.endpoints.len() == 1 => only.clone(),
        _ => mode.clone(),
    };
    move_mac_address(request, name).map(|()| None)
}

pub(super) fn mac_address_of_the_container_is_deprecated(request: &mut CreateRequest) -> Outcome {
    if request.config.mac_address.is_empty() {
        return Ok(None);
    }
    if has_endpoint(request) {
        let mode = request.host_config.network_mode.clone();
        if !request.endpoints.is_empty() && !request.endpoints.contains_key(&mode) {
            return Err(
                "unable to migrate container-wide MAC address to a specific network: HostConfig.NetworkMode must \
                 match the identity of a network in NetworkSettings.Networks"
                    .to_owned(),
            );
        }
        move_mac_address(request, mode)?;
    }
    request.config.mac_address.clear();
    Ok(Some(
        "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
            .to_owned(),
    ))
}
