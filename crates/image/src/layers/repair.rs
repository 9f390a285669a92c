//! What happens to layers after an unclean boot, and to directories that no row knows.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use db::rusqlite::{Connection, OptionalExtension, params};
use sys::file;

use super::EMPTY_LAYER;
use crate::digest::Digest;
use crate::error::Error;
use crate::store::{Store, Strays};
use crate::unpack::{self, Source, UnpackError};

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
            let unsafe_boot = !row.synced && row.boot_id != inner.boot_id;
            if unsafe_boot || inner.open_layer(row.number).is_err() {
                damaged.push(row.number);
            }
        }
        let mut repairs: Vec<Repair> = damaged
            .iter()
            .map(|number| repair_of(&rows, *number))
            .collect::<Result<_, _>>()?;
        repairs.sort_by_key(|repair| repair.below.len());
        for repair in &repairs {
            self.repair(repair)?;
        }
        if rows.iter().any(|row| !row.synced) {
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

    fn repair(&self, repair: &Repair) -> Result<(), Error> {
        let inner = self.inner();
        let number = repair.number;
        let blob: Option<String> = self.db().read::<_, Error>(|connection| {
            let sql = "SELECT blob FROM image_layers WHERE layer = ?1 AND blob IS NOT NULL LIMIT 1";
            Ok(connection
                .query_row(sql, [number], |row| row.get(0))
                .optional()?)
        })?;
        let Some(blob) = blob else {
            tracing::error!(
                number,
                "a layer may be damaged, and there is nothing to unpack it from"
            );
            return Ok(());
        };
        tracing::warn!(
            number,
            "unpacking a layer again: the last boot ended before it was on disk"
        );
        let blob = inner.content.open_blob(&crate::rows::digest(&blob)?)?;
        let mut new = self.new_layer()?;
        let position = repair.below.len();
        let source = Source {
            input: Box::new(blob),
            diff_id: &repair.diff_id,
            verified: false,
        };
        let extracted = unpack::first_pass(inner.open_layer(new.number)?, source)
            .map_err(|source| Error::Layer { position, source })?;
        let lowers: Vec<OwnedFd> = repair
            .below
            .iter()
            .map(|number| inner.open_layer(*number))
            .collect::<Result<_, _>>()?;
        unpack::second_pass::finish(extracted, &lowers.iter().collect::<Vec<_>>()).map_err(
            |e| Error::Layer {
                position,
                source: UnpackError::Extract(e),
            },
        )?;
        let (from, to) = (new.number.to_string(), number.to_string());
        let layers = inner.layers.as_fd();
        let wrap = |source| inner.layer_error("replace the layer", number, source);
        file::remove_tree(layers, to.as_bytes()).map_err(wrap)?;
        sys::fault!("image.layer-removed-for-repair");
        file::rename_at(layers, from.as_bytes(), layers, to.as_bytes()).map_err(wrap)?;
        new.published = true;
        sys::fault!("image.layer-repaired");
        self.db().write::<_, Error>(|tx| {
            let sql = "UPDATE layers SET synced = 0, boot_id = ?2 WHERE number = ?1";
            tx.execute(sql, params![number, inner.boot_id])?;
            Ok(())
        })
    }
}

struct LayerRow {
    number: i64,
    parent: Option<i64>,
    diff_id: String,
    synced: bool,
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
