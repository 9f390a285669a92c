//! nf_tables by netlink: tables, chains, rules, sets and maps as plain data, written as one transaction.
//!
//! The kernel applies a [`Transaction`] whole or not at all, and packets see either the old or the new
//! state. The encoding follows `include/uapi/linux/netfilter/nf_tables.h`; where the kernel leaves a
//! choice (register numbers, padding, the type numbers of sets) it follows libnftables, so that `nft`
//! and `iptables` read what is written here.

mod expression;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

pub use expression::{CtKey, Expression, MetaKey, Register, Verdict};

use crate::netlink::{Attributes, Family as Netlink, Messages, Reply, Socket, flag};

const SUBSYSTEM: u16 = 10;
const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;
const NEWGEN: u16 = 15;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNLGRP_NFTABLES` as a mask.
const GROUP_MASK: u32 = 1 << 6;

const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LEN: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LEN: u16 = 7;
const SET_ID: u16 = 10;
const SET_IS_MAP: u32 = 8;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS_LIST: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_USERDATA: u16 = 6;
const LIST_ELEMENT: u16 = 1;
const DATA_VALUE: u16 = 1;
const USERDATA_COMMENT: u8 = 0;
const GENERATION_PID: u16 = 2;

/// Elements in one message: well below the 64 KiB that a nested attribute can hold.
const ELEMENTS_PER_MESSAGE: usize = 250;

/// The address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

impl Family {
    const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Inet),
            2 => Some(Self::Ip),
            10 => Some(Self::Ip6),
            _ => None,
        }
    }
}

/// A table by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table<'a> {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: &'a str,
}

/// Where packets meet a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// For this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// Leaving.
    Postrouting,
}

impl Hook {
    const ALL: [Self; 5] = [
        Self::Prerouting,
        Self::Input,
        Self::Forward,
        Self::Output,
        Self::Postrouting,
    ];

    fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }
}

/// What a base chain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Accept and drop.
    Filter,
    /// Address translation: sees the first packet of a connection.
    Nat,
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Its kind.
    pub kind: ChainKind,
    /// Its hook.
    pub hook: Hook,
    /// Its place among the chains of the hook; lower comes first.
    pub priority: i32,
}

/// A set or map whose keys have a fixed length. Types are libnftables' numbers, six bits a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set<'a> {
    /// Its name.
    pub name: &'a str,
    /// The type number of the key.
    pub key_type: u32,
    /// The length of the key in bytes.
    pub key_bytes: u32,
    /// For a map, type number and length in bytes of the value.
    pub data: Option<(u32, u32)>,
}

/// One element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Element {
    /// The key, each part padded to four bytes.
    pub key: Vec<u8>,
    /// The value of a map.
    pub data: Option<Vec<u8>>,
    /// A text that `nft list` shows, at most 127 bytes.
    pub comment: Option<String>,
}

/// Where a rule goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Before all rules of the chain.
    Head,
    /// After them.
    Tail,
}

/// Changes that happen together.
#[derive(Debug, Clone)]
pub struct Transaction {
    messages: Messages,
    sets: u32,
    empty: bool,
}

impl Default for Transaction {
    fn default() -> Self {
        let mut messages = Messages::new();
        messages.begin(BATCH_BEGIN, 0, &header(0, SUBSYSTEM));
        Self {
            messages,
            sets: 0,
            empty: true,
        }
    }
}

impl Transaction {
    /// No change yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.empty
    }

    fn begin(&mut self, kind: u16, flags: u16, family: Family) -> &mut Messages {
        self.empty = false;
        let kind = SUBSYSTEM << 8 | kind;
        self.messages
            .begin(kind, flags, &header(family.number(), 0));
        &mut self.messages
    }

    /// Makes a table unless it is there.
    pub fn add_table(&mut self, table: Table<'_>) {
        let m = self.begin(NEWTABLE, flag::CREATE, table.family);
        m.string(TABLE_NAME, table.name);
    }

    /// Deletes a table, which must be there, with all it holds.
    pub fn delete_table(&mut self, table: Table<'_>) {
        let m = self.begin(DELTABLE, 0, table.family);
        m.string(TABLE_NAME, table.name);
    }

    /// Makes a chain unless it is there; a base chain accepts what its rules leave.
    pub fn add_chain(&mut self, table: Table<'_>, name: &str, base: Option<Base>) {
        let m = self.begin(NEWCHAIN, flag::CREATE, table.family);
        m.string(CHAIN_TABLE, table.name);
        m.string(CHAIN_NAME, name);
        let Some(base) = base else { return };
        m.nest(CHAIN_HOOK, |m| {
            m.big(HOOK_NUMBER, base.hook.number());
            m.attribute(HOOK_PRIORITY, &base.priority.to_be_bytes());
        });
        m.big(CHAIN_POLICY, 1);
        m.string(
            CHAIN_TYPE,
            match base.kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
            },
        );
    }

    /// Adds a rule.
    pub fn add_rule(&mut self, table: Table<'_>, chain: &str, rule: &[Expression], place: Place) {
        let flags = match place {
            Place::Head => flag::CREATE,
            Place::Tail => flag::CREATE | flag::APPEND,
        };
        let m = self.begin(NEWRULE, flags, table.family);
        m.string(RULE_TABLE, table.name);
        m.string(RULE_CHAIN, chain);
        m.nest(RULE_EXPRESSIONS, |m| {
            for expression in rule {
                m.nest(LIST_ELEMENT, |m| expression.encode(m));
            }
        });
    }

    /// Deletes the rule with `handle`, which must be there.
    pub fn delete_rule(&mut self, table: Table<'_>, chain: &str, handle: u64) {
        let m = self.begin(DELRULE, 0, table.family);
        m.string(RULE_TABLE, table.name);
        m.string(RULE_CHAIN, chain);
        m.attribute(RULE_HANDLE, &handle.to_be_bytes());
    }

    /// Makes a set or map unless it is there.
    pub fn add_set(&mut self, table: Table<'_>, set: &Set<'_>) {
        self.sets += 1;
        let id = self.sets;
        let m = self.begin(NEWSET, flag::CREATE, table.family);
        m.string(SET_TABLE, table.name);
        m.string(SET_NAME, set.name);
        m.big(SET_FLAGS, if set.data.is_some() { SET_IS_MAP } else { 0 });
        m.big(SET_KEY_TYPE, set.key_type);
        m.big(SET_KEY_LEN, set.key_bytes);
        if let Some((data_type, data_bytes)) = set.data {
            m.big(SET_DATA_TYPE, data_type);
            m.big(SET_DATA_LEN, data_bytes);
        }
        m.big(SET_ID, id);
    }

    /// Adds elements; one that is there with the same value is left alone, one with another value fails
    /// the transaction.
    pub fn add_elements(&mut self, table: Table<'_>, set: &str, elements: &[Element]) {
        self.elements(NEWSETELEM, flag::CREATE, table, set, elements);
    }

    /// Deletes elements, which must be there.
    pub fn delete_elements(&mut self, table: Table<'_>, set: &str, elements: &[Element]) {
        self.elements(DELSETELEM, 0, table, set, elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, table: Table<'_>, set: &str, all: &[Element]) {
        for part in all.chunks(ELEMENTS_PER_MESSAGE) {
            let m = self.begin(kind, flags, table.family);
            m.string(ELEMENTS_TABLE, table.name);
            m.string(ELEMENTS_SET, set);
            m.nest(ELEMENTS_LIST, |m| {
                for element in part {
                    m.nest(LIST_ELEMENT, |m| encode_element(m, element));
                }
            });
        }
    }
}

fn encode_element(m: &mut Messages, element: &Element) {
    m.nest(ELEMENT_KEY, |m| m.attribute(DATA_VALUE, &element.key));
    if let Some(data) = &element.data {
        m.nest(ELEMENT_DATA, |m| m.attribute(DATA_VALUE, data));
    }
    if let Some(comment) = &element.comment {
        // libnftnl's type-length-value list; the text ends with a zero that counts.
        let length = u8::try_from(comment.len() + 1).expect("a comment has at most 127 bytes");
        let mut bytes = vec![USERDATA_COMMENT, length];
        bytes.extend_from_slice(comment.as_bytes());
        bytes.push(0);
        m.attribute(ELEMENT_USERDATA, &bytes);
    }
}

/// A chain as the kernel tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Family of its table.
    pub family: Family,
    /// Name of its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Its hook, if it is a base chain.
    pub hook: Option<Hook>,
    /// A base chain that drops what its rules leave.
    pub drops: bool,
}

/// A rule as the kernel tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its chain.
    pub chain: String,
    /// Its handle, unique in its table.
    pub handle: u64,
    /// What it does.
    pub expressions: Vec<Expression>,
}

/// A netfilter socket for nf_tables.
#[derive(Debug)]
pub struct NfTables(Socket);

impl NfTables {
    /// Opens the socket in the calling thread's namespace.
    ///
    /// # Errors
    /// The errno of socket or bind.
    pub fn open() -> io::Result<Self> {
        Socket::open(Netlink::Netfilter).map(Self)
    }

    /// Applies all changes or none.
    ///
    /// # Errors
    /// The errno of the first change that failed.
    pub fn commit(&mut self, mut transaction: Transaction) -> io::Result<()> {
        if transaction.is_empty() {
            return Ok(());
        }
        let m = &mut transaction.messages;
        m.begin(BATCH_END, 0, &header(0, SUBSYSTEM));
        self.0.execute(m)
    }

    /// Whether a table is there.
    ///
    /// # Errors
    /// The errno of the query.
    pub fn has_table(&mut self, table: Table<'_>) -> io::Result<bool> {
        let mut messages = get(GETTABLE, flag::ACK, table.family.number());
        messages.string(TABLE_NAME, table.name);
        Ok(present(self.0.query(&mut messages))?.is_some())
    }

    /// The chains of all tables.
    ///
    /// # Errors
    /// The errno of the dump.
    pub fn chains(&mut self) -> io::Result<Vec<Chain>> {
        let replies = self.0.query(&mut get(GETCHAIN, flag::DUMP, 0))?;
        Ok(replies.iter().filter_map(parse_chain).collect())
    }

    /// The rules of a table, in order within each chain.
    ///
    /// # Errors
    /// The errno of the dump.
    pub fn rules(&mut self, table: Table<'_>) -> io::Result<Vec<Rule>> {
        let mut messages = get(GETRULE, flag::DUMP, table.family.number());
        messages.string(RULE_TABLE, table.name);
        let replies = self.0.query(&mut messages)?;
        Ok(replies
            .iter()
            .filter_map(|reply| {
                let attributes = Attributes(reply.payload.get(4..)?);
                // Kernels before 5.x answer with the rules of every table.
                (attributes.string(RULE_TABLE)? == table.name).then(|| parse_rule(&attributes))?
            })
            .collect())
    }

    /// The elements of a set or map; none if the set is not there.
    ///
    /// # Errors
    /// The errno of the dump.
    pub fn elements(&mut self, table: Table<'_>, set: &str) -> io::Result<Vec<Element>> {
        let mut messages = get(GETSETELEM, flag::DUMP, table.family.number());
        messages.string(ELEMENTS_TABLE, table.name);
        messages.string(ELEMENTS_SET, set);
        let replies = present(self.0.query(&mut messages))?.unwrap_or_default();
        let mut elements = Vec::new();
        for reply in &replies {
            let attributes = Attributes(reply.payload.get(4..).unwrap_or_default());
            for (_, element) in attributes.nested(ELEMENTS_LIST) {
                elements.extend(parse_element(&Attributes(element)));
            }
        }
        Ok(elements)
    }
}

/// Tells of transactions that others commit.
#[derive(Debug)]
pub struct Monitor(Socket);

impl Monitor {
    /// Begins to listen in the calling thread's namespace.
    ///
    /// # Errors
    /// The errno of socket or bind.
    pub fn open() -> io::Result<Self> {
        Socket::subscribed(Netlink::Netfilter, GROUP_MASK).map(Self)
    }

    /// Takes what was queued; true if a process other than this one changed something, or if that
    /// cannot be told. Never waits.
    ///
    /// # Errors
    /// The errno of recv.
    pub fn changed_by_others(&mut self) -> io::Result<bool> {
        let Some(events) = self.0.events()? else {
            return Ok(true);
        };
        Ok(events.iter().any(|event| {
            let attributes = Attributes(event.payload.get(4..).unwrap_or_default());
            event.kind == SUBSYSTEM << 8 | NEWGEN
                && !attributes
                    .big(GENERATION_PID)
                    .is_some_and(is_thread_of_ours)
        }))
    }
}

/// The kernel tells the thread that committed, not its process.
fn is_thread_of_ours(thread: u32) -> bool {
    std::fs::metadata(format!("/proc/self/task/{thread}")).is_ok()
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `struct nfgenmsg`.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn get(kind: u16, flags: u16, family: u8) -> Messages {
    let mut messages = Messages::new();
    messages.begin(SUBSYSTEM << 8 | kind, flags, &header(family, 0));
    messages
}

fn present(answer: io::Result<Vec<Reply>>) -> io::Result<Option<Vec<Reply>>> {
    match answer {
        Ok(replies) => Ok(Some(replies)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse_chain(reply: &Reply) -> Option<Chain> {
    let attributes = Attributes(reply.payload.get(4..)?);
    let hook = attributes.nested(CHAIN_HOOK).big(HOOK_NUMBER);
    Some(Chain {
        family: Family::from_number(*reply.payload.first()?)?,
        table: attributes.string(CHAIN_TABLE)?,
        name: attributes.string(CHAIN_NAME)?,
        hook: hook.and_then(|n| Hook::ALL.into_iter().find(|hook| hook.number() == n)),
        drops: hook.is_some() && attributes.big(CHAIN_POLICY) == Some(0),
    })
}

fn parse_rule(attributes: &Attributes<'_>) -> Option<Rule> {
    Some(Rule {
        chain: attributes.string(RULE_CHAIN)?,
        handle: u64::from_be_bytes(*attributes.get(RULE_HANDLE)?.first_chunk()?),
        expressions: attributes
            .nested(RULE_EXPRESSIONS)
            .map(|(_, expression)| Expression::decode(&Attributes(expression)))
            .collect(),
    })
}

fn parse_element(attributes: &Attributes<'_>) -> Option<Element> {
    let value = |kind| attributes.nested(kind).get(DATA_VALUE).map(<[u8]>::to_vec);
    let comment = attributes
        .get(ELEMENT_USERDATA)
        .filter(|bytes| bytes.first() == Some(&USERDATA_COMMENT))
        .and_then(|bytes| bytes.get(2..2 + usize::from(*bytes.get(1)?)))
        .map(|text| {
            String::from_utf8_lossy(text)
                .trim_end_matches('\0')
                .to_owned()
        });
    Some(Element {
        key: value(ELEMENT_KEY)?,
        data: value(ELEMENT_DATA),
        comment,
    })
}
