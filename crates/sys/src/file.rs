//! Files by directory handle: THE one atomic file write, tree removal, attributes, special files, syncing.
//!
//! No call here follows a symbolic link in the last component, so a name that comes from outside cannot lead
//! out of the directory that was opened; a path of several names is looked up by [`crate::path`]. Names are bytes.

mod attributes;
mod tree;

pub use attributes::{
    Filesystem, Kind, Stat, Time, chmod, chmod_at, chown, chown_at, chown_user, filesystem,
    filesystem_name, may_execute, set_time, set_time_at, set_xattr, set_xattr_at, stat, stat_at,
    umask, xattr, xattr_names,
};
pub use tree::{Remains, names_in, remove_tree, remove_tree_counted, remove_tree_held};

use std::ffi::{CString, OsStr};
use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};

/// What a write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// kill -9 of any process.
    None,
    /// A power cut as well: file and directory are synced.
    Synced,
}

/// Opens a directory for reading.
///
/// # Errors
/// The errno of open(2).
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(fs::open(path, flags, Mode::empty())?)
}

/// Opens the directory `name` in `directory`; a symbolic link there is refused (`ENOTDIR` or `ELOOP`).
///
/// # Errors
/// The errno of openat(2).
pub fn open_directory_at(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(directory, name, flags, Mode::empty())?)
}

/// Opens the regular file `name` in `directory` for reading.
///
/// # Errors
/// The errno of openat(2), `ELOOP` for a symbolic link.
pub fn open_file_at(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(fs::openat(directory, name, flags, Mode::empty())?.into())
}

/// Creates the regular file `name` in `directory` for writing; `mode` is subject to the umask.
///
/// # Errors
/// The errno of openat(2): `EEXIST` when there is anything of that name.
pub fn create_file_at(directory: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(directory, name, flags, Mode::from_raw_mode(mode))?.into())
}

/// Opens the regular file `name` in `directory` for writing, as it is.
///
/// # Errors
/// The errno of openat(2), `ELOOP` for a symbolic link.
pub fn open_for_write_at(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(directory, name, flags, Mode::empty())?.into())
}

