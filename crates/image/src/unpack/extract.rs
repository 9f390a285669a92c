//! From tar entries to files in one layer's own directory, in the form overlayfs reads.
//!
//! Every name is taken apart and walked by directory handles without following symbolic links; where the
//! layer itself has a symbolic link on the way, the kernel resolves it with the layer as `/`. So nothing in
//! an archive reaches a file outside of the layer's directory. Whiteouts become character devices 0:0,
//! opaque directories get `trusted.overlay.opaque`. What depends on the layers below is only noted here and
//! done by [`second_pass`](super::second_pass).

use std::collections::BTreeMap;
use std::io::{self, BufRead, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sys::file::{self, Kind, Time};
use sys::path;

use super::reader::{Entry, EntryKind, Tar, TarError};

/// The most entries of one layer: the largest known images have about a million files in all.
const ENTRIES_MAX: u64 = 4_000_000;
/// What is kept of a layer in memory until its end, in bytes: paths and attributes of directories, links to lower
/// layers, whiteouts. Enough for some 300,000 of them; a small archive can name many long ones.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// What one kept thing takes beside its bytes: its place in a map and the allocator's share.
const KEPT_OVERHEAD_BYTES: usize = 96;
/// The longest path, in bytes (`PATH_MAX` of Linux).
const PATH_BYTES_MAX: usize = 4096;
/// Directories of the current path that are held open; deeper ones are opened again for each entry.
const OPEN_DEPTH_MAX: usize = 48;

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
/// What overlayfs takes for a removed file.
pub(crate) const WHITEOUT_DEVICE: Kind = Kind::Character { major: 0, minor: 0 };
/// The mark of a directory that hides what is below it.
pub(crate) const OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// Mode of a directory while it is being filled: nothing in it takes over a group or a default.
const WORKING_MODE: u32 = 0o700;

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The archive.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A name that leads out of the layer.
    #[error("{0:?} is outside of the layer")]
    Outside(String),
    /// A name nobody may use.
    #[error("invalid name {0:?} in the layer")]
    Name(String),
    /// An owner beyond 32 bits, or the number that means "no owner".
    #[error("invalid owner {id} of {path:?}")]
    Owner {
        /// The entry.
        path: String,
        /// The number.
        id: u64,
    },
    /// A hard link to what is nowhere.
    #[error("invalid hardlink {path:?} -> {target:?}: no such file in the image")]
    DanglingLink {
        /// The entry.
        path: String,
        /// What it points to.
        target: String,
    },
    /// A file operation failed.
    #[error("unpack {path:?}: {source}")]
    File {
        /// The entry.
        path: String,
        /// The errno.
        #[source]
        source: io::Error,
    },
}

/// Owner, mode, time and extended attributes of a directory, set when its content is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
    pub(crate) modified: Option<Time>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Attributes {
    fn kept_bytes(&self) -> usize {
        let one =
            |(name, value): &(Vec<u8>, Vec<u8>)| name.len() + value.len() + KEPT_OVERHEAD_BYTES;
        self.xattrs.iter().map(one).sum()
    }
}

/// A hard link whose target the layer itself does not have.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) path: Vec<u8>,
    pub(crate) target: Vec<u8>,
}

/// An unpacked layer that still needs its second pass.
#[derive(Debug)]
pub(crate) struct Extracted {
    pub(crate) root: OwnedFd,
    /// By path; `None`: no entry named it, it was only on the way to another.
    pub(crate) directories: BTreeMap<Vec<u8>, Option<Attributes>>,
    pub(crate) links: Vec<Link>,
    pub(crate) whiteouts: Vec<Vec<u8>>,
    /// The root itself hides everything below.
    pub(crate) root_opaque: bool,
    /// As Docker counts it: files and symbolic links, each inode once.
    pub(crate) size_bytes: u64,
}

/// Unpacks one archive into `root`, an empty directory.
///
/// # Errors
/// [`ExtractError`]; what was written stays for the caller to remove.
pub(crate) fn extract<R: BufRead>(
    tar: &mut Tar<R>,
    root: OwnedFd,
) -> Result<Extracted, ExtractError> {
    let umask = file::umask().map_err(|source| at(b"/proc/self/status", source))?;
    let mut extractor = Extractor {
        umask,
        open: Vec::new(),
        kept_bytes: 0,
        layer: Extracted {
            root,
            directories: BTreeMap::new(),
            links: Vec::new(),
            whiteouts: Vec::new(),
            root_opaque: false,
            size_bytes: 0,
        },
    };
    let mut entries = 0;
    while let Some(entry) = tar.next()? {
        entries += 1;
        limit("the number of entries of a layer", entries, ENTRIES_MAX)?;
        extractor.entry(tar, &entry)?;
    }
    Ok(extractor.layer)
}

