//! Raw connections: attach and exec give the client a byte stream in both directions.
//!
//! `copy_bidirectional` would be wrong here: it waits for both sides, and a client that keeps its input open would
//! hang after the process has ended. The output decides: when it ends, the client is told and the connection is over.

use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Response, StatusCode, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::OnceCell;

use crate::body::Body;
use crate::detach::DetachKeys;
use crate::failure::Failure;
use crate::request::Call;
use crate::respond::{MULTIPLEXED_STREAM, RAW_STREAM};
use crate::tap::Socket;

/// Bytes that are moved at once, in each direction.
const COPY_BYTES: usize = 64 << 10;

/// How long the first output waits for a client to have read the head of the answer. docker-py reads the head through
/// a buffer and what follows past it: output that comes in one piece with the head is lost to it. A start by dockerd
/// takes so long that this never shows.
const HEAD_READ_WITHIN: Duration = Duration::from_millis(100);

/// How often a local client is looked at meanwhile; it is waiting for the head and reads it at once.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Over TCP nobody tells what the client has read: the head goes this far ahead of the output.
const HEAD_AHEAD: Duration = Duration::from_millis(5);

/// A connection that is no longer HTTP.
pub(crate) struct Hijacked {
    socket: Arc<Socket>,
    early: Vec<u8>,
    head: Head,
}

/// Whether the client has read the head of the answer.
#[derive(Default)]
struct Head(OnceCell<()>);

impl Head {
    /// Returns once it has, or may be taken to have.
    async fn is_read(&self, client: &Socket) {
        self.0.get_or_init(|| head_is_read(client)).await;
    }
}

