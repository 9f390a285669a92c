//! Links, addresses and routes by rtnetlink: the messages a container engine needs, as [`Change`]s
//! collected in one buffer and sent at once. See rtnetlink(7).

use std::ffi::c_int;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::netlink::{Attributes, Family, Messages, Socket, flag};

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const OPERSTATE_UP: u8 = 6;
const PORT_FORWARDING: u8 = 3;
const VETH_INFO_PEER: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
const RT_TABLE_MAIN: u8 = 254;
const RT_TABLE_LOCAL: u32 = 255;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const IFF_UP: u32 = 1;
/// `EXFULL`: the bridge has no port number left.
pub const BRIDGE_FULL: i32 = libc::EXFULL;

/// What is known of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index in this namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its driver ("bridge", "veth"), where it tells one.
    pub kind: Option<String>,
    /// The bridge it is a port of.
    pub master: Option<u32>,
    /// Its free text.
    pub alias: Option<String>,
    /// Its hardware address.
    pub mac: Vec<u8>,
    /// It is administratively up.
    pub up: bool,
    /// It has told its users that it works; for an interface with a peer, some time after both are up.
    pub operational: bool,
    /// As a bridge port, it passes frames.
    pub forwarding: bool,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// The prefix length.
    pub prefix: u8,
}

/// A route with a destination; the default routes are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The destination network.
    pub destination: IpAddr,
    /// Its prefix length.
    pub prefix: u8,
    /// The interface it leaves by.
    pub index: Option<u32>,
}

/// A bridge to be made.
#[derive(Debug, Clone, Copy)]
pub struct Bridge<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address; without a fixed one it changes with the ports.
    pub mac: [u8; 6],
    /// Its MTU in bytes.
    pub mtu_bytes: u32,
    /// Its free text.
    pub alias: &'a str,
}

/// A veth pair to be made: one end here as a port of a bridge, one end in another namespace.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// Name of the end here.
    pub name: &'a str,
    /// Free text of the end here.
    pub alias: &'a str,
    /// Index of the bridge.
    pub master: u32,
    /// MTU of both ends in bytes.
    pub mtu_bytes: u32,
    /// Name of the other end.
    pub peer: &'a str,
    /// Namespace of the other end.
    pub namespace: BorrowedFd<'a>,
}

/// Changes in the making.
#[derive(Debug, Default, Clone)]
pub struct Changes(Messages);

impl Changes {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a bridge without spanning tree, down.
    #[must_use]
    pub fn bridge(mut self, bridge: &Bridge<'_>) -> Self {
        let m = &mut self.0;
        m.begin(
            NEWLINK,
            flag::ACK | flag::CREATE | flag::EXCLUSIVE,
            &header(0, 0),
        );
        m.string(IFLA_IFNAME, bridge.name);
        m.string(IFLA_IFALIAS, bridge.alias);
        m.attribute(IFLA_ADDRESS, &bridge.mac);
        m.native(IFLA_MTU, bridge.mtu_bytes);
        m.nest(IFLA_LINKINFO, |m| {
            m.string(IFLA_INFO_KIND, "bridge");
            m.nest(IFLA_INFO_DATA, |m| {
                m.native(IFLA_BR_FORWARD_DELAY, 0);
                m.native(IFLA_BR_STP_STATE, 0);
            });
        });
        self
    }

    /// Makes a veth pair, both ends down.
    #[must_use]
    pub fn pair(mut self, pair: &Pair<'_>) -> Self {
        let m = &mut self.0;
        m.begin(
            NEWLINK,
            flag::ACK | flag::CREATE | flag::EXCLUSIVE,
            &header(0, 0),
        );
        m.string(IFLA_IFNAME, pair.name);
        m.string(IFLA_IFALIAS, pair.alias);
        m.native(IFLA_MTU, pair.mtu_bytes);
        m.native(IFLA_MASTER, pair.master);
        m.nest(IFLA_LINKINFO, |m| {
            m.string(IFLA_INFO_KIND, "veth");
            m.nest(IFLA_INFO_DATA, |m| {
                m.nest(VETH_INFO_PEER, |m| {
                    m.raw(&header(0, 0));
                    m.string(IFLA_IFNAME, pair.peer);
                    m.native(IFLA_MTU, pair.mtu_bytes);
                    let fd: c_int = pair.namespace.as_raw_fd();
                    m.attribute(IFLA_NET_NS_FD, &fd.to_ne_bytes());
                });
            });
        });
        self
    }

