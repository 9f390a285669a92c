//! PAX extended headers: records of one entry, parsed within bounds and with Go's strictness.
//!
//! A record that two readers could understand differently is an error, never a guess.

use super::reader::TarError;

/// Key and value of each record, in order: sparse 0.0 repeats keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    /// Parses the body of an `x` header: `<length> <key>=<value>\n` again and again.
    pub(crate) fn parse(mut bytes: &[u8]) -> Result<Self, TarError> {
        let bad = || TarError::Header("malformed PAX record");
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let space = bytes
                .iter()
                .take(20)
                .position(|c| *c == b' ')
                .ok_or_else(bad)?;
            let length = decimal(&bytes[..space]).ok_or_else(bad)?;
            let length = usize::try_from(length).map_err(|_| bad())?;
            if length <= space + 1 || length > bytes.len() {
                return Err(bad());
            }
            let (record, rest) = bytes.split_at(length);
            let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(bad)?;
            let equals = record.iter().position(|c| *c == b'=').ok_or_else(bad)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let names_a_file = matches!(key, b"path" | b"linkpath" | b"GNU.sparse.name");
            if key.is_empty() || key.contains(&0) || (names_a_file && value.contains(&0)) {
                return Err(bad());
            }
            records.push((key.to_vec(), value.to_vec()));
            bytes = rest;
        }
        Ok(Self(records))
    }

    /// The last value of `key`; an empty one counts as absent.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let mut found = self.0.iter().rev().filter(|(name, _)| name == key);
        found
            .next()
            .map(|(_, value)| value.as_slice())
            .filter(|value| !value.is_empty())
    }

    /// The last value of `key` as a number.
    pub(crate) fn number(&self, key: &[u8]) -> Result<Option<u64>, TarError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => decimal(value)
                .map(Some)
                .ok_or(TarError::Header("malformed number in a PAX record")),
        }
    }

    /// All records, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// The extended attributes, from the spellings of star and of libarchive.
    pub(crate) fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut list = Vec::new();
        for (key, value) in self.iter() {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                list.push((name.to_vec(), value.to_vec()));
            } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                // The name is percent-encoded, the value base64 without padding.
                if let (Some(name), Some(value)) = (percent_decoded(name), base64_decoded(value)) {
                    list.push((name, value));
                }
            }
        }
        list
    }
}

/// A decimal number without sign.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `seconds[.fraction]`, possibly negative, as seconds and nanoseconds.
pub(crate) fn time(value: &[u8]) -> Option<sys::file::Time> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let mut seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let mut nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        seconds = seconds.checked_sub(1)?;
        nanoseconds = 1_000_000_000 - nanoseconds;
    }
    Some(sys::file::Time {
        seconds,
        nanoseconds,
    })
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            decoded.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            decoded.push(*first);
            rest = after;
        }
    }
    Some(decoded)
}

fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in text.iter().take_while(|byte| **byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            let byte = (bits >> count) & 0xff;
            decoded.push(u8::try_from(byte).expect("masked to eight bits"));
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_in_order_and_the_last_wins() {
        let records = Records::parse(b"9 path=a\n9 path=b\n12 size=123\n9 mtime=\n").unwrap();
        assert_eq!(records.get(b"path"), Some(&b"b"[..]));
        assert_eq!(records.number(b"size").unwrap(), Some(123));
        assert_eq!(records.get(b"mtime"), None);
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for bad in [
            &b"5 a=b\n"[..],
            b"7 a=b\n",
            b"6 a=b ",
            b"6 abc\n",
            b"0 a=b\n",
            b"-6 a=b\n",
            b"+6 a=b\n",
            b"99999999999999999999999 a=b\n",
            b"6 =ab\n",
            b"10 path=\0\n",
            b"a",
        ] {
            assert!(
                Records::parse(bad).is_err(),
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
    }

    #[test]
    fn attributes_of_star_and_libarchive() {
        let records =
            Records::parse(b"23 SCHILY.xattr.a.b=c\n\n33 LIBARCHIVE.xattr.us%65r.x=QUI\n").unwrap();
        assert_eq!(
            records.xattrs(),
            [
                (b"a.b".to_vec(), b"c\n".to_vec()),
                (b"user.x".to_vec(), b"AB".to_vec())
            ]
        );
    }

    #[test]
    fn times_have_nanoseconds() {
        let check = |text: &[u8], seconds, nanoseconds| {
            assert_eq!(
                time(text),
                Some(sys::file::Time {
                    seconds,
                    nanoseconds
                })
            );
        };
        check(b"1", 1, 0);
        check(b"1.5", 1, 500_000_000);
        check(b"-1.25", -2, 750_000_000);
        check(b"1.1234567891", 1, 123_456_789);
        assert_eq!(time(b"1.x"), None);
        assert_eq!(time(b""), None);
    }
}
