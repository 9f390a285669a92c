//! What a container may have of the host: mounts, ports, namespaces, limits (Go: `container.HostConfig`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::mount::Mount;
use crate::go;

/// Published ports: `80/tcp` → where on the host; `None` or an empty list means a random port.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

/// What a container may have of the host. All Linux fields, in Go's order; Windows' are kept for the echo.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HostConfig {
    /// `source:destination[:options]`.
    pub binds: Option<Vec<String>>,
    /// Recorded only: where the client wrote the id.
    #[serde(rename = "ContainerIDFile")]
    pub container_id_file: String,
    /// Log driver and its options.
    pub log_config: LogConfig,
    /// `default`, `bridge`, `host`, `none`, `container:<id>` or a network.
    pub network_mode: String,
    /// Published ports.
    pub port_bindings: Option<PortMap>,
    /// What happens when the process ends.
    pub restart_policy: RestartPolicy,
    /// Whether the engine removes the container when it ends.
    pub auto_remove: bool,
    /// Driver for the volumes of `binds`.
    pub volume_driver: String,
    /// `<container>[:ro|:rw]`.
    #[serde(deserialize_with = "go::list_or_empty")]
    pub volumes_from: Option<Vec<String>>,
    /// Initial terminal size: height, width.
    pub console_size: [u32; 2],
    /// Free annotations for the runtime.
    #[serde(skip_serializing_if = "go::none_or_empty_map")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Capabilities to add, with or without `CAP_`, or `ALL`.
    #[serde(deserialize_with = "go::string_or_list")]
    pub cap_add: Option<Vec<String>>,
    /// Capabilities to drop.
    #[serde(deserialize_with = "go::string_or_list")]
    pub cap_drop: Option<Vec<String>>,
    /// `host`, `private` or empty (the daemon's default).
    pub cgroupns_mode: String,
    /// Name servers.
    pub dns: Option<Vec<String>>,
    /// resolv.conf options.
    pub dns_options: Option<Vec<String>>,
    /// resolv.conf search domains.
    pub dns_search: Option<Vec<String>>,
    /// `name:address` for /etc/hosts.
    pub extra_hosts: Option<Vec<String>>,
    /// More groups for the process.
    pub group_add: Option<Vec<String>>,
    /// `none`, `private`, `shareable`, `host`, `container:<id>` or empty.
    pub ipc_mode: String,
    /// `container:<id>` to share a cgroup; legacy.
    pub cgroup: String,
    /// `container:alias`.
    pub links: Option<Vec<String>>,
    /// -1000 … 1000.
    pub oom_score_adj: i64,
    /// Empty, `host` or `container:<id>`.
    pub pid_mode: String,
    /// Everything allowed.
    pub privileged: bool,
    /// Publish every exposed port at a random one.
    pub publish_all_ports: bool,
    /// Root file system mounted read-only.
    pub readonly_rootfs: bool,
    /// `seccomp=…`, `apparmor=…`, `label=…`, `no-new-privileges`.
    pub security_opt: Option<Vec<String>>,
    /// Options of the storage driver (`size`).
    #[serde(skip_serializing_if = "go::none_or_empty_map")]
    pub storage_opt: Option<BTreeMap<String, String>>,
    /// Destination → mount options.
    #[serde(skip_serializing_if = "go::none_or_empty_map")]
    pub tmpfs: Option<BTreeMap<String, String>>,
    /// Empty or `host`.
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    /// Empty or `host`.
    pub userns_mode: String,
    /// Bytes of /dev/shm; 0 means the default.
    pub shm_size: i64,
    /// Kernel parameters of the container's namespaces.
    #[serde(skip_serializing_if = "go::none_or_empty_map")]
    pub sysctls: Option<BTreeMap<String, String>>,
    /// Name of the OCI runtime; empty means the default.
    pub runtime: String,
    /// Windows only.
    pub isolation: String,
    /// Relative weight against others; 0 means 1024.
    pub cpu_shares: i64,
    /// Bytes; 0 means no limit.
    pub memory: i64,
    /// 1e-9 CPUs; 0 means no limit.
    pub nano_cpus: i64,
    /// Parent cgroup; empty means the daemon's.
    pub cgroup_parent: String,
    /// 10 … 1000; 0 means unset.
    pub blkio_weight: u16,
    /// Weight by device.
    pub blkio_weight_device: Option<Vec<WeightDevice>>,
    /// Bytes per second read from a device.
    pub blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
    /// Bytes per second written to a device.
    pub blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
    /// Reads per second from a device.
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
    /// Writes per second to a device.
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
    /// CFS period in microseconds.
    pub cpu_period: i64,
    /// CFS quota in microseconds.
    pub cpu_quota: i64,
    /// Real-time period in microseconds.
    pub cpu_realtime_period: i64,
    /// Real-time runtime in microseconds.
    pub cpu_realtime_runtime: i64,
    /// `0-2,4`.
    pub cpuset_cpus: String,
    /// `0-2,4`.
    pub cpuset_mems: String,
    /// Devices of the host.
    pub devices: Option<Vec<DeviceMapping>>,
    /// Rules as in the v1 devices controller (`c 1:3 rwm`).
    pub device_cgroup_rules: Option<Vec<String>>,
    /// Devices that a driver hands out (GPUs, CDI).
    pub device_requests: Option<Vec<DeviceRequest>>,
    /// Bytes of kernel memory; obsolete.
    #[serde(skip_serializing_if = "go::is_zero")]
    pub kernel_memory: i64,
    /// Bytes of kernel TCP buffers (v1).
    #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "go::is_zero")]
    pub kernel_memory_tcp: i64,
    /// Soft limit in bytes.
    pub memory_reservation: i64,
    /// Memory plus swap in bytes; -1 means unlimited swap, 0 twice `memory`.
    pub memory_swap: i64,
    /// 0 … 100 (v1).
    pub memory_swappiness: Option<i64>,
    /// No OOM killer (v1).
    pub oom_kill_disable: Option<bool>,
    /// Processes; `None`, 0 or negative mean no limit.
    pub pids_limit: Option<i64>,
    /// Resource limits.
    pub ulimits: Option<Vec<Ulimit>>,
    /// Windows only.
    pub cpu_count: i64,
    /// Windows only.
    pub cpu_percent: i64,
    /// Windows only.
    #[serde(rename = "IOMaximumIOps")]
    pub io_maximum_iops: u64,
    /// Windows only.
    #[serde(rename = "IOMaximumBandwidth")]
    pub io_maximum_bandwidth: u64,
    /// Mounts in their structured form.
    #[serde(skip_serializing_if = "go::none_or_empty")]
    pub mounts: Option<Vec<Mount>>,
    /// Paths that are hidden; `None` means the default list, an empty list none.
    pub masked_paths: Option<Vec<String>>,
    /// Paths that are read-only; `None` means the default list, an empty list none.
    pub readonly_paths: Option<Vec<String>>,
    /// Whether a small init runs as process 1; `None` means the daemon's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
}

