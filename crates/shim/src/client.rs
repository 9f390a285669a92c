//! A blocking client for tests and tools. The daemon has its own, asynchronous one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::codec;
use crate::protocol::{Notice, Reply, Request, SOCKET_NAME};

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection failed or ended.
    #[error("connection to the shim")]
    Io(#[from] io::Error),
    /// The shim sent something that is no answer.
    #[error("answer of the shim")]
    Codec(#[from] codec::Error),
}

/// How long a shim may take to accept when its backlog is full, and how often it is tried meanwhile.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
const CONNECT_INTERVAL: Duration = Duration::from_millis(1);

/// One connection to a shim. Every call blocks until its answer is there.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    decoder: codec::Decoder,
}

impl Client {
    /// Connects to the socket in a container's run directory.
    ///
    /// # Errors
    /// The errno of connect: `ENOENT` or `ECONNREFUSED` if no shim is there.
    pub fn connect(run_dir: &Path) -> io::Result<Self> {
        let dir = File::open(run_dir)?;
        let give_up = Instant::now() + CONNECT_PATIENCE;
        loop {
            match sys::socket::connect_at(dir.as_fd(), SOCKET_NAME.as_ref()) {
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < give_up =>
                {
                    std::thread::sleep(CONNECT_INTERVAL);
                }
                done => return done.map(Self::new),
            }
        }
    }

    /// Speaks over a connected socket, such as the daemon's end of the control connection.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            decoder: codec::Decoder::new(),
        }
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// I/O errors, `UnexpectedEof` if the shim is gone, and malformed answers.
    pub fn call(&mut self, request: &Request) -> Result<Reply, Error> {
        self.call_with(request, &[])
    }

    /// As [`Client::call`], with file descriptors that travel with the request.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn call_with(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Reply, Error> {
        let message = codec::encode(request);
        let sent = sys::socket::send_with_fds(self.stream.as_fd(), &message, fds)?;
        self.stream.write_all(&message[sent..])?;
        self.receive()
    }

    /// The next notice, on a connection that watches.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn notice(&mut self) -> Result<Notice, Error> {
        self.receive()
    }

    /// Reads one message and not a byte more: what follows may be a stream.
    fn receive<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        loop {
            if let Some(message) = self.decoder.next()? {
                return Ok(message);
            }
            let mut buffer = vec![0; self.decoder.missing()];
            self.stream.read_exact(&mut buffer)?;
            self.decoder.push(&buffer);
        }
    }

    /// The socket as a byte stream, after an attach.
    #[must_use]
    pub fn into_stream(self) -> UnixStream {
        self.stream
    }
}
