//! Keeps the firewall as it should be while others change theirs.
//!
//! Everything is compared with what the kernel has and written again only where it differs. If our
//! table is gone or changed, `route_localnet` goes first, since the drops that make it safe may be
//! missing, and comes back after the table.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use sys::epoll::{Epoll, Event, Interest};
use sys::nft::{Chain, Element, Family, Monitor, Rule, Transaction};

use super::{Inner, Network, firewall_failed, lock};
use crate::error::Error;
use crate::firewall::{self, foreign, legacy};
use crate::rows;
use crate::settings::{self, RouteLocalnet};

/// How long changes are left to gather: a reload of firewalld is several transactions.
const SETTLE: Duration = Duration::from_millis(50);
/// Legacy iptables tells nobody of its changes, so it is looked at this often.
const LEGACY_INTERVAL: Duration = Duration::from_secs(30);
const KEY_CHANGE: u64 = 0;
const KEY_STOP: u64 = 1;

/// What the kernel says of our table after we wrote it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    chains: Vec<Chain>,
    rules: Vec<Rule>,
}

impl Inner {
    /// Writes the whole table anew in one transaction, with the ports of every row.
    pub(super) fn rebuild_firewall(&self) -> Result<(), Error> {
        // Rows are read under the lock that every element is written under: whoever claims one later
        // adds its elements after us.
        let mut firewall = lock(&self.firewall);
        let rows = rows::endpoints(&self.config.db, &self.config.bridge)?;
        let elements: Vec<(&'static str, Element)> = rows
            .iter()
            .filter(|row| !firewall.leaving.contains(&row.container))
            .flat_map(firewall::elements)
            .collect();
        let bridge = &self.config.bridge;
        let committed = firewall.nft.commit(self.policy.rebuild(&elements));
        if let Err(source) = committed {
            settings::route_localnet(bridge, RouteLocalnet::Refused)?;
            return Err(firewall_failed("write the table")(source));
        }
        sys::fault!("network.table");
        firewall.written = self.read_table(&mut firewall.nft)?;
        settings::route_localnet(bridge, RouteLocalnet::Allowed)
    }

    fn read_table(&self, nft: &mut sys::nft::NfTables) -> Result<Written, Error> {
        let failed = || firewall_failed("read the table");
        let table = self.policy.table();
        let chains = nft.chains().map_err(failed())?;
        Ok(Written {
            chains: chains
                .into_iter()
                .filter(|chain| chain.family == Family::Inet && chain.table == table.name)
                .collect(),
            rules: nft.rules(table).map_err(failed())?,
        })
    }

    /// Compares our table with what was written and mends it.
    fn check_table(&self) -> Result<(), Error> {
        let whole = {
            let mut firewall = lock(&self.firewall);
            self.read_table(&mut firewall.nft)? == firewall.written
        };
        if !whole {
            settings::route_localnet(&self.config.bridge, RouteLocalnet::Refused)?;
            tracing::warn!(
                table = self.policy.table,
                "somebody changed our table; write it again"
            );
            return self.rebuild_firewall();
        }
        self.restore_elements()
    }

    /// Puts back elements that somebody took out.
    fn restore_elements(&self) -> Result<(), Error> {
        let mut firewall = lock(&self.firewall);
        let rows = rows::endpoints(&self.config.db, &self.config.bridge)?;
        let table = self.policy.table();
        let mut transaction = Transaction::new();
        for map in firewall::MAPS {
            let there = firewall.nft.elements(table, map);
            let there = there.map_err(firewall_failed("read the published ports"))?;
            let missing: Vec<Element> = rows
                .iter()
                .filter(|row| !firewall.leaving.contains(&row.container))
                .flat_map(firewall::elements)
                .filter(|(of, element)| *of == map && !there.iter().any(|e| e.key == element.key))
                .map(|(_, element)| element)
                .collect();
            transaction.add_elements(table, map, &missing);
        }
        let restored = firewall.nft.commit(transaction);
        restored.map_err(firewall_failed("restore published ports"))
    }

    /// Lets our traffic through the chains of others.
    pub(super) fn assert_foreign(&self) -> Result<(), Error> {
        let asserted = foreign::assert(&mut lock(&self.firewall).nft, &self.config.bridge);
        asserted.map_err(firewall_failed("add rules to foreign chains"))?;
        self.assert_legacy();
        Ok(())
    }

    fn assert_legacy(&self) {
        let bridge = &self.config.bridge;
        let warning = match legacy::assert(bridge) {
            Ok(legacy::Outcome::Unneeded | legacy::Outcome::Asserted) => None,
            Ok(legacy::Outcome::NoProgram) => Some(format!(
                "WARNING: legacy iptables rules are in use and there is no iptables-legacy program: \
                 they may drop the traffic of {bridge}"
            )),
            Err(error) => Some(format!(
                "WARNING: legacy iptables rules may drop the traffic of {bridge}: {error}"
            )),
        };
        let mut warnings = lock(&self.warnings);
        warnings.clear();
        warnings.extend(warning);
    }

    pub(super) fn retract_firewall(&self) -> Result<(), Error> {
        let bridge = &self.config.bridge;
        let mut firewall = lock(&self.firewall);
        let foreign = foreign::retract(&mut firewall.nft, bridge);
        let legacy = legacy::retract(bridge);
        let table = self.policy.table();
        let mut transaction = Transaction::new();
        transaction.add_table(table);
        transaction.delete_table(table);
        let own = firewall.nft.commit(transaction);
        foreign.map_err(firewall_failed("remove rules from foreign chains"))?;
        legacy.map_err(firewall_failed("remove rules from legacy iptables"))?;
        own.map_err(firewall_failed("delete the table"))
    }
}

impl Network {
    /// Puts everything back that somebody changed. [`Network::watch`] calls it; so may anyone.
    ///
    /// # Errors
    /// [`Error::Firewall`], [`Error::Setting`], [`Error::Db`].
    pub fn check(&self) -> Result<(), Error> {
        let table = self.inner.check_table();
        self.inner.assert_foreign()?;
        table
    }

