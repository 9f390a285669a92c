//! Where an entry goes: the directories on its way, and what must make place for it.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sys::file::{self, Kind};
use sys::path;

use super::{Attributes, Extractor, KEPT_BYTES_MAX, KEPT_OVERHEAD_BYTES, OPAQUE, WHITEOUT_DEVICE};

/// Directories of the current path that are held open; deeper ones are opened again for each entry.
const OPEN_DEPTH_MAX: usize = 48;
/// Mode of a directory while it is being filled: nothing in it takes over a group or a default.
const WORKING_MODE: u32 = 0o700;

/// The directory an entry goes into.
pub(super) enum Parent<'a> {
    Held(BorrowedFd<'a>),
    Deep(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Held(fd) => *fd,
            Self::Deep(fd) => fd.as_fd(),
        }
    }
}

impl Extractor {
    /// Opens the directory at `parts`, making what is missing. The handles on the way are kept.
    pub(super) fn parent(&mut self, parts: &[&[u8]]) -> io::Result<Parent<'_>> {
        let same = self
            .open
            .iter()
            .zip(parts)
            .take_while(|((name, _), part)| name == *part);
        let common = same.count();
        self.open.truncate(common);
        let held = parts.len().min(OPEN_DEPTH_MAX);
        for depth in common..held {
            let next = self.step(depth.checked_sub(1), None, &parts[..=depth])?;
            self.open.push((parts[depth].to_vec(), next));
        }
        if held == parts.len() {
            let last = self
                .open
                .last()
                .map_or(self.layer.root.as_fd(), |(_, fd)| fd.as_fd());
            return Ok(Parent::Held(last));
        }
        let mut deep: Option<OwnedFd> = None;
        for depth in held..parts.len() {
            let next = self.step(held.checked_sub(1), deep.as_ref(), &parts[..=depth])?;
            deep = Some(next);
        }
        Ok(Parent::Deep(deep.expect("at least one step was made")))
    }

    /// Opens the last of `parts` in `deep`, or else in the held directory `held`, or else in the root.
    fn step(
        &mut self,
        held: Option<usize>,
        deep: Option<&OwnedFd>,
        parts: &[&[u8]],
    ) -> io::Result<OwnedFd> {
        let name = parts.last().expect("never empty");
        let parent = match (deep, held) {
            (Some(fd), _) => fd.as_fd(),
            (None, Some(depth)) => self.open[depth].1.as_fd(),
            (None, None) => self.layer.root.as_fd(),
        };
        let error = match file::open_directory_at(parent, name) {
            Ok(next) => return Ok(next),
            Err(error) => error,
        };
        if error.kind() == io::ErrorKind::NotFound {
            file::make_directory_at(parent, name, WORKING_MODE)?;
        } else {
            match file::stat_at(parent, name)?.kind {
                Kind::Symlink => return self.through_symlink(parts),
                WHITEOUT_DEVICE => {
                    file::unlink_at(parent, name)?;
                    file::make_directory_at(parent, name, WORKING_MODE)?;
                    let next = file::open_directory_at(parent, name)?;
                    file::set_xattr(&next, OPAQUE, b"y")?;
                    self.note(parts, None)?;
                    return Ok(next);
                }
                _ => return Err(error),
            }
        }
        let next = file::open_directory_at(parent, name)?;
        self.note(parts, None)?;
        Ok(next)
    }

    /// A directory whose way leads over a symbolic link of the layer itself, as in a chroot.
    fn through_symlink(&self, parts: &[&[u8]]) -> io::Result<OwnedFd> {
        path::open_directory_in_root(self.layer.root.as_fd(), &parts.join(&b'/'))
    }

    /// Keeps a directory's attributes for the end of the layer; `None`: no entry named it yet.
    pub(super) fn note(
        &mut self,
        parts: &[&[u8]],
        attributes: Option<Attributes>,
    ) -> io::Result<()> {
        let path = parts.join(&b'/');
        let kept = attributes.as_ref().map_or(0, Attributes::kept_bytes);
        self.charge(path.len() + kept)?;
        self.layer.directories.insert(path, attributes);
        Ok(())
    }

    /// Counts what is about to be kept in memory.
    pub(super) fn charge(&mut self, bytes: usize) -> io::Result<()> {
        self.kept_bytes = self.kept_bytes.saturating_add(bytes + KEPT_OVERHEAD_BYTES);
        if self.kept_bytes > KEPT_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                format!(
                    "the names and attributes of the layer take more than {KEPT_BYTES_MAX} bytes"
                ),
            ));
        }
        Ok(())
    }

    /// Makes a directory, or keeps the one that is there.
    pub(super) fn directory(&mut self, parent: BorrowedFd<'_>, parts: &[&[u8]]) -> io::Result<()> {
        let name = parts.last().expect("never empty");
        match file::make_directory_at(parent, name, WORKING_MODE) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
        match file::stat_at(parent, name)?.kind {
            Kind::Directory => Ok(()),
            kind => {
                self.clear(parent, parts)?;
                file::make_directory_at(parent, name, WORKING_MODE)?;
                if kind == WHITEOUT_DEVICE {
                    let made = file::open_directory_at(parent, name)?;
                    file::set_xattr(made, OPAQUE, b"y")?;
                }
                Ok(())
            }
        }
    }

    /// Removes what stands at a name that another entry takes.
    fn clear(&mut self, parent: BorrowedFd<'_>, parts: &[&[u8]]) -> io::Result<()> {
        let name = parts.last().expect("never empty");
        let stat = file::stat_at(parent, name)?;
        match stat.kind {
            Kind::Directory => {
                let freed = file::remove_tree_counted(parent, name)?;
                self.layer.size_bytes = self.layer.size_bytes.saturating_sub(freed);
                let gone = parts.join(&b'/');
                self.layer.directories.remove(&gone);
                // Everything below begins with the name and a slash; '0' comes after '/'.
                let first = [&gone[..], b"/"].concat();
                let end = [&gone[..], b"0"].concat();
                remove_range(&mut self.layer.directories, first.clone()..end.clone());
                remove_range(&mut self.layer.links, first..end);
                Ok(())
            }
            _ => {
                if stat.links == 1 {
                    self.layer.size_bytes = self.layer.size_bytes.saturating_sub(stat.size_bytes);
                }
                file::unlink_at(parent, name)
            }
        }
    }

    /// Makes something at a name, removing what stands there.
    pub(super) fn replace<T>(
        &mut self,
        parts: &[&[u8]],
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> io::Result<T>,
    ) -> io::Result<(T, OwnedFdOrHeld)> {
        let (name, above) = parts.split_last().expect("never empty");
        let parent = self.parent(above)?;
        match make(parent.as_fd(), name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return Ok((other?, parent.into_kept())),
        }
        let parent = parent.into_owned()?;
        self.clear(parent.as_fd(), parts)?;
        Ok((make(parent.as_fd(), name)?, OwnedFdOrHeld::Owned(parent)))
    }

    pub(super) fn kept<'a>(&'a self, kept: &'a OwnedFdOrHeld) -> BorrowedFd<'a> {
        match kept {
            OwnedFdOrHeld::Owned(fd) => fd.as_fd(),
            OwnedFdOrHeld::Held => self
                .open
                .last()
                .map_or(self.layer.root.as_fd(), |(_, fd)| fd.as_fd()),
        }
    }
}

/// Takes as long as there is something to remove, however much else there is.
fn remove_range<T>(map: &mut BTreeMap<Vec<u8>, T>, range: Range<Vec<u8>>) {
    let gone: Vec<_> = map.range(range).map(|(path, _)| path.clone()).collect();
    for path in &gone {
        map.remove(path);
    }
}

/// Where the parent of a new file is to be found once more, without borrowing the extractor meanwhile.
pub(super) enum OwnedFdOrHeld {
    Owned(OwnedFd),
    Held,
}

impl Parent<'_> {
    pub(super) fn into_owned(self) -> io::Result<OwnedFd> {
        match self {
            Self::Held(fd) => fd.try_clone_to_owned(),
            Self::Deep(fd) => Ok(fd),
        }
    }

    fn into_kept(self) -> OwnedFdOrHeld {
        match self {
            Self::Held(_) => OwnedFdOrHeld::Held,
            Self::Deep(fd) => OwnedFdOrHeld::Owned(fd),
        }
    }
}
