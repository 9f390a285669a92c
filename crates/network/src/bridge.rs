//! The bridge interface: found or made, with its address.

use std::net::IpAddr;

use ipnet::Ipv4Net;
use sys::link::{Bridge, Changes, Link, Links};

use crate::config::Config;
use crate::error::Error;
use crate::namespace::link_failed;
use crate::rows::{self, BridgeRow};
use crate::settings;
use crate::{files, ipam};

/// `IFNAMSIZ` without the terminating zero.
const NAME_BYTES_MAX: usize = 15;
/// How the tables of all Cooper daemons begin; they leave each other's alone.
pub(crate) const INSTANCE_PREFIX: &str = "cooper";
/// Prefixes that leave room for a bridge and a container.
const PREFIX_MAX: u8 = 30;

/// What is known of the bridge once it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) index: u32,
    pub(crate) address: Ipv4Net,
    /// Forwarding is on because of us.
    pub(crate) forwarding: bool,
}

/// Makes or adopts the bridge and stores its row.
pub(crate) fn stand(config: &Config, links: &mut Links) -> Result<Standing, Error> {
    let name = config.bridge.as_str();
    let boot = settings::boot_id()?;
    let stored = rows::bridge(&config.db, name)?;
    let found = links.find(name).map_err(link_failed("find", name))?;
    if found
        .as_ref()
        .is_some_and(|link| link.kind.as_deref() != Some("bridge"))
    {
        return Err(Error::Invalid(
            "the bridge's name belongs to an interface that is no bridge",
        ));
    }
    let address = choose(config, links, stored.as_ref(), found.as_ref(), &boot)?;
    let turned_on = config.forward && settings::enable_forwarding()?;
    let row = BridgeRow {
        address,
        forwarding: turned_on || stored.is_some_and(|row| row.forwarding && row.boot == boot),
        boot,
    };
    rows::save_bridge(&config.db, name, &row)?;
    sys::fault!("network.bridge.row");
    let index = match found {
        Some(link) => link.index,
        None => make(config, links, address)?,
    };
    ensure_address(links, name, index, address)?;
    ensure_ports(config, links, index)?;
    settings::set_if_there(&format!("net/ipv6/conf/{name}/accept_ra"), "0")?;
    sys::fault!("network.bridge");
    Ok(Standing {
        index,
        address,
        forwarding: row.forwarding,
    })
}

/// Refuses what can be no bridge.
pub(crate) fn validate(config: &Config) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name = config.bridge.as_str();
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(plain) {
        return Err(Error::Invalid(
            "a bridge's name has 1 to 15 letters, digits, - _ or .",
        ));
    }
    // It stands before the name of a bridge at most, far from the 255 bytes that tables and aliases may have.
    let instance = config.instance.as_str();
    if !instance.starts_with(INSTANCE_PREFIX) || !instance.chars().all(plain) {
        return Err(Error::Invalid(
            "an instance's name begins with cooper and has letters, digits, - _ or .",
        ));
    }
    if config
        .address
        .is_some_and(|address| address.prefix_len() > PREFIX_MAX)
    {
        return Err(Error::Invalid(
            "a bridge's subnet has a prefix of at most 30",
        ));
    }
    Ok(())
}

/// The configured address; else the stored one, unless another boot brought a route that meets it; else
/// what the bridge already has; else a free one from the pools.
fn choose(
    config: &Config,
    links: &mut Links,
    stored: Option<&BridgeRow>,
    found: Option<&Link>,
    boot: &str,
) -> Result<Ipv4Net, Error> {
    if let Some(address) = config.address {
        return Ok(address);
    }
    let index = found.map(|link| link.index);
    let used = used(links, index)?;
    let free = |net: Ipv4Net| {
        !used
            .iter()
            .any(|used| used.contains(&net.network()) || net.contains(&used.network()))
    };
    if let Some(row) = stored
        && (index.is_some() || row.boot == boot || free(row.address))
    {
        return Ok(row.address);
    }
    let addresses = links
        .addresses()
        .map_err(link_failed("read addresses of", &config.bridge))?;
    let own = addresses.iter().find_map(|address| match address.address {
        IpAddr::V4(v4) if Some(address.index) == index => Ipv4Net::new(v4, address.prefix).ok(),
        _ => None,
    });
    own.or_else(|| ipam::choose(&config.pools, &used))
        .ok_or(Error::PoolsExhausted)
}

