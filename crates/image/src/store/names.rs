//! The names: how an image becomes visible, gets and loses them.

use std::sync::Arc;

use db::rusqlite::{Connection, params};
use sys::clock::now_ns;

use super::Store;
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::Error;
use crate::reference::Reference;
use crate::rows;

/// An image whose blobs and layers are in the store and leased, about to become visible.
#[derive(Clone, Debug)]
pub struct NewImage {
    /// Digest of its configuration.
    pub id: Digest,
    /// Its configuration.
    pub config: Arc<ImageConfig>,
    /// Its manifest, if it came with one that its layers' blobs belong to.
    pub manifest: Option<Digest>,
    /// The image it was built from.
    pub parent: Option<Digest>,
    /// Its layers, bottom first: number, and the blob it came from.
    pub layers: Vec<(i64, Option<Digest>)>,
    /// Names it gets, with tags or with digests.
    pub names: Vec<Reference>,
}

/// A name that pointed to another image before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The name.
    pub reference: Reference,
    /// The image that had it.
    pub from: Digest,
}

impl Store {
    /// Makes images visible and gives them their names, all or none. Safe against a power cut when this
    /// returns, if [`Store::sync_blobs`] was called before. Answers the names that other images lost.
    ///
    /// # Errors
    /// [`Error::Db`].
    pub fn commit(&self, images: &[NewImage]) -> Result<Vec<Moved>, Error> {
        let moved = self.db().write_synced::<_, Error>(|tx| {
            let mut moved = Vec::new();
            for image in images {
                insert_image(tx, image)?;
                for name in &image.names {
                    moved.extend(set_name(tx, &image.id, name)?);
                }
            }
            Ok(moved)
        })?;
        sys::fault!("image.committed");
        self.sync_layers_soon();
        Ok(moved)
    }

    /// Gives `image` the name `reference` (`latest` when it has no tag); answers the image that lost it.
    /// Safe against a power cut when this returns.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::Invalid`] for a reference with a digest.
    pub fn tag(&self, image: &Digest, reference: &Reference) -> Result<Option<Digest>, Error> {
        if reference.digest().is_some() {
            let text = "refusing to create a tag with a digest reference";
            return Err(Error::Invalid(text.to_owned()));
        }
        let reference = reference.clone().or_latest();
        let moved = self.db().write_synced::<_, Error>(|tx| {
            if rows::image(tx, image.as_str())?.is_none() {
                return Err(Error::NoSuchImage(image.to_string()));
            }
            // When somebody tagged it: names that come with a pull or a load do not count.
            let sql = "UPDATE images SET last_tagged_ns = ?2 WHERE id = ?1";
            tx.execute(sql, params![image.as_str(), now_ns()])?;
            set_name(tx, image, &reference)
        })?;
        sys::fault!("image.tagged");
        Ok(moved.map(|moved| moved.from))
    }

    /// Takes a name away; answers the image that had it. The image stays.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`].
    pub fn untag(&self, reference: &Reference) -> Result<Digest, Error> {
        let reference = reference.clone().or_latest();
        self.db().write_synced::<_, Error>(|tx| {
            let name = stored_name(&reference);
            let image = rows::by_name(tx, &name)?
                .ok_or_else(|| Error::NoSuchImage(reference.familiar()))?;
            tx.execute("DELETE FROM image_names WHERE reference = ?1", [&name])?;
            rows::digest(&image)
        })
    }
}

/// The key of `image_names`: a reference with tag and digest counts by its digest.
pub(crate) fn stored_name(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => reference.with_digest(digest.clone()).to_string(),
        None => reference.to_string(),
    }
}

fn insert_image(connection: &Connection, image: &NewImage) -> Result<(), Error> {
    let id = image.id.as_str();
    let existed = rows::image(connection, id)?.is_some();
    connection.execute(
        "INSERT INTO images (id, manifest, parent, created_ns, last_tagged_ns)
         VALUES (?1, ?2, ?3, ?4, 0)
         ON CONFLICT (id) DO UPDATE SET manifest = coalesce(excluded.manifest, manifest),
                                        parent = coalesce(excluded.parent, parent)",
        params![
            id,
            image.manifest.as_ref().map(Digest::as_str),
            image.parent.as_ref().map(Digest::as_str),
            image.config.created_ns(),
        ],
    )?;
    // The blobs belong to the manifest: an image that had one keeps its own unless a new one comes.
    if existed && image.manifest.is_none() {
        return Ok(());
    }
    connection.execute("DELETE FROM image_layers WHERE image = ?1", [id])?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO image_layers (image, position, layer, blob) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for (position, (layer, blob)) in image.layers.iter().enumerate() {
        let position = i64::try_from(position).expect("at most a hundred layers");
        statement.execute(params![
            id,
            position,
            layer,
            blob.as_ref().map(Digest::as_str)
        ])?;
    }
    Ok(())
}

fn set_name(
    connection: &Connection,
    image: &Digest,
    reference: &Reference,
) -> Result<Option<Moved>, Error> {
    let name = stored_name(reference);
    let before = rows::by_name(connection, &name)?;
    connection.execute(
        "INSERT INTO image_names (reference, image) VALUES (?1, ?2)
         ON CONFLICT (reference) DO UPDATE SET image = excluded.image",
        params![name, image.as_str()],
    )?;
    match before {
        Some(from) if from != image.as_str() => Ok(Some(Moved {
            reference: reference.clone(),
            from: rows::digest(&from)?,
        })),
        _ => Ok(None),
    }
}
