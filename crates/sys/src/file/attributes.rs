//! What a file is: kind, mode, owner, times, extended attributes, the file system it is on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

/// The most bytes of one extended attribute (`XATTR_SIZE_MAX` of Linux).
const XATTR_BYTES_MAX: usize = 64 * 1024;

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

impl Kind {
    /// The kind behind the type bits of `mode`; `device` is the number, should it be a device.
    #[must_use]
    pub fn of_mode(mode: u32, device: (u32, u32)) -> Self {
        let (major, minor) = device;
        match FileType::from_raw_mode(mode) {
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::CharacterDevice => Self::Character { major, minor },
            FileType::BlockDevice => Self::Block { major, minor },
            FileType::Socket => Self::Socket,
            FileType::RegularFile | FileType::Unknown => Self::Regular,
        }
    }
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

impl Stat {
    /// Whether both are attributes of one file.
    #[must_use]
    pub const fn is_same_file(&self, other: &Self) -> bool {
        self.device == other.device && self.inode == other.inode
    }
}

/// The attributes of `name` itself, or of `directory` for an empty name.
///
/// # Errors
/// The errno of fstatat(2).
pub fn stat_at(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<Stat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    Ok(stat_of(&fs::statat(directory, name, flags)?))
}

/// The attributes of what a descriptor is open on (`O_PATH` too).
///
/// # Errors
/// The errno of fstat(2).
pub fn stat(file: impl AsFd) -> io::Result<Stat> {
    Ok(stat_of(&fs::fstat(file)?))
}

fn stat_of(stat: &fs::Stat) -> Stat {
    let device = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
    Stat {
        kind: Kind::of_mode(stat.st_mode, device),
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

/// Changes the user that owns an open file; its group stays.
///
/// # Errors
/// As [`chown`].
pub fn chown_user(file: impl AsFd, uid: u32) -> io::Result<()> {
    let (uid, _) = owner(uid, 0)?;
    Ok(fs::fchown(file, Some(uid), None)?)
}

/// Changes the owner of `name` itself, or of what `directory` is open on (`O_PATH` too) for an empty name.
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
        AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH,
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

/// File systems that are told apart by their magic number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filesystem {
    /// procfs.
    Proc,
    /// devpts.
    Devpts,
    /// overlayfs.
    Overlay,
    /// cgroup v2.
    Cgroup2,
    /// tmpfs.
    Tmpfs,
    /// Another.
    Other,
}

/// Says which file system `file` is on, and whether that mount is read-only.
///
/// # Errors
/// The errno of `fstatfs(2)`.
pub fn filesystem(file: impl AsFd) -> io::Result<(Filesystem, bool)> {
    let kind = match fs::fstatfs(&file)?.f_type {
        0x9fa0 => Filesystem::Proc,
        0x1cd1 => Filesystem::Devpts,
        0x794c_7630 => Filesystem::Overlay,
        0x6367_7270 => Filesystem::Cgroup2,
        0x0102_1994 => Filesystem::Tmpfs,
        _ => Filesystem::Other,
    };
    let read_only = fs::fstatvfs(&file)?
        .f_flag
        .contains(fs::StatVfsMountFlags::RDONLY);
    Ok((kind, read_only))
}

/// The name of the file system that `file` is on, as Docker's `info` gives it (moby `daemon/graphdriver`, `FsNames`).
///
/// # Errors
/// The errno of `fstatfs(2)`.
pub fn filesystem_name(file: impl AsFd) -> io::Result<&'static str> {
    Ok(match fs::fstatfs(&file)?.f_type {
        0x9123_683e => "btrfs",
        0xef53 => "extfs",
        0xf2f5_2010 => "f2fs",
        0x6573_5546 => "fuse",
        0x6969 => "nfs",
        0x794c_7630 => "overlayfs",
        0x0102_1994 => "tmpfs",
        0x5846_5342 => "xfs",
        0x2fc1_2fc1 => "zfs",
        _ => "<unknown>",
    })
}

/// Whether the effective user may execute `path`.
#[must_use]
pub fn may_execute(path: &Path) -> bool {
    fs::accessat(fs::CWD, path, fs::Access::EXEC_OK, AtFlags::EACCESS).is_ok()
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
