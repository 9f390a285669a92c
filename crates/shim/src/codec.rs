//! Framing without I/O: `u32` little-endian length, then that many bytes of JSON.
//!
//! File descriptors travel beside it by `SCM_RIGHTS`, with the first byte of the message they belong to.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest message in bytes: a specification with the longest environment the kernel executes
/// (2 MiB), escaped.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Bytes of the length before each message.
const PREFIX_BYTES: usize = 4;

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The length is over [`MESSAGE_BYTES_MAX`]; the connection cannot be followed any further.
    #[error("message of {0} bytes is over the limit of {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
    /// The frame is whole but its content is not the expected value; the next frame can still be read.
    #[error("malformed message")]
    Malformed(#[source] serde_json::Error),
}

/// One message as a frame.
///
/// # Panics
/// Never for the types of [`crate::protocol`] (string keys only).
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut frame = vec![0; PREFIX_BYTES];
    serde_json::to_writer(&mut frame, message).expect("protocol types have string keys only");
    let length = u32::try_from(frame.len() - PREFIX_BYTES).unwrap_or(u32::MAX);
    frame[..PREFIX_BYTES].copy_from_slice(&length.to_le_bytes());
    frame
}

/// Cuts a byte stream into messages. Holds what has arrived of the next one, and nothing when idle.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// How many of `bytes` were already handed out.
    start: usize,
}

impl Decoder {
    /// An empty decoder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes as they arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`Error::TooLong`] as soon as the length is known, and again at each further call;
    /// [`Error::Malformed`] once per malformed frame.
    #[expect(
        clippy::should_implement_trait,
        reason = "each message may be of another type, which an iterator cannot say"
    )]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let pending = &self.bytes[self.start..];
        let Some((prefix, rest)) = pending.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        if length > MESSAGE_BYTES_MAX {
            return Err(Error::TooLong(length));
        }
        let Some(content) = rest.get(..length) else {
            return Ok(None);
        };
        let message = serde_json::from_slice(content).map_err(Error::Malformed);
        self.consume(PREFIX_BYTES + length);
        message.map(Some)
    }

    /// How many bytes the next message needs at least before [`Decoder::next`] can say more: who reads only so
    /// many never takes a byte of a stream that follows.
    #[must_use]
    pub fn missing(&self) -> usize {
        let pending = &self.bytes[self.start..];
        let Some((prefix, rest)) = pending.split_first_chunk::<PREFIX_BYTES>() else {
            return PREFIX_BYTES - pending.len();
        };
        let length = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        length.saturating_sub(rest.len())
    }

    /// The bytes that follow the last message taken: the beginning of the stream after an attach.
    #[must_use]
    pub fn into_rest(mut self) -> Vec<u8> {
        self.bytes.split_off(self.start)
    }

    fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        if self.start == self.bytes.len() {
            self.bytes = Vec::new();
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Notice, ProcessId, Reply, Request, Streams};

    #[test]
    fn messages_survive_any_cut() {
        let request = Request::Attach {
            process: ProcessId::Exec("e\"1".to_owned()),
            streams: Streams {
                stdin: true,
                stdout: false,
                stderr: true,
            },
        };
        let mut bytes = encode(&request);
        bytes.extend(encode(&Request::State));
        for cut in 0..=bytes.len() {
            let mut decoder = Decoder::new();
            let mut messages = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                decoder.push(part);
                while let Some(message) = decoder.next::<Request>().unwrap() {
                    messages.push(message);
                }
            }
            assert_eq!(messages, [request.clone(), Request::State], "cut {cut}");
            assert!(decoder.into_rest().is_empty());
        }
    }

    #[test]
    fn the_wire_is_what_the_documentation_says() {
        let wire = |message: &[u8]| String::from_utf8_lossy(&message[4..]).into_owned();
        assert_eq!(encode(&Reply::Ok), b"\x04\0\0\0\"ok\"");
        let process = ProcessId::Init;
        assert_eq!(
            wire(&encode(&Request::Acknowledge { process })),
            r#"{"acknowledge":{"process":"init"}}"#
        );
        assert_eq!(wire(&encode(&Notice::OutOfMemory)), r#""out_of_memory""#);
    }

    #[test]
    fn bytes_after_a_message_are_the_stream() {
        let mut decoder = Decoder::new();
        decoder.push(&encode(&Reply::Ok));
        decoder.push(b"raw bytes");
        assert_eq!(decoder.next::<Reply>().unwrap(), Some(Reply::Ok));
        assert_eq!(decoder.into_rest(), b"raw bytes");
    }

    #[test]
    fn a_malformed_frame_is_skipped_and_a_long_one_is_not() {
        let mut decoder = Decoder::new();
        decoder.push(b"\x01\0\0\0{");
        decoder.push(&encode(&Request::Start));
        assert!(matches!(
            decoder.next::<Request>(),
            Err(Error::Malformed(_))
        ));
        assert_eq!(decoder.next::<Request>().unwrap(), Some(Request::Start));
        let long = u32::try_from(MESSAGE_BYTES_MAX + 1).unwrap();
        decoder.push(&long.to_le_bytes());
        for _ in 0..2 {
            let error = decoder.next::<Request>().unwrap_err();
            assert!(matches!(error, Error::TooLong(n) if n == MESSAGE_BYTES_MAX + 1));
        }
    }
}
