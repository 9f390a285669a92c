//! Forwards what the kernel's NAT does not: IPv6 clients of a container that has only IPv4, and
//! whatever reaches a reserved socket while the firewall's table is away.
//!
//! One [`Relay`] per shim, without threads or async: it owns an epoll instance whose descriptor the
//! shim puts into its own loop; whenever it is readable, and when [`Relay::timeout`] is over, the shim
//! calls [`Relay::turn`]. The container sees the bridge's address as the client.

mod tcp;
mod udp;

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use sys::epoll::{Epoll, Event, Interest};

use crate::attachment::{Forward, Protocol};

/// Connections of one relay: two descriptors each, and shims live with a limit of 1,024.
const CONNECTIONS_MAX: usize = 384;
/// UDP clients of one relay, one descriptor each; the longest silent one gives way.
const SESSIONS_MAX: usize = 256;
/// A UDP client that is silent for so long is forgotten (docker-proxy's figure).
const SESSION_IDLE: Duration = Duration::from_secs(90);
/// How long nothing is accepted when a descriptor or memory was missing: no event tells when there is one again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections accepted, or datagrams moved, in one go before others have their turn.
const BURST: usize = 16;

/// All relayed ports of one container.
#[derive(Debug)]
pub struct Relay {
    epoll: Epoll,
    listeners: Vec<Listener>,
    /// Listeners are out of the epoll set because there is no room for more connections.
    full: bool,
    /// Until then, since an accept failed.
    paused_until: Option<Instant>,
    connections: tcp::Connections,
    sockets: Vec<udp::Port>,
    sessions: udp::Sessions,
    events: Vec<Event>,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    target: std::net::SocketAddrV4,
}

/// What an epoll key stands for; the low bits are an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Listener(usize),
    Client(usize),
    Server(usize),
    Port(usize),
    Session(usize),
}

impl Source {
    const KIND_SHIFT: u32 = 48;

    fn key(self) -> u64 {
        let (kind, index) = match self {
            Self::Listener(index) => (0, index),
            Self::Client(index) => (1, index),
            Self::Server(index) => (2, index),
            Self::Port(index) => (3, index),
            Self::Session(index) => (4, index),
        };
        kind << Self::KIND_SHIFT | u64::try_from(index).expect("a usize has 64 bits at most")
    }

    fn from_key(key: u64) -> Self {
        let index = usize::try_from(key & ((1 << Self::KIND_SHIFT) - 1)).expect("an index of ours");
        match key >> Self::KIND_SHIFT {
            0 => Self::Listener(index),
            1 => Self::Client(index),
            2 => Self::Server(index),
            3 => Self::Port(index),
            _ => Self::Session(index),
        }
    }
}

impl Relay {
    /// Takes over the reserved sockets.
    ///
    /// # Errors
    /// The errno of epoll.
    pub fn new(forwards: Vec<Forward>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let (mut listeners, mut sockets) = (Vec::new(), Vec::new());
        for forward in forwards {
            let fd = forward.socket.as_fd();
            match forward.protocol {
                Protocol::Tcp => {
                    epoll.add(fd, Source::Listener(listeners.len()).key(), Interest::READ)?;
                    listeners.push(Listener {
                        socket: TcpListener::from(forward.socket),
                        target: forward.target,
                    });
                }
                // A port of one IPv4 address on a kernel without IPv6: nobody comes here.
                Protocol::Udp if !udp::tells_destination(fd) => {}
                Protocol::Udp => {
                    epoll.add(fd, Source::Port(sockets.len()).key(), Interest::READ)?;
                    sockets.push(udp::Port::new(forward.socket, forward.target));
                }
            }
        }
        Ok(Self {
            epoll,
            listeners,
            full: false,
            paused_until: None,
            connections: tcp::Connections::default(),
            sockets,
            sessions: udp::Sessions::default(),
            events: Vec::new(),
        })
    }

    /// When [`Relay::turn`] wants to be called even though nothing is readable.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let pause = self
            .paused_until
            .map(|at| at.saturating_duration_since(now));
        self.sessions
            .next_expiry(now)
            .into_iter()
            .chain(pause)
            .min()
    }

    /// Does what can be done without waiting, a bounded amount at a time. Never blocks, and never
    /// fails: what is wrong with one client ends that client.
    pub fn turn(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        if self.epoll.wait(&mut events, Some(Duration::ZERO)).is_ok() {
            for event in &events {
                self.handle(*event);
            }
        }
        self.connections.handled();
        self.events = events;
        self.sessions.expire(&self.epoll, Instant::now());
        self.make_room();
    }

    /// Connections and UDP clients at this moment.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.connections.len() + self.sessions.len()
    }

    fn handle(&mut self, event: Event) {
        match Source::from_key(event.key) {
            Source::Listener(index) => self.accept(index),
            source @ (Source::Client(_) | Source::Server(_)) => {
                self.connections.pump(&self.epoll, source, event.hung_up);
            }
            Source::Port(index) => self.sessions.receive(&self.epoll, &self.sockets, index),
            Source::Session(slot) => self.sessions.answer(&self.sockets, slot),
        }
    }

    fn accept(&mut self, index: usize) {
        let listener = &self.listeners[index];
        for _ in 0..BURST {
            if self.connections.len() >= CONNECTIONS_MAX {
                return self.listen(false);
            }
            match listener.socket.accept() {
                Ok((client, _)) => {
                    // A target that cannot be reached ends the client, as the target itself would.
                    let begun = self.connections.begin(&self.epoll, client, listener.target);
                    drop(begun);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The client left again.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // Out of descriptors or memory, and epoll would say so without end.
                Err(_) => {
                    self.paused_until = Some(Instant::now() + ACCEPT_PAUSE);
                    return self.listen(false);
                }
            }
        }
    }

    fn make_room(&mut self) {
        let paused = self.paused_until.is_some_and(|at| Instant::now() < at);
        if self.full && !paused && self.connections.len() < CONNECTIONS_MAX - BURST {
            self.paused_until = None;
            self.listen(true);
        }
    }

    fn listen(&mut self, on: bool) {
        let interest = if on { Interest::READ } else { Interest::NONE };
        for (index, listener) in self.listeners.iter().enumerate() {
            let key = Source::Listener(index).key();
            let changed = self.epoll.modify(listener.socket.as_fd(), key, interest);
            changed.expect("the listener is in the set");
        }
        self.full = !on;
    }
}

impl AsFd for Relay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

#[cfg(test)]
mod tests;
