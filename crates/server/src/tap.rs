//! The connection as both hyper and a handler hold it, so that a handler can take it over.
//!
//! hyper can upgrade a connection only when the client asked for that, and attach and exec must give the raw
//! connection to clients that did not. So hyper reads and writes through [`TapIo`], which keeps what the client sends
//! beyond the request under way. When a handler takes over, hyper sees a connection that has nothing more to read and
//! swallows what is written; the handler gets the socket, and the bytes behind the request: they are the client's
//! first input. Where a request ends, and what hyper is given of its head, is [`crate::framing`]'s.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpStream, UnixStream};

use crate::framing::{BodyLength, Framing, Refusal};

/// A client's socket.
pub(crate) enum Socket {
    /// Local.
    Unix(UnixStream),
    /// Plain TCP.
    Tcp(TcpStream),
}

impl Socket {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Unix(socket) => socket.poll_read_ready(context),
            Self::Tcp(socket) => socket.poll_read_ready(context),
        }
    }

    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Unix(socket) => socket.poll_write_ready(context),
            Self::Tcp(socket) => socket.poll_write_ready(context),
        }
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.try_read(buffer),
            Self::Tcp(socket) => socket.try_read(buffer),
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.try_write(bytes),
            Self::Tcp(socket) => socket.try_write(bytes),
        }
    }

    fn try_write_vectored(&self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.try_write_vectored(parts),
            Self::Tcp(socket) => socket.try_write_vectored(parts),
        }
    }

    /// Reads what is there; 0 is the end. Cancelling loses nothing.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self {
                Self::Unix(socket) => socket.readable().await?,
                Self::Tcp(socket) => socket.readable().await?,
            }
            match self.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    /// Writes all of it.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self {
                Self::Unix(socket) => socket.writable().await?,
                Self::Tcp(socket) => socket.writable().await?,
            }
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
                Ok(written) => bytes = &bytes[written..],
            }
        }
        Ok(())
    }

    /// Returns when the peer is gone: it has closed both directions, or the connection broke. A half-close is no such
    /// thing. Over TCP a close looks like a half-close until the kernel has asked (see [`sys::socket::keep_alive`]).
    pub(crate) async fn hung_up(&self) {
        let socket = match self {
            Self::Unix(socket) => socket.as_fd(),
            Self::Tcp(socket) => socket.as_fd(),
        };
        // Of its own registration: hang-ups are reported whatever one asks for, and this asks for nothing else that
        // a stream socket of ours ever has.
        let watched = socket.try_clone_to_owned().and_then(hang_ups);
        match watched {
            // An error of the watch means as much as what it waits for: the client is gone.
            Ok(watched) => drop(watched.ready(Interest::PRIORITY).await),
            Err(error) => {
                tracing::debug!(%error, "a client that leaves is seen at the next byte for it");
                std::future::pending().await
            }
        }
    }

    /// Tells the peer that no more comes; reading goes on.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Unix(socket) => {
                std::os::unix::net::UnixStream::from(socket.as_fd().try_clone_to_owned()?)
                    .shutdown(Shutdown::Write)
            }
            Self::Tcp(socket) => std::net::TcpStream::from(socket.as_fd().try_clone_to_owned()?)
                .shutdown(Shutdown::Write),
        }
    }
}

#[expect(
    deprecated,
    reason = "the other way is unsafe because of types that lie about their descriptor, and an OwnedFd does not"
)]
fn hang_ups(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(socket, Interest::PRIORITY)
}

#[derive(Default)]
struct State {
    taken: bool,
    framing: Framing,
    /// Read and not framed yet: it follows a head that hyper has not begun.
    held: Vec<u8>,
    /// For hyper, as soon as it asks.
    ready: VecDeque<u8>,
}

struct Shared {
    socket: Arc<Socket>,
    state: Mutex<State>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handler's end.
#[derive(Clone)]
pub(crate) struct Tap(Arc<Shared>);

/// hyper's end.
pub(crate) struct TapIo(Arc<Shared>);

/// Makes both ends of a connection.
pub(crate) fn tap(socket: Socket) -> (Tap, TapIo) {
    let shared = Arc::new(Shared {
        socket: Arc::new(socket),
        state: Mutex::default(),
    });
    (Tap(Arc::clone(&shared)), TapIo(shared))
}

impl Tap {
    /// A request of HTTP/1 has begun, the one before it is over. `Some` when the client's own head could not be read,
    /// and this is to be the answer.
    pub(crate) fn begin(&self, body: BodyLength) -> Option<Refusal> {
        self.0.state().framing.begin(body)
    }

