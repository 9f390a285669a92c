//! One subscriber of the journal.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::event::EventMessage;
use api::options::EventsOptions;
use db::Db;
use db::rusqlite::{OptionalExtension as _, params};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Instant;

use super::{Entry, Journal, event, filter};
use crate::Error;

/// Events read from the journal at once.
const BATCH_EVENTS: u32 = 256;

/// The events a client asked for, in order: first those of the past it asked for, then the present, until
/// the time it named.
pub struct Stream {
    options: EventsOptions,
    db: Db,
    live: broadcast::Receiver<Entry>,
    /// The last entry that was looked at.
    cursor: i64,
    /// The journal is read up to and with this entry before the ring is listened to.
    catch_up: Option<i64>,
    ready: VecDeque<Entry>,
    gap: Option<EventMessage>,
    deadline: Option<Instant>,
}

impl Journal {
    /// Subscribes. Without `since` and `until` only what happens from now on is told. Blocks shortly: the
    /// place in the journal is looked up.
    ///
    /// # Errors
    /// InvalidParameter when `since` is after `until`, Internal when the journal cannot be read.
    pub fn subscribe(&self, options: EventsOptions) -> Result<Stream, Error> {
        if let (Some(since), Some(until)) = (options.since, options.until)
            && since > until
        {
            return Err(Error::invalid(format!(
                "`since` time ({}) cannot be after `until` time ({})",
                since.unix_seconds(),
                until.unix_seconds()
            )));
        }
        // Before the place is looked up: what is recorded in between is then in both, and told once.
        let live = self.ring.subscribe();
        let wants_past = options.since.is_some() || options.until.is_some();
        let since_ns = options.since.map_or(i64::MIN, api::time::Time::unix_nanos);
        let place = self.db.read(|connection| place(connection, since_ns))?;
        let deadline = options.until.map(|until| {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            let until = Duration::from_nanos(u64::try_from(until.unix_nanos()).unwrap_or(0));
            Instant::now() + until.saturating_sub(now)
        });
        let is_gap = wants_past && place.forgotten > 0 && since_ns <= place.forgotten_until_ns;
        Ok(Stream {
            options,
            db: self.db.clone(),
            live,
            cursor: if wants_past {
                place.first - 1
            } else {
                place.newest
            },
            catch_up: wants_past.then_some(place.newest),
            ready: VecDeque::new(),
            gap: is_gap.then(|| gap(place.forgotten, place.forgotten_until_ns)),
            deadline,
        })
    }
}

/// The event that says that the journal forgot some.
fn gap(forgotten: i64, until_ns: i64) -> EventMessage {
    let attributes = [("forgotten", forgotten), ("untilNano", until_ns)]
        .map(|(key, value)| (key.to_owned(), value.to_string()));
    let mut marker = event("daemon", "gap", "", attributes.into());
    marker.time = until_ns / 1_000_000_000;
    marker.time_nano = until_ns;
    marker
}

struct Place {
    /// The first entry at or after the time asked for; one behind the newest when there is none.
    first: i64,
    newest: i64,
    forgotten: i64,
    forgotten_until_ns: i64,
}

fn place(connection: &db::rusqlite::Connection, since_ns: i64) -> Result<Place, Error> {
    let newest: i64 =
        connection.query_row("SELECT coalesce(max(cursor), 0) FROM event", [], |row| {
            row.get(0)
        })?;
    let first: Option<i64> = connection
        .query_row(
            "SELECT min(cursor) FROM event WHERE time_ns >= ?1",
            [since_ns],
            |row| row.get(0),
        )
        .optional()?
        .flatten();
    connection
        .query_row(
            "SELECT forgotten, forgotten_until_ns FROM event_journal",
            [],
            |row| {
                Ok(Place {
                    first: first.unwrap_or(newest + 1),
                    newest,
                    forgotten: row.get(0)?,
                    forgotten_until_ns: row.get(1)?,
                })
            },
        )
        .map_err(Error::from)
}

impl Stream {
    /// The next event, or `None` after the time that `until` named. Safe to cancel.
    ///
    /// # Errors
    /// Internal when the journal cannot be read.
    pub async fn next(&mut self) -> Option<Result<Arc<EventMessage>, Error>> {
        if let Some(gap) = self.gap.take() {
            return Some(Ok(Arc::new(gap)));
        }
        loop {
            while let Some(entry) = self.ready.pop_front() {
                if entry.cursor <= self.cursor {
                    continue;
                }
                self.cursor = entry.cursor;
                if self.is_wanted(&entry.event) {
                    return Some(Ok(entry.event));
                }
            }
            let read = match self.catch_up {
                Some(until) => self.read_until(until).await,
                None => self.listen().await?,
            };
            if let Err(error) = read {
                return Some(Err(error));
            }
        }
    }

    fn is_wanted(&self, event: &EventMessage) -> bool {
        let since = self.options.since.map(api::time::Time::unix_nanos);
        let until = self.options.until.map(api::time::Time::unix_nanos);
        since.is_none_or(|since| event.time_nano >= since)
            && until.is_none_or(|until| event.time_nano <= until)
            && filter::includes(&self.options.filters, event)
    }

    /// Reads a batch of the journal, up to and with the entry `until`.
    async fn read_until(&mut self, until: i64) -> Result<(), Error> {
        let (db, after) = (self.db.clone(), self.cursor);
        // Awaited at once; a client that leaves meanwhile leaves one read of the database behind.
        let read = tokio::task::spawn_blocking(move || {
            db.read(|connection| batch(connection, after, until))
        });
        let entries = match read.await {
            Ok(entries) => entries?,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        if entries.len() < BATCH_EVENTS as usize {
            self.catch_up = None;
        }
        self.ready.extend(entries);
        Ok(())
    }

    /// Waits for the next entry of the ring; `None` at the deadline.
    async fn listen(&mut self) -> Option<Result<(), Error>> {
        let received = match self.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, self.live.recv())
                .await
                .ok()?,
            None => self.live.recv().await,
        };
        match received {
            // Commits of two writers may be published in the other order: what is between is in the journal.
            Ok(entry) if entry.cursor > self.cursor + 1 => self.catch_up = Some(entry.cursor),
            Ok(entry) => self.ready.push_back(entry),
            Err(RecvError::Lagged(_)) => self.catch_up = Some(i64::MAX),
            Err(RecvError::Closed) => return None,
        }
        Some(Ok(()))
    }
}

fn batch(
    connection: &db::rusqlite::Connection,
    after: i64,
    until: i64,
) -> Result<Vec<Entry>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT cursor, body FROM event WHERE cursor > ?1 AND cursor <= ?2 ORDER BY cursor LIMIT ?3",
    )?;
    let mut rows = statement.query(params![after, until, BATCH_EVENTS])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let body: String = row.get(1)?;
        let event = serde_json::from_str(&body)
            .map_err(|source| Error::internal("read an event", source))?;
        entries.push(Entry {
            cursor: row.get(0)?,
            event: Arc::new(event),
        });
    }
    Ok(entries)
}
