//! What a rule is made of, as data, and its encoding.

use crate::netlink::{Attributes, Messages};

const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const VERDICT_REGISTER: u32 = 0;
const NFPROTO_IPV4: u32 = 2;

/// A register; the four-byte ones hold the parts of a concatenated key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Register {
    /// The first 16-byte register, which `iptables` uses.
    One,
    /// The four-byte register of this number; 0 to 3 overlay [`Register::One`].
    Word(u32),
}

impl Register {
    const fn number(self) -> u32 {
        match self {
            Self::One => 1,
            Self::Word(word) => 8 + word,
        }
    }
}

/// A fact about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaKey {
    /// Name of the interface it came in by.
    InputName,
    /// Name of the interface it leaves by.
    OutputName,
    /// Family: 2 is IPv4, 10 is IPv6.
    Family,
    /// Transport protocol.
    Transport,
    /// Driver of the interface it came in by (since Linux 5.1).
    InputKind,
    /// Driver of the interface it leaves by.
    OutputKind,
}

impl MetaKey {
    const ALL: [(Self, u32); 6] = [
        (Self::InputName, 6),
        (Self::OutputName, 7),
        (Self::Family, 15),
        (Self::Transport, 16),
        (Self::InputKind, 26),
        (Self::OutputKind, 27),
    ];
}

/// A fact about a packet's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtKey {
    /// A bit mask: 2 established, 4 related.
    State,
    /// A bit mask: 0x20 its destination was translated.
    Status,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on to the next base chain.
    Accept,
    /// It is gone.
    Drop,
    /// It meets the rules of another chain and comes back.
    Jump(String),
    /// It meets the rules of another chain and does not come back.
    Goto(String),
    /// It goes back to the calling chain.
    Return,
}

/// One step of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// Loads a fact about the packet.
    Meta(MetaKey, Register),
    /// Loads bytes of the network header (`base` 1) or transport header (`base` 2).
    Payload {
        /// 1 or 2.
        base: u32,
        /// Where they begin.
        offset: u32,
        /// How many.
        bytes: u32,
        /// Where they go.
        to: Register,
    },
    /// Ends the rule unless the register holds these bytes.
    Equal(Register, Vec<u8>),
    /// Ends the rule if the register holds these bytes.
    NotEqual(Register, Vec<u8>),
    /// Ands the first four bytes of a register.
    Mask(Register, [u8; 4]),
    /// Loads a fact about the connection.
    Ct(CtKey, Register),
    /// Loads the type of the destination address (2 is one of this host).
    DestinationType(Register),
    /// Looks a key up in a map; ends the rule if it is not there.
    Lookup {
        /// The map.
        set: String,
        /// The key.
        key: Register,
        /// Where the value goes.
        to: Register,
    },
    /// Translates the destination to the IPv4 address and port in these registers.
    DestinationNat {
        /// The address.
        address: Register,
        /// The port.
        port: Register,
    },
    /// Translates the source to the address of the interface it leaves by.
    Masquerade,
    /// Counts.
    Counter,
    /// Ends with a verdict.
    Verdict(Verdict),
    /// Anything else, by the kernel's name for it (in what is read only).
    Other(String),
}

impl Expression {
    pub(super) fn encode(&self, m: &mut Messages) {
        m.string(EXPRESSION_NAME, self.name());
        m.nest(EXPRESSION_DATA, |m| self.encode_data(m));
    }

    fn name(&self) -> &str {
        match self {
            Self::Meta(..) => "meta",
            Self::Payload { .. } => "payload",
            Self::Equal(..) | Self::NotEqual(..) => "cmp",
            Self::Mask(..) => "bitwise",
            Self::Ct(..) => "ct",
            Self::DestinationType(..) => "fib",
            Self::Lookup { .. } => "lookup",
            Self::DestinationNat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Counter => "counter",
            Self::Verdict(..) => "immediate",
            Self::Other(name) => name,
        }
    }

