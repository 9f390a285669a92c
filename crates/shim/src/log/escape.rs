//! JSON strings as Go's `encoding/json` and dockerd's log writer escape them.
//!
//! Short forms for `"`, `\`, newline and carriage return only; `<`, `>`, `&` and the separators U+2028 and
//! U+2029 as `\u` escapes; every byte that is not part of valid UTF-8 as `\ufffd`.

/// How many bytes are examined at once; the compiler turns the check of a block into vector instructions.
const BLOCK: usize = 32;

/// Whether a byte cannot be copied as it is.
fn is_special(byte: u8) -> bool {
    // As a signed number: control characters are below 0x20, and so are all bytes from 0x80.
    let outside = byte.cast_signed() < 0x20;
    outside | (byte == b'"') | (byte == b'\\') | (byte == b'<') | (byte == b'>') | (byte == b'&')
}

/// How many bytes at the start satisfy none of `matches`.
fn prefix_without(bytes: &[u8], matches: impl Fn(u8) -> bool) -> usize {
    let clean = bytes
        .chunks_exact(BLOCK)
        .take_while(|block| !block.iter().fold(false, |any, &byte| any | matches(byte)))
        .count()
        * BLOCK;
    let rest = &bytes[clean..];
    clean + rest.iter().position(|&b| matches(b)).unwrap_or(rest.len())
}

/// The position of the first newline.
pub(super) fn find_newline(bytes: &[u8]) -> Option<usize> {
    let at = prefix_without(bytes, |byte| byte == b'\n');
    (at < bytes.len()).then_some(at)
}

/// Appends the escaped form of `content`, without quotation marks.
pub(super) fn escape(content: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut rest = content;
    loop {
        let clean = prefix_without(rest, is_special);
        out.extend_from_slice(&rest[..clean]);
        rest = &rest[clean..];
        let Some(&byte) = rest.first() else { return };
        match byte {
            0x80.. => {
                let length = rest.iter().position(u8::is_ascii).unwrap_or(rest.len());
                escape_beyond_ascii(&rest[..length], out);
                rest = &rest[length..];
                continue;
            }
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            _ => {
                let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[high], HEX[low]]);
            }
        }
        rest = &rest[1..];
    }
}

fn escape_beyond_ascii(span: &[u8], out: &mut Vec<u8>) {
    for chunk in span.utf8_chunks() {
        let mut valid = chunk.valid();
        while let Some(at) = valid.find(['\u{2028}', '\u{2029}']) {
            out.extend_from_slice(&valid.as_bytes()[..at]);
            let last = valid.as_bytes()[at + 2];
            out.extend_from_slice(if last == 0xa8 { b"\\u2028" } else { b"\\u2029" });
            valid = &valid[at + 3..];
        }
        out.extend_from_slice(valid.as_bytes());
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}
