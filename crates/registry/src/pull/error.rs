//! Why a pull fails, in Docker's words.

use image::Digest;
use image::manifest::ManifestError;

use crate::progress::Gone;
use crate::remote;

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry has no such image; the text is Docker's.
    #[error("manifest for {reference} not found: {source}")]
    NotFound {
        /// As the user wrote it.
        reference: String,
        /// The registry's words.
        #[source]
        source: remote::Error,
    },
    /// The registry does not let us; the text is Docker's.
    #[error(
        "pull access denied for {name}, repository does not exist or may require 'docker login': {source}"
    )]
    Denied {
        /// The repository as the user wrote it.
        name: String,
        /// The registry's words.
        #[source]
        source: remote::Error,
    },
    /// The registry failed.
    #[error(transparent)]
    Remote(#[from] remote::Error),
    /// The registry has no such repository; the text is Docker's.
    #[error("repository {name} not found: {source}")]
    NoRepository {
        /// The repository as the user wrote it.
        name: String,
        /// The registry's words.
        #[source]
        source: remote::Error,
    },
    /// Nothing answers there.
    #[error("Get \"{url}\": {why}")]
    Unreachable {
        /// What was asked for in the last try.
        url: String,
        /// In Go's words where they are known.
        why: String,
        /// What happened.
        #[source]
        source: Box<remote::Error>,
    },
    /// The registry does not accept the credentials; the text is Docker's.
    #[error("Get \"{url}\": {source}")]
    LoginRefused {
        /// What was asked for.
        url: String,
        /// The registry's words.
        #[source]
        source: remote::Error,
    },
    /// The token server does not accept the credentials of a pull; the text is Docker's.
    #[error("Head \"{url}\": {source}")]
    TokenRefused {
        /// The manifest that was asked for.
        url: String,
        /// The server's words.
        #[source]
        source: remote::Error,
    },
    /// A login that came through and was refused all the same; the text is Docker's.
    #[error("login attempt to {url} failed with status: 401 Unauthorized")]
    LoginFailed {
        /// What was asked for.
        url: String,
        /// The registry's words.
        #[source]
        source: remote::Error,
    },
    /// The manifest or index is malformed, or there is none for this machine.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest and its configuration contradict each other.
    #[error(
        "invalid rootfs in image configuration: {layers} layers in the manifest, {diff_ids} in the configuration"
    )]
    RootFs {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// The image is for another system.
    #[error("image operating system {0:?} cannot be used on this platform")]
    OperatingSystem(String),
    /// The configuration is not to be had, or not what its digest names; the text is Docker's.
    #[error("error pulling image configuration: {0}")]
    Configuration(Box<Error>),
    /// As [`Error::UnknownBlob`], of a configuration.
    #[error("download failed after attempts=1: unknown blob")]
    NoConfiguration(#[source] remote::Error),
    /// As [`Error::Verification`], of a configuration.
    #[error("image config verification failed for digest {0}")]
    ConfigurationDigest(Digest),
    /// The registry has no such blob, though its manifest names it; the text is Docker's.
    #[error("unknown blob")]
    UnknownBlob(#[source] remote::Error),
    /// A blob is not what its digest names, or longer than announced.
    #[error("filesystem layer verification failed for digest {0}")]
    Verification(Digest),
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] image::Error),
    /// The client left.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// A thread of ours panicked; the pull is over, the daemon is not.
    #[error("the pull stopped: a worker failed")]
    Worker,
}
