//! Cuts one stream into log messages by dockerd's rules.
//!
//! A message is a line, or 16 KiB of a longer one, or what is left at the end. Only what ended in a newline
//! gets one in the log, and all pieces of a line carry the time of the first.

use sys::clock::Stamp;

use super::escape;

/// The longest message in bytes: dockerd's copier has a buffer of this size.
pub(crate) const MESSAGE_BYTES: usize = 16 << 10;

/// One message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    /// Its bytes, without the newline.
    pub(crate) content: &'a [u8],
    /// Whether a newline ended it.
    pub(crate) newline: bool,
    /// Its time.
    pub(crate) stamp: &'a Stamp,
}

/// The state between two reads of one stream. Empty, it holds no memory.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    /// The beginning of a line, shorter than [`MESSAGE_BYTES`].
    pending: Vec<u8>,
    /// The time of the line's first piece, if pieces of it were handed out.
    split_since: Option<Stamp>,
}

impl Splitter {
    /// Takes what was read at `now` and hands out the messages it completes.
    pub(crate) fn push(&mut self, bytes: &[u8], now: &Stamp, mut emit: impl FnMut(Piece<'_>)) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = MESSAGE_BYTES - self.pending.len();
            let window = &rest[..rest.len().min(room)];
            let Some(length) = escape::find_newline(window) else {
                rest = &rest[window.len()..];
                if window.len() < room {
                    self.pending.extend_from_slice(window);
                } else {
                    let stamp = *self.split_since.get_or_insert(*now);
                    self.hand_out(window, false, &stamp, &mut emit);
                }
                continue;
            };
            let stamp = self.split_since.take().unwrap_or(*now);
            self.hand_out(&window[..length], true, &stamp, &mut emit);
            rest = &rest[length + 1..];
        }
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
    }

    /// Hands out the unfinished line at the end of the stream.
    pub(crate) fn finish(&mut self, now: &Stamp, mut emit: impl FnMut(Piece<'_>)) {
        if !self.pending.is_empty() {
            let stamp = self.split_since.take().unwrap_or(*now);
            self.hand_out(&[], false, &stamp, &mut emit);
        }
        *self = Self::default();
    }

    fn hand_out(
        &mut self,
        tail: &[u8],
        newline: bool,
        stamp: &Stamp,
        emit: &mut impl FnMut(Piece<'_>),
    ) {
        let mut piece = Piece {
            content: tail,
            newline,
            stamp,
        };
        if self.pending.is_empty() {
            emit(piece);
            return;
        }
        self.pending.extend_from_slice(tail);
        piece.content = &self.pending;
        emit(piece);
        self.pending.clear();
    }
}