/// Every IPv4 network this host can reach otherwise: routes, addresses, name servers.
fn used(links: &mut Links, bridge: Option<u32>) -> Result<Vec<Ipv4Net>, Error> {
    let routes = links
        .routes()
        .map_err(link_failed("read routes of", "the host"))?;
    let addresses = links
        .addresses()
        .map_err(link_failed("read addresses of", "the host"))?;
    let v4 = |address, prefix| match address {
        IpAddr::V4(address) => Ipv4Net::new(address, prefix).ok(),
        IpAddr::V6(_) => None,
    };
    let routes = routes
        .iter()
        .filter(|route| bridge.is_none() || route.index != bridge)
        .filter_map(|route| v4(route.destination, route.prefix));
    let addresses = addresses
        .iter()
        .filter(|address| Some(address.index) != bridge)
        .filter_map(|address| v4(address.address, address.prefix));
    let servers = files::servers(&files::host_resolv_conf());
    let servers = servers.into_iter().filter_map(|server| v4(server, 32));
    Ok(routes.chain(addresses).chain(servers).collect())
}

fn make(config: &Config, links: &mut Links, address: Ipv4Net) -> Result<u32, Error> {
    let name = config.bridge.as_str();
    let changes = Changes::new().bridge(&Bridge {
        name,
        mac: rows::mac_of(address.addr()).0,
        mtu_bytes: config.mtu_bytes,
        alias: &format!("{}:bridge", config.instance),
    });
    links
        .apply(changes)
        .map_err(link_failed("create the bridge", name))?;
    let index = crate::namespace::find(links, name)?;
    // Only refused by a kernel without IPv6, where there is nothing to prevent.
    if let Err(error) = links.apply(Changes::new().no_link_local(index)) {
        tracing::debug!(%error, bridge = name, "leave IPv6 of the bridge as it is");
    }
    Ok(index)
}

fn ensure_address(
    links: &mut Links,
    name: &str,
    index: u32,
    address: Ipv4Net,
) -> Result<(), Error> {
    let all = links
        .addresses()
        .map_err(link_failed("read addresses of", name))?;
    let wanted = (IpAddr::V4(address.addr()), address.prefix_len());
    let (mut there, mut changes) = (false, Changes::new().up(index, None));
    for found in all.iter().filter(|found| found.index == index) {
        match found.address {
            _ if (found.address, found.prefix) == wanted => there = true,
            // What another `--bip` left.
            IpAddr::V4(old) => changes = changes.delete_address(index, old, found.prefix),
            IpAddr::V6(_) => {}
        }
    }
    if !there {
        changes = changes.address(index, address.addr(), address.prefix_len());
    }
    links
        .apply(changes)
        .map_err(link_failed("set the address of", name))
}

/// Interfaces of running containers whose bridge somebody removed come back to the new one.
fn ensure_ports(config: &Config, links: &mut Links, index: u32) -> Result<(), Error> {
    let prefix = format!("{}:", config.instance);
    let all = links
        .list()
        .map_err(link_failed("list ports of", &config.bridge))?;
    let strays = all.iter().filter(|link| {
        link.kind.as_deref() == Some("veth")
            && link.master.is_none()
            && link
                .alias
                .as_ref()
                .is_some_and(|alias| alias.starts_with(&prefix))
    });
    for link in strays {
        let changes = Changes::new().master(link.index, index);
        links
            .apply(changes)
            .map_err(link_failed("put back on the bridge", &link.name))?;
    }
    Ok(())
}
