//! Filling a new, empty volume with what the image has at its place ("copy-up"), at create as dockerd does.
//!
//! The image is read through a read-only overlay that is attached nowhere, and its paths are resolved in that
//! root alone: a volume path that is a symbolic link, or climbs with `..`, ends inside the image.
//!
//! Never half a copy: the content goes to `_copy` beside `_data`. When it is whole and on disk, the name
//! becomes `_full`: from then on it *is* the volume's content. What is in `_full` moves into `_data` name by
//! name, which can be interrupted and continued at any point ([`finish`]). `_data` itself stays the same
//! directory, since a running container may have mounted it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use sys::file::{self, Kind};
use sys::path::OpenFlags;

use super::copy;
use super::options::{Backing, backing};
use super::rows::Definition;
use crate::open::Inner;
use crate::{Class, Error};

/// Where a copy is made.
const COPY: &[u8] = b"_copy";

/// A copy that is whole.
const FULL: &[u8] = b"_full";

/// In them: the content, …
const CONTENT: &[u8] = b"content";

/// … and an empty directory with the attributes that `_data` gets. The content's own loses its time when names
/// are moved out of it.
const ROOT: &[u8] = b"root";

/// Mode of the directories above; what is in them gets its own.
const PRIVATE_MODE: u32 = 0o700;

/// A name that is being moved from another file system.
const MOVING: &[u8] = b".cooper-moving";

/// An image's root, opened for reading.
pub(super) struct Content {
    root: OwnedFd,
}

impl Content {
    /// Opens the root that a container sees, before its own changes.
    ///
    /// # Errors
    /// The errno of the mount.
    pub(super) fn open(held: &image::Held) -> io::Result<Self> {
        let lower = held.readable();
        if let [only] = lower.as_slice() {
            // The empty layer.
            let root = file::open_directory(&held.layers_dir.join(only))?;
            return Ok(Self { root });
        }
        let request = sys::overlay::Request {
            layers: &held.layers_dir,
            lower: &lower,
            upper: None,
        };
        let root = sys::overlay::mount(&request, None)?;
        Ok(Self { root })
    }

