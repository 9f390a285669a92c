//! Whose a bridge is: one Cooper at a time, known by its data root.
//!
//! Interfaces, map elements and rules carry names that every Cooper gives alike. A second one with another data root
//! would take the first one's for strays and sweep them, so it must not have the same bridge: the file of a bridge
//! is locked by the daemon that has it, and says whose the bridge was for as long as containers are on it.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sys::link::Links;

use crate::config::Config;
use crate::error::Error;
use crate::namespace::link_failed;
use crate::rows;

/// Only root reads or locks what is in it: else anybody could keep the daemon from its bridge.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Held as long as this daemon has the bridge; a killed one has let go.
#[derive(Debug)]
pub(crate) struct Claim {
    file: File,
    path: PathBuf,
}

impl Claim {
    /// Takes the bridge of this configuration.
    ///
    /// # Errors
    /// [`Error::BridgeTaken`] while another daemon has it, or containers of another data root are on it.
    pub(crate) fn take(config: &Config, links: &mut Links) -> Result<Self, Error> {
        let path = path(config).map_err(failed(&config.claims))?;
        let claim = Self {
            file: lock(config, &path)?,
            path,
        };
        let owner = fs::read_to_string(&claim.path).map_err(failed(&claim.path))?;
        if owner != config.owner {
            if !owner.is_empty() && has_strangers(config, links)? {
                return Err(taken(config, owner));
            }
            claim.sign(&config.owner).map_err(failed(&claim.path))?;
        }
        Ok(claim)
    }

    /// The one writer has the lock; half a text is some other owner's, who has containers on the bridge or has not.
    fn sign(&self, owner: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all_at(owner.as_bytes(), 0)?;
        (&self.file).flush()
    }

    /// Forgets whose the bridge was; it is gone.
    pub(crate) fn give_up(&self) -> Result<(), Error> {
        fs::remove_file(&self.path).map_err(failed(&self.path))
    }
}

/// A bridge's name says which it is only within a network namespace.
fn path(config: &Config) -> io::Result<PathBuf> {
    match DirBuilder::new()
        .mode(DIRECTORY_MODE)
        .create(&config.claims)
    {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
    Ok(config.claims.join(format!("{}.{namespace}", config.bridge)))
}

fn lock(config: &Config, path: &Path) -> Result<File, Error> {
    loop {
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(FILE_MODE)
            .open(path)
            .map_err(failed(path))?;
        if !sys::file::lock_within(&file, sys::file::LOCK_PATIENCE).map_err(failed(path))? {
            let owner = fs::read_to_string(path).map_err(failed(path))?;
            return Err(taken(config, owner));
        }
        // Who gave the bridge up has removed the file that it had locked.
        let locked = file.metadata().map_err(failed(path))?.ino();
        match fs::metadata(path) {
            Ok(named) if named.ino() == locked => return Ok(file),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(path)(error)),
        }
    }
}

/// Whether a container is on the bridge that this data root does not know.
fn has_strangers(config: &Config, links: &mut Links) -> Result<bool, Error> {
    let all = links
        .list()
        .map_err(link_failed("list ports of", &config.bridge))?;
    let bridge = all.iter().find(|link| link.name == config.bridge);
    let Some(bridge) = bridge.map(|link| link.index) else {
        return Ok(false);
    };
    let known: HashSet<String> = rows::endpoints(&config.db, &config.bridge)?
        .into_iter()
        .map(|row| row.container)
        .collect();
    let prefix = format!("{}:", config.instance);
    let of_a_container = |alias: &str| alias != "spare" && !known.contains(alias);
    Ok(all
        .iter()
        .filter(|link| link.master == Some(bridge))
        .filter_map(|link| link.alias.as_deref()?.strip_prefix(&prefix))
        .any(of_a_container))
}

fn taken(config: &Config, owner: String) -> Error {
    Error::BridgeTaken {
        bridge: config.bridge.clone(),
        owner,
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Claim { path, source }
}
