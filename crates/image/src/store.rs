//! The image store: images, names, holders, and the one lookup.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard};

use db::Db;
use db::rusqlite::{Connection, OptionalExtension, params};
use sys::clock::now_ns;
use sys::file;

use crate::config::ImageConfig;
use crate::content::{self, BlobWriter, Content, Finished};
use crate::digest::Digest;
use crate::error::Error;
use crate::layers::EMPTY_LAYER;
use crate::lease::{Lease, Table, lock};
use crate::manifest::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX};
use crate::reference::{Reference, is_hex_id};
use crate::rows::{self, ImageRow};

/// Parsed configurations kept in memory: what recent containers were made from.
const CONFIGS_MAX: usize = 64;

/// The image store under one data root; clones share it. All calls block.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    db: Db,
    pub(crate) content: Arc<Content>,
    pub(crate) layers: OwnedFd,
    pub(crate) layers_path: PathBuf,
    pub(crate) next_layer: AtomicI64,
    pub(crate) boot_id: String,
    pub(crate) syncing: Mutex<()>,
    leases: Mutex<Table>,
    configs: Mutex<HashMap<Digest, Arc<ImageConfig>>>,
}

/// An image, as it was when it was looked up.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of its configuration.
    pub id: Digest,
    /// Its configuration.
    pub config: Arc<ImageConfig>,
    /// Its names with tags, sorted.
    pub references: Vec<Reference>,
    /// Its names with digests (`RepoDigests`), sorted.
    pub repo_digests: Vec<Reference>,
    /// Size of its unpacked layers in bytes, as Docker counts it.
    pub size_bytes: u64,
    /// The manifest it was pulled with, if any; the bytes are in the content store.
    pub manifest: Option<Digest>,
    /// Its layers, bottom first.
    pub layers: Vec<Layer>,
    /// The image it was built from, if that is known here.
    pub parent: Option<Digest>,
    /// When a name was last given to it, unix nanoseconds; 0: never.
    pub last_tagged_ns: i64,
}

/// One unpacked layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its directory under `layers/`.
    pub number: i64,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Digest over it and all below it.
    pub chain_id: Digest,
    /// Size of its files in bytes, as Docker counts it.
    pub size_bytes: u64,
}

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

/// Sizes of an image's layers in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// In layers that other images have too.
    pub shared_bytes: u64,
    /// In layers of this image alone.
    pub unique_bytes: u64,
}

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

impl Inner {
    pub(crate) fn layer_error(
        &self,
        operation: &'static str,
        number: i64,
        source: io::Error,
    ) -> Error {
        Error::Io {
            operation,
            path: self.layers_path.join(number.to_string()),
            source,
        }
    }

    pub(crate) fn open_layer(&self, number: i64) -> Result<OwnedFd, Error> {
        file::open_directory_at(self.layers.as_fd(), number.to_string().as_bytes())
            .map_err(|source| self.layer_error("open the layer", number, source))
    }

    /// A directory nothing points to; what cannot be removed is tried again at the next start.
    pub(crate) fn remove_layer_directory(&self, number: i64) {
        let name = number.to_string();
        if let Err(error) = file::remove_tree(self.layers.as_fd(), name.as_bytes()) {
            tracing::warn!(number, %error, "a layer's directory stays until the next start");
        }
    }
}

/// What becomes of layers and blobs that the database does not know when a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strays {
    /// They are what a crash left, and go.
    Remove,
    /// The database that knew them may be lost: they stay.
    Keep,
}

impl Store {
    /// Opens or creates the store: removes what a crash left half made, and unpacks again the layers that
    /// an unclean boot may have damaged.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Db`].
    pub fn open(data_root: &Path, db: Db, strays: Strays) -> Result<Self, Error> {
        let layers_path = data_root.join("layers");
        let layers = content::make_directory(&layers_path)?;
        let empty = content::make_directory(&layers_path.join(EMPTY_LAYER.to_string()))?;
        let wrap = |source| Error::Io {
            operation: "open",
            path: layers_path.clone(),
            source,
        };
        file::chmod(empty, 0o755).map_err(wrap)?;
        // Else a layer's files go where those of a removed one were, and ext4 without a journal, which does not
        // take inodes that were freed a moment ago, looks at each of them for each new file.
        if let Err(error) = file::spread_subdirectories(&layers) {
            tracing::debug!(%error, "the file system places the layers as it likes");
        }
        let inner = Inner {
            db,
            content: Content::open(data_root.join("content"))?,
            layers,
            next_layer: AtomicI64::new(EMPTY_LAYER + 1),
            boot_id: boot_id()?,
            syncing: Mutex::default(),
            leases: Mutex::default(),
            configs: Mutex::default(),
            layers_path,
        };
        let store = Self {
            inner: Arc::new(inner),
        };
        store.repair_layers(strays)?;
        match strays {
            Strays::Remove => store.collect_all()?,
            Strays::Keep => {}
        }
        Ok(store)
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    pub(crate) fn db(&self) -> &Db {
        &self.inner.db
    }

    pub(crate) fn leases(&self) -> MutexGuard<'_, Table> {
        lock(&self.inner.leases)
    }

