//! A blocking HTTP client on a unix socket: one connection a request, raw bytes when they matter.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::patience;

/// No answer of a test takes longer unless it says so; a hang becomes a failure that says where.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A client of the engine that listens on one unix socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    answer_within: Duration,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The HTTP status code.
    pub status: u16,
    /// Header names in lower case with their values, in the order received.
    pub headers: Vec<(String, String)>,
    /// The body without any transfer encoding.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null when it is empty.
    pub fn json(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// A body of JSON messages, one a line.
    pub fn json_lines(&self) -> impl Iterator<Item = Value> {
        let text = self.text();
        let values: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        values.into_iter()
    }

    /// The first value of header `name` (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// This answer, after making sure of its status.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

impl Client {
    /// A client of the engine on `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            answer_within: ANSWER_WITHIN,
        }
    }

    /// The same engine, asked for what may take up to `limit`.
    pub fn patient(&self, limit: Duration) -> Self {
        Self {
            socket: self.socket.clone(),
            answer_within: limit,
        }
    }

    /// The socket this client talks to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether the engine answers `GET /_ping` with 200.
    pub fn answers(&self) -> bool {
        self.try_request("GET", "/_ping", &[], Vec::new())
            .is_ok_and(|answer| answer.status == 200)
    }

    /// GET.
    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], Vec::new())
    }

    /// DELETE.
    pub fn delete(&self, path: &str) -> Response {
        self.request("DELETE", path, &[], Vec::new())
    }

    /// POST with a JSON body; `Value::Null` sends none.
    pub fn post(&self, path: &str, body: &Value) -> Response {
        if body.is_null() {
            return self.request("POST", path, &[], Vec::new());
        }
        let headers = [("content-type", "application/json")];
        self.request(
            "POST",
            path,
            &headers,
            serde_json::to_vec(body).expect("a value is JSON"),
        )
    }

    /// Any request.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Response {
        self.try_request(method, path, headers, body)
            .unwrap_or_else(|error| {
                panic!("{method} {path} on {}: {error:#}", self.socket.display())
            })
    }

    /// Any request, with what may go wrong on the connection.
    ///
    /// # Errors
    /// No connection, no HTTP, or no answer in time.
    pub fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> anyhow::Result<Response> {
        self.session()?.request(method, path, headers, body)
    }

    /// One connection that is kept open for many requests.
    ///
    /// # Errors
    /// No connection, or no HTTP on it.
    pub fn session(&self) -> anyhow::Result<Session> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let sender = runtime.block_on(async {
            let stream = tokio::net::UnixStream::connect(&self.socket).await?;
            let (sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            anyhow::Ok(sender)
        })?;
        Ok(Session {
            sender,
            runtime,
            answer_within: self.answer_within,
        })
    }

    /// Sends a request head (and `body`) as it is and answers the open connection after the answer's head:
    /// for hijacked and endless streams. Reads on it fail when nothing comes in time.
    pub fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Open {
        let mut stream = UnixStream::connect(&self.socket)
            .unwrap_or_else(|error| panic!("connect to {}: {error}", self.socket.display()));
        stream
            .set_read_timeout(Some(patience(self.answer_within)))
            .expect("set a read timeout");
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: docker\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).expect("send the head");
        stream.write_all(body).expect("send the body");
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") {
            stream
                .read_exact(&mut byte)
                .unwrap_or_else(|error| panic!("{method} {path}: no head: {error}"));
            answer.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&answer).into_owned();
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .expect("a status code");
        Open {
            status,
            head,
            stream,
        }
    }
}

/// A kept-alive connection: one request after the other. Fields are dropped in order: the sender first.
#[derive(Debug)]
pub struct Session {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    runtime: tokio::runtime::Runtime,
    answer_within: Duration,
}

impl Session {
    /// Any request, answered whole.
    ///
    /// # Errors
    /// A broken connection, no HTTP, or no answer in time.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> anyhow::Result<Response> {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes())?)
            .uri(path)
            .header(header::HOST, "docker");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        let (sender, limit) = (&mut self.sender, self.answer_within);
        self.runtime.block_on(async {
            tokio::time::timeout(patience(limit), async {
                sender.ready().await?;
                let answer = sender.send_request(request).await?;
                let status = answer.status().as_u16();
                let value = |value: &header::HeaderValue| {
                    String::from_utf8_lossy(value.as_bytes()).into_owned()
                };
                let headers = answer
                    .headers()
                    .iter()
                    .map(|(name, v)| (name.to_string(), value(v)));
                let headers = headers.collect();
                let body = answer.into_body().collect().await?.to_bytes().to_vec();
                anyhow::Ok(Response {
                    status,
                    headers,
                    body,
                })
            })
            .await?
        })
    }
}

/// A connection after the head of its answer.
#[derive(Debug)]
pub struct Open {
    /// The HTTP status code.
    pub status: u16,
    /// The head as it came.
    pub head: String,
    /// What follows, transfer encoding included.
    pub stream: UnixStream,
}

/// The payload of frames (8-byte header `[stream, 0, 0, 0, length]`) by stream number, in one string each.
///
/// # Panics
/// On bytes that are no frames.
#[must_use]
pub fn frames(bytes: &[u8]) -> (String, String) {
    let (mut out, mut err, mut rest) = (Vec::new(), Vec::new(), bytes);
    while let [stream @ 0..=2, 0, 0, 0, a, b, c, d, tail @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if *stream == 2 { &mut err } else { &mut out }.extend_from_slice(&tail[..length]);
        rest = &tail[length..];
    }
    assert!(
        rest.is_empty(),
        "not a frame: {:?}",
        &rest[..rest.len().min(16)]
    );
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(out), text(err))
}
