//! The rows of `network_bridge` and `network_endpoint`: every query of this crate.

use std::net::Ipv4Addr;

use db::Db;
use db::rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use ipnet::Ipv4Net;

use crate::attachment::{EndpointRecord, Mac, PublishedPort};
use crate::error::Error;

/// What is stored of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BridgeRow {
    /// The bridge's own address with the subnet's prefix.
    pub(crate) address: Ipv4Net,
    /// The boot of the host in which the rows were written.
    pub(crate) boot: String,
    /// Forwarding was turned on by Cooper in that boot.
    pub(crate) forwarding: bool,
}

pub(crate) fn bridge(db: &Db, name: &str) -> Result<Option<BridgeRow>, Error> {
    db.read(|connection| {
        let row = connection
            .prepare_cached(
                "SELECT gateway, prefix, boot, forwarding FROM network_bridge WHERE name = ?1",
            )?
            .query_row([name], |row| {
                let address = Ipv4Net::new(Ipv4Addr::from(row.get::<_, u32>(0)?), row.get(1)?);
                Ok((address, row.get(2)?, row.get(3)?))
            })
            .optional()?;
        Ok(row.and_then(|(address, boot, forwarding)| {
            Some(BridgeRow {
                address: address.ok()?,
                boot,
                forwarding,
            })
        }))
    })
}

/// The names of all bridges.
pub(crate) fn bridges(db: &Db) -> Result<Vec<String>, Error> {
    db.read(|connection| {
        let mut statement = connection.prepare("SELECT name FROM network_bridge ORDER BY name")?;
        let names = statement.query_map([], |row| row.get(0))?;
        Ok(names.collect::<Result<_, _>>()?)
    })
}

/// Stores a bridge. Endpoints of another boot, or of another subnet, are forgotten: their kernel
/// objects went with it.
pub(crate) fn save_bridge(db: &Db, name: &str, row: &BridgeRow) -> Result<(), Error> {
    db.write(|tx| {
        let (gateway, prefix) = (u32::from(row.address.addr()), row.address.prefix_len());
        tx.execute(
            "DELETE FROM network_endpoint WHERE bridge = ?1 AND EXISTS (
                SELECT 1 FROM network_bridge
                WHERE name = ?1 AND (boot <> ?2 OR gateway <> ?3 OR prefix <> ?4))",
            params![name, row.boot, gateway, prefix],
        )?;
        tx.execute(
            "INSERT INTO network_bridge (name, gateway, prefix, last, boot, forwarding)
             VALUES (?1, ?2, ?3, ?2, ?4, ?5)
             ON CONFLICT (name) DO UPDATE SET
                last = CASE WHEN gateway = ?2 AND prefix = ?3 THEN last ELSE ?2 END,
                gateway = ?2, prefix = ?3, boot = ?4, forwarding = ?5",
            params![name, gateway, prefix, row.boot, row.forwarding],
        )?;
        Ok(())
    })
}

pub(crate) fn delete_bridge(db: &Db, name: &str) -> Result<(), Error> {
    db.write(|tx| {
        tx.execute("DELETE FROM network_endpoint WHERE bridge = ?1", [name])?;
        tx.execute("DELETE FROM network_bridge WHERE name = ?1", [name])?;
        Ok(())
    })
}

/// A row to be claimed.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) bridge: &'a str,
    pub(crate) container: &'a str,
    pub(crate) id: &'a str,
    pub(crate) host_interface: &'a str,
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) mac: Option<Mac>,
    pub(crate) ports: &'a [PublishedPort],
}

