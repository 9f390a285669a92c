//! From tar entries to files in one layer's own directory, in the form overlayfs reads.
//!
//! Every name is taken apart and walked by directory handles without following symbolic links; where the
//! layer itself has a symbolic link on the way, the kernel resolves it with the layer as `/`. So nothing in
//! an archive reaches a file outside of the layer's directory. Whiteouts become character devices 0:0,
//! opaque directories get `trusted.overlay.opaque`. What depends on the layers below is only noted here and
//! done by [`second_pass`](super::second_pass).

mod files;
mod place;

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::os::fd::{AsFd, OwnedFd};

use sys::file::{self, Kind, Time};

use self::files::allowed;
pub(crate) use self::files::tolerate;
use super::reader::{Entry, EntryKind, Tar, TarError};
use crate::room::{ENTRY_BYTES, Guard};

/// The most entries of one layer: the largest known images have about a million files in all.
const ENTRIES_MAX: u64 = 4_000_000;
/// What is kept of a layer in memory until its end, in bytes: paths and attributes of directories, links to lower
/// layers, whiteouts. Enough for some 300,000 of them; a small archive can name many long ones.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// What one kept thing takes beside its bytes: its place in a map and the allocator's share.
const KEPT_OVERHEAD_BYTES: usize = 96;
/// The longest path, in bytes (`PATH_MAX` of Linux).
const PATH_BYTES_MAX: usize = 4096;

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
/// What overlayfs takes for a removed file.
pub(crate) const WHITEOUT_DEVICE: Kind = Kind::Character { major: 0, minor: 0 };
/// The mark of a directory that hides what is below it.
pub(crate) const OPAQUE: &[u8] = b"trusted.overlay.opaque";

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
    /// Nobody wants the image any more.
    #[error("the unpacking was given up")]
    Stopped,
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
    /// How many came before it: links are made in the archive's order.
    pub(crate) order: usize,
    pub(crate) path: Vec<u8>,
    pub(crate) target: Vec<u8>,
}

/// An unpacked layer that still needs its second pass.
#[derive(Debug)]
pub(crate) struct Extracted {
    pub(crate) root: OwnedFd,
    /// By path; `None`: no entry named it, it was only on the way to another.
    pub(crate) directories: BTreeMap<Vec<u8>, Option<Attributes>>,
    /// By path, so that what is below a directory is found at once.
    pub(crate) links: BTreeMap<Vec<u8>, Link>,
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
        links_seen: 0,
        room: Guard::default(),
        open: Vec::new(),
        kept_bytes: 0,
        layer: Extracted {
            root,
            directories: BTreeMap::new(),
            links: BTreeMap::new(),
            whiteouts: Vec::new(),
            root_opaque: false,
            size_bytes: 0,
        },
    };
    let mut entries = 0;
    while let Some(entry) = tar.next()? {
        entries += 1;
        limit("the number of entries of a layer", entries, ENTRIES_MAX)?;
        extractor
            .room
            .wrote(&extractor.layer.root, ENTRY_BYTES)
            .map_err(|source| at(&entry.path, source))?;
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
    /// Links that were put off so far.
    links_seen: usize,
    room: Guard,
    /// The directories on the way to the last entry, outermost first.
    open: Vec<(Vec<u8>, OwnedFd)>,
    /// Of what the layer keeps in memory; see [`KEPT_BYTES_MAX`].
    kept_bytes: usize,
    layer: Extracted,
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
