//! The client of the rows: HTTP/1.1 on one connection that is kept open, with what the engines' answers need and no more.
//!
//! What is measured is the engine: this program is built without optimisation, and in it a whole HTTP library takes
//! longer for an answer than the engine does.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use testkit::Client;

/// Room for what one read brings.
const READ_BYTES: usize = 256 << 10;

/// dockerd's pull and removal on a busy machine take minutes.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);

/// A connection.
pub(super) struct Wire<S = UnixStream> {
    stream: S,
    buffer: Vec<u8>,
    /// What of `buffer` was received and is not yet taken.
    begin: usize,
    end: usize,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// The status code.
    pub(super) status: u16,
    /// The body without its transfer encoding.
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null when it is empty.
    pub(super) fn json(&self) -> Result<Value> {
        match self.body.as_slice() {
            [] => Ok(Value::Null),
            body => serde_json::from_slice(body).context("an answer's JSON"),
        }
    }

    /// The body as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The bytes of a request; `Value::Null` is no body.
pub(super) fn request(method: &str, path: &str, body: &Value) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: docker\r\n");
    let body = if body.is_null() {
        String::new()
    } else {
        head.push_str("Content-Type: application/json\r\n");
        body.to_string()
    };
    if method != "GET" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    format!("{head}\r\n{body}").into_bytes()
}

impl Wire {
    /// Connects to the engine that `client` knows.
    pub(super) fn connect(client: &Client) -> Result<Self> {
        let stream = UnixStream::connect(client.socket())
            .with_context(|| format!("connect to {}", client.socket().display()))?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        Ok(Self::on(stream))
    }
}

impl<S: Read + Write> Wire<S> {
    fn on(stream: S) -> Self {
        Self {
            stream,
            buffer: vec![0; READ_BYTES],
            begin: 0,
            end: 0,
        }
    }

    /// Sends a request and takes the whole answer.
    pub(super) fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request)?;
        let line = self.line()?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .with_context(|| format!("no status in {line:?}"))?;
        let (mut length, mut chunked) = (None, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(':') {
                None if line.is_empty() => break,
                Some(("content-length", value)) => length = Some(value.trim().parse()?),
                Some(("transfer-encoding", value)) => chunked = value.trim() == "chunked",
                _ => {}
            }
        }
        let mut body = Vec::new();
        match length {
            Some(length) => self.take(length, &mut body)?,
            None if chunked => self.chunks(&mut body)?,
            // RFC 9110, 15.3.5: it never has a body.
            None if status == 204 => {}
            None => bail!("an answer of unknown length"),
        }
        Ok(Answer { status, body })
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> Result<()> {
        loop {
            let size = usize::from_str_radix(&self.line()?, 16).context("the size of a chunk")?;
            self.take(size, body)?;
            ensure!(self.line()?.is_empty(), "a chunk that does not end");
            if size == 0 {
                return Ok(());
            }
        }
    }

    /// Takes a line, without its end.
    fn line(&mut self) -> Result<String> {
        let mut looked_at = self.begin;
        loop {
            let received = &self.buffer[looked_at..self.end];
            if let Some(at) = received.windows(2).position(|end| end == b"\r\n") {
                let line = &self.buffer[self.begin..looked_at + at];
                let line = String::from_utf8_lossy(line).into_owned();
                self.begin = looked_at + at + 2;
                return Ok(line);
            }
            // The end may come in two pieces.
            let seen = looked_at.max(self.end.saturating_sub(1)) - self.begin;
            self.receive()?;
            looked_at = self.begin + seen;
        }
    }

    fn take(&mut self, mut count: usize, into: &mut Vec<u8>) -> Result<()> {
        loop {
            let here = count.min(self.end - self.begin);
            into.extend_from_slice(&self.buffer[self.begin..self.begin + here]);
            self.begin += here;
            count -= here;
            if count == 0 {
                return Ok(());
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> Result<()> {
        self.buffer.copy_within(self.begin..self.end, 0);
        (self.begin, self.end) = (0, self.end - self.begin);
        match self.stream.read(&mut self.buffer[self.end..])? {
            0 => bail!("the answer was cut short, or a line is too long"),
            count => self.end += count,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that has said everything already, and says it in pieces of `piece` bytes.
    struct Scripted {
        answers: Vec<u8>,
        piece: usize,
    }

    impl Read for Scripted {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.piece.min(self.answers.len()).min(buffer.len());
            let rest = self.answers.split_off(count);
            buffer[..count].copy_from_slice(&self.answers);
            self.answers = rest;
            Ok(count)
        }
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn peer(answers: &str, piece: usize) -> Wire<Scripted> {
        let answers = answers.as_bytes().to_vec();
        Wire::on(Scripted { answers, piece })
    }

    const THREE: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n[\r\n1]\
        HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nb\r\n0\r\n\r\n567890\r\n0\r\n\r\n\
        HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n";

    #[test]
    fn answers_are_taken_whole_however_they_come() {
        for piece in 1..THREE.len() {
            let mut peer = peer(THREE, piece);
            for (status, body) in [(200, "[\r\n1]"), (200, "abc0\r\n\r\n567890"), (204, "")] {
                let answer = peer.ask(b"").unwrap();
                assert_eq!((answer.status, answer.text().as_str()), (status, body));
            }
            assert!(peer.ask(b"").is_err(), "there is no fourth");
        }
    }

    #[test]
    fn what_is_no_whole_answer_is_an_error() {
        for answer in [
            "HTTP/1.1 \r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ] {
            assert!(peer(answer, 7).ask(b"").is_err(), "{answer}");
        }
    }
}
