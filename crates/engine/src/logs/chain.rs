//! The files of one log: `<path>`, and after rotations `<path>.1` (newest) to `<path>.N` (oldest).
//!
//! Owns where reading begins and which file follows which. A file is known by its inode, so that a
//! rotation under a reader's feet neither repeats nor skips a line. Must not parse lines.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use memchr::memrchr_iter;

/// Rotated files that are read: with a `max-file` above this (dockerd knows no limit there) older ones are kept on the
/// disk and not shown, since each is a descriptor while they are opened.
pub const ROTATED_FILES_MAX: usize = 1_000;

/// Bytes read at once when looking for lines from the end.
const TAIL_BLOCK_BYTES: usize = 64 * 1024;

/// An open file of the log and the offset to read next.
#[derive(Debug)]
pub(super) struct Position {
    pub file: File,
    pub offset: u64,
    inode: u64,
}

impl Position {
    fn new(file: File, offset: u64) -> io::Result<Self> {
        let inode = file.metadata()?.ino();
        Ok(Self {
            file,
            offset,
            inode,
        })
    }
}

fn rotated(path: &Path, number: usize) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// Opens the files of the log, newest first. A rotation in between makes one file appear twice:
/// the second sight of an inode is dropped.
fn open_all(path: &Path) -> io::Result<Vec<Position>> {
    let mut files: Vec<Position> = Vec::new();
    for number in 0..=ROTATED_FILES_MAX {
        match File::open(rotated(path, number)) {
            Ok(file) => {
                let position = Position::new(file, 0)?;
                if files.iter().all(|known| known.inode != position.inode) {
                    files.push(position);
                }
            }
            // Between the renames of a rotation the newest name is missing for a moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound && number == 0 => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    // A container that has not written has a directory all the same, unless the data root is away.
    if files.is_empty()
        && let Some(directory) = path.parent()
    {
        std::fs::metadata(directory)?;
    }
    Ok(files)
}

/// Where reading begins: the files to read in order, oldest first, the first with its offset set.
/// `lines` counts lines of the files, whatever stream they are of, as dockerd does; `None` is all.
///
/// # Errors
/// The errno of opening or reading a file.
pub(super) fn start(path: &Path, lines: Option<u64>) -> io::Result<Vec<Position>> {
    let mut files = open_all(path)?;
    let Some(mut wanted) = lines else {
        files.reverse();
        return Ok(files);
    };
    for index in 0..files.len() {
        let position = &mut files[index];
        let length = position.file.metadata()?.len();
        match offset_of_last(&position.file, length, wanted)? {
            Found::At(offset) => {
                position.offset = offset;
                files.truncate(index + 1);
                break;
            }
            Found::Fewer(count) => wanted -= count,
        }
    }
    files.reverse();
    Ok(files)
}

enum Found {
    At(u64),
    Fewer(u64),
}

/// The offset at which the last `wanted` lines of the file begin, reading backwards block by block.
/// A torn last line without a newline is no line.
fn offset_of_last(file: &File, length: u64, wanted: u64) -> io::Result<Found> {
    let mut block = vec![0; TAIL_BLOCK_BYTES];
    let mut end = length;
    let mut newlines = 0;
    while end > 0 {
        let size = TAIL_BLOCK_BYTES.min(usize::try_from(end).unwrap_or(usize::MAX));
        let begin = end - size as u64;
        file.read_exact_at(&mut block[..size], begin)?;
        for at in memrchr_iter(b'\n', &block[..size]) {
            if newlines == wanted {
                return Ok(Found::At(begin + at as u64 + 1));
            }
            newlines += 1;
        }
        end = begin;
    }
    if newlines == wanted && wanted > 0 {
        return Ok(Found::At(0));
    }
    if wanted == 0 {
        return Ok(Found::At(length));
    }
    Ok(Found::Fewer(newlines))
}

/// What comes after a file that was read to its end.
#[derive(Debug)]
pub(super) enum Next {
    /// The file is still the one being written.
    Same,
    /// It was rotated away: this one follows.
    Rotated(Position),
    /// Between the renames of a rotation: ask again.
    Missing,
}

/// Looks for the file that follows `current`. When more rotations happened than files are kept, the
/// oldest kept file follows.
///
/// # Errors
/// The errno of opening or reading a file.
pub(super) fn next(path: &Path, current: &Position) -> io::Result<Next> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.ino() == current.inode => return Ok(Next::Same),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Next::Missing),
        Err(error) => return Err(error),
    }
    let mut files = open_all(path)?;
    let index = files
        .iter()
        .position(|file| file.inode == current.inode)
        .unwrap_or(files.len());
    Ok(match index.checked_sub(1) {
        Some(newer) => Next::Rotated(files.swap_remove(newer)),
        None => Next::Missing,
    })
}

/// Opens the newest file, from its beginning; `None` while it does not exist.
///
/// # Errors
/// The errno of opening it.
pub(super) fn newest(path: &Path) -> io::Result<Option<Position>> {
    match File::open(path) {
        Ok(file) => Position::new(file, 0).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