async fn head_is_read(client: &Socket) {
    match client {
        Socket::Tcp(_) => tokio::time::sleep(HEAD_AHEAD).await,
        Socket::Unix(socket) => {
            let read = async {
                while sys::socket::unread_bytes(socket.as_fd()).is_ok_and(|bytes| bytes > 0) {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            if tokio::time::timeout(HEAD_READ_WITHIN, read).await.is_err() {
                tracing::debug!("a client does not read the head of its answer");
            }
        }
    }
}

/// How a raw answer begins.
pub(crate) struct Opening {
    /// Whether frames are sent; decides the content type together with version and upgrade.
    pub(crate) framed: bool,
    /// More headers: exec sends those of every answer, attach does not.
    pub(crate) headers: HeaderMap,
}

impl Hijacked {
    /// Takes the connection of a request whose body has been read.
    ///
    /// # Errors
    /// When the connection carries other requests as well (HTTP/2).
    pub(crate) fn take(call: &Call) -> Result<Self, Failure> {
        if call.head.version > Version::HTTP_11 {
            return Err(Failure::invalid(
                "this endpoint needs a connection of its own: use HTTP/1.1",
            ));
        }
        let (socket, early) = call.tap.take_over();
        Ok(Self {
            socket,
            early,
            head: Head::default(),
        })
    }

    /// What hyper gets as the answer: it is swallowed, and ends hyper's part in the connection.
    pub(crate) fn placeholder() -> Response<Body> {
        let mut response = Response::new(Body::empty());
        response
            .headers_mut()
            .insert(hyper::header::CONNECTION, HeaderValue::from_static("close"));
        response
    }

    /// Writes the status line and headers.
    ///
    /// # Errors
    /// When the client is gone.
    pub(crate) async fn open(&self, call: &Call, opening: &Opening) -> io::Result<()> {
        let upgrade = call.wants_upgrade();
        let multiplexed = opening.framed && upgrade && !call.requested.below(42);
        let kind = if multiplexed {
            MULTIPLEXED_STREAM
        } else {
            RAW_STREAM
        };
        let kind = kind.to_str().expect("a constant");
        let mut head = if upgrade {
            format!(
                "HTTP/1.1 101 UPGRADED\r\nContent-Type: {kind}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            )
        } else {
            format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n")
        };
        for (name, value) in &opening.headers {
            let value = value.to_str().unwrap_or_default();
            write!(head, "{}: {value}\r\n", title_case(name.as_str()))
                .expect("writing to a string");
        }
        head.push_str("\r\n");
        self.socket.write_all(head.as_bytes()).await
    }

    /// Answers with an error in plain words, as dockerd does once it has hijacked.
    ///
    /// # Errors
    /// When the client is gone.
    pub(crate) async fn refuse(&self, failure: &Failure) -> io::Result<()> {
        let StatusLine(line) = StatusLine::from(failure.status);
        let kind = RAW_STREAM;
        let kind = kind.to_str().expect("a constant");
        let answer = format!(
            "HTTP/1.1 {line}\r\nContent-Type: {kind}\r\n\r\n{}\r\n",
            failure.message
        );
        self.socket.write_all(answer.as_bytes()).await?;
        self.socket.shutdown_write()
    }

    /// Sends bytes to the client.
    ///
    /// # Errors
    /// When the client is gone.
    pub(crate) async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.head.is_read(&self.socket).await;
        self.socket.write_all(bytes).await
    }

    /// Moves bytes between the client and `process` until the output ends, the client is gone or detaches.
    /// `detach` is set when the client sits at a terminal. After the last output the client is told of the end
    /// when `settled` is done: what it then asks for must be known.
    pub(crate) async fn copy(
        self,
        process: UnixStream,
        detach: Option<DetachKeys>,
        settled: impl Future<Output = ()>,
    ) -> Ended {
        let (output, input) = process.into_split();
        let feeding = feed(&self.socket, self.early, input, detach);
        let showing = show(&self.socket, &self.head, output, settled);
        tokio::pin!(feeding, showing);
        let ended = tokio::select! {
            ended = &mut showing => return ended,
            fed = &mut feeding => fed,
        };
        match ended {
            // The input's end is not the client's: it waits for the rest of the output, unless it is gone altogether.
            Fed::Ended(_input) => tokio::select! {
                ended = &mut showing => ended,
                () = self.socket.hung_up() => Ended::Gone,
            },
            Fed::Detached => Ended::Detached,
            Fed::Gone => Ended::Gone,
        }
    }

    /// Returns when the client has closed its connection; see [`Socket::hung_up`].
    pub(crate) async fn hung_up(&self) {
        self.socket.hung_up().await;
    }

    /// Ends the stream from our side.
    pub(crate) fn finish(&self) {
        if let Err(error) = self.socket.shutdown_write() {
            tracing::debug!(%error, "the client was gone at the end of its stream");
        }
    }
}

/// Why a raw stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The process has no more output.
    Output,
    /// The client left by its detach keys.
    Detached,
    /// The client's connection broke.
    Gone,
}

enum Fed {
    /// The half is kept: dropping it would close nothing more, but its pair needs the socket.
    Ended(OwnedWriteHalf),
    Detached,
    Gone,
}

async fn show(
    client: &Socket,
    head: &Head,
    mut output: OwnedReadHalf,
    settled: impl Future<Output = ()>,
) -> Ended {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let read = match output.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        head.is_read(client).await;
        if client.write_all(&buffer[..read]).await.is_err() {
            return Ended::Gone;
        }
    }
    settled.await;
    // As dockerd: the client sees the end even if it keeps its own side open.
    match client.shutdown_write() {
        Ok(()) => Ended::Output,
        Err(_) => Ended::Gone,
    }
}

async fn feed(
    client: &Socket,
    early: Vec<u8>,
    mut input: OwnedWriteHalf,
    detach: Option<DetachKeys>,
) -> Fed {
    let mut detach = detach;
    let mut buffer = early;
    let mut length = buffer.len();
    buffer.resize(COPY_BYTES.max(length), 0);
    loop {
        let (bytes, left) = match &mut detach {
            Some(keys) => keys.filter(&buffer[..length]),
            None => (Bytes::copy_from_slice(&buffer[..length]), false),
        };
        // A process that does not read any more is no reason to stop showing its output.
        let refused = input.write_all(&bytes).await.is_err();
        if left {
            return Fed::Detached;
        }
        if refused {
            return Fed::Ended(input);
        }
        match client.read(&mut buffer).await {
            Ok(0) => break,
            Ok(read) => length = read,
            Err(_) => return Fed::Gone,
        }
    }
    if let Err(error) = input.shutdown().await {
        tracing::debug!(%error, "the process had closed its input before the client did");
    }
    Fed::Ended(input)
}

/// `404 Not Found`.
struct StatusLine(String);

impl From<StatusCode> for StatusLine {
    fn from(status: StatusCode) -> Self {
        Self(format!(
            "{} {}",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default()
        ))
    }
}

