//! The answer to `GET /containers/{id}/json` (Go: `container.InspectResponse`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::config::Config;
use super::host_config::{HostConfig, PortMap};
use super::mount::MountPoint;
use crate::go::Empty;
use crate::image::{Descriptor, GraphDriver};
use crate::network::EndpointSettings;
use crate::time::Time;

/// Everything about one container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerInspect {
    /// 64 hex digits.
    pub id: String,
    /// When it was created.
    pub created: Time,
    /// First word of what runs.
    pub path: String,
    /// The other words; never `null`.
    pub args: Vec<String>,
    /// What it does now.
    pub state: State,
    /// Image id (`sha256:…`).
    pub image: String,
    /// Path on the host; empty before the first start.
    pub resolv_conf_path: String,
    /// Path on the host; empty before the first start.
    pub hostname_path: String,
    /// Path on the host; empty before the first start.
    pub hosts_path: String,
    /// The log file, if the driver has one.
    pub log_path: String,
    /// With a leading slash.
    pub name: String,
    /// How often the restart policy started it again.
    pub restart_count: i64,
    /// Storage driver.
    pub driver: String,
    /// Operating system of the image.
    pub platform: String,
    /// SELinux.
    pub mount_label: String,
    /// SELinux.
    pub process_label: String,
    /// AppArmor.
    pub app_armor_profile: String,
    /// Execs that have not ended; `null` when there are none.
    #[serde(rename = "ExecIDs")]
    pub exec_ids: Option<Vec<String>>,
    /// As created, with defaults filled in.
    pub host_config: HostConfig,
    /// Where its file system is.
    pub graph_driver: GraphDriver,
    /// Bytes of its own layer; only when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<i64>,
    /// Bytes of everything; only when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<i64>,
    /// What is mounted; never `null`.
    pub mounts: Vec<MountPoint>,
    /// As created, with the image's values filled in.
    pub config: Config,
    /// Addresses and ports.
    pub network_settings: NetworkSettings,
    /// Manifest it was created from; only with a content store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_manifest_descriptor: Option<Descriptor>,
}

/// What a container does now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct State {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub status: String,
    /// True also while paused and restarting.
    pub running: bool,
    /// Frozen.
    pub paused: bool,
    /// Between an end and the next start.
    pub restarting: bool,
    /// The kernel killed it for memory.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// Could not be removed whole.
    pub dead: bool,
    /// On the host; 0 when not running.
    pub pid: i64,
    /// Of the last run.
    pub exit_code: i64,
    /// Why the last start failed.
    pub error: String,
    /// Last start; Go's zero time before the first.
    pub started_at: Time,
    /// Last end; Go's zero time before the first.
    pub finished_at: Time,
    /// Only with a health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// What the health check found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Health {
    /// `none`, `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: i64,
    /// The last five checks.
    pub log: Option<Vec<HealthcheckResult>>,
}

/// One health check.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthcheckResult {
    /// When it began.
    pub start: Time,
    /// When it ended.
    pub end: Time,
    /// 0 healthy, 1 unhealthy, others: could not be run.
    pub exit_code: i64,
    /// What it wrote, cut.
    pub output: String,
}

/// Addresses and ports. The fields from `bridge` to `mac_address` are the default bridge's, for clients below 1.52.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkSettings {
    /// Legacy; empty.
    pub bridge: String,
    /// Id of the network namespace; empty when not running.
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    /// Path of the network namespace; empty when not running.
    pub sandbox_key: String,
    /// Exposed ports and where they are published; `null` for one that is not. Never `null` itself.
    pub ports: PortMap,
    /// Legacy.
    pub hairpin_mode: bool,
    /// Legacy.
    #[serde(rename = "LinkLocalIPv6Address")]
    pub link_local_ipv6_address: String,
    /// Legacy.
    #[serde(rename = "LinkLocalIPv6PrefixLen")]
    pub link_local_ipv6_prefix_len: i64,
    /// Legacy.
    #[serde(rename = "SecondaryIPAddresses")]
    pub secondary_ip_addresses: Option<Vec<Address>>,
    /// Legacy.
    #[serde(rename = "SecondaryIPv6Addresses")]
    pub secondary_ipv6_addresses: Option<Vec<Address>>,
    /// Of the default bridge's endpoint.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Of the default bridge's endpoint.
    pub gateway: String,
    /// Of the default bridge's endpoint.
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    /// Of the default bridge's endpoint.
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: i64,
    /// Of the default bridge's endpoint.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    /// Of the default bridge's endpoint.
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: i64,
    /// Of the default bridge's endpoint.
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    /// Of the default bridge's endpoint.
    pub mac_address: String,
    /// Endpoints by network name.
    pub networks: Option<BTreeMap<String, Option<EndpointSettings>>>,
}

/// A legacy secondary address.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Address {
    /// The address.
    pub addr: String,
    /// Bits of its network.
    pub prefix_len: i64,
}

/// A set of names as Go writes it: `{"name":{}}`.
pub type NameSet = BTreeMap<String, Empty>;

/// Only the sizes of a container, which inspect and list compute on demand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of its own layer.
    pub rw: i64,
    /// Bytes of everything.
    pub root_fs: i64,
}

impl ContainerInspect {
    /// Puts in the sizes that `?size=1` asks for.
    #[must_use]
    pub fn with_sizes(mut self, sizes: Sizes) -> Self {
        self.size_rw = Some(sizes.rw);
        self.size_root_fs = Some(sizes.root_fs);
        self
    }
}
