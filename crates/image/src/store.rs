//! The image store: what is in it and how it is opened; lookups, names and holders are beside.

mod holders;
mod lookup;
mod names;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard};

use db::Db;
use sys::file;

use crate::config::ImageConfig;
use crate::content::{self, BlobWriter, Content, Finished};
use crate::digest::Digest;
use crate::error::Error;
use crate::layers::EMPTY_LAYER;
use crate::lease::{Lease, Table, lock};
use crate::manifest::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX};
use crate::reference::Reference;

pub use self::holders::Held;
pub use self::lookup::Sizes;
pub(crate) use self::lookup::find;
pub(crate) use self::names::stored_name;
pub use self::names::{Moved, NewImage};

/// The largest manifest or configuration, in bytes.
const DOCUMENT_BYTES_MAX: u64 = if MANIFEST_BYTES_MAX > CONFIG_BYTES_MAX {
    MANIFEST_BYTES_MAX
} else {
    CONFIG_BYTES_MAX
};

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
        let content = &self.inner.content;
        // A small one is looked at: what stands there may have been damaged by a power cut.
        if blob.size_bytes() <= DOCUMENT_BYTES_MAX {
            content.remove_if_damaged(blob.digest())?;
        }
        match content.size(blob.digest())? {
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
        self.inner.content.read(digest, DOCUMENT_BYTES_MAX)
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
