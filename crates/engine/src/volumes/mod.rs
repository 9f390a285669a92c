//! Volumes of the driver `local`: made, shown, filled from images, counted, removed.
//!
//! ```text
//! <data root>/volumes/<name>/   volume.json   the definition, for who looks and for a lost database
//!                               _data         what containers see
//!                               _copy _full   an image's content on its way into _data (`fill`)
//! ```
//! Making: claim the row → directory and file → ready → reply. Removing: save the intent → remove the tree →
//! delete the row → reply. A row between two steps is finished by the next [`sweep`]. Rows and files of named
//! volumes are synced before the reply (DESIGN decision 16).
//!
//! Only root of the host reaches `volumes/`; what lies in `_data` is a container's and is never followed.

mod attach;
mod copy;
mod events;
mod fill;
mod names;
mod options;
mod rows;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use api::filters::Filters;
use api::options::VolumeListOptions;
use api::time::Time;
use api::volume::{CreateRequest, ListResponse, Volume};
use sys::clock::now_ns;
use sys::file::{self, Durability};

use crate::definition::mounts::check_volume_name;
use crate::open::Inner;
use crate::{Class, ContainerId, Engine, Error, files};

pub(crate) use attach::MountSource;
pub(crate) use attach::{Anonymous, Wanted, release, settle, sources, take};
pub(crate) use events::around;
pub(crate) use names::Names;
use rows::{Definition, Phase, Saved};

/// The one driver.
pub(crate) const DRIVER: &str = "local";

/// The label of volumes that nobody gave a name.
const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// A volume's own directory (dockerd: 0701, so that a remapped root may pass).
const DIRECTORY_MODE: u32 = 0o701;

/// A new `_data`.
const DATA_MODE: u32 = 0o755;

/// `volume.json`.
const FILE_MODE: u32 = 0o600;

/// Filters of the list.
const FILTERS: [&str; 4] = ["dangling", "name", "driver", "label"];

impl Engine {
    /// Makes a volume (`POST /volumes/create`), or answers the one of that name.
    ///
    /// # Errors
    /// InvalidParameter for names and options, NotFound for a driver, NotImplemented for file systems that
    /// need more than a mount.
    pub async fn volume_create(&self, request: CreateRequest) -> Result<Volume, Error> {
        let engine = self.inner().clone();
        self.inner()
            .blocking(move || create(&engine, request))
            .await
    }

    /// Lists volumes (`GET /volumes`), by name.
    ///
    /// # Errors
    /// InvalidParameter for filters.
    pub async fn volumes_list(&self, options: &VolumeListOptions) -> Result<ListResponse, Error> {
        let engine = self.inner().clone();
        let filters = options.filters.clone();
        self.inner().blocking(move || list(&engine, &filters)).await
    }

    /// Shows a volume (`GET /volumes/{name}`).
    ///
    /// # Errors
    /// NotFound.
    pub async fn volume_inspect(&self, name: &str) -> Result<Volume, Error> {
        let engine = self.inner().clone();
        let name = name.to_owned();
        self.inner()
            .blocking(move || {
                let found = engine.db.read(|connection| rows::find(connection, &name))?;
                match found.filter(|saved| saved.phase == Phase::Ready) {
                    Some(saved) => Ok(shown(&engine, saved.definition)),
                    None => Err(missing(&name)),
                }
            })
            .await
    }

    /// Removes a volume (`DELETE /volumes/{name}`). With `force` one that is not there is fine.
    ///
    /// # Errors
    /// NotFound, Conflict when containers use it.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<(), Error> {
        let engine = self.inner().clone();
        let name = name.to_owned();
        self.inner()
            .blocking(move || match remove(&engine, &name) {
                Err(error) if force && error.class == Class::NotFound => Ok(()),
                other => other,
            })
            .await
    }
}

fn missing(name: &str) -> Error {
    Error::not_found(format!("get {name}: no such volume"))
}

/// The error for a driver that is not there.
pub(crate) fn unknown_driver(name: &str, driver: &str) -> Error {
    Error::not_found(format!(
        "create {name}: error looking up volume plugin {driver}: plugin \"{driver}\" not found"
    ))
}

/// A volume's directory `_data`.
pub(crate) fn data_dir(engine: &Inner, name: &str) -> PathBuf {
    engine.config.volumes_dir().join(name).join("_data")
}

