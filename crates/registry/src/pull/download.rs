//! The downloads of a pull: three at a time, each resumed where it broke off.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use image::manifest::Descriptor;
use image::{BlobWriter, Lease, Store};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, Sender};
use tokio::task::JoinSet;

use super::unpack::Unpacking;
use super::{Error, blocking};
use crate::progress::{Gone, Pace, Phase, Progress, Teller};
use crate::remote::{self, Remote};
use crate::transport;

/// Docker's default (`--max-concurrent-downloads`).
const DOWNLOADS_MAX: usize = 3;

/// Docker's default (`--max-download-attempts`).
const ATTEMPTS: u64 = 5;

/// The pause grows by this with each try, as Docker's.
const RETRY_STEP_S: u64 = 5;

/// A registry that wants a longer pause (`Retry-After`) gets this one: somebody waits for the pull.
const RETRY_AFTER_MAX_S: u64 = 60;

/// The countdown's step.
const SECOND: Duration = Duration::from_secs(1);

/// Pieces on their way from the connection to the disk: bounds the memory of one download (a piece is at most
/// what hyper reads at once, some hundred KiB).
const PIECES_AHEAD: usize = 8;

/// What the downloads of one pull share.
#[derive(Clone, Debug)]
pub(super) struct Downloads {
    pub(super) store: Store,
    pub(super) lease: Arc<Lease>,
    pub(super) remote: Arc<Remote>,
    pub(super) layers: Arc<[Descriptor]>,
    pub(super) progress: Sender<Progress>,
}

impl Downloads {
    /// Downloads the layers at `missing` and hands each to the unpackers. Ends at the first failure.
    pub(super) async fn run(self, missing: Vec<usize>, unpacking: &Unpacking) -> Result<(), Error> {
        let places = Arc::new(Semaphore::new(DOWNLOADS_MAX));
        let mut tasks = JoinSet::new();
        for (order, position) in missing.into_iter().enumerate() {
            let teller = Teller::new(self.layers[position].digest.short(), self.progress.clone());
            if order >= DOWNLOADS_MAX {
                teller.tell(Phase::Waiting).await?;
            }
            let (this, places) = (self.clone(), Arc::clone(&places));
            // A task of this set, which aborts them all when it is dropped.
            tasks.spawn(async move {
                let _place = places.acquire_owned().await.map_err(|_| Error::Worker)?;
                this.layer(position, &teller).await.map(|()| position)
            });
        }
        while let Some(done) = tasks.join_next().await {
            unpacking.downloaded(done.unwrap_or(Err(Error::Worker))?)?;
        }
        Ok(())
    }

    async fn layer(&self, position: usize, teller: &Teller) -> Result<(), Error> {
        let layer = &self.layers[position];
        let (store, lease, digest) = (
            self.store.clone(),
            Arc::clone(&self.lease),
            layer.digest.clone(),
        );
        if blocking(move || Ok(store.lease_blob(&lease, &digest)?))
            .await?
            .is_some()
        {
            return Ok(teller.tell(Phase::DownloadComplete).await?);
        }
        let (store, digest) = (self.store.clone(), layer.digest.clone());
        let mut writer = blocking(move || Ok(store.blob_writer(Some(&digest))?)).await?;
        if writer.offset_bytes() > layer.size {
            writer.restart()?;
        }
        let mut attempt = 1;
        // What an earlier pull left whole, killed before its last step, is only to be verified.
        while writer.offset_bytes() < layer.size {
            let (back, outcome) = self.attempt(layer, writer, teller).await?;
            writer = back;
            match outcome {
                Ok(()) => break,
                Err(error) if error.is_passing() && attempt < ATTEMPTS => {
                    tracing::info!(digest = %layer.digest, attempt, %error, "a download is tried again");
                    let asked = error.retry_after_s();
                    let seconds = asked.map_or(attempt * RETRY_STEP_S, |asked| {
                        asked.clamp(1, RETRY_AFTER_MAX_S)
                    });
                    pause(seconds, teller).await?;
                    attempt += 1;
                }
                Err(error) => return Err(super::documents::unknown_blob(error)),
            }
        }
        sys::fault!("registry.blob-downloaded");
        teller.tell(Phase::VerifyingChecksum).await?;
        let (store, lease, digest) = (
            self.store.clone(),
            Arc::clone(&self.lease),
            layer.digest.clone(),
        );
        blocking(move || {
            let finished = writer.finish().map_err(|error| match error {
                image::Error::DigestMismatch { .. } => Error::Verification(digest),
                other => other.into(),
            })?;
            store.store_blob(&lease, finished)?;
            sys::fault!("registry.blob-stored");
            Ok(())
        })
        .await?;
        Ok(teller.tell(Phase::DownloadComplete).await?)
    }

