//! Removing what nothing needs: layers without image, holder, child or lease; blobs without image or lease.
//!
//! Rows go first, directories after: a crash between leaves a directory without a row, which the next start
//! removes.

use db::rusqlite::Transaction;

use crate::digest::Digest;
use crate::error::Error;
use crate::lease::Table;
use crate::store::Store;

impl Store {
    /// Removes every layer nothing needs, and those of `blobs` nothing needs. Answers the chain ids of the
    /// removed layers, upper ones first.
    pub(crate) fn collect(&self, blobs: &[Digest]) -> Result<Vec<Digest>, Error> {
        let table = self.leases();
        let removed = self.db().write(|tx| remove_layer_rows(tx, &table))?;
        sys::fault!("image.layer-rows-removed");
        for blob in blobs {
            let is_needed = self
                .db()
                .read(|connection| crate::rows::is_blob_needed(connection, blob))?;
            if !is_needed && !table.blobs.contains_key(blob) {
                self.inner().content.remove(blob)?;
            }
        }
        // Numbers are never used again, so directories need no lock.
        drop(table);
        for (number, _) in &removed {
            self.inner().remove_layer_directory(*number);
        }
        Ok(removed.into_iter().map(|(_, chain_id)| chain_id).collect())
    }

    /// Removes everything nothing needs; for the start, when there are no leases.
    pub(crate) fn collect_all(&self) -> Result<(), Error> {
        let blobs = self.inner().content.list()?;
        self.collect(&blobs).map(drop)
    }
}

fn remove_layer_rows(tx: &Transaction<'_>, table: &Table) -> Result<Vec<(i64, Digest)>, Error> {
    let mut removed = Vec::new();
    loop {
        let mut statement = tx.prepare_cached(
            "SELECT number, chain_id FROM layers AS l
             WHERE NOT EXISTS (SELECT 1 FROM layers AS child WHERE child.parent = l.number)
               AND NOT EXISTS (SELECT 1 FROM image_layers WHERE layer = l.number)
               AND NOT EXISTS (SELECT 1 FROM image_holders WHERE top = l.number)
             ORDER BY number DESC",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
        let rows: Vec<(i64, String)> = rows.collect::<Result<_, _>>()?;
        let before = removed.len();
        for (number, chain_id) in rows {
            if table.layers.contains_key(&number) {
                continue;
            }
            tx.execute("DELETE FROM layers WHERE number = ?1", [number])?;
            removed.push((number, crate::rows::digest(&chain_id)?));
        }
        if removed.len() == before {
            return Ok(removed);
        }
    }
}
