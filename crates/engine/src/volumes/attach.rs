//! The volumes and binds of a container: settled when it is defined, taken when it is made, looked at when it
//! is launched, released when it is destroyed.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

use api::container::mount::MountPoint;
use sys::clock::now_ns;
use sys::file::Durability;
use sys::path::OpenFlags;

use super::fill::{self, Content};
use super::options::{Backing, backing};
use super::rows::{self, Phase};
use super::{DRIVER, anonymous_labels, data_dir, destroy, ensure, options, plain, random_name};
use crate::definition::api_path;
use crate::definition::mounts::check_volume_name;
use crate::lookup::Directory as _;
use crate::open::Inner;
use crate::{Class, ContainerId, Error};

/// Whether the volumes that nobody named go with their container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anonymous {
    /// They stay.
    Keep,
    /// Those that no other container uses go.
    Remove,
}

/// One volume that a new container needs.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// What it is made as, if it is not there.
    volume: rows::Definition,
    destination: String,
    /// It may go with the container.
    anonymous: bool,
    /// An empty one is filled with the image's content.
    copies: bool,
    /// It comes from `Config.Volumes`: nothing but a directory may be at its place.
    declared: bool,
}

/// Fills in what the rules could not know of a definition's volumes: names of anonymous ones, and sources.
/// Changes nothing outside the definition.
///
/// # Errors
/// NotFound for a driver, InvalidParameter for a new volume's name and options, NotImplemented for mounts
/// of images.
pub(crate) fn settle(
    engine: &Inner,
    definition: &mut crate::Definition,
) -> Result<Vec<Wanted>, Error> {
    let own = own_destinations(definition);
    let mut wanted = Vec::new();
    let mut points = std::mem::take(&mut definition.mounts);
    for point in &mut points {
        match point.r#type.as_str() {
            "volume" => wanted.push(settle_one(engine, definition, &own, point)?),
            "image" => {
                return Err(Error::new(
                    Class::NotImplemented,
                    format!(
                        "mounting the image {} at {} is not supported: create a container of it and use its \
                         volumes",
                        point.name_or_source(),
                        point.destination
                    ),
                ));
            }
            _ => {}
        }
    }
    definition.mounts = points;
    Ok(wanted)
}

/// What a mount of an image calls it.
trait NameOrSource {
    fn name_or_source(&self) -> &str;
}

impl NameOrSource for MountPoint {
    fn name_or_source(&self) -> &str {
        if self.name.is_empty() {
            &self.source
        } else {
            &self.name
        }
    }
}

/// The destinations that the request itself names; a named volume elsewhere comes from another container.
fn own_destinations(definition: &crate::Definition) -> Vec<String> {
    let host = &definition.host_config;
    let binds = host.binds.iter().flatten();
    let binds = binds
        .filter_map(|bind| bind.split(':').nth(1))
        .map(api_path);
    let mounts = host.mounts.iter().flatten();
    binds
        .chain(mounts.map(|mount| api_path(&mount.target)))
        .collect()
}

fn settle_one(
    engine: &Inner,
    definition: &crate::Definition,
    own: &[String],
    point: &mut MountPoint,
) -> Result<Wanted, Error> {
    let is_own = own.contains(&point.destination);
    let unnamed = point.name.is_empty();
    let declared = unnamed && !is_own;
    let inherited = !unnamed && !is_own;
    if unnamed {
        point.name = random_name()?;
    }
    if point.driver != DRIVER {
        return Err(super::unknown_driver(&point.name, &point.driver));
    }
    let request = definition
        .mount_options(&point.destination)
        .filter(|_| is_own);
    let asked = request.and_then(|mount| mount.volume_options.as_ref());
    let labels = asked.and_then(|asked| asked.labels.clone());
    let driver = asked.and_then(|asked| asked.driver_config.as_ref());
    let volume = rows::Definition {
        name: point.name.clone(),
        created_ns: now_ns(),
        labels: if unnamed {
            anonymous_labels(labels)
        } else {
            labels
        },
        options: driver.and_then(|driver| driver.options.clone()),
    };
    let (exists, was_anonymous) = engine.db.read(|connection| {
        let exists =
            rows::find(connection, &volume.name)?.is_some_and(|saved| saved.phase == Phase::Ready);
        Ok::<_, Error>((exists, rows::is_anonymous(connection, &volume.name)?))
    })?;
    if !exists {
        check_volume_name(&volume.name)?;
        options::check(&volume.name, volume.options.as_ref())?;
    }
    point.source = data_dir(engine, &point.name).to_string_lossy().into_owned();
    let no_copy = asked.is_some_and(|asked| asked.no_copy)
        || point.mode.split(',').any(|word| word == "nocopy");
    Ok(Wanted {
        volume,
        destination: point.destination.clone(),
        anonymous: unnamed || (inherited && was_anonymous),
        copies: !inherited && !no_copy,
        declared,
    })
}