fn shown(engine: &Inner, definition: Definition) -> Volume {
    const SECOND_NS: i64 = 1_000_000_000;
    Volume {
        created_at: Some(Time::from_unix_nanos(
            definition.created_ns / SECOND_NS * SECOND_NS,
        )),
        driver: DRIVER.to_owned(),
        labels: definition.labels,
        mountpoint: data_dir(engine, &definition.name)
            .to_string_lossy()
            .into_owned(),
        name: definition.name,
        options: definition.options,
        scope: DRIVER.to_owned(),
        ..Volume::default()
    }
}

/// A name of 64 hexadecimal digits.
fn random_name() -> Result<String, Error> {
    let id =
        ContainerId::random().map_err(|source| Error::internal("make a volume's name", source))?;
    Ok(id.to_string())
}

fn anonymous_labels(labels: Option<BTreeMap<String, String>>) -> Option<BTreeMap<String, String>> {
    let mut labels = labels.unwrap_or_default();
    labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
    Some(labels)
}

fn create(engine: &Inner, request: CreateRequest) -> Result<Volume, Error> {
    let mut definition = Definition {
        name: request.name,
        created_ns: now_ns(),
        labels: request.labels,
        options: request.driver_opts,
    };
    if definition.name.is_empty() {
        definition.name = random_name()?;
        definition.labels = anonymous_labels(definition.labels);
    }
    if !request.driver.is_empty() && request.driver != DRIVER {
        return Err(unknown_driver(&definition.name, &request.driver));
    }
    let claim = engine.volumes.claim(&definition.name);
    let made = ensure(engine, definition, Durability::Synced)?;
    drop(claim);
    Ok(shown(engine, made))
}

/// The volume of that name, made if it is not there. Whoever calls has claimed the name.
fn ensure(
    engine: &Inner,
    definition: Definition,
    durability: Durability,
) -> Result<Definition, Error> {
    let name = definition.name.clone();
    match engine.db.read(|connection| rows::find(connection, &name))? {
        Some(Saved {
            definition,
            phase: Phase::Ready,
        }) => return Ok(definition),
        // An earlier making or removal failed half-way: its end comes first.
        Some(Saved {
            phase: Phase::Creating | Phase::Removing,
            ..
        }) => destroy(engine, &name)?,
        None => {}
    }
    check_volume_name(&name)?;
    options::check(&name, definition.options.as_ref())?;
    engine
        .db
        .write(|transaction| rows::insert(transaction, &definition))?;
    sys::fault!("volume.claimed");
    let made = make_files(engine, &definition, durability).and_then(|()| {
        let events = vec![events::plain("create", &name)];
        engine.journal.write(&engine.db, events, |transaction| {
            rows::set_phase(transaction, &name, Phase::Ready)
        })
    });
    if let Err(error) = made {
        if let Err(leftover) = unmake(engine, &name) {
            tracing::error!(volume = name, error = %leftover.message, "undo the making of a volume");
        }
        return Err(error);
    }
    if durability == Durability::Synced {
        engine.db.sync()?;
    }
    sys::fault!("volume.ready");
    Ok(definition)
}

fn make_files(
    engine: &Inner,
    definition: &Definition,
    durability: Durability,
) -> Result<(), Error> {
    let name = &definition.name;
    let path = engine.config.volumes_dir().join(name);
    let failed = |source: io::Error| {
        let path = path.display();
        let text = format!(
            "create {name}: error while creating volume root path '{path}': mkdir {path}: {}",
            plain(&source)
        );
        Error {
            class: Class::Internal,
            message: text,
            source: Some(Box::new(source)),
        }
    };
    let parent = file::open_directory(&engine.config.volumes_dir()).map_err(failed)?;
    make_directory(parent.as_fd(), name, DIRECTORY_MODE).map_err(failed)?;
    let directory = file::open_directory_at(parent.as_fd(), name.as_bytes()).map_err(failed)?;
    sys::fault!("volume.directory");
    make_directory(directory.as_fd(), "_data", DATA_MODE).map_err(failed)?;
    let json = rows::encode(definition)?;
    file::write_atomic(
        directory.as_fd(),
        "volume.json".as_ref(),
        json.as_bytes(),
        FILE_MODE,
        durability,
    )
    .map_err(failed)?;
    if durability == Durability::Synced {
        file::sync(&parent).map_err(failed)?;
    }
    sys::fault!("volume.files");
    Ok(())
}

