//! The connection as both hyper and a handler hold it, so that a handler can take it over.
//!
//! hyper can upgrade a connection only when the client asked for that, and attach and exec must give the raw
//! connection to clients that did not. So hyper reads and writes through [`TapIo`], which remembers the bytes of the
//! request under way. When a handler takes over, hyper sees a connection that has nothing more to read and swallows
//! what is written; the handler gets the socket, and the bytes that hyper has read beyond the request: they are the
//! client's first input.

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
        let watched = socket.try_clone_to_owned().and_then(hang_ups);
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
    /// What was read since the request under way began, and the end of its head at least.
    remembered: Vec<u8>,
    too_long: bool,
    /// How long the body of the request under way is, once one has begun.
    body: Option<BodyLength>,
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// By its `Content-Length`, in bytes.
    Known(usize),
    /// By its last chunk.
    Chunked,
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
    /// A request of HTTP/1 has begun, the one before it is over.
    pub(crate) fn begin(&self, body: BodyLength) {
        let mut state = self.0.state();
        state.forget();
        state.body = Some(body);
    }

    /// Takes the connection from hyper; the body of the request must have been read to its end. Gives the socket and
    /// the bytes that came after the request.
    pub(crate) fn take_over(&self) -> (Arc<Socket>, Vec<u8>) {
        let mut state = self.0.state();
        state.taken = true;
        state.forget();
        (
            Arc::clone(&self.0.socket),
            std::mem::take(&mut state.remembered),
        )
    }
}

/// What stands after the head and the body.
fn after_request(request: &[u8], body: BodyLength) -> &[u8] {
    let Some(head) = find(request, b"\r\n\r\n") else {
        return &[];
    };
    let after_head = &request[head..];
    match body {
        BodyLength::Known(length) => after_head.get(length..).unwrap_or_default(),
        BodyLength::Chunked => after_chunks(after_head).unwrap_or_default(),
    }
}

/// What stands after the last chunk and the trailers (RFC 9112, section 7.1).
fn after_chunks(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let line = find(rest, b"\r\n")?;
        let digits = rest[..line - 2].split(|byte| *byte == b';').next()?;
        let digits = std::str::from_utf8(digits).ok()?.trim();
        let length = usize::from_str_radix(digits, 16).ok()?;
        rest = &rest[line..];
        if length == 0 {
            break;
        }
        rest = rest.get(length.checked_add(2)?..)?;
    }
    loop {
        let line = find(rest, b"\r\n")?;
        rest = &rest[line..];
        if line == 2 {
            return Some(rest);
        }
    }
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
            // A handler may have taken over meanwhile: what is there now is its.
            if state.taken {
                return Poll::Pending;
            }
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

    /// Forgets the request that is over; what the client sent behind it stays.
    fn forget(&mut self) {
        if let Some(body) = self.body.take() {
            self.remembered = after_request(&self.remembered, body).to_vec();
            self.too_long = false;
        }
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

    #[test]
    fn early_bytes_are_what_follows_the_request() {
        use BodyLength::{Chunked, Known};
        let cases: [(&[u8], BodyLength, &[u8]); 9] = [
            (b"POST /a HTTP/1.1\r\nA: b\r\n\r\nhello", Known(0), b"hello"),
            (b"POST /a HTTP/1.1\r\n\r\n{}hello", Known(2), b"hello"),
            (b"POST /a HTTP/1.1\r\n\r\n{}", Known(2), b""),
            (
                b"POST /a HTTP/1.1\r\n\r\n2\r\n{}\r\n0\r\n\r\nhello",
                Chunked,
                b"hello",
            ),
            // What looks like the last chunk stands inside of one.
            (
                b"POST /a HTTP/1.1\r\n\r\n9\r\n[\r\n0\r\n\r\n]\r\n0\r\n\r\nhello",
                Chunked,
                b"hello",
            ),
            (
                b"POST /a HTTP/1.1\r\n\r\n2;x=y\r\n{}\r\n0\r\nA: b\r\n\r\nhello",
                Chunked,
                b"hello",
            ),
            (b"POST /a HTTP/1.1\r\n\r\n0\r\n\r\nhello", Chunked, b"hello"),
            (b"POST /a HTTP/1.1\r\n\r\n", Known(9), b""),
            (b"POST /a HTTP/1.1\r\n", Known(0), b""),
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

    #[test]
    fn bytes_behind_a_request_that_is_behind_another_are_kept() {
        let mut state = State::default();
        state.remember(b"GET /_ping HTTP/1.1\r\n\r\nPOST /a HTTP/1.1\r\n\r\n{}hel");
        state.body = Some(BodyLength::Known(0));
        state.forget();
        state.body = Some(BodyLength::Known(2));
        state.remember(b"lo");
        state.forget();
        assert_eq!(state.remembered, b"hello");
    }

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
