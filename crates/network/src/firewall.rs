//! Our one nf_tables table: its rules as plain data, and the map elements of published ports.
//!
//! ```text
//! table inet cooper
//!   map published     proto . port           : address . port     ports of every host address
//!   map published_on  address . proto . port : address . port     ports of one host address
//!   raw          prerouting, raw        127.0.0.0/8 only ever comes from lo
//!   prerouting   nat, dstnat            to an address of this host: publish
//!   output       nat, dstnat            from this host itself, its 127.0.0.1 included: publish
//!   publish                             translate by the two maps
//!   forward      filter, before others  to the bridge: established, published, or its own
//!   postrouting  nat, srcnat            masquerade
//! ```
//!
//! The raw drops are what makes `route_localnet` on the bridge safe (CVE-2020-8558, moby#45610): they
//! come with the table, the setting comes after it and goes when the table is gone.

pub(crate) mod foreign;
pub(crate) mod legacy;

use std::net::IpAddr;

use ipnet::Ipv4Net;
use sys::nft::{
    Base, ChainKind, CtKey, Element, Expression, Family, Hook, MetaKey, Place, Register, Set,
    Table, Transaction, Verdict,
};

use crate::attachment::{EndpointRecord, Protocol};

/// Ports published on every address.
pub(crate) const PUBLISHED: &str = "published";
/// Ports published on one address.
pub(crate) const PUBLISHED_ON: &str = "published_on";
/// Both maps.
pub(crate) const MAPS: [&str; 2] = [PUBLISHED, PUBLISHED_ON];

const PRIORITY_RAW: i32 = -300;
const PRIORITY_DSTNAT: i32 = -100;
/// Before the priority 0 where others filter, so that the two rules in their chains open nothing.
const PRIORITY_FORWARD: i32 = -10;
const PRIORITY_SRCNAT: i32 = 100;

// libnftables' type numbers; a concatenation shifts by six bits a part.
const TYPE_ADDRESS: u32 = 7;
const TYPE_PROTO: u32 = 12;
const TYPE_SERVICE: u32 = 13;

const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const IP_SOURCE: u32 = 12;
const IP_DESTINATION: u32 = 16;
const NFPROTO_IPV4: u8 = 2;
const RTN_LOCAL: u32 = 2;
const STATE_ESTABLISHED_RELATED: u32 = 2 | 4;
const STATUS_DNAT: u32 = 0x20;
/// `IFNAMSIZ`.
const INTERFACE_NAME_BYTES: usize = 16;

/// A rule is what it does, step by step.
type Rule = Vec<Expression>;
/// Name, hook and rules.
type Chain = (&'static str, Option<Base>, Vec<Rule>);

/// What the rules depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    /// The table's name.
    pub(crate) table: String,
    /// The bridge's name.
    pub(crate) bridge: String,
    /// The bridge's subnet.
    pub(crate) subnet: Ipv4Net,
    /// Containers may talk to each other.
    pub(crate) icc: bool,
    /// Containers leave with the host's address.
    pub(crate) masquerade: bool,
    /// Forwarding is on because of us: what touches no bridge is not forwarded.
    pub(crate) guard_forwarding: bool,
}