fn limit(what: &'static str, found: u64, limit: u64) -> Result<(), ExtractError> {
    if found > limit {
        Err(TarError::Limit { what, limit }.into())
    } else {
        Ok(())
    }
}

pub(crate) fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

pub(crate) fn at(path: &[u8], source: io::Error) -> ExtractError {
    ExtractError::File {
        path: text(path),
        source,
    }
}

/// Takes a name apart: `.` and empty parts dropped, `..` resolved by its text; absolute is from the root.
///
/// # Errors
/// [`ExtractError::Outside`] for a name that climbs out, [`ExtractError::Name`] for one no file can have.
pub(crate) fn components(path: &[u8]) -> Result<Vec<&[u8]>, ExtractError> {
    if path.len() > PATH_BYTES_MAX || path.contains(&0) {
        return Err(ExtractError::Name(text(
            &path[..path.len().min(PATH_BYTES_MAX)],
        )));
    }
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if parts.pop().is_none() {
                    return Err(ExtractError::Outside(text(path)));
                }
            }
            part => parts.push(part),
        }
    }
    Ok(parts)
}

struct Extractor {
    umask: u32,
    /// The directories on the way to the last entry, outermost first.
    open: Vec<(Vec<u8>, OwnedFd)>,
    /// Of what the layer keeps in memory; see [`KEPT_BYTES_MAX`].
    kept_bytes: usize,
    layer: Extracted,
}

