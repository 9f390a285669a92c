//! The engine itself on the wire: `/version`, `/info`, `/system/df`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::container::summary::ContainerSummary;
use crate::go;
use crate::image::ImageSummary;
use crate::time::Time;
use crate::volume::Volume;

/// The answer to `GET /version`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SystemVersion {
    /// Who made it.
    pub platform: PlatformName,
    /// Its parts.
    pub components: Vec<Component>,
    /// Of the engine.
    pub version: String,
    /// Newest API it speaks.
    pub api_version: String,
    /// Oldest API it speaks.
    #[serde(rename = "MinAPIVersion")]
    pub min_api_version: String,
    /// What it was built from.
    pub git_commit: String,
    /// Clients print it.
    pub go_version: String,
    /// Go's name of the system.
    pub os: String,
    /// Go's name of the architecture.
    pub arch: String,
    /// As `uname -r`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kernel_version: String,
    /// Absent unless on.
    #[serde(skip_serializing_if = "go::is_false")]
    pub experimental: bool,
    /// When it was built.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub build_time: String,
}

/// Who made an engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PlatformName {
    /// Their name for it.
    pub name: String,
}

/// One part of an engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Component {
    /// `Engine`, …
    pub name: String,
    /// Its version.
    pub version: String,
    /// More about it.
    pub details: Option<BTreeMap<String, String>>,
}

/// The answer to `GET /info`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SystemInfo {
    /// Of the engine; kept over restarts.
    #[serde(rename = "ID")]
    pub id: String,
    /// All of them.
    pub containers: i64,
    /// Of these, running.
    pub containers_running: i64,
    /// Of these, paused.
    pub containers_paused: i64,
    /// Of these, neither.
    pub containers_stopped: i64,
    /// All of them.
    pub images: i64,
    /// Storage driver.
    pub driver: String,
    /// Pairs of name and value.
    pub driver_status: Option<Vec<[String; 2]>>,
    /// Legacy.
    #[serde(skip_serializing_if = "go::none_or_empty")]
    pub system_status: Option<Vec<[String; 2]>>,
    /// Drivers.
    pub plugins: PluginsInfo,
    /// Whether memory can be limited.
    pub memory_limit: bool,
    /// Whether swap can be limited.
    pub swap_limit: bool,
    /// v1 only.
    #[serde(skip_serializing_if = "go::is_false")]
    pub kernel_memory: bool,
    /// v1 only.
    #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "go::is_false")]
    pub kernel_memory_tcp: bool,
    /// Whether CPU quotas work.
    pub cpu_cfs_period: bool,
    /// Whether CPU quotas work.
    pub cpu_cfs_quota: bool,
    /// Whether CPU shares work.
    #[serde(rename = "CPUShares")]
    pub cpu_shares: bool,
    /// Whether CPU sets work.
    #[serde(rename = "CPUSet")]
    pub cpu_set: bool,
    /// Whether processes can be limited.
    pub pids_limit: bool,
    /// Whether the kernel forwards.
    #[serde(rename = "IPv4Forwarding")]
    pub ipv4_forwarding: bool,
    /// Below 1.50 only.
    #[serde(rename = "BridgeNfIptables", skip_serializing_if = "Option::is_none")]
    pub bridge_nf_iptables: Option<bool>,
    /// Below 1.50 only.
    #[serde(rename = "BridgeNfIp6tables", skip_serializing_if = "Option::is_none")]
    pub bridge_nf_ip6tables: Option<bool>,
    /// Whether it logs more.
    pub debug: bool,
    /// Open files.
    pub n_fd: i64,
    /// Whether the OOM killer can be switched off (v1).
    pub oom_kill_disable: bool,
    /// Tasks.
    pub n_goroutines: i64,
    /// The clock.
    pub system_time: String,
    /// Default log driver.
    pub logging_driver: String,
    /// `cgroupfs` or `systemd`.
    pub cgroup_driver: String,
    /// `1` or `2`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cgroup_version: String,
    /// Clients that listen to events.
    pub n_events_listener: i64,
    /// As `uname -r`.
    pub kernel_version: String,
    /// As /etc/os-release.
    pub operating_system: String,
    /// As /etc/os-release.
    #[serde(rename = "OSVersion")]
    pub os_version: String,
    /// `linux`.
    #[serde(rename = "OSType")]
    pub os_type: String,
    /// As `uname -m`.
    pub architecture: String,
    /// The constant of Docker Hub.
    pub index_server_address: String,
    /// How registries are reached.
    pub registry_config: Option<RegistryConfig>,
    /// CPUs.
    #[serde(rename = "NCPU")]
    pub ncpu: i64,
    /// Bytes.
    pub mem_total: i64,
    /// Swarm only.
    pub generic_resources: Option<Vec<go::Empty>>,
    /// The data root.
    pub docker_root_dir: String,
    /// For registries; secrets masked.
    pub http_proxy: String,
    /// For registries; secrets masked.
    pub https_proxy: String,
    /// For registries.
    pub no_proxy: String,
    /// Host name.
    pub name: String,
    /// Of the engine; never `null`.
    pub labels: Vec<String>,
    /// Whether experimental features are on.
    pub experimental_build: bool,
    /// As in `/version`.
    pub server_version: String,
    /// By name.
    pub runtimes: Option<BTreeMap<String, RuntimeInfo>>,
    /// Name of one of them.
    pub default_runtime: String,
    /// Always inactive.
    pub swarm: SwarmInfo,
    /// Whether containers survive the daemon: here always.
    pub live_restore_enabled: bool,
    /// Windows only.
    pub isolation: String,
    /// What `--init` runs.
    pub init_binary: String,
    /// Legacy.
    pub containerd_commit: Commit,
    /// Legacy.
    pub runc_commit: Commit,
    /// Legacy.
    pub init_commit: Commit,
    /// `name=seccomp,profile=builtin`, …
    pub security_options: Option<Vec<String>>,
    /// Enterprise edition only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub product_license: String,
    /// Address pools for new networks.
    #[serde(skip_serializing_if = "go::none_or_empty")]
    pub default_address_pools: Option<Vec<AddressPool>>,
    /// Who writes firewall rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firewall_backend: Option<FirewallInfo>,
    /// Where device specs are.
    #[serde(rename = "CDISpecDirs")]
    pub cdi_spec_dirs: Option<Vec<String>>,
    /// Where containerd is; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containerd: Option<ContainerdInfo>,
    /// What a person should know; `null` when nothing.
    pub warnings: Option<Vec<String>>,
}