    /// Waits for changes others make to nf_tables and puts our rules back; returns once `stop` is
    /// readable or closed. For a thread of its own.
    ///
    /// # Errors
    /// [`Error::Firewall`] when the notifications cannot be had; later failures are logged.
    pub fn watch(&self, stop: BorrowedFd<'_>) -> Result<(), Error> {
        let failed = || firewall_failed("watch for changes");
        let mut monitor = Monitor::open().map_err(failed())?;
        let epoll = Epoll::new().map_err(failed())?;
        epoll
            .add(monitor.as_fd(), KEY_CHANGE, Interest::READ)
            .map_err(failed())?;
        epoll
            .add(stop, KEY_STOP, Interest::READ)
            .map_err(failed())?;
        // What changed between open and now was told to nobody.
        self.check_and_log();
        let mut events: Vec<Event> = Vec::new();
        loop {
            let interval = legacy::in_use().then_some(LEGACY_INTERVAL);
            epoll.wait(&mut events, interval).map_err(failed())?;
            if events.iter().any(|event| event.key == KEY_STOP) {
                return Ok(());
            }
            let due = events.is_empty() && interval.is_some();
            if due || monitor.changed_by_others().map_err(failed())? {
                self.check_and_log();
                if self.settle(&mut monitor, stop).map_err(failed())? {
                    self.check_and_log();
                }
            }
        }
    }

    /// Waits a moment; true if more changes came meanwhile.
    fn settle(&self, monitor: &mut Monitor, stop: BorrowedFd<'_>) -> std::io::Result<bool> {
        let epoll = Epoll::new()?;
        epoll.add(stop, KEY_STOP, Interest::READ)?;
        epoll.wait(&mut Vec::new(), Some(SETTLE))?;
        monitor.changed_by_others()
    }

    fn check_and_log(&self) {
        if let Err(error) = self.check() {
            tracing::error!(%error, source = ?std::error::Error::source(&error), "put the firewall back");
        }
    }
}
