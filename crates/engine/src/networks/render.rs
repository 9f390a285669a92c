//! `NetworkSettings` of inspect and list. Pure.

use std::collections::BTreeMap;

use api::container::host_config::{PortBinding, PortMap};
use api::container::inspect::NetworkSettings;
use api::network::EndpointSettings;

use super::{Networks, ports};
use crate::state::{Attached, Bridged};
use crate::{Definition, Snapshot};

/// What dockerd 28.5.2 shows of a container's network at this moment.
pub(crate) fn settings(networks: &Networks, snapshot: &Snapshot) -> NetworkSettings {
    let definition = &snapshot.definition;
    let facts = &snapshot.facts;
    let mode = definition.host_config.network_mode.as_str();
    if mode.starts_with("container:") || definition.config.network_disabled {
        return NetworkSettings {
            networks: Some(BTreeMap::new()),
            ..NetworkSettings::default()
        };
    }
    let asked = definition.endpoints.get(mode).cloned().flatten();
    let mut endpoint = asked.unwrap_or_default();
    if facts.run > 0 {
        networks.id(mode).clone_into(&mut endpoint.network_id);
    }
    let mut settings = NetworkSettings::default();
    if let Some(attached) = &facts.network {
        fill_in(&mut endpoint, attached);
        settings.sandbox_id.clone_from(&attached.sandbox);
        // Where `nsenter --net=` finds it; nothing of ours stands in the host's mount table.
        if let Some(pid) = facts.pid {
            settings.sandbox_key = format!("/proc/{pid}/ns/net");
        }
        if let Some(bridged) = &attached.bridged {
            settings.ports = port_map(definition, bridged);
            settings.endpoint_id.clone_from(&endpoint.endpoint_id);
            settings.gateway.clone_from(&endpoint.gateway);
            settings.ip_address.clone_from(&endpoint.ip_address);
            settings.ip_prefix_len = endpoint.ip_prefix_len;
            settings.mac_address.clone_from(&endpoint.mac_address);
        }
    }
    settings.networks = Some(BTreeMap::from([(mode.to_owned(), Some(endpoint))]));
    settings
}

fn fill_in(endpoint: &mut EndpointSettings, attached: &Attached) {
    endpoint.endpoint_id.clone_from(&attached.endpoint);
    if let Some(bridged) = &attached.bridged {
        endpoint.gateway = bridged.gateway.to_string();
        endpoint.ip_address = bridged.ipv4.to_string();
        endpoint.ip_prefix_len = bridged.prefix.into();
        endpoint.mac_address = bridged.mac.to_string();
    }
}

/// Published ports with their places, exposed ones with none.
fn port_map(definition: &Definition, bridged: &Bridged) -> PortMap {
    let mut map: PortMap = ports::all(definition)
        .into_keys()
        .map(|(number, protocol)| (format!("{number}/{protocol}"), None))
        .collect();
    for port in &bridged.ports {
        let key = format!("{}/{}", port.container_port, port.protocol);
        let list = map.entry(key).or_default().get_or_insert_default();
        list.push(PortBinding {
            host_ip: port.host_ip.to_string(),
            host_port: port.host_port.to_string(),
        });
    }
    map
}