/// Drivers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PluginsInfo {
    /// Volume drivers.
    pub volume: Option<Vec<String>>,
    /// Network drivers.
    pub network: Option<Vec<String>>,
    /// Authorization plugins.
    pub authorization: Option<Vec<String>>,
    /// Log drivers.
    pub log: Option<Vec<String>>,
}

/// How registries are reached.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RegistryConfig {
    /// By name.
    pub index_configs: BTreeMap<String, IndexInfo>,
    /// CIDRs whose registries need no TLS.
    #[serde(rename = "InsecureRegistryCIDRs")]
    pub insecure_registry_cidrs: Vec<String>,
    /// For Docker Hub.
    pub mirrors: Option<Vec<String>>,
}

/// How one registry is reached.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IndexInfo {
    /// Its mirrors.
    pub mirrors: Vec<String>,
    /// `docker.io`, …
    pub name: String,
    /// Whether it is Docker Hub.
    pub official: bool,
    /// Whether TLS is needed.
    pub secure: bool,
}

/// An OCI runtime.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeInfo {
    /// Its binary.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Arguments for it.
    #[serde(rename = "runtimeArgs", skip_serializing_if = "go::none_or_empty")]
    pub runtime_args: Option<Vec<String>>,
    /// What it says about itself.
    #[serde(skip_serializing_if = "go::none_or_empty_map")]
    pub status: Option<BTreeMap<String, String>>,
}

/// Swarm, as an engine that is in none shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SwarmInfo {
    /// Empty.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Empty.
    pub node_addr: String,
    /// `inactive`.
    pub local_node_state: String,
    /// False.
    pub control_available: bool,
    /// Empty.
    pub error: String,
    /// `null`.
    pub remote_managers: Option<Vec<go::Empty>>,
}

/// What something was built from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Commit {
    /// The commit.
    #[serde(rename = "ID")]
    pub id: String,
}

/// Address pool for new networks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AddressPool {
    /// CIDR.
    pub base: String,
    /// Bits of each network.
    pub size: i64,
}

/// Who writes firewall rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct FirewallInfo {
    /// `nftables`, …
    pub driver: String,
    /// Pairs of name and value.
    #[serde(skip_serializing_if = "go::none_or_empty")]
    pub info: Option<Vec<[String; 2]>>,
}

/// Where containerd is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerdInfo {
    /// Its socket.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// What it separates.
    pub namespaces: ContainerdNamespaces,
}

/// containerd's namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerdNamespaces {
    /// Of containers.
    pub containers: String,
    /// Of plugins.
    pub plugins: String,
}

/// The answer to `GET /system/df`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DiskUsage {
    /// Bytes of all layers.
    pub layers_size: i64,
    /// Every image.
    pub images: Option<Vec<ImageSummary>>,
    /// Every container, with sizes.
    pub containers: Option<Vec<ContainerSummary>>,
    /// Every volume, with usage.
    pub volumes: Option<Vec<Volume>>,
    /// Build cache.
    pub build_cache: Option<Vec<serde_json::Value>>,
}

/// Go's format of `SystemTime`: nanoseconds, and the zone's offset.
#[must_use]
pub fn system_time(now: Time) -> String {
    now.to_string()
}
