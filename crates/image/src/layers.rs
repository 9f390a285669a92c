//! From layer archives to layer rows: numbers, chain ids, and what happens after an unclean boot.
//!
//! ```text
//! layers/<number>  being unpacked (no row) → second pass → row, synced 0 → syncfs → synced 1
//!                  └ failed: removed         └ crash: removed at the next start
//! ```
//!
//! A layer is visible when it has a row. A row with `synced` 0 and another boot's id may have lost data in a
//! power cut: it is unpacked again from its blob before anybody sees it, or set aside with `synced` 2.

mod repair;

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use db::rusqlite::{Connection, OptionalExtension, params};
use sys::file;

use crate::digest::Digest;
use crate::error::Error;
use crate::lease::{Lease, Table, lock};
use crate::store::{Inner, Store};
use crate::unpack::extract::Extracted;
use crate::unpack::{self, Source, UnpackError};

/// `synced` of a layer that a power cut may still damage.
const UNSYNCED: i64 = 0;
/// `synced` of a layer that is on disk.
const SYNCED: i64 = 1;
/// `synced` of a layer that a power cut did damage, and that could not be unpacked again.
pub(crate) const DAMAGED: i64 = 2;

/// The layers of one image on their way into the store. Layers are unpacked in any order, from any number of
/// threads; [`Unpacking::finish`] makes them visible.
#[derive(Debug)]
#[must_use = "layers become visible by finish()"]
pub struct Unpacking<'a> {
    lease: &'a Lease,
    slots: Vec<Slot>,
    stop: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Slot {
    diff_id: Digest,
    chain_id: Digest,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// In the store, and leased.
    Known(i64),
    Missing,
    Extracted(NewLayer, Box<Extracted>),
}

/// A directory without a row; removed when dropped.
#[derive(Debug)]
struct NewLayer {
    inner: Arc<Inner>,
    number: i64,
    published: bool,
}

impl Drop for NewLayer {
    fn drop(&mut self) {
        if !self.published {
            self.inner.remove_layer_directory(self.number);
        }
    }
}

/// The chain ids of a stack of layers, bottom first
/// ([OCI image config](https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md#layer-chainid)).
#[must_use]
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

impl Store {
    /// Begins to unpack the layers with these digests (of the uncompressed archives), bottom first. Those
    /// that are in the store already are leased and not asked for.
    ///
    /// # Errors
    /// [`Error::Db`].
    pub fn begin_unpack<'a>(
        &self,
        lease: &'a Lease,
        diff_ids: &[Digest],
    ) -> Result<Unpacking<'a>, Error> {
        let mut table = self.leases();
        let mut slots = Vec::with_capacity(diff_ids.len());
        for (diff_id, chain_id) in diff_ids.iter().zip(chain_ids(diff_ids)) {
            let known = self.lease_layer(&mut table, lease, &chain_id)?;
            let state = Mutex::new(match known {
                Some(known) if !known.is_damaged => State::Known(known.number),
                Some(_) | None => State::Missing,
            });
            slots.push(Slot {
                diff_id: diff_id.clone(),
                chain_id,
                state,
            });
        }
        Ok(Unpacking {
            lease,
            slots,
            stop: Arc::default(),
        })
    }

    /// Leases the layer with this chain id, if it has a row.
    fn lease_layer(
        &self,
        table: &mut Table,
        lease: &Lease,
        chain_id: &Digest,
    ) -> Result<Option<Known>, Error> {
        let known = self
            .db()
            .read(|connection| known_layer(connection, chain_id))?;
        if let Some(known) = &known {
            lease.add_layer(table, known.number);
        }
        Ok(known)
    }
}

/// A layer with a row.
struct Known {
    number: i64,
    is_damaged: bool,
}

fn known_layer(connection: &Connection, chain_id: &Digest) -> Result<Option<Known>, Error> {
    let mut statement =
        connection.prepare_cached("SELECT number, synced FROM layers WHERE chain_id = ?1")?;
    let known = statement.query_row([chain_id.as_str()], |row| {
        Ok(Known {
            number: row.get(0)?,
            is_damaged: row.get::<_, i64>(1)? == DAMAGED,
        })
    });
    Ok(known.optional()?)
}

