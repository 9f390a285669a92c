//! What a launch needs: the files the container sees, and the message that makes its init. Blocks.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use network::{Dns, Servers};
use runtime::cgroup::{self, CgroupPath};
use runtime::{Overlay, Rootfs, oci, seccomp};
use shim::protocol::{self, Size};

use crate::container::Container;
use crate::definition::Definition;
use crate::open::Inner;
use crate::spec::{self, Peer, Place};
use crate::state::Attached;
use crate::{ContainerId, Error, Snapshot, files, launch, log_file, lookup, volumes};

/// What a shim is told, and the network namespace that goes with it.
pub(crate) struct Prepared {
    pub(crate) create: protocol::Create,
    pub(crate) netns: Option<OwnedFd>,
    /// The first processes of the containers that are joined.
    pub(crate) peers: Vec<OwnedFd>,
    /// The sockets of published ports.
    pub(crate) forwards: Vec<OwnedFd>,
    /// The place in the network, to be saved with the run.
    pub(crate) network: Option<Box<Attached>>,
    /// What must stay open until the shim has made the init.
    pub(crate) held: Vec<OwnedFd>,
}

/// Prepares a launch: an empty run directory, the files, and what the shim is told. The sources of binds may make it
/// hang; if it was given up meanwhile, it makes nothing.
pub(crate) fn launch(
    engine: &Inner,
    container: &Container,
    given_up: impl Fn() -> bool,
) -> Result<Prepared, Error> {
    let snapshot = container.snapshot();
    let definition = &snapshot.definition;
    let id = &definition.id;
    let held = engine.images.mountable(id.as_str())?;
    let held = held.ok_or_else(|| imageless(id))?;
    let directory = engine.config.container_dir(id);
    let log = log_file::settings(definition, &snapshot.name, &directory).map_err(unlogged)?;
    let joined = joined(engine, definition)?;
    let peers: BTreeMap<_, _> = joined.iter().map(of_a_peer).collect();
    let sources = volumes::sources(engine, definition)?;
    let place = Place {
        directory: &directory,
        cgroup_v2: cgroup::version() == cgroup::Version::V2,
        bounding: engine.bounding,
        cgroup_parent: &engine.config.cgroup_parent,
        peers: &peers,
        sources: &sources.by_destination,
    };
    let mut spec = spec::generate(definition, &place)?;
    let seccomp = take_seccomp(&mut spec)?;
    let _parts = container.parts();
    if given_up() {
        return Err(interrupted(id));
    }
    let run_dir = engine.config.run_dir(id);
    files::make_run_dir(&run_dir)?;
    sys::fault!("engine.launch.run_dir");
    let given = engine.networks.attach(definition, &snapshot.name)?;
    sys::fault!("engine.launch.attached");
    let bridged = given.attached.as_ref().and_then(|a| a.bridged.as_ref());
    write_network_files(engine, definition, bridged.map(|bridged| bridged.ipv4))?;
    let host = &definition.host_config;
    let cgroup = CgroupPath::new(&engine.cgroup_parent(definition), id.as_str())
        .map_err(|source| Error::internal("name the cgroup", source))?;
    let [height, width] = host.console_size;
    let create = protocol::Create {
        id: id.to_string(),
        run_dir,
        spec: Box::new(spec),
        seccomp,
        user: spec::user(definition),
        rootfs: Rootfs::Overlay(Overlay {
            layers: held.layers_dir,
            lower: held.lower,
            upper: directory.join("upper"),
            work: directory.join("work"),
        }),
        init: host.init.unwrap_or(engine.defaults.load().init),
        terminal: definition.config.tty,
        stdin: definition.config.open_stdin,
        stdin_once: definition.config.stdin_once,
        size: terminal_size(height, width),
        log,
        cgroup,
        netns: given.netns.is_some(),
        peers: peers.values().map(|peer: &Peer| peer.pid).collect(),
        forwards: given.forwards,
    };
    Ok(Prepared {
        create,
        netns: given.netns,
        peers: joined
            .into_values()
            .map(|(_, process)| process.pidfd)
            .collect(),
        forwards: given.sockets,
        network: given.attached,
        held: sources.held,
    })
}

/// The error of a start that somebody has ended.
pub(crate) fn interrupted(id: &ContainerId) -> Error {
    Error::conflict(format!("the start of container {id} was interrupted"))
}

fn imageless(id: &ContainerId) -> Error {
    let text = format!("container {id} holds no image");
    Error::new(crate::Class::Internal, text)
}

fn unlogged(why: String) -> Error {
    let words = "failed to create task for container: failed to initialize logging driver";
    Error::new(crate::Class::Internal, format!("{words}: {why}"))
}

/// Takes the seccomp policy out of a specification, compiled.
fn take_seccomp(spec: &mut oci::Spec) -> Result<Option<Arc<seccomp::Program>>, Error> {
    let Some(linux) = spec.linux_mut() else {
        return Ok(None);
    };
    let Some(policy) = linux.seccomp() else {
        return Ok(None);
    };
    let program = seccomp::compile_cached(policy).map_err(|source| {
        let message = format!("{}{source}", launch::CREATE_FAILED);
        Error::new(crate::Class::Internal, message)
    })?;
    linux.set_seccomp(None);
    Ok(Some(program))
}

fn of_a_peer((id, (peer, _)): (&ContainerId, &(Peer, runtime::Peer))) -> (ContainerId, Peer) {
    (id.clone(), peer.clone())
}

