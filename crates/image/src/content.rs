//! The content store: blobs exactly as they came, under their digest, written once.
//!
//! ```text
//! content/sha256/<hex>       a verified blob; never changed, readable by root alone
//! content/sha512/<hex>
//! content/ingest/<name>      being written; "<algorithm>-<hex>.part" may be resumed
//! ```
//!
//! A blob gets its name only after its bytes have been hashed: what lies under a digest has that digest.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sys::file;

use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::Error;
use crate::room::Guard;

/// Bytes after which the kernel is asked to begin writing them out, so that the sync at the end is short.
const WRITE_BACK_BYTES: u64 = 8 * 1024 * 1024;
/// How long the beginning of a download that broke off is kept for resuming.
const PARTIAL_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Buffer for hashing what a partial download left, in bytes.
const HASH_BUFFER_BYTES: usize = 1024 * 1024;

/// The directories of the content store.
#[derive(Debug)]
pub(crate) struct Content {
    path: PathBuf,
    sha256: OwnedFd,
    sha512: OwnedFd,
    ingest: OwnedFd,
    /// Ingest files that a writer of this process has open.
    active: Mutex<HashSet<String>>,
}

impl Content {
    pub(crate) fn open(path: PathBuf) -> Result<Arc<Self>, Error> {
        let directory = |name: &str| make_directory(&path.join(name));
        let content = Self {
            sha256: directory("sha256")?,
            sha512: directory("sha512")?,
            ingest: directory("ingest")?,
            path,
            active: Mutex::default(),
        };
        content.clean_ingest()?;
        Ok(Arc::new(content))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn error(&self, operation: &'static str, source: io::Error) -> Error {
        Error::Io {
            operation,
            path: self.path.clone(),
            source,
        }
    }

    /// Removes what a crash left, except beginnings of downloads that may still be resumed.
    fn clean_ingest(&self) -> Result<(), Error> {
        let wrap = |source| self.error("clean the content store", source);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        for name in file::names_in(self.ingest.as_fd()).map_err(wrap)? {
            let stat = file::stat_at(self.ingest.as_fd(), &name).map_err(wrap)?;
            let modified = u64::try_from(stat.modified.seconds).unwrap_or(0);
            let age = now.saturating_sub(Duration::from_secs(modified));
            if !name.ends_with(b".part") || age > PARTIAL_AGE_MAX {
                file::remove_tree(self.ingest.as_fd(), &name).map_err(wrap)?;
            }
        }
        Ok(())
    }

    fn of(&self, digest: &Digest) -> &OwnedFd {
        match digest.algorithm() {
            Algorithm::Sha256 => &self.sha256,
            Algorithm::Sha512 => &self.sha512,
        }
    }

    /// Size of a blob in bytes, if it is there.
    pub(crate) fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        match file::stat_at(self.of(digest).as_fd(), digest.hex().as_bytes()) {
            Ok(stat) => Ok(Some(stat.size_bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error("look for a blob in", error)),
        }
    }

    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<File, Error> {
        file::open_file_at(self.of(digest).as_fd(), digest.hex().as_bytes())
            .map_err(|source| self.blob_error("open the blob", digest, source))
    }

    fn blob_error(&self, operation: &'static str, digest: &Digest, source: io::Error) -> Error {
        let path = self.path.join(digest.algorithm().name()).join(digest.hex());
        Error::Io {
            operation,
            path,
            source,
        }
    }

    /// Reads a small blob and verifies it.
    pub(crate) fn read(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        let name = digest.hex().as_bytes();
        let bytes = file::read_bounded(self.of(digest).as_fd(), name, limit_bytes)
            .map_err(|source| self.blob_error("read the blob", digest, source))?;
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        let found = hasher.finish();
        if found != *digest {
            tracing::warn!(%digest, "a damaged blob is removed");
            self.remove(digest)?;
            let what = "a stored blob".to_owned();
            return Err(Error::DigestMismatch {
                what,
                expected: digest.clone(),
                found,
            });
        }
        Ok(bytes)
    }

    pub(crate) fn remove(&self, digest: &Digest) -> Result<(), Error> {
        match file::unlink_at(self.of(digest).as_fd(), digest.hex().as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.blob_error("remove the blob", digest, error))
            }
            _ => Ok(()),
        }
    }

    /// Hashes a blob once more, and removes it when it is not what its name says (or cannot be read): it is fetched
    /// again where somebody needs it.
    pub(crate) fn remove_if_damaged(&self, digest: &Digest) -> Result<(), Error> {
        if self.size(digest)?.is_none() {
            return Ok(());
        }
        let mut hasher = Hasher::new(digest.algorithm());
        let hashed = self
            .open_blob(digest)
            .and_then(|blob| {
                hash(blob, &mut hasher)
                    .map_err(|source| self.blob_error("read the blob", digest, source))
            })
            .map(|_| hasher.finish());
        match hashed {
            Ok(found) if found == *digest => return Ok(()),
            Ok(_) => tracing::warn!(%digest, "a damaged blob is removed"),
            Err(error) => tracing::warn!(%digest, %error, "a blob that cannot be read is removed"),
        }
        self.remove(digest)
    }

    /// Every blob there is.
    pub(crate) fn list(&self) -> Result<Vec<Digest>, Error> {
        let mut list = Vec::new();
        for (algorithm, directory) in [("sha256", &self.sha256), ("sha512", &self.sha512)] {
            let names = file::names_in(directory.as_fd())
                .map_err(|source| self.error("list the content store", source))?;
            for name in names {
                let text = format!("{algorithm}:{}", String::from_utf8_lossy(&name));
                match Digest::parse(&text) {
                    Ok(digest) => list.push(digest),
                    Err(_) => tracing::warn!(name = %text, "no blob, left alone"),
                }
            }
        }
        Ok(list)
    }

    /// Makes blobs and their names safe against a power cut.
    pub(crate) fn sync<'a>(&self, blobs: impl Iterator<Item = &'a Digest>) -> Result<(), Error> {
        for digest in blobs {
            let blob = self.open_blob(digest)?;
            blob.sync_data()
                .map_err(|source| self.blob_error("sync the blob", digest, source))?;
        }
        for directory in [&self.sha256, &self.sha512] {
            file::sync(directory).map_err(|source| self.error("sync the content store", source))?;
        }
        sys::fault!("image.blobs-synced");
        Ok(())
    }

    /// Begins a blob. With its digest known it may resume what an earlier writer left.
    pub(crate) fn writer(self: &Arc<Self>, expected: Option<&Digest>) -> Result<BlobWriter, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        let resumable =
            expected.map(|digest| format!("{}-{}.part", digest.algorithm().name(), digest.hex()));
        let name = match resumable {
            Some(name) if !active.contains(&name) => name,
            _ => format!("{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        };
        active.insert(name.clone());
        drop(active);
        // From here on the name is ours, and nobody waits while what is there is hashed.
        let mut ingest = Ingest {
            content: Arc::clone(self),
            name,
            keep: true,
        };
        let name = &ingest.name;
        let wrap = |source| self.error("begin a blob in", source);
        let directory = self.ingest.as_fd();
        let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
        let mut hasher = Hasher::new(algorithm);
        let (made, offset) = match file::create_file_at(directory, name.as_bytes(), 0o600) {
            Ok(made) => (made, 0),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let offset = self.hash_partial(name, &mut hasher)?;
                let mut made = file::open_for_write_at(directory, name.as_bytes()).map_err(wrap)?;
                made.seek(SeekFrom::Start(offset)).map_err(wrap)?;
                (made, offset)
            }
            Err(error) => return Err(wrap(error)),
        };
        ingest.keep = expected.is_some();
        Ok(BlobWriter {
            content: Arc::clone(self),
            ingest,
            file: made,
            hasher,
            offset,
            written_back: offset,
            room: Guard::default(),
            expected: expected.cloned(),
        })
    }

    fn hash_partial(&self, name: &str, hasher: &mut Hasher) -> Result<u64, Error> {
        file::open_file_at(self.ingest.as_fd(), name.as_bytes())
            .and_then(|partial| hash(partial, hasher))
            .map_err(|source| self.error("read a partial blob in", source))
    }
}