    fn encode_data(&self, m: &mut Messages) {
        match self {
            Self::Meta(key, to) => {
                let number = MetaKey::ALL.iter().find(|(k, _)| k == key).map(|(_, n)| *n);
                m.big(2, number.expect("the table lists every key"));
                m.big(1, to.number());
            }
            Self::Payload {
                base,
                offset,
                bytes,
                to,
            } => {
                m.big(1, to.number());
                m.big(2, *base);
                m.big(3, *offset);
                m.big(4, *bytes);
            }
            Self::Equal(from, value) => compare(m, *from, 0, value),
            Self::NotEqual(from, value) => compare(m, *from, 1, value),
            Self::Mask(register, mask) => {
                m.big(1, register.number());
                m.big(2, register.number());
                m.big(3, 4);
                m.nest(4, |m| m.attribute(VALUE, mask));
                m.nest(5, |m| m.attribute(VALUE, &[0; 4]));
            }
            Self::Ct(key, to) => {
                m.big(2, if *key == CtKey::State { 0 } else { 2 });
                m.big(1, to.number());
            }
            Self::DestinationType(to) => {
                // NFT_FIB_RESULT_ADDRTYPE of NFTA_FIB_F_DADDR.
                m.big(1, to.number());
                m.big(2, 3);
                m.big(3, 2);
            }
            Self::Lookup { set, key, to } => {
                m.string(1, set);
                m.big(2, key.number());
                m.big(3, to.number());
            }
            Self::DestinationNat { address, port } => {
                m.big(1, 1);
                m.big(2, NFPROTO_IPV4);
                m.big(3, address.number());
                m.big(5, port.number());
            }
            Self::Counter => {
                m.attribute(1, &[0; 8]);
                m.attribute(2, &[0; 8]);
            }
            Self::Verdict(verdict) => {
                m.big(1, VERDICT_REGISTER);
                m.nest(2, |m| m.nest(VERDICT, |m| encode_verdict(m, verdict)));
            }
            Self::Masquerade | Self::Other(_) => {}
        }
    }

    pub(super) fn decode(attributes: &Attributes<'_>) -> Self {
        let name = attributes.string(EXPRESSION_NAME).unwrap_or_default();
        let data = attributes.nested(EXPRESSION_DATA);
        decode_known(&name, &data).unwrap_or(Self::Other(name))
    }
}

/// Only what rules in foreign chains and our own comparisons need; anything else stays [`Expression::Other`].
fn decode_known(name: &str, data: &Attributes<'_>) -> Option<Expression> {
    match name {
        "meta" => {
            let number = data.big(2)?;
            let (key, _) = MetaKey::ALL.into_iter().find(|(_, n)| *n == number)?;
            Some(Expression::Meta(key, register(data.big(1)?)?))
        }
        "cmp" => {
            let from = register(data.big(1)?)?;
            let value = data.nested(3).get(VALUE)?.to_vec();
            match data.big(2)? {
                0 => Some(Expression::Equal(from, value)),
                1 => Some(Expression::NotEqual(from, value)),
                _ => None,
            }
        }
        "counter" => Some(Expression::Counter),
        "masq" => Some(Expression::Masquerade),
        "immediate" if data.big(1)? == VERDICT_REGISTER => {
            let verdict = data.nested(2).nested(VERDICT);
            let chain = || verdict.string(VERDICT_CHAIN);
            let code = i32::from_be_bytes(*verdict.get(VERDICT_CODE)?.first_chunk()?);
            Some(Expression::Verdict(match code {
                0 => Verdict::Drop,
                1 => Verdict::Accept,
                -3 => Verdict::Jump(chain()?),
                -4 => Verdict::Goto(chain()?),
                -5 => Verdict::Return,
                _ => return None,
            }))
        }
        _ => None,
    }
}

fn register(number: u32) -> Option<Register> {
    match number {
        1 => Some(Register::One),
        // The kernel tells the first word of a 16-byte register by the number of the whole.
        8..=23 => Some(Register::Word(number - 8)),
        _ => None,
    }
}

fn compare(m: &mut Messages, from: Register, operator: u32, value: &[u8]) {
    m.big(1, from.number());
    m.big(2, operator);
    m.nest(3, |m| m.attribute(VALUE, value));
}

fn encode_verdict(m: &mut Messages, verdict: &Verdict) {
    let (code, chain): (i32, _) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    m.attribute(VERDICT_CODE, &code.to_be_bytes());
    if let Some(chain) = chain {
        m.string(VERDICT_CHAIN, chain);
    }
}