/// Creates the directory `name`; `mode` is subject to the umask.
///
/// # Errors
/// The errno of mkdirat(2).
pub fn make_directory_at(directory: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<()> {
    Ok(fs::mkdirat(directory, name, Mode::from_raw_mode(mode))?)
}

/// Creates the symbolic link `name` with `target` as its content.
///
/// # Errors
/// The errno of symlinkat(2).
pub fn symlink_at(directory: BorrowedFd<'_>, name: &[u8], target: &[u8]) -> io::Result<()> {
    Ok(fs::symlinkat(target, directory, name)?)
}

/// The content of the symbolic link `name`.
///
/// # Errors
/// The errno of readlinkat(2): `EINVAL` for what is no link.
pub fn read_link_at(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<u8>> {
    Ok(fs::readlinkat(directory, name, Vec::new())?.into_bytes())
}

/// Gives the file `old` in `from` a second name `new` in `to`. A symbolic link gets the second name itself.
///
/// # Errors
/// The errno of linkat(2).
pub fn link_at(from: BorrowedFd<'_>, old: &[u8], to: BorrowedFd<'_>, new: &[u8]) -> io::Result<()> {
    Ok(fs::linkat(from, old, to, new, AtFlags::empty())?)
}

/// Moves `old` in `from` to `new` in `to`, replacing what is there.
///
/// # Errors
/// The errno of renameat(2).
pub fn rename_at(
    from: BorrowedFd<'_>,
    old: &[u8],
    to: BorrowedFd<'_>,
    new: &[u8],
) -> io::Result<()> {
    Ok(fs::renameat(from, old, to, new)?)
}

/// Lets `one` and `other`, both in `directory`, change their names at one stroke.
///
/// # Errors
/// The errno of renameat2(2).
pub fn exchange_at(directory: BorrowedFd<'_>, one: &[u8], other: &[u8]) -> io::Result<()> {
    let flags = fs::RenameFlags::EXCHANGE;
    Ok(fs::renameat_with(directory, one, directory, other, flags)?)
}

/// Creates a device or a named pipe; `mode` is subject to the umask.
///
/// # Errors
/// The errno of mknodat(2); `EINVAL` for a kind that mknod cannot make.
pub fn make_node_at(
    directory: BorrowedFd<'_>,
    name: &[u8],
    kind: Kind,
    mode: u32,
) -> io::Result<()> {
    let (kind, device) = match kind {
        Kind::Character { major, minor } => (FileType::CharacterDevice, fs::makedev(major, minor)),
        Kind::Block { major, minor } => (FileType::BlockDevice, fs::makedev(major, minor)),
        Kind::Fifo => (FileType::Fifo, 0),
        Kind::Regular | Kind::Directory | Kind::Symlink | Kind::Socket => {
            return Err(io::ErrorKind::InvalidInput.into());
        }
    };
    Ok(fs::mknodat(
        directory,
        name,
        kind,
        Mode::from_raw_mode(mode),
        device,
    )?)
}

/// Removes the name of a file that is no directory.
///
/// # Errors
/// The errno of unlinkat(2): `EISDIR` for a directory.
pub fn unlink_at(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    Ok(fs::unlinkat(directory, name, AtFlags::empty())?)
}

/// THE one atomic file write: whoever opens `name` finds the old bytes or the new ones, never a part.
/// The file gets exactly `mode`.
///
/// # Errors
/// The errno of the failing step; the temporary file is removed then.
pub fn write_atomic(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    bytes: &[u8],
    mode: u32,
    durability: Durability,
) -> io::Result<()> {
    let temporary = format!(".{}.{}.tmp", std::process::id(), unique());
    let result = write_new(directory, temporary.as_bytes(), bytes, mode, durability)
        .and_then(|()| rename_at(directory, temporary.as_bytes(), directory, name.as_bytes()));
    if let Err(error) = result {
        return Err(match unlink_at(directory, temporary.as_bytes()) {
            Err(other) if other.kind() != io::ErrorKind::NotFound => io::Error::new(
                error.kind(),
                format!("{error}, and {temporary} stays: {other}"),
            ),
            _ => error,
        });
    }
    match durability {
        Durability::None => Ok(()),
        Durability::Synced => Ok(fs::fsync(directory)?),
    }
}

fn write_new(
    directory: BorrowedFd<'_>,
    name: &[u8],
    bytes: &[u8],
    mode: u32,
    durability: Durability,
) -> io::Result<()> {
    let mut file = create_file_at(directory, name, 0o600)?;
    file.write_all(bytes)?;
    chmod(&file, mode)?;
    match durability {
        Durability::None => Ok(()),
        Durability::Synced => file.sync_data(),
    }
}

/// A number no other call of this process gets.
fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Writes all of `bytes` in one `write(2)`, as procfs and cgroupfs want it.
///
/// # Errors
/// The errno of `write(2)`.
pub fn write_once(file: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, bytes))?;
    if written == bytes.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Reads a file of at most `limit_bytes`.
///
/// # Errors
/// The errno of open or read; `FileTooLarge` beyond the limit.
pub fn read_bounded(
    directory: BorrowedFd<'_>,
    name: &[u8],
    limit_bytes: u64,
) -> io::Result<Vec<u8>> {
    read_limited(open_file_at(directory, name)?, limit_bytes)
}

/// Reads what is left of an open file, `EFBIG` beyond the limit.
pub(crate) fn read_limited(file: File, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit_bytes {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    Ok(bytes)
}

/// Reserves blocks for the next `bytes` beyond a file's end, which stays where it is.
///
/// # Errors
/// The errno of `fallocate(2)`; `ENOSPC` reserves nothing or a part.
pub fn reserve(file: impl AsFd, bytes: u64) -> io::Result<()> {
    let stat = rustix::fs::fstat(&file)?;
    let end = u64::try_from(stat.st_size).unwrap_or(0);
    let allocated = u64::try_from(stat.st_blocks).unwrap_or(0) * STAT_BLOCK_BYTES;
    if allocated >= end.saturating_add(bytes) {
        return Ok(());
    }
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, end, bytes)?;
    Ok(())
}

/// The unit of `st_blocks` (stat(2)).
const STAT_BLOCK_BYTES: u64 = 512;

/// How large the file system of a file is.
///
/// # Errors
/// The errno of `fstatvfs(3)`.
pub fn filesystem_bytes(file: impl AsFd) -> io::Result<u64> {
    let stat = rustix::fs::fstatvfs(file)?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
}

/// What is left on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Its size in bytes.
    pub total_bytes: u64,
    /// Bytes that anybody may still use.
    pub free_bytes: u64,
    /// Files it can hold; 0 where that is not fixed.
    pub total_files: u64,
    /// Files that anybody may still make; 0 where that is not fixed.
    pub free_files: u64,
}