/// Makes a directory with exactly this mode. One that is there stays as it is: data without a row is
/// somebody's data.
fn make_directory(parent: std::os::fd::BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<()> {
    match file::make_directory_at(parent, name.as_bytes(), mode) {
        Ok(()) => file::chmod_at(parent, name.as_bytes(), mode),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// An error of the system as Go's runtime words it.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(chars).collect()
    })
}

fn remove(engine: &Inner, name: &str) -> Result<(), Error> {
    let claim = engine.volumes.claim(name);
    engine.db.write_synced(|transaction| {
        if rows::find(transaction, name)?.is_none() {
            return Err(missing(name));
        }
        let users = rows::users(transaction, name)?;
        if !users.is_empty() {
            return Err(Error::conflict(format!(
                "remove {name}: volume is in use - [{}]",
                users.join(", ")
            )));
        }
        rows::set_phase(transaction, name, Phase::Removing)
    })?;
    sys::fault!("volume.removing");
    destroy(engine, name)?;
    drop(claim);
    Ok(())
}

/// Ends a removal whose intent is saved.
fn destroy(engine: &Inner, name: &str) -> Result<(), Error> {
    files::remove_directory(&engine.config.volumes_dir().join(name))
        .map_err(|error| error.wrap(&format!("remove {name}")))?;
    sys::fault!("volume.tree_removed");
    let events = vec![events::plain("destroy", name)];
    engine.journal.write(&engine.db, events, |transaction| {
        rows::delete(transaction, name)
    })?;
    sys::fault!("volume.deleted");
    engine.db.sync()?;
    Ok(())
}

/// Ends a making of which nobody was told.
fn unmake(engine: &Inner, name: &str) -> Result<(), Error> {
    files::remove_directory(&engine.config.volumes_dir().join(name))?;
    engine
        .db
        .write(|transaction| rows::delete(transaction, name))
}

fn list(engine: &Inner, filters: &Filters) -> Result<ListResponse, Error> {
    let invalid = |error: api::filters::FilterError| Error::invalid(error.to_string());
    filters.validate(&FILTERS).map_err(invalid)?;
    let dangling = filters.boolean("dangling").map_err(invalid)?;
    let names = filters.pattern("name");
    let (all, used) = engine
        .db
        .read(|connection| Ok::<_, Error>((rows::all(connection)?, rows::used(connection)?)))?;
    let none = BTreeMap::new();
    let volumes = all
        .into_iter()
        .filter(|saved| saved.phase == Phase::Ready)
        .map(|saved| saved.definition)
        .filter(|volume| {
            dangling.is_none_or(|dangling| dangling != used.contains(&volume.name))
                && filters.matches_exactly("driver", DRIVER)
                && names.matches(&volume.name)
                && filters.matches_labels("label", volume.labels.as_ref().unwrap_or(&none))
        })
        .map(|volume| shown(engine, volume))
        .collect();
    Ok(ListResponse {
        volumes,
        warnings: None,
    })
}

/// Finishes at the daemon's start what a crash left half done. What fails is logged and tried again then.
pub(crate) fn sweep(engine: &Inner) -> Result<(), Error> {
    let path = engine.config.volumes_dir();
    std::fs::create_dir_all(&path)
        .map_err(|source| Error::internal(format!("make {}", path.display()), source))?;
    let all = engine.db.write(|transaction| {
        rows::remove_lost_users(transaction)?;
        rows::all(transaction)
    })?;
    for Saved { definition, phase } in all {
        let name = &definition.name;
        let finished = match phase {
            Phase::Ready => fill::finish(engine, &definition),
            Phase::Removing => destroy(engine, name),
            Phase::Creating if is_empty(&data_dir(engine, name)) => unmake(engine, name),
            // Somebody's data lay there before the row did.
            Phase::Creating => make_files(engine, &definition, Durability::Synced).and_then(|()| {
                engine
                    .db
                    .write(|transaction| rows::set_phase(transaction, name, Phase::Ready))
            }),
        };
        if let Err(error) = finished {
            tracing::error!(volume = name, error = %error.message, "leftover of an earlier run");
        }
    }
    Ok(())
}

fn is_empty(path: &Path) -> bool {
    file::open_directory(path)
        .and_then(|directory| file::names_in(directory.as_fd()))
        .map_or(true, |names| names.is_empty())
}
