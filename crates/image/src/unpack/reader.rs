//! THE tar reader: v7, ustar, PAX and GNU archives as a stream of entries, within bounds.
//!
//! Owns the framing: where one header ends and the next begins is decided here once, as Go's `archive/tar`
//! (and so Docker) decides it. Knows nothing of files: [`extract`](super::extract) makes those.

use std::io::{self, BufRead};

use sys::file::Time;

use super::pax::{self, Records};
use super::sparse::{self, Fragment};

/// Length of a header and unit of padding, in bytes.
const BLOCK: usize = 512;
/// The most bytes of a PAX header, a long name or a sparse map (Go's limit too).
pub(crate) const SPECIAL_BYTES_MAX: u64 = 1024 * 1024;
/// Headers that may stand before one entry: one of each kind, and some to spare.
const HEADERS_PER_ENTRY_MAX: usize = 16;
/// What may follow the end of the archive, in bytes: tar pads to its record size.
const TRAILING_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream failed or ended early.
    #[error("read the archive: {0}")]
    Read(#[from] io::Error),
    /// A header makes no sense.
    #[error("invalid tar header: {0}")]
    Header(&'static str),
    /// An entry of a type nobody writes into an image.
    #[error("unhandled tar header type {0:?}")]
    Type(char),
    /// More than the limit.
    #[error("{what} exceeds the limit of {limit}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    Regular,
    /// A second name of a file.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One entry; its content follows in the [`Tar`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, as written: not cleaned, not checked.
    pub path: Vec<u8>,
    /// What a link points to.
    pub link: Vec<u8>,
    /// Its kind.
    pub kind: EntryKind,
    /// Permission bits, setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Time of last change.
    pub modified: Time,
    /// Major device number.
    pub major: u32,
    /// Minor device number.
    pub minor: u32,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Length of the file in bytes, holes included.
    pub size_bytes: u64,
    /// Where the stored bytes belong, for a file with holes.
    pub(crate) fragments: Option<Vec<Fragment>>,
}

/// Reads entries from a stream.
#[derive(Debug)]
pub struct Tar<R> {
    input: R,
    /// Stored bytes of the current entry that were not read yet, and the padding after them.
    remaining: u64,
    padding: u64,
    ended: bool,
}

/// Headers that describe the entry after them.
#[derive(Default)]
struct Pending {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Records,
}

impl<R: BufRead> Tar<R> {
    /// Reads from the beginning of an uncompressed archive.
    pub fn new(input: R) -> Self {
        Self {
            input,
            remaining: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The next entry; what was not read of the last one is skipped. `None` at the end.
    ///
    /// # Errors
    /// [`TarError`]; the archive cannot be read on after it.
    #[expect(
        clippy::should_implement_trait,
        reason = "an entry's content is read in between"
    )]
    pub fn next(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip_rest()?;
        if self.ended {
            return Ok(None);
        }
        let mut pending = Pending::default();
        let mut is_described = false;
        for _ in 0..HEADERS_PER_ENTRY_MAX {
            let Some(header) = self.header()? else {
                if is_described {
                    return Err(TarError::Header(
                        "the archive ends after an extended header",
                    ));
                }
                return Ok(None);
            };
            is_described |= matches!(header.kind(), b'x' | b'L' | b'K');
            match header.kind() {
                b'x' => pending.records = Records::parse(&self.special(&header)?)?,
                b'L' => pending.path = Some(until_nul(&self.special(&header)?).to_vec()),
                b'K' => pending.link = Some(until_nul(&self.special(&header)?).to_vec()),
                // Global records: Docker ignores them (git archive writes a comment).
                b'g' => {
                    self.special(&header)?;
                }
                _ => return self.entry(&header, pending).map(Some),
            }
        }
        Err(TarError::Header(
            "too many extended headers before one entry",
        ))
    }

    /// Buffered bytes of the current entry's stored content; empty at its end.
    ///
    /// # Errors
    /// The stream's error, `UnexpectedEof` when it ends within the entry.
    pub fn content(&mut self) -> io::Result<&[u8]> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let buffer = self.input.fill_buf()?;
        if buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = usize::try_from(self.remaining)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        Ok(&buffer[..length])
    }

    /// Marks `length` bytes of what [`Tar::content`] gave as read.
    pub fn consume(&mut self, length: usize) {
        self.input.consume(length);
        self.remaining -= u64::try_from(length).expect("usize fits u64");
    }

    /// Reads to the end of the stream, padding included, so that a hash over it is whole.
    ///
    /// # Errors
    /// The stream's error; [`TarError::Limit`] when too much follows the archive.
    pub fn finish(mut self) -> Result<R, TarError> {
        let mut trailing = 0;
        loop {
            let length = self.input.fill_buf()?.len();
            if length == 0 {
                return Ok(self.input);
            }
            self.input.consume(length);
            trailing += u64::try_from(length).expect("usize fits u64");
            if trailing > TRAILING_BYTES_MAX {
                let what = "data after the end of the archive (bytes)";
                return Err(TarError::Limit {
                    what,
                    limit: TRAILING_BYTES_MAX,
                });
            }
        }
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        let mut left = self.remaining.saturating_add(self.padding);
        self.remaining = 0;
        self.padding = 0;
        while left > 0 {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let length = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            self.input.consume(length);
            left -= u64::try_from(length).expect("usize fits u64");
        }
        Ok(())
    }

    /// The next header block with its checksum verified; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut block = [0; BLOCK];
        let mut zeros = 0;
        loop {
            if !self.block(&mut block)? {
                // Go accepts an archive without the two blocks of zeros.
                self.ended = true;
                return Ok(None);
            }
            if block.iter().any(|byte| *byte != 0) {
                if zeros > 0 {
                    return Err(TarError::Header("data after a block of zeros"));
                }
                return Header::checked(block).map(Some);
            }
            zeros += 1;
            if zeros == 2 {
                self.ended = true;
                return Ok(None);
            }
        }
    }

    /// Reads one block; `false` at the end of the stream.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                if filled == 0 {
                    return Ok(false);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let length = buffer.len().min(BLOCK - filled);
            block[filled..filled + length].copy_from_slice(&buffer[..length]);
            self.input.consume(length);
            filled += length;
        }
        Ok(true)
    }

    /// The content of an extended header.
    fn special(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let size = header.size()?;
        if size > SPECIAL_BYTES_MAX {
            let what = "an extended tar header (bytes)";
            return Err(TarError::Limit {
                what,
                limit: SPECIAL_BYTES_MAX,
            });
        }
        self.begin(size)?;
        let mut bytes = Vec::new();
        loop {
            let content = self.content()?;
            if content.is_empty() {
                break;
            }
            bytes.extend_from_slice(content);
            let length = content.len();
            self.consume(length);
        }
        self.skip_rest()?;
        Ok(bytes)
    }

    fn begin(&mut self, stored: u64) -> Result<(), TarError> {
        let unit = u64::try_from(BLOCK).expect("512");
        let padded = stored.checked_next_multiple_of(unit);
        self.padding = padded.ok_or(TarError::Header("size overflow"))? - stored;
        self.remaining = stored;
        Ok(())
    }

    fn entry(&mut self, header: &Header, pending: Pending) -> Result<Entry, TarError> {
        let records = &pending.records;
        let own = |record: Option<&[u8]>, long: Option<Vec<u8>>, field: Vec<u8>| match record {
            Some(record) => record.to_vec(),
            None => long.unwrap_or(field),
        };
        let path = own(records.get(b"path"), pending.path, header.path());
        let link = own(records.get(b"linkpath"), pending.link, header.link());
        let stored = match records.number(b"size")? {
            Some(size) => size,
            None => header.size()?,
        };
        let kind = header.entry_kind(&path)?;
        let modified = match records.get(b"mtime") {
            Some(text) => pax::time(text).ok_or(TarError::Header("malformed time"))?,
            None => Time {
                seconds: numeric(header.field(136, 12))?,
                nanoseconds: 0,
            },
        };
        let is_device = matches!(kind, EntryKind::Character | EntryKind::Block);
        let device = |offset| {
            if is_device {
                header.device(offset)
            } else {
                Ok(0)
            }
        };
        let id = |record: Option<u64>, offset| match record {
            Some(id) => Ok(id),
            None => header.unsigned(offset, 8),
        };
        let mut entry = Entry {
            path,
            link,
            kind,
            mode: u32::try_from(header.unsigned(100, 8)? & 0o7777).expect("twelve bits"),
            uid: id(records.number(b"uid")?, 108)?,
            gid: id(records.number(b"gid")?, 116)?,
            modified,
            major: device(329)?,
            minor: device(337)?,
            xattrs: records.xattrs(),
            size_bytes: stored,
            fragments: None,
        };
        if kind == EntryKind::Regular {
            self.begin(stored)?;
            self.sparse(header, records, stored, &mut entry)?;
        } else {
            // As Go does: a size on what has no content counts for nothing.
            entry.size_bytes = 0;
        }
        Ok(entry)
    }

    /// Finds out whether the entry has holes, in any of the four ways GNU tar writes them.
    fn sparse(
        &mut self,
        header: &Header,
        records: &Records,
        stored: u64,
        entry: &mut Entry,
    ) -> Result<(), TarError> {
        let (fragments, real_size) = if header.kind() == b'S' {
            self.old_gnu_map(header)?
        } else {
            let Some(format) = sparse::pax_format(records) else {
                return Ok(());
            };
            if let Some(name) = records.get(b"GNU.sparse.name") {
                entry.path = name.to_vec();
            }
            let size = match records.number(b"GNU.sparse.realsize")? {
                Some(size) => Some(size),
                None => records.number(b"GNU.sparse.size")?,
            };
            let fragments = match format {
                sparse::PaxFormat::InData => self.map_in_data()?,
                sparse::PaxFormat::InRecords => sparse::from_records(records)?,
            };
            (fragments, size.unwrap_or(stored))
        };
        sparse::validate(&fragments, real_size, self.remaining)?;
        entry.size_bytes = real_size;
        entry.fragments = Some(fragments);
        Ok(())
    }

    /// The old GNU format: four fragments in the header, more in the blocks after it.
    fn old_gnu_map(&mut self, header: &Header) -> Result<(Vec<Fragment>, u64), TarError> {
        let mut fragments = Vec::new();
        sparse::push_gnu(&mut fragments, &header.0[386..482])?;
        let mut extended = header.0[482] != 0;
        let mut block = [0; BLOCK];
        while extended {
            sparse::check_count(fragments.len())?;
            if !self.block(&mut block)? {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            sparse::push_gnu(&mut fragments, &block[..504])?;
            extended = block[504] != 0;
        }
        Ok((fragments, header.unsigned(483, 12)?))
    }

    /// PAX format 1.0: the map stands in decimal lines before the content.
    fn map_in_data(&mut self) -> Result<Vec<Fragment>, TarError> {
        let mut map = sparse::MapInData::default();
        let mut block = [0; BLOCK];
        loop {
            let unit = u64::try_from(BLOCK).expect("512");
            if self.remaining < unit {
                return Err(TarError::Header("truncated sparse map"));
            }
            if !self.block(&mut block)? {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.remaining -= unit;
            if let Some(fragments) = map.push(&block)? {
                return Ok(fragments);
            }
        }
    }
}

/// A header block.
struct Header([u8; BLOCK]);

impl Header {
    fn checked(block: [u8; BLOCK]) -> Result<Self, TarError> {
        let header = Self(block);
        let stated = numeric(header.field(148, 8))?;
        let bytes = |number: usize| {
            if (148..156).contains(&number) {
                b' '
            } else {
                block[number]
            }
        };
        let unsigned: i64 = (0..BLOCK).map(|number| i64::from(bytes(number))).sum();
        // Some old tars summed signed characters.
        let signed: i64 = (0..BLOCK)
            .map(|number| i64::from(i8::from_ne_bytes([bytes(number)])))
            .sum();
        if stated != unsigned && stated != signed {
            return Err(TarError::Header("checksum mismatch"));
        }
        Ok(header)
    }

    fn field(&self, offset: usize, length: usize) -> &[u8] {
        &self.0[offset..offset + length]
    }

    fn kind(&self) -> u8 {
        self.0[156]
    }

    fn unsigned(&self, offset: usize, length: usize) -> Result<u64, TarError> {
        let number = numeric(self.field(offset, length))?;
        u64::try_from(number).map_err(|_| TarError::Header("negative number"))
    }

    fn size(&self) -> Result<u64, TarError> {
        self.unsigned(124, 12)
    }

    fn device(&self, offset: usize) -> Result<u32, TarError> {
        let number = self.unsigned(offset, 8)?;
        u32::try_from(number).map_err(|_| TarError::Header("device number out of range"))
    }

    /// The name, with the prefix field of ustar (which GNU uses for other things).
    fn path(&self) -> Vec<u8> {
        let name = until_nul(self.field(0, 100));
        let is_ustar = self.field(257, 6) == b"ustar\0";
        let prefix = until_nul(self.field(345, 155));
        if !is_ustar || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    fn link(&self) -> Vec<u8> {
        until_nul(self.field(157, 100)).to_vec()
    }

    fn entry_kind(&self, path: &[u8]) -> Result<EntryKind, TarError> {
        Ok(match self.kind() {
            // Before ustar a directory was a file whose name ends with a slash. As Go: only there.
            0 if path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' => EntryKind::Regular,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::Character,
            b'4' => EntryKind::Block,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => return Err(TarError::Type(char::from(other))),
        })
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or(field)
}

/// A number: octal digits, or GNU's base 256 in two's complement.
pub(crate) fn numeric(field: &[u8]) -> Result<i64, TarError> {
    let bad = TarError::Header("malformed number");
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut number: i128 = if negative { -1 } else { 0 };
        for (position, byte) in field.iter().enumerate() {
            // The topmost bit is the mark of the format, not of the number.
            let byte = if position == 0 {
                if negative { byte | 0x80 } else { byte & 0x7f }
            } else {
                *byte
            };
            number = (number << 8) | i128::from(byte);
        }
        return i64::try_from(number).map_err(|_| TarError::Header("number out of range"));
    }
    let digits = until_nul(field.trim_ascii_start()).trim_ascii_end();
    let digits = if field[0] == 0 { &[] } else { digits };
    if digits.is_empty() {
        return Ok(0);
    }
    if !digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
        return Err(bad);
    }
    let text = std::str::from_utf8(digits).map_err(|_| TarError::Header("malformed number"))?;
    i64::from_str_radix(text, 8).map_err(|_| bad)
}
