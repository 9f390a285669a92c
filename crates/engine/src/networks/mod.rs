//! The networks of the engine: `bridge`, `host` and `none`, and what a run gets of them.
//!
//! The crate `network` owns bridge, addresses and ports; this module decides what a container asks of it, keeps
//! namespaces ready for the next starts, and knows the networks' ids. What a run has got is part of its saved
//! facts ([`Attached`]), so that readers ask nobody.
//!
//! An engine whose bridge could not be made works all the same: what starts on the bridge is refused with the
//! reason, and `info` warns of it.

mod address;
mod ports;
pub(crate) mod render;
mod shown;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::event::EventMessage;
use db::Db;
use network::{
    Attachment, Endpoint, Error as NetworkError, Holder, Mac, Names, Namespace, Network,
};
use shim::protocol::{FORWARDS_MAX, ForwardSpec};
use sys::clock::now_ns;
use tokio::sync::Notify;

pub(crate) use self::address::go_address;
use crate::config::{self, Config};
use crate::error::Chain;
use crate::events;
use crate::id::random_hex;
use crate::open::Inner;
use crate::state::{Attached, Bridged};
use crate::{Class, ContainerId, Definition, Error};

/// The networks that every engine has, with what `docker network ls` calls their drivers.
const PREDEFINED: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];

/// How long the namespaces rest after one could not be made, so that a broken host is not kept busy.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// dockerd's words before what went wrong with a container's network.
const FAILED: &str = "failed to set up container networking";

/// What clients know a network by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    id: String,
    created_ns: i64,
}

/// The networks; one per engine.
pub(crate) struct Networks {
    /// By name.
    ids: BTreeMap<String, Identity>,
    bridge: Bridge,
    /// Bridges of earlier runs under other names: each stays as long as a container that runs is on it.
    left: Mutex<Vec<Network>>,
    ready: Mutex<VecDeque<Namespace>>,
    taken: Notify,
    /// Its other end ends the thread that watches the firewall.
    _watching: Option<UnixStream>,
}

/// The default bridge.
enum Bridge {
    Up(Network),
    /// `--bridge none`.
    Off,
    /// Why it could not be made.
    Failed(String),
}

/// What a launch hands to the shim, and what it saves.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) netns: Option<OwnedFd>,
    pub(crate) forwards: Vec<ForwardSpec>,
    /// The sockets of `forwards`.
    pub(crate) sockets: Vec<OwnedFd>,
    pub(crate) attached: Option<Box<Attached>>,
}

impl Networks {
    /// Makes the bridge, or adopts it with the ports of every row. Blocks.
    ///
    /// # Errors
    /// Internal when the state cannot be read or saved; a bridge that cannot be made is none.
    pub(crate) fn open(config: &Config, db: &Db) -> Result<Self, Error> {
        let ids = ids(db)?;
        let bridge = match &config.bridge.name {
            None => Bridge::Off,
            Some(name) => match Network::open(settings(config, name, db)) {
                Ok(network) => Bridge::Up(network),
                Err(error) => {
                    let reason = Chain(&error).to_string();
                    tracing::warn!(
                        bridge = name,
                        reason,
                        "containers cannot start on the bridge"
                    );
                    Bridge::Failed(reason)
                }
            },
        };
        let watching = match &bridge {
            Bridge::Up(network) => watch(network),
            Bridge::Off | Bridge::Failed(_) => None,
        };
        Ok(Self {
            ids,
            bridge,
            left: Mutex::new(left(config, db)?),
            ready: Mutex::default(),
            taken: Notify::new(),
            _watching: watching,
        })
    }

    /// The id of a network of its own kind; empty for another container's.
    pub(crate) fn id(&self, name: &str) -> &str {
        self.ids.get(name).map_or("", |known| known.id.as_str())
    }

    /// What the user should know.
    pub(crate) fn warnings(&self) -> Vec<String> {
        match &self.bridge {
            Bridge::Up(network) => network.warnings(),
            Bridge::Off => Vec::new(),
            Bridge::Failed(reason) => {
                vec![format!(
                    "WARNING: containers cannot start on the default bridge: {reason}"
                )]
            }
        }
    }

