//! The networks as clients see them: list, filters, lookup by what was typed (moby `daemon/network.go`,
//! `daemon/network/filter.go`).

use std::collections::BTreeMap;

use api::filters::Filters;
use api::network::{EndpointResource, Ipam, IpamConfig, Network};
use api::time::Time;

use super::{Bridge, Identity, PREDEFINED};
use crate::{Class, Engine, Error, Snapshot};

/// The filters that `GET /networks` takes.
const ACCEPTED: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

/// What dockerd calls an engine's own networks.
const SCOPE: &str = "local";

impl Engine {
    /// Lists networks with the endpoints in them (`GET /networks`), by name.
    ///
    /// # Errors
    /// InvalidParameter for filters.
    pub fn networks_list(&self, filters: &Filters) -> Result<Vec<Network>, Error> {
        filters
            .validate(&ACCEPTED)
            .map_err(|error| Error::invalid(error.to_string()))?;
        let mut networks = self.networks_shown();
        filter(&mut networks, filters)?;
        Ok(networks)
    }

    /// Shows a network (`GET /networks/{id}`) by id, name or unique prefix of an id.
    ///
    /// # Errors
    /// NotFound, InvalidParameter for an ambiguous prefix.
    pub fn network_inspect(&self, name: &str, scope: &str) -> Result<Network, Error> {
        let mut networks = self.networks_shown();
        networks.retain(|network| scope.is_empty() || network.scope == scope);
        find(networks, name)
    }

    fn networks_shown(&self) -> Vec<Network> {
        let snapshots: Vec<_> = self
            .index()
            .all()
            .iter()
            .map(|one| one.snapshot())
            .collect();
        let networks = &self.inner().networks;
        let drivers: BTreeMap<&str, &str> = PREDEFINED.into();
        let there = networks.ids.iter().filter_map(|(name, identity)| {
            let driver = drivers.get(name.as_str())?;
            let is_there = name != "bridge" || !matches!(networks.bridge, Bridge::Off);
            is_there.then_some((name, identity, driver))
        });
        there
            .map(|(name, identity, driver)| {
                let mut network = shown(name, identity, driver);
                if name == "bridge" {
                    self.describe_bridge(&mut network);
                }
                network.containers = snapshots
                    .iter()
                    .filter(|snapshot| snapshot.definition.host_config.network_mode == *name)
                    .filter_map(|snapshot| Some((snapshot.id().to_string(), endpoint(snapshot)?)))
                    .collect();
                network
            })
            .collect()
    }

    /// The options under which dockerd shows how its default bridge was set up.
    fn describe_bridge(&self, shown: &mut Network) {
        let wanted = &self.config().bridge;
        let host_ip = wanted
            .host_ip
            .map_or_else(|| "0.0.0.0".to_owned(), |address| address.to_string());
        let mtu = wanted.mtu_bytes.unwrap_or(network::MTU_BYTES).to_string();
        let options = [
            ("bridge.default_bridge", "true".to_owned()),
            ("bridge.enable_icc", wanted.icc.to_string()),
            ("bridge.enable_ip_masquerade", wanted.masquerade.to_string()),
            ("bridge.host_binding_ipv4", host_ip),
            ("bridge.name", wanted.name.clone().unwrap_or_default()),
            ("driver.mtu", mtu),
        ];
        let options = options.map(|(key, value)| (format!("com.docker.network.{key}"), value));
        shown.options = Some(options.into());
        if let Bridge::Up(bridge) = &self.inner().networks.bridge {
            shown.ipam.config = Some(vec![IpamConfig {
                subnet: bridge.subnet().to_string(),
                gateway: bridge.gateway().to_string(),
                ..IpamConfig::default()
            }]);
        }
    }
}

fn shown(name: &str, identity: &Identity, driver: &str) -> Network {
    Network {
        name: name.to_owned(),
        id: identity.id.clone(),
        created: Time::from_unix_nanos(identity.created_ns),
        scope: SCOPE.to_owned(),
        driver: driver.to_owned(),
        enable_ipv4: true,
        ipam: Ipam {
            driver: "default".to_owned(),
            ..Ipam::default()
        },
        options: Some(BTreeMap::new()),
        labels: Some(BTreeMap::new()),
        ..Network::default()
    }
}

/// What a network shows of a container that is in it now.
fn endpoint(snapshot: &Snapshot) -> Option<EndpointResource> {
    let attached = snapshot.facts.network.as_ref()?;
    let mut endpoint = EndpointResource {
        name: snapshot.name.to_string(),
        endpoint_id: attached.endpoint.clone(),
        ..EndpointResource::default()
    };
    if let Some(bridged) = &attached.bridged {
        endpoint.mac_address = bridged.mac.to_string();
        endpoint.ipv4_address = format!("{}/{}", bridged.ipv4, bridged.prefix);
    }
    Some(endpoint)
}