/// Makes the volumes of a new container that are not there, says that it uses them, and fills empty ones.
/// The container's row is claimed: when this fails, [`release`] undoes it.
///
/// # Errors
/// As [`settle`]; Internal when the image has a file where a volume is wanted.
pub(crate) fn take(
    engine: &Inner,
    container: &ContainerId,
    wanted: &[Wanted],
    held: &image::Held,
) -> Result<(), Error> {
    let content = match wanted.iter().any(|wanted| wanted.copies || wanted.declared) {
        true => Some(
            Content::open(held)
                .map_err(|source| Error::internal("open the image's content", source))?,
        ),
        false => None,
    };
    let merged = engine.config.container_dir(container).join("merged");
    for wanted in wanted {
        let name = &wanted.volume.name;
        let at = format!("{}{}", merged.display(), wanted.destination);
        let source = match &content {
            Some(content) if wanted.declared => content.directory(&wanted.destination, || {
                format!("cannot mount volume over existing file, file exists {at}")
            })?,
            Some(content) if wanted.copies => content.directory(&wanted.destination, || {
                format!("source {at} is not directory")
            })?,
            Some(_) | None => None,
        };
        let claim = engine.volumes.claim(name);
        let durability = match wanted.anonymous {
            // It goes with its container, whose row is not synced either.
            true => Durability::None,
            false => Durability::Synced,
        };
        let volume = ensure(engine, wanted.volume.clone(), durability)?;
        engine.db.write(|transaction| {
            let destination = &wanted.destination;
            rows::add_user(transaction, name, container, destination, wanted.anonymous)
        })?;
        sys::fault!("volume.used");
        if let Some(source) = source.filter(|_| wanted.copies) {
            fill::fill(engine, &volume, &source)?;
        }
        drop(claim);
    }
    Ok(())
}

/// Says that a container uses no volume any more. Calling it again is fine.
///
/// # Errors
/// Internal; what could not be released stays used.
pub(crate) fn release(
    engine: &Inner,
    container: &ContainerId,
    anonymous: Anonymous,
) -> Result<(), Error> {
    let used = engine
        .db
        .read(|connection| rows::of_container(connection, container))?;
    for (name, is_anonymous) in used {
        let claim = engine.volumes.claim(&name);
        let goes = engine.db.write(|transaction| {
            rows::remove_user(transaction, &name, container)?;
            let goes = is_anonymous
                && anonymous == Anonymous::Remove
                && rows::users(transaction, &name)?.is_empty();
            if goes {
                rows::set_phase(transaction, &name, Phase::Removing)?;
            }
            Ok::<_, Error>(goes)
        })?;
        sys::fault!("volume.released");
        if goes {
            destroy(engine, &name)?;
        }
        drop(claim);
    }
    Ok(())
}

/// Where a launch finds what is mounted at one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MountSource {
    /// A path of the host other than the mount point shows, and more options of the bind.
    Path { path: String, flags: Vec<String> },
    /// A file system to be mounted.
    Filesystem {
        kind: String,
        device: String,
        options: Vec<String>,
    },
}

/// The sources of a launch that are not what the mount points show.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    pub(crate) by_destination: BTreeMap<String, MountSource>,
    /// What paths name through `/proc`: open until the launch has used them.
    pub(crate) held: Vec<OwnedFd>,
}

/// Finds the sources of a launch; directories that binds name are made.
///
/// # Errors
/// InvalidParameter for the source of a mount that is gone, NotFound for a path in a volume, Internal for
/// what cannot be mounted; all in dockerd's words.
pub(crate) fn sources(engine: &Inner, definition: &crate::Definition) -> Result<Sources, Error> {
    let mut sources = Sources::default();
    let own = own_destinations(definition);
    for point in &definition.mounts {
        let options = definition
            .mount_options(&point.destination)
            .filter(|_| own.contains(&point.destination));
        match point.r#type.as_str() {
            "bind" => {
                let strict = options.is_some_and(|mount| {
                    let bind = mount.bind_options.as_ref();
                    !bind.is_some_and(|bind| bind.create_mountpoint)
                });
                bind_source(&point.source, strict)?;
                check_propagation(point)?;
            }
            "volume" => {
                let subpath = options
                    .and_then(|mount| mount.volume_options.as_ref())
                    .map_or("", |volume| volume.subpath.as_str());
                volume_source(engine, definition, point, subpath, &mut sources)?;
            }
            _ => {}
        }
    }
    Ok(sources)
}