    /// The bridge's own address, which `host-gateway` stands for.
    pub(crate) fn gateway(&self) -> Option<std::net::Ipv4Addr> {
        match &self.bridge {
            Bridge::Up(network) => Some(network.gateway()),
            Bridge::Off | Bridge::Failed(_) => None,
        }
    }

    /// Puts a container into its network. Blocks.
    ///
    /// # Errors
    /// Internal in dockerd's words when it cannot be.
    pub(crate) fn attach(&self, definition: &Definition, name: &str) -> Result<Given, Error> {
        match definition.host_config.network_mode.as_str() {
            _ if definition.config.network_disabled => Ok(Given::default()),
            "bridge" => self.attach_to_bridge(definition, name),
            "none" | "host" => {
                let attached = attached(random_hex().map_err(nameless)?)?;
                Ok(Given {
                    attached: Some(attached),
                    ..Given::default()
                })
            }
            mode if mode.starts_with("container:") => Ok(Given::default()),
            other => Err(Error::not_found(format!(
                "{FAILED}: network {other} not found"
            ))),
        }
    }

    fn attach_to_bridge(&self, definition: &Definition, name: &str) -> Result<Given, Error> {
        let network = match &self.bridge {
            Bridge::Up(network) => network,
            Bridge::Off => {
                let text = "network bridge not found: the daemon runs with --bridge=none; choose --network \
                            none or host";
                return Err(Error::not_found(format!("{FAILED}: {text}")));
            }
            Bridge::Failed(reason) => {
                let text = format!("{FAILED}: the default bridge could not be made: {reason}");
                return Err(Error::new(Class::Internal, text));
            }
        };
        let ports = ports::requests(definition).map_err(|reason| refused_port(name, &reason))?;
        if ports.len() > FORWARDS_MAX {
            let reason = format!("a container publishes at most {FORWARDS_MAX} ports");
            return Err(refused_port(name, &reason));
        }
        let failed = |error: NetworkError| failure(name, error);
        let attachment = Attachment {
            container: definition.id.to_string(),
            ports,
            mac: wanted_mac(definition),
            ipv4: None,
        };
        if let Some(mut namespace) = self.take() {
            match network.attach(&mut namespace, &attachment) {
                // Somebody took its veth away while it was ready (`ip link del`, a reload of systemd-networkd): that is
                // no reason to fail.
                Err(error) if error.is_missing_link() => {
                    tracing::info!(%error, "a namespace that was kept ready is of no use any more");
                }
                attached => return given(namespace, attached.map_err(failed)?),
            }
        }
        let mut namespace = network.prepare().map_err(failed)?;
        let endpoint = network.attach(&mut namespace, &attachment);
        given(namespace, endpoint.map_err(failed)?)
    }

    /// Takes a container out of its network; one that is in none is fine. Blocks.
    ///
    /// # Errors
    /// Internal; what could not be undone the sweep tries again.
    pub(crate) fn detach(&self, id: &ContainerId) -> Result<(), Error> {
        let detached = match &self.bridge {
            Bridge::Up(network) => network.detach(id.as_str()),
            Bridge::Off | Bridge::Failed(_) => Ok(()),
        };
        let left = self.of_left(|network| network.detach(id.as_str()));
        detached
            .and(left)
            .map_err(|source| Error::internal("take a container off the bridge", source))
    }

    /// Removes what belongs to no container of `live`. Blocks.
    ///
    /// # Errors
    /// Internal, after everything was tried.
    pub(crate) fn sweep(&self, live: &HashSet<String>) -> Result<(), Error> {
        let swept = match &self.bridge {
            Bridge::Up(network) => network.sweep(live),
            Bridge::Off | Bridge::Failed(_) => Ok(()),
        };
        let left = self.of_left(|network| network.sweep(live));
        swept
            .and(left)
            .map_err(|source| Error::internal("sweep the bridge", source))
    }

