//! Unpacking layers: decompress, hash, untar in one pass, then what needs the layers below.
//!
//! Owns how a layer blob becomes a directory. Which directory, and when it becomes visible, is decided by
//! the store: nothing here touches the database.

pub(crate) mod extract;
pub(crate) mod overlay;
pub(crate) mod pax;
pub(crate) mod pipeline;
pub mod reader;
pub(crate) mod second_pass;
pub(crate) mod sparse;

#[cfg(test)]
mod evil_tests;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;

use self::extract::{ExtractError, Extracted};
use self::pipeline::Pipeline;
use self::reader::Tar;
use crate::digest::Digest;

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive or a file.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// The uncompressed archive does not have the digest the image names.
    #[error("expected {expected:?}, got {found:?}", expected = expected.as_str(), found = found.as_str())]
    DiffId {
        /// What the image's configuration says.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
}

/// The mark of work that is never given up half way.
pub(crate) static NEVER: AtomicBool = AtomicBool::new(false);

/// The compressed or plain archive of one layer.
pub(crate) struct Source<'a> {
    pub(crate) input: Box<dyn Read + Send + 'a>,
    /// Digest of the uncompressed archive.
    pub(crate) diff_id: &'a Digest,
    /// The input was hashed already and is the uncompressed archive itself.
    pub(crate) verified: bool,
    /// Set when nobody wants the layer any more.
    pub(crate) stop: &'a AtomicBool,
}

/// First pass: unpacks `source` into the empty directory `root` and verifies its digest.
///
/// # Errors
/// [`UnpackError`]; what was written stays for the caller to remove.
pub(crate) fn first_pass(root: OwnedFd, source: Source<'_>) -> Result<Extracted, UnpackError> {
    let Source {
        input,
        diff_id,
        verified,
        stop,
    } = source;
    std::thread::scope(|scope| {
        let hash = (!verified).then(|| diff_id.algorithm());
        let mut tar = Tar::new(Pipeline::start(scope, input, hash, stop));
        let extracted = extract::extract(&mut tar, root)?;
        let pipeline = tar.finish().map_err(ExtractError::from)?;
        match pipeline.digest() {
            Some(found) if found != *diff_id => Err(UnpackError::DiffId {
                expected: diff_id.clone(),
                found,
            }),
            _ => Ok(extracted),
        }
    })
}
