//! The daemon's end of a shim's socket: the protocol of [`shim::protocol`] on tokio.
//!
//! Reads never take more bytes than one message, so that after an attach the socket is exactly the
//! client's byte stream.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use shim::protocol::{FailureKind, Notice, Reply, Request, SOCKET_NAME};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::{Class, Error, peer};

/// How long a shim may take to answer what is quick by its nature (signals, sizes, state), as long as a kill may take.
/// Freezing is bounded in the runtime below this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a shim whose backlog is full is asked again.
const CONNECT_INTERVAL: Duration = Duration::from_millis(10);

/// Why a shim did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    /// No shim listens, or it ended before its answer.
    #[error("connection to the container's shim")]
    Io(#[from] io::Error),
    /// It sent something that is no message.
    #[error("answer of the container's shim")]
    Codec(#[from] shim::codec::Error),
    /// It refused or failed.
    #[error("{message}")]
    Refused {
        /// What sort of failure.
        kind: FailureKind,
        /// The text for the client.
        message: String,
    },
    /// It answered another question.
    #[error("unexpected answer of the container's shim: {0}")]
    Unexpected(String),
    /// It did not answer in time.
    #[error(
        "the container's shim did not answer within {} s: docker rm -f and docker kill end the container without it",
        ANSWER_TIMEOUT.as_secs()
    )]
    Timeout,
}

impl ShimError {
    /// Whether it means that the run is over: the process has ended, or the shim that told so, or is being looked for.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Io(error) => peer::is_absence(error) || peer::is_end(error),
            Self::Refused { kind, .. } => *kind == FailureKind::NotRunning,
            Self::Codec(_) | Self::Unexpected(_) | Self::Timeout => false,
        }
    }

    /// The error for a client, with what was being done.
    pub(crate) fn into_error(self, doing: &str) -> Error {
        match self {
            Self::Refused { kind, message } => {
                let class = match kind {
                    FailureKind::NotRunning | FailureKind::Busy => Class::Conflict,
                    FailureKind::NotFound | FailureKind::NotExecutable | FailureKind::Invalid => {
                        Class::InvalidParameter
                    }
                    FailureKind::NoUser | FailureKind::Other | FailureKind::Internal => {
                        Class::Internal
                    }
                };
                Error::new(class, message)
            }
            other @ (Self::Io(_) | Self::Codec(_) | Self::Unexpected(_) | Self::Timeout) => {
                Error::internal(doing, other)
            }
        }
    }

    /// The error for an answer that does not fit the request.
    pub(crate) fn unexpected(reply: &Reply) -> Self {
        Self::Unexpected(format!("{reply:?}"))
    }
}

/// Where a container's shim listens.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    run_dir: PathBuf,
}

impl Address {
    /// The shim whose socket lies in this run directory.
    pub(crate) fn new(run_dir: PathBuf) -> Self {
        Self { run_dir }
    }

    /// The run directory.
    pub(crate) fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// Connects, within [`ANSWER_TIMEOUT`]: a shim that hangs accepts nobody.
    pub(crate) async fn connect(&self) -> Result<Connection, ShimError> {
        self.connect_within(ANSWER_TIMEOUT).await
    }

    async fn connect_within(&self, limit: Duration) -> Result<Connection, ShimError> {
        let connecting = async {
            loop {
                match self.try_connect() {
                    // A full backlog gives no event to wait for.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        tokio::time::sleep(CONNECT_INTERVAL).await;
                    }
                    done => return done.map_err(ShimError::from),
                }
            }
        };
        within(limit, connecting).await
    }

    fn try_connect(&self) -> io::Result<Connection> {
        let directory = std::fs::File::open(&self.run_dir)?;
        let stream = sys::socket::connect_at(directory.as_fd(), SOCKET_NAME.as_ref())?;
        Connection::new(stream)
    }

    /// As [`Address::call`], of the shim whose run began at this time. What was asked too late, when another run is
    /// there, that one does not hear of: a shim has one run, and a connection one shim.
    pub(crate) async fn call_run(
        &self,
        started_at_ns: i64,
        request: &Request,
    ) -> Result<Reply, ShimError> {
        within(ANSWER_TIMEOUT, async {
            let mut connection = self.connect().await?;
            match connection.call(&Request::State).await? {
                Reply::State(state) if state.started_at_ns == Some(started_at_ns) => {
                    connection.call(request).await
                }
                Reply::State(_) => Err(ShimError::Refused {
                    kind: FailureKind::NotRunning,
                    message: "this run of the container is over".to_owned(),
                }),
                other => Err(ShimError::unexpected(&other)),
            }
        })
        .await
    }

    /// Asks one question on a connection of its own, within [`ANSWER_TIMEOUT`].
    pub(crate) async fn call(&self, request: &Request) -> Result<Reply, ShimError> {
        within(ANSWER_TIMEOUT, async {
            self.connect().await?.call(request).await
        })
        .await
    }
}

