//! What a container was created as: the validated request, with the image's values filled in.
//!
//! [`define`] is the one way from a request to a [`Definition`]: it merges the image's configuration
//! ([`merge`]), fills in dockerd's defaults, and refuses what dockerd refuses, with its text
//! ([`rules`], [`resources`], [`mounts`]). Pure: the machine and other containers are asked through
//! [`Host`]. What must exist besides (image, volumes, networks) is the caller's business.
//!
//! A definition is stored twice: in the container's row, and as `containers/<id>/container.json`, from
//! which a person, or a later version, can tell what it was when the database is lost. It never changes while the
//! container runs; its name does, by `rename`.

mod fill_in;
pub(crate) mod log_options;
mod merge;
pub(crate) mod mounts;
pub(crate) use merge::health;
pub(crate) use rules::{has_health_check, has_links, port_range};
pub(crate) mod resources;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use api::container::CreateRequest;
use api::container::config::Config;
use api::container::host_config::HostConfig;
use api::container::mount::{Mount, MountPoint};
use api::network::EndpointsConfig;
use serde::{Deserialize, Serialize};
use sys::signal::Signal;

use crate::{ContainerId, Defaults, Error};

/// One container's definition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// Its id.
    pub id: ContainerId,
    /// When it was created, in Unix nanoseconds.
    pub created_ns: i64,
    /// Image id (`sha256:…`), empty without an image. What the client called the image is in `config.image`.
    pub image: String,
    /// First word of what runs (entrypoint, then command).
    pub path: String,
    /// The other words.
    pub args: Vec<String>,
    /// As created, with the image's values filled in.
    pub config: Config,
    /// As created, with defaults filled in.
    pub host_config: HostConfig,
    /// Networks to join, as the request named them.
    #[serde(default)]
    pub endpoints: EndpointsConfig,
    /// What is mounted besides the root, sorted by destination. Of a volume, the engine fills in what
    /// [`define`] cannot know: the source, and the name of an anonymous one.
    #[serde(default)]
    pub mounts: Vec<MountPoint>,
}

impl Definition {
    /// The entry of `HostConfig.Mounts` behind a mount point: bind, volume and tmpfs options are there.
    pub fn mount_options(&self, destination: &str) -> Option<&Mount> {
        let mounts = self.host_config.mounts.iter().flatten();
        let mut found = mounts.filter(|mount| api_path(&mount.target) == destination);
        found.next()
    }

    /// The signal a stop sends first; `SIGTERM` unless the image or the request says otherwise.
    pub fn stop_signal(&self) -> Signal {
        let signal = self.config.stop_signal.parse();
        signal.unwrap_or(Signal::TERM)
    }
}

/// What the rules ask of the machine, the daemon and the other containers.
pub struct Host<'a> {
    /// What the daemon decides for containers that do not say.
    pub defaults: &'a Defaults,
    /// The machine's resources.
    pub machine: &'a Machine,
    /// The runtimes that `HostConfig.Runtime` may name; the first is the default.
    pub runtimes: &'a [String],
    /// Whether cgroup v2 is in use.
    pub cgroup_v2: bool,
    /// The host's name, for containers that share its network.
    pub hostname: &'a str,
    /// Finds a container by what the client typed, or answers Docker's error.
    pub find: &'a dyn Fn(&str) -> Result<ContainerId, Error>,
    /// What another container mounts, for `VolumesFrom`.
    pub mounts_of: &'a dyn Fn(&ContainerId) -> Vec<MountPoint>,
    /// Whether a path exists on the host.
    pub exists: &'a dyn Fn(&str) -> bool,
}

/// The machine's resources, as far as requests are checked against them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// CPUs that are online.
    pub cpus: Vec<u32>,
    /// Memory nodes that are online.
    pub memory_nodes: Vec<u32>,
    /// Whether the kernel has the weight of block I/O (`blkio.weight`, `io.weight`).
    pub blkio_weight: bool,
    /// Whether the kernel has weights of single devices.
    pub blkio_weight_device: bool,
    /// What of cgroups there is.
    pub controllers: Controllers,
}

