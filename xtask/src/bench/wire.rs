//! The client of the rows of requests per second: the bytes of one request, again and again on one connection.
//!
//! It does what the answer needs and no more (the head, the body's length or its chunks), so that what is measured is
//! the engine: this program is built without optimisation, and a whole HTTP library in it takes longer than an answer.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use testkit::Client;

/// Room for what one read brings.
const READ_BYTES: usize = 256 << 10;

/// No answer of these rows takes longer, even on a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A connection and the request that it repeats.
pub(super) struct Repeated<S = UnixStream> {
    stream: S,
    request: Vec<u8>,
    buffer: Vec<u8>,
    /// What of `buffer` was received and is not yet taken.
    begin: usize,
    end: usize,
}

impl Repeated {
    /// Connects, for `GET path`.
    pub(super) fn new(client: &Client, path: &str) -> Result<Self> {
        let stream = UnixStream::connect(client.socket())
            .with_context(|| format!("connect to {}", client.socket().display()))?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        Ok(Self::on(stream, path))
    }
}

impl<S: Read + Write> Repeated<S> {
    fn on(stream: S, path: &str) -> Self {
        Self {
            stream,
            request: format!("GET {path} HTTP/1.1\r\nHost: docker\r\n\r\n").into_bytes(),
            buffer: vec![0; READ_BYTES],
            begin: 0,
            end: 0,
        }
    }

    /// Asks once and takes the whole answer, which must be a 200; tells the bytes of its body.
    pub(super) fn ask(&mut self) -> Result<usize> {
        self.stream.write_all(&self.request)?;
        ensure!(self.line()? == "HTTP/1.1 200 OK", "not a 200");
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
        match length {
            Some(length) => self.skip(length)?,
            None if chunked => return self.chunks(),
            None => bail!("an answer of unknown length"),
        }
        Ok(length.unwrap_or_default())
    }

    fn chunks(&mut self) -> Result<usize> {
        let mut total = 0;
        loop {
            let size = usize::from_str_radix(&self.line()?, 16).context("the size of a chunk")?;
            self.skip(size)?;
            ensure!(self.line()?.is_empty(), "a chunk that does not end");
            if size == 0 {
                return Ok(total);
            }
            total += size;
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
            let taken = looked_at.max(self.end.saturating_sub(1)) - self.begin;
            self.receive()?;
            looked_at = self.begin + taken;
        }
    }

    /// Takes bytes and forgets them.
    fn skip(&mut self, mut count: usize) -> Result<()> {
        loop {
            let here = count.min(self.end - self.begin);
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

    fn asked(answers: &str, piece: usize) -> Repeated<Scripted> {
        let answers = answers.as_bytes().to_vec();
        Repeated::on(Scripted { answers, piece }, "/")
    }

    const TWO: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n[\r\n1]\
        HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nb\r\n0\r\n\r\n567890\r\n0\r\n\r\n";

    #[test]
    fn answers_are_taken_whole_however_they_come() {
        for piece in 1..TWO.len() {
            let mut peer = asked(TWO, piece);
            assert_eq!(peer.ask().unwrap(), 5, "{piece}");
            assert_eq!(peer.ask().unwrap(), 14, "{piece}");
            assert!(peer.ask().is_err(), "there is no third");
        }
    }

    #[test]
    fn what_is_no_whole_200_is_an_error() {
        for answer in [
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ] {
            assert!(asked(answer, 7).ask().is_err(), "{answer}");
        }
    }
}
