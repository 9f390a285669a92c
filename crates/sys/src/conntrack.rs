//! Connection tracking: forgets the connections of an address.
//!
//! What the kernel remembers of a UDP flow outlives the container it went to (moby#8795): as long as
//! packets come, the old translation holds. There is no deletion by address, so the entries are
//! dumped, filtered by the kernel where it can (since Linux 5.8), and deleted one by one.

use std::fs;
use std::io;
use std::net::Ipv4Addr;

use crate::netlink::{Attributes, Family, Messages, Reply, Socket, flag};

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const FILTER: u16 = 25;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SOURCE: u16 = 1;
const PROTO_NUMBER: u16 = 1;
const PROTO_DESTINATION: u16 = 3;
const FILTER_ORIGINAL_FLAGS: u16 = 1;
const FILTER_REPLY_FLAGS: u16 = 2;
const FLAG_IP_SOURCE: u32 = 1;
const FLAG_PROTO_NUMBER: u32 = 8;
const UDP: u8 = 17;
/// `struct nfgenmsg` of AF_INET.
const HEADER: [u8; 4] = [2, 0, 0, 0];
/// Deletions sent at once; each may be answered by a message of its own.
const DELETIONS_PER_SEND: usize = 128;
/// From so many questions on, one dump of everything costs less than a walk for each.
const FILTERED_DUMPS_MAX: usize = 4;

/// Which connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Which {
    /// Those a container with this address began.
    From(Ipv4Addr),
    /// Those that were translated, or went directly, to a container with this address.
    To(Ipv4Addr),
    /// UDP flows to `port`, whatever the address was, that are answered by another than `than`.
    UdpElsewhere {
        /// The port before translation.
        port: u16,
        /// Who should answer.
        than: Ipv4Addr,
    },
}

impl Which {
    fn matches(self, attributes: &Attributes<'_>) -> bool {
        match self {
            Self::From(address) => source(&attributes.nested(TUPLE_ORIGINAL)) == Some(address),
            Self::To(address) => source(&attributes.nested(TUPLE_REPLY)) == Some(address),
            Self::UdpElsewhere { port, than } => {
                let protocol = attributes.nested(TUPLE_ORIGINAL).nested(TUPLE_PROTO);
                protocol.get(PROTO_NUMBER) == Some(&[UDP])
                    && protocol.get(PROTO_DESTINATION) == Some(&port.to_be_bytes())
                    && source(&attributes.nested(TUPLE_REPLY)) != Some(than)
            }
        }
    }

    /// What the kernel can sort out by itself: it compares only what the flags name.
    fn filter(self, m: &mut Messages) {
        let (original, reply) = match self {
            Self::From(address) => {
                m.nest(TUPLE_ORIGINAL, |m| address_tuple(m, address));
                (FLAG_IP_SOURCE, 0)
            }
            Self::To(address) => {
                m.nest(TUPLE_REPLY, |m| address_tuple(m, address));
                (0, FLAG_IP_SOURCE)
            }
            Self::UdpElsewhere { .. } => {
                m.nest(TUPLE_ORIGINAL, |m| {
                    m.nest(TUPLE_PROTO, |m| m.attribute(PROTO_NUMBER, &[UDP]));
                });
                (FLAG_PROTO_NUMBER, 0)
            }
        };
        m.nest(FILTER, |m| {
            m.native(FILTER_ORIGINAL_FLAGS, original);
            m.native(FILTER_REPLY_FLAGS, reply);
        });
    }
}

/// Deletes connections of the calling thread's namespace; returns how many.
///
/// # Errors
/// The errno of the dump or of a deletion; an entry that went by itself is no error.
pub fn forget(which: &[Which]) -> io::Result<usize> {
    if which.is_empty() || nothing_is_tracked() {
        return Ok(0);
    }
    let mut socket = Socket::open(Family::Netfilter)?;
    let mut forgotten = 0;
    // A dump walks the machine's whole table, whatever the filter: many questions share one.
    let dumps: Vec<(Option<Which>, &[Which])> = if which.len() > FILTERED_DUMPS_MAX {
        vec![(None, which)]
    } else {
        which
            .chunks(1)
            .map(|one| (one.first().copied(), one))
            .collect()
    };
    for (filter, which) in dumps {
        let entries = dump(&mut socket, filter)?;
        let doomed: Vec<_> = entries
            .iter()
            .filter_map(|entry| Some(Attributes(entry.payload.get(4..)?)))
            .filter(|attributes| which.iter().any(|one| one.matches(attributes)))
            .collect();
        for part in doomed.chunks(DELETIONS_PER_SEND) {
            delete(&mut socket, part)?;
        }
        forgotten += doomed.len();
    }
    Ok(forgotten)
}

