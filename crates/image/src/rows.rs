//! The image tables: every query that more than one operation needs.

use db::rusqlite::{Connection, OptionalExtension, Row, params};

use crate::digest::Digest;
use crate::error::Error;
use crate::layers::DAMAGED;
use crate::reference::Reference;
use crate::store::Layer;

/// A row of `images`.
#[derive(Clone, Debug)]
pub(crate) struct ImageRow {
    pub(crate) id: Digest,
    pub(crate) manifest: Option<Digest>,
    pub(crate) parent: Option<Digest>,
    pub(crate) last_tagged_ns: i64,
}

/// A digest that Cooper wrote into the database itself.
pub(crate) fn digest(text: &str) -> Result<Digest, Error> {
    Digest::parse(text)
        .map_err(|_| Error::Damaged(format!("the database holds the digest {text:?}")))
}

fn reference(text: &str) -> Result<Reference, Error> {
    Reference::parse(text)
        .map_err(|_| Error::Damaged(format!("the database holds the reference {text:?}")))
}

type RawImage = (String, Option<String>, Option<String>, i64);

fn raw_image(row: &Row<'_>) -> db::rusqlite::Result<RawImage> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}

fn image_row(raw: RawImage) -> Result<ImageRow, Error> {
    let (id, manifest, parent, last_tagged_ns) = raw;
    Ok(ImageRow {
        id: digest(&id)?,
        manifest: manifest.as_deref().map(digest).transpose()?,
        parent: parent.as_deref().map(digest).transpose()?,
        last_tagged_ns,
    })
}

pub(crate) fn image(connection: &Connection, id: &str) -> Result<Option<ImageRow>, Error> {
    let mut statement = connection
        .prepare_cached("SELECT id, manifest, parent, last_tagged_ns FROM images WHERE id = ?1")?;
    statement
        .query_row([id], raw_image)
        .optional()?
        .map(image_row)
        .transpose()
}

/// Whether there is an image with exactly this id.
pub(crate) fn is_image(connection: &Connection, id: &str) -> Result<bool, Error> {
    let mut statement =
        connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM images WHERE id = ?1)")?;
    Ok(statement.query_row([id], |row| row.get(0))?)
}

/// Every image, newest first.
pub(crate) fn images(connection: &Connection) -> Result<Vec<ImageRow>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT id, manifest, parent, last_tagged_ns FROM images ORDER BY created_ns DESC, id",
    )?;
    let rows = statement.query_map([], raw_image)?;
    rows.map(|row| image_row(row?)).collect()
}

/// The only image whose id begins with `prefix` (with or without algorithm).
pub(crate) fn by_prefix(connection: &Connection, prefix: &str) -> Result<Option<String>, Error> {
    let mut statement =
        connection.prepare_cached("SELECT id FROM images WHERE id >= ?1 AND id < ?2 LIMIT 2")?;
    let hex = prefix.split_once(':').map_or(prefix, |(_, hex)| hex);
    let lower_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    if hex.is_empty() || !hex.bytes().all(lower_hex) {
        return Ok(None);
    }
    let starts = match prefix.split_once(':') {
        Some(_) => vec![prefix.to_owned()],
        None => vec![format!("sha256:{prefix}"), format!("sha512:{prefix}")],
    };
    let mut found: Vec<String> = Vec::new();
    for start in starts {
        // 'g' follows the last hex digit.
        let rows = statement.query_map(params![start, format!("{start}g")], |row| row.get(0))?;
        for row in rows {
            found.push(row?);
        }
    }
    Ok(if found.len() == 1 { found.pop() } else { None })
}

/// The image a canonical reference points to.
pub(crate) fn by_name(connection: &Connection, name: &str) -> Result<Option<String>, Error> {
    let mut statement =
        connection.prepare_cached("SELECT image FROM image_names WHERE reference = ?1")?;
    Ok(statement.query_row([name], |row| row.get(0)).optional()?)
}

