//! TCP connections of a relay: two sockets, and a pipe for each direction while bytes are in it.
//!
//! ```text
//! client ──splice──▶ pipe ──splice──▶ server        up
//! client ◀──splice── pipe ◀──splice── server        down
//! ```
//!
//! An end of input is passed on as a shutdown of the other side's output once the pipe is empty; the
//! connection ends when both directions have ended, or at the first error.

use std::io;
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use sys::epoll::{Epoll, Interest};
use sys::port;

use super::Source;

/// Bytes moved into a pipe at once: a pipe's default capacity.
const PIPE_BYTES: usize = 64 * 1024;
/// Times a pipe is filled and emptied before others have their turn.
const ROUNDS_MAX: usize = 16;
/// Empty pipes kept for the next use.
const SPARE_PIPES_MAX: usize = 4;

/// Reading and writing end.
type Pipe = (OwnedFd, OwnedFd);

#[derive(Debug, Default)]
struct Direction {
    /// Holds the bytes that the output did not take yet.
    pipe: Option<Pipe>,
    bytes: usize,
    /// The input has ended.
    ended: bool,
    /// The output was told so.
    shut: bool,
}

#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: TcpStream,
    connecting: bool,
    /// Ends that hung up are reported by every wait and so were taken out of the set; what they still
    /// hold is moved whenever the other end has room.
    hung_up: HungUp,
    up: Direction,
    down: Direction,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct HungUp {
    client: bool,
    server: bool,
}

/// The connections by slot.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Free as well, but events that were taken together may still name the connection that was there.
    freed: Vec<usize>,
    spare: Vec<Pipe>,
}

impl Connections {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len() - self.freed.len()
    }

    /// Begins to connect to `target` on behalf of `client`.
    pub(super) fn begin(
        &mut self,
        epoll: &Epoll,
        client: TcpStream,
        target: SocketAddrV4,
    ) -> io::Result<()> {
        client.set_nonblocking(true)?;
        let server = TcpStream::from(port::connect(SocketAddr::V4(target))?);
        // Small messages are the client's choice, not ours to gather.
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let added = epoll
            .add(client.as_fd(), Source::Client(slot).key(), Interest::NONE)
            .and_then(|()| epoll.add(server.as_fd(), Source::Server(slot).key(), Interest::WRITE));
        if added.is_err() {
            self.free.push(slot);
            return added;
        }
        self.slots[slot] = Some(Connection {
            client,
            server,
            connecting: true,
            hung_up: HungUp::default(),
            up: Direction::default(),
            down: Direction::default(),
        });
        Ok(())
    }

    /// Moves what can be moved; ends the connection when it is over.
    pub(super) fn pump(&mut self, epoll: &Epoll, source: Source, hung_up: bool) {
        let (Source::Client(slot) | Source::Server(slot)) = source else {
            return;
        };
        let Some(connection) = self.slots.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        let alive = connection.pump(&mut self.spare).and_then(|moved| {
            if hung_up && !moved {
                connection.forsake(epoll, source)?;
            }
            connection.watch(epoll, slot)
        });
        if alive.is_err() || connection.over() {
            // Closing a descriptor takes it out of the epoll set.
            self.slots[slot] = None;
            self.freed.push(slot);
        }
    }

    /// All events that were taken together have been handled.
    pub(super) fn handled(&mut self) {
        self.free.append(&mut self.freed);
    }
}

impl Connection {
    /// True if something happened.
    fn pump(&mut self, spare: &mut Vec<Pipe>) -> io::Result<bool> {
        if self.connecting {
            if let Some(error) = self.server.take_error()? {
                return Err(error);
            }
            if self.server.peer_addr().is_err() {
                return Ok(false);
            }
            self.connecting = false;
        }
        let up = self.up.pump(&self.client, &self.server, spare)?;
        let down = self.down.pump(&self.server, &self.client, spare)?;
        Ok(up || down)
    }

    fn over(&self) -> bool {
        (self.up.shut && self.down.shut) || (self.hung_up.client && self.hung_up.server)
    }

    fn forsake(&mut self, epoll: &Epoll, source: Source) -> io::Result<()> {
        let (end, hung_up) = match source {
            Source::Client(_) => (&self.client, &mut self.hung_up.client),
            _ => (&self.server, &mut self.hung_up.server),
        };
        *hung_up = true;
        epoll.delete(end.as_fd())
    }

