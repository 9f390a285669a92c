//! What can only be done when the layers below are finished, and the attributes of directories last.
//!
//! Hard links to files of lower layers, whiteouts that hide nothing, an opaque root, and directories that no
//! entry named: overlayfs shows the topmost directory's attributes, so those need the ones from below (else
//! a layer with `tmp/x` alone would take the sticky bit off `/tmp`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use sys::file::{self, Kind};
use sys::path;

use super::extract::{
    self, Attributes, ExtractError, Extracted, Link, OPAQUE, WHITEOUT_DEVICE, at, components, text,
};
use super::overlay;

/// Mode of a directory that no layer describes.
const IMPLIED_MODE: u32 = 0o755;

/// Finishes `layer` above `lowers` (topmost first, all finished). Answers its size in bytes.
///
/// # Errors
/// [`ExtractError`].
pub(crate) fn finish(
    mut layer: Extracted,
    lowers: &[&OwnedFd],
    stop: &AtomicBool,
) -> Result<u64, ExtractError> {
    let go_on = || match stop.load(Ordering::Relaxed) {
        true => Err(ExtractError::Stopped),
        false => Ok(()),
    };
    let mut links: Vec<Link> = std::mem::take(&mut layer.links).into_values().collect();
    links.sort_by_key(|link| link.order);
    for link in links {
        go_on()?;
        cross_link(&mut layer, lowers, &link)?;
    }
    if layer.root_opaque {
        hide_everything(&layer, lowers).map_err(|source| at(b"/", source))?;
    }
    for path in &layer.whiteouts {
        go_on()?;
        prune_whiteout(&layer, lowers, path).map_err(|source| at(path, source))?;
    }
    layer.directories.entry(Vec::new()).or_insert(None);
    for (path, attributes) in &layer.directories {
        go_on()?;
        describe(&layer, lowers, path, attributes.as_ref()).map_err(|source| at(path, source))?;
    }
    Ok(layer.size_bytes)
}

/// The directory of `path` and its name.
fn parent_of(layer: &Extracted, path: &[u8]) -> io::Result<(OwnedFd, Vec<u8>)> {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    let (above, name) = match slash {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&b""[..], path),
    };
    Ok((open(layer, above)?, name.to_vec()))
}

/// Opens a directory of the layer; a symbolic link of the layer on the way is resolved within it.
fn open(layer: &Extracted, path: &[u8]) -> io::Result<OwnedFd> {
    let root = layer.root.as_fd();
    match path::open_directory_beneath(root, path) {
        Err(error) if file::is_symlink_error(&error) => path::open_directory_in_root(root, path),
        other => other,
    }
}

/// Links to a file of this layer that came after the link, or of the layers below: overlayfs then shows one
/// inode under both names.
fn cross_link(layer: &mut Extracted, lowers: &[&OwnedFd], link: &Link) -> Result<(), ExtractError> {
    let wrap = |source| at(&link.path, source);
    let target = components(&link.target)?;
    // This layer's own whiteouts say nothing about what the link meant: they hide names, not files.
    let found = match overlay::find(&[&layer.root], &target).map_err(wrap)? {
        Some(found) => Some(found),
        None => overlay::find(lowers, &target).map_err(wrap)?,
    };
    let Some(found) = found else {
        return Err(ExtractError::DanglingLink {
            path: text(&link.path),
            target: text(&link.target),
        });
    };
    if found.stat.kind == Kind::Directory {
        return Err(wrap(io::ErrorKind::IsADirectory.into()));
    }
    let old = target.last().expect("a found file has a name").to_vec();
    let parts = components(&link.path)?;
    let (name, above) = parts.split_last().expect("the root is never linked");
    let parent = make_directories(layer, above).map_err(wrap)?;
    file::remove_tree(parent.as_fd(), name).map_err(wrap)?;
    file::link_at(found.parent.as_fd(), &old, parent.as_fd(), name).map_err(wrap)?;
    layer.size_bytes = layer.size_bytes.saturating_add(found.stat.size_bytes);
    Ok(())
}

