//! UDP clients of a relay: one connected socket towards the container for each, and answers from the
//! very address the client asked.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use sys::epoll::{Epoll, Interest};
use sys::port::{self, Destination};

use super::{BURST, SESSION_IDLE, SESSIONS_MAX, Source};

/// The largest UDP datagram.
const DATAGRAM_BYTES: usize = 65_535;

/// A reserved UDP port.
#[derive(Debug)]
pub(super) struct Port {
    socket: OwnedFd,
    target: SocketAddrV4,
}

impl Port {
    pub(super) fn new(socket: OwnedFd, target: SocketAddrV4) -> Self {
        Self { socket, target }
    }
}

/// Only IPv6 sockets, which take IPv4 as well, tell where a datagram was sent to.
pub(super) fn tells_destination(socket: BorrowedFd<'_>) -> bool {
    let clone = socket.try_clone_to_owned().map(UdpSocket::from);
    clone
        .and_then(|socket| socket.local_addr())
        .is_ok_and(|address| address.is_ipv6())
}

/// Who asked, and which address of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Client {
    port: usize,
    from: SocketAddrV6,
    to: Destination,
}

#[derive(Debug)]
struct Session {
    client: Client,
    socket: UdpSocket,
    last_used: Instant,
}

/// The clients by slot.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slots: Vec<Option<Session>>,
    by_client: HashMap<Client, usize>,
    /// Of the largest datagram's size once a datagram came.
    buffer: Vec<u8>,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.by_client.len()
    }

    /// How long until the first client is forgotten.
    pub(super) fn next_expiry(&self, now: Instant) -> Option<Duration> {
        let sessions = self.slots.iter().flatten();
        let oldest = sessions.map(|session| session.last_used).min()?;
        Some((oldest + SESSION_IDLE).saturating_duration_since(now))
    }

    /// Forgets clients that were silent too long.
    pub(super) fn expire(&mut self, epoll: &Epoll, now: Instant) {
        if self
            .next_expiry(now)
            .is_none_or(|left| left > Duration::ZERO)
        {
            return;
        }
        for slot in 0..self.slots.len() {
            let session = self.slots[slot].as_ref();
            if session.is_some_and(|session| now >= session.last_used + SESSION_IDLE) {
                self.forget(epoll, slot);
            }
        }
    }

    /// Passes datagrams of clients on.
    pub(super) fn receive(&mut self, epoll: &Epoll, ports: &[Port], index: usize) {
        self.buffer.resize(DATAGRAM_BYTES, 0);
        for _ in 0..BURST {
            let Ok(received) = port::receive(ports[index].socket.as_fd(), &mut self.buffer) else {
                return;
            };
            let client = Client {
                port: index,
                from: received.from,
                to: received.to,
            };
            let Ok(slot) = self.session(epoll, client, ports[index].target) else {
                continue;
            };
            let Some(session) = &mut self.slots[slot] else {
                continue;
            };
            session.last_used = Instant::now();
            // A datagram may be lost, and a refusal of an earlier one is told here.
            lossy(session.socket.send(&self.buffer[..received.bytes]));
        }
    }

    /// Passes datagrams of the container back.
    pub(super) fn answer(&mut self, ports: &[Port], slot: usize) {
        self.buffer.resize(DATAGRAM_BYTES, 0);
        let Some(session) = self.slots.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        let Client { port, from, to } = session.client;
        for _ in 0..BURST {
            match session.socket.recv(&mut self.buffer) {
                Ok(bytes) => {
                    session.last_used = Instant::now();
                    let socket = ports[port].socket.as_fd();
                    lossy(port::send_from(socket, &self.buffer[..bytes], to, from));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Nobody listens in the container; it may begin to.
                Err(_) => {}
            }
        }
    }

    fn session(
        &mut self,
        epoll: &Epoll,
        client: Client,
        target: SocketAddrV4,
    ) -> io::Result<usize> {
        if let Some(slot) = self.by_client.get(&client) {
            return Ok(*slot);
        }
        if self.len() >= SESSIONS_MAX {
            self.forget_oldest(epoll);
        }
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(target)?;
        let slot = match self.slots.iter().position(Option::is_none) {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        epoll.add(socket.as_fd(), Source::Session(slot).key(), Interest::READ)?;
        self.slots[slot] = Some(Session {
            client,
            socket,
            last_used: Instant::now(),
        });
        self.by_client.insert(client, slot);
        Ok(slot)
    }

    fn forget_oldest(&mut self, epoll: &Epoll) {
        let taken = self.slots.iter().enumerate();
        let oldest = taken
            .filter_map(|(slot, session)| Some((session.as_ref()?.last_used, slot)))
            .min();
        if let Some((_, slot)) = oldest {
            self.forget(epoll, slot);
        }
    }

    fn forget(&mut self, epoll: &Epoll, slot: usize) {
        if let Some(session) = self.slots[slot].take() {
            let removed = epoll.delete(session.socket.as_fd());
            removed.expect("the session's socket is in the set");
            self.by_client.remove(&session.client);
        }
    }
}

/// UDP promises nothing, so neither does this.
fn lossy<T>(sent: io::Result<T>) {
    drop(sent);
}
