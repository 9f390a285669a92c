//! Files by directory handle: THE one atomic file write, tree removal, attributes, special files, syncing.
//!
//! No call here follows a symbolic link in the last component, and [`open_beneath`] follows none at all, so
//! a name that comes from outside cannot lead out of the directory that was opened. Paths are bytes.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    self, AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
    XattrFlags,
};

/// The most bytes of one extended attribute (`XATTR_SIZE_MAX` of Linux).
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// How deep [`remove_tree`] holds directories open; deeper ones are moved up first, so that any depth needs
/// few file descriptors.
const REMOVE_DEPTH_MAX: usize = 32;

/// What a write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// kill -9 of any process.
    None,
    /// A power cut as well: file and directory are synced.
    Synced,
}

/// Seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// What kind of file stands at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    Character {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A unix socket.
    Socket,
}

/// The attributes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its kind.
    pub kind: Kind,
    /// Permission bits, setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Number of names.
    pub links: u64,
    /// Inode number.
    pub inode: u64,
    /// Device of the file system.
    pub device: u64,
    /// Time of the last change of content.
    pub modified: Time,
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

/// Opens the directory at `path` below `root`, following no symbolic link at all.
///
/// # Errors
/// The errno of openat2(2): `ELOOP` for a symbolic link on the way, `EXDEV` for a way out.
pub fn open_beneath(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    open_resolved(root, path, resolve)
}

