//! From a definition to the OCI specification of its container, identical in effect to dockerd's.
//!
//! [`generate`] is pure but for looking at device nodes. What it differs in from dockerd 28.5.2 is in the
//! comparison test, each with the DESIGN decision behind it. Users and groups are the image's to know: the
//! specification has none, [`user`] goes beside it to the runtime, which looks them up inside the root.

pub(crate) mod capabilities;
pub mod devices;
mod mounts;
mod resources;
pub(crate) mod security;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use runtime::oci;
use runtime::user::Wanted;

use crate::definition::Definition;
use crate::error::Class;
use crate::launch::CREATE_FAILED;
use crate::volumes::MountSource;
use crate::{ContainerId, Error};
use security::SecurityOptions;

pub use resources::resources;

/// The search path of programs when nobody sets one.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Ports below this need no privilege in a network namespace of the container's own.
const UNPRIVILEGED_PORTS: (&str, &str) = ("net.ipv4.ip_unprivileged_port_start", "0");

/// Every group may ping in a network namespace of the container's own.
const PING_GROUPS: (&str, &str) = ("net.ipv4.ping_group_range", "0 2147483647");

/// A running container whose namespaces another one joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: ContainerId,
    /// Its init's process id.
    pub pid: u32,
    /// Its own directory, with its hosts, hostname and resolv.conf.
    pub directory: PathBuf,
    /// Its hostname.
    pub hostname: String,
    /// Its domain name.
    pub domainname: String,
    /// Whether others may join its IPC namespace.
    pub ipc_shareable: bool,
}

/// Where a container runs.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The container's own directory, with hosts, hostname and resolv.conf.
    pub directory: &'a Path,
    /// Whether cgroup v2 is in use.
    pub cgroup_v2: bool,
    /// The daemon's own bounding set, as a mask: a privileged container gets these.
    pub bounding: u64,
    /// The parent of the container's cgroup when it names none (`/cooper`).
    pub cgroup_parent: &'a str,
    /// The running containers that `container:` modes name, by id.
    pub peers: &'a BTreeMap<ContainerId, Peer>,
    /// What is mounted at a destination when its mount point does not show it.
    pub(crate) sources: &'a BTreeMap<String, MountSource>,
}

fn failed(text: impl Into<String>) -> Error {
    Error::new(Class::Internal, text)
}

/// Makes the specification.
///
/// # Errors
/// Internal, with dockerd's text, for devices, device rules, tmpfs options, limits and seccomp profiles that cannot
/// be used: a start fails with them. Conflict for a network of a container that does not run.
pub fn generate(definition: &Definition, place: &Place<'_>) -> Result<oci::Spec, Error> {
    let host_config = &definition.host_config;
    let options = host_config.security_opt.as_deref().unwrap_or_default();
    let security = SecurityOptions::parse(options).map_err(|error| failed(error.to_string()))?;
    let privileged = host_config.privileged;
    let names = capabilities::names(
        host_config.cap_add.as_deref(),
        host_config.cap_drop.as_deref(),
        privileged,
        place.bounding,
    )
    .map_err(|error| failed(error.to_string()))?;
    let identity = Identity::of(definition, place)?;
    let mut root = oci::Root::default();
    root.set_path(PathBuf::from("rootfs"))
        .set_readonly(host_config.readonly_rootfs.then_some(true));
    let process = process(definition, &identity, &names, &security)?;
    let mut spec = oci::Spec::default();
    spec.set_version("1.2.1".to_owned())
        .set_root(Some(root))
        .set_process(Some(process))
        .set_hostname(identity.hostname.clone())
        .set_mounts(Some(mounts::mounts(definition, place, &security)?))
        .set_linux(Some(linux(
            definition, place, &identity, &names, &security,
        )?))
        .set_annotations(annotations(definition));
    Ok(spec)
}

/// How the container is called: its own names, or those of the one whose network it joins.
struct Identity {
    hostname: Option<String>,
    domainname: String,
}

impl Identity {
    fn of(definition: &Definition, place: &Place<'_>) -> Result<Self, Error> {
        let config = &definition.config;
        let (hostname, domainname) = match joined(&definition.host_config.network_mode, place) {
            Some(peer) => {
                let peer = peer.ok_or_else(|| {
                    Error::conflict("cannot join network namespace of a non running container")
                })?;
                (peer.hostname.clone(), peer.domainname.clone())
            }
            None => (config.hostname.clone(), config.domainname.clone()),
        };
        if definition.host_config.uts_mode == "host" {
            let domainname = String::new();
            return Ok(Self {
                hostname: None,
                domainname,
            });
        }
        Ok(Self {
            hostname: Some(hostname),
            domainname,
        })
    }
}

