//! Where the daemon's log goes: one line for each event, whatever stands in it.
//!
//! Clients choose words that land in the log (names, paths, commands), and must not be able to write lines of their own.

use std::io::{self, Write};

/// Writes each event as one line; a line break inside of it becomes `\n` or `\r`.
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
                other => line.push(*other),
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
        for event in ["plain\n", "a\nERROR forged\r\n", "no end"] {
            lines.write_all(event.as_bytes()).unwrap();
        }
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "plain\na\\nERROR forged\\r\nno end"
        );
    }
}
