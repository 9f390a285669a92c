//! The connection as both hyper and a handler hold it, so that a handler can take it over.
//!
//! hyper can upgrade a connection only when the client asked for that, and attach and exec must give the raw
//! connection to clients that did not. So hyper reads and writes through [`TapIo`], which remembers the bytes of the
//! request under way. When a handler takes over, hyper sees a connection that has nothing more to read and swallows
//! what is written; the handler gets the socket, and the bytes that hyper has read beyond the request: they are the
//! client's first input.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpStream, UnixStream};

/// Bytes of a request that are remembered. Requests that take a connection over are far smaller; of a longer one
/// nothing is kept.
const MAX_REMEMBERED_BYTES: usize = 64 << 10;

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
        let watched = socket
            .try_clone_to_owned()
            .and_then(|socket| AsyncFd::with_interest(socket, Interest::PRIORITY));
        match watched {
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

#[derive(Default)]
struct State {
    taken: bool,
    remembered: Vec<u8>,
    too_long: bool,
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
    /// Takes the connection from hyper. `body_bytes` is the request's `Content-Length`, `None` when it came in chunks;
    /// the body must have been read to its end. Gives the socket and the bytes that came after the request.
    pub(crate) fn take_over(&self, body_bytes: Option<usize>) -> (Arc<Socket>, Vec<u8>) {
        let mut state = self.0.state();
        state.taken = true;
        let request = std::mem::take(&mut state.remembered);
        let early = if state.too_long {
            Vec::new()
        } else {
            after_request(&request, body_bytes)
        };
        (Arc::clone(&self.0.socket), early)
    }
}

/// What stands after the head and the body. Without a head (it was before a `100 Continue`) only the body is skipped.
fn after_request(request: &[u8], body_bytes: Option<usize>) -> Vec<u8> {
    let body = match find(request, b"\r\n\r\n") {
        Some(end) => &request[end..],
        None => request,
    };
    let end = match body_bytes {
        Some(length) => length,
        None if body.starts_with(b"0\r\n\r\n") => 5,
        None => find(body, b"\r\n0\r\n\r\n").unwrap_or(body.len()),
    };
    body.get(end..).unwrap_or_default().to_vec()
}

/// Where the first `needle` ends.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .map(|at| at + needle.len())
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
            drop(state);
            ready!(self.0.socket.poll_readable(context))?;
            state = self.0.state();
            match self.0.socket.try_read(&mut buffer[..want]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(read) => {
                    state.remember(&buffer[..read]);
                    into.put_slice(&buffer[..read]);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

/// Bytes of one read for hyper: its own first buffer has this size.
const READ_BYTES: usize = 8 << 10;

impl State {
    fn remember(&mut self, bytes: &[u8]) {
        if self.remembered.len() + bytes.len() > MAX_REMEMBERED_BYTES {
            self.too_long = true;
            self.remembered = Vec::new();
        }
        if !self.too_long {
            self.remembered.extend_from_slice(bytes);
        }
    }

    /// An answer begins: what was remembered belongs to a request that is over.
    fn forget(&mut self) {
        self.remembered.clear();
        self.too_long = false;
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
            let mut state = self.0.state();
            if state.taken {
                return Poll::Ready(Ok(swallowed));
            }
            state.forget();
            drop(state);
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

    #[test]
    fn early_bytes_are_what_follows_the_request() {
        let cases: [(&[u8], Option<usize>, &[u8]); 7] = [
            (b"POST /a HTTP/1.1\r\nA: b\r\n\r\nhello", Some(0), b"hello"),
            (b"POST /a HTTP/1.1\r\n\r\n{}hello", Some(2), b"hello"),
            (b"POST /a HTTP/1.1\r\n\r\n{}", Some(2), b""),
            (b"{}hello", Some(2), b"hello"),
            (
                b"POST /a HTTP/1.1\r\n\r\n2\r\n{}\r\n0\r\n\r\nhello",
                None,
                b"hello",
            ),
            (b"POST /a HTTP/1.1\r\n\r\n0\r\n\r\nhello", None, b"hello"),
            (b"POST /a HTTP/1.1\r\n\r\n", Some(9), b""),
        ];
        for (request, body, wanted) in cases {
            assert_eq!(
                after_request(request, body),
                wanted,
                "{}",
                String::from_utf8_lossy(request)
            );
        }
    }
}
