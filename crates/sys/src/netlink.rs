//! Synchronous netlink: messages written into one buffer, sent in one call, answered at once.
//!
//! The kernel handles a request inside `sendmsg` and queues its answers before that returns, so nothing
//! here waits. Knows the framing (`struct nlmsghdr`, `struct nlattr`; netlink(7)) and nothing of what
//! is framed: see [`link`](crate::link), [`nft`](crate::nft) and [`conntrack`](crate::conntrack).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// The kernel's own limit for one datagram of a dump is 32 KiB; acknowledgements are smaller.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Room for one large transaction (an nf_tables batch is a single datagram): about 100,000 map elements.
const SEND_BUFFER_BYTES: usize = 16 * 1024 * 1024;

const HEADER_BYTES: usize = 16;
const ERROR: u16 = 2;
/// `NLM_F_DUMP_INTR` in an answer: what is listed changed meanwhile, and something may be missing.
const INTERRUPTED: u16 = 0x10;
/// How often a dump that a change interrupted begins anew. Changes come in bursts, a dump takes well under a
/// millisecond; a network that changes faster than this is not told right by any listing.
const DUMPS_MAX: u32 = 20;
const DONE: u16 = 3;
const NESTED: u16 = 0x8000;
const KIND_MASK: u16 = 0x3fff;

/// Flags of a request.
pub mod flag {
    /// `NLM_F_REQUEST`.
    pub const REQUEST: u16 = 0x1;
    /// `NLM_F_ACK`.
    pub const ACK: u16 = 0x4;
    /// `NLM_F_ROOT | NLM_F_MATCH`.
    pub const DUMP: u16 = 0x300;
    /// `NLM_F_EXCL`.
    pub const EXCLUSIVE: u16 = 0x200;
    /// `NLM_F_CREATE`.
    pub const CREATE: u16 = 0x400;
    /// `NLM_F_APPEND`.
    pub const APPEND: u16 = 0x800;
}

/// Which part of the kernel a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes.
    Route,
    /// nf_tables and connection tracking.
    Netfilter,
}

/// Requests in the making: one buffer, any number of messages.
#[derive(Debug, Default, Clone)]
pub struct Messages {
    bytes: Vec<u8>,
    start: usize,
}