    /// Opens what the image has at a path. `None`: nothing.
    fn at(&self, destination: &str) -> io::Result<Option<OwnedFd>> {
        let path = Path::new(destination.trim_start_matches('/'));
        match sys::path::open_in_root(self.root.as_fd(), path, OpenFlags::PATH) {
            Ok(found) => Ok(Some(found)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The image's directory at a path. `None`: nothing is there.
    ///
    /// # Errors
    /// Internal when something else is there: `refused` words it for that path in the container's root.
    pub(super) fn directory(
        &self,
        destination: &str,
        refused: impl FnOnce() -> String,
    ) -> Result<Option<OwnedFd>, Error> {
        let failed =
            |source| Error::internal(format!("look for {destination} in the image"), source);
        let Some(found) = self.at(destination).map_err(failed)? else {
            return Ok(None);
        };
        if file::stat(&found).map_err(failed)?.kind != Kind::Directory {
            return Err(Error::new(Class::Internal, refused()));
        }
        // Opened for reading through itself: nothing is looked up a second time.
        let flags = OpenFlags::RDONLY | OpenFlags::DIRECTORY;
        let directory = sys::path::open_in_root(found.as_fd(), Path::new("."), flags);
        directory.map(Some).map_err(failed)
    }
}

/// A volume's directory, and where its content lies: elsewhere when it is a bound directory of the host.
struct Place {
    own: OwnedFd,
    data: OwnedFd,
}

/// `None`: its file system is only there while a container runs.
fn open(engine: &Inner, volume: &Definition) -> io::Result<Option<Place>> {
    let own = file::open_directory(&engine.config.volumes_dir().join(&volume.name))?;
    let data = match backing(volume.options.as_ref()) {
        Backing::Directory => file::open_directory_at(own.as_fd(), b"_data")?,
        Backing::Bind { device, .. } => match file::open_directory(Path::new(&device)) {
            Ok(data) => data,
            // The start will say so.
            Err(_) => return Ok(None),
        },
        Backing::Filesystem { .. } => return Ok(None),
    };
    Ok(Some(Place { own, data }))
}

/// Copies the image's directory into the volume, unless the volume has something. The name is claimed.
///
/// # Errors
/// Internal; the volume is then as empty as before, or whole.
pub(super) fn fill(engine: &Inner, volume: &Definition, content: &OwnedFd) -> Result<(), Error> {
    let name = &volume.name;
    let failed =
        |source| Error::internal(format!("copy the image's content to volume {name}"), source);
    let Some(place) = open(engine, volume).map_err(failed)? else {
        return Ok(());
    };
    if move_in(&place).map_err(failed)?
        || !file::names_in(place.data.as_fd())
            .map_err(failed)?
            .is_empty()
    {
        return Ok(());
    }
    if file::names_in(content.as_fd()).map_err(failed)?.is_empty() {
        // Nothing to copy but the attributes, and those can be set again.
        return copy::directory_attributes(content, &place.data).map_err(failed);
    }
    let copied = copy_aside(&place, content);
    if let Err(error) = copied {
        if let Err(leftover) = file::remove_tree(place.own.as_fd(), COPY) {
            tracing::error!(volume = name, error = %leftover, "undo a copy");
        }
        return Err(failed(error));
    }
    move_in(&place).map_err(failed)?;
    Ok(())
}

fn copy_aside(place: &Place, content: &OwnedFd) -> io::Result<()> {
    file::remove_tree(place.own.as_fd(), COPY)?;
    file::make_directory_at(place.own.as_fd(), COPY, PRIVATE_MODE)?;
    let aside = file::open_directory_at(place.own.as_fd(), COPY)?;
    sys::fault!("volume.fill.begun");
    for name in [CONTENT, ROOT] {
        file::make_directory_at(aside.as_fd(), name, PRIVATE_MODE)?;
    }
    let root = file::open_directory_at(aside.as_fd(), ROOT)?;
    copy::directory_attributes(content, &root)?;
    let copied = file::open_directory_at(aside.as_fd(), CONTENT)?;
    copy::tree(content.as_fd(), copied.as_fd())?;
    // The name below says that all of it is there, also after a power cut.
    file::sync_filesystem(&aside)?;
    sys::fault!("volume.fill.copied");
    file::rename_at(place.own.as_fd(), COPY, place.own.as_fd(), FULL)?;
    file::sync(&place.own)?;
    sys::fault!("volume.fill.whole");
    Ok(())
}

/// Moves what is in `_full` into `_data`; false when there is no `_full`. What stands in `_data` already is
/// newer and stays.
fn move_in(place: &Place) -> io::Result<bool> {
    let full = match file::open_directory_at(place.own.as_fd(), FULL) {
        Ok(full) => full,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    file::remove_tree(place.data.as_fd(), MOVING)?;
    let content = file::open_directory_at(full.as_fd(), CONTENT)?;
    for name in file::names_in(content.as_fd())? {
        match file::stat_at(place.data.as_fd(), &name) {
            Ok(_) => file::remove_tree(content.as_fd(), &name)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                move_one(content.as_fd(), place.data.as_fd(), &name)?;
                sys::fault!("volume.fill.moved");
            }
            Err(error) => return Err(error),
        }
    }
    let root = file::open_directory_at(full.as_fd(), ROOT)?;
    copy::directory_attributes(&root, &place.data)?;
    sys::fault!("volume.fill.attributes");
    // One step: a half-removed one would have no content to go on with.
    file::rename_at(place.own.as_fd(), FULL, place.own.as_fd(), COPY)?;
    file::remove_tree(place.own.as_fd(), COPY)?;
    sys::fault!("volume.fill.finished");
    Ok(true)
}

fn move_one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match file::rename_at(from, name, to, name) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            // A bound directory on another file system: copied under another name, then it is there at once.
            file::make_directory_at(to, MOVING, PRIVATE_MODE)?;
            let aside = file::open_directory_at(to, MOVING)?;
            copy::one(from, aside.as_fd(), name)?;
            file::rename_at(aside.as_fd(), name, to, name)?;
            file::remove_tree(to, MOVING)?;
            file::remove_tree(from, name)
        }
        other => other,
    }
}

/// Ends, after a crash, a filling that had become the volume's content, and removes one that had not.
///
/// # Errors
/// Internal; the next start tries again.
pub(super) fn finish(engine: &Inner, volume: &Definition) -> Result<(), Error> {
    let name = &volume.name;
    let failed = |source| Error::internal(format!("fill volume {name}"), source);
    let Some(place) = open(engine, volume).map_err(failed)? else {
        return Ok(());
    };
    file::remove_tree(place.own.as_fd(), COPY).map_err(failed)?;
    move_in(&place).map_err(failed)?;
    Ok(())
}
