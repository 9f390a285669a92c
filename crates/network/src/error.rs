//! What can go wrong on the network.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::Ipv4Net;

use crate::attachment::Protocol;

/// Who holds a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A container, by name (or id while it has none).
    Container(String),
    /// A process of the host.
    Process {
        /// Its pid.
        pid: u32,
        /// Its command name.
        command: String,
    },
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(name) => write!(f, "container {name}"),
            Self::Process { pid, command } => write!(f, "process {pid} ({command})"),
        }
    }
}

/// An error of this crate. The texts that clients show are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port is taken (Docker answers 500).
    #[error(
        "Bind for {address} failed: port is already allocated{}",
        holder.as_ref().map(|h| format!(" (by {h})")).unwrap_or_default()
    )]
    PortAllocated {
        /// The wanted host address and port.
        address: SocketAddr,
        /// TCP or UDP.
        protocol: Protocol,
        /// Who has it, where that can be told.
        holder: Option<Holder>,
    },
    /// No port of a range, or of the kernel's local range, is free.
    #[error("Bind for {host_ip}:{first}-{last}/{protocol} failed: all ports are allocated")]
    PortsExhausted {
        /// The wanted host address.
        host_ip: IpAddr,
        /// First port of the range.
        first: u16,
        /// Last port of the range.
        last: u16,
        /// TCP or UDP.
        protocol: Protocol,
    },
    /// A host port cannot be bound for another reason, as an address the host does not have.
    #[error("failed to bind host port {address}/{protocol}")]
    Bind {
        /// The wanted host address and port.
        address: SocketAddr,
        /// TCP or UDP.
        protocol: Protocol,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The chosen address is taken (Docker answers 500).
    #[error("Address already in use")]
    AddressInUse(Ipv4Addr),
    /// The chosen address is none of the subnet's.
    #[error("invalid address {address}: it does not belong to the subnet {subnet}")]
    AddressOutside {
        /// The wanted address.
        address: Ipv4Addr,
        /// The bridge's subnet.
        subnet: Ipv4Net,
    },
    /// Every address of the subnet is taken.
    #[error("no available IPv4 addresses on this network's address pools: {bridge}")]
    AddressesExhausted {
        /// The bridge.
        bridge: String,
    },
    /// Every subnet of the pools meets a route in use.
    #[error("all predefined address pools have been fully subnetted")]
    PoolsExhausted,
    /// The kernel takes at most 1,023 interfaces on a bridge.
    #[error("the bridge {bridge} is full: the kernel takes at most 1023 containers on one")]
    BridgeFull {
        /// The bridge.
        bridge: String,
    },
    /// Another Cooper has the bridge.
    #[error(
        "bridge {bridge} belongs to the Cooper on {owner}: give this one a bridge of its own (--bridge NAME)"
    )]
    BridgeTaken {
        /// The bridge.
        bridge: String,
        /// The data root of the one that has it.
        owner: String,
    },
    /// The file that says whose the bridge is cannot be read or written.
    #[error("claim the bridge by {}", path.display())]
    Claim {
        /// The file, or its directory.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The container is attached already.
    #[error("container {0} is attached to the bridge already")]
    Attached(String),
    /// A request that makes no sense: an id that is none, a port 0, a name too long.
    #[error("invalid network request: {0}")]
    Invalid(&'static str),
    /// An operation on links, addresses or routes failed.
    #[error("{operation} {name}")]
    Link {
        /// What was being done.
        operation: &'static str,
        /// To which interface.
        name: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// A network namespace could not be made or entered.
    #[error("network namespace: {operation}")]
    Namespace {
        /// What was being done.
        operation: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// A firewall transaction failed.
    #[error("firewall: {operation}")]
    Firewall {
        /// What was being done.
        operation: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// A kernel setting could not be read or written.
    #[error("kernel setting {path}")]
    Setting {
        /// Path below /proc/sys.
        path: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The state database failed.
    #[error("network state")]
    Db(#[from] db::Error),
    /// Something could not be undone after another error.
    #[error("undo after: {first}; and {} more: {}", rest.len(), list(rest))]
    Undo {
        /// The error that began it.
        first: Box<Error>,
        /// What could not be undone.
        rest: Vec<Error>,
    },
}

impl Error {
    /// Whether an interface was not there any more: somebody has taken it away.
    #[must_use]
    pub fn is_missing_link(&self) -> bool {
        const ENODEV: i32 = 19;
        match self {
            Self::Link { source, .. } => source.raw_os_error() == Some(ENODEV),
            Self::Undo { first, .. } => first.is_missing_link(),
            _ => false,
        }
    }
}

fn list(errors: &[Error]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

impl From<db::rusqlite::Error> for Error {
    fn from(error: db::rusqlite::Error) -> Self {
        Self::Db(error.into())
    }
}