impl Messages {
    /// No message yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing was begun.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Ends the message before and begins one with its family's fixed `header`.
    pub fn begin(&mut self, kind: u16, flags: u16, header: &[u8]) {
        self.seal();
        self.start = self.bytes.len();
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes
            .extend_from_slice(&(flags | flag::REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(header);
        self.pad();
    }

    /// Appends one attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("callers keep attributes below 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// Appends a number in the host's order, as rtnetlink wants it.
    pub fn native(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// Appends a number in network order, as netfilter wants it.
    pub fn big(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Appends a string with its terminating zero.
    pub fn string(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    /// Appends an attribute that holds the attributes `fill` appends.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&0_u16.to_ne_bytes());
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let length =
            u16::try_from(self.bytes.len() - at).expect("callers keep attributes below 64 KiB");
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Appends raw bytes, for a nested fixed header (`VETH_INFO_PEER`).
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// All that was written.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn message_bytes(&self) -> usize {
        self.bytes.len() - self.start
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn seal(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        let length = u32::try_from(self.message_bytes()).expect("a message is below 4 GiB");
        self.bytes[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// One message of an answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Message type.
    pub kind: u16,
    /// What follows the netlink header.
    pub payload: Vec<u8>,
}

/// A netlink socket of the network namespace its maker was in.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// The errno of socket or bind.
    pub fn open(family: Family) -> io::Result<Self> {
        Self::subscribed(family, 0)
    }

    /// As [`Socket::open`], with the multicast groups of `groups` (a mask) joined. Non-blocking reads
    /// by [`Socket::events`].
    ///
    /// # Errors
    /// The errno of socket or bind.
    pub fn subscribed(family: Family, groups: u32) -> io::Result<Self> {
        let protocol = match family {
            Family::Route => None,
            Family::Netfilter => Some(netlink::NETFILTER),
        };
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self {
            fd,
            sequence: 0,
            buffer: Vec::new(),
        })
    }

    /// Sends all messages at once and reads the answers. The kernel tries every message of rtnetlink and
    /// either all or none of an nf_tables batch.
    ///
    /// # Errors
    /// The errno of the first message that failed.
    pub fn execute(&mut self, messages: &mut Messages) -> io::Result<()> {
        let sent = self.send(messages)?;
        let mut failed: Option<(u32, io::Error)> = None;
        while let Some(bytes) = self.receive(RecvFlags::DONTWAIT)? {
            for message in Frames(&self.buffer[..bytes]) {
                let Some(code) = message.error() else {
                    continue;
                };
                let earlier = failed
                    .as_ref()
                    .is_some_and(|(at, _)| *at <= message.sequence);
                if code != 0 && message.sequence >= sent && !earlier {
                    failed = Some((message.sequence, io::Error::from_raw_os_error(-code)));
                }
            }
        }
        failed.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Sends one request and collects its answers: a dump, or a single object. A dump that a change interrupted
    /// begins anew.
    ///
    /// # Errors
    /// The errno of the request; `EINTR` when every dump was interrupted.
    pub fn query(&mut self, messages: &mut Messages) -> io::Result<Vec<Reply>> {
        whole_dump(|| self.query_once(messages))
    }

    fn query_once(&mut self, messages: &mut Messages) -> io::Result<Vec<Reply>> {
        let sent = self.send(messages)?;
        let mut answer = Answer::default();
        loop {
            let Some(bytes) = self.receive(RecvFlags::empty())? else {
                continue;
            };
            if answer.take(&self.buffer[..bytes], sent) {
                return answer.end();
            }
        }
    }

    /// Messages of the joined groups that are there already. Never waits. `None` says that some were
    /// lost because nobody read them in time.
    ///
    /// # Errors
    /// The errno of recv.
    pub fn events(&mut self) -> io::Result<Option<Vec<Reply>>> {
        let mut replies = Vec::new();
        loop {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(Some(bytes)) => {
                    replies.extend(Frames(&self.buffer[..bytes]).map(|m| m.owned()));
                }
                Ok(None) => return Ok(Some(replies)),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the sequence number of the first message.
    fn send(&mut self, messages: &mut Messages) -> io::Result<u32> {
        messages.seal();
        let first = self.sequence.wrapping_add(1);
        let mut at = 0;
        while at < messages.bytes.len() {
            self.sequence = self.sequence.wrapping_add(1);
            let length = read_u32(&messages.bytes[at..]) as usize;
            messages.bytes[at + 8..at + 12].copy_from_slice(&self.sequence.to_ne_bytes());
            at += length;
        }
        if self.buffer.is_empty() {
            self.buffer.resize(RECEIVE_BYTES, 0);
        }
        if messages.bytes.len() > RECEIVE_BYTES {
            rustix::net::sockopt::set_socket_send_buffer_size_force(&self.fd, SEND_BUFFER_BYTES)?;
        }
        rustix::net::send(&self.fd, &messages.bytes, SendFlags::empty())?;
        Ok(first)
    }

    /// `None` when nothing is queued.
    fn receive(&mut self, flags: RecvFlags) -> io::Result<Option<usize>> {
        if self.buffer.is_empty() {
            self.buffer.resize(RECEIVE_BYTES, 0);
        }
        let received =
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.fd, &mut self.buffer[..], flags));
        match received {
            Ok((_, bytes)) => Ok(Some(bytes.min(RECEIVE_BYTES))),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Asks until a dump is whole.
fn whole_dump<T>(mut ask: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..DUMPS_MAX {
        match ask() {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            answer => return answer,
        }
    }
    ask()
}

/// What was answered to a request so far.
#[derive(Debug, Default)]
struct Answer {
    replies: Vec<Reply>,
    interrupted: bool,
    failed: Option<i32>,
}

impl Answer {
    /// Takes one datagram of answers to the request `sent`; whether it was the last.
    fn take(&mut self, datagram: &[u8], sent: u32) -> bool {
        for message in Frames(datagram).filter(|message| message.sequence >= sent) {
            self.interrupted |= message.flags & INTERRUPTED != 0;
            match message.error() {
                Some(code) => {
                    self.failed = Some(code).filter(|code| *code != 0);
                    return true;
                }
                None if message.kind == DONE => return true,
                None => self.replies.push(message.owned()),
            }
        }
        false
    }

    fn end(self) -> io::Result<Vec<Reply>> {
        match self.failed {
            Some(code) => Err(io::Error::from_raw_os_error(-code)),
            None if self.interrupted => Err(io::Error::from_raw_os_error(libc::EINTR)),
            None => Ok(self.replies),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

struct Frame<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl Frame<'_> {
    /// The (negative or zero) code of an error message.
    fn error(&self) -> Option<i32> {
        if self.kind != ERROR {
            return None;
        }
        let code = self.payload.first_chunk::<4>()?;
        Some(i32::from_ne_bytes(*code))
    }

    fn owned(&self) -> Reply {
        Reply {
            kind: self.kind,
            payload: self.payload.to_vec(),
        }
    }
}

struct Frames<'a>(&'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        if self.0.len() < HEADER_BYTES {
            return None;
        }
        // An error message repeats the request and may be cut off by the buffer; its code is not.
        let length = (read_u32(self.0) as usize).clamp(HEADER_BYTES, self.0.len());
        let (message, rest) = self.0.split_at(length);
        self.0 = rest
            .get(length.next_multiple_of(4) - length..)
            .unwrap_or_default();
        Some(Frame {
            kind: read_u16(&message[4..]),
            flags: read_u16(&message[6..]),
            sequence: read_u32(&message[8..]),
            payload: &message[HEADER_BYTES..],
        })
    }
}

/// The attributes in `bytes`: kind and value of each.
#[derive(Debug, Clone)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute of `kind`.
    #[must_use]
    pub fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone()
            .find(|(k, _)| *k == kind)
            .map(|(_, value)| value)
    }

    /// The attributes inside the first attribute of `kind`; none if it is not there.
    #[must_use]
    pub fn nested(&self, kind: u16) -> Attributes<'a> {
        Attributes(self.get(kind).unwrap_or_default())
    }

    /// A string attribute without its terminating zero.
    #[must_use]
    pub fn string(&self, kind: u16) -> Option<String> {
        let value = self.get(kind)?;
        let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
        Some(String::from_utf8_lossy(&value[..end]).into_owned())
    }

    /// A 32-bit attribute in the host's order.
    #[must_use]
    pub fn native(&self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.get(kind)?.first_chunk()?))
    }

    /// A 32-bit attribute in network order.
    #[must_use]
    pub fn big(&self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(*self.get(kind)?.first_chunk()?))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.len() < 4 {
            return None;
        }
        let length = usize::from(read_u16(self.0));
        if length < 4 || length > self.0.len() {
            self.0 = &[];
            return None;
        }
        let kind = read_u16(&self.0[2..]) & KIND_MASK;
        let value = &self.0[4..length];
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

fn read_u16(bytes: &[u8]) -> u16 {
    u16::from_ne_bytes([bytes[0], bytes[1]])
}

fn read_u32(bytes: &[u8]) -> u32 {
    u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_written_are_read_back() {
        let mut messages = Messages::new();
        messages.begin(7, flag::ACK, &[1, 2, 3, 4]);
        messages.string(1, "eth0");
        messages.nest(2, |m| m.native(3, 99));
        messages.seal();
        let frame = Frames(&messages.bytes).next().unwrap();
        assert_eq!(frame.kind, 7);
        let attributes = Attributes(&frame.payload[4..]);
        assert_eq!(attributes.string(1).as_deref(), Some("eth0"));
        assert_eq!(attributes.nested(2).native(3), Some(99));
        assert_eq!(attributes.get(9), None);
    }

    #[test]
    fn cut_off_or_lying_answers_end_the_iteration() {
        for bytes in [&[9, 0][..], &[200, 0, 1, 0, 5], &[2, 0, 1, 0], &[0; 7]] {
            assert_eq!(Attributes(bytes).count(), 0, "{bytes:?}");
        }
        assert_eq!(Frames(&[255; 15]).count(), 0);
        assert_eq!(
            Frames(&[255; 20]).count(),
            1,
            "a frame never exceeds its buffer"
        );
    }

    #[test]
    fn an_interrupted_dump_is_no_answer_and_begins_anew() {
        // Two routes (RTM_NEWROUTE, 24), the second after a change, and the end of the dump: netlink(7).
        let mut datagram = Messages::new();
        for (kind, flags) in [(24, 2), (24, 2 | INTERRUPTED), (DONE, 2)] {
            datagram.begin(kind, flags, &[0; 12]);
        }
        datagram.seal();
        let asked = std::cell::Cell::new(0);
        let whole = |interrupted_dumps: u32| {
            whole_dump(|| {
                asked.set(asked.get() + 1);
                let mut answer = Answer::default();
                let mut bytes = datagram.bytes.clone();
                if asked.get() > interrupted_dumps {
                    bytes[28 + 6] &= !0x10;
                }
                assert!(answer.take(&bytes, 0));
                answer.end()
            })
        };
        assert_eq!(whole(2).unwrap().len(), 2);
        assert_eq!(asked.replace(0), 3);
        let error = whole(u32::MAX).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINTR));
        assert_eq!(asked.get(), DUMPS_MAX);
    }

    #[test]
    fn the_first_failing_message_names_the_error() {
        let mut socket = Socket::open(Family::Route).unwrap();
        let mut messages = Messages::new();
        // RTM_GETLINK of an index that cannot exist, twice.
        for index in [i32::MAX, i32::MAX - 1] {
            let mut header = [0_u8; 16];
            header[4..8].copy_from_slice(&index.to_ne_bytes());
            messages.begin(18, flag::ACK, &header);
        }
        let error = socket.execute(&mut messages).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        let error = socket.query(&mut messages).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
