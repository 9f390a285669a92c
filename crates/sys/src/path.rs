//! THE one look-up of a path inside a root: each is one `openat2(2)` that cannot leave it.
//!
//! What is done with a name in a directory that is open already, and with what was opened, is [`crate::file`]'s.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use rustix::fs::OFlags as OpenFlags;
use rustix::fs::{self, Mode, OFlags, ResolveFlags};

use crate::file;

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
    let path = or_root(path.as_os_str().as_bytes());
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    resolve(root, path, flags, Mode::empty(), how)
}

/// Opens `path` inside `root` as `O_PATH` without following any symbolic link.
///
/// # Errors
/// The errno of `openat2(2)`; `ELOOP` for a link.
pub fn open_without_links(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    resolve(root, path, OFlags::PATH, Mode::empty(), how)
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

/// Opens `path` below the procfs `at` without leaving it; its own symbolic links are followed (`/proc/self`).
///
/// # Errors
/// The errno of `openat2(2)`.
pub fn open_in_procfs(at: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    resolve(at, path, flags, Mode::empty(), how)
}

/// Opens the directory at `path` below `root` for reading, following no symbolic link at all.
///
/// # Errors
/// The errno of `openat2(2)`: `ELOOP` for a symbolic link on the way, `EXDEV` for a way out.
pub fn open_directory_beneath(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    resolve(root, or_root(path), flags, Mode::empty(), how)
}

/// Opens the directory at `path` for reading with `root` taken as `/` for symbolic links and `..` on the way.
///
/// # Errors
/// The errno of `openat2(2)`.
pub fn open_directory_in_root(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    open_in_root(root, or_root(path), OFlags::RDONLY | OFlags::DIRECTORY)
}

/// The empty path is the root itself.
fn or_root(path: &[u8]) -> &Path {
    if path.is_empty() {
        return Path::new(".");
    }
    Path::new(OsStr::from_bytes(path))
}

/// Opens a directory of the host as a place to look below, not to be read.
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

/// Reads a regular file of at most `limit` bytes inside `root`; a fifo or device is never opened for reading.
///
/// # Errors
/// The errno of the walk; `EFBIG` above the limit, `EINVAL` for what is no regular file.
pub fn read_bounded(root: BorrowedFd<'_>, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let is_file = |fd: BorrowedFd<'_>| {
        if file::stat(fd)?.kind == file::Kind::Regular {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    };
    // What was looked at is what is opened: the path may lead to a device a moment later.
    let found = open_in_root(root, path, OFlags::PATH)?;
    is_file(found.as_fd())?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    file::read_limited(reopen(found.as_fd(), flags)?.into(), limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

    /// A root may put a device in the place of a file at any moment; opening one can do things (a watchdog, a tape).
    #[test]
    fn reading_opens_nothing_but_the_file_that_it_looked_at() {
        const TRIES: u32 = 20_000;
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("passwd"), b"root").unwrap();
        let mode = Mode::from_raw_mode(0o600);
        fs::mknodat(fs::CWD, at("device"), fs::FileType::Fifo, mode, 0).unwrap();
        let opened = inotify::init(CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&opened, at("device"), WatchFlags::OPEN).unwrap();
        let root = file::open_directory(directory.path()).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        let order = std::sync::atomic::Ordering::Relaxed;
        let read = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (a, b) = (at("passwd"), at("device"));
                while !done.load(order) {
                    let flags = fs::RenameFlags::EXCHANGE;
                    fs::renameat_with(fs::CWD, &a, fs::CWD, &b, flags).unwrap();
                }
            });
            let path = Path::new("passwd");
            let read = (0..TRIES).filter(|_| read_bounded(root.as_fd(), path, 10).is_ok());
            let read = read.count();
            done.store(true, order);
            read
        });
        assert!(read > 0, "the file was there now and then");
        let events = rustix::io::read(&opened, &mut [0_u8; 4096]);
        assert_eq!(
            events,
            Err(rustix::io::Errno::AGAIN),
            "the device was opened"
        );
    }
}
