//! What `PortBindings`, `PublishAllPorts` and `ExposedPorts` together ask for. Pure.
//!
//! Two requests that dockerd 28.5.2 drops without a word are done as they say (DESIGN decision 18): a binding of
//! a port that is not exposed, and an empty list of bindings, which means any free port.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::container::host_config::PortBinding;
use network::{HostPort, PortRequest, Protocol};

use crate::Definition;
use crate::definition::port_range;

/// A port inside the container: number, then `tcp`, `udp` or `sctp`.
pub(super) type Inside = (u16, String);

/// Every port of a container with its bindings; none for one that is only exposed.
pub(super) fn all(definition: &Definition) -> BTreeMap<Inside, Vec<PortBinding>> {
    let mut ports: BTreeMap<Inside, Vec<PortBinding>> = BTreeMap::new();
    for port in definition.config.exposed_ports.iter().flatten() {
        for inside in parse(port.0) {
            ports.entry(inside).or_default();
        }
    }
    for (port, bindings) in definition.host_config.port_bindings.iter().flatten() {
        for inside in parse(port) {
            let list = ports.entry(inside).or_default();
            match bindings.as_deref() {
                None | Some([]) => list.push(PortBinding::default()),
                Some(bindings) => list.extend_from_slice(bindings),
            }
        }
    }
    if definition.host_config.publish_all_ports {
        for bindings in ports.values_mut().filter(|bindings| bindings.is_empty()) {
            bindings.push(PortBinding::default());
        }
    }
    ports
}

/// What the bridge is asked for, in the order in which it is shown: by port, those with an address first.
///
/// # Errors
/// The reason, in words for the client.
pub(super) fn requests(definition: &Definition) -> Result<Vec<PortRequest>, String> {
    let mut requests = Vec::new();
    for ((container_port, protocol), bindings) in all(definition) {
        if bindings.is_empty() {
            continue;
        }
        let protocol = match protocol.as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            other => return Err(format!("protocol not supported: {other}")),
        };
        let mut of_port = Vec::new();
        for binding in &bindings {
            let request = PortRequest {
                protocol,
                container_port,
                host_ip: host_ip(&binding.host_ip)?,
                host_port: host_port(&binding.host_port)?,
            };
            if !of_port.contains(&request) {
                of_port.push(request);
            }
        }
        // Who takes what he can get must not take what another asks for.
        of_port.sort_by_key(|request| {
            let everywhere = request
                .host_ip
                .is_none_or(|address| address.is_unspecified());
            let choosy = match request.host_port {
                HostPort::Fixed(_) => 0,
                HostPort::Range(..) => 1,
                HostPort::Any => 2,
            };
            (everywhere, choosy)
        });
        requests.extend(of_port);
    }
    Ok(requests)
}

/// `80`, `80/udp`, `8000-8010/tcp`; what is none of these (the rules refuse it) is nothing.
fn parse(text: &str) -> Vec<Inside> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    match port_range(numbers) {
        Some((first, last)) => (first..=last)
            .map(|number| (number, protocol.clone()))
            .collect(),
        None => Vec::new(),
    }
}

fn host_ip(text: &str) -> Result<Option<IpAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| format!("invalid host address: {text}"))
}

fn host_port(text: &str) -> Result<HostPort, String> {
    if text.is_empty() {
        return Ok(HostPort::Any);
    }
    match port_range(text) {
        Some((0, 0)) => Ok(HostPort::Any),
        Some((first, last)) if first == last => Ok(HostPort::Fixed(first)),
        Some((first, last)) => Ok(HostPort::Range(first, last)),
        None => Err(format!("invalid port specification: \"{text}\"")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(body: &serde_json::Value) -> Definition {
        let request = json!({"Image": "busybox", "Cmd": ["true"]});
        let (mut definition, _) = crate::reference::defined(&request, &json!({})).unwrap();
        let config = &mut definition.config;
        config.exposed_ports = serde_json::from_value(body["ExposedPorts"].clone()).unwrap();
        let host = &mut definition.host_config;
        host.port_bindings = serde_json::from_value(body["PortBindings"].clone()).unwrap();
        host.publish_all_ports = body["PublishAllPorts"] == true;
        definition
    }

    fn check(body: &serde_json::Value, expected: &[&str]) {
        let requests = requests(&definition(body)).unwrap();
        let shown: Vec<String> = requests
            .iter()
            .map(|request| {
                let ip = request.host_ip.map_or("*".to_owned(), |ip| ip.to_string());
                let PortRequest {
                    container_port,
                    protocol,
                    host_port,
                    ..
                } = request;
                format!("{ip} {host_port:?} {container_port}/{protocol}")
            })
            .collect();
        assert_eq!(shown, expected, "{body}");
    }

    #[test]
    fn bindings_say_what_is_published() {
        let exposed = json!({"80/tcp": {}, "81/tcp": {}, "90/udp": {}});
        check(&json!({"ExposedPorts": exposed}), &[]);
        let all = json!({"ExposedPorts": exposed, "PublishAllPorts": true,
            "PortBindings": {"81/tcp": [{"HostPort": "29095-29097"}, {"HostIp": "127.0.0.1", "HostPort": "29099"}]}});
        check(
            &all,
            &[
                "* Any 80/tcp",
                "127.0.0.1 Fixed(29099) 81/tcp",
                "* Range(29095, 29097) 81/tcp",
                "* Any 90/udp",
            ],
        );
    }

    #[test]
    fn nothing_means_any_port() {
        for list in [
            json!([]),
            json!(null),
            json!([{}]),
            json!([{"HostPort": "0"}]),
        ] {
            let body = json!({"ExposedPorts": {"80/tcp": {}}, "PortBindings": {"80/tcp": list}});
            check(&body, &["* Any 80/tcp"]);
        }
    }

    #[test]
    fn a_binding_needs_no_exposed_port_and_no_protocol() {
        let body = json!({"ExposedPorts": null, "PortBindings": {"8080": [{"HostIp": "::1", "HostPort": "9090"}]}});
        check(&body, &["::1 Fixed(9090) 8080/tcp"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let sctp = json!({"ExposedPorts": null, "PortBindings": {"80/sctp": [{}]}});
        let reason = requests(&definition(&sctp)).unwrap_err();
        assert_eq!(reason, "protocol not supported: sctp");
    }
}