    /// Works on each bridge that an earlier run has left, and removes those that are of no use any more.
    fn of_left(
        &self,
        work: impl Fn(&Network) -> Result<(), NetworkError>,
    ) -> Result<(), NetworkError> {
        let mut done = Ok(());
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|network| {
            let over = work(network).and_then(|()| match network.is_unused()? {
                true => network.clone().remove().map(|()| true),
                false => Ok(false),
            });
            match over {
                Ok(over) => !over,
                Err(error) => {
                    done = Err(error);
                    true
                }
            }
        });
        done
    }

    /// The event of a container's network, if it has one of its own kind.
    pub(crate) fn event(&self, action: &str, definition: &Definition) -> Option<EventMessage> {
        let name = definition.host_config.network_mode.as_str();
        let (_, driver) = PREDEFINED.iter().find(|(known, _)| *known == name)?;
        let attributes = BTreeMap::from([
            ("container".to_owned(), definition.id.to_string()),
            ("name".to_owned(), name.to_owned()),
            ("type".to_owned(), (*driver).to_owned()),
        ]);
        Some(events::event("network", action, self.id(name), attributes))
    }

    fn take(&self) -> Option<Namespace> {
        let namespace = self.lock().pop_front();
        self.taken.notify_one();
        namespace
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Namespace>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the namespaces up that nobody took.
    pub(crate) fn drain(&self) {
        self.lock().clear();
    }
}

