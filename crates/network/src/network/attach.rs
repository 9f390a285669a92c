//! Attach and detach: one container, all or nothing.
//!
//! ```text
//! attach: validate → bind ports → claim row → name and raise links → publish ⇢ forget old flows
//! detach: unpublish → release row ⇢ delete the pair, forget flows       (⇢ a moment later)
//! ```
//!
//! A crash after the claim leaves a row whose container the engine knows to be dead; a crash before it
//! leaves nothing, since sockets and namespaces go with the process; a pair without a row is swept.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use ipnet::Ipv4Net;
use sys::conntrack::Which;
use sys::link::Changes;
use sys::nft::{Element, Transaction};

use super::{Inner, Network, collect, firewall_failed, lock};
use crate::attachment::{
    Attachment, Endpoint, EndpointRecord, Forward, HostPort, PortRequest, Protocol, PublishedPort,
};
use crate::error::Error;
use crate::firewall;
use crate::namespace::{Namespace, link_failed, random_hex};
use crate::ports::Reserved;
use crate::rows::{self, Claim};

/// Digits of a container id.
const ID_DIGITS: usize = 64;

impl Network {
    /// Puts a container on the bridge; `eth0` is up with its address and routes when this returns, and
    /// its ports are published. Undoes everything on failure.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub fn attach(
        &self,
        namespace: &mut Namespace,
        attachment: &Attachment,
    ) -> Result<Endpoint, Error> {
        let inner = &self.inner;
        validate(attachment, inner.address)?;
        let reserved = inner.ports.reserve(&inner.config, &attachment.ports)?;
        inner.ensure_half(namespace)?;
        let id = random_hex().map_err(|source| Error::Namespace {
            operation: "name an endpoint",
            source,
        })?;
        let record = rows::claim(
            &inner.config.db,
            &Claim {
                bridge: &inner.config.bridge,
                container: &attachment.container,
                id: &id,
                host_interface: namespace.host_interface(),
                ipv4: attachment.ipv4,
                mac: attachment.mac,
                ports: &reserved
                    .iter()
                    .flat_map(Reserved::published)
                    .collect::<Vec<_>>(),
            },
        )?;
        sys::fault!("network.claimed");
        match inner.set_up(namespace, &record) {
            Ok(()) => Ok(endpoint(record, inner.address, reserved)),
            Err(error) => {
                let mut failures = vec![error];
                failures.extend(self.detach(&attachment.container).err());
                collect(failures).map(|()| unreachable!("there is at least one failure"))
            }
        }
    }

    /// Takes a container off the bridge: map elements and row at once, interface and tracked connections
    /// a moment later. A container that is not attached is no error.
    ///
    /// # Errors
    /// The first failure, after everything was tried; the row stays then.
    pub fn detach(&self, container: &str) -> Result<(), Error> {
        let inner = &self.inner;
        let (db, bridge) = (&inner.config.db, &inner.config.bridge);
        let Some(record) = rows::endpoint(db, bridge, container)? else {
            return Ok(());
        };
        let mut failures = Vec::new();
        failures.extend(inner.unpublish(&record).err());
        sys::fault!("network.unpublished");
        if failures.is_empty() {
            failures.extend(rows::release(db, bridge, container).err());
            sys::fault!("network.released");
        }
        let flows = [Which::From(record.ipv4), Which::To(record.ipv4)];
        inner.clean_later(record.host_interface, flows);
        lock(&inner.firewall).leaving.remove(container);
        collect(failures)
    }
}

impl Inner {
    fn set_up(
        self: &Arc<Self>,
        namespace: &mut Namespace,
        record: &EndpointRecord,
    ) -> Result<(), Error> {
        let mut half = namespace.take_half();
        let outer = Changes::new().alias(half.outer, &self.alias(&record.container));
        let named = lock(&self.links).apply(outer);
        named.map_err(link_failed("name", &half.name))?;
        drop(half.spare);
        let inner = Changes::new()
            .up(half.inner, Some(record.mac.0))
            .address(half.inner, record.ipv4, self.address.prefix_len())
            .default_route(half.inner, self.address.addr());
        let raised = half.links.apply(inner);
        raised.map_err(link_failed("set up the container's end of", &half.name))?;
        sys::fault!("network.linked");
        self.publish(record)?;
        sys::fault!("network.published");
        Ok(())
    }

