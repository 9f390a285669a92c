//! What can go wrong with images, and which class of answer each error is.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::manifest::ManifestError;
use crate::reference::ReferenceError;
use crate::unpack::UnpackError;
use crate::unpack::extract::ExtractError;

/// The class of an [`Error`], for the layer that chooses a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such image.
    NotFound,
    /// The caller's input: a reference, an archive, a manifest.
    Invalid,
    /// The image is in use.
    Conflict,
    /// Disk, database, or a damaged store.
    Internal,
}

/// An operation on images failed; `Display` is the text for the client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reference does not parse.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Nothing in the store has this name or id.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// Something still needs the image; the text is Docker's.
    #[error("conflict: {0}")]
    Conflict(String),
    /// The archive, manifest or configuration is malformed.
    #[error("{0}")]
    Invalid(String),
    /// Content does not have the digest it claims.
    #[error("unexpected digest of {what}: expected {expected}, got {found}")]
    DigestMismatch {
        /// Which content.
        what: String,
        /// What it claims.
        expected: Digest,
        /// What it has.
        found: Digest,
    },
    /// A layer of the image is malformed or does not have its digest.
    #[error("{}", layer_text(*position, source))]
    Layer {
        /// Its position, from the bottom, 0 first.
        position: usize,
        /// What is wrong.
        #[source]
        source: UnpackError,
    },
    /// A layer was never unpacked.
    #[error("layer {position} of the image is missing")]
    Missing {
        /// Its position, from the bottom, 0 first.
        position: usize,
    },
    /// A manifest is malformed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The store contradicts itself.
    #[error("the image store is damaged: {0}")]
    Damaged(String),
    /// A layer that the image needs was damaged by a power cut and could not be unpacked again.
    #[error(
        "layer {layer} of image {image} was damaged when the machine went down: pull or load the image again"
    )]
    DamagedLayer {
        /// Digest of the uncompressed layer.
        layer: Digest,
        /// The image's id.
        image: Digest,
    },
    /// The configuration of an image is missing or not what its digest names.
    #[error("the configuration of image {image} is damaged: pull or load the image again")]
    DamagedConfig {
        /// The image's id.
        image: Digest,
        /// What reading it gave.
        #[source]
        source: Box<Error>,
    },
    /// A file operation failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was being done: "write the blob".
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// The caller's stream failed while it was read.
    #[error("read the archive: {0}")]
    Read(#[source] io::Error),
    /// Nobody wants what was being done any more.
    #[error("the client left before the end")]
    GivenUp,
    /// The state database.
    #[error("the image tables")]
    Db(#[from] db::Error),
}

impl Error {
    /// The class of the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchImage(_) => ErrorKind::NotFound,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::Reference(_)
            | Self::Invalid(_)
            | Self::DigestMismatch { .. }
            | Self::Missing { .. }
            | Self::Manifest(_)
            | Self::GivenUp
            | Self::Read(_) => ErrorKind::Invalid,
            Self::Layer { source, .. } => match source {
                UnpackError::Extract(ExtractError::File { .. }) => ErrorKind::Internal,
                UnpackError::Extract(_) | UnpackError::DiffId { .. } => ErrorKind::Invalid,
            },
            Self::Damaged(_)
            | Self::DamagedLayer { .. }
            | Self::DamagedConfig { .. }
            | Self::Io { .. }
            | Self::Db(_) => ErrorKind::Internal,
        }
    }
}

/// A wrong digest in Docker's words, anything else in its own.
fn layer_text(position: usize, source: &UnpackError) -> String {
    match source {
        UnpackError::DiffId { .. } => format!("invalid diffID for layer {position}: {source}"),
        UnpackError::Extract(_) => format!("failed to register layer: {source}"),
    }
}

impl From<db::rusqlite::Error> for Error {
    fn from(source: db::rusqlite::Error) -> Self {
        Self::Db(db::Error::Statement(source))
    }
}
