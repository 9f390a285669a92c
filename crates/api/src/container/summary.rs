//! The rows of `GET /containers/json` (Go: `container.Summary`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::mount::MountPoint;
use crate::go;
use crate::image::Descriptor;
use crate::network::EndpointSettings;

/// One container in a list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerSummary {
    /// 64 hex digits.
    pub id: String,
    /// With leading slashes: its own and those of links.
    pub names: Vec<String>,
    /// The image as it was named at create, or its id when that name is another's now.
    pub image: String,
    /// Image id.
    #[serde(rename = "ImageID")]
    pub image_id: String,
    /// Manifest it was created from; only with a content store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_manifest_descriptor: Option<Descriptor>,
    /// The words joined by spaces, quoted where they hold spaces.
    pub command: String,
    /// Unix seconds.
    pub created: i64,
    /// Ports, exposed and published; never `null`.
    pub ports: Vec<Port>,
    /// Bytes of its own layer; only when asked for.
    #[serde(skip_serializing_if = "go::is_zero")]
    pub size_rw: i64,
    /// Bytes of everything; only when asked for.
    #[serde(skip_serializing_if = "go::is_zero")]
    pub size_root_fs: i64,
    /// Metadata.
    pub labels: Option<BTreeMap<String, String>>,
    /// As in inspect.
    pub state: String,
    /// For a person: `Up 8 seconds`.
    pub status: String,
    /// Network mode and annotations.
    pub host_config: SummaryHostConfig,
    /// Endpoints; `null` for a broken container.
    pub network_settings: Option<SummaryNetworkSettings>,
    /// What is mounted; never `null`.
    pub mounts: Vec<MountPoint>,
}

/// What a list shows of the host configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SummaryHostConfig {
    /// As in the host configuration.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network_mode: String,
    /// As in the host configuration.
    #[serde(skip_serializing_if = "go::none_or_empty_map")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// What a list shows of the network settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SummaryNetworkSettings {
    /// Endpoints by network name.
    pub networks: Option<BTreeMap<String, Option<EndpointSettings>>>,
}

/// One port in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Port {
    /// Address on the host.
    #[serde(rename = "IP", skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// Port inside.
    pub private_port: u16,
    /// Port on the host; absent when not published.
    #[serde(skip_serializing_if = "go::is_zero_u16")]
    pub public_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub r#type: String,
}
