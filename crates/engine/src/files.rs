//! The files and directories of a container: made by create, completed by each launch, destroyed by remove.
//!
//! ```text
//! <data root>/containers/<id>/   container.json   the definition, for who looks and for a lost database
//!                                upper/ work/     the overlay's writable half
//!                                hostname hosts resolv.conf   bound into the container
//!                                <id>-json.log    the shim's
//! <exec root>/containers/<id>/   shim.sock exit.json          the shim's
//! ```
//! Everything here blocks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use sys::file::{self, Durability, Kind, Remains};

use crate::definition::Definition;
use crate::error::Error;
use crate::open::Inner;
use crate::volumes::{self, Anonymous};
use crate::{ContainerId, launch};

/// The file that makes a directory a container's.
pub(crate) const DEFINITION: &str = "container.json";

/// Container directories: the root of the host alone looks into them (dockerd: 0710).
const DIRECTORY_MODE: u32 = 0o710;

/// The root directory of a container, as every image's `/`.
const ROOT_MODE: u32 = 0o755;

/// An empty file at the root of every container of Docker's, by which programs tell that they are in one.
const DOCKER_ENV: &[u8] = b".dockerenv";
const DOCKER_ENV_MODE: u32 = 0o755;

/// What older programs read for the mount table, in every container of Docker's whatever the image has there.
const MTAB: (&[u8], &[u8]) = (b"mtab", b"/proc/mounts");
const ETC: &[u8] = b"etc";

/// Files that the container reads.
const READABLE_MODE: u32 = 0o644;

/// Files that only the engine reads.
const PRIVATE_MODE: u32 = 0o600;

/// Makes a container's directory with all that does not change from run to run.
pub(crate) fn make(
    engine: &Inner,
    definition: &Definition,
    name: &str,
    held: &image::Held,
) -> Result<(), Error> {
    let path = engine.config.container_dir(&definition.id);
    let failed = |source| Error::internal(format!("make {}", path.display()), source);
    let parent = file::open_directory(&engine.config.containers_dir()).map_err(failed)?;
    let id = definition.id.as_str().as_bytes();
    file::make_directory_at(parent.as_fd(), id, DIRECTORY_MODE).map_err(failed)?;
    let directory = file::open_directory_at(parent.as_fd(), id).map_err(failed)?;
    sys::fault!("engine.create.directory");
    file::make_directory_at(directory.as_fd(), b"upper", ROOT_MODE).map_err(failed)?;
    let root = file::open_directory_at(directory.as_fd(), b"upper").map_err(failed)?;
    file::create_file_at(root.as_fd(), DOCKER_ENV, DOCKER_ENV_MODE).map_err(failed)?;
    make_mtab(root.as_fd(), held).map_err(failed)?;
    file::make_directory_at(directory.as_fd(), b"work", ROOT_MODE).map_err(failed)?;
    write_definition(engine, definition, name)
}

/// Bytes of what [`make`] put below a container's `upper`, as far as it is there still: dockerd has it in a layer of its
/// own, which does not count as the container's.
pub(crate) fn given_bytes(upper: BorrowedFd<'_>) -> u64 {
    let etc = sys::path::open_directory_beneath(upper, ETC);
    match etc.and_then(|etc| file::read_link_at(etc.as_fd(), MTAB.0)) {
        Ok(target) if target == MTAB.1 => MTAB.1.len() as u64,
        // Something else is there, or nothing.
        Ok(_) | Err(_) => 0,
    }
}