/// Hashes what is left of a file and answers how much that was.
fn hash(mut file: File, hasher: &mut Hasher) -> io::Result<u64> {
    let mut buffer = vec![0; HASH_BUFFER_BYTES];
    let mut offset = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(offset),
            Ok(length) => {
                hasher.update(&buffer[..length]);
                offset += u64::try_from(length).expect("usize fits u64");
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Creates a directory nobody else can read, if it is missing, and opens it.
pub(crate) fn make_directory(path: &Path) -> Result<OwnedFd, Error> {
    let wrap = |source| Error::Io {
        operation: "open",
        path: path.to_owned(),
        source,
    };
    std::fs::create_dir_all(path).map_err(wrap)?;
    let directory = file::open_directory(path).map_err(wrap)?;
    file::chmod(&directory, 0o700).map_err(wrap)?;
    Ok(directory)
}

/// An ingest file; removed when dropped unless it is to be kept for resuming.
#[derive(Debug)]
struct Ingest {
    content: Arc<Content>,
    name: String,
    keep: bool,
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.keep {
            let directory = self.content.ingest.as_fd();
            match file::unlink_at(directory, self.name.as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(name = self.name, %error, "an ingest file stays until the next start");
                }
                _ => {}
            }
        }
        let mut active = self
            .content
            .active
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        active.remove(&self.name);
    }
}