    /// Lets frames of a bridge port out where they came in, and keeps isolated ports apart.
    #[must_use]
    pub fn port(mut self, index: u32, hairpin: Hairpin, isolation: Isolation) -> Self {
        let m = &mut self.0;
        m.begin(NEWLINK, flag::ACK, &header(index, 0));
        m.nest(IFLA_LINKINFO, |m| {
            m.string(IFLA_INFO_SLAVE_KIND, "bridge");
            m.nest(IFLA_INFO_SLAVE_DATA, |m| {
                m.attribute(IFLA_BRPORT_MODE, &[u8::from(hairpin == Hairpin::On)]);
                m.attribute(
                    IFLA_BRPORT_ISOLATED,
                    &[u8::from(isolation == Isolation::On)],
                );
            });
        });
        self
    }

    /// Makes an interface a port of a bridge, up.
    #[must_use]
    pub fn master(mut self, index: u32, master: u32) -> Self {
        self.0.begin(NEWLINK, flag::ACK, &header(index, IFF_UP));
        self.0.native(IFLA_MASTER, master);
        self
    }

    /// Keeps an interface that is still down from giving itself an fe80:: address, for which neither a
    /// bridge port nor a bridge of containers without IPv6 has a use. (The kernel refuses this while it
    /// makes the interface.)
    #[must_use]
    pub fn no_link_local(mut self, index: u32) -> Self {
        let m = &mut self.0;
        m.begin(NEWLINK, flag::ACK, &header(index, 0));
        m.nest(IFLA_AF_SPEC, |m| {
            let inet6 = u16::try_from(libc::AF_INET6).expect("AF_INET6 is 10");
            m.nest(inet6, |m| {
                m.attribute(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE]);
            });
        });
        self
    }

    /// Changes the free text of an interface.
    #[must_use]
    pub fn alias(mut self, index: u32, alias: &str) -> Self {
        self.0.begin(NEWLINK, flag::ACK, &header(index, 0));
        self.0.string(IFLA_IFALIAS, alias);
        self
    }

    /// Brings an interface up, with another hardware address where one is given.
    #[must_use]
    pub fn up(mut self, index: u32, mac: Option<[u8; 6]>) -> Self {
        self.0.begin(NEWLINK, flag::ACK, &header(index, IFF_UP));
        if let Some(mac) = mac {
            self.0.attribute(IFLA_ADDRESS, &mac);
        }
        self
    }

    /// Removes an interface; of a veth pair, both ends.
    #[must_use]
    pub fn delete(mut self, index: u32) -> Self {
        self.0.begin(DELLINK, flag::ACK, &header(index, 0));
        self
    }

    /// Removes an interface by its name.
    #[must_use]
    pub fn delete_named(mut self, name: &str) -> Self {
        self.0.begin(DELLINK, flag::ACK, &header(0, 0));
        self.0.string(IFLA_IFNAME, name);
        self
    }

    /// Adds an IPv4 address with its subnet's broadcast address.
    #[must_use]
    pub fn address(mut self, index: u32, address: Ipv4Addr, prefix: u8) -> Self {
        let m = &mut self.0;
        let [a, b, c, d] = index.to_ne_bytes();
        let family = u8::try_from(libc::AF_INET).expect("AF_INET is 2");
        m.begin(
            NEWADDR,
            flag::ACK | flag::CREATE | flag::EXCLUSIVE,
            &[family, prefix, 0, 0, a, b, c, d],
        );
        m.attribute(IFA_LOCAL, &address.octets());
        m.attribute(IFA_ADDRESS, &address.octets());
        let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        let broadcast = Ipv4Addr::from(u32::from(address) | host_bits);
        m.attribute(IFA_BROADCAST, &broadcast.octets());
        self
    }

    /// Removes an IPv4 address.
    #[must_use]
    pub fn delete_address(mut self, index: u32, address: Ipv4Addr, prefix: u8) -> Self {
        let [a, b, c, d] = index.to_ne_bytes();
        let family = u8::try_from(libc::AF_INET).expect("AF_INET is 2");
        let header = [family, prefix, 0, 0, a, b, c, d];
        self.0.begin(DELADDR, flag::ACK, &header);
        self.0.attribute(IFA_LOCAL, &address.octets());
        self
    }

    /// Adds the IPv4 default route.
    #[must_use]
    pub fn default_route(mut self, index: u32, gateway: Ipv4Addr) -> Self {
        let family = u8::try_from(libc::AF_INET).expect("AF_INET is 2");
        let header = [
            family,
            0,
            0,
            0,
            RT_TABLE_MAIN,
            RTPROT_BOOT,
            0,
            RTN_UNICAST,
            0,
            0,
            0,
            0,
        ];
        let m = &mut self.0;
        m.begin(
            NEWROUTE,
            flag::ACK | flag::CREATE | flag::EXCLUSIVE,
            &header,
        );
        m.attribute(RTA_GATEWAY, &gateway.octets());
        m.native(RTA_OIF, index);
        self
    }
}

/// Whether a bridge port sends a frame back where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hairpin {
    /// It does.
    On,
    /// It does not.
    Off,
}

/// Whether a bridge port is kept from the other isolated ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// A route socket of one network namespace.
#[derive(Debug)]
pub struct Links(Socket);

