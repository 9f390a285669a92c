//! Networks and endpoints on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::go;
use crate::time::Time;

/// Endpoints by network name or id, as a create body gives them; `None` as a value means all defaults.
pub type EndpointsConfig = BTreeMap<String, Option<EndpointSettings>>;

/// The networks of a create body.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkingConfig {
    /// Endpoints by network name or id.
    pub endpoints_config: Option<EndpointsConfig>,
}

/// A container's place in a network: what was asked for, then what it got.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EndpointSettings {
    /// Addresses asked for.
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: Option<EndpointIpamConfig>,
    /// `container:alias`.
    pub links: Option<Vec<String>>,
    /// More names in this network.
    pub aliases: Option<Vec<String>>,
    /// Asked for, or what it got.
    pub mac_address: String,
    /// Options for the network driver.
    pub driver_opts: Option<BTreeMap<String, String>>,
    /// The endpoint with the highest one has the default gateway.
    pub gw_priority: i64,
    /// Network id.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// Endpoint id; empty when not running.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// IPv4 gateway.
    pub gateway: String,
    /// IPv4 address.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// Bits of the IPv4 network.
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: i64,
    /// IPv6 gateway.
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    /// IPv6 address.
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    /// Bits of the IPv6 network.
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: i64,
    /// All names in this network.
    #[serde(rename = "DNSNames")]
    pub dns_names: Option<Vec<String>>,
}

/// Addresses asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EndpointIpamConfig {
    /// IPv4.
    #[serde(rename = "IPv4Address", skip_serializing_if = "String::is_empty")]
    pub ipv4_address: String,
    /// IPv6.
    #[serde(rename = "IPv6Address", skip_serializing_if = "String::is_empty")]
    pub ipv6_address: String,
    /// Link-local ones.
    #[serde(rename = "LinkLocalIPs", skip_serializing_if = "go::none_or_empty")]
    pub link_local_ips: Option<Vec<String>>,
}

/// A network, as `GET /networks` and `GET /networks/{id}` show it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Network {
    /// Its name.
    pub name: String,
    /// 64 hex digits.
    pub id: String,
    /// When it was created.
    pub created: Time,
    /// `local`.
    pub scope: String,
    /// `bridge`, `host`, `null`, …
    pub driver: String,
    /// Whether containers get IPv4 addresses.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    /// Whether containers get IPv6 addresses.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Its address pools.
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    /// No way out.
    pub internal: bool,
    /// Swarm only.
    pub attachable: bool,
    /// Swarm only.
    pub ingress: bool,
    /// Swarm only.
    pub config_from: ConfigReference,
    /// Swarm only.
    pub config_only: bool,
    /// Endpoints by container id; empty in lists from 1.28 on. Never `null`.
    pub containers: BTreeMap<String, EndpointResource>,
    /// Driver options.
    pub options: Option<BTreeMap<String, String>>,
    /// Metadata.
    pub labels: Option<BTreeMap<String, String>>,
}

/// Where a configuration comes from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ConfigReference {
    /// Name of the other network.
    pub network: String,
}

/// Address pools of a network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ipam {
    /// `default`.
    pub driver: String,
    /// Driver options.
    pub options: Option<BTreeMap<String, String>>,
    /// The pools.
    pub config: Option<Vec<IpamConfig>>,
}

/// One address pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IpamConfig {
    /// CIDR.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    /// CIDR; addresses for containers come from here.
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    pub ip_range: String,
    /// Address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// Reserved addresses by name.
    #[serde(
        rename = "AuxiliaryAddresses",
        skip_serializing_if = "go::none_or_empty_map"
    )]
    pub auxiliary_addresses: Option<BTreeMap<String, String>>,
}

/// One endpoint as a network shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EndpointResource {
    /// The container's name.
    pub name: String,
    /// Endpoint id.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// MAC.
    pub mac_address: String,
    /// CIDR.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    /// CIDR.
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

/// The body of `POST /networks/create`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateRequest {
    /// Obsolete: names are always checked.
    #[serde(skip_serializing_if = "go::is_false")]
    pub check_duplicate: bool,
    /// Its name.
    pub name: String,
    /// Empty means `bridge`.
    pub driver: String,
    /// Swarm only.
    pub scope: String,
    /// `None` means yes.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: Option<bool>,
    /// `None` means the daemon's default.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: Option<bool>,
    /// Address pools.
    #[serde(rename = "IPAM")]
    pub ipam: Option<Ipam>,
    /// No way out.
    pub internal: bool,
    /// Swarm only.
    pub attachable: bool,
    /// Swarm only.
    pub ingress: bool,
    /// Swarm only.
    pub config_only: bool,
    /// Swarm only.
    pub config_from: Option<ConfigReference>,
    /// Driver options.
    pub options: Option<BTreeMap<String, String>>,
    /// Metadata.
    pub labels: Option<BTreeMap<String, String>>,
}

/// The answer to `POST /networks/create`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateResponse {
    /// 64 hex digits.
    pub id: String,
    /// One text, or empty.
    pub warning: String,
}

/// The body of `POST /networks/{id}/connect`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ConnectRequest {
    /// Id or name.
    pub container: String,
    /// What is asked for.
    pub endpoint_config: Option<EndpointSettings>,
}

/// The body of `POST /networks/{id}/disconnect`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DisconnectRequest {
    /// Id or name.
    pub container: String,
    /// Even if the container does not exist any more.
    pub force: bool,
}