/// Keeps as many namespaces ready as there are shims, until the engine stops: making one means waiting for the
/// kernel, which a start need not see.
pub(crate) async fn refill(engine: Arc<Inner>) {
    let Bridge::Up(network) = &engine.networks.bridge else {
        return;
    };
    loop {
        while engine.networks.lock().len() < engine.config.pool_size {
            let network = network.clone();
            let made = engine
                .blocking(move || {
                    network
                        .prepare()
                        .map_err(|source| Error::internal("prepare a network namespace", source))
                })
                .await;
            match made {
                Ok(namespace) => engine.networks.lock().push_back(namespace),
                Err(error) => {
                    tracing::warn!(error = %error.message, "a namespace could not be kept ready");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
        engine.networks.taken.notified().await;
    }
}

/// The ids, made at the first start of all.
fn ids(db: &Db) -> Result<BTreeMap<String, Identity>, Error> {
    let known = |connection: &db::rusqlite::Connection| -> Result<_, Error> {
        let mut statement = connection.prepare("SELECT name, id, created_ns FROM network")?;
        let rows = statement.query_map([], |row| {
            let (id, created_ns) = (row.get(1)?, row.get(2)?);
            Ok((row.get(0)?, Identity { id, created_ns }))
        })?;
        Ok(rows.collect::<Result<BTreeMap<String, _>, _>>()?)
    };
    let found = db.read(known)?;
    if PREDEFINED.iter().all(|(name, _)| found.contains_key(*name)) {
        return Ok(found);
    }
    db.write_synced(|transaction| {
        for (name, driver) in PREDEFINED {
            transaction.execute(
                "INSERT INTO network (name, id, driver, created_ns) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT DO NOTHING",
                db::rusqlite::params![name, random_hex().map_err(nameless)?, driver, now_ns()],
            )?;
        }
        Ok::<_, Error>(())
    })?;
    db.read(known)
}

/// The bridges of earlier runs that are not this one's: `--bridge` has changed, or is `none`. One that cannot be
/// adopted is left to a later start.
fn left(config: &Config, db: &Db) -> Result<Vec<Network>, Error> {
    let failed = |source| Error::internal("read the bridges of earlier runs", source);
    let mut left = Vec::new();
    for name in Network::left(db).map_err(failed)? {
        if config.bridge.name.as_deref() == Some(name.as_str()) {
            continue;
        }
        let mut settings = settings(config, &name, db);
        // Its own, which is saved.
        settings.address = None;
        match Network::open(settings) {
            Ok(network) => left.push(network),
            Err(error) => {
                let error = Chain(&error);
                tracing::warn!(bridge = name, %error, "a bridge of an earlier run stays");
            }
        }
    }
    Ok(left)
}

fn settings(config: &Config, name: &str, db: &Db) -> network::Config {
    let wanted = &config.bridge;
    let mut settings = network::Config::new(db.clone(), config.data_root.display().to_string());
    settings.bridge = name.to_owned();
    settings.instance = config::instance(name);
    settings.address = wanted.address;
    if !wanted.pools.is_empty() {
        settings.pools.clone_from(&wanted.pools);
    }
    if let Some(bytes) = wanted.mtu_bytes {
        settings.mtu_bytes = bytes;
    }
    settings.icc = wanted.icc;
    settings.masquerade = wanted.masquerade;
    settings.forward = wanted.forward;
    settings.host_ip = wanted.host_ip;
    let db = db.clone();
    settings.names = Names(Arc::new(move |id: &str| {
        let found = db.read(|connection| crate::rows::name(connection, id));
        found.ok().flatten()
    }));
    settings
}

fn watch(network: &Network) -> Option<UnixStream> {
    let begun = UnixStream::pair().and_then(|(ours, theirs)| {
        let network = network.clone();
        std::thread::Builder::new()
            .name("network-watch".to_owned())
            .spawn(move || {
                if let Err(error) = network.watch(theirs.as_fd()) {
                    tracing::error!(error = %Chain(&error), "nobody watches the firewall");
                }
            })?;
        Ok(ours)
    });
    begun
        .inspect_err(|error| tracing::error!(%error, "nobody watches the firewall"))
        .ok()
}

fn given(namespace: Namespace, endpoint: Endpoint) -> Result<Given, Error> {
    let mut attached = attached(endpoint.id)?;
    attached.bridged = Some(Bridged {
        ipv4: endpoint.ipv4,
        prefix: endpoint.prefix,
        gateway: endpoint.gateway,
        mac: endpoint.mac,
        ports: endpoint.ports,
    });
    let mut given = Given {
        netns: Some(namespace.into_fd()),
        attached: Some(attached),
        ..Given::default()
    };
    for forward in endpoint.forwards {
        given.forwards.push(ForwardSpec {
            protocol: forward.protocol,
            local: forward.local,
            target: forward.target,
        });
        given.sockets.push(forward.socket);
    }
    Ok(given)
}

fn attached(endpoint: String) -> Result<Box<Attached>, Error> {
    Ok(Box::new(Attached {
        sandbox: random_hex().map_err(nameless)?,
        endpoint,
        bridged: None,
    }))
}

fn nameless(source: std::io::Error) -> Error {
    Error::internal("make an id", source)
}

/// The hardware address that the request asks for; the rules have made sure that it is one.
fn wanted_mac(definition: &Definition) -> Option<Mac> {
    let endpoint = definition.endpoints.get("bridge").and_then(Option::as_ref);
    let text = endpoint.map_or("", |endpoint| endpoint.mac_address.as_str());
    let mut bytes = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    Some(Mac(bytes))
}

/// In dockerd's words, with who holds a port that is taken (DESIGN decision 7).
fn failure(name: &str, error: NetworkError) -> Error {
    let error = match error {
        NetworkError::Undo { first, rest } => {
            tracing::error!(?rest, "undo an attachment");
            *first
        }
        other => other,
    };
    match &error {
        NetworkError::PortAllocated {
            address,
            protocol,
            holder: Some(holder @ Holder::Process { .. }),
        } => {
            let reason = format!(
                "failed to bind host port for {address}/{protocol}: address already in use (by {holder})"
            );
            refused_port(name, &reason)
        }
        NetworkError::PortAllocated { .. } | NetworkError::PortsExhausted { .. } => {
            refused_port(name, &error.to_string())
        }
        NetworkError::Bind {
            address,
            protocol,
            source,
        } => {
            let reason = crate::volumes::plain(source);
            let reason = format!("failed to bind host port for {address}/{protocol}: {reason}");
            refused_port(name, &reason)
        }
        _ => Error::internal(FAILED, error),
    }
}

/// dockerd names an endpoint that is gone when anybody reads this.
fn refused_port(name: &str, reason: &str) -> Error {
    let endpoint = random_hex().unwrap_or_default();
    Error::new(
        Class::Internal,
        format!(
            "{FAILED}: driver failed programming external connectivity on endpoint {name} ({endpoint}): {reason}"
        ),
    )
}