/// Every name of an image: those with tags, then those with digests, each sorted.
pub(crate) fn names(connection: &Connection, id: &Digest) -> Result<Vec<Reference>, Error> {
    let mut statement = connection
        .prepare_cached("SELECT reference FROM image_names WHERE image = ?1 ORDER BY reference")?;
    let rows = statement.query_map([id.as_str()], |row| row.get::<_, String>(0))?;
    let mut list: Vec<Reference> = rows
        .map(|row| reference(&row?))
        .collect::<Result<_, Error>>()?;
    list.sort_by_key(|reference| reference.digest().is_some());
    Ok(list)
}

/// The layers of an image, bottom first.
pub(crate) fn layers(connection: &Connection, id: &Digest) -> Result<Vec<Layer>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT number, diff_id, chain_id, size_bytes FROM image_layers
         JOIN layers ON number = layer WHERE image = ?1 ORDER BY position",
    )?;
    let rows = statement.query_map([id.as_str()], |row| {
        Ok((
            row.get(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
            row.get::<_, i64>(3)?,
        ))
    })?;
    rows.map(|row| {
        let (number, diff_id, chain_id, size) = row?;
        Ok(Layer {
            number,
            diff_id: digest(&diff_id)?,
            chain_id: digest(&chain_id)?,
            size_bytes: u64::try_from(size).unwrap_or(0),
        })
    })
    .collect()
}

/// The topmost layer of an image; `None` for an image without layers.
pub(crate) fn top_layer(connection: &Connection, id: &Digest) -> Result<Option<i64>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT layer FROM image_layers WHERE image = ?1 ORDER BY position DESC LIMIT 1",
    )?;
    Ok(statement
        .query_row([id.as_str()], |row| row.get(0))
        .optional()?)
}

/// `top` and the layers below it, topmost first.
pub(crate) fn stack(connection: &Connection, top: Option<i64>) -> Result<Vec<i64>, Error> {
    let mut statement = connection.prepare_cached(
        "WITH RECURSIVE stack (number, depth) AS (
             SELECT ?1, 0 WHERE ?1 IS NOT NULL
             UNION ALL
             SELECT parent, depth + 1 FROM stack JOIN layers USING (number)
             WHERE parent IS NOT NULL
         ) SELECT number FROM stack ORDER BY depth",
    )?;
    let rows = statement.query_map([top], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The lowest layer of a stack that is damaged, by its diff id.
pub(crate) fn damaged_layer(
    connection: &Connection,
    stack: &[i64],
) -> Result<Option<Digest>, Error> {
    let mut statement = connection
        .prepare_cached("SELECT diff_id FROM layers WHERE number = ?1 AND synced = ?2")?;
    for number in stack.iter().rev() {
        let found: Option<String> = statement
            .query_row([*number, DAMAGED], |row| row.get(0))
            .optional()?;
        if let Some(diff_id) = found {
            return digest(&diff_id).map(Some);
        }
    }
    Ok(None)
}

/// The blobs an image needs: configuration, manifest, layers.
pub(crate) fn blobs(connection: &Connection, image: &ImageRow) -> Result<Vec<Digest>, Error> {
    let mut statement = connection
        .prepare_cached("SELECT blob FROM image_layers WHERE image = ?1 AND blob IS NOT NULL")?;
    let rows = statement.query_map([image.id.as_str()], |row| row.get::<_, String>(0))?;
    let mut list = vec![image.id.clone()];
    list.extend(image.manifest.clone());
    for row in rows {
        list.push(digest(&row?)?);
    }
    Ok(list)
}

/// Whether an image needs this blob.
pub(crate) fn is_blob_needed(connection: &Connection, blob: &Digest) -> Result<bool, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM images WHERE id = ?1)
             OR EXISTS (SELECT 1 FROM images WHERE manifest = ?1)
             OR EXISTS (SELECT 1 FROM image_layers WHERE blob = ?1)",
    )?;
    Ok(statement.query_row([blob.as_str()], |row| row.get(0))?)
}
