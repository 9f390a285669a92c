//! Decompression on a thread of its own, so that inflating and writing files overlap.
//!
//! The compressed form is told by its first bytes, never by a media type. Buffers go round between the two
//! threads: memory is bounded whatever the stream holds.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::Scope;

use crate::digest::{Algorithm, Digest, Hasher};

/// Size of one buffer, in bytes: large enough that the hand-over costs nothing.
const BUFFER_BYTES: usize = 512 * 1024;
/// Buffers on their way: what one thread may be ahead of the other.
const BUFFERS_AHEAD: usize = 4;
/// Read-ahead on the compressed stream, in bytes.
const INPUT_BYTES: usize = 256 * 1024;
/// Largest zstd window, as a power of two: the format's own default limit (128 MiB, touched only as far as
/// a frame really uses it).
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// A stream with its compression taken off: gzip (any number of members), zstd, or none.
///
/// # Errors
/// The stream's error while the first bytes are read.
pub(crate) fn decompressed<'a>(
    mut input: Box<dyn Read + Send + 'a>,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut magic = Vec::with_capacity(ZSTD_MAGIC.len());
    let wanted = u64::try_from(ZSTD_MAGIC.len()).expect("four");
    input.by_ref().take(wanted).read_to_end(&mut magic)?;
    let is_gzip = magic.starts_with(GZIP_MAGIC);
    let is_zstd = magic.starts_with(ZSTD_MAGIC);
    let input = BufReader::with_capacity(INPUT_BYTES, io::Cursor::new(magic).chain(input));
    if is_gzip {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(input)));
    }
    if is_zstd {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(input))
}

/// The uncompressed stream, read ahead by another thread and hashed on the way if asked for.
#[derive(Debug)]
pub(crate) struct Pipeline<'a> {
    filled: Receiver<io::Result<Vec<u8>>>,
    empties: Sender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
    hasher: Option<Hasher>,
    ended: bool,
    /// Ends it between two buffers: what is compressed in one piece of input may be without end.
    stop: &'a AtomicBool,
}

impl<'a> Pipeline<'a> {
    /// Begins to decompress `input` on a thread of `scope`. Dropping the pipeline ends the thread.
    pub(crate) fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        input: Box<dyn Read + Send + 'scope>,
        hash: Option<Algorithm>,
        stop: &'a AtomicBool,
    ) -> Self {
        let (to_reader, filled) = sync_channel(BUFFERS_AHEAD);
        let (empties, to_fill) = channel();
        scope.spawn(move || {
            // The receiver has gone when it met an error of its own: nobody waits for ours.
            if let Err(error) = fill(input, &to_reader, &to_fill) {
                // A reader that has gone has its own error to tell.
                drop(to_reader.send(Err(error)));
            }
        });
        Self {
            filled,
            empties,
            current: Vec::new(),
            position: 0,
            hasher: hash.map(Hasher::new),
            ended: false,
            stop,
        }
    }

    /// The digest of everything read, if it was asked for.
    pub(crate) fn digest(self) -> Option<Digest> {
        self.hasher.map(Hasher::finish)
    }
}

fn fill(
    input: Box<dyn Read + Send + '_>,
    to_reader: &SyncSender<io::Result<Vec<u8>>>,
    to_fill: &Receiver<Vec<u8>>,
) -> io::Result<()> {
    let mut input = decompressed(input)?;
    loop {
        let mut buffer = to_fill.try_recv().unwrap_or_default();
        buffer.resize(BUFFER_BYTES, 0);
        let mut length = 0;
        while length < BUFFER_BYTES {
            match input.read(&mut buffer[length..]) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(length);
        if length == 0 || to_reader.send(Ok(buffer)).is_err() {
            return Ok(());
        }
    }
}

impl Read for Pipeline<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(into.len());
        into[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Pipeline<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.current.len() && !self.ended {
            let used = std::mem::take(&mut self.current);
            self.position = 0;
            if self.stop.load(Ordering::Relaxed) {
                self.ended = true;
                return Err(io::Error::other("the unpacking was given up"));
            }
            if used.capacity() > 0 && self.empties.send(used).is_err() {
                tracing::trace!("the decompressing thread has read everything");
            }
            match self.filled.recv() {
                Ok(Ok(buffer)) => {
                    if let Some(hasher) = &mut self.hasher {
                        hasher.update(&buffer);
                    }
                    self.current = buffer;
                }
                Ok(Err(error)) => {
                    self.ended = true;
                    return Err(error);
                }
                Err(_) => self.ended = true,
            }
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, length: usize) {
        self.position += length;
    }
}
