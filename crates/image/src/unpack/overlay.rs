//! What overlayfs would show: a lookup through finished layers, topmost first.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use sys::file::{self, Kind, Stat};

use super::extract::{OPAQUE, WHITEOUT_DEVICE};

/// A file as the layers show it.
#[derive(Debug)]
pub(crate) struct Visible {
    /// The directory it is in, of the layer that shows it.
    pub(crate) parent: OwnedFd,
    /// Its attributes.
    pub(crate) stat: Stat,
}

/// Finds `parts` in `layers` (topmost first) without following symbolic links. `None`: not there, removed by
/// a whiteout, or hidden by an opaque directory or a file of the same name.
pub(crate) fn find(layers: &[&OwnedFd], parts: &[&[u8]]) -> io::Result<Option<Visible>> {
    let Some((name, above)) = parts.split_last() else {
        return Ok(None);
    };
    let Some(directories) = directories(layers, above)? else {
        return Ok(None);
    };
    for directory in directories {
        match file::stat_at(directory.as_fd(), name) {
            Ok(stat) if stat.kind == WHITEOUT_DEVICE => return Ok(None),
            Ok(stat) => {
                return Ok(Some(Visible {
                    parent: directory,
                    stat,
                }));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The directories that are merged at `parts`, topmost first; `None` when there is no directory.
pub(crate) fn directories(
    layers: &[&OwnedFd],
    parts: &[&[u8]],
) -> io::Result<Option<Vec<OwnedFd>>> {
    let mut merged: Vec<OwnedFd> = Vec::with_capacity(layers.len());
    for layer in layers {
        merged.push(layer.try_clone()?);
    }
    for part in parts {
        let mut next = Vec::new();
        for directory in &merged {
            match file::stat_at(directory.as_fd(), part) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
                Ok(stat) if stat.kind != Kind::Directory => break,
                Ok(_) => {}
            }
            let inner = file::open_directory_at(directory.as_fd(), part)?;
            let opaque = file::xattr(&inner, OPAQUE)?.as_deref() == Some(b"y");
            next.push(inner);
            if opaque {
                break;
            }
        }
        if next.is_empty() {
            return Ok(None);
        }
        merged = next;
    }
    Ok(Some(merged))
}
