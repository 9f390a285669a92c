//! The identity of a container: 64 hexadecimal digits, also the name of every kernel object it owns.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Bytes of randomness in an id; their hexadecimal form is what clients see.
const ID_BYTES: usize = 32;

/// Digits of the short form that `docker ps` shows and that is the default hostname.
const SHORT_DIGITS: usize = 12;

/// A container's id. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(Arc<str>);

impl ContainerId {
    /// Makes a new random id whose short form is not a number, since a hostname of digits confuses
    /// resolvers (moby `stringid.GenerateRandomID`).
    ///
    /// # Errors
    /// The errno of reading the kernel's random source.
    pub fn random() -> std::io::Result<Self> {
        loop {
            let id = random_hex()?;
            if id.as_bytes()[..SHORT_DIGITS]
                .iter()
                .any(u8::is_ascii_alphabetic)
            {
                return Ok(Self(id.into()));
            }
        }
    }

    /// The full 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits.
    pub fn short(&self) -> &str {
        &self.0[..SHORT_DIGITS]
    }
}

/// 64 random hexadecimal digits, for containers and execs.
///
/// # Errors
/// The errno of reading the kernel's random source.
pub(crate) fn random_hex() -> std::io::Result<String> {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * ID_BYTES);
    for byte in sys::random::bytes::<ID_BYTES>()? {
        write!(text, "{byte:02x}").expect("a String takes every write");
    }
    Ok(text)
}

/// A random number.
///
/// # Errors
/// The errno of reading the kernel's random source.
pub(crate) fn random_number() -> std::io::Result<u64> {
    Ok(u64::from_le_bytes(sys::random::bytes()?))
}

/// A text that is not 64 lower-case hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("not a container id: {0:?}")]
pub struct NotAnId(String);

impl FromStr for ContainerId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 2 * ID_BYTES && text.bytes().all(digit) {
            Ok(Self(text.into()))
        } else {
            Err(NotAnId(text.to_owned()))
        }
    }
}

impl std::borrow::Borrow<str> for ContainerId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

impl serde::Serialize for ContainerId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for ContainerId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_id_parses_and_its_short_form_is_no_number() {
        let id = ContainerId::random().unwrap();
        assert_eq!(id.as_str().parse::<ContainerId>().unwrap(), id);
        assert!(id.short().parse::<u64>().is_err());
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "abc", &"g".repeat(64), &"A".repeat(64), &"a".repeat(65)] {
            assert!(text.parse::<ContainerId>().is_err(), "{text}");
        }
    }
}
