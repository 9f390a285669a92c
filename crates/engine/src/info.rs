//! `docker info` and `docker version`: what the machine is and what this engine offers.
//!
//! [`Kernel`] is read once from /proc and /sys; the rest is rendering.

use std::collections::BTreeMap;
use std::path::Path;

use api::system::{
    Component, IndexInfo, PlatformName, PluginsInfo, RegistryConfig, RuntimeInfo, SwarmInfo,
    SystemInfo, SystemVersion,
};

use crate::definition::Controllers;
use crate::inspect::STORAGE_DRIVER;
use crate::{Config, Defaults};

/// What the machine says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// The host's name.
    pub hostname: String,
    /// `PRETTY_NAME` of os-release.
    pub operating_system: String,
    /// `VERSION_ID` of os-release.
    pub os_version: String,
    /// CPUs that are online.
    pub cpus: usize,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Whether cgroup v2 is in use.
    pub cgroup_v2: bool,
    /// Whether IPv4 packets are forwarded.
    pub ipv4_forwarding: bool,
}

/// The machine's word for the architecture, and Go's.
const MACHINE: (&str, &str) = if cfg!(target_arch = "aarch64") {
    ("aarch64", "arm64")
} else {
    ("x86_64", "amd64")
};

/// The version of the API that is served, and the oldest.
const API_VERSION: &str = "1.51";
const API_VERSION_MIN: &str = "1.12";

/// The index of Docker Hub, as clients expect it for `docker login`.
const INDEX: &str = "https://index.docker.io/v1/";

/// Networks whose registries need no TLS.
const INSECURE: &[&str] = &["::1/128", "127.0.0.0/8"];

impl Kernel {
    /// Reads /proc, /sys and os-release; what is not there is empty. Blocks.
    pub fn read() -> Self {
        let text = |path: &str| {
            std::fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let memory = text("/proc/meminfo");
        let total = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = total.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
        let release = match text("/etc/os-release") {
            none if none.is_empty() => text("/usr/lib/os-release"),
            some => some,
        };
        let cgroup_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        Self {
            release: text("/proc/sys/kernel/osrelease"),
            hostname: text("/proc/sys/kernel/hostname"),
            operating_system: os_release(&release, "PRETTY_NAME").unwrap_or_else(|| "Linux".into()),
            os_version: os_release(&release, "VERSION_ID").unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib.unwrap_or(0) * 1024,
            cgroup_v2,
            ipv4_forwarding: text("/proc/sys/net/ipv4/ip_forward") == "1",
        }
    }
}

/// The value of a key of os-release(5), without its quotes.
fn os_release(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(key)?.strip_prefix('=')?;
        let bare = value.trim_matches(['"', '\'']);
        Some(bare.replace("\\\"", "\""))
    })
}

/// What of the engine is shown by `info` and changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Containers that run, not counting paused ones.
    pub running: i64,
    /// Containers that are paused.
    pub paused: i64,
    /// All other containers.
    pub stopped: i64,
    /// Images.
    pub images: i64,
    /// Subscribers of events.
    pub event_listeners: usize,
    /// File descriptors of the daemon.
    pub open_files: i64,
    /// Tasks of the daemon.
    pub tasks: i64,
}

/// What of the daemon is shown by `info`.
#[derive(Clone, Copy, Debug)]
pub struct Daemon<'a> {
    /// The engine's own id, made once per data root.
    pub id: &'a str,
    /// The release of dockerd that clients take this for.
    pub version: &'a str,
    /// The file system of the data root, by name.
    pub backing_filesystem: &'a str,
    /// Directories.
    pub config: &'a Config,
    /// Settings that may change.
    pub defaults: &'a Defaults,
    /// Whether `--debug` is on.
    pub debug: bool,
    /// Mirrors of Docker Hub.
    pub mirrors: &'a [String],
    /// Registries without TLS, besides loopback.
    pub insecure: &'a [String],
    /// What is amiss with this machine.
    pub warnings: &'a [String],
    /// What of cgroups can be limited.
    pub controllers: Controllers,
    /// The runtimes that containers may name; the first is the default.
    pub runtimes: &'a [&'a str],
}

/// The name of the file system that the data root is on. Blocks.
pub(crate) fn backing_filesystem(data_root: &Path) -> &'static str {
    let opened = std::fs::File::open(data_root);
    opened
        .and_then(sys::file::filesystem_name)
        .unwrap_or("<unknown>")
}

/// Descriptors this process has open; that of the listing itself is not counted.
pub(crate) fn open_files() -> i64 {
    let listed = std::fs::read_dir("/proc/self/fd").map(|entries| entries.count());
    i64::try_from(listed.unwrap_or_default()).map_or(0, |count| (count - 1).max(0))
}