/// Chooses the address and writes the row in one transaction.
pub(crate) fn claim(db: &Db, claim: &Claim<'_>) -> Result<EndpointRecord, Error> {
    let ports = serde_json::to_string(claim.ports).expect("ports have no map with odd keys");
    db.write(|tx| {
        if endpoint_in(tx, claim.bridge, claim.container)?.is_some() {
            return Err(Error::Attached(claim.container.to_owned()));
        }
        let ipv4 = choose(tx, claim)?;
        let mac = claim.mac.unwrap_or_else(|| mac_of(ipv4));
        tx.prepare_cached(
            "INSERT INTO network_endpoint
                (container, bridge, id, ipv4, mac, host_interface, ports)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            claim.container,
            claim.bridge,
            claim.id,
            u32::from(ipv4),
            mac.to_string(),
            claim.host_interface,
            ports
        ])?;
        Ok(EndpointRecord {
            id: claim.id.to_owned(),
            container: claim.container.to_owned(),
            ipv4,
            mac,
            host_interface: claim.host_interface.to_owned(),
            ports: claim.ports.to_vec(),
        })
    })
}

fn choose(tx: &Transaction<'_>, claim: &Claim<'_>) -> Result<Ipv4Addr, Error> {
    let (gateway, prefix, last): (u32, u8, u32) = tx
        .prepare_cached("SELECT gateway, prefix, last FROM network_bridge WHERE name = ?1")?
        .query_row([claim.bridge], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    let subnet = Ipv4Net::new(Ipv4Addr::from(gateway), prefix)
        .map_err(|_| Error::Invalid("the stored subnet has no such prefix"))?
        .trunc();
    let mut taken =
        tx.prepare_cached("SELECT 1 FROM network_endpoint WHERE bridge = ?1 AND ipv4 = ?2")?;
    let mut free = |address: u32| -> Result<bool, Error> {
        Ok(address != gateway && !taken.exists(params![claim.bridge, address])?)
    };
    if let Some(address) = claim.ipv4 {
        return match free(u32::from(address))? {
            true => Ok(address),
            false => Err(Error::AddressInUse(address)),
        };
    }
    for address in after(subnet, last) {
        if free(address)? {
            tx.prepare_cached("UPDATE network_bridge SET last = ?2 WHERE name = ?1")?
                .execute(params![claim.bridge, address])?;
            return Ok(Ipv4Addr::from(address));
        }
    }
    Err(Error::AddressesExhausted {
        bridge: claim.bridge.to_owned(),
    })
}

/// Every host address of `subnet` once, from the one after `last`: an address that became free is the
/// last to be given out again.
fn after(subnet: Ipv4Net, last: u32) -> impl Iterator<Item = u32> {
    let first_host = u32::from(subnet.network()).saturating_add(1);
    let last_host = u32::from(subnet.broadcast()).saturating_sub(1);
    let middle = last.clamp(first_host - 1, last_host);
    (middle + 1..=last_host).chain(first_host..=middle)
}

/// Docker's rule up to version 27: the same address always has the same hardware address, so that no
/// neighbour keeps a stale one.
pub(crate) fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([0x02, 0x42, a, b, c, d])
}

fn record(row: &Row<'_>) -> db::rusqlite::Result<EndpointRecord> {
    let text: String = row.get("mac")?;
    let mut mac = [0; 6];
    for (byte, part) in mac.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(part, 16).unwrap_or_default();
    }
    let ports: String = row.get("ports")?;
    Ok(EndpointRecord {
        id: row.get("id")?,
        container: row.get("container")?,
        ipv4: Ipv4Addr::from(row.get::<_, u32>("ipv4")?),
        mac: Mac(mac),
        host_interface: row.get("host_interface")?,
        ports: serde_json::from_str(&ports).map_err(|error| {
            db::rusqlite::Error::FromSqlConversionFailure(
                0,
                db::rusqlite::types::Type::Text,
                Box::new(error),
            )
        })?,
    })
}

fn endpoint_in(
    connection: &Connection,
    bridge: &str,
    container: &str,
) -> Result<Option<EndpointRecord>, Error> {
    Ok(connection
        .prepare_cached("SELECT * FROM network_endpoint WHERE container = ?1 AND bridge = ?2")?
        .query_row([container, bridge], record)
        .optional()?)
}

pub(crate) fn endpoint(
    db: &Db,
    bridge: &str,
    container: &str,
) -> Result<Option<EndpointRecord>, Error> {
    db.read(|connection| endpoint_in(connection, bridge, container))
}

