//! The log files: appending lines, rotating, and surviving a disk that is full.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Piece, escape};
use crate::protocol;

/// Mode of a log file, as dockerd's: readable for the group that may read logs.
const MODE: u32 = 0o640;

/// Lines are collected up to this many bytes before they are written: one read's worth, roughly.
const BATCH_BYTES: usize = 128 << 10;

/// How far back the end of a file is searched for a line that a killed shim left unfinished: longer than
/// the longest line (a 16 KiB message, each byte escaped to six, and its attributes).
const TORN_LINE_BYTES: u64 = 256 << 10;

/// Writes one container's log.
///
/// Lines are counted as dropped, never retried: an application must not wait for a disk.
#[derive(Debug)]
pub(crate) struct Writer {
    path: PathBuf,
    file: File,
    /// Bytes in the file.
    size: u64,
    /// The size from which the next line goes into a new file.
    rotate_at: Option<u64>,
    max_size: Option<u64>,
    max_files: u32,
    /// `,"attrs":{…}`, ready for each line; empty without attributes.
    attributes: Vec<u8>,
    /// Lines to be written.
    batch: Vec<u8>,
    lines_dropped: u64,
    failing: bool,
    failure: Option<String>,
}

impl Writer {
    /// Opens or makes the file. What a killed shim left of an unfinished line is cut off.
    ///
    /// # Errors
    /// The errno of open or stat.
    pub(crate) fn open(log: &protocol::Log) -> io::Result<Self> {
        let mut file = open(&log.path, Existing::Keep)?;
        let size = cut_torn_line(&mut file)?;
        let max_size = log.max_size_bytes.filter(|&bytes| bytes > 0);
        Ok(Self {
            path: log.path.clone(),
            file,
            size,
            rotate_at: max_size,
            max_size,
            max_files: log.max_files.max(1),
            attributes: attributes(&log.attributes),
            batch: Vec::new(),
            lines_dropped: 0,
            failing: false,
            failure: None,
        })
    }

    /// Adds one message of `stream` (`stdout` or `stderr`). It is in the file after [`Writer::flush`].
    pub(crate) fn append(&mut self, stream: &str, piece: Piece<'_>) {
        let ahead = self.size + self.batch.len() as u64;
        if self.rotate_at.is_some_and(|limit| ahead >= limit) {
            self.flush();
            self.rotate();
        }
        let out = &mut self.batch;
        out.extend_from_slice(b"{\"log\":\"");
        escape::escape(piece.content, out);
        out.extend_from_slice(if piece.newline { b"\\n" } else { b"" });
        out.extend_from_slice(b"\",\"stream\":\"");
        out.extend_from_slice(stream.as_bytes());
        out.push(b'"');
        out.extend_from_slice(&self.attributes);
        out.extend_from_slice(b",\"time\":\"");
        out.extend_from_slice(piece.stamp.as_bytes());
        out.extend_from_slice(b"\"}\n");
        if out.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Writes what was added. What the disk does not take is dropped and counted.
    pub(crate) fn flush(&mut self) {
        let mut written = 0;
        while written < self.batch.len() {
            match self.file.write(&self.batch[written..]) {
                Ok(0) => {
                    self.drop_from(written, &io::ErrorKind::WriteZero.into());
                    break;
                }
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.drop_from(written, &error);
                    break;
                }
            }
        }
        if written == self.batch.len() && written > 0 {
            self.size += written as u64;
            self.failing = false;
        }
        self.batch.clear();
    }

    /// Gives the memory of the batch back.
    pub(crate) fn release_memory(&mut self) {
        self.batch = Vec::new();
    }

    /// Lines dropped since the file was opened.
    pub(crate) fn lines_dropped(&self) -> u64 {
        self.lines_dropped
    }

    /// The failure that began since the last call, once.
    pub(crate) fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    /// Keeps whole lines in the file, counts the rest of the batch as dropped.
    fn drop_from(&mut self, written: usize, error: &io::Error) {
        let whole = self.batch[..written]
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        let lost = &self.batch[whole..];
        self.lines_dropped += lost.iter().filter(|&&byte| byte == b'\n').count() as u64;
        self.size += whole as u64;
        if written > whole
            && let Err(cut) = self.file.set_len(self.size)
        {
            // The torn line stays and ends where the next one begins; readers skip what does not parse.
            self.fail(format!("cut torn line of {}: {cut}", self.path.display()));
        }
        self.fail(format!("write {}: {error}", self.path.display()));
    }

    fn fail(&mut self, message: String) {
        if !self.failing {
            self.failing = true;
            self.failure = Some(message);
        }
    }

    /// Renames `x.n-1` to `x.n` down to `x` to `x.1` and begins anew. One file alone is replaced: who reads it still
    /// has the old one to its end, and sees that there is another.
    fn rotate(&mut self) {
        let reopened = match self.max_files {
            0 | 1 => replace(&self.path),
            _ => self
                .rename_all()
                .and_then(|()| open(&self.path, Existing::Empty)),
        };
        match reopened {
            Ok(file) => {
                self.file = file;
                self.size = 0;
                self.rotate_at = self.max_size;
            }
            Err(error) => {
                // Writing goes on in the present file; the next attempt comes after as much again.
                self.rotate_at = self.max_size.map(|limit| self.size.saturating_add(limit));
                self.fail(format!("rotate {}: {error}", self.path.display()));
            }
        }
    }

    /// Goes up to the first number that is free, so that a `max-file` of thousands of millions costs nothing.
    fn rename_all(&self) -> io::Result<()> {
        let is_free = |number: &u32| numbered(&self.path, *number).symlink_metadata().is_err();
        let oldest = self.max_files - 1;
        let last = (1..oldest).find(is_free).unwrap_or(oldest);
        for number in (1..=last).rev() {
            let from = match number {
                1 => self.path.clone(),
                _ => numbered(&self.path, number - 1),
            };
            match std::fs::rename(from, numbered(&self.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn replace(path: &Path) -> io::Result<File> {
    let mut hidden = path.as_os_str().to_owned();
    hidden.push(".new");
    let file = open(Path::new(&hidden), Existing::Empty)?;
    std::fs::rename(&hidden, path)?;
    Ok(file)
}

enum Existing {
    Keep,
    Empty,
}

fn open(path: &Path, existing: Existing) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(MODE)
        .open(path)
        .and_then(|file| match existing {
            Existing::Keep => Ok(file),
            Existing::Empty => file.set_len(0).map(|()| file),
        })
}

/// Cuts the file after its last newline; returns its size.
fn cut_torn_line(file: &mut File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let from = size.saturating_sub(TORN_LINE_BYTES);
    let mut last = [0];
    if size > 0 {
        file.seek(SeekFrom::Start(size - 1))?;
        file.read_exact(&mut last)?;
    }
    if size == 0 || last == *b"\n" {
        return Ok(size);
    }
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.read_to_end(&mut tail)?;
    let whole = match tail.iter().rposition(|&byte| byte == b'\n') {
        Some(at) => from + at as u64 + 1,
        None => from,
    };
    file.set_len(whole)?;
    Ok(whole)
}

fn attributes(attributes: &std::collections::BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in attributes {
        out.extend_from_slice(if out.is_empty() {
            b",\"attrs\":{\""
        } else {
            b",\""
        });
        escape::escape(name.as_bytes(), &mut out);
        out.extend_from_slice(b"\":\"");
        escape::escape(value.as_bytes(), &mut out);
        out.push(b'"');
    }
    if !out.is_empty() {
        out.push(b'}');
    }
    out
}
