//! Whole directories: their names, and removing them with all that is below.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, AtFlags, Dir};

use super::{open_directory_at, rename_at, unique, unlink_at};

/// How deep [`remove_tree`] holds directories open; deeper ones are moved up first, so that any depth needs
/// few file descriptors.
const REMOVE_DEPTH_MAX: usize = 32;

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