/// `api-version` → `Api-Version`, as Go writes headers.
fn title_case(name: &str) -> String {
    let mut upper = true;
    name.chars()
        .map(|c| {
            let cased = if upper { c.to_ascii_uppercase() } else { c };
            upper = c == '-';
            cased
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tap::Socket;

    /// Longest wait for what must come.
    const PATIENCE: Duration = Duration::from_secs(10);

    async fn within<F: Future>(future: F) -> F::Output {
        tokio::time::timeout(PATIENCE, future)
            .await
            .expect("in time")
    }

    /// A client, the process behind the shim, and the copy between them.
    fn connected(
        early: &[u8],
        detach: Option<DetachKeys>,
    ) -> (UnixStream, UnixStream, tokio::task::JoinHandle<Ended>) {
        let (client, ours) = UnixStream::pair().unwrap();
        let (shim, process) = UnixStream::pair().unwrap();
        let hijacked = Hijacked {
            socket: Arc::new(Socket::Unix(ours)),
            early: early.to_vec(),
            head: Head::default(),
        };
        (
            client,
            process,
            tokio::spawn(hijacked.copy(shim, detach, std::future::ready(()))),
        )
    }

    async fn rest(stream: &mut UnixStream) -> String {
        let mut text = String::new();
        within(stream.read_to_string(&mut text)).await.unwrap();
        text
    }

    #[tokio::test]
    async fn early_bytes_come_first_and_the_input_ends_alone() {
        let (mut client, mut process, copy) = connected(b"early ", None);
        client.write_all(b"late").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut process).await, "early late");
        // The client's input is over, its output is not.
        process.write_all(b"answer").await.unwrap();
        drop(process);
        assert_eq!(rest(&mut client).await, "answer");
        assert_eq!(within(copy).await.unwrap(), Ended::Output);
    }

    #[tokio::test]
    async fn output_never_comes_in_one_piece_with_the_head() {
        let (client, ours) = UnixStream::pair().unwrap();
        let (shim, mut process) = UnixStream::pair().unwrap();
        let hijacked = Hijacked {
            socket: Arc::new(Socket::Unix(ours)),
            early: Vec::new(),
            head: Head::default(),
        };
        hijacked.socket.write_all(b"head").await.unwrap();
        // The process is done before its client has read anything.
        process.write_all(b"output").await.unwrap();
        drop(process);
        let copy = tokio::spawn(hijacked.copy(shim, None, std::future::ready(())));
        let mut buffer = [0; 64];
        let mut pieces = Vec::new();
        loop {
            within(client.readable()).await.unwrap();
            match client.try_read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => pieces.push(String::from_utf8_lossy(&buffer[..read]).into_owned()),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert_eq!(pieces, ["head", "output"]);
        assert_eq!(within(copy).await.unwrap(), Ended::Output);
    }

    #[tokio::test]
    async fn the_end_of_the_output_ends_all_even_if_the_client_stays() {
        let (mut client, mut process, copy) = connected(b"", None);
        process.write_all(b"bye").await.unwrap();
        process.shutdown().await.unwrap();
        assert_eq!(rest(&mut client).await, "bye");
        assert_eq!(within(copy).await.unwrap(), Ended::Output);
    }

    #[tokio::test]
    async fn detach_keys_end_the_stream_and_not_the_process() {
        let (mut client, mut process, copy) = connected(b"", Some(DetachKeys::parse("").unwrap()));
        client.write_all(b"ab\x10\x11cd").await.unwrap();
        assert_eq!(within(copy).await.unwrap(), Ended::Detached);
        assert_eq!(rest(&mut process).await, "ab");
    }

    #[tokio::test]
    async fn a_client_that_leaves_a_silent_process_ends_the_stream() {
        let (client, mut process, copy) = connected(b"early", None);
        drop(client);
        assert_eq!(within(copy).await.unwrap(), Ended::Gone);
        // What it had said still arrives.
        assert_eq!(rest(&mut process).await, "early");
    }

    #[tokio::test]
    async fn a_half_close_is_no_hang_up_and_a_close_is_one() {
        let (mut client, ours) = UnixStream::pair().unwrap();
        let socket = Socket::Unix(ours);
        client.shutdown().await.unwrap();
        let mut gone = std::pin::pin!(socket.hung_up());
        let early = tokio::time::timeout(Duration::from_millis(100), &mut gone).await;
        assert!(early.is_err());
        drop(client);
        within(gone).await;
    }

    #[tokio::test]
    async fn a_client_that_is_gone_ends_the_stream() {
        let (client, mut process, copy) = connected(b"", None);
        drop(client);
        while process.write_all(&[0; 4096]).await.is_ok() {}
        assert_eq!(within(copy).await.unwrap(), Ended::Gone);
    }
}