/// Tasks of this process's runtime: what moby calls goroutines.
pub(crate) fn tasks() -> i64 {
    let runtime = tokio::runtime::Handle::try_current();
    let tasks = runtime.map_or(0, |runtime| runtime.metrics().num_alive_tasks());
    i64::try_from(tasks).unwrap_or(i64::MAX)
}

/// Renders `GET /info`. `now` is RFC 3339.
pub fn info(daemon: &Daemon<'_>, kernel: &Kernel, counts: &Counts, now: String) -> SystemInfo {
    let v1 = !kernel.cgroup_v2;
    let can = daemon.controllers;
    SystemInfo {
        id: daemon.id.to_owned(),
        containers: counts.running + counts.paused + counts.stopped,
        containers_running: counts.running,
        containers_paused: counts.paused,
        containers_stopped: counts.stopped,
        images: counts.images,
        driver: STORAGE_DRIVER.to_owned(),
        driver_status: Some(driver_status(daemon.backing_filesystem)),
        plugins: plugins(),
        memory_limit: can.memory,
        swap_limit: can.swap,
        cpu_cfs_period: can.cpu,
        cpu_cfs_quota: can.cpu,
        cpu_shares: can.cpu,
        cpu_set: can.cpuset,
        pids_limit: can.pids,
        kernel_memory_tcp: can.tcp_memory,
        oom_kill_disable: can.oom_kill_disable,
        ipv4_forwarding: kernel.ipv4_forwarding,
        debug: daemon.debug,
        n_fd: counts.open_files,
        n_goroutines: counts.tasks,
        system_time: now,
        logging_driver: daemon.defaults.log_driver.clone(),
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: if v1 { "1" } else { "2" }.to_owned(),
        n_events_listener: i64::try_from(counts.event_listeners).unwrap_or(i64::MAX),
        kernel_version: kernel.release.clone(),
        operating_system: kernel.operating_system.clone(),
        os_version: kernel.os_version.clone(),
        os_type: "linux".to_owned(),
        architecture: MACHINE.0.to_owned(),
        index_server_address: INDEX.to_owned(),
        registry_config: Some(registries(daemon)),
        ncpu: i64::try_from(kernel.cpus).unwrap_or(i64::MAX),
        mem_total: i64::try_from(kernel.memory_bytes).unwrap_or(i64::MAX),
        docker_root_dir: daemon.config.data_root.to_string_lossy().into_owned(),
        name: kernel.hostname.clone(),
        labels: daemon.defaults.labels.clone(),
        server_version: daemon.version.to_owned(),
        runtimes: Some(
            daemon
                .runtimes
                .iter()
                .map(|name| ((*name).to_owned(), runtime()))
                .collect(),
        ),
        default_runtime: daemon
            .runtimes
            .first()
            .map(ToString::to_string)
            .unwrap_or_default(),
        swarm: SwarmInfo {
            local_node_state: "inactive".to_owned(),
            ..SwarmInfo::default()
        },
        // Containers always outlive the daemon.
        live_restore_enabled: true,
        init_binary: "cooper".to_owned(),
        security_options: Some(security_options(kernel)),
        firewall_backend: Some(api::system::FirewallInfo {
            driver: "nftables".to_owned(),
            info: None,
        }),
        cdi_spec_dirs: Some(Vec::new()),
        warnings: Some(warnings(daemon, can)).filter(|warnings| !warnings.is_empty()),
        ..SystemInfo::default()
    }
}

/// What is amiss, and what cannot be limited (moby `daemon/info_unix.go`, its words).
fn warnings(daemon: &Daemon<'_>, can: Controllers) -> Vec<String> {
    let missing = [
        (can.memory, "memory limit"),
        (can.swap, "swap limit"),
        (can.cpu, "cpu cfs quota"),
        (can.cpu, "cpu cfs period"),
        (can.cpu, "cpu shares"),
        (can.cpuset, "cpuset"),
        (can.io_rates, "blkio throttle.read_bps_device"),
        (can.io_rates, "blkio throttle.write_bps_device"),
        (can.io_rates, "blkio throttle.read_iops_device"),
        (can.io_rates, "blkio throttle.write_iops_device"),
    ];
    let missing = missing.into_iter().filter(|(there, _)| !there);
    let missing = missing.map(|(_, what)| format!("WARNING: No {what} support"));
    missing.chain(daemon.warnings.iter().cloned()).collect()
}

