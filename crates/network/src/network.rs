//! The one object callers hold: attach, detach, sweep, watch.

mod attach;
mod guard;
mod reaper;

use std::collections::HashSet;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use db::Db;
use ipnet::Ipv4Net;
use sys::link::{Changes, Isolation, Link, Links};
use sys::nft::{Element, NfTables, Transaction};

use crate::attachment::EndpointRecord;
use crate::bridge;
use crate::claim::Claim;
use crate::config::Config;
use crate::error::Error;
use crate::firewall::{self, Policy};
use crate::namespace::{Namespace, Pairs, Spares, link_failed};
use crate::ports::Ports;
use crate::rows;
use crate::settings;

/// The default bridge and all that hangs on it. Clones share it. All calls block.
#[derive(Debug, Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    claim: Claim,
    bridge_index: u32,
    address: Ipv4Net,
    policy: Policy,
    ports: Ports,
    spares: Spares,
    links: Mutex<Links>,
    firewall: Mutex<Firewall>,
    warnings: Mutex<Vec<String>>,
    chores: Mutex<reaper::Chores>,
}

/// The table as it was last written.
#[derive(Debug)]
struct Firewall {
    nft: NfTables,
    written: guard::Written,
    /// Containers whose elements are gone while their rows are still there.
    leaving: HashSet<String>,
}

/// No operation leaves these in a broken state half-way: a panic in one does not concern the next.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn firewall_failed(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Firewall { operation, source }
}

impl Network {
    /// Takes the bridge for this daemon, makes what is missing, adopts what is there: bridge, addresses, firewall table with the ports of
    /// every row, rules at the head of foreign chains, settings. Idempotent.
    ///
    /// # Errors
    /// Any of [`Error`] but the port and address ones.
    pub fn open(config: Config) -> Result<Self, Error> {
        let mut links = Links::open().map_err(link_failed("open a socket for", "links"))?;
        bridge::validate(&config)?;
        let claim = Claim::take(&config, &mut links)?;
        let standing = bridge::stand(&config, &mut links)?;
        settings::make_room_for_neighbours();
        let policy = Policy {
            table: config.instance.clone(),
            bridge: config.bridge.clone(),
            subnet: standing.address.trunc(),
            icc: config.icc,
            masquerade: config.masquerade,
            guard_forwarding: standing.forwarding,
        };
        let nft = NfTables::open().map_err(firewall_failed("open a socket"))?;
        let inner = Inner {
            bridge_index: standing.index,
            address: standing.address,
            policy,
            ports: Ports::default(),
            spares: Spares::default(),
            links: Mutex::new(links),
            firewall: Mutex::new(Firewall {
                nft,
                written: guard::Written::default(),
                leaving: HashSet::new(),
            }),
            warnings: Mutex::default(),
            chores: Mutex::default(),
            claim,
            config,
        };
        inner.rebuild_firewall()?;
        inner.assert_foreign()?;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The names of the bridges that an earlier engine on this database has left.
    ///
    /// # Errors
    /// [`Error::Db`].
    pub fn left(db: &Db) -> Result<Vec<String>, Error> {
        rows::bridges(db)
    }

    /// Whether no container is attached.
    ///
    /// # Errors
    /// [`Error::Db`].
    pub fn is_unused(&self) -> Result<bool, Error> {
        let inner = &self.inner;
        Ok(rows::endpoints(&inner.config.db, &inner.config.bridge)?.is_empty())
    }

    /// The bridge's subnet.
    #[must_use]
    pub fn subnet(&self) -> Ipv4Net {
        self.inner.address.trunc()
    }

    /// The bridge's own address.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.inner.address.addr()
    }

    /// What the user should know, for `Warnings` of /info.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        lock(&self.inner.warnings).clone()
    }

    /// Makes a namespace with a veth pair half-way, off the start path.
    ///
    /// # Errors
    /// [`Error::Namespace`], [`Error::Link`], [`Error::BridgeFull`].
    pub fn prepare(&self) -> Result<Namespace, Error> {
        self.inner.with_pairs(Namespace::prepare)
    }

    /// The record of an attached container.
    ///
    /// # Errors
    /// [`Error::Db`].
    pub fn endpoint(&self, container: &str) -> Result<Option<EndpointRecord>, Error> {
        rows::endpoint(&self.inner.config.db, &self.inner.config.bridge, container)
    }

    /// Detaches every container that is not in `live` and removes every kernel object without a row.
    ///
    /// # Errors
    /// The first failure, after everything was tried.
    pub fn sweep(&self, live: &HashSet<String>) -> Result<(), Error> {
        let inner = &self.inner;
        let mut failures = Vec::new();
        for row in rows::endpoints(&inner.config.db, &inner.config.bridge)? {
            if !live.contains(&row.container) {
                failures.extend(self.detach(&row.container).err());
            }
        }
        failures.extend(inner.sweep_elements().err());
        failures.extend(inner.sweep_links(Inner::attached).err());
        collect(failures)
    }

    /// Removes the bridge, the table and the rules in foreign chains: the end of this network.
    ///
    /// # Errors
    /// The first failure, after everything was tried.
    pub fn remove(self) -> Result<(), Error> {
        let inner = &self.inner;
        let (db, bridge) = (&inner.config.db, &inner.config.bridge);
        let mut failures = Vec::new();
        for row in rows::endpoints(db, bridge)? {
            failures.extend(self.detach(&row.container).err());
        }
        // The setting goes before the drops that make it safe.
        failures.extend(settings::route_localnet(bridge, settings::RouteLocalnet::Refused).err());
        failures.extend(inner.sweep_links(|_| Ok(HashSet::new())).err());
        let gone = lock(&inner.links).apply(Changes::new().delete(inner.bridge_index));
        failures.extend(gone.map_err(link_failed("delete the bridge", bridge)).err());
        failures.extend(inner.retract_firewall().err());
        failures.extend(rows::delete_bridge(db, bridge).err());
        failures.extend(inner.claim.give_up().err());
        collect(failures)
    }
}

