//! The reserve: what an image leaves free on the file system it comes to.
//!
//! A small archive can hold terabytes. What writes an image looks at the free space every few MiB and gives up while
//! the containers' own files and the state database still have room.

use std::io;
use std::os::fd::AsFd;

use sys::file;

/// Kept free, in bytes: containers go on writing while a pull is refused and its files are removed.
const RESERVE_BYTES_MAX: u64 = 128 << 20;
/// The part of a small file system that is kept free, as a divisor; of the number of its files too.
const RESERVE_PART: u64 = 32;
/// Bytes written between two looks: eight unpackers at once stay within the reserve.
const LOOK_BYTES_MAX: u64 = 4 << 20;
/// Looks that one writer makes while it uses up the reserve.
const LOOKS_PER_RESERVE: u64 = 4;
/// What a new file, directory or link takes beside its content, in bytes: a block of most file systems.
pub(crate) const ENTRY_BYTES: u64 = 4096;

/// Counts what one writer writes, and looks at the free space in time.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    /// Bytes that may be written before the next look.
    left: u64,
}

impl Guard {
    /// Counts `bytes` that were written to the file system of `on`.
    ///
    /// # Errors
    /// `StorageFull` when the reserve would be used; the errno of fstatvfs.
    pub(crate) fn wrote(&mut self, on: impl AsFd, bytes: u64) -> io::Result<()> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => self.look(on, 0),
        }
    }

    /// Looks whether `bytes` more fit.
    ///
    /// # Errors
    /// As [`Guard::wrote`].
    pub(crate) fn wants(&mut self, on: impl AsFd, bytes: u64) -> io::Result<()> {
        if bytes <= self.left {
            return Ok(());
        }
        self.look(on, bytes)
    }

    fn look(&mut self, on: impl AsFd, bytes: u64) -> io::Result<()> {
        let room = file::room(on)?;
        let reserve = (room.total_bytes / RESERVE_PART).min(RESERVE_BYTES_MAX);
        if room.free_bytes < reserve.saturating_add(bytes) {
            let (free, reserve) = (mebibytes(room.free_bytes), mebibytes(reserve));
            return Err(full(&if bytes == 0 {
                format!("{free} MiB are free, and {reserve} MiB stay reserved")
            } else {
                let more = mebibytes(bytes);
                format!(
                    "{free} MiB are free, {more} MiB more are needed, and {reserve} MiB stay reserved"
                )
            }));
        }
        if room.total_files > 0 && room.free_files < room.total_files / RESERVE_PART {
            let free = room.free_files;
            return Err(full(&format!(
                "{free} files can still be made, and they stay reserved"
            )));
        }
        self.left = (reserve / LOOKS_PER_RESERVE).min(LOOK_BYTES_MAX);
        Ok(())
    }
}

fn mebibytes(bytes: u64) -> u64 {
    bytes >> 20
}

fn full(why: &str) -> io::Error {
    let text = format!("No space left on device: {why}");
    io::Error::new(io::ErrorKind::StorageFull, text)
}