fn nothing_is_tracked() -> bool {
    fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")
        .is_ok_and(|count| count.trim() == "0")
}

fn dump(socket: &mut Socket, filter: Option<Which>) -> io::Result<Vec<Reply>> {
    let mut all = Messages::new();
    all.begin(SUBSYSTEM << 8 | GET, flag::DUMP, &HEADER);
    let Some(filter) = filter else {
        return socket.query(&mut all);
    };
    let mut filtered = Messages::new();
    filtered.begin(SUBSYSTEM << 8 | GET, flag::DUMP, &HEADER);
    filter.filter(&mut filtered);
    match socket.query(&mut filtered) {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOENT)
            ) =>
        {
            socket.query(&mut all)
        }
        answer => answer,
    }
}

fn delete(socket: &mut Socket, entries: &[Attributes<'_>]) -> io::Result<()> {
    let mut messages = Messages::new();
    for entry in entries {
        messages.begin(SUBSYSTEM << 8 | DELETE, 0, &HEADER);
        // The tuple names the entry; the id makes sure that it is still the same one.
        for kind in [TUPLE_ORIGINAL, ID, ZONE] {
            if let Some(value) = entry.get(kind) {
                let nested = if kind == TUPLE_ORIGINAL { 0x8000 } else { 0 };
                messages.attribute(kind | nested, value);
            }
        }
    }
    match socket.execute(&mut messages) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        answer => answer,
    }
}

fn address_tuple(m: &mut Messages, address: Ipv4Addr) {
    m.nest(TUPLE_IP, |m| m.attribute(IP_V4_SOURCE, &address.octets()));
}

fn source(tuple: &Attributes<'_>) -> Option<Ipv4Addr> {
    address(tuple, IP_V4_SOURCE)
}

fn address(tuple: &Attributes<'_>, kind: u16) -> Option<Ipv4Addr> {
    let octets = tuple.nested(TUPLE_IP).get(kind)?.first_chunk::<4>()?;
    Some(Ipv4Addr::from(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP_V4_DESTINATION: u16 = 2;

    fn entry() -> Messages {
        let mut m = Messages::new();
        m.nest(TUPLE_ORIGINAL, |m| {
            m.nest(TUPLE_IP, |m| {
                m.attribute(IP_V4_SOURCE, &[10, 0, 0, 1]);
                m.attribute(IP_V4_DESTINATION, &[10, 0, 0, 2]);
            });
            m.nest(TUPLE_PROTO, |m| {
                m.attribute(PROTO_NUMBER, &[UDP]);
                m.attribute(PROTO_DESTINATION, &53_u16.to_be_bytes());
            });
        });
        m.nest(TUPLE_REPLY, |m| {
            m.nest(TUPLE_IP, |m| m.attribute(IP_V4_SOURCE, &[172, 17, 0, 2]));
        });
        m
    }

    #[test]
    fn an_entry_is_matched_by_either_end_or_its_port() {
        let messages = entry();
        let attributes = Attributes(messages.bytes());
        let [client, server, container] =
            [[10, 0, 0, 1], [10, 0, 0, 2], [172, 17, 0, 2]].map(Ipv4Addr::from);
        assert!(Which::From(client).matches(&attributes));
        assert!(!Which::From(server).matches(&attributes));
        assert!(Which::To(container).matches(&attributes));
        assert!(!Which::To(server).matches(&attributes));
        let elsewhere = |port, than| Which::UdpElsewhere { port, than };
        assert!(elsewhere(53, server).matches(&attributes));
        assert!(!elsewhere(53, container).matches(&attributes));
        assert!(!elsewhere(54, server).matches(&attributes));
    }
}
