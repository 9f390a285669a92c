//! Writing JSON as Go's encoder does.

use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter};

/// Encodes a whole answer: compact, `<`, `>` and `&` as they are, one newline at the end.
#[must_use]
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(INITIAL_BYTES);
    write(&mut out, value, &['\u{2028}', '\u{2029}']);
    out.push(b'\n');
    out
}

/// Encodes one message of a stream with its own line end (`\r\n` in progress streams). Here dockerd leaves Go's
/// default on, so `<`, `>` and `&` are escaped too.
#[must_use]
pub fn encode_line<T: Serialize + ?Sized>(value: &T, end: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(INITIAL_BYTES);
    write(&mut out, value, &['<', '>', '&', '\u{2028}', '\u{2029}']);
    out.extend_from_slice(end.as_bytes());
    out
}

/// Most answers fit without growing the buffer more than twice.
const INITIAL_BYTES: usize = 1024;

fn write<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T, escaped: &'static [char]) {
    let mut serializer = serde_json::Serializer::with_formatter(out, GoFormatter { escaped });
    value
        .serialize(&mut serializer)
        .expect("wire types have string keys and writing to memory does not fail");
}

/// serde_json's compact form with Go's escapes.
struct GoFormatter {
    escaped: &'static [char],
}

impl Formatter for GoFormatter {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        to: &mut W,
        text: &str,
    ) -> io::Result<()> {
        let mut rest = text;
        while let Some(at) = rest.find(self.escaped) {
            let (plain, tail) = rest.split_at(at);
            to.write_all(plain.as_bytes())?;
            let mut chars = tail.chars();
            write!(to, "\\u{:04x}", u32::from(chars.next().unwrap_or_default()))?;
            rest = chars.as_str();
        }
        to.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: io::Write + ?Sized>(
        &mut self,
        to: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        let short: &[u8] = match escape {
            CharEscape::Quote => b"\\\"",
            CharEscape::ReverseSolidus => b"\\\\",
            CharEscape::Solidus => b"/",
            CharEscape::Backspace => b"\\b",
            CharEscape::FormFeed => b"\\f",
            CharEscape::LineFeed => b"\\n",
            CharEscape::CarriageReturn => b"\\r",
            CharEscape::Tab => b"\\t",
            CharEscape::AsciiControl(byte) => return write!(to, "\\u{byte:04x}"),
        };
        to.write_all(short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_gos() {
        let text = "<a href=\"x\">&\u{2028}\u{1}\u{8}\n\u{7f}é/";
        let answer = "\"<a href=\\\"x\\\">&\\u2028\\u0001\\b\\n\u{7f}é/\"\n";
        assert_eq!(String::from_utf8(encode(text)).unwrap(), answer);
        let message = "\"\\u003ca href=\\\"x\\\"\\u003e\\u0026\\u2028\\u0001\\b\\n\u{7f}é/\"\n";
        assert_eq!(String::from_utf8(encode_line(text, "\n")).unwrap(), message);
    }

    #[test]
    fn lines_end_as_told() {
        assert_eq!(encode_line(&1, "\r\n"), b"1\r\n");
    }
}
