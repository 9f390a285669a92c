//! Where the daemon's log goes: one line for each event, whatever stands in it.
//!
//! Clients choose words that land in the log (names, paths, commands), and must not be able to write lines of their own.

use std::io::{self, Write};

/// Writes each event as one line of text: a line break inside of it becomes `\n` or `\r`, another control byte `\x00`,
/// or grep would take the log for a binary file. The subscriber has escaped ESC where it is not its own.
pub(super) struct Lines<W>(pub(super) W);

impl<W: Write> Write for Lines<W> {
    /// Gets whole events: the subscriber's layer writes each with one call.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let (content, end) = match event {
            [content @ .., b'\n'] => (content, &b"\n"[..]),
            content => (content, &b""[..]),
        };
        let mut line = Vec::with_capacity(event.len());
        for byte in content {
            match byte {
                b'\n' => line.extend_from_slice(b"\\n"),
                b'\r' => line.extend_from_slice(b"\\r"),
                b'\t' | 0x1b | b' '..=b'~' | 0x80.. => line.push(*byte),
                control => line.extend_from_slice(format!("\\x{control:02x}").as_bytes()),
            }
        }
        line.extend_from_slice(end);
        self.0.write_all(&line)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let mut written = Vec::new();
        let mut lines = Lines(&mut written);
        for event in [
            "plain\n",
            "a\nERROR forged\r\n",
            "a\0b\x07\x7f\tü\n",
            "no end",
        ] {
            lines.write_all(event.as_bytes()).unwrap();
        }
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "plain\na\\nERROR forged\\r\na\\x00b\\x07\\x7f\tü\nno end"
        );
    }
}