    fn watch(&self, epoll: &Epoll, slot: usize) -> io::Result<()> {
        let client = Interest {
            read: !self.connecting && self.up.wants_input(),
            write: self.down.bytes > 0 || (self.hung_up.server && !self.down.shut),
        };
        let server = Interest {
            read: !self.connecting && self.down.wants_input(),
            write: self.connecting || self.up.bytes > 0 || (self.hung_up.client && !self.up.shut),
        };
        if !self.hung_up.client {
            epoll.modify(self.client.as_fd(), Source::Client(slot).key(), client)?;
        }
        if !self.hung_up.server {
            epoll.modify(self.server.as_fd(), Source::Server(slot).key(), server)?;
        }
        Ok(())
    }
}

impl Direction {
    fn wants_input(&self) -> bool {
        !self.ended && self.bytes == 0
    }

    /// True if bytes moved or an end was passed on.
    fn pump(
        &mut self,
        from: &TcpStream,
        to: &TcpStream,
        spare: &mut Vec<Pipe>,
    ) -> io::Result<bool> {
        let mut moved = false;
        for _ in 0..ROUNDS_MAX {
            if self.wants_input() {
                moved |= self.fill(from, spare)?;
            }
            if self.bytes == 0 {
                break;
            }
            moved |= self.empty(to)?;
            if self.bytes > 0 {
                return Ok(moved);
            }
        }
        if self.bytes == 0
            && let Some(pipe) = self.pipe.take()
            && spare.len() < SPARE_PIPES_MAX
        {
            spare.push(pipe);
        }
        if self.ended && self.bytes == 0 && !self.shut {
            to.shutdown(Shutdown::Write)?;
            self.shut = true;
            moved = true;
        }
        Ok(moved)
    }

    fn fill(&mut self, from: &TcpStream, spare: &mut Vec<Pipe>) -> io::Result<bool> {
        let pipe = match self.pipe.take().or_else(|| spare.pop()) {
            Some(pipe) => pipe,
            None => port::pipe()?,
        };
        let (_, into) = self.pipe.insert(pipe);
        match blocked(port::splice(from.as_fd(), into.as_fd(), PIPE_BYTES))? {
            Some(0) => self.ended = true,
            Some(bytes) => self.bytes = bytes,
            None => return Ok(false),
        }
        Ok(true)
    }

    fn empty(&mut self, to: &TcpStream) -> io::Result<bool> {
        let Some((out_of, _)) = &self.pipe else {
            return Ok(false);
        };
        match blocked(port::splice(out_of.as_fd(), to.as_fd(), self.bytes))? {
            Some(bytes) => self.bytes -= bytes,
            None => return Ok(false),
        }
        Ok(true)
    }
}

fn blocked(answer: io::Result<usize>) -> io::Result<Option<usize>> {
    match answer {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::time::Duration;

    use super::*;

    fn begin(connections: &mut Connections, epoll: &Epoll) -> [TcpStream; 2] {
        let listener = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (front, target) = (listener(), listener());
        let address = |listener: &TcpListener| match listener.local_addr().unwrap() {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(_) => unreachable!("it is bound to an address of IPv4"),
        };
        let outside = TcpStream::connect(address(&front)).unwrap();
        let (client, _) = front.accept().unwrap();
        connections.begin(epoll, client, address(&target)).unwrap();
        [outside, target.accept().unwrap().0]
    }

    #[test]
    fn a_slot_is_used_again_once_no_event_of_the_last_connection_is_left() {
        let (epoll, mut connections) = (Epoll::new().unwrap(), Connections::default());
        let ends = begin(&mut connections, &epoll);
        drop(ends);
        let mut events = Vec::new();
        while connections.len() > 0 {
            epoll
                .wait(&mut events, Some(Duration::from_secs(10)))
                .unwrap();
            assert!(!events.is_empty(), "a closed connection stays");
            for event in &events {
                connections.pump(&epoll, Source::from_key(event.key), event.hung_up);
            }
        }
        let second = begin(&mut connections, &epoll);
        assert!(connections.slots[0].is_none() && connections.slots[1].is_some());
        connections.handled();
        let third = begin(&mut connections, &epoll);
        assert!(connections.slots[0].is_some() && connections.slots.len() == 2);
        drop((second, third));
    }
}