/// The directory an entry goes into.
enum Parent<'a> {
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
    fn entry<R: BufRead>(&mut self, tar: &mut Tar<R>, entry: &Entry) -> Result<(), ExtractError> {
        let parts = components(&entry.path)?;
        let Some((name, above)) = parts.split_last() else {
            if entry.kind == EntryKind::Directory {
                return self
                    .note(&[], Some(attributes(entry)?))
                    .map_err(|source| at(&entry.path, source));
            }
            return Err(ExtractError::Name(text(&entry.path)));
        };
        if above.iter().any(|part| part.starts_with(WHITEOUT_META)) {
            return Ok(());
        }
        if above.iter().any(|part| part.starts_with(WHITEOUT)) {
            return Err(ExtractError::Name(text(&entry.path)));
        }
        if name.starts_with(WHITEOUT) {
            return self.whiteout(&parts);
        }
        let wrap = |source| at(&entry.path, source);
        let (uid, gid) = owner(entry)?;
        match entry.kind {
            EntryKind::Directory => {
                let attributes = attributes(entry)?;
                let parent = self
                    .parent(above)
                    .map_err(wrap)?
                    .into_owned()
                    .map_err(wrap)?;
                self.directory(parent.as_fd(), &parts).map_err(wrap)?;
                self.note(&parts, Some(attributes)).map_err(wrap)
            }
            EntryKind::Regular => self.regular(tar, entry, &parts, (uid, gid)).map_err(wrap),
            EntryKind::HardLink => self.hard_link(entry, &parts),
            EntryKind::Symlink => self.symlink(entry, &parts, (uid, gid)).map_err(wrap),
            EntryKind::Character | EntryKind::Block | EntryKind::Fifo => {
                self.node(entry, &parts, (uid, gid)).map_err(wrap)
            }
        }
    }

    /// Opens the directory at `parts`, making what is missing. The handles on the way are kept.
    fn parent(&mut self, parts: &[&[u8]]) -> io::Result<Parent<'_>> {
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
    fn note(&mut self, parts: &[&[u8]], attributes: Option<Attributes>) -> io::Result<()> {
        let path = parts.join(&b'/');
        let kept = attributes.as_ref().map_or(0, Attributes::kept_bytes);
        self.charge(path.len() + kept)?;
        self.layer.directories.insert(path, attributes);
        Ok(())
    }

    /// Counts what is about to be kept in memory.
    fn charge(&mut self, bytes: usize) -> io::Result<()> {
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
    fn directory(&mut self, parent: BorrowedFd<'_>, parts: &[&[u8]]) -> io::Result<()> {
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
                let below = self.layer.directories.range(first.clone()..end);
                let below: Vec<_> = below.map(|(path, _)| path.clone()).collect();
                for path in &below {
                    self.layer.directories.remove(path);
                }
                let inside = |path: &[u8]| path.starts_with(&first);
                self.layer.links.retain(|link| !inside(&link.path));
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
    fn replace<T>(
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

    fn kept<'a>(&'a self, kept: &'a OwnedFdOrHeld) -> BorrowedFd<'a> {
        match kept {
            OwnedFdOrHeld::Owned(fd) => fd.as_fd(),
            OwnedFdOrHeld::Held => self
                .open
                .last()
                .map_or(self.layer.root.as_fd(), |(_, fd)| fd.as_fd()),
        }
    }

    /// Four system calls for the common file: open, write, set the time, close.
    fn regular<R: BufRead>(
        &mut self,
        tar: &mut Tar<R>,
        entry: &Entry,
        parts: &[&[u8]],
        (uid, gid): (u32, u32),
    ) -> io::Result<()> {
        let at_once = entry.mode & (self.umask | 0o7000) == 0;
        let open_mode = if at_once { entry.mode } else { 0o600 };
        let (mut made, _) = self.replace(parts, |parent, name| {
            file::create_file_at(parent, name, open_mode)
        })?;
        match &entry.fragments {
            None => copy(tar, &mut made, u64::MAX)?,
            Some(fragments) => {
                for fragment in fragments {
                    made.seek(SeekFrom::Start(fragment.offset))?;
                    copy(tar, &mut made, fragment.length)?;
                }
                made.set_len(entry.size_bytes)?;
            }
        }
        if (uid, gid) != (0, 0) {
            file::chown(&made, uid, gid)?;
        }
        for (name, value) in allowed(&entry.xattrs) {
            tolerate(file::set_xattr(&made, name, value))?;
        }
        if !at_once {
            file::chmod(&made, entry.mode)?;
        }
        file::set_time(&made, entry.modified)?;
        self.layer.size_bytes = self.layer.size_bytes.saturating_add(entry.size_bytes);
        Ok(())
    }

    fn symlink(
        &mut self,
        entry: &Entry,
        parts: &[&[u8]],
        (uid, gid): (u32, u32),
    ) -> io::Result<()> {
        let ((), kept) = self.replace(parts, |parent, name| {
            file::symlink_at(parent, name, &entry.link)
        })?;
        let (parent, name) = (self.kept(&kept), parts.last().expect("never empty"));
        if (uid, gid) != (0, 0) {
            file::chown_at(parent, name, uid, gid)?;
        }
        file::set_time_at(parent, name, entry.modified)?;
        let length = u64::try_from(entry.link.len()).expect("usize fits u64");
        self.layer.size_bytes = self.layer.size_bytes.saturating_add(length);
        Ok(())
    }

    fn node(&mut self, entry: &Entry, parts: &[&[u8]], (uid, gid): (u32, u32)) -> io::Result<()> {
        let (major, minor) = (entry.major, entry.minor);
        let kind = match entry.kind {
            EntryKind::Character => Kind::Character { major, minor },
            EntryKind::Block => Kind::Block { major, minor },
            _ => Kind::Fifo,
        };
        let ((), kept) = self.replace(parts, |parent, name| {
            file::make_node_at(parent, name, kind, 0o600)
        })?;
        let (parent, name) = (self.kept(&kept), parts.last().expect("never empty"));
        if (uid, gid) != (0, 0) {
            file::chown_at(parent, name, uid, gid)?;
        }
        for (attribute, value) in allowed(&entry.xattrs) {
            tolerate(file::set_xattr_at(parent, name, attribute, value))?;
        }
        file::chmod_at(parent, name, entry.mode)?;
        file::set_time_at(parent, name, entry.modified)
    }

    fn hard_link(&mut self, entry: &Entry, parts: &[&[u8]]) -> Result<(), ExtractError> {
        let target = components(&entry.link)?;
        let Some((old, above)) = target.split_last() else {
            return Err(ExtractError::Outside(text(&entry.link)));
        };
        if target == parts {
            return Ok(());
        }
        if target.iter().any(|part| part.starts_with(WHITEOUT)) {
            return Err(ExtractError::Name(text(&entry.link)));
        }
        let wrap = |source| at(&entry.path, source);
        let root = self.layer.root.as_fd();
        let from = above.join(&b'/');
        let from = match path::open_directory_beneath(root, &from) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                path::open_directory_in_root(root, &from)
            }
            other => other,
        };
        // Only a real file is linked: a device 0:0 of ours is a removed file, not one to link to.
        let found = match &from {
            Ok(from) => file::stat_at(from.as_fd(), old)
                .ok()
                .filter(|s| s.kind != WHITEOUT_DEVICE),
            Err(_) => None,
        };
        if let (Ok(from), Some(_)) = (from, found) {
            let linked = self.replace(parts, |parent, name| {
                file::link_at(from.as_fd(), old, parent, name)
            });
            match linked {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => return other.map(drop).map_err(wrap),
            }
        }
        self.charge(entry.path.len() + entry.link.len())
            .map_err(wrap)?;
        self.layer.links.push(Link {
            path: parts.join(&b'/'),
            target: target.join(&b'/'),
        });
        Ok(())
    }

    /// `.wh.name` removes `name` of the layers below, `.wh..wh..opq` all that is below its directory.
    fn whiteout(&mut self, parts: &[&[u8]]) -> Result<(), ExtractError> {
        let (name, above) = parts.split_last().expect("never empty");
        let path = parts.join(&b'/');
        let wrap = |source| at(&path, source);
        if *name == WHITEOUT_OPAQUE {
            if above.is_empty() {
                self.layer.root_opaque = true;
                return Ok(());
            }
            let directory = self.parent(above).map_err(wrap)?;
            return file::set_xattr(directory.as_fd(), OPAQUE, b"y").map_err(wrap);
        }
        if name.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(ExtractError::Name(text(&path)));
        }
        let parent = self.parent(above).map_err(wrap)?;
        match file::make_node_at(parent.as_fd(), hidden, WHITEOUT_DEVICE, 0) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // The layer has a file of its own there. A directory must not show what is below it.
                match file::open_directory_at(parent.as_fd(), hidden) {
                    Ok(directory) => file::set_xattr(directory, OPAQUE, b"y").map_err(wrap),
                    Err(_) => Ok(()),
                }
            }
            Err(error) => Err(wrap(error)),
            Ok(()) => {
                let path = [above, &[hidden]].concat().join(&b'/');
                self.charge(path.len()).map_err(wrap)?;
                self.layer.whiteouts.push(path);
                Ok(())
            }
        }
    }
}