/// Makes `/etc/mtab` in a container's own layer, below a directory with the attributes of the image's.
fn make_mtab(root: BorrowedFd<'_>, held: &image::Held) -> io::Result<()> {
    let mut attributes = None;
    // The uppermost layer that says something about it has the last word.
    for layer in held.readable() {
        let layer = file::open_directory(&held.layers_dir.join(layer))?;
        match file::stat_at(layer.as_fd(), ETC) {
            Ok(found) => {
                attributes = Some(found);
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    match attributes.as_ref().map(|found| &found.kind) {
        Some(Kind::Directory | Kind::Character { .. }) | None => {}
        // A link may lead anywhere.
        Some(_) => return Ok(()),
    }
    file::make_directory_at(root, ETC, ROOT_MODE)?;
    let etc = file::open_directory_at(root, ETC)?;
    if let Some(found) = attributes.filter(|found| found.kind == Kind::Directory) {
        file::chown_at(etc.as_fd(), b"", found.uid, found.gid)?;
        file::chmod(&etc, found.mode)?;
    }
    file::symlink_at(etc.as_fd(), MTAB.0, MTAB.1)
}

/// Writes `container.json`, which outlives the database.
pub(crate) fn write_definition(
    engine: &Inner,
    definition: &Definition,
    name: &str,
) -> Result<(), Error> {
    #[derive(serde::Serialize)]
    struct File<'a> {
        name: &'a str,
        #[serde(flatten)]
        definition: &'a Definition,
    }
    let json = serde_json::to_vec(&File { name, definition })
        .map_err(|source| Error::internal("write container.json", source))?;
    write(engine, &definition.id, DEFINITION, &json, PRIVATE_MODE)
}

/// Writes one of the files that the container sees.
pub(crate) fn write_readable(
    engine: &Inner,
    id: &ContainerId,
    name: &str,
    text: &str,
) -> Result<(), Error> {
    write(engine, id, name, text.as_bytes(), READABLE_MODE)
}

fn write(
    engine: &Inner,
    id: &ContainerId,
    name: &str,
    bytes: &[u8],
    mode: u32,
) -> Result<(), Error> {
    write_file(&engine.config.container_dir(id), name, bytes, mode)
}

fn write_file(path: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<(), Error> {
    file::open_directory(path)
        .and_then(|directory| {
            file::write_atomic(
                directory.as_fd(),
                name.as_ref(),
                bytes,
                mode,
                Durability::None,
            )
        })
        .map_err(|source| Error::internal(format!("write {}", path.join(name).display()), source))
}

/// Makes an empty run directory; what an earlier run left there goes.
pub(crate) fn make_run_dir(run_dir: &Path) -> Result<(), Error> {
    let failed = |source| Error::internal(format!("make {}", run_dir.display()), source);
    let (parent, name) = split(run_dir);
    let parent = file::open_directory(parent).map_err(failed)?;
    match file::make_directory_at(parent.as_fd(), name, DIRECTORY_MODE) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            file::remove_tree(parent.as_fd(), name).map_err(failed)?;
            file::make_directory_at(parent.as_fd(), name, DIRECTORY_MODE).map_err(failed)
        }
        other => other.map_err(failed),
    }
}

/// Writes a file of a run directory that only the engine reads.
pub(crate) fn write_private(run_dir: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    write_file(run_dir, name, bytes, PRIVATE_MODE)
}

/// Removes a file; a missing one is fine.
pub(crate) fn remove_file(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::internal(format!("remove {}", path.display()), error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a run directory; a missing one is fine.
pub(crate) fn remove_run_dir(run_dir: &Path) -> Result<Remains, Error> {
    take_away(run_dir)
}

/// Removes a directory with all that is in it; a missing one is fine.
pub(crate) fn remove_directory(path: &Path) -> Result<(), Error> {
    take_away(path).map(drop)
}

/// As [`remove_directory`]; when what it answers is dropped, the disk is asked to free it.
fn take_away(path: &Path) -> Result<Remains, Error> {
    let (parent, name) = split(path);
    let removed = file::open_directory(parent)
        .and_then(|parent| file::remove_tree_held(parent.as_fd(), name));
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::internal(format!("remove {}", path.display()), error))
        }
        removed => Ok(removed.unwrap_or_default()),
    }
}

fn split(path: &Path) -> (&Path, &[u8]) {
    use std::os::unix::ffi::OsStrExt as _;
    let parent = path
        .parent()
        .expect("the roots are absolute paths with a container's id below");
    let name = path
        .file_name()
        .expect("the last component is a container's id");
    (parent, name.as_bytes())
}

/// Removes a container's files. When not even the directory above is there, the data root is away, and what nobody
/// knew any more would be in it when it comes back.
fn take_files(engine: &Inner, id: &ContainerId) -> Result<Remains, Error> {
    let path = engine.config.container_dir(id);
    file::open_directory(&engine.config.containers_dir())
        .map_err(|source| Error::internal(format!("remove {}", path.display()), source))?;
    take_away(&path)
}

/// Destroys everything of a container but its row: what is left of a run, its files, its volumes, its hold on
/// the image.
/// All parts are tried; the first failure is returned, and calling it again is fine. What is answered is for nobody to
/// wait for: the files have no names any more, and the disk frees them when it is dropped.
pub(crate) fn destroy(
    engine: &Inner,
    id: &ContainerId,
    anonymous: Anonymous,
) -> Result<Remains, Error> {
    let run = if engine.config.run_dir(id).exists() {
        launch::undo_blocking(engine, id)
    } else {
        engine.networks.detach(id)
    };
    sys::fault!("engine.destroy.run");
    let files = take_files(engine, id);
    sys::fault!("engine.destroy.files");
    let volumes = volumes::release(engine, id, anonymous);
    sys::fault!("engine.destroy.volumes");
    let image = engine.images.release(id.as_str()).map_err(Error::from);
    sys::fault!("engine.destroy.image");
    let remains = run.and(files);
    remains.and_then(|remains| volumes.and(image).map(|()| remains))
}