/// What is mounted below a bind is heard of on the other side only where the source's own mount passes it on.
fn check_propagation(point: &MountPoint) -> Result<(), Error> {
    let (slave_will_do, wanted) = match point.propagation.as_str() {
        "shared" | "rshared" => (false, "a shared mount"),
        "slave" | "rslave" => (true, "a shared or slave mount"),
        _ => return Ok(()),
    };
    let source = &point.source;
    let mounted = match sys::mount::mount_of(Path::new(source)) {
        Ok(mounted) => mounted,
        Err(error) => {
            let what = format!("find the mount of {source}");
            return Err(Error::internal(&what, error));
        }
    };
    if mounted.is_shared || (slave_will_do && mounted.is_slave) {
        return Ok(());
    }
    Err(Error::new(
        Class::Internal,
        format!(
            "path {source} is mounted on {} but it is not {wanted}",
            mounted.point.display()
        ),
    ))
}

fn bind_source(source: &str, strict: bool) -> Result<(), Error> {
    if std::fs::exists(source).unwrap_or(false) {
        return Ok(());
    }
    if strict {
        return Err(Error::invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {source}"
        )));
    }
    match std::fs::create_dir_all(source) {
        // What is wrong with the path the mount itself says better (as in dockerd).
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(()),
        Err(error) => Err(Error::new(
            Class::Internal,
            format!(
                "error while creating mount source path '{source}': mkdir {source}: {}",
                plain(&error)
            ),
        )),
        Ok(()) => Ok(()),
    }
}

fn volume_source(
    engine: &Inner,
    definition: &crate::Definition,
    point: &MountPoint,
    subpath: &str,
    sources: &mut Sources,
) -> Result<(), Error> {
    let name = &point.name;
    let saved = engine.db.read(|connection| rows::find(connection, name))?;
    let options = saved.and_then(|saved| saved.definition.options);
    let mount_failed = |what: String| {
        let data = &point.source;
        Error::new(
            Class::Internal,
            format!(
                "error while mounting volume '{data}': failed to mount local volume: mount {what}"
            ),
        )
    };
    let source = match backing(options.as_ref()) {
        Backing::Directory if subpath.is_empty() => return Ok(()),
        Backing::Directory => {
            let (path, held) = below(&point.source, subpath)?;
            sources.held.push(held);
            let flags = Vec::new();
            MountSource::Path { path, flags }
        }
        Backing::Bind { .. } | Backing::Filesystem { .. } if !subpath.is_empty() => {
            return Err(Error::new(
                Class::NotImplemented,
                format!("a path in volume {name}, which has mount options, is not supported"),
            ));
        }
        Backing::Bind { device, flags } => {
            if !std::fs::exists(&device).unwrap_or(false) {
                let text = format!(
                    "{device}:{}, flags: 0x1000: no such file or directory",
                    point.source
                );
                return Err(mount_failed(text));
            }
            let path = device;
            MountSource::Path { path, flags }
        }
        Backing::Filesystem {
            kind,
            device,
            mut options,
        } => {
            if kind == "tmpfs" {
                refuse_sharing(engine, definition, name)?;
                if !options.iter().any(|option| option.starts_with("mode=")) {
                    options.push("mode=1777".to_owned());
                }
            }
            MountSource::Filesystem {
                kind,
                device,
                options,
            }
        }
    };
    sources
        .by_destination
        .insert(point.destination.clone(), source);
    Ok(())
}

/// A tmpfs is in the mount namespace of its container and nowhere else: two cannot have the same.
fn refuse_sharing(engine: &Inner, definition: &crate::Definition, name: &str) -> Result<(), Error> {
    let users = engine.db.read(|connection| rows::users(connection, name))?;
    let running = users
        .iter()
        .filter(|user| user.as_str() != definition.id.as_str())
        .filter_map(|user| engine.index.with_id(user))
        .find(|container| container.snapshot().status.has_process());
    match running {
        None => Ok(()),
        Some(other) => Err(Error::new(
            Class::NotImplemented,
            format!(
                "volume {name} is a tmpfs in use by the running container {}: sharing it is not supported",
                other.id()
            ),
        )),
    }
}

/// A path in a volume, resolved inside it and held open: whoever writes to the volume meanwhile cannot lead it
/// elsewhere.
fn below(data: &str, subpath: &str) -> Result<(String, OwnedFd), Error> {
    let whole = format!("{data}/{subpath}");
    let opened = sys::path::open_directory(Path::new(data)).and_then(|root| {
        sys::path::open_in_root(root.as_fd(), Path::new(subpath), OpenFlags::PATH)
    });
    match opened {
        Ok(held) => {
            let path = format!("/proc/{}/fd/{}", std::process::id(), held.as_raw_fd());
            Ok((path, held))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::not_found(format!(
            "cannot access path {whole}: lstat {whole}: no such file or directory"
        ))),
        Err(error) => Err(Error::internal(
            format!("cannot access path {whole}"),
            error,
        )),
    }
}
