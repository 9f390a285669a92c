//! The PORTS column, and the filters `publish` and `expose`.

use api::container::host_config::PortMap;
use api::container::summary::Port;

use super::View;
use crate::definition::port_range;

/// `80/tcp` taken apart; TCP unless it says otherwise.
fn split(port: &str) -> (&str, &str) {
    port.split_once('/').unwrap_or((port, "tcp"))
}

/// The ports of a container: published ones from the network's settings while it runs, exposed ones else.
pub(super) fn list(published: &PortMap) -> Vec<Port> {
    let mut ports = Vec::new();
    for (port, bindings) in published {
        let (number, protocol) = split(port);
        let Ok(private_port) = number.parse() else {
            continue;
        };
        let line = |ip: &str, public_port| Port {
            ip: ip.to_owned(),
            private_port,
            public_port,
            r#type: protocol.to_owned(),
        };
        match bindings {
            None => ports.push(line("", 0)),
            Some(bindings) => ports.extend(
                bindings
                    .iter()
                    .map(|binding| line(&binding.host_ip, binding.host_port.parse().unwrap_or(0))),
            ),
        }
    }
    // The places of one port stay as they are.
    ports.sort_by(|one, other| {
        (one.private_port, &one.r#type).cmp(&(other.private_port, &other.r#type))
    });
    ports
}

/// A range of ports of one protocol, as a filter names it.
#[derive(Debug, PartialEq)]
pub(super) struct Range {
    first: u16,
    last: u16,
    protocol: String,
}

impl Range {
    /// Reads `80`, `80/udp` or `8000-8010/tcp`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (numbers, protocol) = split(text);
        let (first, last) = port_range(numbers).ok_or_else(|| {
            let is_number = !numbers.is_empty() && numbers.bytes().all(|b| b.is_ascii_digit());
            let why = if is_number {
                "value out of range"
            } else {
                "invalid syntax"
            };
            format!("strconv.ParseUint: parsing \"{numbers}\": {why}")
        })?;
        Ok(Self {
            first,
            last,
            protocol: protocol.to_owned(),
        })
    }

    fn includes(&self, number: u16, protocol: &str) -> bool {
        (self.first..=self.last).contains(&number) && self.protocol == protocol
    }
}

/// Whether a port in one of the ranges leads to the container.
pub(super) fn publishes(view: &View, ranges: &[Range]) -> bool {
    let none = PortMap::new();
    let asked = view
        .snapshot
        .definition
        .host_config
        .port_bindings
        .as_ref()
        .unwrap_or(&none);
    asked
        .iter()
        .chain(&view.network.ports)
        .any(|(port, bindings)| {
            let (_, protocol) = split(port);
            bindings.iter().flatten().any(|binding| {
                let number = binding.host_port.parse();
                number
                    .is_ok_and(|number| ranges.iter().any(|range| range.includes(number, protocol)))
            })
        })
}

/// Whether the container has a port in one of the ranges.
pub(super) fn exposes(view: &View, ranges: &[Range]) -> bool {
    let exposed = view
        .snapshot
        .definition
        .config
        .exposed_ports
        .iter()
        .flatten();
    let mut ports = exposed
        .map(|(port, _)| port)
        .chain(view.network.ports.keys());
    ports.any(|port| {
        let (number, protocol) = split(port);
        let number = number.parse();
        number.is_ok_and(|number| ranges.iter().any(|range| range.includes(number, protocol)))
    })
}