/// The limits that this machine's cgroups can set: kernels are built and booted without some of them
/// (`cgroup_disable=memory` is a Raspberry Pi's default), and v2 has fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controllers {
    /// Memory.
    pub memory: bool,
    /// Memory and swap together.
    pub swap: bool,
    /// How gladly memory is swapped out.
    pub swappiness: bool,
    /// Whether the OOM killer can be kept away.
    pub oom_kill_disable: bool,
    /// Memory of TCP buffers.
    pub tcp_memory: bool,
    /// CPU shares and quotas.
    pub cpu: bool,
    /// CPUs and memory nodes.
    pub cpuset: bool,
    /// Processes.
    pub pids: bool,
    /// Rates of block I/O.
    pub io_rates: bool,
}

/// What a container is made from, besides the request.
pub struct Origin<'a> {
    /// The new container's id.
    pub id: ContainerId,
    /// Its name, without a slash.
    pub name: &'a str,
    /// Now, in Unix nanoseconds.
    pub created_ns: i64,
    /// The image's id and configuration; absent without an image.
    pub image: Option<(&'a str, &'a image::ImageConfig)>,
}

/// Makes the definition of a container, and the warnings of the answer.
///
/// # Errors
/// The class and text with which dockerd 28.5.2 refuses the request.
pub fn define(
    mut request: CreateRequest,
    origin: Origin<'_>,
    host: &Host<'_>,
) -> Result<(Definition, Vec<String>), Error> {
    request.name_default_network();
    let CreateRequest {
        mut config,
        mut host_config,
        endpoints,
    } = request;
    rules::check_request(&config, &host_config, host)?;
    if let Some((_, image)) = origin.image {
        merge::image_into(&mut config, image.config.as_ref());
    }
    let has_command = |words: &Option<Vec<String>>| words.as_ref().is_some_and(|w| !w.is_empty());
    if config.entrypoint.as_deref() == Some(&[String::new()]) {
        config.entrypoint = None;
    }
    if origin.image.is_some() && !has_command(&config.cmd) && !has_command(&config.entrypoint) {
        return Err(Error::invalid("no command specified"));
    }
    rules::check_config(&mut config)?;
    let mut warnings = Vec::new();
    rules::check_host_config(&host_config, &mut warnings, host)?;
    resources::check(&mut host_config, &mut warnings, host.machine)?;
    resources::fill_in(&mut host_config, host.machine);
    rules::check_platform(&host_config, &mut warnings, host)?;
    rules::check_endpoints(&host_config, &endpoints)?;
    fill_in::fill_in(&mut config, &mut host_config, &origin, host)?;
    warnings.extend(log_options::check(
        &mut host_config.log_config,
        host.defaults,
    )?);
    let mounts = mounts::plan(&config, &host_config, host)?;
    let mut words = config
        .entrypoint
        .iter()
        .chain(&config.cmd)
        .flatten()
        .cloned();
    Ok((
        Definition {
            path: words.next().unwrap_or_default(),
            args: words.collect(),
            id: origin.id,
            created_ns: origin.created_ns,
            image: origin
                .image
                .map(|(id, _)| id.to_owned())
                .unwrap_or_default(),
            config,
            host_config,
            endpoints,
            mounts,
        },
        warnings,
    ))
}

/// A path as Go's `path.Clean` writes it.
pub(crate) fn api_path(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            other => parts.push(other),
        }
    }
    let joined = parts.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// Keeps the order of a request's list and drops an empty one: what dockerd shows as null.
pub(crate) fn none_if_empty<T>(list: Option<Vec<T>>) -> Option<Vec<T>> {
    list.filter(|list| !list.is_empty())
}

/// An empty map for an absent one.
pub(crate) fn or_empty(map: Option<BTreeMap<String, String>>) -> Option<BTreeMap<String, String>> {
    Some(map.unwrap_or_default())
}