    /// One try, from where the last one stopped. The writer comes back in any case.
    async fn attempt(
        &self,
        layer: &Descriptor,
        mut writer: BlobWriter,
        teller: &Teller,
    ) -> Result<(BlobWriter, Result<(), remote::Error>), Error> {
        let blob = match self.remote.blob(&layer.digest, writer.offset_bytes()).await {
            Ok(blob) => blob,
            Err(remote::Error::Range) => {
                writer.restart()?;
                match self.remote.blob(&layer.digest, 0).await {
                    Ok(blob) => blob,
                    Err(error) => return Ok((writer, Err(error))),
                }
            }
            Err(error) => return Ok((writer, Err(error))),
        };
        if blob.offset != writer.offset_bytes() {
            writer.restart()?;
        }
        let (pieces, received) = mpsc::channel(PIECES_AHEAD);
        let digest = layer.digest.clone();
        // It ends with the sender, which goes with this future, and is awaited below.
        let writing = tokio::task::spawn_blocking(move || write(writer, received, &digest));
        let outcome = forward(blob.body, blob.offset, layer.size, &pieces, teller).await;
        drop(pieces);
        let writer = writing.await.map_err(|_| Error::Worker)??;
        match outcome? {
            Ok(total) if total > layer.size => Err(Error::Verification(layer.digest.clone())),
            Ok(total) if total < layer.size => {
                let short = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                tracing::debug!(digest = %layer.digest, total, size = layer.size, %short, "short body");
                Ok((
                    writer,
                    Err(remote::Error::Transport(transport::Error::Short)),
                ))
            }
            Ok(_) => Ok((writer, Ok(()))),
            Err(error) => Ok((writer, Err(error.into()))),
        }
    }
}

/// Passes the body on to the writer and answers how much of the blob there is now. The outer error ends the pull.
async fn forward(
    mut body: transport::Body,
    offset: u64,
    size: u64,
    pieces: &Sender<Bytes>,
    teller: &Teller,
) -> Result<Result<u64, transport::Error>, Gone> {
    let mut pace = Pace::default();
    let mut total = offset;
    loop {
        match body.chunk().await {
            Ok(None) => return Ok(Ok(total)),
            Err(error) => return Ok(Err(error)),
            Ok(Some(piece)) => {
                total += piece.len() as u64;
                if teller.is_gone() {
                    return Err(Gone);
                }
                if pace.due() {
                    teller.update(Phase::Downloading {
                        current_bytes: total,
                        total_bytes: size,
                    });
                }
                // A closed channel: the writer failed and says so itself. More than announced is never written.
                if total > size || pieces.send(piece).await.is_err() {
                    return Ok(Ok(total));
                }
            }
        }
    }
}

fn write(
    mut writer: BlobWriter,
    mut received: mpsc::Receiver<Bytes>,
    digest: &image::Digest,
) -> Result<BlobWriter, Error> {
    while let Some(piece) = received.blocking_recv() {
        writer
            .write_all(&piece)
            .map_err(|source| image::Error::Io {
                operation: "write the blob",
                path: digest.as_str().into(),
                source,
            })?;
    }
    Ok(writer)
}

async fn pause(seconds: u64, teller: &Teller) -> Result<(), Gone> {
    for left in (1..=seconds).rev() {
        teller.tell(Phase::Retrying { seconds: left }).await?;
        tokio::time::sleep(SECOND).await;
    }
    Ok(())
}