    fn publish(self: &Arc<Self>, record: &EndpointRecord) -> Result<(), Error> {
        let elements = firewall::elements(record);
        if elements.is_empty() {
            return Ok(());
        }
        let table = self.policy.table();
        let mut firewall = lock(&self.firewall);
        let mut transaction = Transaction::new();
        firewall::publish_elements(&mut transaction, table, &elements);
        let published = firewall.nft.commit(transaction);
        if published.is_err() {
            // Elements of a container that died without a detach: we hold the ports, so nobody else does.
            let transaction = replace(&mut firewall.nft, table, &elements)?;
            let replaced = firewall.nft.commit(transaction);
            replaced.map_err(firewall_failed("publish ports"))?;
        }
        drop(firewall);
        let elsewhere = |port: &PublishedPort| Which::UdpElsewhere {
            port: port.host_port,
            than: record.ipv4,
        };
        let udp = |port: &&PublishedPort| port.protocol == Protocol::Udp && port.host_ip.is_ipv4();
        self.forget_soon(record.ports.iter().filter(udp).map(elsewhere).collect());
        Ok(())
    }

    fn unpublish(&self, record: &EndpointRecord) -> Result<(), Error> {
        let elements = firewall::elements(record);
        let mut firewall = lock(&self.firewall);
        firewall.leaving.insert(record.container.clone());
        if elements.is_empty() {
            return Ok(());
        }
        let table = self.policy.table();
        let mut transaction = Transaction::new();
        firewall::withdraw_elements(&mut transaction, table, &elements);
        if firewall.nft.commit(transaction).is_ok() {
            return Ok(());
        }
        // Another container has one of the ports by now, or the table is gone.
        let mut transaction = Transaction::new();
        for map in firewall::MAPS {
            let own: Vec<Element> = elements_of(&mut firewall.nft, table, map)?
                .into_iter()
                .filter(|element| element.comment.as_ref() == Some(&record.container))
                .collect();
            transaction.delete_elements(table, map, &own);
        }
        let withdrawn = firewall.nft.commit(transaction);
        withdrawn.map_err(firewall_failed("unpublish ports"))
    }
}

fn elements_of(
    nft: &mut sys::nft::NfTables,
    table: sys::nft::Table<'_>,
    map: &str,
) -> Result<Vec<Element>, Error> {
    nft.elements(table, map)
        .map_err(firewall_failed("read the published ports"))
}

fn replace(
    nft: &mut sys::nft::NfTables,
    table: sys::nft::Table<'_>,
    elements: &[(&str, Element)],
) -> Result<Transaction, Error> {
    let mut transaction = Transaction::new();
    for map in firewall::MAPS {
        let stale: Vec<Element> = elements_of(nft, table, map)?
            .into_iter()
            .filter(|old| {
                elements
                    .iter()
                    .any(|(of, new)| *of == map && new.key == old.key)
            })
            .collect();
        transaction.delete_elements(table, map, &stale);
    }
    firewall::publish_elements(&mut transaction, table, elements);
    Ok(transaction)
}

fn validate(attachment: &Attachment, address: Ipv4Net) -> Result<(), Error> {
    let id = &attachment.container;
    if id.len() != ID_DIGITS || !id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Error::Invalid("a container id has 64 hexadecimal digits"));
    }
    let bad = |port: &PortRequest| {
        port.container_port == 0
            || match port.host_port {
                HostPort::Any => false,
                HostPort::Fixed(port) => port == 0,
                HostPort::Range(first, last) => first == 0 || first > last,
            }
    };
    if attachment.ports.iter().any(bad) {
        return Err(Error::Invalid(
            "a port is between 1 and 65535, a range in order",
        ));
    }
    if attachment
        .mac
        .is_some_and(|mac| mac.0[0] & 1 == 1 || mac.0 == [0; 6])
    {
        return Err(Error::Invalid(
            "a hardware address of an interface is no group address",
        ));
    }
    let subnet = address.trunc();
    let host =
        |ip: Ipv4Addr| subnet.contains(&ip) && ip != subnet.network() && ip != subnet.broadcast();
    match attachment.ipv4 {
        Some(address) if !host(address) => Err(Error::AddressOutside { address, subnet }),
        Some(_) | None => Ok(()),
    }
}

fn endpoint(record: EndpointRecord, address: Ipv4Net, reserved: Vec<Reserved>) -> Endpoint {
    let forwards = reserved
        .into_iter()
        .map(|port| Forward {
            protocol: port.protocol,
            local: port.local(),
            target: SocketAddrV4::new(record.ipv4, port.container_port),
            socket: port.socket,
        })
        .collect();
    Endpoint {
        id: record.id,
        ipv4: record.ipv4,
        prefix: address.prefix_len(),
        gateway: address.addr(),
        mac: record.mac,
        host_interface: record.host_interface,
        ports: record.ports,
        forwards,
    }
}