fn security_options(kernel: &Kernel) -> Vec<String> {
    let mut options = vec!["name=seccomp,profile=builtin".to_owned()];
    if kernel.cgroup_v2 {
        options.push("name=cgroupns".to_owned());
    }
    options
}

fn driver_status(backing_filesystem: &str) -> Vec<[String; 2]> {
    [
        ("Backing Filesystem", backing_filesystem),
        ("Supports d_type", "true"),
        ("Using metacopy", "false"),
        ("Native Overlay Diff", "true"),
        ("userxattr", "false"),
    ]
    .map(|(key, value)| [key.to_owned(), value.to_owned()])
    .to_vec()
}

fn plugins() -> PluginsInfo {
    let owned = |words: &[&str]| Some(words.iter().map(ToString::to_string).collect());
    PluginsInfo {
        volume: owned(&["local"]),
        network: owned(&["bridge", "host", "null"]),
        authorization: None,
        log: owned(&["json-file", "local"]),
    }
}

/// All names mean the runtime that is part of the binary.
fn runtime() -> RuntimeInfo {
    RuntimeInfo {
        path: "cooper".to_owned(),
        ..RuntimeInfo::default()
    }
}

fn registries(daemon: &Daemon<'_>) -> RegistryConfig {
    let index = |name: &str, mirrors: &[String], official: bool, secure: bool| IndexInfo {
        mirrors: mirrors.to_vec(),
        name: name.to_owned(),
        official,
        secure,
    };
    let hub = index("docker.io", daemon.mirrors, true, true);
    let mut configs: BTreeMap<String, IndexInfo> = BTreeMap::new();
    configs.insert("docker.io".to_owned(), hub);
    let mut networks: Vec<String> = INSECURE.iter().map(ToString::to_string).collect();
    for registry in daemon.insecure {
        if registry.contains('/') {
            networks.push(registry.clone());
        } else {
            configs.insert(registry.clone(), index(registry, &[], false, false));
        }
    }
    RegistryConfig {
        index_configs: configs,
        insecure_registry_cidrs: networks,
        mirrors: Some(daemon.mirrors.to_vec()).filter(|mirrors| !mirrors.is_empty()),
    }
}

/// What the build says of itself: packages set these variables, as `xtask` does for the profile `dist`.
const COMMIT: Option<&str> = option_env!("COOPER_GIT_COMMIT");
const BUILT: Option<&str> = option_env!("COOPER_BUILD_TIME");

/// What stands where the build does not say.
const UNKNOWN: &str = "unknown";

/// The language's version, in the place of Go's.
const LANGUAGE: &str = "none (Rust)";

