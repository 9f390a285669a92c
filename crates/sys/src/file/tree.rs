//! Whole directories: their names, and removing them with all that is below.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, Mode, OFlags};

use super::{open_directory_at, rename_at, stat_at, unique, unlink_at};

/// How deep [`remove_tree`] holds directories open; deeper ones are moved up first, so that any depth needs
/// few file descriptors.
const REMOVE_DEPTH_MAX: usize = 32;

/// How many files and directories [`Remains`] holds open: more than a container has that did little, few beside the
/// file descriptors a process may have.
const REMAINS_MAX: usize = 64;

/// What a removal took the names of and has kept open. The kernel frees it when this is dropped, which can wait for the
/// disk: a file system without a journal that discards does so for each file and directory.
#[derive(Debug, Default)]
pub struct Remains(Vec<OwnedFd>);

impl Remains {
    /// How many files and directories it holds.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
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
    Removal::default().run(directory, name)
}

/// As [`remove_tree`], and answers what was removed, or a part of it if it was much: whoever waits need not wait for the
/// end of that. The names are gone all the same.
///
/// # Errors
/// As [`remove_tree`].
pub fn remove_tree_held(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<Remains> {
    let mut removal = Removal {
        remains: Some(Remains::default()),
        ..Removal::default()
    };
    removal.run(directory, name)?;
    Ok(removal.remains.unwrap_or_default())
}

/// As [`remove_tree`], and answers the bytes that went: of files and symbolic links with no other name.
///
/// # Errors
/// As [`remove_tree`].
pub fn remove_tree_counted(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<u64> {
    let mut removal = Removal {
        freed_bytes: Some(0),
        ..Removal::default()
    };
    removal.run(directory, name)?;
    Ok(removal.freed_bytes.unwrap_or_default())
}

#[derive(Default)]
struct Removal {
    /// Directories that were too deep and were moved up to the root of the tree.
    moved: u64,
    failed: Option<io::Error>,
    freed_bytes: Option<u64>,
    remains: Option<Remains>,
}

impl Removal {
    fn keep(&mut self, open: OwnedFd) {
        if let Some(Remains(held)) = self.remains.as_mut()
            && held.len() < REMAINS_MAX
        {
            held.push(open);
        }
    }

    /// Opens what is about to be unlinked, if it is to be kept. Only a name whose end cannot wait is opened for nothing.
    fn hold(&self, directory: BorrowedFd<'_>, name: &[u8]) -> Option<OwnedFd> {
        let remains = self.remains.as_ref()?;
        if remains.count() >= REMAINS_MAX {
            return None;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(directory, name, flags, Mode::empty()).ok()
    }

    fn run(&mut self, directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        if self.unlink(directory, name)? {
            return Ok(());
        }
        let root = open_directory_at(directory, name)?;
        // Each round empties the tree to a depth and moves what is deeper up to its root.
        loop {
            self.moved = 0;
            self.empty(root.as_fd(), root.as_fd(), 0);
            if self.moved == 0 || self.failed.is_some() {
                break;
            }
        }
        match self.failed.take() {
            Some(error) => Err(error),
            None => {
                fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?;
                self.keep(root);
                Ok(())
            }
        }
    }

    /// Removes what is no directory, and says whether it did; what is gone already is fine.
    fn unlink(&mut self, directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
        let bytes = match self.freed_bytes {
            Some(_) => match stat_at(directory, name) {
                Ok(stat) if stat.links == 1 => stat.size_bytes,
                _ => 0,
            },
            None => 0,
        };
        let held = self.hold(directory, name);
        match unlink_at(directory, name) {
            Err(error) if error.raw_os_error() == Some(libc::EISDIR) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            other => other?,
        }
        if let Some(held) = held {
            self.keep(held);
        }
        self.freed_bytes = self.freed_bytes.map(|sum| sum.saturating_add(bytes));
        Ok(true)
    }

    fn empty(&mut self, root: BorrowedFd<'_>, directory: BorrowedFd<'_>, depth: usize) {
        let names = match names_in(directory) {
            Ok(names) => names,
            Err(error) => {
                self.failed.get_or_insert(error);
                return;
            }
        };
        for name in names {
            if let Err(error) = self.empty_one(root, directory, &name, depth) {
                self.failed.get_or_insert(error);
            }
        }
    }

    fn empty_one(
        &mut self,
        root: BorrowedFd<'_>,
        directory: BorrowedFd<'_>,
        name: &[u8],
        depth: usize,
    ) -> io::Result<()> {
        if self.unlink(directory, name)? {
            return Ok(());
        }
        if depth >= REMOVE_DEPTH_MAX {
            self.moved += 1;
            let aside = format!(".cooper-remove-{}-{}", unique(), self.moved);
            return rename_at(directory, name, root, aside.as_bytes());
        }
        let inner = open_directory_at(directory, name)?;
        self.empty(root, inner.as_fd(), depth + 1);
        fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?;
        self.keep(inner);
        Ok(())
    }
}