/// Log driver and its options.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LogConfig {
    /// Driver; empty means the daemon's default.
    pub r#type: String,
    /// Its options.
    pub config: Option<BTreeMap<String, String>>,
}

/// What happens when the process ends.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RestartPolicy {
    /// Empty or `no`, `always`, `unless-stopped`, `on-failure`.
    pub name: String,
    /// For `on-failure`; 0 means without end.
    pub maximum_retry_count: i64,
}

/// One place on the host where a port is published.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortBinding {
    /// Address; empty means all.
    pub host_ip: String,
    /// Port or range; empty or `0` means any free one.
    pub host_port: String,
}

/// A device of the host inside the container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DeviceMapping {
    /// Path on the host.
    pub path_on_host: String,
    /// Path inside.
    pub path_in_container: String,
    /// Some of `rwm`.
    pub cgroup_permissions: String,
}

/// Devices that a driver hands out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DeviceRequest {
    /// Driver; empty means any that has the capabilities.
    pub driver: String,
    /// How many; -1 means all.
    pub count: i64,
    /// Which ones.
    #[serde(rename = "DeviceIDs")]
    pub device_ids: Option<Vec<String>>,
    /// An OR list of AND lists.
    pub capabilities: Option<Vec<Vec<String>>>,
    /// Options for the driver.
    pub options: Option<BTreeMap<String, String>>,
}

/// Weight of one block device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WeightDevice {
    /// Path on the host.
    pub path: String,
    /// 10 … 1000.
    pub weight: u16,
}

/// Rate limit of one block device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ThrottleDevice {
    /// Path on the host.
    pub path: String,
    /// Bytes or operations per second.
    pub rate: u64,
}

/// One resource limit; -1 means unlimited.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ulimit {
    /// As in `ulimit`: `nofile`, `nproc`, …
    pub name: String,
    /// Hard limit.
    pub hard: i64,
    /// Soft limit.
    pub soft: i64,
}
