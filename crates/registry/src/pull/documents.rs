//! The documents of an image: indexes, the manifest for the platform, the configuration.

use std::sync::Arc;

use image::manifest::{self, Manifest, ManifestError, Platform};
use image::{Digest, ImageConfig, Lease, Store};

use super::{Error, Puller, Request, blocking};
use crate::remote::{self, Document, Remote};
use crate::transport;

impl Puller {
    /// Goes from an index to the manifest for the platform.
    pub(super) async fn choose(
        &self,
        lease: &Arc<Lease>,
        remote: &Remote,
        mut document: Document,
        request: &Request,
    ) -> Result<(Digest, Manifest), Error> {
        let platform = request.platform.clone().unwrap_or_else(Platform::host);
        for _ in 0..manifest::INDEX_DEPTH_MAX {
            match parsed(&document)? {
                manifest::Document::Manifest(manifest) => return Ok((document.digest, manifest)),
                manifest::Document::Index(index) => {
                    let chosen = index.choose(&platform)?;
                    let entry = chosen.first().expect("choose answers at least one entry");
                    document = remote.manifest("", Some(&entry.digest)).await?;
                    self.keep(lease, &document).await?;
                }
            }
        }
        Err(remote::Error::MediaType("an index within an index within an index".to_owned()).into())
    }

    /// Stores a manifest or index under its digest.
    pub(super) async fn keep(&self, lease: &Arc<Lease>, document: &Document) -> Result<(), Error> {
        let (store, lease) = (self.store.clone(), Arc::clone(lease));
        let (digest, bytes) = (document.digest.clone(), document.bytes.clone());
        blocking(move || put(&store, &lease, &digest, &bytes)).await
    }

    pub(super) async fn configuration(
        &self,
        lease: &Arc<Lease>,
        remote: &Remote,
        manifest: &Manifest,
    ) -> Result<ImageConfig, Error> {
        let digest = manifest.config.digest.clone();
        let (store, held, wanted) = (self.store.clone(), Arc::clone(lease), digest.clone());
        let known = blocking(move || {
            Ok(match store.lease_blob(&held, &wanted)? {
                // A damaged one is fetched again.
                Some(_) => match store.read_document(&wanted) {
                    Err(image::Error::DigestMismatch { .. }) => None,
                    other => Some(other?),
                },
                None => None,
            })
        })
        .await?;
        let bytes = match known {
            Some(bytes) => bytes,
            None => {
                let blob = remote.blob(&digest, 0).await;
                let blob = blob.map_err(|error| match unknown_blob(error) {
                    Error::UnknownBlob(source) => Error::NoConfiguration(source),
                    other => other,
                })?;
                let bytes = transport::document(blob.body)
                    .await
                    .map_err(remote::Error::from)?;
                let (store, held) = (self.store.clone(), Arc::clone(lease));
                let put = blocking(move || put(&store, &held, &digest, &bytes).map(|()| bytes));
                put.await.map_err(|error| match error {
                    Error::Verification(digest) => Error::ConfigurationDigest(digest),
                    other => other,
                })?
            }
        };
        Ok(ImageConfig::parse(&bytes)?)
    }
}

/// A manifest or index as what it says it is.
pub(super) fn parsed(document: &Document) -> Result<manifest::Document, ManifestError> {
    let served_as = (!document.media_type.is_empty()).then_some(document.media_type.as_str());
    manifest::Document::parse(&document.bytes, served_as)
}

/// A blob that is missing is no missing image.
pub(super) fn unknown_blob(error: remote::Error) -> Error {
    match error {
        remote::Error::NotFound { .. } => Error::UnknownBlob(error),
        other => other.into(),
    }
}

/// Writes a small blob and verifies its digest.
fn put(store: &Store, lease: &Lease, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
    use std::io::Write;
    let mut writer = store.blob_writer(Some(digest))?;
    writer.restart()?;
    let written = writer.write_all(bytes);
    written.map_err(|source| image::Error::Io {
        operation: "write the blob",
        path: digest.as_str().into(),
        source,
    })?;
    let finished = writer.finish().map_err(|error| match error {
        image::Error::DigestMismatch { .. } => Error::Verification(digest.clone()),
        other => other.into(),
    })?;
    store.store_blob(lease, finished)?;
    Ok(())
}
