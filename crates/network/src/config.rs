//! What a [`Network`](crate::Network) is opened with.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use db::Db;
use ipnet::Ipv4Net;

/// Ethernet's MTU in bytes, as dockerd's default.
pub const MTU_BYTES: u32 = 1500;

/// Where daemons say which bridge they have, whatever their exec root: bridges are the machine's.
const CLAIMS: &str = "/run/cooper-bridges";

/// A range of addresses that bridges take their subnets from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The whole range.
    pub base: Ipv4Net,
    /// The prefix length of one subnet.
    pub size: u8,
}

/// Tells a container's name by its id, for errors that say who holds a port.
#[derive(Clone)]
pub struct Names(pub Arc<Lookup>);

/// A container's id to its name; `None` for one that nobody knows.
pub type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

/// The default bridge and its firewall.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the bridge interface.
    pub bridge: String,
    /// Name of the nf_tables table and prefix of interface aliases: one daemon, one instance. Begins with
    /// `cooper`, so that daemons know each other's tables.
    pub instance: String,
    /// Who has the bridge: the daemon's data root.
    pub owner: String,
    /// Directory of the files that say so; made when it is missing.
    pub claims: PathBuf,
    /// The bridge's own address and prefix (`--bip`); from `pools` when absent.
    pub address: Option<Ipv4Net>,
    /// Where subnets come from, in order of preference; subnets that meet a route in use are passed over.
    pub pools: Vec<Pool>,
    /// MTU of the bridge and of the containers' interfaces, in bytes.
    pub mtu_bytes: u32,
    /// Containers of the bridge may talk to each other (`--icc`).
    pub icc: bool,
    /// Traffic that leaves the host carries the host's address (`--ip-masq`).
    pub masquerade: bool,
    /// Forwarding is turned on when it is off (`--ip-forward`).
    pub forward: bool,
    /// Host address of published ports that name none (`--ip`); every address when absent.
    pub host_ip: Option<IpAddr>,
    /// Container names, for messages.
    pub names: Names,
    /// The state database.
    pub db: Db,
}

impl Config {
    /// Docker's defaults on the bridge `cooper0`, for the daemon with this data root.
    #[must_use]
    pub fn new(db: Db, owner: impl Into<String>) -> Self {
        Self {
            bridge: "cooper0".to_owned(),
            instance: "cooper".to_owned(),
            owner: owner.into(),
            claims: PathBuf::from(CLAIMS),
            address: None,
            pools: default_pools(),
            mtu_bytes: MTU_BYTES,
            icc: true,
            masquerade: true,
            forward: true,
            host_ip: None,
            names: Names(Arc::new(|_| None)),
            db,
        }
    }
}

/// 172.17.0.0/16 to 172.31.0.0/16 as dockerd, then /16 subnets of 10.0.0.0/8 and 100.64.0.0/10.
#[must_use]
pub fn default_pools() -> Vec<Pool> {
    let pool = |a, b, prefix| Pool {
        base: Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), prefix),
        size: 16,
    };
    let mut pools: Vec<Pool> = (17..32).map(|second| pool(172, second, 16)).collect();
    pools.push(pool(10, 0, 8));
    pools.push(pool(100, 64, 10));
    pools
}