impl Unpacking<'_> {
    /// Has both passes end, with an error, soon after `stop` is set.
    pub fn stopped_by(self, stop: Arc<AtomicBool>) -> Self {
        Self { stop, ..self }
    }

    /// Positions of the layers that must be unpacked, bottom first.
    #[must_use]
    pub fn missing(&self) -> Vec<usize> {
        let missing = |slot: &Slot| matches!(*lock(&slot.state), State::Missing);
        (0..self.slots.len())
            .filter(|position| missing(&self.slots[*position]))
            .collect()
    }

    /// Unpacks one layer from its archive, compressed or not, and verifies its digest. Blocks until the
    /// whole input is read.
    ///
    /// # Errors
    /// [`Error::Layer`] for a bad archive or digest, [`Error::Io`]; nothing is left then.
    pub fn unpack(&self, position: usize, input: Box<dyn Read + Send + '_>) -> Result<(), Error> {
        self.first_pass(position, input, false)
    }

    /// As [`Unpacking::unpack`], for an uncompressed archive whose digest was verified before.
    pub(crate) fn unpack_verified(
        &self,
        position: usize,
        input: Box<dyn Read + Send + '_>,
    ) -> Result<(), Error> {
        self.first_pass(position, input, true)
    }

    fn first_pass(
        &self,
        position: usize,
        input: Box<dyn Read + Send + '_>,
        verified: bool,
    ) -> Result<(), Error> {
        let slot = &self.slots[position];
        let new = self.lease.store.new_layer()?;
        let root = new.inner.open_layer(new.number)?;
        let source = Source {
            input,
            diff_id: &slot.diff_id,
            verified,
            stop: &self.stop,
        };
        let extracted =
            unpack::first_pass(root, source).map_err(|source| Error::Layer { position, source })?;
        sys::fault!("image.layer-extracted");
        *lock(&slot.state) = State::Extracted(new, Box::new(extracted));
        Ok(())
    }

    /// Makes every layer visible, bottom first, and answers their numbers.
    ///
    /// # Errors
    /// [`Error::Layer`] when a layer was not unpacked or refers to what is not there; [`Error::Io`],
    /// [`Error::Db`].
    pub fn finish(self) -> Result<Vec<i64>, Error> {
        let store = &self.lease.store;
        let mut numbers: Vec<i64> = Vec::with_capacity(self.slots.len());
        let mut roots: Vec<OwnedFd> = Vec::with_capacity(self.slots.len());
        for (position, slot) in self.slots.into_iter().enumerate() {
            let number = match slot
                .state
                .into_inner()
                .expect("nobody panicked with the lock held")
            {
                State::Known(number) => number,
                State::Missing => return Err(Error::Missing { position }),
                State::Extracted(new, extracted) => {
                    let lowers: Vec<&OwnedFd> = roots.iter().rev().collect();
                    let size = unpack::second_pass::finish(*extracted, &lowers, &self.stop)
                        .map_err(|e| Error::Layer {
                            position,
                            source: UnpackError::Extract(e),
                        })?;
                    let parent = numbers.last().copied();
                    let ids = (&slot.diff_id, &slot.chain_id);
                    store.publish_layer(self.lease, new, ids, parent, size)?
                }
            };
            roots.push(store.inner().open_layer(number)?);
            numbers.push(number);
        }
        // The buffers of all unpackers are free now, in as many arenas: what the daemon holds is small again.
        sys::memory::trim();
        Ok(numbers)
    }
}

impl Store {
    fn new_layer(&self) -> Result<NewLayer, Error> {
        let inner = self.inner();
        let number = inner.next_layer.fetch_add(1, Ordering::Relaxed);
        let name = number.to_string();
        file::make_directory_at(inner.layers.as_fd(), name.as_bytes(), 0o700)
            .map_err(|source| inner.layer_error("make the layer directory", number, source))?;
        Ok(NewLayer {
            inner: Arc::clone(inner),
            number,
            published: false,
        })
    }

    /// Gives the layer its row. When another load was faster with the same layer, that one is taken.
    fn publish_layer(
        &self,
        lease: &Lease,
        mut new: NewLayer,
        (diff_id, chain_id): (&Digest, &Digest),
        parent: Option<i64>,
        size_bytes: u64,
    ) -> Result<i64, Error> {
        let mut table = self.leases();
        if let Some(known) = self.lease_layer(&mut table, lease, chain_id)? {
            if known.is_damaged {
                self.replace_layer(new, known.number)?;
            }
            return Ok(known.number);
        }
        lease.add_layer(&mut table, new.number);
        let boot_id = &self.inner().boot_id;
        self.db().write::<_, Error>(|tx| {
            tx.execute(
                "INSERT INTO layers (number, chain_id, diff_id, parent, size_bytes, boot_id)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    new.number,
                    chain_id.as_str(),
                    diff_id.as_str(),
                    parent,
                    i64::try_from(size_bytes).unwrap_or(i64::MAX),
                    boot_id
                ],
            )?;
            Ok(())
        })?;
        new.published = true;
        sys::fault!("image.layer-row");
        Ok(new.number)
    }

    /// Syncs the file system and marks what was written before as safe. Blocks; one at a time.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Db`]; the layers stay marked as unsafe then.
    pub fn sync_layers(&self) -> Result<(), Error> {
        let inner = self.inner();
        let _one_at_a_time = lock(&inner.syncing);
        let unsynced: Vec<i64> = self.db().read::<_, Error>(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT number FROM layers WHERE synced = ?1")?;
            let rows = statement.query_map([UNSYNCED], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })?;
        if unsynced.is_empty() {
            return Ok(());
        }
        file::sync_filesystem(&inner.layers).map_err(|source| Error::Io {
            operation: "sync the layers in",
            path: inner.layers_path.clone(),
            source,
        })?;
        sys::fault!("image.layers-synced");
        self.db().write::<_, Error>(|tx| {
            let mut statement =
                tx.prepare_cached("UPDATE layers SET synced = ?2 WHERE number = ?1")?;
            for number in &unsynced {
                statement.execute([*number, SYNCED])?;
            }
            Ok(())
        })
    }

    /// Has [`Store::sync_layers`] done by a thread of its own.
    pub(crate) fn sync_layers_soon(&self) {
        let store = self.clone();
        let thread = std::thread::Builder::new().name("layer-sync".to_owned());
        let spawned = thread.spawn(move || {
            if let Err(error) = store.sync_layers() {
                tracing::warn!(%error, "the layers are synced later");
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread to sync the layers");
        }
    }
}

/// The directory that stands for "no layer": overlayfs wants at least one below.
pub(crate) const EMPTY_LAYER: i64 = 0;
