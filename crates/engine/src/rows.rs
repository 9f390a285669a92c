//! The container tables: what is saved of a container, and the one transaction that saves it with its events.
//!
//! A row's phase is what a restart of the daemon must know; everything finer (a stop under way, a back-off)
//! is decided anew.

use std::sync::Arc;

use db::rusqlite::{OptionalExtension as _, Transaction, params};

use crate::definition::Definition;
use crate::state::Facts;
use crate::step::Life;
use crate::{ContainerId, Error};

/// What a row says about the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Claimed; its files are being made. Nobody was told of it.
    Creating,
    /// It exists and does not run.
    Ready,
    /// Its init was running when this was saved.
    Running,
    /// It is to be destroyed.
    Removing,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Removing => "removing",
        }
    }

    /// Reads the word; one this version does not know can only come from a damaged file.
    fn parse(word: &str) -> Option<Self> {
        [Self::Creating, Self::Ready, Self::Running, Self::Removing]
            .into_iter()
            .find(|phase| phase.as_str() == word)
    }

    /// The phase to save for a life.
    pub(crate) fn of(life: &Life) -> Self {
        match life {
            Life::Idle | Life::Starting { .. } | Life::Waiting { .. } => Self::Ready,
            Life::Running(_) => Self::Running,
            Life::Removing(_) | Life::Dead { .. } | Life::Gone => Self::Removing,
        }
    }
}

/// One container as it was saved.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: Arc<str>,
    pub(crate) definition: Definition,
    pub(crate) phase: Phase,
    pub(crate) facts: Facts,
}

/// Claims the row of a container in the making.
pub(crate) fn insert(
    transaction: &Transaction<'_>,
    name: &str,
    definition: &Definition,
) -> Result<(), Error> {
    let json = encode(definition)?;
    let id = definition.id.as_str();
    transaction
        .prepare_cached("INSERT INTO containers (id, name, definition) VALUES (?1, ?2, ?3)")?
        .execute(params![id, name, json])?;
    transaction
        .prepare_cached("INSERT INTO container_states (id, phase, facts) VALUES (?1, ?2, '{}')")?
        .execute(params![id, Phase::Creating.as_str()])?;
    Ok(())
}

/// The container in the making that has this name.
pub(crate) fn creating(
    connection: &db::rusqlite::Connection,
    name: &str,
) -> Result<Option<ContainerId>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT id FROM containers JOIN container_states USING (id) WHERE name = ?1 AND phase = ?2",
    )?;
    let found = statement
        .query_row(params![name, Phase::Creating.as_str()], |row| {
            row.get::<_, String>(0)
        })
        .optional()?;
    let id = found.map(|id| id.parse::<ContainerId>()).transpose();
    id.map_err(|source| Error::internal("read a container's id", source))
}

/// Saves where a container stands.
pub(crate) fn update(
    transaction: &Transaction<'_>,
    id: &ContainerId,
    phase: Phase,
    facts: &Facts,
) -> Result<(), Error> {
    let json = encode(facts)?;
    transaction
        .prepare_cached("UPDATE container_states SET phase = ?2, facts = ?3 WHERE id = ?1")?
        .execute(params![id.as_str(), phase.as_str(), json])?;
    Ok(())
}

/// Saves a new name.
pub(crate) fn rename(
    transaction: &Transaction<'_>,
    id: &ContainerId,
    name: &str,
) -> Result<(), Error> {
    transaction
        .prepare_cached("UPDATE containers SET name = ?2 WHERE id = ?1")?
        .execute(params![id.as_str(), name])?;
    Ok(())
}

/// Deletes a container's row.
pub(crate) fn delete(transaction: &Transaction<'_>, id: &ContainerId) -> Result<(), Error> {
    for sql in [
        "DELETE FROM container_states WHERE id = ?1",
        "DELETE FROM containers WHERE id = ?1",
    ] {
        transaction.prepare_cached(sql)?.execute([id.as_str()])?;
    }
    Ok(())
}

/// Every row, oldest first, or why it cannot be read: one damaged row is no reason to lose the others.
pub(crate) fn all(
    connection: &db::rusqlite::Connection,
) -> Result<Vec<Result<Row, Unreadable>>, Error> {
    let mut statement = connection.prepare(
        "SELECT id, name, definition, phase, facts FROM containers JOIN container_states USING (id) \
         ORDER BY containers.rowid",
    )?;
    let rows = statement.query_map([], |row| {
        let id = row.get::<_, String>(0)?;
        let words = [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
        Ok((id, words))
    })?;
    rows.map(|row| {
        let (id, words) = row?;
        Ok(read(words).map_err(|error| Unreadable { id, error }))
    })
    .collect()
}

/// A row that cannot be read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) id: String,
    pub(crate) error: Error,
}

fn read([name, definition, phase, facts]: [String; 4]) -> Result<Row, Error> {
    Ok(Row {
        definition: decode(&definition)?,
        facts: decode(&facts)?,
        phase: Phase::parse(&phase).ok_or_else(|| {
            Error::new(
                crate::Class::Internal,
                format!("container {name} has the unknown phase {phase:?}"),
            )
        })?,
        name: name.into(),
    })
}

fn encode<T: serde::Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|source| Error::internal("a container's row could not be written", source))
}

fn decode<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, Error> {
    serde_json::from_str(json)
        .map_err(|source| Error::internal("a container's row could not be read", source))
}

/// The name of a container.
pub(crate) fn name(
    connection: &db::rusqlite::Connection,
    id: &str,
) -> Result<Option<String>, Error> {
    let mut statement = connection.prepare_cached("SELECT name FROM containers WHERE id = ?1")?;
    let mut rows = statement.query([id])?;
    Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
}
