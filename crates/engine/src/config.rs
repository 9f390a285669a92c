//! What the daemon decides for the engine: directories, defaults, limits. Plain data, no parsing of flags.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use network::{Ipv4Net, Pool};
use registry::endpoint::{Insecure, Mirror, SettingError, Settings};

use crate::ContainerId;
use crate::definition::log_options;

/// Settings of one engine. Only what [`Engine::reload`](crate::Engine::reload) names may change later.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything that outlives a reboot lies (`--data-root`).
    pub data_root: PathBuf,
    /// Where sockets and exit records lie (`--exec-root`); emptied by a reboot.
    pub exec_root: PathBuf,
    /// The program that is run as `<program> shim` for each container: Cooper's own binary.
    pub shim_program: PathBuf,
    /// The cgroup below which each container has its own; absolute, one component.
    pub cgroup_parent: String,
    /// Shims, and namespaces on the bridge, kept ready for the next starts; 0 starts each from nothing.
    pub pool_size: usize,
    /// The default network.
    pub bridge: Bridge,
    /// What may change while the engine runs.
    pub defaults: Defaults,
}

/// The default bridge.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// Its interface (`--bridge`); absent: no container can be on a bridge.
    pub name: Option<String>,
    /// Its address and prefix (`--bip`); absent: from the pools.
    pub address: Option<Ipv4Net>,
    /// Where subnets come from (`--default-address-pool`); empty: Docker's.
    pub pools: Vec<Pool>,
    /// MTU in bytes (`--mtu`); absent: Ethernet's.
    pub mtu_bytes: Option<u32>,
    /// Whether its containers may talk to each other (`--icc`).
    pub icc: bool,
    /// Whether traffic that leaves the host carries the host's address (`--ip-masq`).
    pub masquerade: bool,
    /// Whether forwarding is turned on (`--ip-forward`).
    pub forward: bool,
    /// Where ports are published that name no address (`--ip`); absent: everywhere.
    pub host_ip: Option<IpAddr>,
}

/// The interface of Cooper's bridge unless told otherwise; beside dockerd's `docker0`.
const BRIDGE: &str = "cooper0";

impl Default for Bridge {
    fn default() -> Self {
        Self {
            name: Some(BRIDGE.to_owned()),
            address: None,
            pools: Vec::new(),
            mtu_bytes: None,
            icc: true,
            masquerade: true,
            forward: true,
            host_ip: None,
        }
    }
}

impl Bridge {
    /// The name of its firewall table and of all that hangs on it: engines with bridges of their own do not
    /// meet.
    pub fn instance(&self) -> String {
        instance(self.name.as_deref().unwrap_or(BRIDGE))
    }
}

/// As [`Bridge::instance`], of a bridge by name.
pub(crate) fn instance(bridge: &str) -> String {
    match bridge {
        BRIDGE => "cooper".to_owned(),
        own => format!("cooper-{own}"),
    }
}

/// Settings for containers that do not say; replaced whole by a reload.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Whether `info` says that the daemon debugs (`--debug`).
    pub debug: bool,
    /// Log driver (`--log-driver`).
    pub log_driver: String,
    /// Options of the log driver (`--log-opt`).
    pub log_options: BTreeMap<String, String>,
    /// Size of /dev/shm in bytes (`--default-shm-size`).
    pub shm_size_bytes: i64,
    /// `private` or `shareable` (`--default-ipc-mode`).
    pub ipc_mode: String,
    /// `private` or `host` (`--default-cgroupns-mode`); absent: private on v2, host on v1.
    pub cgroupns_mode: Option<String>,
    /// Resource limits for containers that set none (`--default-ulimit`): name, soft, hard.
    pub ulimits: Vec<(String, i64, i64)>,
    /// Whether each container gets an init of ours (`--init`).
    pub init: bool,
    /// Name servers for containers (`--dns`).
    pub dns: Vec<String>,
    /// Resolver options (`--dns-opt`).
    pub dns_options: Vec<String>,
    /// Search domains (`--dns-search`).
    pub dns_search: Vec<String>,
    /// Labels of the engine itself, shown by `info` (`--label`).
    pub labels: Vec<String>,
    /// What is known of registries (`--registry-mirror`, `--insecure-registry`).
    pub registries: Registries,
}

/// Settings for registries, as they were written and as they are understood.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    mirrors: Vec<String>,
    insecure: Vec<String>,
    settings: Settings,
}