/// Where the parent of a new file is to be found once more, without borrowing the extractor meanwhile.
enum OwnedFdOrHeld {
    Owned(OwnedFd),
    Held,
}

impl Parent<'_> {
    fn into_owned(self) -> io::Result<OwnedFd> {
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

/// Copies at most `most` bytes of the entry's stored content.
fn copy<R: BufRead>(tar: &mut Tar<R>, to: &mut std::fs::File, mut most: u64) -> io::Result<()> {
    while most > 0 {
        let content = tar.content()?;
        if content.is_empty() {
            break;
        }
        let length = usize::try_from(most)
            .unwrap_or(usize::MAX)
            .min(content.len());
        let written = to.write(&content[..length])?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        tar.consume(written);
        most -= u64::try_from(written).expect("usize fits u64");
    }
    Ok(())
}

fn owner(entry: &Entry) -> Result<(u32, u32), ExtractError> {
    let id = |id: u64| match u32::try_from(id) {
        Ok(number) if number != u32::MAX => Ok(number),
        _ => Err(ExtractError::Owner {
            path: text(&entry.path),
            id,
        }),
    };
    Ok((id(entry.uid)?, id(entry.gid)?))
}

fn attributes(entry: &Entry) -> Result<Attributes, ExtractError> {
    let (uid, gid) = owner(entry)?;
    let xattrs = allowed(&entry.xattrs);
    Ok(Attributes {
        uid,
        gid,
        mode: entry.mode,
        modified: Some(entry.modified),
        xattrs: xattrs
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect(),
    })
}

/// The attributes an image may set: a user's own and file capabilities. `trusted.overlay.*` above all would
/// let an image redirect overlayfs.
fn allowed(xattrs: &[(Vec<u8>, Vec<u8>)]) -> impl Iterator<Item = (&[u8], &[u8])> {
    xattrs
        .iter()
        .filter(|(name, _)| name.starts_with(b"user.") || name == b"security.capability")
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
}

/// A file system without extended attributes, or a kind of file that cannot have this one, as Docker does.
pub(crate) fn tolerate(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
            ) =>
        {
            tracing::debug!(%error, "an extended attribute of the image is left out");
            Ok(())
        }
        other => other,
    }
}