impl Links {
    /// Opens the socket in the calling thread's namespace; it stays with that namespace.
    ///
    /// # Errors
    /// The errno of socket or bind.
    pub fn open() -> io::Result<Self> {
        Socket::open(Family::Route).map(Self)
    }

    /// Makes all changes in order; all are tried.
    ///
    /// # Errors
    /// The errno of the first that failed.
    pub fn apply(&mut self, mut changes: Changes) -> io::Result<()> {
        self.0.execute(&mut changes.0)
    }

    /// The interface called `name`.
    ///
    /// # Errors
    /// The errno of the query; an interface that is not there is `None`.
    pub fn find(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut messages = Messages::new();
        messages.begin(GETLINK, flag::ACK, &header(0, 0));
        messages.string(IFLA_IFNAME, name);
        match self.0.query(&mut messages) {
            Ok(replies) => Ok(replies.iter().find_map(|reply| parse_link(&reply.payload))),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All interfaces.
    ///
    /// # Errors
    /// The errno of the dump.
    pub fn list(&mut self) -> io::Result<Vec<Link>> {
        let mut messages = Messages::new();
        messages.begin(GETLINK, flag::DUMP, &header(0, 0));
        let replies = self.0.query(&mut messages)?;
        Ok(replies
            .iter()
            .filter_map(|reply| parse_link(&reply.payload))
            .collect())
    }

    /// All addresses, IPv4 and IPv6.
    ///
    /// # Errors
    /// The errno of the dump.
    pub fn addresses(&mut self) -> io::Result<Vec<Address>> {
        let mut messages = Messages::new();
        messages.begin(GETADDR, flag::DUMP, &[0; 8]);
        let replies = self.0.query(&mut messages)?;
        Ok(replies
            .iter()
            .filter_map(|reply| parse_address(&reply.payload))
            .collect())
    }

    /// All IPv4 and IPv6 routes that have a destination, but those of the local table.
    ///
    /// # Errors
    /// The errno of the dump.
    pub fn routes(&mut self) -> io::Result<Vec<Route>> {
        let mut messages = Messages::new();
        messages.begin(GETROUTE, flag::DUMP, &[0; 12]);
        let replies = self.0.query(&mut messages)?;
        Ok(replies
            .iter()
            .filter_map(|reply| parse_route(&reply.payload))
            .collect())
    }
}

/// `struct ifinfomsg`; `set` flags are also its change mask.
fn header(index: u32, set: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&set.to_ne_bytes());
    bytes[12..16].copy_from_slice(&set.to_ne_bytes());
    bytes
}

fn parse_link(payload: &[u8]) -> Option<Link> {
    let (header, rest) = payload.split_first_chunk::<16>()?;
    let attributes = Attributes(rest);
    Some(Link {
        index: u32::from_ne_bytes(*header[4..].first_chunk()?),
        up: u32::from_ne_bytes(*header[8..].first_chunk()?) & IFF_UP != 0,
        operational: attributes.get(IFLA_OPERSTATE) == Some(&[OPERSTATE_UP]),
        forwarding: attributes
            .nested(IFLA_LINKINFO)
            .nested(IFLA_INFO_SLAVE_DATA)
            .get(IFLA_BRPORT_STATE)
            == Some(&[PORT_FORWARDING]),
        name: attributes.string(IFLA_IFNAME)?,
        kind: attributes.nested(IFLA_LINKINFO).string(IFLA_INFO_KIND),
        master: attributes.native(IFLA_MASTER),
        alias: attributes.string(IFLA_IFALIAS),
        mac: attributes.get(IFLA_ADDRESS).unwrap_or_default().to_vec(),
    })
}

fn parse_address(payload: &[u8]) -> Option<Address> {
    let (header, rest) = payload.split_first_chunk::<8>()?;
    let attributes = Attributes(rest);
    // IFA_ADDRESS is the peer on a point-to-point link; IFA_LOCAL is ours, and IPv6 has only the former.
    let bytes = attributes
        .get(IFA_LOCAL)
        .or_else(|| attributes.get(IFA_ADDRESS))?;
    Some(Address {
        index: u32::from_ne_bytes(*header[4..].first_chunk()?),
        prefix: header[1],
        address: parse_ip(bytes)?,
    })
}

fn parse_route(payload: &[u8]) -> Option<Route> {
    let (header, rest) = payload.split_first_chunk::<12>()?;
    let attributes = Attributes(rest);
    let table = attributes.native(RTA_TABLE).unwrap_or(u32::from(header[4]));
    if table == RT_TABLE_LOCAL {
        return None;
    }
    Some(Route {
        destination: parse_ip(attributes.get(RTA_DST)?)?,
        prefix: header[1],
        index: attributes.native(RTA_OIF),
    })
}

fn parse_ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
        16 => Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into()),
        _ => None,
    }
}
