//! The journal of events: what happened, in order, across restarts (DESIGN decision 12).
//!
//! An event is written in the transaction of the change it tells of ([`Journal::write`]) and published after
//! the commit. A subscriber ([`Stream`]) reads the past from the journal by its cursor and the present from
//! a bounded ring; when it falls behind the ring, it reads the journal again. So nothing is lost but what the
//! journal itself forgot for its size, and that is told with an event `daemon`/`gap`.
//!
//! ```text
//! event          cursor · time_ns · body (the newest wire form as JSON)
//! event_journal  one row: bytes kept · events forgotten · time of the last one forgotten
//! ```

mod filter;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use api::event::{Actor, EventMessage};
use db::Db;
use db::rusqlite::{Transaction, params};
use tokio::sync::broadcast;

use crate::{Definition, Error};

pub use stream::Stream;

/// What the journal may hold, in bytes of event bodies: months of an ordinary host.
const JOURNAL_BYTES_MAX: i64 = 64 << 20;

/// How much goes at once when the journal is full, so that it is not trimmed at each event.
const TRIM_BYTES: i64 = JOURNAL_BYTES_MAX / 16;

/// Events that a subscriber may be behind before it reads the journal: a few hundred KiB for all of them.
const RING_EVENTS: usize = 1024;

/// An event with its place in the journal.
#[derive(Clone, Debug)]
struct Entry {
    cursor: i64,
    event: Arc<EventMessage>,
}

/// The journal; one per engine.
#[derive(Debug)]
pub struct Journal {
    db: Db,
    ring: broadcast::Sender<Entry>,
}

impl Journal {
    /// Opens the journal in the database.
    ///
    /// # Errors
    /// Internal when the database cannot be read.
    pub fn open(db: &Db) -> Result<Self, Error> {
        db.read(|connection| {
            Ok::<_, Error>(
                connection.query_row("SELECT bytes FROM event_journal", [], |row| {
                    row.get::<_, i64>(0)
                })?,
            )
        })?;
        Ok(Self {
            db: db.clone(),
            ring: broadcast::Sender::new(RING_EVENTS),
        })
    }

    /// Makes events of a container: each with its labels, image and name, and with its own attributes.
    pub(crate) fn container_events<'a>(
        &self,
        definition: &Definition,
        name: &str,
        events: impl Iterator<Item = (&'a str, &'a [(&'static str, String)])>,
    ) -> Vec<EventMessage> {
        let mut common = definition.config.labels.clone().unwrap_or_default();
        common.insert("image".to_owned(), definition.config.image.clone());
        common.insert("name".to_owned(), name.to_owned());
        events
            .map(|(action, own)| {
                let mut attributes = common.clone();
                attributes.extend(
                    own.iter()
                        .map(|(key, value)| ((*key).to_owned(), value.clone())),
                );
                event("container", action, definition.id.as_str(), attributes)
            })
            .collect()
    }

    /// Runs `change` and records `events` in one transaction; after its commit they are published.
    ///
    /// # Errors
    /// Whatever `change` answers, and Internal when the transaction fails: then nothing has happened.
    pub(crate) fn write(
        &self,
        db: &Db,
        events: Vec<EventMessage>,
        change: impl FnOnce(&Transaction<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let entries = db.write(|transaction| {
            change(transaction)?;
            record(transaction, events)
        })?;
        self.publish(entries);
        Ok(())
    }

    /// Records and publishes events that belong to no other change.
    ///
    /// # Errors
    /// Internal when the transaction fails.
    pub fn append(&self, events: Vec<EventMessage>) -> Result<(), Error> {
        self.write(&self.db, events, |_| Ok(()))
    }

    /// How many subscribers there are (`NEventsListener` of info).
    pub fn listeners(&self) -> usize {
        self.ring.receiver_count()
    }

    fn publish(&self, entries: Vec<Entry>) {
        for entry in entries {
            // Nobody may be listening: that is no failure.
            drop(self.ring.send(entry));
        }
    }
}

/// Makes an event of now.
pub fn event(
    typ: &str,
    action: &str,
    id: &str,
    attributes: BTreeMap<String, String>,
) -> EventMessage {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    EventMessage {
        r#type: typ.to_owned(),
        action: action.to_owned(),
        actor: Actor {
            id: id.to_owned(),
            attributes,
        },
        scope: "local".to_owned(),
        time: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        time_nano: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
        ..EventMessage::default()
    }
}

/// Writes events into the journal, and makes room for them.
fn record(transaction: &Transaction<'_>, events: Vec<EventMessage>) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::with_capacity(events.len());
    let mut bytes = 0;
    for event in events {
        let body = serde_json::to_string(&event)
            .map_err(|source| Error::internal("write an event", source))?;
        bytes += i64::try_from(body.len()).unwrap_or(i64::MAX);
        transaction
            .prepare_cached("INSERT INTO event (time_ns, body) VALUES (?1, ?2)")?
            .execute(params![event.time_nano, body])?;
        entries.push(Entry {
            cursor: transaction.last_insert_rowid(),
            event: Arc::new(event),
        });
    }
    if entries.is_empty() {
        return Ok(entries);
    }
    let total: i64 = transaction
        .prepare_cached("UPDATE event_journal SET bytes = bytes + ?1 RETURNING bytes")?
        .query_row([bytes], |row| row.get(0))?;
    if total > JOURNAL_BYTES_MAX {
        trim(transaction, total - JOURNAL_BYTES_MAX + TRIM_BYTES)?;
    }
    Ok(entries)
}

/// Forgets the oldest events of at least `bytes`, and remembers that and until when.
fn trim(transaction: &Transaction<'_>, bytes: i64) -> Result<(), Error> {
    let mut statement = transaction.prepare_cached(
        "SELECT cursor, time_ns, length(CAST(body AS BLOB)) FROM event ORDER BY cursor",
    )?;
    let mut rows = statement.query([])?;
    let (mut freed, mut count, mut last, mut until_ns) = (0, 0, 0, 0);
    while freed < bytes
        && let Some(row) = rows.next()?
    {
        (last, until_ns) = (row.get::<_, i64>(0)?, row.get::<_, i64>(1)?.max(until_ns));
        freed += row.get::<_, i64>(2)?;
        count += 1;
    }
    drop(rows);
    transaction.execute("DELETE FROM event WHERE cursor <= ?1", [last])?;
    transaction.execute(
        "UPDATE event_journal SET bytes = bytes - ?1, forgotten = forgotten + ?2, \
         forgotten_until_ns = max(forgotten_until_ns, ?3)",
        params![freed, count, until_ns],
    )?;
    Ok(())
}