/// Renders `GET /version`. `release` is the dockerd that clients take this for; which Cooper it is stands among the
/// components, where `docker version` shows it.
pub fn version(release: &str, kernel: &Kernel) -> SystemVersion {
    let (commit, built) = (COMMIT.unwrap_or(UNKNOWN), BUILT.unwrap_or(UNKNOWN));
    let details: BTreeMap<String, String> = [
        ("ApiVersion", API_VERSION),
        ("Arch", MACHINE.1),
        ("BuildTime", built),
        ("Experimental", "false"),
        ("GitCommit", commit),
        ("GoVersion", LANGUAGE),
        ("KernelVersion", &kernel.release),
        ("MinAPIVersion", API_VERSION_MIN),
        ("Os", "linux"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect();
    SystemVersion {
        platform: PlatformName {
            name: "Cooper".to_owned(),
        },
        components: vec![
            Component {
                name: "Engine".to_owned(),
                version: release.to_owned(),
                details: Some(details),
            },
            Component {
                name: "cooper".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                details: Some([("GitCommit".to_owned(), commit.to_owned())].into()),
            },
        ],
        version: release.to_owned(),
        api_version: API_VERSION.to_owned(),
        min_api_version: API_VERSION_MIN.to_owned(),
        git_commit: commit.to_owned(),
        go_version: LANGUAGE.to_owned(),
        os: "linux".to_owned(),
        arch: MACHINE.1.to_owned(),
        kernel_version: kernel.release.clone(),
        experimental: false,
        build_time: built.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_values_lose_their_quotes() {
        let text =
            "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux forky/sid\"\nID=debian\nVERSION_ID='13'\n";
        assert_eq!(
            os_release(text, "PRETTY_NAME").unwrap(),
            "Debian GNU/Linux forky/sid"
        );
        assert_eq!(os_release(text, "VERSION_ID").unwrap(), "13");
        assert_eq!(os_release(text, "VERSION"), None);
    }

    /// The keys that dockerd 28.5.2 sends and clients read; what belongs to containerd alone is left out.
    const KEYS: &str = "ID Containers ContainersRunning ContainersPaused ContainersStopped Images Driver \
        DriverStatus Plugins MemoryLimit SwapLimit CpuCfsPeriod CpuCfsQuota CPUShares CPUSet \
        PidsLimit IPv4Forwarding Debug NFd OomKillDisable NGoroutines SystemTime \
        LoggingDriver CgroupDriver CgroupVersion NEventsListener KernelVersion \
        OperatingSystem OSVersion OSType Architecture IndexServerAddress RegistryConfig NCPU \
        MemTotal GenericResources DockerRootDir HttpProxy HttpsProxy NoProxy Name Labels \
        ExperimentalBuild ServerVersion Runtimes DefaultRuntime Swarm LiveRestoreEnabled \
        Isolation InitBinary ContainerdCommit RuncCommit InitCommit SecurityOptions \
        FirewallBackend CDISpecDirs Warnings";

    #[test]
    fn info_has_dockerds_keys() {
        let config = Config::new(
            Path::new("/data"),
            Path::new("/run"),
            Path::new("/bin/cooper"),
        );
        let defaults = Defaults::default();
        let daemon = Daemon {
            id: "x",
            version: "0",
            backing_filesystem: "extfs",
            config: &config,
            defaults: &defaults,
            debug: false,
            mirrors: &[],
            insecure: &["registry:5000".to_owned(), "10.0.0.0/8".to_owned()],
            warnings: &[],
            controllers: crate::reference::machine().controllers,
            runtimes: &["runc", "cooper"],
        };
        let kernel = Kernel::read();
        let counts = Counts {
            running: 1,
            paused: 2,
            stopped: 3,
            ..Counts::default()
        };
        let shown = info(&daemon, &kernel, &counts, String::new());
        assert_eq!(shown.containers, 6);
        let value = serde_json::to_value(&shown).unwrap();
        for key in KEYS.split(' ') {
            assert!(value.get(key).is_some(), "{key}");
        }
        assert_eq!(value["Swarm"]["LocalNodeState"], "inactive");
        assert_eq!(value["Warnings"], serde_json::Value::Null);
        let registries = &value["RegistryConfig"];
        assert_eq!(registries["IndexConfigs"]["registry:5000"]["Secure"], false);
        assert_eq!(registries["InsecureRegistryCIDRs"][2], "10.0.0.0/8");
        assert!(kernel.memory_bytes > 0 && kernel.cpus > 0 && !kernel.release.is_empty());
    }

    #[test]
    fn what_cannot_be_limited_is_told() {
        let config = Config::new(Path::new("/"), Path::new("/"), Path::new("/"));
        let mut daemon = Daemon {
            id: "x",
            version: "0",
            backing_filesystem: "extfs",
            config: &config,
            defaults: &Defaults::default(),
            debug: false,
            mirrors: &[],
            insecure: &[],
            warnings: &["own".to_owned()],
            controllers: crate::reference::machine().controllers,
            runtimes: &["runc"],
        };
        (daemon.controllers.memory, daemon.controllers.swap) = (false, false);
        daemon.controllers.io_rates = false;
        let shown = info(&daemon, &Kernel::read(), &Counts::default(), String::new());
        assert_eq!(
            (shown.memory_limit, shown.swap_limit, shown.pids_limit),
            (false, false, true)
        );
        let told = [
            "WARNING: No memory limit support",
            "WARNING: No swap limit support",
            "WARNING: No blkio throttle.read_bps_device support",
            "WARNING: No blkio throttle.write_bps_device support",
            "WARNING: No blkio throttle.read_iops_device support",
            "WARNING: No blkio throttle.write_iops_device support",
            "own",
        ];
        assert_eq!(shown.warnings.unwrap(), told);
    }

    #[test]
    fn version_names_the_api_in_both_places() {
        let shown = version("28.5.2", &Kernel::read());
        assert_eq!(shown.api_version, "1.51");
        let details = shown.components[0].details.as_ref().unwrap();
        assert_eq!(details["MinAPIVersion"], "1.12");
        for text in [
            &details["GitCommit"],
            &details["BuildTime"],
            &shown.go_version,
        ] {
            assert!(!text.is_empty(), "{details:?}");
        }
        // The program's own version, beside the release that it stands in for.
        assert_eq!(shown.version, "28.5.2");
        let own = &shown.components[1];
        assert_eq!(
            (own.name.as_str(), own.version.as_str()),
            ("cooper", env!("CARGO_PKG_VERSION"))
        );
        assert!(own.details.as_ref().unwrap().contains_key("GitCommit"));
    }
}