/// The containers whose namespaces this one joins, and their first processes.
fn joined(
    engine: &Inner,
    definition: &Definition,
) -> Result<BTreeMap<ContainerId, (Peer, runtime::Peer)>, Error> {
    let host = &definition.host_config;
    let mut joined = BTreeMap::new();
    for mode in [&host.network_mode, &host.ipc_mode, &host.pid_mode] {
        let Some(name) = mode.strip_prefix("container:") else {
            continue;
        };
        let found = lookup::container(&engine.index, name);
        let container = found.map_err(|error| match mode == &host.network_mode {
            true => {
                let words = "joining network namespace of container";
                Error::new(
                    crate::Class::Internal,
                    format!("{words}: {}", error.message),
                )
            }
            false => error,
        })?;
        let snapshot = container.snapshot();
        // One that does not run is no peer: the specification says so in Docker's words.
        let Some(process) = first_process(engine, &snapshot)? else {
            continue;
        };
        let peer = Peer {
            id: container.id().clone(),
            pid: process.pid,
            directory: engine.config.container_dir(container.id()),
            hostname: snapshot.definition.config.hostname.clone(),
            domainname: snapshot.definition.config.domainname.clone(),
            ipc_shareable: !matches!(
                snapshot.definition.host_config.ipc_mode.as_str(),
                "private" | "none"
            ),
        };
        joined.insert(container.id().clone(), (peer, process));
    }
    Ok(joined)
}

/// The first process of a container, by the number that its snapshot says and only if that is it still.
fn first_process(engine: &Inner, snapshot: &Snapshot) -> Result<Option<runtime::Peer>, Error> {
    let Some(pid) = snapshot.facts.pid else {
        return Ok(None);
    };
    let definition = &snapshot.definition;
    let failed = |source| Error::internal(format!("join container {}", definition.id), source);
    let parent = engine.cgroup_parent(definition);
    let opened = launch::open_cgroup(&parent, definition.id.as_str());
    // It goes with the container.
    let Some(cgroup) = opened.map_err(|error| failed(io::Error::other(error)))? else {
        return Ok(None);
    };
    match runtime::Peer::open(pid, &cgroup) {
        Ok(process) => Ok(Some(process)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// A size of zero is none.
fn terminal_size(height: u32, width: u32) -> Option<Size> {
    let height = u16::try_from(height).ok()?;
    let width = u16::try_from(width).ok()?;
    (height > 0 && width > 0).then_some(Size { width, height })
}

/// hosts, hostname and resolv.conf, as `address` and the container's network want them.
fn write_network_files(
    engine: &Inner,
    definition: &Definition,
    address: Option<Ipv4Addr>,
) -> Result<(), Error> {
    let host = &definition.host_config;
    if host.network_mode.starts_with("container:") {
        // It has the files of the container whose network it shares.
        return Ok(());
    }
    let id = &definition.id;
    let config = &definition.config;
    // The domain name is the kernel's to tell, not this file's (as in dockerd).
    let hostname = format!("{}\n", config.hostname);
    files::write_readable(engine, id, "hostname", &hostname)?;
    let extra = extra_hosts(engine, definition);
    let (hosts, usable) = if host.network_mode == "host" {
        let mut hosts = read_of_host("/etc/hosts");
        for (name, address) in &extra {
            hosts.push_str(&format!("{address}\t{name}\n"));
        }
        (hosts, Servers::All)
    } else {
        let (name, domain) = (&config.hostname, &config.domainname);
        let hosts = network::hosts_file(name, domain, address.map(IpAddr::V4), &extra);
        (hosts, Servers::Reachable)
    };
    files::write_readable(engine, id, "hosts", &hosts)?;
    let resolver = match usable {
        Servers::All => read_of_host("/etc/resolv.conf"),
        Servers::Reachable => network::host_resolv_conf(),
    };
    let resolver = network::resolv_conf(&resolver, &dns(engine, definition)?, usable);
    files::write_readable(engine, id, "resolv.conf", &resolver)
}

/// `--add-host`: `name:address` or `name=address`; an IPv6 address has colons of its own, and brackets perhaps.
fn extra_hosts(engine: &Inner, definition: &Definition) -> Vec<(String, IpAddr)> {
    let entries = definition.host_config.extra_hosts.iter().flatten();
    entries
        .filter_map(|entry| {
            let at = entry.find('=').or_else(|| entry.find(':'))?;
            let (name, address) = (&entry[..at], &entry[at + 1..]);
            let address = match address {
                "host-gateway" => IpAddr::V4(engine.networks.gateway()?),
                address => address.trim_matches(['[', ']']).parse().ok()?,
            };
            Some((name.to_owned(), address))
        })
        .collect()
}

/// A file of the host; one that cannot be read is as an empty one, as in dockerd.
fn read_of_host(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The resolver's settings: the container's own, else the daemon's.
fn dns(engine: &Inner, definition: &Definition) -> Result<Dns, Error> {
    let defaults = engine.defaults.load();
    let host = &definition.host_config;
    let own = |wanted: &Option<Vec<String>>, default: &[String]| match wanted {
        Some(list) if !list.is_empty() => list.clone(),
        Some(_) | None => default.to_vec(),
    };
    let mut servers = Vec::new();
    for server in own(&host.dns, &defaults.dns) {
        let address = crate::networks::go_address(&server).map_err(|why| {
            let words = format!("bad nameserver address {server}: {why}");
            Error::new(crate::Class::Internal, words)
        })?;
        servers.push(address);
    }
    Ok(Dns {
        servers,
        search: own(&host.dns_search, &defaults.dns_search),
        options: own(&host.dns_options, &defaults.dns_options),
    })
}
