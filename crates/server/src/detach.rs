//! The keys that leave an attached terminal without ending what runs in it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// Keys that leave when none are given: ctrl-p ctrl-q.
const DEFAULT: [u8; 2] = [16, 17];

/// Finds the detach keys in a stream of input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    seen: usize,
}

impl DetachKeys {
    /// Reads `ctrl-a,b,ctrl-@`; empty means ctrl-p ctrl-q.
    ///
    /// # Errors
    /// dockerd's words when a key is unknown.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self {
                keys: DEFAULT.to_vec(),
                seen: 0,
            });
        }
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        match keys {
            Some(keys) => Ok(Self { keys, seen: 0 }),
            None => Err(format!("Invalid detach keys ({text}) provided")),
        }
    }

    /// The keys as the inspection of an exec shows them: base64, and nothing when none were given.
    pub(crate) fn shown(text: &str) -> String {
        let keys = Self::parse(text).ok().filter(|_| !text.is_empty());
        keys.map(|keys| STANDARD.encode(keys.keys))
            .unwrap_or_default()
    }

    /// What of `input` goes on to the process, and whether the keys were completed. A beginning of the keys is held
    /// back until it turns out to be none.
    pub(crate) fn filter(&mut self, input: &[u8]) -> (Bytes, bool) {
        let mut out = Vec::with_capacity(input.len());
        for &byte in input {
            if self.keys.get(self.seen) == Some(&byte) {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return (out.into(), true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.seen]);
            self.seen = usize::from(self.keys.first() == Some(&byte));
            if self.seen == 0 {
                out.push(byte);
            }
        }
        (out.into(), false)
    }
}

fn key(text: &str) -> Option<u8> {
    let control = |c: u8| match c {
        b'a'..=b'z' => Some(c - b'a' + 1),
        b'@' => Some(0),
        b'[' => Some(27),
        b'\\' => Some(28),
        b']' => Some(29),
        b'^' => Some(30),
        b'_' => Some(31),
        _ => None,
    };
    match (
        text.as_bytes(),
        text.strip_prefix("ctrl-").map(str::as_bytes),
    ) {
        ([byte], _) => Some(*byte),
        (_, Some([byte])) => control(*byte),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(keys: &str, inputs: &[&str]) -> (String, bool) {
        let mut keys = DetachKeys::parse(keys).unwrap();
        let mut all = String::new();
        for input in inputs {
            let (out, left) = keys.filter(input.as_bytes());
            all.push_str(std::str::from_utf8(&out).unwrap());
            if left {
                return (all, true);
            }
        }
        (all, false)
    }

    #[test]
    fn keys_are_found_across_reads_and_half_ones_go_through() {
        assert_eq!(run("", &["ab\x10\x11cd"]), ("ab".to_owned(), true));
        assert_eq!(run("", &["a\x10", "\x11"]), ("a".to_owned(), true));
        assert_eq!(run("", &["a\x10", "b"]), ("a\x10b".to_owned(), false));
        assert_eq!(run("", &["\x10\x10\x11"]), ("\x10".to_owned(), true));
        assert_eq!(run("ctrl-a,x", &["x\x01x"]), ("x".to_owned(), true));
        assert_eq!(run("q", &["abq"]), ("ab".to_owned(), true));
    }

    #[test]
    fn unknown_keys_are_told() {
        assert_eq!(
            DetachKeys::parse("ctrl-1").unwrap_err(),
            "Invalid detach keys (ctrl-1) provided"
        );
        assert!(DetachKeys::parse("a,,b").is_err());
    }
}