fn make_directories(layer: &mut Extracted, parts: &[&[u8]]) -> io::Result<OwnedFd> {
    let mut directory = layer.root.try_clone()?;
    for (depth, part) in parts.iter().enumerate() {
        directory = match file::open_directory_at(directory.as_fd(), part) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                file::make_directory_at(directory.as_fd(), part, 0o700)?;
                layer.directories.insert(parts[..=depth].join(&b'/'), None);
                file::open_directory_at(directory.as_fd(), part)?
            }
            Err(_) => {
                path::open_directory_in_root(layer.root.as_fd(), &parts[..=depth].join(&b'/'))?
            }
            Ok(next) => next,
        };
    }
    Ok(directory)
}

/// An opaque root: overlayfs does not look at the mark there, so each name below is hidden by itself.
fn hide_everything(layer: &Extracted, lowers: &[&OwnedFd]) -> io::Result<()> {
    for lower in lowers {
        for name in file::names_in(lower.as_fd())? {
            match file::make_node_at(layer.root.as_fd(), &name, WHITEOUT_DEVICE, 0) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if let Ok(directory) = file::open_directory_at(layer.root.as_fd(), &name) {
                        file::set_xattr(directory, OPAQUE, b"y")?;
                    }
                }
                other => other?,
            }
        }
    }
    Ok(())
}

/// Removes a whiteout with nothing below it: in a directory that only one layer has, overlayfs would list it.
fn prune_whiteout(layer: &Extracted, lowers: &[&OwnedFd], path: &[u8]) -> io::Result<()> {
    let (parent, name) = match parent_of(layer, path) {
        Ok(found) => found,
        // A later entry put something else in the place of its directory.
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    match file::stat_at(parent.as_fd(), &name) {
        Ok(stat) if stat.kind == WHITEOUT_DEVICE => {}
        Ok(_) => return Ok(()),
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    }
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    // A directory of this layer above it may be opaque and hide the lower file already.
    let mut hidden = layer.root_opaque;
    for depth in 1..parts.len() {
        let directory = open(layer, &parts[..depth].join(&b'/'))?;
        hidden |= file::xattr(&directory, OPAQUE)?.as_deref() == Some(b"y");
    }
    let top_level_opaque = layer.root_opaque && parts.len() == 1;
    if top_level_opaque || (!hidden && overlay::find(lowers, &parts)?.is_some()) {
        return Ok(());
    }
    file::unlink_at(parent.as_fd(), &name)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    ) || file::is_symlink_error(error)
}

/// Sets a directory's attributes: its own, or the ones from below, or the default.
fn describe(
    layer: &Extracted,
    lowers: &[&OwnedFd],
    path: &[u8],
    own: Option<&Attributes>,
) -> io::Result<()> {
    let directory = match open(layer, path) {
        Ok(directory) => directory,
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let inherited;
    let attributes = match own {
        Some(own) => own,
        None => {
            inherited = from_below(directory.as_fd(), lowers, path)?;
            &inherited
        }
    };
    // chown clears capabilities and setuid bits, so it comes first.
    file::chown(&directory, attributes.uid, attributes.gid)?;
    for (name, value) in &attributes.xattrs {
        extract::tolerate(file::set_xattr(&directory, name, value))?;
    }
    file::chmod(&directory, attributes.mode)?;
    match attributes.modified {
        Some(time) => file::set_time(&directory, time),
        None => Ok(()),
    }
}

fn from_below(own: BorrowedFd<'_>, lowers: &[&OwnedFd], path: &[u8]) -> io::Result<Attributes> {
    let default = Attributes {
        uid: 0,
        gid: 0,
        mode: IMPLIED_MODE,
        modified: None,
        xattrs: Vec::new(),
    };
    // An opaque directory replaced the one below: it takes nothing from it.
    if file::xattr(own, OPAQUE)?.as_deref() == Some(b"y") {
        return Ok(default);
    }
    let parts: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty())
        .collect();
    let Some(below) = overlay::directories(lowers, &parts)? else {
        return Ok(default);
    };
    let Some(top) = below.first() else {
        return Ok(default);
    };
    let stat = file::stat_at(top.as_fd(), b"")?;
    let mut xattrs = Vec::new();
    for name in file::xattr_names(top)? {
        let is_allowed = name.starts_with(b"user.") || name == b"security.capability";
        if is_allowed && let Some(value) = file::xattr(top, &name)? {
            xattrs.push((name, value));
        }
    }
    Ok(Attributes {
        uid: stat.uid,
        gid: stat.gid,
        mode: stat.mode,
        modified: Some(stat.modified),
        xattrs,
    })
}
