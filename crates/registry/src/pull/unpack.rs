//! The unpackers of a pull: blocking threads that take each layer when its blob is there.

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use image::manifest::Descriptor;
use image::{Digest, Lease, NewImage, Store};
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Error;
use crate::progress::{Pace, Phase, Progress, Teller};

/// The unpackers at work, seen from the downloads' side. Dropped, it stops them.
#[derive(Debug)]
pub(super) struct Unpacking {
    ready: Option<SyncSender<usize>>,
    stop: Arc<AtomicBool>,
    work: Option<JoinHandle<Result<(), Error>>>,
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Unpacking {
    /// The blob of the layer at `position` is in the store.
    pub(super) fn downloaded(&self, position: usize) -> Result<(), Error> {
        // One place a layer: never full. Closed: an unpacker failed, and `end` tells how.
        let sent = self.ready.as_ref().map(|ready| ready.try_send(position));
        if matches!(sent, Some(Ok(()))) {
            Ok(())
        } else {
            Err(Error::Worker)
        }
    }

    /// Waits for the image to be visible, or for the unpackers to stop when the downloads failed.
    pub(super) async fn end(mut self, downloaded: Result<(), Error>) -> Result<(), Error> {
        if downloaded.is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        self.ready = None;
        let work = self.work.take().ok_or(Error::Worker)?;
        let unpacked = work.await.unwrap_or(Err(Error::Worker));
        match (downloaded, unpacked) {
            // The downloads only heard that an unpacker failed, or the unpackers that the downloads did.
            (Err(Error::Worker), Err(cause)) => Err(cause),
            (Err(cause), _) => Err(cause),
            (Ok(()), unpacked) => unpacked,
        }
    }
}

struct Work {
    store: Store,
    lease: Arc<Lease>,
    layers: Arc<[Descriptor]>,
    image: NewImage,
    progress: Sender<Progress>,
    stop: Arc<AtomicBool>,
}

/// Begins to unpack; answers the positions of the layers that must be downloaded.
pub(super) async fn begin(
    store: Store,
    lease: Arc<Lease>,
    layers: Arc<[Descriptor]>,
    image: NewImage,
    progress: Sender<Progress>,
) -> Result<(Vec<usize>, Unpacking), Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let (ready, queue) = sync_channel(layers.len().max(1));
    let (missing, told) = oneshot::channel();
    let work = Work {
        store,
        lease,
        layers,
        image,
        progress,
        stop: Arc::clone(&stop),
    };
    // Awaited by `Unpacking::end`; without that the flag and the end of the queue stop it.
    let work = tokio::task::spawn_blocking(move || work.run(missing, &Mutex::new(queue)));
    let unpacking = Unpacking {
        ready: Some(ready),
        stop,
        work: Some(work),
    };
    match told.await {
        Ok(missing) => Ok((missing, unpacking)),
        Err(_) => Err(unpacking.end(Ok(())).await.err().unwrap_or(Error::Worker)),
    }
}

impl Work {
    fn run(
        mut self,
        missing: oneshot::Sender<Vec<usize>>,
        queue: &Mutex<Receiver<usize>>,
    ) -> Result<(), Error> {
        let diff_ids: Vec<Digest> = self.image.config.rootfs.diff_ids.clone();
        let lease = Arc::clone(&self.lease);
        let unpacking = self.store.begin_unpack(&lease, &diff_ids)?;
        let unpacking = unpacking.stopped_by(Arc::clone(&self.stop));
        let wanted = unpacking.missing();
        // As dockerd: of an image that is there, nothing is told layer by layer.
        let is_known = match self.store.resolve(self.image.id.as_str()) {
            Ok(_) => true,
            Err(image::Error::NoSuchImage(_) | image::Error::DamagedConfig { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        let told = if is_known { 0 } else { self.layers.len() };
        for position in 0..told {
            let phase = if wanted.contains(&position) {
                Phase::PullingFsLayer
            } else {
                Phase::AlreadyExists
            };
            self.teller(position).tell_blocking(phase)?;
        }
        let count = wanted.len();
        missing.send(wanted).map_err(|_| Error::Worker)?;
        let workers = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(count);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..workers)
                .map(|_| scope.spawn(|| self.unpack_each(queue, &unpacking)))
                .collect();
            let outcomes = workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or(Err(Error::Worker)));
            outcomes
                .collect::<Vec<_>>()
                .into_iter()
                .collect::<Result<(), Error>>()
        })?;
        let numbers = unpacking.finish()?;
        self.commit(numbers)
    }

    fn teller(&self, position: usize) -> Teller {
        Teller::new(self.layers[position].digest.short(), self.progress.clone())
    }

    fn unpack_each(
        &self,
        queue: &Mutex<Receiver<usize>>,
        unpacking: &image::Unpacking<'_>,
    ) -> Result<(), Error> {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(position) = next else { return Ok(()) };
            let outcome = self.unpack(position, unpacking);
            if outcome.is_err() {
                self.stop.store(true, Ordering::Relaxed);
                return outcome;
            }
        }
    }

    fn unpack(&self, position: usize, unpacking: &image::Unpacking<'_>) -> Result<(), Error> {
        let layer = &self.layers[position];
        let teller = self.teller(position);
        let file = self.store.open_blob(&layer.digest)?;
        let input = Input {
            file,
            stop: &self.stop,
            teller: teller.clone(),
            pace: Pace::default(),
            done: 0,
            size: layer.size,
        };
        unpacking.unpack(position, Box::new(input))?;
        Ok(teller.tell_blocking(Phase::PullComplete)?)
    }

    fn commit(&mut self, numbers: Vec<i64>) -> Result<(), Error> {
        let mut layers = Vec::with_capacity(numbers.len());
        for (number, layer) in numbers.into_iter().zip(self.layers.iter()) {
            // A layer that was here before may have come without this blob.
            let blob = self
                .store
                .lease_blob(&self.lease, &layer.digest)?
                .map(|_| layer.digest.clone());
            layers.push((number, blob));
        }
        self.image.layers = layers;
        let blobs = self
            .image
            .layers
            .iter()
            .filter_map(|(_, blob)| blob.as_ref());
        let documents = self.image.manifest.iter().chain([&self.image.id]);
        self.store.sync_blobs(blobs.chain(documents))?;
        sys::fault!("registry.blobs-synced");
        self.store.commit(std::slice::from_ref(&self.image))?;
        Ok(())
    }
}

/// A blob on its way to the unpacker: tells how far it is, and ends when the pull does.
struct Input<'a> {
    file: File,
    stop: &'a AtomicBool,
    teller: Teller,
    pace: Pace,
    done: u64,
    size: u64,
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("the pull was given up"));
        }
        let count = self.file.read(buffer)?;
        self.done += count as u64;
        if count == 0 || self.pace.due() {
            self.teller.update(Phase::Extracting {
                current_bytes: self.done,
                total_bytes: self.size,
            });
        }
        Ok(count)
    }
}