/// Who the container's processes are, in the words of the image and the client.
pub fn user(definition: &Definition) -> Wanted {
    let groups = definition.host_config.group_add.clone();
    Wanted {
        user: definition.config.user.clone(),
        groups: groups.unwrap_or_default(),
    }
}

/// The container that a mode names: `None` for no such mode, `Some(None)` when it does not run.
fn joined<'a>(mode: &str, place: &Place<'a>) -> Option<Option<&'a Peer>> {
    let id = mode.strip_prefix("container:")?;
    Some(place.peers.get(id))
}

fn process(
    definition: &Definition,
    identity: &Identity,
    names: &[String],
    security: &SecurityOptions,
) -> Result<oci::Process, Error> {
    let (config, host_config) = (&definition.config, &definition.host_config);
    let set = capabilities::set(names);
    let mut held = oci::LinuxCapabilities::default();
    held.set_bounding(Some(set.clone()))
        .set_effective(Some(set.clone()))
        .set_permitted(Some(set))
        .set_inheritable(None)
        .set_ambient(None);
    let cwd = if config.working_dir.is_empty() {
        "/"
    } else {
        &config.working_dir
    };
    let mut process = oci::Process::default();
    process
        .set_terminal(config.tty.then_some(true))
        .set_args(Some(
            std::iter::once(&definition.path)
                .chain(&definition.args)
                .cloned()
                .collect(),
        ))
        .set_env(Some(environment(definition, identity)?))
        .set_cwd(PathBuf::from(cwd))
        .set_capabilities(Some(held))
        .set_rlimits(rlimits(definition)?)
        .set_no_new_privileges(security.no_new_privileges.then_some(true))
        .set_oom_score_adj(i32::try_from(host_config.oom_score_adj).ok());
    // Where the kernel has no AppArmor a profile is passed over, as by dockerd.
    let profile = security.apparmor.as_ref();
    if let Some(profile) = profile.filter(|profile| !profile.is_empty() && security::has_apparmor())
    {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if host_config.console_size != [0, 0] && config.tty {
        let size = oci::BoxBuilder::default()
            .height(host_config.console_size[0])
            .width(host_config.console_size[1]);
        process.set_console_size(Some(size.build().expect("both are set")));
    }
    Ok(process)
}

/// The defaults, then the configuration's own; a name without a value removes a default.
fn environment(definition: &Definition, identity: &Identity) -> Result<Vec<String>, Error> {
    let mut variables = vec![PATH.to_owned()];
    let hostname = identity
        .hostname
        .as_ref()
        .unwrap_or(&definition.config.hostname);
    variables.push(format!("HOSTNAME={hostname}"));
    if definition.config.tty {
        variables.push("TERM=xterm".to_owned());
    }
    let defaults = variables.len();
    let mut removed = vec![false; defaults];
    for own in definition.config.env.iter().flatten() {
        let name = name_of(own);
        let default = variables[..defaults]
            .iter()
            .position(|known| name_of(known) == name);
        match (own.contains('='), default) {
            (true, Some(at)) => (variables[at], removed[at]) = (own.clone(), false),
            (true, None) => variables.push(own.clone()),
            (false, Some(at)) => removed[at] = true,
            (false, None) => {}
        }
    }
    let removed = removed.into_iter().chain(std::iter::repeat(false));
    let mut kept: Vec<String> = Vec::with_capacity(variables.len());
    for (variable, _) in variables
        .into_iter()
        .zip(removed)
        .filter(|(_, removed)| !removed)
    {
        if let Some(why) = broken(&variable) {
            return Err(failed(why));
        }
        // Of two with one name the last counts, at its own place (runc).
        kept.retain(|known| name_of(known) != name_of(&variable));
        kept.push(variable);
    }
    Ok(kept)
}

fn name_of(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

/// What no process can be given.
fn broken(variable: &str) -> Option<String> {
    let name = name_of(variable);
    variable.contains('\0').then(|| {
        format!(
            "{CREATE_FAILED}unable to start container process: error during container init: invalid environment \
             variable {name:?}: contains nul byte (\\x00)"
        )
    })
}

/// A name that is none is runc's to refuse; numbers that make no sense are the kernel's.
fn rlimits(definition: &Definition) -> Result<Option<Vec<oci::PosixRlimit>>, Error> {
    let Some(ulimits) = &definition.host_config.ulimits else {
        return Ok(None);
    };
    let limits = ulimits.iter().map(|ulimit| {
        let name = format!("RLIMIT_{}", ulimit.name.to_ascii_uppercase());
        let typ: oci::PosixRlimitType = serde_json::from_value(name.clone().into())
            .map_err(|_| failed(format!("{CREATE_FAILED}wrong rlimit value: {name}")))?;
        let limit = oci::PosixRlimitBuilder::default()
            .typ(typ)
            // The same bits, as Go converts them: -1 is no limit.
            .hard(ulimit.hard.cast_unsigned())
            .soft(ulimit.soft.cast_unsigned());
        Ok(limit.build().expect("all fields are set"))
    });
    limits.collect::<Result<_, _>>().map(Some)
}

fn annotations(definition: &Definition) -> Option<HashMap<String, String>> {
    let given = definition.host_config.annotations.iter().flatten();
    let all: HashMap<String, String> = given
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Some(all).filter(|all| !all.is_empty())
}

fn linux(
    definition: &Definition,
    place: &Place<'_>,
    identity: &Identity,
    names: &[String],
    security: &SecurityOptions,
) -> Result<oci::Linux, Error> {
    let host_config = &definition.host_config;
    let privileged = host_config.privileged;
    let seccomp = security::seccomp(security, names, privileged)
        .map_err(|error| failed(error.to_string()))?;
    let given = resources::devices(host_config)?;
    let mut limits = resources(host_config, place.cgroup_v2)?;
    let mut rules = devices::default_rules();
    rules.extend(given.rules);
    limits.set_devices(Some(rules));
    let parent = match host_config.cgroup_parent.as_str() {
        "" => place.cgroup_parent,
        own => own,
    };
    let cgroup = format!("/{}/{}", parent.trim_matches('/'), definition.id);
    let paths =
        |list: &Option<Vec<String>>| list.clone().filter(|list| !list.is_empty() && !privileged);
    let mut linux = oci::Linux::default();
    linux
        .set_sysctl(sysctls(definition, identity))
        .set_resources(Some(limits))
        .set_cgroups_path(Some(PathBuf::from(cgroup)))
        .set_namespaces(Some(namespaces(definition, place)?))
        .set_devices(Some(given.nodes).filter(|nodes| !nodes.is_empty()))
        .set_seccomp(seccomp)
        .set_rootfs_propagation(mounts::rootfs_propagation(definition))
        .set_masked_paths(paths(&host_config.masked_paths))
        .set_readonly_paths(paths(&host_config.readonly_paths));
    Ok(linux)
}

fn sysctls(definition: &Definition, identity: &Identity) -> Option<HashMap<String, String>> {
    let host_config = &definition.host_config;
    let mut sysctls = HashMap::new();
    let mode = host_config.network_mode.as_str();
    if mode != "host" && !mode.starts_with("container:") {
        for (name, value) in [UNPRIVILEGED_PORTS, PING_GROUPS] {
            sysctls.insert(name.to_owned(), value.to_owned());
        }
    }
    if !identity.domainname.is_empty() {
        sysctls.insert("kernel.domainname".to_owned(), identity.domainname.clone());
    }
    for (name, value) in host_config.sysctls.iter().flatten() {
        sysctls.insert(name.clone(), value.clone());
    }
    Some(sysctls).filter(|sysctls| !sysctls.is_empty())
}

fn namespaces(
    definition: &Definition,
    place: &Place<'_>,
) -> Result<Vec<oci::LinuxNamespace>, Error> {
    use oci::LinuxNamespaceType as Type;
    let host_config = &definition.host_config;
    let mut namespaces = Vec::new();
    let mut add = |typ: Type, path: Option<PathBuf>| {
        let mut namespace = oci::LinuxNamespace::default();
        namespace.set_typ(typ).set_path(path);
        namespaces.push(namespace);
    };
    add(Type::Mount, None);
    let modes = [
        (Type::Network, "net", "network", &host_config.network_mode),
        (Type::Uts, "uts", "UTS", &host_config.uts_mode),
        (Type::Pid, "pid", "PID", &host_config.pid_mode),
        (Type::Ipc, "ipc", "IPC", &host_config.ipc_mode),
    ];
    for (typ, file, what, mode) in modes {
        if mode == "host" {
            continue;
        }
        let path = match joined(mode, place) {
            None => None,
            Some(Some(peer)) if typ == Type::Ipc && !peer.ipc_shareable => {
                return Err(Error::invalid(format!(
                    "failed to join IPC namespace: container {}: non-shareable IPC \
                     (hint: use IpcMode:shareable for the donor container)",
                    peer.id
                )));
            }
            Some(Some(peer)) => Some(PathBuf::from(format!("/proc/{}/ns/{file}", peer.pid))),
            Some(None) => {
                let id = mode.trim_start_matches("container:");
                return Err(failed(format!(
                    "failed to join {what} namespace: container {id} is not running"
                )));
            }
        };
        add(typ, path);
    }
    if host_config.cgroupns_mode == "private" {
        add(Type::Cgroup, None);
    }
    Ok(namespaces)
}
