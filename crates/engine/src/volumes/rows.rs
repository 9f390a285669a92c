//! The volume tables: what is saved of a volume, and who uses it.

use std::collections::BTreeMap;

use db::rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use crate::{Class, ContainerId, Error};

/// What a volume was made as: the row's definition, and the content of `volume.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Definition {
    /// Its name.
    pub(crate) name: String,
    /// When it was made, in Unix nanoseconds.
    pub(crate) created_ns: i64,
    /// As the client gave them: absent and empty are told apart on the wire.
    pub(crate) labels: Option<BTreeMap<String, String>>,
    /// Options of the driver, likewise.
    pub(crate) options: Option<BTreeMap<String, String>>,
}

/// What a row says about the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Claimed; its directory is being made. Nobody was told of it.
    Creating,
    /// It exists.
    Ready,
    /// It is to be removed.
    Removing,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Removing => "removing",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Creating, Self::Ready, Self::Removing]
            .into_iter()
            .find(|phase| phase.as_str() == word)
    }
}

/// One volume as it was saved.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    pub(crate) definition: Definition,
    pub(crate) phase: Phase,
}

fn saved(definition: &str, phase: &str) -> Result<Saved, Error> {
    let definition: Definition = serde_json::from_str(definition)
        .map_err(|source| Error::internal("a volume's row could not be read", source))?;
    let phase = Phase::parse(phase).ok_or_else(|| {
        let text = format!("volume {} has the unknown phase {phase:?}", definition.name);
        Error::new(Class::Internal, text)
    })?;
    Ok(Saved { definition, phase })
}

fn texts(row: &Row<'_>) -> db::rusqlite::Result<(String, String)> {
    Ok((row.get(0)?, row.get(1)?))
}

/// The JSON of a definition.
pub(crate) fn encode(definition: &Definition) -> Result<String, Error> {
    serde_json::to_string(definition)
        .map_err(|source| Error::internal("a volume's definition could not be written", source))
}

/// Claims the row of a volume in the making.
pub(crate) fn insert(transaction: &Transaction<'_>, definition: &Definition) -> Result<(), Error> {
    transaction
        .prepare_cached(
            "INSERT INTO volume (name, created_ns, definition, phase) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            definition.name,
            definition.created_ns,
            encode(definition)?,
            Phase::Creating.as_str()
        ])?;
    Ok(())
}

/// Saves where a volume stands.
pub(crate) fn set_phase(
    transaction: &Transaction<'_>,
    name: &str,
    phase: Phase,
) -> Result<(), Error> {
    transaction
        .prepare_cached("UPDATE volume SET phase = ?2 WHERE name = ?1")?
        .execute(params![name, phase.as_str()])?;
    Ok(())
}

/// Deletes a volume's row; nobody uses it.
pub(crate) fn delete(transaction: &Transaction<'_>, name: &str) -> Result<(), Error> {
    transaction
        .prepare_cached("DELETE FROM volume WHERE name = ?1")?
        .execute([name])?;
    Ok(())
}

/// The volume of that name, in whatever phase.
pub(crate) fn find(connection: &Connection, name: &str) -> Result<Option<Saved>, Error> {
    connection
        .prepare_cached("SELECT definition, phase FROM volume WHERE name = ?1")?
        .query_row([name], texts)
        .optional()?
        .map(|(definition, phase)| saved(&definition, &phase))
        .transpose()
}

/// Every volume, by name.
pub(crate) fn all(connection: &Connection) -> Result<Vec<Saved>, Error> {
    let mut statement =
        connection.prepare_cached("SELECT definition, phase FROM volume ORDER BY name")?;
    let rows = statement.query_map([], texts)?;
    rows.map(|row| {
        let (definition, phase) = row?;
        saved(&definition, &phase)
    })
    .collect()
}

/// Says that a container mounts a volume. Anonymous: whoever removes the container may remove it too.
pub(crate) fn add_user(
    transaction: &Transaction<'_>,
    volume: &str,
    container: &ContainerId,
    destination: &str,
    anonymous: bool,
) -> Result<(), Error> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO volume_user (volume, container, destination, anonymous) \
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![volume, container.as_str(), destination, anonymous])?;
    Ok(())
}

/// Says that a container does not use a volume any more.
pub(crate) fn remove_user(
    transaction: &Transaction<'_>,
    volume: &str,
    container: &ContainerId,
) -> Result<(), Error> {
    transaction
        .prepare_cached("DELETE FROM volume_user WHERE volume = ?1 AND container = ?2")?
        .execute(params![volume, container.as_str()])?;
    Ok(())
}

/// Forgets users that are no containers.
pub(crate) fn remove_lost_users(transaction: &Transaction<'_>) -> Result<(), Error> {
    transaction.execute(
        "DELETE FROM volume_user WHERE container NOT IN (SELECT id FROM containers)",
        [],
    )?;
    Ok(())
}

/// The ids of the containers that use a volume, in the order of their creation.
pub(crate) fn users(connection: &Connection, volume: &str) -> Result<Vec<String>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT DISTINCT container FROM volume_user JOIN containers ON id = container \
         WHERE volume = ?1 ORDER BY containers.rowid",
    )?;
    let rows = statement.query_map([volume], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The names of all volumes that a container uses.
pub(crate) fn used(connection: &Connection) -> Result<Vec<String>, Error> {
    let mut statement = connection.prepare_cached("SELECT DISTINCT volume FROM volume_user")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What a container uses: names, and whether each may go with it.
pub(crate) fn of_container(
    connection: &Connection,
    container: &ContainerId,
) -> Result<Vec<(String, bool)>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT volume, max(anonymous) FROM volume_user WHERE container = ?1 GROUP BY volume",
    )?;
    let rows = statement.query_map([container.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether a volume was made for a container that did not name it.
pub(crate) fn is_anonymous(connection: &Connection, volume: &str) -> Result<bool, Error> {
    Ok(connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM volume_user WHERE volume = ?1 AND anonymous = 1)",
        )?
        .query_row([volume], |row| row.get(0))?)
}