pub(crate) fn endpoints(db: &Db, bridge: &str) -> Result<Vec<EndpointRecord>, Error> {
    db.read(|connection| {
        let mut statement =
            connection.prepare_cached("SELECT * FROM network_endpoint WHERE bridge = ?1")?;
        let rows = statement.query_map([bridge], record)?;
        Ok(rows.collect::<db::rusqlite::Result<_>>()?)
    })
}

pub(crate) fn release(db: &Db, bridge: &str, container: &str) -> Result<(), Error> {
    db.write(|tx| {
        tx.prepare_cached("DELETE FROM network_endpoint WHERE container = ?1 AND bridge = ?2")?
            .execute([container, bridge])?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(prefix: &str) -> (tempfile::TempDir, Db) {
        let directory = tempfile::tempdir().unwrap();
        let db = Db::open(&directory.path().join("cooper.db")).unwrap();
        let row = BridgeRow {
            address: prefix.parse().unwrap(),
            boot: "boot".to_owned(),
            forwarding: false,
        };
        save_bridge(&db, "b0", &row).unwrap();
        (directory, db)
    }

    fn attach(db: &Db, container: &str, ipv4: Option<&str>) -> Result<String, Error> {
        let record = claim(
            db,
            &Claim {
                bridge: "b0",
                container,
                id: "id",
                host_interface: "veth0",
                ipv4: ipv4.map(|text| text.parse().unwrap()),
                mac: None,
                ports: &[],
            },
        )?;
        Ok(record.ipv4.to_string())
    }

    #[test]
    fn addresses_are_given_in_order_and_reused_last() {
        let (_directory, db) = store("10.9.0.1/29");
        assert_eq!(attach(&db, "a", None).unwrap(), "10.9.0.2");
        assert_eq!(attach(&db, "b", None).unwrap(), "10.9.0.3");
        release(&db, "b0", "a").unwrap();
        for (container, expected) in [("c", "10.9.0.4"), ("d", "10.9.0.5"), ("e", "10.9.0.6")] {
            assert_eq!(attach(&db, container, None).unwrap(), expected);
        }
        assert_eq!(attach(&db, "f", None).unwrap(), "10.9.0.2");
        let full = attach(&db, "g", None).unwrap_err();
        assert!(matches!(full, Error::AddressesExhausted { .. }), "{full}");
    }

    #[test]
    fn a_chosen_address_is_given_once_and_never_the_gateways() {
        let (_directory, db) = store("10.9.0.1/24");
        assert_eq!(attach(&db, "a", Some("10.9.0.9")).unwrap(), "10.9.0.9");
        for taken in ["10.9.0.9", "10.9.0.1"] {
            let error = attach(&db, "b", Some(taken)).unwrap_err();
            assert!(matches!(error, Error::AddressInUse(_)), "{error}");
        }
        assert_eq!(attach(&db, "b", None).unwrap(), "10.9.0.2");
        assert!(matches!(attach(&db, "a", None), Err(Error::Attached(_))));
    }

    #[test]
    fn what_is_stored_is_read_back() {
        let (_directory, db) = store("10.9.0.1/24");
        attach(&db, "a", None).unwrap();
        let stored = endpoint(&db, "b0", "a").unwrap().unwrap();
        assert_eq!(stored.mac.to_string(), "02:42:0a:09:00:02");
        assert_eq!(endpoints(&db, "b0").unwrap(), [stored]);
        assert_eq!(endpoint(&db, "b0", "z").unwrap(), None);
    }

    #[test]
    fn another_boot_forgets_the_endpoints_and_the_same_one_keeps_them() {
        let (_directory, db) = store("10.9.0.1/24");
        attach(&db, "a", None).unwrap();
        let mut row = bridge(&db, "b0").unwrap().unwrap();
        save_bridge(&db, "b0", &row).unwrap();
        assert_eq!(endpoints(&db, "b0").unwrap().len(), 1);
        row.boot = "next".to_owned();
        save_bridge(&db, "b0", &row).unwrap();
        assert_eq!(endpoints(&db, "b0").unwrap().len(), 0);
    }
}