/// Writes one blob and hashes it on the way. Dropped before [`BlobWriter::finish`], it leaves nothing, or
/// the beginning of a download whose digest is known.
#[derive(Debug)]
pub struct BlobWriter {
    content: Arc<Content>,
    ingest: Ingest,
    file: File,
    hasher: Hasher,
    offset: u64,
    written_back: u64,
    room: Guard,
    expected: Option<Digest>,
}

impl BlobWriter {
    /// Bytes there are already: where a download goes on.
    #[must_use]
    pub fn offset_bytes(&self) -> u64 {
        self.offset
    }

    /// Throws away what there is and begins anew: the server does not resume.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn restart(&mut self) -> Result<(), Error> {
        let wrap = |source| self.content.error("truncate a blob in", source);
        self.file.set_len(0).map_err(wrap)?;
        self.file.seek(SeekFrom::Start(0)).map_err(wrap)?;
        let algorithm = self
            .expected
            .as_ref()
            .map_or(Algorithm::Sha256, Digest::algorithm);
        self.hasher = Hasher::new(algorithm);
        self.offset = 0;
        self.written_back = 0;
        Ok(())
    }

    /// Ends the blob and compares its digest with the expected one.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`]; nothing is left then.
    pub fn finish(mut self) -> Result<Finished, Error> {
        self.ingest.keep = false;
        let digest = self.hasher.finish();
        if let Some(expected) = self.expected
            && expected != digest
        {
            let what = "the blob".to_owned();
            return Err(Error::DigestMismatch {
                what,
                expected,
                found: digest,
            });
        }
        Ok(Finished {
            content: self.content,
            ingest: self.ingest,
            digest,
            size_bytes: self.offset,
        })
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = u64::try_from(bytes.len()).expect("usize fits u64");
        let written = self
            .room
            .wrote(&self.file, count)
            .and_then(|()| self.file.write(bytes));
        let length = match written {
            Ok(length) => length,
            Err(error) => {
                // A full disk gets its space back; the download begins anew another time.
                if error.kind() == io::ErrorKind::StorageFull {
                    self.ingest.keep = false;
                }
                return Err(error);
            }
        };
        self.hasher.update(&bytes[..length]);
        self.offset += u64::try_from(length).expect("usize fits u64");
        let behind = self.offset - self.written_back;
        if behind >= WRITE_BACK_BYTES {
            if let Err(error) = file::begin_write_back(&self.file, self.written_back, behind) {
                tracing::trace!(%error, "no early write-back here");
            }
            self.written_back = self.offset;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A whole blob with a known digest that has no name in the store yet.
#[derive(Debug)]
pub struct Finished {
    content: Arc<Content>,
    ingest: Ingest,
    digest: Digest,
    size_bytes: u64,
}

impl Finished {
    /// Its digest.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Reads it, up to a limit.
    pub(crate) fn read(&self, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        let directory = self.content.ingest.as_fd();
        file::read_bounded(directory, self.ingest.name.as_bytes(), limit_bytes)
            .map_err(|source| self.content.error("read a new blob in", source))
    }

    /// Gives the blob its name. The caller holds a lease on it.
    pub(crate) fn publish(self) -> Result<(), Error> {
        let to = self.content.of(&self.digest).as_fd();
        let from = self.content.ingest.as_fd();
        let name = self.digest.hex().as_bytes();
        file::rename_at(from, self.ingest.name.as_bytes(), to, name).map_err(|source| {
            self.content
                .blob_error("store the blob", &self.digest, source)
        })?;
        sys::fault!("image.blob-stored");
        Ok(())
    }
}