/// Opens the directory at `path` with `root` taken as `/` for symbolic links and `..` on the way.
///
/// # Errors
/// The errno of openat2(2).
pub fn open_in_root(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    open_resolved(
        root,
        path,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

fn open_resolved(root: BorrowedFd<'_>, path: &[u8], resolve: ResolveFlags) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    loop {
        match fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // A rename somewhere raced with the check of the kernel: it asks to try again.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
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

/// The attributes of `name` itself, or of `directory` for an empty name.
///
/// # Errors
/// The errno of fstatat(2).
pub fn stat_at(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<Stat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    Ok(stat_of(&fs::statat(directory, name, flags)?))
}

fn stat_of(stat: &fs::Stat) -> Stat {
    let major = fs::major(stat.st_rdev);
    let minor = fs::minor(stat.st_rdev);
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::Character { major, minor },
        FileType::BlockDevice => Kind::Block { major, minor },
        FileType::Socket => Kind::Socket,
        FileType::RegularFile | FileType::Unknown => Kind::Regular,
    };
    Stat {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
        links: stat.st_nlink,
        inode: stat.st_ino,
        device: stat.st_dev,
        modified: Time {
            seconds: stat.st_mtime,
            nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        },
    }
}

/// Changes the owner of an open file. The numbers are valid ids, never the kernel's "leave it" value.
///
/// # Errors
/// The errno of fchown(2); `EINVAL` for 4294967295.
pub fn chown(file: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = owner(uid, gid)?;
    Ok(fs::fchown(file, Some(uid), Some(gid))?)
}

/// Changes the owner of `name` itself.
///
/// # Errors
/// As [`chown`].
pub fn chown_at(directory: BorrowedFd<'_>, name: &[u8], uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = owner(uid, gid)?;
    Ok(fs::chownat(
        directory,
        name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn owner(uid: u32, gid: u32) -> io::Result<(Uid, Gid)> {
    if uid == u32::MAX || gid == u32::MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
}

/// Changes the permission bits of an open file.
///
/// # Errors
/// The errno of fchmod(2).
pub fn chmod(file: impl AsFd, mode: u32) -> io::Result<()> {
    Ok(fs::fchmod(file, Mode::from_raw_mode(mode))?)
}

/// Changes the permission bits of `name`, which must not be a symbolic link: fchmodat(2) would follow it,
/// so the caller has just created a file of another kind there.
///
/// # Errors
/// The errno of fchmodat(2).
pub fn chmod_at(directory: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<()> {
    Ok(fs::chmodat(
        directory,
        name,
        Mode::from_raw_mode(mode),
        AtFlags::empty(),
    )?)
}

/// Sets the time of last change (and access) of an open file.
///
/// # Errors
/// The errno of futimens(2).
pub fn set_time(file: impl AsFd, time: Time) -> io::Result<()> {
    Ok(fs::futimens(file, &timestamps(time))?)
}

/// Sets the time of last change (and access) of `name` itself.
///
/// # Errors
/// The errno of utimensat(2).
pub fn set_time_at(directory: BorrowedFd<'_>, name: &[u8], time: Time) -> io::Result<()> {
    Ok(fs::utimensat(
        directory,
        name,
        &timestamps(time),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn timestamps(time: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: time.seconds,
        tv_nsec: i64::from(time.nanoseconds),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Sets an extended attribute of an open file.
///
/// # Errors
/// The errno of fsetxattr(2).
pub fn set_xattr(file: impl AsFd, name: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(fs::fsetxattr(file, name, value, XattrFlags::empty())?)
}

/// Sets an extended attribute of `name` itself, whatever its kind, without opening it.
///
/// # Errors
/// The errno of lsetxattr(2) through `/proc/self/fd`.
pub fn set_xattr_at(
    directory: BorrowedFd<'_>,
    name: &[u8],
    attribute: &[u8],
    value: &[u8],
) -> io::Result<()> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    Ok(fs::lsetxattr(path, attribute, value, XattrFlags::empty())?)
}

/// An extended attribute of an open file; `None` when it has none of that name or the file system knows none.
///
/// # Errors
/// The errno of fgetxattr(2).
pub fn xattr(file: impl AsFd, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0_u8; 256];
    loop {
        match fs::fgetxattr(&file, name, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => return Ok(None),
            Err(rustix::io::Errno::RANGE) if value.len() < XATTR_BYTES_MAX => {
                value = vec![0; XATTR_BYTES_MAX];
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The names of an open file's extended attributes.
///
/// # Errors
/// The errno of flistxattr(2).
pub fn xattr_names(file: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut list = vec![0_u8; XATTR_BYTES_MAX];
    let length = match fs::flistxattr(&file, list.as_mut_slice()) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let names = list[..length].split(|byte| *byte == 0);
    Ok(names
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect())
}

/// The names in a directory, without `.` and `..`.
///
/// # Errors
/// The errno of getdents(2).
pub fn names_in(directory: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Removes `name` in `directory` with everything below it, by handles, following no symbolic link. Needs a
/// bounded number of file descriptors at any depth. A missing name is fine.
///
/// # Errors
/// The first errno met; what could be removed is removed.
pub fn remove_tree(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match unlink_at(directory, name) {
        Err(error) if error.raw_os_error() == Some(libc::EISDIR) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => return other,
    }
    let root = open_directory_at(directory, name)?;
    let mut failed = None;
    // Each round empties the tree to a depth and moves what is deeper up to its root.
    loop {
        let mut moved = 0_u64;
        empty(root.as_fd(), root.as_fd(), 0, &mut moved, &mut failed);
        if moved == 0 || failed.is_some() {
            break;
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?),
    }
}

fn empty(
    root: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    depth: usize,
    moved: &mut u64,
    failed: &mut Option<io::Error>,
) {
    let names = match names_in(directory) {
        Ok(names) => names,
        Err(error) => {
            failed.get_or_insert(error);
            return;
        }
    };
    for name in names {
        if let Err(error) = empty_one(root, directory, &name, depth, moved, failed) {
            failed.get_or_insert(error);
        }
    }
}

fn empty_one(
    root: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    name: &[u8],
    depth: usize,
    moved: &mut u64,
    failed: &mut Option<io::Error>,
) -> io::Result<()> {
    match unlink_at(directory, name) {
        Err(error) if error.raw_os_error() == Some(libc::EISDIR) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => return other,
    }
    if depth >= REMOVE_DEPTH_MAX {
        *moved += 1;
        let aside = format!(".cooper-remove-{}-{moved}", unique());
        return rename_at(directory, name, root, aside.as_bytes());
    }
    let inner = open_directory_at(directory, name)?;
    empty(root, inner.as_fd(), depth + 1, moved, failed);
    drop(inner);
    Ok(fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?)
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

/// Reads a file of at most `limit_bytes`.
///
/// # Errors
/// The errno of open or read; `FileTooLarge` beyond the limit.
pub fn read_bounded(
    directory: BorrowedFd<'_>,
    name: &[u8],
    limit_bytes: u64,
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file_at(directory, name)?
        .take(limit_bytes + 1)
        .read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit_bytes {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
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

/// The umask of this process, from `/proc`: reading it with umask(2) would change it for a moment.
///
/// # Errors
/// The errno of reading `/proc/self/status`, or `InvalidData`.
pub fn umask() -> io::Result<u32> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
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

/// An exclusive lock on an open file, released when it is closed; `false` when another process holds it.
///
/// # Errors
/// The errno of flock(2).
pub fn try_lock(file: impl AsFd) -> io::Result<bool> {
    match fs::flock(file, fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