impl Registries {
    /// Reads mirrors of docker.io and registries that need not prove who they are.
    ///
    /// # Errors
    /// In dockerd's words.
    pub fn parse(mirrors: &[String], insecure: &[String]) -> Result<Self, SettingError> {
        let settings = Settings {
            mirrors: mirrors
                .iter()
                .map(|m| Mirror::parse(m))
                .collect::<Result<_, _>>()?,
            insecure: insecure
                .iter()
                .map(|i| Insecure::parse(i))
                .collect::<Result<_, _>>()?,
        };
        // Docker shows mirrors with a slash at the end.
        let slashed = |mirror: &String| format!("{}/", mirror.trim_end_matches('/'));
        let bare = |host: &String| {
            host.split_once("://")
                .map_or(host.as_str(), |(_, host)| host)
                .to_owned()
        };
        Ok(Self {
            mirrors: mirrors.iter().map(slashed).collect(),
            insecure: insecure.iter().map(bare).collect(),
            settings,
        })
    }

    /// Mirrors, as `info` shows them.
    pub fn mirrors(&self) -> &[String] {
        &self.mirrors
    }

    /// Insecure registries, as `info` shows them.
    pub fn insecure(&self) -> &[String] {
        &self.insecure
    }

    /// As the client for registries takes them.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// What Docker gives /dev/shm: 64 MiB.
const SHM_BYTES: i64 = 64 << 20;

/// Shims kept ready: enough for the burst of a compose project, cheap enough to keep (each is one idle
/// process and on cgroup v1 one more).
const POOL_SIZE: usize = 4;

impl Default for Defaults {
    fn default() -> Self {
        Self {
            debug: false,
            log_driver: "json-file".to_owned(),
            log_options: BTreeMap::new(),
            shm_size_bytes: SHM_BYTES,
            ipc_mode: "private".to_owned(),
            cgroupns_mode: None,
            ulimits: Vec::new(),
            init: false,
            dns: Vec::new(),
            dns_options: Vec::new(),
            dns_search: Vec::new(),
            labels: Vec::new(),
            registries: Registries::default(),
        }
    }
}

impl Defaults {
    /// Sets the log driver and its options. A driver that is not there is stood in for by json-file, without the
    /// options that this one does not have; the answer is the warning that says so.
    ///
    /// # Errors
    /// In dockerd's words for an option that the driver does not take.
    pub fn set_log(
        &mut self,
        driver: &str,
        mut options: BTreeMap<String, String>,
    ) -> Result<Option<String>, String> {
        if log_options::is_there(driver) {
            log_options::check_options(driver, &options)
                .map_err(|error| format!("failed to set log opts: {}", error.message))?;
            driver.clone_into(&mut self.log_driver);
            let warns = log_options::wants_compression(&options);
            self.log_options = options;
            return Ok(warns.then(|| log_options::NOT_COMPRESSED.to_owned()));
        }
        let left_out: Vec<String> = options
            .extract_if(.., |name, _| !log_options::stand_in_takes(name))
            .map(|(name, _)| format!("--log-opt {name}"))
            .collect();
        log_options::STAND_IN.clone_into(&mut self.log_driver);
        self.log_options = options;
        let mut warning = format!(
            "--log-driver={driver} has no effect: this log driver is not there yet, and containers that name none \
             log to {}",
            self.log_driver
        );
        if !left_out.is_empty() {
            warning += &format!("; left out with it: {}", left_out.join(", "));
        }
        Ok(Some(warning))
    }
}

impl Config {
    /// Settings for an engine on these directories, with Docker's defaults for all else.
    pub fn new(data_root: &Path, exec_root: &Path, shim_program: &Path) -> Self {
        Self {
            data_root: data_root.to_owned(),
            exec_root: exec_root.to_owned(),
            shim_program: shim_program.to_owned(),
            cgroup_parent: "/cooper".to_owned(),
            pool_size: POOL_SIZE,
            bridge: Bridge::default(),
            defaults: Defaults::default(),
        }
    }

    /// Where a container's own files lie.
    pub fn container_dir(&self, id: &ContainerId) -> PathBuf {
        self.containers_dir().join(id.as_str())
    }

    /// The parent of all [`Config::container_dir`]s.
    pub fn containers_dir(&self) -> PathBuf {
        self.data_root.join("containers")
    }

    /// Where volumes lie, each in a directory of its name.
    pub fn volumes_dir(&self) -> PathBuf {
        self.data_root.join("volumes")
    }

    /// Where a running container's socket and exit record lie.
    pub fn run_dir(&self, id: &ContainerId) -> PathBuf {
        self.run_dirs().join(id.as_str())
    }

    /// The parent of all [`Config::run_dir`]s.
    pub fn run_dirs(&self) -> PathBuf {
        self.exec_root.join("containers")
    }
}