/// What is done with a shim, if it is done by then.
async fn within<T>(
    limit: Duration,
    done: impl Future<Output = Result<T, ShimError>>,
) -> Result<T, ShimError> {
    tokio::time::timeout(limit, done)
        .await
        .unwrap_or(Err(ShimError::Timeout))
}

/// One connection to a shim.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
}

impl Connection {
    /// Speaks over a connected socket.
    pub(crate) fn new(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: UnixStream::from_std(stream)?,
        })
    }

    /// The process that listens at the other end.
    pub(crate) fn peer(&self) -> io::Result<OwnedFd> {
        peer::process(self.stream.as_fd())
    }

    /// Asks and waits for the answer, without a limit of its own.
    pub(crate) async fn call(&mut self, request: &Request) -> Result<Reply, ShimError> {
        self.stream.write_all(&shim::encode(request)).await?;
        self.reply().await
    }

    /// As [`Connection::call`], within [`ANSWER_TIMEOUT`].
    pub(crate) async fn call_soon(&mut self, request: &Request) -> Result<Reply, ShimError> {
        within(ANSWER_TIMEOUT, self.call(request)).await
    }

    /// As [`Connection::call`], for what may take as long as `limit`: a shim that hangs is known sooner, by the answer
    /// that it owes at once.
    pub(crate) async fn call_long(
        &mut self,
        request: &Request,
        limit: Duration,
    ) -> Result<Reply, ShimError> {
        let mut both = shim::encode(&Request::State);
        both.extend(shim::encode(request));
        let first = within(ANSWER_TIMEOUT, async {
            self.stream.write_all(&both).await?;
            self.reply().await
        });
        match first.await? {
            Reply::State(_) => within(limit, self.reply()).await,
            other => Err(ShimError::unexpected(&other)),
        }
    }

    /// As [`Connection::call`], with file descriptors that travel with the request.
    pub(crate) async fn call_with(
        &mut self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Reply, ShimError> {
        let frame = shim::encode(request);
        // A message takes so many descriptors; each lot but the last goes with one byte of the frame.
        let mut sent = 0;
        let mut lots = fds.chunks(sys::socket::FDS_MAX).peekable();
        while let Some(lot) = lots.next() {
            let end = match lots.peek() {
                Some(_) => sent + 1,
                None => frame.len(),
            };
            let bytes = &frame[sent..end];
            sent += self
                .stream
                .async_io(Interest::WRITABLE, || {
                    sys::socket::send_with_fds(self.stream.as_fd(), bytes, lot)
                })
                .await?;
        }
        self.stream.write_all(&frame[sent..]).await?;
        self.reply().await
    }

    async fn reply(&mut self) -> Result<Reply, ShimError> {
        match self.message().await? {
            Some(Reply::Failed { kind, message }) => Err(ShimError::Refused { kind, message }),
            Some(reply) => Ok(reply),
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    /// The next notice on a connection that watches; `None` when the shim has ended. One that this version does
    /// not know is a newer shim's, and passed over.
    pub(crate) async fn notice(&mut self) -> Result<Option<Notice>, ShimError> {
        loop {
            match self.message().await {
                Err(ShimError::Codec(shim::codec::Error::Malformed(error))) => {
                    tracing::warn!(%error, "a notice of a newer shim");
                }
                other => return other,
            }
        }
    }

    /// The socket, which after an attach is the byte stream of the process.
    pub(crate) fn into_stream(self) -> UnixStream {
        self.stream
    }

    async fn message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ShimError> {
        let mut prefix = [0; 4];
        match self.stream.read_exact(&mut prefix).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let mut decoder = shim::Decoder::new();
        decoder.push(&prefix);
        // Refuses a length over the protocol's limit before anything of it is read.
        if let Some(message) = decoder.next()? {
            return Ok(Some(message));
        }
        let length = usize::try_from(u32::from_le_bytes(prefix)).unwrap_or(usize::MAX);
        let mut content = vec![0; length];
        self.stream.read_exact(&mut content).await?;
        decoder.push(&content);
        Ok(decoder.next()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shim that answers one connection: what it is asked, and what it says of its run.
    async fn asked_of(
        started_at_ns: i64,
        wanted_ns: i64,
    ) -> (Vec<Request>, Result<Reply, ShimError>) {
        let dir = tempfile::tempdir().unwrap();
        let handle = std::fs::File::open(dir.path()).unwrap();
        let listener = sys::socket::listen_at(handle.as_fd(), SOCKET_NAME.as_ref(), 0o600).unwrap();
        listener.set_nonblocking(false).unwrap();
        let shim = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut requests = Vec::new();
            let mut decoder = shim::Decoder::new();
            let mut buffer = [0; 4096];
            loop {
                let read = std::io::Read::read(&mut stream, &mut buffer).unwrap();
                decoder.push(&buffer[..read]);
                let Some(request) = decoder.next::<Request>().unwrap() else {
                    match read {
                        0 => return requests,
                        _ => continue,
                    }
                };
                let answer = match &request {
                    Request::State => Reply::State(Box::new(state(started_at_ns))),
                    _ => Reply::Ok,
                };
                std::io::Write::write_all(&mut stream, &shim::encode(&answer)).unwrap();
                requests.push(request);
            }
        });
        let address = Address::new(dir.path().to_owned());
        let answer = address.call_run(wanted_ns, &Request::Pause).await;
        (shim.join().unwrap(), answer)
    }

    fn state(started_at_ns: i64) -> shim::protocol::State {
        shim::protocol::State {
            version: shim::protocol::VERSION,
            id: "box".to_owned(),
            phase: shim::protocol::Phase::Running,
            pid: Some(7),
            started_at_ns: Some(started_at_ns),
            exit: None,
            oom_killed: false,
            log_lines_dropped: 0,
            execs: Vec::new(),
        }
    }

    #[tokio::test]
    async fn what_was_meant_for_another_run_is_not_asked() {
        let (requests, answer) = asked_of(5, 5).await;
        assert_eq!(requests, [Request::State, Request::Pause]);
        assert!(matches!(answer, Ok(Reply::Ok)), "{answer:?}");
        let (requests, answer) = asked_of(6, 5).await;
        assert_eq!(requests, [Request::State]);
        let refused = matches!(
            answer,
            Err(ShimError::Refused {
                kind: FailureKind::NotRunning,
                ..
            })
        );
        assert!(refused, "{answer:?}");
    }

    /// On one thread: a connect that blocks would stop the clock, and the test with it.
    #[tokio::test]
    async fn a_shim_that_accepts_nobody_is_a_timeout() {
        let dir = tempfile::tempdir().unwrap();
        let handle = std::fs::File::open(dir.path()).unwrap();
        let _listener =
            sys::socket::listen_at(handle.as_fd(), SOCKET_NAME.as_ref(), 0o600).unwrap();
        let address = Address::new(dir.path().to_owned());
        let mut waiting = Vec::new();
        let error = loop {
            match address.connect_within(Duration::from_millis(200)).await {
                Ok(connection) => waiting.push(connection),
                Err(error) => break error,
            }
            assert!(waiting.len() < 1_000, "no backlog is so long");
        };
        assert!(matches!(error, ShimError::Timeout), "{error:?}");
    }
}