impl Policy {
    pub(crate) fn table(&self) -> Table<'_> {
        Table {
            family: Family::Inet,
            name: &self.table,
        }
    }

    /// Replaces the table by a fresh one that holds `elements`, whatever was there, at one stroke.
    pub(crate) fn rebuild(&self, elements: &[(&'static str, Element)]) -> Transaction {
        let mut t = Transaction::new();
        let table = self.table();
        // A table must be there to be deleted.
        t.add_table(table);
        t.delete_table(table);
        t.add_table(table);
        for (name, parts) in [
            (PUBLISHED, &[TYPE_PROTO, TYPE_SERVICE][..]),
            (PUBLISHED_ON, &[TYPE_ADDRESS, TYPE_PROTO, TYPE_SERVICE]),
        ] {
            t.add_set(
                table,
                &Set {
                    name,
                    key_type: concatenated(parts),
                    key_bytes: u32::try_from(parts.len() * 4).expect("a few parts"),
                    data: Some((concatenated(&[TYPE_ADDRESS, TYPE_SERVICE]), 8)),
                },
            );
        }
        let chains = self.chains();
        for (name, base, _) in &chains {
            t.add_chain(table, name, *base);
        }
        for (name, _, rules) in &chains {
            for rule in rules {
                t.add_rule(table, name, rule, Place::Tail);
            }
        }
        for map in MAPS {
            let of_map =
                |(name, element): &(&str, Element)| (*name == map).then(|| element.clone());
            let elements: Vec<Element> = elements.iter().filter_map(of_map).collect();
            t.add_elements(table, map, &elements);
        }
        t
    }

    fn chains(&self) -> [Chain; 6] {
        let base = |kind, hook, priority| {
            Some(Base {
                kind,
                hook,
                priority,
            })
        };
        let nat = ChainKind::Nat;
        let filter = ChainKind::Filter;
        [
            ("raw", base(filter, Hook::Prerouting, PRIORITY_RAW), raw()),
            ("publish", None, publish()),
            (
                "prerouting",
                base(nat, Hook::Prerouting, PRIORITY_DSTNAT),
                to_this_host(),
            ),
            (
                "output",
                base(nat, Hook::Output, PRIORITY_DSTNAT),
                to_this_host(),
            ),
            (
                "forward",
                base(filter, Hook::Forward, PRIORITY_FORWARD),
                self.forward(),
            ),
            (
                "postrouting",
                base(nat, Hook::Postrouting, PRIORITY_SRCNAT),
                self.postrouting(),
            ),
        ]
    }

    fn forward(&self) -> Vec<Rule> {
        let to_bridge = || name_is(MetaKey::OutputName, &self.bridge);
        let from_bridge = || name_is(MetaKey::InputName, &self.bridge);
        let mut rules = Vec::new();
        if self.icc {
            rules.push(join([from_bridge(), to_bridge(), accept()]));
        }
        rules.push(join([
            to_bridge(),
            has_bit(CtKey::State, STATE_ESTABLISHED_RELATED),
            accept(),
        ]));
        rules.push(join([
            to_bridge(),
            has_bit(CtKey::Status, STATUS_DNAT),
            accept(),
        ]));
        rules.push(join([to_bridge(), drop_it()]));
        if self.guard_forwarding {
            // Other engines' bridges have rules of their own (DESIGN decision 19). Only a match is asked for: a network
            // card (virtio, e1000, lo) has no kind, and a rule that asks for it ends there, also if it asks for "not".
            for key in [MetaKey::InputKind, MetaKey::OutputKind] {
                let of_a_bridge = vec![
                    Expression::Meta(key, Register::One),
                    Expression::Equal(Register::One, interface_name("bridge")),
                ];
                rules.push(join([of_a_bridge, accept()]));
            }
            rules.push(join([ipv4(), drop_it()]));
        }
        rules
    }

    fn postrouting(&self) -> Vec<Rule> {
        let loopback = Ipv4Net::new_assert([127, 0, 0, 0].into(), 8);
        let to_bridge = || name_is(MetaKey::OutputName, &self.bridge);
        let masquerade = || vec![Expression::Counter, Expression::Masquerade];
        // The containers' side of a bridge is told by address: with bridge-nf-call-iptables the input
        // interface is not known here.
        let mut rules = vec![
            join([to_bridge(), address_in(IP_SOURCE, loopback), masquerade()]),
            join([
                to_bridge(),
                address_in(IP_SOURCE, self.subnet),
                has_bit(CtKey::Status, STATUS_DNAT),
                masquerade(),
            ]),
        ];
        if self.masquerade {
            rules.push(join([
                vec![
                    Expression::Meta(MetaKey::OutputName, Register::One),
                    Expression::NotEqual(Register::One, interface_name(&self.bridge)),
                ],
                address_in(IP_SOURCE, self.subnet),
                masquerade(),
            ]));
        }
        rules
    }
}

fn raw() -> Vec<Rule> {
    let loopback = Ipv4Net::new_assert([127, 0, 0, 0].into(), 8);
    [IP_SOURCE, IP_DESTINATION]
        .into_iter()
        .map(|field| {
            join([
                vec![
                    Expression::Meta(MetaKey::InputName, Register::One),
                    Expression::NotEqual(Register::One, interface_name("lo")),
                ],
                address_in(field, loopback),
                drop_it(),
            ])
        })
        .collect()
}

fn to_this_host() -> Vec<Rule> {
    vec![join([
        ipv4(),
        vec![
            Expression::DestinationType(Register::One),
            Expression::Equal(Register::One, RTN_LOCAL.to_ne_bytes().to_vec()),
            Expression::Verdict(Verdict::Jump("publish".to_owned())),
        ],
    ])]
}

fn publish() -> Vec<Rule> {
    let key = |first: u32| {
        vec![
            Expression::Meta(MetaKey::Transport, Register::Word(first)),
            Expression::Payload {
                base: TRANSPORT_HEADER,
                offset: 2,
                bytes: 2,
                to: Register::Word(first + 1),
            },
        ]
    };
    let translate = |map: &str| {
        vec![
            Expression::Lookup {
                set: map.to_owned(),
                key: Register::Word(0),
                to: Register::Word(0),
            },
            Expression::DestinationNat {
                address: Register::Word(0),
                port: Register::Word(1),
            },
        ]
    };
    let destination = Expression::Payload {
        base: NETWORK_HEADER,
        offset: IP_DESTINATION,
        bytes: 4,
        to: Register::Word(0),
    };
    vec![
        join([ipv4(), vec![destination], key(1), translate(PUBLISHED_ON)]),
        join([ipv4(), key(0), translate(PUBLISHED)]),
    ]
}

/// The map elements of a container's published IPv4 ports, each with the container's id.
pub(crate) fn elements(record: &EndpointRecord) -> Vec<(&'static str, Element)> {
    record
        .ports
        .iter()
        .filter_map(|port| {
            let IpAddr::V4(host) = port.host_ip else {
                return None;
            };
            let proto = match port.protocol {
                Protocol::Tcp => 6,
                Protocol::Udp => 17,
            };
            let map = if host.is_unspecified() {
                PUBLISHED
            } else {
                PUBLISHED_ON
            };
            let mut key = Vec::with_capacity(12);
            if map == PUBLISHED_ON {
                key.extend_from_slice(&host.octets());
            }
            key.extend_from_slice(&[proto, 0, 0, 0]);
            key.extend_from_slice(&service(port.host_port));
            let mut data = record.ipv4.octets().to_vec();
            data.extend_from_slice(&service(port.container_port));
            let element = Element {
                key,
                data: Some(data),
                comment: Some(record.container.clone()),
            };
            Some((map, element))
        })
        .collect()
}

/// Adds elements to `t`.
pub(crate) fn publish_elements(
    t: &mut Transaction,
    table: Table<'_>,
    elements: &[(&str, Element)],
) {
    for (map, element) in elements {
        t.add_elements(table, map, std::slice::from_ref(element));
    }
}

/// Takes elements away whether or not they are there: adding what is there changes nothing, and what
/// was just added can be deleted. (`NFT_MSG_DESTROYSETELEM` came with Linux 6.3 only.)
pub(crate) fn withdraw_elements(
    t: &mut Transaction,
    table: Table<'_>,
    elements: &[(&str, Element)],
) {
    for (map, element) in elements {
        t.add_elements(table, map, std::slice::from_ref(element));
        t.delete_elements(table, map, std::slice::from_ref(element));
    }
}

fn service(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn concatenated(parts: &[u32]) -> u32 {
    parts.iter().fold(0, |number, part| number << 6 | part)
}

fn join<const N: usize>(parts: [Vec<Expression>; N]) -> Vec<Expression> {
    parts.into_iter().flatten().collect()
}

fn accept() -> Vec<Expression> {
    vec![Expression::Counter, Expression::Verdict(Verdict::Accept)]
}

fn drop_it() -> Vec<Expression> {
    vec![Expression::Counter, Expression::Verdict(Verdict::Drop)]
}

fn ipv4() -> Vec<Expression> {
    vec![
        Expression::Meta(MetaKey::Family, Register::One),
        Expression::Equal(Register::One, vec![NFPROTO_IPV4]),
    ]
}

/// `iifname "x"` or `oifname "x"`, encoded as iptables-nft does.
pub(crate) fn name_is(key: MetaKey, name: &str) -> Vec<Expression> {
    vec![
        Expression::Meta(key, Register::One),
        Expression::Equal(Register::One, interface_name(name)),
    ]
}

fn interface_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(INTERFACE_NAME_BYTES, 0);
    bytes
}

fn address_in(offset: u32, net: Ipv4Net) -> Vec<Expression> {
    join([
        ipv4(),
        vec![
            Expression::Payload {
                base: NETWORK_HEADER,
                offset,
                bytes: 4,
                to: Register::One,
            },
            Expression::Mask(Register::One, net.netmask().octets()),
            Expression::Equal(Register::One, net.network().octets().to_vec()),
        ],
    ])
}

fn has_bit(key: CtKey, bits: u32) -> Vec<Expression> {
    vec![
        Expression::Ct(key, Register::One),
        Expression::Mask(Register::One, bits.to_ne_bytes()),
        Expression::NotEqual(Register::One, vec![0; 4]),
    ]
}
