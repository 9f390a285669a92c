//! The files themselves: content, links and nodes, with their attributes.

use std::io::{self, BufRead, Seek, SeekFrom, Write};
use std::os::fd::AsFd;

use sys::file::{self, Kind};
use sys::path;

use super::{ExtractError, Extractor, Link, WHITEOUT, WHITEOUT_DEVICE, at, components, text};
use crate::unpack::reader::{Entry, EntryKind, Tar};

impl Extractor {
    /// Four system calls for the common file: open, write, set the time, close.
    pub(super) fn regular<R: BufRead>(
        &mut self,
        tar: &mut Tar<R>,
        entry: &Entry,
        parts: &[&[u8]],
        (uid, gid): (u32, u32),
    ) -> io::Result<()> {
        let stored = match &entry.fragments {
            None => entry.size_bytes,
            Some(fragments) => fragments.iter().map(|fragment| fragment.length).sum(),
        };
        self.room.wants(&self.layer.root, stored)?;
        let at_once = entry.mode & (self.umask | 0o7000) == 0;
        let open_mode = if at_once { entry.mode } else { 0o600 };
        let (mut made, _) = self.replace(parts, |parent, name| {
            file::create_file_at(parent, name, open_mode)
        })?;
        match &entry.fragments {
            None => self.copy(tar, &mut made, u64::MAX)?,
            Some(fragments) => {
                for fragment in fragments {
                    made.seek(SeekFrom::Start(fragment.offset))?;
                    self.copy(tar, &mut made, fragment.length)?;
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

    /// Copies at most `most` bytes of the entry's stored content.
    fn copy<R: BufRead>(
        &mut self,
        tar: &mut Tar<R>,
        to: &mut std::fs::File,
        mut most: u64,
    ) -> io::Result<()> {
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
            let written = u64::try_from(written).expect("usize fits u64");
            self.room.wrote(&self.layer.root, written)?;
            most -= written;
        }
        Ok(())
    }

    pub(super) fn symlink(
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

    pub(super) fn node(
        &mut self,
        entry: &Entry,
        parts: &[&[u8]],
        (uid, gid): (u32, u32),
    ) -> io::Result<()> {
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

    pub(super) fn hard_link(&mut self, entry: &Entry, parts: &[&[u8]]) -> Result<(), ExtractError> {
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
        let link = Link {
            order: self.links_seen,
            path: parts.join(&b'/'),
            target: target.join(&b'/'),
        };
        self.links_seen += 1;
        self.layer.links.insert(link.path.clone(), link);
        Ok(())
    }
}

/// The attributes an image may set: a user's own and file capabilities. `trusted.overlay.*` above all would
/// let an image redirect overlayfs.
pub(super) fn allowed(xattrs: &[(Vec<u8>, Vec<u8>)]) -> impl Iterator<Item = (&[u8], &[u8])> {
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