/// Nothing, the only failure, or the first with the rest.
fn collect(mut failures: Vec<Error>) -> Result<(), Error> {
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        _ => {
            let first = Box::new(failures.remove(0));
            Err(Error::Undo {
                first,
                rest: failures,
            })
        }
    }
}

impl Inner {
    fn with_pairs<T>(
        &self,
        work: impl FnOnce(&mut Pairs<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let alias = format!("{}:spare", self.config.instance);
        let mut links = Links::open().map_err(link_failed("open a socket for", "links"))?;
        work(&mut Pairs {
            links: &mut links,
            bridge: &self.config.bridge,
            bridge_index: self.bridge_index,
            mtu_bytes: self.config.mtu_bytes,
            isolation: if self.config.icc {
                Isolation::Off
            } else {
                Isolation::On
            },
            alias: &alias,
            spares: &self.spares,
        })
    }

    fn ensure_half(&self, namespace: &mut Namespace) -> Result<(), Error> {
        if namespace.has_half() {
            return Ok(());
        }
        self.with_pairs(|pairs| namespace.make_half(pairs))
    }

    fn alias(&self, container: &str) -> String {
        format!("{}:{container}", self.config.instance)
    }

    /// Ids of the containers that have a row.
    fn attached(&self) -> Result<HashSet<String>, Error> {
        let rows = rows::endpoints(&self.config.db, &self.config.bridge)?;
        Ok(rows.into_iter().map(|row| row.container).collect())
    }

    fn sweep_elements(&self) -> Result<(), Error> {
        // Under the lock no element can come that has no row yet in `known`.
        let mut firewall = lock(&self.firewall);
        let known = self.attached()?;
        let table = self.policy.table();
        let mut transaction = Transaction::new();
        for map in firewall::MAPS {
            let elements = firewall.nft.elements(table, map);
            let strays: Vec<Element> = elements
                .map_err(firewall_failed("read the published ports"))?
                .into_iter()
                .filter(|element| {
                    !element
                        .comment
                        .as_ref()
                        .is_some_and(|id| known.contains(id))
                })
                .collect();
            transaction.delete_elements(table, map, &strays);
        }
        let swept = firewall.nft.commit(transaction);
        swept.map_err(firewall_failed("remove stray ports"))
    }

    fn sweep_links(
        &self,
        known: impl FnOnce(&Self) -> Result<HashSet<String>, Error>,
    ) -> Result<(), Error> {
        let mut links = lock(&self.links);
        let all = links
            .list()
            .map_err(link_failed("list ports of", &self.config.bridge))?;
        // Rows are read after the links: one that carries an id had its row before.
        let known = known(self)?;
        let prefix = format!("{}:", self.config.instance);
        let stray = |link: &&Link| {
            let owner = link
                .alias
                .as_ref()
                .and_then(|alias| alias.strip_prefix(&prefix));
            link.kind.as_deref() == Some("veth")
                && !self.spares.contains(&link.name)
                && owner.map_or(link.master == Some(self.bridge_index), |id| {
                    !known.contains(id)
                })
        };
        let mut failures = Vec::new();
        for link in all.iter().filter(stray) {
            let gone = links.apply(Changes::new().delete(link.index));
            failures.extend(
                gone.or_else(missing_is_fine)
                    .map_err(link_failed("delete", &link.name))
                    .err(),
            );
        }
        collect(failures)
    }
}

/// An interface that went by itself, with its namespace, is as good as deleted.
fn missing_is_fine(error: io::Error) -> io::Result<()> {
    const ENODEV: i32 = 19;
    match error.raw_os_error() {
        Some(ENODEV) => Ok(()),
        _ => Err(error),
    }
}