/// The room on the file system of a file.
///
/// # Errors
/// The errno of `fstatvfs(3)`.
pub fn room(file: impl AsFd) -> io::Result<Room> {
    let stat = rustix::fs::fstatvfs(file)?;
    Ok(Room {
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        total_files: stat.f_files,
        free_files: stat.f_favail,
    })
}

/// Makes a directory's entries, or a file's content and attributes, safe against a power cut.
///
/// # Errors
/// The errno of fsync(2).
pub fn sync(file: impl AsFd) -> io::Result<()> {
    Ok(fs::fsync(file)?)
}

/// Makes the whole file system `file` lies on safe against a power cut.
///
/// # Errors
/// The errno of syncfs(2), which reports write errors since the file was opened.
pub fn sync_filesystem(file: impl AsFd) -> io::Result<()> {
    Ok(fs::syncfs(file)?)
}

/// Asks the kernel to begin writing a range of `file` to disk, so that a later sync has little left to do.
/// Waits for nothing and promises nothing.
///
/// # Errors
/// The errno of sync_file_range(2).
pub fn begin_write_back(file: impl AsFd, offset: u64, length: u64) -> io::Result<()> {
    let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let length = i64::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for the length of the call, held by `file`; no memory is passed.
    let result = unsafe { libc::sync_file_range(fd, offset, length, libc::SYNC_FILE_RANGE_WRITE) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Tells ext4 that the subdirectories of `directory` have nothing to do with each other (`chattr +T`): each goes to
/// a part of the disk of its own, with everything below it.
///
/// # Errors
/// The errno of the ioctl: `ENOTTY` or `EOPNOTSUPP` on a file system that knows no such mark.
pub fn spread_subdirectories(directory: impl AsFd) -> io::Result<()> {
    let flags = fs::ioctl_getflags(&directory)?;
    if flags.contains(fs::IFlags::TOPDIR) {
        return Ok(());
    }
    Ok(fs::ioctl_setflags(directory, flags | fs::IFlags::TOPDIR)?)
}

/// Whether a call refused to follow a symbolic link (`ELOOP`).
#[must_use]
pub fn is_symlink_error(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ELOOP)
}

/// The effective user id of this process.
#[must_use]
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether `name` can be a C string: what the kernel calls a name has no NUL.
#[must_use]
pub fn is_nul_free(name: &[u8]) -> bool {
    CString::new(name).is_ok()
}

/// How long the lock of a daemon that was just killed is waited for: a child that it was starting has a copy of it
/// until its exec.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// How often the lock is tried meanwhile.
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// Takes the exclusive lock on an open file; it is released when the file is closed. `false` when another holds it and
/// goes on holding it for that long. Blocks meanwhile.
///
/// # Errors
/// The errno of flock(2).
pub fn lock_within(file: &File, patience: Duration) -> io::Result<bool> {
    let give_up = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= give_up => return Ok(false),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_INTERVAL),
        }
    }
}