    /// Begins an operation that brings content in.
    pub fn lease(&self) -> Lease {
        Lease::new(self.clone())
    }

    /// Begins to write a blob; with its digest known, where an earlier writer stopped.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn blob_writer(&self, expected: Option<&Digest>) -> Result<BlobWriter, Error> {
        self.inner.content.writer(expected)
    }

    /// Leases the blob and answers its size, if it is in the store.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn lease_blob(&self, lease: &Lease, digest: &Digest) -> Result<Option<u64>, Error> {
        let mut table = self.leases();
        let size = self.inner.content.size(digest)?;
        if size.is_some() {
            lease.add_blob(&mut table, digest);
        }
        Ok(size)
    }

    /// Puts a finished blob into the store under `lease`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn store_blob(&self, lease: &Lease, blob: Finished) -> Result<(), Error> {
        let mut table = self.leases();
        lease.add_blob(&mut table, blob.digest());
        match self.inner.content.size(blob.digest())? {
            Some(size) if size == blob.size_bytes() => Ok(()),
            _ => blob.publish(),
        }
    }

    /// Makes blobs safe against a power cut; to be called before the image that needs them is committed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync_blobs<'a>(&self, blobs: impl Iterator<Item = &'a Digest>) -> Result<(), Error> {
        self.inner.content.sync(blobs)
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open_blob(&self, digest: &Digest) -> Result<std::fs::File, Error> {
        self.inner.content.open_blob(digest)
    }

    /// Reads a manifest or configuration and verifies it.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::DigestMismatch`].
    pub fn read_document(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        self.inner
            .content
            .read(digest, MANIFEST_BYTES_MAX.max(CONFIG_BYTES_MAX))
    }

    /// THE image lookup: reference, repository digest, image id, unique prefix of an id.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::Reference`] with Docker's text.
    pub fn resolve(&self, name: &str) -> Result<Image, Error> {
        let (id, shown) = self.db().read(|connection| find(connection, name))?;
        let missing = || Error::NoSuchImage(shown);
        let Some(id) = id else { return Err(missing()) };
        let found = self.db().read(|connection| describe(connection, &id))?;
        self.complete(found.ok_or_else(missing)?)
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
        all.into_iter().map(|parts| self.complete(parts)).collect()
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
        let bytes = self.inner.content.read(id, CONFIG_BYTES_MAX)?;
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

    /// Makes images visible and gives them their names, all or none. Safe against a power cut when this
    /// returns, if [`Store::sync_blobs`] was called before. Answers the names that other images lost.
    ///
    /// # Errors
    /// [`Error::Db`].
    pub fn commit(&self, images: &[NewImage]) -> Result<Vec<Moved>, Error> {
        let now = now_ns();
        let moved = self.db().write_synced::<_, Error>(|tx| {
            let mut moved = Vec::new();
            for image in images {
                insert_image(tx, image)?;
                for name in &image.names {
                    moved.extend(set_name(tx, &image.id, name, now)?);
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
            set_name(tx, image, &reference, now_ns())
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

    /// Holds `image` for `holder` (a container's id): its layers stay until [`Store::release`]. Holding again
    /// replaces the earlier hold.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`].
    pub fn hold(&self, image: &Digest, holder: &str) -> Result<Held, Error> {
        let stack = self.db().write::<_, Error>(|tx| {
            if rows::image(tx, image.as_str())?.is_none() {
                return Err(Error::NoSuchImage(image.to_string()));
            }
            let top = rows::top_layer(tx, image)?;
            tx.prepare_cached(
                "INSERT INTO image_holders (holder, image, top) VALUES (?1, ?2, ?3)
                 ON CONFLICT (holder) DO UPDATE SET image = excluded.image, top = excluded.top",
            )?
            .execute(params![holder, image.as_str(), top])?;
            rows::stack(tx, top)
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
    now: i64,
) -> Result<Option<Moved>, Error> {
    let name = stored_name(reference);
    let before = rows::by_name(connection, &name)?;
    connection.execute(
        "INSERT INTO image_names (reference, image) VALUES (?1, ?2)
         ON CONFLICT (reference) DO UPDATE SET image = excluded.image",
        params![name, image.as_str()],
    )?;
    let sql = "UPDATE images SET last_tagged_ns = ?2 WHERE id = ?1";
    connection.execute(sql, params![image.as_str(), now])?;
    match before {
        Some(from) if from != image.as_str() => Ok(Some(Moved {
            reference: reference.clone(),
            from: rows::digest(&from)?,
        })),
        _ => Ok(None),
    }
}

/// Changes at each boot of the machine.
fn boot_id() -> Result<String, Error> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(path);
    let wrap = |source| Error::Io {
        operation: "read",
        path: path.to_owned(),
        source,
    };
    Ok(text.map_err(wrap)?.trim().to_owned())
}
