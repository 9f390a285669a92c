//! What a container asks of the network and what it gets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

/// Transport of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Which port of the host is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPort {
    /// A free one of the kernel's local port range.
    Any,
    /// Exactly this one.
    Fixed(u16),
    /// The first free one, both ends included.
    Range(u16, u16),
}

/// One entry of `HostConfig.PortBindings`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRequest {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port inside the container.
    pub container_port: u16,
    /// The host address; every address, IPv4 and IPv6, when absent.
    pub host_ip: Option<IpAddr>,
    /// The host port.
    pub host_port: HostPort,
}

/// A container that wants to be on the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Full container id, 64 hexadecimal digits.
    pub container: String,
    /// Published ports.
    pub ports: Vec<PortRequest>,
    /// A hardware address of the user's choice; derived from the IPv4 address when absent.
    pub mac: Option<Mac>,
    /// An address of the user's choice; the next free one when absent.
    pub ipv4: Option<Ipv4Addr>,
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// One line of `NetworkSettings.Ports`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port inside the container.
    pub container_port: u16,
    /// The host address it answers on; the unspecified address means every one of that family.
    pub host_ip: IpAddr,
    /// The host port it answers on.
    pub host_port: u16,
}

/// The reservation of a published port: a bound socket, to be held for the container's life by its
/// shim, which also relays what arrives on it (see [`relay`](crate::relay)).
#[derive(Debug)]
pub struct Forward {
    /// TCP (a listening socket) or UDP. Non-blocking.
    pub protocol: Protocol,
    /// The socket.
    pub socket: OwnedFd,
    /// What it is bound to.
    pub local: SocketAddr,
    /// Where its traffic goes.
    pub target: SocketAddrV4,
}

/// A container's place on the bridge.
#[derive(Debug)]
pub struct Endpoint {
    /// Endpoint id, 64 hexadecimal digits.
    pub id: String,
    /// The container's address.
    pub ipv4: Ipv4Addr,
    /// The subnet's prefix length.
    pub prefix: u8,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    /// The hardware address of `eth0`.
    pub mac: Mac,
    /// Name of the host's end of the pair.
    pub host_interface: String,
    /// Published ports as `inspect` shows them: two lines (IPv4, IPv6) for a port without a host address.
    pub ports: Vec<PublishedPort>,
    /// The sockets that reserve them, one per host address, for the shim.
    pub forwards: Vec<Forward>,
}

/// What is on record of an attached container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointRecord {
    /// Endpoint id.
    pub id: String,
    /// Container id.
    pub container: String,
    /// The container's address.
    pub ipv4: Ipv4Addr,
    /// The hardware address of `eth0`.
    pub mac: Mac,
    /// Name of the host's end of the pair.
    pub host_interface: String,
    /// Published ports.
    pub ports: Vec<PublishedPort>,
}