    /// Takes the connection from hyper; the body of the request must have been read to its end. Gives the socket and
    /// the bytes that came after the request.
    pub(crate) fn take_over(&self) -> (Arc<Socket>, Vec<u8>) {
        let mut state = self.0.state();
        state.taken = true;
        let mut early = state.framing.early();
        early.append(&mut state.held);
        (Arc::clone(&self.0.socket), early)
    }
}

impl Read for TapIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // One stack buffer between the socket and hyper's uninitialised one: hyper's cursor gives no safe slice.
        let mut buffer = [0; READ_BYTES];
        let want = into.remaining().min(READ_BYTES);
        loop {
            let mut state = self.0.state();
            if state.taken {
                return Poll::Pending;
            }
            if state.deliver(&mut into) {
                return Poll::Ready(Ok(()));
            }
            if state.framing.is_refused() {
                // hyper ends once its answer is written, and needs no reader to wake it for that.
                return Poll::Pending;
            }
            drop(state);
            ready!(self.0.socket.poll_readable(context))?;
            state = self.0.state();
            // A handler may have taken over meanwhile: what is there now is its.
            if state.taken {
                return Poll::Pending;
            }
            match self.0.socket.try_read(&mut buffer[..want]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(0) => {
                    let half = state.framing.end().unwrap_or_default();
                    state.ready.extend(half);
                    state.deliver(&mut into);
                    return Poll::Ready(Ok(()));
                }
                Ok(read) => {
                    let passed = state.framing.pass(&buffer[..read]);
                    into.put_slice(&buffer[..passed]);
                    state.held.extend_from_slice(&buffer[passed..read]);
                    if passed > 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

/// Bytes of one read for hyper: its own first buffer has this size.
const READ_BYTES: usize = 8 << 10;

impl State {
    /// Gives hyper what is there for it without the socket; `false` when that is nothing.
    fn deliver(&mut self, into: &mut ReadBufCursor<'_>) -> bool {
        if self.ready.is_empty() && !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            let passed = self.framing.pass(&held);
            self.ready.extend(&held[..passed]);
            if passed == 0 {
                let (taken, made) = self.framing.take_head(&held);
                self.ready.extend(made.unwrap_or_default());
                self.held = held[taken..].to_vec();
            } else {
                self.held = held[passed..].to_vec();
            }
        }
        let count = self.ready.len().min(into.remaining());
        let (front, back) = self.ready.as_slices();
        let from_front = count.min(front.len());
        into.put_slice(&front[..from_front]);
        into.put_slice(&back[..count - from_front]);
        self.ready.drain(..count);
        if self.ready.is_empty() {
            self.ready = VecDeque::new();
        }
        count > 0
    }
}

impl TapIo {
    /// `None` once the connection was taken over.
    fn poll_write_with(
        &self,
        context: &mut Context<'_>,
        swallowed: usize,
        write: impl Fn(&Socket) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.0.state().taken {
                return Poll::Ready(Ok(swallowed));
            }
            match write(&self.0.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.0.socket.poll_writable(context))?;
                }
                done => return Poll::Ready(done),
            }
        }
    }
}

impl Write for TapIo {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, bytes.len(), |socket| socket.try_write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.state().taken {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(self.0.socket.shutdown_write())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let swallowed = parts.iter().map(|part| part.len()).sum();
        self.poll_write_with(context, swallowed, |socket| {
            socket.try_write_vectored(parts)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between hyper's look at the socket and its read a handler takes over: the bytes are the handler's.
    #[tokio::test]
    async fn hyper_reads_nothing_of_a_connection_that_was_taken_over() {
        use tokio::io::AsyncWriteExt as _;

        let (mut client, ours) = UnixStream::pair().unwrap();
        let (tap, io) = tap(Socket::Unix(ours));
        client.write_all(b"input").await.unwrap();
        let (socket, early) = tap.take_over();
        assert!(early.is_empty());
        let mut io = hyper_util::rt::TokioIo::new(io);
        let mut buffer = [0; 8];
        let reading = tokio::io::AsyncReadExt::read(&mut io, &mut buffer);
        let soon = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, reading).await.is_err());
        assert_eq!(socket.read(&mut buffer).await.unwrap(), 5);
    }
}
