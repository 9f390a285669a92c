//! Writing JSON as Go's encoder does.

use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter};

/// Encodes a whole answer: compact, `<`, `>` and `&` as they are, one newline at the end.
#[must_use]
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(INITIAL_BYTES);
    write(&mut out, value, Escaped::Separators);
    out.push(b'\n');
    out
}

/// Encodes one message of a stream with its own line end (`\r\n` in progress streams). Here dockerd leaves Go's
/// default on, so `<`, `>` and `&` are escaped too.
#[must_use]
pub fn encode_line<T: Serialize + ?Sized>(value: &T, end: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(INITIAL_BYTES);
    write(&mut out, value, Escaped::Markup);
    out.extend_from_slice(end.as_bytes());
    out
}

/// Most answers fit without growing the buffer more than twice.
const INITIAL_BYTES: usize = 1024;

fn write<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T, escaped: Escaped) {
    let mut serializer = serde_json::Serializer::with_formatter(out, GoFormatter { escaped });
    value
        .serialize(&mut serializer)
        .expect("wire types have string keys and writing to memory does not fail");
}

/// What is escaped beyond what JSON demands.
#[derive(Clone, Copy)]
enum Escaped {
    /// U+2028 and U+2029, which end a line in JavaScript.
    Separators,
    /// Those, and `<`, `>` and `&`.
    Markup,
}

/// First byte of [`Escaped::Separators`] in UTF-8, and of their neighbours.
const SEPARATOR_LEAD: u8 = 0xe2;

impl Escaped {
    /// Where the next character begins that may be one of these: nearly all of an answer is passed over here.
    fn candidate(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Separators => memchr::memchr(SEPARATOR_LEAD, bytes),
            Self::Markup => bytes
                .iter()
                .position(|byte| matches!(byte, b'<' | b'>' | b'&' | &SEPARATOR_LEAD)),
        }
    }

    fn holds(self, c: char) -> bool {
        match c {
            '\u{2028}' | '\u{2029}' => true,
            '<' | '>' | '&' => matches!(self, Self::Markup),
            _ => false,
        }
    }
}

/// serde_json's compact form with Go's escapes.
struct GoFormatter {
    escaped: Escaped,
}

impl Formatter for GoFormatter {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        to: &mut W,
        text: &str,
    ) -> io::Result<()> {
        let (mut written, mut looked_at) = (0, 0);
        while let Some(at) = self.escaped.candidate(&text.as_bytes()[looked_at..]) {
            let at = looked_at + at;
            let c = text[at..].chars().next().unwrap_or_default();
            looked_at = at + c.len_utf8();
            if self.escaped.holds(c) {
                to.write_all(&text.as_bytes()[written..at])?;
                write!(to, "\\u{:04x}", u32::from(c))?;
                written = looked_at;
            }
        }
        to.write_all(&text.as_bytes()[written..])
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
    fn neighbours_of_what_is_escaped_are_not() {
        // E2 is the first byte of each of these, and E2 80 the first two of most.
        let text = "€ \u{2027}\u{2028}\u{202a}‹&›\u{2029}…";
        let answer = "\"€ \u{2027}\\u2028\u{202a}‹&›\\u2029…\"\n";
        assert_eq!(String::from_utf8(encode(text)).unwrap(), answer);
        let message = "\"€ \u{2027}\\u2028\u{202a}‹\\u0026›\\u2029…\"\n";
        assert_eq!(String::from_utf8(encode_line(text, "\n")).unwrap(), message);
    }

    #[test]
    fn lines_end_as_told() {
        assert_eq!(encode_line(&1, "\r\n"), b"1\r\n");
    }
}
