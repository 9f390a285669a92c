//! Paths inside a container's root: every look-up is one `openat2(2)` that cannot leave it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, Mode, OFlags, ResolveFlags};
pub use rustix::fs::{Mode as FileMode, OFlags as OpenFlags};

/// How often a look-up that raced with a rename is tried again. The kernel says EAGAIN then; an attacker
/// who wins this often only makes the start fail.
const RACES_MAX: u32 = 64;

/// How many symbolic links [`make_directory`] follows before it says ELOOP, as the kernel's own walk.
const LINKS_MAX: u32 = 40;

fn resolve(
    at: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    how: ResolveFlags,
) -> io::Result<OwnedFd> {
    let mut races = 0;
    loop {
        match fs::openat2(at, path, flags | OFlags::CLOEXEC, mode, how) {
            Err(rustix::io::Errno::AGAIN) if races < RACES_MAX => races += 1,
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Opens `path` inside `root`; symbolic links and `..` stay inside, magic links are refused.
///
/// # Errors
/// The errno of `openat2(2)`.
pub fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    resolve(
        root,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Opens `path` inside `root` as `O_PATH` without following any symbolic link.
///
/// # Errors
/// The errno of `openat2(2)`; `ELOOP` for a link.
pub fn open_without_links(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    resolve(root, path, OFlags::PATH, Mode::empty(), how)
}

/// Whether the effective user may execute `path`.
#[must_use]
pub fn may_execute(path: &Path) -> bool {
    fs::accessat(fs::CWD, path, fs::Access::EXEC_OK, fs::AtFlags::EACCESS).is_ok()
}

/// Opens `path` below `at` without following any symbolic link or crossing into another mount: for procfs.
///
/// # Errors
/// The errno of `openat2(2)`; `EXDEV` when something is mounted on the way, `ELOOP` for a link.
pub fn open_strictly(at: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    resolve(
        at,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )
}

/// Opens `path` below `at` without leaving it; its own symbolic links below are followed (`/proc/self`).
///
/// # Errors
/// The errno of `openat2(2)`.
pub fn open_beneath(at: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    resolve(at, path, flags, Mode::empty(), how)
}

/// Opens a directory of the host as a place to look below.
///
/// # Errors
/// The errno of `open(2)`.
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(fs::open(path, flags, Mode::empty())?)
}

/// Opens a path of the host with these flags, close-on-exec.
///
/// # Errors
/// The errno of `open(2)`.
pub fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens what an `O_PATH` descriptor stands for once more, with other flags, through our own `/proc/self/fd`.
///
/// # Errors
/// The errno of `openat(2)`.
pub fn reopen(fd: BorrowedFd<'_>, flags: OFlags) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok(fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens the directory `path` inside `root`, making what is missing with `mode`; dangling links lead to new directories.
///
/// # Errors
/// The errno of the walk; `ENOTDIR` when a component is something else.
pub fn make_directory(root: BorrowedFd<'_>, path: &Path, mode: u32) -> io::Result<OwnedFd> {
    make(root, path, mode, LINKS_MAX)
}

fn make(root: BorrowedFd<'_>, path: &Path, mode: u32, links_left: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match open_in_root(root, path, flags) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        other => return other,
    }
    let (parent, name) = split(path)?;
    let directory = make(root, &parent, mode, links_left)?;
    let name: &Path = name.as_ref();
    match fs::mkdirat(&directory, name, Mode::from_bits_retain(mode)) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => {
            // A link that leads nowhere yet: make what it points to.
            if let Ok(target) = fs::readlinkat(&directory, name, Vec::new()) {
                if links_left == 0 {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                let target = PathBuf::from(OsStr::from_bytes(target.to_bytes()));
                return make(root, &parent.join(target), mode, links_left - 1);
            }
        }
        Err(error) => return Err(error.into()),
    }
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    resolve(directory.as_fd(), name, flags, Mode::empty(), how)
}

/// Opens the file `path` inside `root` as `O_PATH`, making an empty one, and its directories, if it is not there.
///
/// # Errors
/// The errno of the walk.
pub fn make_file(root: BorrowedFd<'_>, path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let mut path = path.to_owned();
    for _ in 0..=LINKS_MAX {
        match open_in_root(root, &path, OFlags::PATH) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            other => return other,
        }
        let (parent, name) = split(&path)?;
        let name: &Path = name.as_ref();
        let directory = make_directory(root, &parent, 0o755)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY;
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match resolve(
            directory.as_fd(),
            name,
            flags,
            Mode::from_bits_retain(mode),
            how,
        ) {
            Ok(_) => return resolve(directory.as_fd(), name, OFlags::PATH, Mode::empty(), how),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                match fs::readlinkat(&directory, name, Vec::new()) {
                    Ok(target) => path = parent.join(OsStr::from_bytes(target.to_bytes())),
                    Err(_) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

/// Splits into parent and last component; `..` at the end has no name to make.
fn split(path: &Path) -> io::Result<(PathBuf, &OsStr)> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
    Ok((path.parent().unwrap_or(Path::new("")).to_owned(), name))
}

/// What a descriptor is open on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// File type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Major and minor number of a device file.
    pub device: (u32, u32),
    /// The inode's number.
    pub inode: u64,
}

impl Object {
    /// Whether it is a directory.
    #[must_use]
    pub const fn is_directory(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// Whether it is a regular file.
    #[must_use]
    pub const fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    /// Whether it is a character device with this number.
    #[must_use]
    pub fn is_character_device(&self, device: (u32, u32)) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFCHR && self.device == device
    }

    /// Whether any execute bit is set.
    #[must_use]
    pub const fn is_executable(&self) -> bool {
        self.mode & 0o111 != 0
    }
}

/// Says what a descriptor is open on.
///
/// # Errors
/// The errno of `fstat(2)`.
pub fn object(fd: BorrowedFd<'_>) -> io::Result<Object> {
    let stat = fs::fstat(fd)?;
    Ok(Object {
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
        device: (fs::major(stat.st_rdev), fs::minor(stat.st_rdev)),
        inode: stat.st_ino,
    })
}

/// Reads a regular file of at most `limit` bytes inside `root`; a fifo or device is never opened for reading.
///
/// # Errors
/// The errno of the walk; `EFBIG` above the limit, `EINVAL` for what is no regular file.
pub fn read_bounded(root: BorrowedFd<'_>, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    use std::io::Read;
    // Not blocking and no terminal taken even if it turns out to be a fifo or tty; then it is refused.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let look = open_in_root(root, path, OFlags::PATH)?;
    if !object(look.as_fd())?.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let file = open_in_root(root, path, flags)?;
    let found = object(file.as_fd())?;
    if !found.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if found.size_bytes > limit {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .take(limit + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    Ok(bytes)
}

/// Writes all of `bytes` in one `write(2)`, as procfs and cgroupfs want it.
///
/// # Errors
/// The errno of `write(2)`.
pub fn write_once(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let written = rustix::io::retry_on_intr(|| rustix::io::write(fd, bytes))?;
    if written == bytes.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Makes a symbolic link; one that is there already stays as it is.
///
/// # Errors
/// The errno of `symlinkat(2)`.
pub fn symlink(target: &str, at: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    match fs::symlinkat(target, at, name) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes a device file or fifo; `mode` has the type bits.
///
/// # Errors
/// The errno of `mknodat(2)`.
pub fn make_node(
    at: BorrowedFd<'_>,
    name: &OsStr,
    mode: u32,
    device: (u32, u32),
) -> io::Result<()> {
    Ok(fs::mknodat(
        at,
        name,
        fs::FileType::from_raw_mode(mode),
        Mode::from_raw_mode(mode),
        fs::makedev(device.0, device.1),
    )?)
}

/// Changes the owner of what `fd` is open on (`O_PATH` too).
///
/// # Errors
/// The errno of `fchownat(2)`.
pub fn change_owner(fd: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    Ok(fs::chownat(
        fd,
        "",
        uid.map(fs::Uid::from_raw),
        gid.map(fs::Gid::from_raw),
        fs::AtFlags::EMPTY_PATH,
    )?)
}

/// Removes one name that is no directory.
///
/// # Errors
/// The errno of `unlinkat(2)`.
pub fn remove_name(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    Ok(fs::unlinkat(at, name, fs::AtFlags::empty())?)
}

/// Changes the permission bits of `name` below `at` (never through a link of the container's making: the caller just made it).
///
/// # Errors
/// The errno of `fchmodat(2)`.
pub fn change_mode(at: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<()> {
    Ok(fs::chmodat(
        at,
        name,
        Mode::from_raw_mode(mode),
        fs::AtFlags::empty(),
    )?)
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
    /// Another.
    Other,
}

/// Says which file system `fd` is on, and whether that mount is read-only.
///
/// # Errors
/// The errno of `fstatfs(2)`.
pub fn filesystem(fd: BorrowedFd<'_>) -> io::Result<(Filesystem, bool)> {
    let found = fs::fstatfs(fd)?;
    let kind = match found.f_type {
        0x9fa0 => Filesystem::Proc,
        0x1cd1 => Filesystem::Devpts,
        0x794c_7630 => Filesystem::Overlay,
        0x6367_7270 => Filesystem::Cgroup2,
        _ => Filesystem::Other,
    };
    let read_only = fs::fstatvfs(fd)?
        .f_flag
        .contains(fs::StatVfsMountFlags::RDONLY);
    Ok((kind, read_only))
}
