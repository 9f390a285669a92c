//! What happens to layers after an unclean boot, and to directories that no row knows.
//!
//! A layer that may have lost data is unpacked again from its blob. Where that cannot be done (no blob, or one that
//! is damaged itself), this layer alone is set aside: its row says [`DAMAGED`], nothing mounts it, and a pull or load
//! that brings it unpacks it anew under its old number. Every start tries again.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use db::rusqlite::{Connection, params};
use sys::file;

use super::{DAMAGED, EMPTY_LAYER, NewLayer, SYNCED, UNSYNCED};
use crate::digest::Digest;
use crate::error::Error;
use crate::store::{Store, Strays};
use crate::unpack::{self, NEVER, Source, UnpackError};

/// A layer as the repair after an unclean boot needs it.
#[derive(Debug)]
struct Repair {
    number: i64,
    diff_id: Digest,
    /// Numbers of the layers below, topmost first.
    below: Vec<i64>,
}

impl Store {
    /// Removes directories without a row, and unpacks again what the last boot did not get to disk.
    pub(crate) fn repair_layers(&self, strays: Strays) -> Result<(), Error> {
        let inner = self.inner();
        let rows = self.db().read(layer_rows)?;
        let highest = self.remove_strays(&rows, strays)?;
        inner.next_layer.store(highest + 1, Ordering::Relaxed);
        let mut damaged = Vec::new();
        for row in &rows {
            let unsafe_boot = row.synced == UNSYNCED && row.boot_id != inner.boot_id;
            if unsafe_boot || row.synced == DAMAGED || inner.open_layer(row.number).is_err() {
                damaged.push(row.number);
            }
        }
        let mut repairs: Vec<Repair> = damaged
            .iter()
            .map(|number| repair_of(&rows, *number))
            .collect::<Result<_, _>>()?;
        repairs.sort_by_key(|repair| repair.below.len());
        let mut given_up = BTreeSet::new();
        for repair in &repairs {
            let repaired = match repair.below.iter().find(|below| given_up.contains(*below)) {
                Some(_) => Err(Error::Damaged("a layer below it is damaged".to_owned())),
                None => self.repair(repair),
            };
            if let Err(error) = repaired {
                given_up.insert(repair.number);
                self.set_aside(repair, &error)?;
            }
        }
        if rows.iter().any(|row| row.synced != SYNCED) {
            self.sync_layers_soon();
        }
        Ok(())
    }

    fn remove_strays(&self, rows: &[LayerRow], strays: Strays) -> Result<i64, Error> {
        let inner = self.inner();
        let mut highest = rows.iter().map(|row| row.number).max().unwrap_or(0);
        let names = file::names_in(inner.layers.as_fd())
            .map_err(|source| inner.layer_error("list the layers at", 0, source))?;
        for name in names {
            let number = std::str::from_utf8(&name)
                .ok()
                .and_then(|name| name.parse::<i64>().ok());
            let Some(number) = number else {
                tracing::warn!(name = %String::from_utf8_lossy(&name), "no layer, left alone");
                continue;
            };
            highest = highest.max(number);
            let kept = number == EMPTY_LAYER || strays == Strays::Keep;
            if !kept && !rows.iter().any(|row| row.number == number) {
                inner.remove_layer_directory(number);
            }
        }
        Ok(highest)
    }

    /// Unpacks a layer again, from whichever of its blobs is whole.
    fn repair(&self, repair: &Repair) -> Result<(), Error> {
        let blobs = self
            .db()
            .read(|connection| blobs_of(connection, repair.number))?;
        let mut failed = Error::Damaged("there is nothing to unpack it from".to_owned());
        for blob in &blobs {
            tracing::warn!(
                number = repair.number,
                "unpacking a layer again: the last boot ended before it was on disk"
            );
            match self.unpack_again(repair, blob) {
                Ok(()) => return Ok(()),
                Err(error) => failed = error,
            }
            self.inner().content.remove_if_damaged(blob)?;
        }
        Err(failed)
    }

