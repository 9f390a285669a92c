//! The holders: containers whose image's layers stay as long as they are there.

use std::path::PathBuf;

use db::rusqlite::{Connection, OptionalExtension, params};

use super::Store;
use crate::digest::Digest;
use crate::error::Error;
use crate::layers::EMPTY_LAYER;
use crate::rows;

/// What a holder needs to mount an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Directory names under `layers_dir`, topmost first; never empty.
    pub lower: Vec<String>,
    /// The directory of all layers.
    pub layers_dir: PathBuf,
}

impl Held {
    /// The names for a read-only overlay of the layers, which needs at least two of them.
    #[must_use]
    pub fn readable(&self) -> Vec<String> {
        let mut names = self.lower.clone();
        let empty = EMPTY_LAYER.to_string();
        if names.len() == 1 && names[0] != empty {
            names.push(empty);
        }
        names
    }
}

impl Store {
    /// Holds `image` for `holder` (a container's id): its layers stay until [`Store::release`]. Holding again
    /// replaces the earlier hold.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; [`Error::DamagedLayer`].
    pub fn hold(&self, image: &Digest, holder: &str) -> Result<Held, Error> {
        let stack = self.db().write::<_, Error>(|tx| {
            if rows::image(tx, image.as_str())?.is_none() {
                return Err(Error::NoSuchImage(image.to_string()));
            }
            let top = rows::top_layer(tx, image)?;
            let stack = rows::stack(tx, top)?;
            whole(tx, &stack, image)?;
            tx.prepare_cached(
                "INSERT INTO image_holders (holder, image, top) VALUES (?1, ?2, ?3)
                 ON CONFLICT (holder) DO UPDATE SET image = excluded.image, top = excluded.top",
            )?
            .execute(params![holder, image.as_str(), top])?;
            Ok(stack)
        })?;
        sys::fault!("image.held");
        Ok(self.held_from(&stack))
    }

    fn held_from(&self, stack: &[i64]) -> Held {
        let stack = if stack.is_empty() {
            &[EMPTY_LAYER]
        } else {
            stack
        };
        Held {
            lower: stack.iter().map(ToString::to_string).collect(),
            layers_dir: self.inner.layers_path.clone(),
        }
    }

    /// What an earlier [`Store::hold`] answered; `None` when `holder` holds nothing.
    ///
    /// # Errors
    /// [`Error::Db`].
    pub fn held(&self, holder: &str) -> Result<Option<Held>, Error> {
        let stack = self.db().read::<_, Error>(|connection| {
            let sql = "SELECT top FROM image_holders WHERE holder = ?1";
            let top = connection
                .prepare_cached(sql)?
                .query_row([holder], |row| row.get(0));
            match top.optional()? {
                None => Ok(None),
                Some(top) => rows::stack(connection, top).map(Some),
            }
        })?;
        Ok(stack.map(|stack| self.held_from(&stack)))
    }

    /// As [`Store::held`], for who is about to mount it.
    ///
    /// # Errors
    /// [`Error::DamagedLayer`], [`Error::Db`].
    pub fn mountable(&self, holder: &str) -> Result<Option<Held>, Error> {
        let stack = self.db().read::<_, Error>(|connection| {
            let sql = "SELECT image, top FROM image_holders WHERE holder = ?1";
            let held = connection
                .prepare_cached(sql)?
                .query_row([holder], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))
                .optional()?;
            let Some((image, top)) = held else {
                return Ok(None);
            };
            let stack = rows::stack(connection, top)?;
            whole(connection, &stack, &rows::digest(&image)?)?;
            Ok(Some(stack))
        })?;
        Ok(stack.map(|stack| self.held_from(&stack)))
    }

    /// Bytes of the layers that `holder` holds; 0 when it holds nothing.
    ///
    /// # Errors
    /// [`Error::Db`].
    pub fn held_bytes(&self, holder: &str) -> Result<u64, Error> {
        let bytes: i64 = self.db().read::<_, Error>(|connection| {
            let sql = "WITH RECURSIVE held (number) AS (
                           SELECT top FROM image_holders WHERE holder = ?1
                           UNION ALL
                           SELECT parent FROM layers JOIN held USING (number))
                       SELECT COALESCE(SUM(size_bytes), 0) FROM layers JOIN held USING (number)";
            let mut statement = connection.prepare_cached(sql)?;
            Ok(statement.query_row([holder], |row| row.get(0))?)
        })?;
        Ok(u64::try_from(bytes).unwrap_or(0))
    }

    /// Lets go of what `holder` holds; layers nobody needs any more are removed. Holding nothing is fine.
    ///
    /// # Errors
    /// [`Error::Db`], [`Error::Io`].
    pub fn release(&self, holder: &str) -> Result<(), Error> {
        let image_remains = self.db().write::<_, Error>(|tx| {
            let remains = "SELECT EXISTS (SELECT 1 FROM images WHERE id = image)
                           FROM image_holders WHERE holder = ?1";
            let remains: Option<bool> = tx
                .prepare_cached(remains)?
                .query_row([holder], |row| row.get(0))
                .optional()?;
            tx.prepare_cached("DELETE FROM image_holders WHERE holder = ?1")?
                .execute([holder])?;
            Ok(remains.unwrap_or(true))
        })?;
        sys::fault!("image.released");
        if !image_remains {
            self.collect(&[])?;
        }
        Ok(())
    }

    /// Every holder, for the sweep at start.
    ///
    /// # Errors
    /// [`Error::Db`].
    pub fn holders(&self) -> Result<Vec<String>, Error> {
        self.db().read::<_, Error>(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT holder FROM image_holders ORDER BY holder")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

/// Refuses a stack with a damaged layer in it.
fn whole(connection: &Connection, stack: &[i64], image: &Digest) -> Result<(), Error> {
    match rows::damaged_layer(connection, stack)? {
        None => Ok(()),
        Some(layer) => Err(Error::DamagedLayer {
            layer,
            image: image.clone(),
        }),
    }
}