/// Keeps what the filters, whose keys are known ones, let through.
fn filter(networks: &mut Vec<Network>, filters: &Filters) -> Result<(), Error> {
    let refused = |_: api::filters::FilterError| {
        Error::invalid(
            "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")",
        )
    };
    let (id, name) = (filters.pattern("id"), filters.pattern("name"));
    let none = BTreeMap::new();
    networks.retain(|network| {
        let labels = network.labels.as_ref().unwrap_or(&none);
        filters.matches_exactly("driver", &network.driver)
            && filters.matches_exactly("scope", &network.scope)
            && filters.matches_labels("label", labels)
            && id.matches(&network.id)
            && name.matches(&network.name)
    });
    // Networks that every engine has never dangle.
    if filters.boolean("dangling").map_err(refused)? == Some(true) {
        networks.clear();
    }
    if !filters.contains("type") {
        return Ok(());
    }
    let mut builtin = false;
    for kind in filters.values("type") {
        match kind {
            "builtin" => builtin = true,
            "custom" => {}
            other => {
                let text = format!("invalid filter: 'type'='{other}'");
                return Err(Error::new(Class::Internal, text));
            }
        }
    }
    if !builtin {
        networks.clear();
    }
    Ok(())
}

/// The full id, then the exact name, then a prefix that only one id has.
fn find(mut networks: Vec<Network>, name: &str) -> Result<Network, Error> {
    let exact = networks
        .iter()
        .position(|network| network.id == name)
        .or_else(|| networks.iter().position(|network| network.name == name));
    if let Some(at) = exact {
        return Ok(networks.swap_remove(at));
    }
    networks.retain(|network| network.id.starts_with(name));
    let count = networks.len();
    match (networks.pop(), count) {
        (Some(found), 1) => Ok(found),
        (Some(_), _) => Err(Error::invalid(format!(
            "network {name} is ambiguous ({count} matches found based on ID prefix)"
        ))),
        (None, _) => Err(Error::not_found(format!("network {name} not found"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks() -> Vec<Network> {
        let one = |(name, driver): &(&str, &str), id: &str| {
            let identity = Identity {
                id: id.to_owned(),
                created_ns: 0,
            };
            shown(name, &identity, driver)
        };
        PREDEFINED
            .iter()
            .zip(["ab1", "ab2", "host"])
            .map(|(network, id)| one(network, id))
            .collect()
    }

    fn filtered(text: &str) -> Result<Vec<String>, String> {
        let mut all = networks();
        let filters = Filters::parse(text).unwrap();
        filter(&mut all, &filters).map_err(|error| error.message)?;
        Ok(all.into_iter().map(|network| network.name).collect())
    }

    #[test]
    fn filters_are_dockerds() {
        let all = ["bridge", "host", "none"].map(str::to_owned).to_vec();
        let some = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(filtered(""), Ok(all.clone()));
        assert_eq!(filtered(r#"{"driver":["null"]}"#), some(&["none"]));
        assert_eq!(filtered(r#"{"name":["o"]}"#), some(&["host", "none"]));
        assert_eq!(filtered(r#"{"id":["ab"]}"#), some(&["bridge", "host"]));
        assert_eq!(filtered(r#"{"scope":["swarm"]}"#), some(&[]));
        assert_eq!(filtered(r#"{"label":["x"]}"#), some(&[]));
        assert_eq!(filtered(r#"{"dangling":["true"]}"#), some(&[]));
        assert_eq!(filtered(r#"{"dangling":["false"]}"#), Ok(all.clone()));
        assert_eq!(filtered(r#"{"type":["custom"]}"#), some(&[]));
        assert_eq!(filtered(r#"{"type":["builtin"]}"#), Ok(all));
        let told = "invalid filter: 'type'='x'".to_owned();
        assert_eq!(filtered(r#"{"type":["x"]}"#), Err(told));
    }

    #[test]
    fn a_full_id_wins_over_a_name_and_a_prefix_must_be_the_only_one() {
        let found = |name: &str| find(networks(), name).map(|network| network.name);
        assert_eq!(found("ab1").unwrap(), "bridge");
        // The id of `none` here.
        assert_eq!(found("host").unwrap(), "none");
        assert_eq!(found("hos").unwrap(), "none");
        assert_eq!(
            found("ab").unwrap_err().message,
            "network ab is ambiguous (2 matches found based on ID prefix)"
        );
        assert_eq!(found("x").unwrap_err().message, "network x not found");
    }
}