    fn unpack_again(&self, repair: &Repair, blob: &Digest) -> Result<(), Error> {
        let inner = self.inner();
        let blob = inner.content.open_blob(blob)?;
        let new = self.new_layer()?;
        let position = repair.below.len();
        let source = Source {
            input: Box::new(blob),
            diff_id: &repair.diff_id,
            verified: false,
            stop: &NEVER,
        };
        let extracted = unpack::first_pass(inner.open_layer(new.number)?, source)
            .map_err(|source| Error::Layer { position, source })?;
        let lowers: Vec<OwnedFd> = repair
            .below
            .iter()
            .map(|number| inner.open_layer(*number))
            .collect::<Result<_, _>>()?;
        unpack::second_pass::finish(extracted, &lowers.iter().collect::<Vec<_>>(), &NEVER)
            .map_err(|e| Error::Layer {
                position,
                source: UnpackError::Extract(e),
            })?;
        self.replace_layer(new, repair.number)
    }

    /// Puts a new directory in the place of a damaged one, under its number: who holds the layer knows it by that.
    pub(super) fn replace_layer(&self, mut new: NewLayer, number: i64) -> Result<(), Error> {
        let inner = self.inner();
        let aside = inner.next_layer.fetch_add(1, Ordering::Relaxed);
        let layers = inner.layers.as_fd();
        let rename = |from: i64, to: i64| {
            let (from, to) = (from.to_string(), to.to_string());
            file::rename_at(layers, from.as_bytes(), layers, to.as_bytes())
        };
        let was_there = match rename(number, aside) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            other => other
                .map(|()| true)
                .map_err(|source| inner.layer_error("set aside the layer", number, source))?,
        };
        sys::fault!("image.layer-removed-for-repair");
        rename(new.number, number)
            .map_err(|source| inner.layer_error("replace the layer", number, source))?;
        new.published = true;
        sys::fault!("image.layer-repaired");
        self.db().write::<_, Error>(|tx| {
            let sql = "UPDATE layers SET synced = ?2, boot_id = ?3 WHERE number = ?1";
            tx.execute(sql, params![number, UNSYNCED, inner.boot_id])?;
            Ok(())
        })?;
        if was_there {
            inner.remove_layer_directory(aside);
        }
        Ok(())
    }

    /// Nothing uses the layer until a pull, a load or another start has unpacked it again.
    fn set_aside(&self, repair: &Repair, why: &Error) -> Result<(), Error> {
        let images = self.db().write::<_, Error>(|tx| {
            let sql = "UPDATE layers SET synced = ?2 WHERE number = ?1";
            tx.execute(sql, params![repair.number, DAMAGED])?;
            images_of(tx, repair.number)
        })?;
        tracing::warn!(
            layer = %repair.diff_id, images = images.join(", "), error = %why,
            "a layer was damaged when the machine went down: pull or load its images again"
        );
        Ok(())
    }
}

/// The blobs a layer may be unpacked from.
fn blobs_of(connection: &Connection, layer: i64) -> Result<Vec<Digest>, Error> {
    let sql = "SELECT DISTINCT blob FROM image_layers WHERE layer = ?1 AND blob IS NOT NULL";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([layer], |row| row.get::<_, String>(0))?;
    rows.map(|row| crate::rows::digest(&row?)).collect()
}

/// What the images with a layer are called: by their names, or by their ids.
fn images_of(connection: &Connection, layer: i64) -> Result<Vec<String>, Error> {
    let sql = "SELECT DISTINCT coalesce(reference, image_layers.image) FROM image_layers
               LEFT JOIN image_names ON image_names.image = image_layers.image
               WHERE layer = ?1 ORDER BY 1";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([layer], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

struct LayerRow {
    number: i64,
    parent: Option<i64>,
    diff_id: String,
    synced: i64,
    boot_id: String,
}

fn layer_rows(connection: &Connection) -> Result<Vec<LayerRow>, Error> {
    let mut statement =
        connection.prepare("SELECT number, parent, diff_id, synced, boot_id FROM layers")?;
    let rows = statement.query_map([], |row| {
        Ok(LayerRow {
            number: row.get(0)?,
            parent: row.get(1)?,
            diff_id: row.get(2)?,
            synced: row.get(3)?,
            boot_id: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn repair_of(rows: &[LayerRow], number: i64) -> Result<Repair, Error> {
    let row_of = |number: i64| {
        rows.iter()
            .find(|row| row.number == number)
            .expect("a foreign key of the database")
    };
    let mut below = Vec::new();
    let mut parent = row_of(number).parent;
    while let Some(number) = parent {
        below.push(number);
        parent = row_of(number).parent;
    }
    let diff_id = crate::rows::digest(&row_of(number).diff_id)?;
    Ok(Repair {
        number,
        diff_id,
        below,
    })
}
