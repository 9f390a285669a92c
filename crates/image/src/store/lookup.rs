//! The lookups: what an image is, by its name, its id, or all of them.

use std::sync::Arc;

use db::rusqlite::{Connection, params};

use super::{Image, Layer, Store, names::stored_name};
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::Error;
use crate::lease::lock;
use crate::manifest::CONFIG_BYTES_MAX;
use crate::reference::{Reference, is_hex_id};
use crate::rows::{self, ImageRow};

/// Parsed configurations kept in memory: what recent containers were made from.
const CONFIGS_MAX: usize = 64;

/// Sizes of an image's layers in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// In layers that other images have too.
    pub shared_bytes: u64,
    /// In layers of this image alone.
    pub unique_bytes: u64,
}

impl Store {
    /// THE image lookup: reference, repository digest, image id, unique prefix of an id.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::Reference`] with Docker's text, [`Error::DamagedConfig`].
    pub fn resolve(&self, name: &str) -> Result<Image, Error> {
        let (id, shown) = self.db().read(|connection| find(connection, name))?;
        let missing = || Error::NoSuchImage(shown);
        let Some(id) = id else { return Err(missing()) };
        let found = self.db().read(|connection| describe(connection, &id))?;
        self.complete(found.ok_or_else(missing)?)
    }

    /// The id of the image that [`Store::resolve`] finds, for callers that need no more of it: a list asks for each
    /// of its lines.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::Reference`] with Docker's text.
    pub fn resolve_id(&self, name: &str) -> Result<Digest, Error> {
        self.db().read(|connection| {
            let (id, shown) = find(connection, name)?;
            match id {
                Some(id) if rows::is_image(connection, &id)? => rows::digest(&id),
                _ => Err(Error::NoSuchImage(shown)),
            }
        })
    }

    /// The image with exactly this id.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`].
    pub fn get(&self, id: &Digest) -> Result<Image, Error> {
        let found = self
            .db()
            .read(|connection| describe(connection, id.as_str()))?;
        self.complete(found.ok_or_else(|| Error::NoSuchImage(id.to_string()))?)
    }

    /// Every image, newest first.
    ///
    /// # Errors
    /// [`Error::Db`].
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        let all = self.db().read::<_, Error>(|connection| {
            let rows = rows::images(connection)?;
            rows.into_iter()
                .map(|row| described(connection, row))
                .collect::<Result<Vec<_>, _>>()
        })?;
        let complete = |parts| match self.complete(parts) {
            // One image that cannot be read does not hide the others.
            Err(error @ Error::DamagedConfig { .. }) => {
                tracing::warn!(%error, "an image is left out of a list");
                None
            }
            other => Some(other),
        };
        all.into_iter().filter_map(complete).collect()
    }

    fn complete(&self, parts: Parts) -> Result<Image, Error> {
        let (row, names, layers) = parts;
        let (repo_digests, references) = names
            .into_iter()
            .partition(|reference| reference.digest().is_some());
        Ok(Image {
            config: self.config(&row.id)?,
            references,
            repo_digests,
            size_bytes: layers.iter().map(|layer| layer.size_bytes).sum(),
            manifest: row.manifest,
            layers,
            parent: row.parent,
            last_tagged_ns: row.last_tagged_ns,
            id: row.id,
        })
    }

    fn config(&self, id: &Digest) -> Result<Arc<ImageConfig>, Error> {
        if let Some(config) = lock(&self.inner.configs).get(id) {
            return Ok(Arc::clone(config));
        }
        let bytes = self.inner.content.read(id, CONFIG_BYTES_MAX);
        let bytes = bytes.map_err(|source| Error::DamagedConfig {
            image: id.clone(),
            source: Box::new(source),
        })?;
        let config = Arc::new(ImageConfig::parse(&bytes)?);
        let mut configs = lock(&self.inner.configs);
        if configs.len() >= CONFIGS_MAX {
            configs.clear();
        }
        configs.insert(id.clone(), Arc::clone(&config));
        Ok(config)
    }

    pub(crate) fn forget_config(&self, id: &Digest) {
        lock(&self.inner.configs).remove(id);
    }

    /// Which bytes of `image` other images share.
    ///
    /// # Errors
    /// [`Error::Db`].
    pub fn sizes(&self, image: &Image) -> Result<Sizes, Error> {
        self.db().read::<_, Error>(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM image_layers WHERE layer = ?1 AND image <> ?2)",
            )?;
            let mut sizes = Sizes::default();
            for layer in &image.layers {
                let key = params![layer.number, image.id.as_str()];
                let is_shared: bool = statement.query_row(key, |row| row.get(0))?;
                if is_shared {
                    sizes.shared_bytes += layer.size_bytes;
                } else {
                    sizes.unique_bytes += layer.size_bytes;
                }
            }
            Ok(sizes)
        })
    }
}

type Parts = (ImageRow, Vec<Reference>, Vec<Layer>);

fn describe(connection: &Connection, id: &str) -> Result<Option<Parts>, Error> {
    rows::image(connection, id)?
        .map(|row| described(connection, row))
        .transpose()
}

fn described(connection: &Connection, row: ImageRow) -> Result<Parts, Error> {
    let names = rows::names(connection, &row.id)?;
    let layers = rows::layers(connection, &row.id)?;
    Ok((row, names, layers))
}

/// Docker's order: 64 hex digits and whole digests are ids only; then names; then prefixes of ids. An
/// ambiguous prefix is as good as none. Answers the id and how to call the image in an error.
pub(crate) fn find(connection: &Connection, name: &str) -> Result<(Option<String>, String), Error> {
    if is_hex_id(name) {
        let id = format!("sha256:{name}");
        return Ok((Some(id.clone()), id));
    }
    if Digest::parse(name).is_ok() {
        return Ok((Some(name.to_owned()), name.to_owned()));
    }
    let reference = Reference::parse(name)?.or_latest();
    let shown = reference.familiar();
    if let Some(id) = rows::by_name(connection, &stored_name(&reference))? {
        return Ok((Some(id), shown));
    }
    Ok((rows::by_prefix(connection, name)?, shown))
}
