//! Copying a directory tree as it is: owners, modes, times, attributes, links, devices.
//!
//! Source and destination are walked by handles below two open roots, no symbolic link is followed on either
//! side, and only a few descriptors are open at any depth. The destination is ours alone while this runs.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sys::file::{self, Kind, Stat};
use sys::path::open_directory_beneath;

/// Copies what is in `source` into the empty directory `destination`, which gets its attributes too.
///
/// # Errors
/// The errno of the first step that failed; the destination is then half-copied.
pub(super) fn tree(source: BorrowedFd<'_>, destination: BorrowedFd<'_>) -> io::Result<()> {
    Copy::new(source, destination).directories(Vec::new())
}

/// Copies the one entry `name` from `source` to `destination`, where it is not, with all that is below it.
///
/// # Errors
/// As [`tree`].
pub(super) fn one(
    source: BorrowedFd<'_>,
    destination: BorrowedFd<'_>,
    name: &[u8],
) -> io::Result<()> {
    let mut copy = Copy::new(source, destination);
    if copy.entry(source, destination, name, name)? {
        copy.directories(name.to_vec())?;
    }
    Ok(())
}

/// A copy under way.
struct Copy<'a> {
    source: BorrowedFd<'a>,
    destination: BorrowedFd<'a>,
    /// Where files with several names were copied first, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<'a> Copy<'a> {
    fn new(source: BorrowedFd<'a>, destination: BorrowedFd<'a>) -> Self {
        Self {
            source,
            destination,
            links: HashMap::new(),
        }
    }

    /// Copies the content of the directory at `path`, which is made, and then its attributes.
    fn directories(&mut self, path: Vec<u8>) -> io::Result<()> {
        let mut pending = vec![path];
        let mut made = Vec::new();
        while let Some(path) = pending.pop() {
            let from = open_directory_beneath(self.source, &path)?;
            let to = open_directory_beneath(self.destination, &path)?;
            for name in file::names_in(from.as_fd())? {
                let mut below = path.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(&name);
                if self.entry(from.as_fd(), to.as_fd(), &name, &below)? {
                    pending.push(below);
                }
            }
            made.push(path);
        }
        // Making a name changes its directory's time: the attributes come last, the deepest first.
        for path in made.iter().rev() {
            let from = open_directory_beneath(self.source, path)?;
            let to = open_directory_beneath(self.destination, path)?;
            directory_attributes(&from, &to)?;
        }
        Ok(())
    }

    /// Makes one name. True for a directory, whose content is still to be copied.
    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
    ) -> io::Result<bool> {
        let stat = file::stat_at(from, name)?;
        if stat.kind == Kind::Directory {
            file::make_directory_at(to, name, 0o700)?;
            return Ok(true);
        }
        match first_name(&stat, path, &mut self.links) {
            Some(first) => file::link_at(self.destination, &first, to, name)?,
            None => Entry { from, to, name }.copy(&stat)?,
        }
        Ok(false)
    }
}

/// Gives one directory the owner, mode, extended attributes and time of another.
///
/// # Errors
/// The errno of the first step that failed.
pub(super) fn directory_attributes(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let stat = file::stat_at(from.as_fd(), b"")?;
    file::chown(to, stat.uid, stat.gid)?;
    file::chmod(to, stat.mode)?;
    extended_attributes(from, to)?;
    file::set_time(to, stat.modified)
}

/// The name under which this file was copied before, if it has several.
fn first_name(
    stat: &Stat,
    path: &[u8],
    links: &mut HashMap<(u64, u64), Vec<u8>>,
) -> Option<Vec<u8>> {
    if stat.links < 2 {
        return None;
    }
    match links.entry((stat.device, stat.inode)) {
        std::collections::hash_map::Entry::Occupied(first) => Some(first.get().clone()),
        std::collections::hash_map::Entry::Vacant(place) => {
            place.insert(path.to_vec());
            None
        }
    }
}

/// One name that is no directory, on both sides.
struct Entry<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    name: &'a [u8],
}

impl Entry<'_> {
    fn copy(&self, stat: &Stat) -> io::Result<()> {
        match stat.kind {
            Kind::Regular => return self.regular(stat),
            Kind::Symlink => {
                let target = file::read_link_at(self.from, self.name)?;
                file::symlink_at(self.to, self.name, &target)?;
                file::chown_at(self.to, self.name, stat.uid, stat.gid)?;
            }
            Kind::Fifo | Kind::Character { .. } | Kind::Block { .. } => {
                file::make_node_at(self.to, self.name, stat.kind, stat.mode)?;
                file::chown_at(self.to, self.name, stat.uid, stat.gid)?;
                file::chmod_at(self.to, self.name, stat.mode)?;
            }
            // A socket is its process's; without one it is nothing. Directories are the caller's.
            Kind::Socket | Kind::Directory => return Ok(()),
        }
        file::set_time_at(self.to, self.name, stat.modified)
    }

    fn regular(&self, stat: &Stat) -> io::Result<()> {
        let mut from = file::open_file_at(self.from, self.name)?;
        let mut to = file::create_file_at(self.to, self.name, 0o600)?;
        io::copy(&mut from, &mut to)?;
        // A new owner clears set-user-id and capabilities: he comes first.
        file::chown(&to, stat.uid, stat.gid)?;
        file::chmod(&to, stat.mode)?;
        extended_attributes(&from, &to)?;
        file::set_time(&to, stat.modified)
    }
}

/// Copies the extended attributes. One that the destination's file system does not know is left out, as by
/// dockerd.
fn extended_attributes(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    for name in file::xattr_names(&from)? {
        let Some(value) = file::xattr(&from, &name)? else {
            continue;
        };
        match file::set_xattr(&to, &name, &value) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                tracing::debug!(name = %String::from_utf8_lossy(&name), "attribute left out");
            }
            other => other?,
        }
    }
    Ok(())
}
