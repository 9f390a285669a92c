//! `docker load`: docker-archive and OCI layout tars into the store.
//!
//! The archive is read once: each file goes into the content store's ingest directory and is hashed on the
//! way. What it all means is decided when everything is there ([`archive`](super::archive)); then blobs get
//! their names, layers are unpacked side by side, and one transaction makes every image visible.

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::archive::{self, Archive, Plan};
use crate::digest::Digest;
use crate::error::Error;
use crate::layers::Unpacking;
use crate::lease::{Lease, lock};
use crate::reference::Reference;
use crate::store::{NewImage, Store};

/// Time between two progress events of one layer.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Progress events that wait for the caller; more of them are dropped.
const PROGRESS_AHEAD: usize = 64;

/// Layers unpacked at once per core: one waits for the disk or for its inflating thread while another works.
const UNPACKERS_PER_CORE: usize = 2;

/// What happens while an archive is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadProgress {
    /// A layer that was not there before is being stored and unpacked.
    Layer {
        /// Twelve hex digits of its diff id, as Docker shows it.
        id: String,
        /// Bytes done.
        current_bytes: u64,
        /// Bytes in all.
        total_bytes: u64,
    },
    /// A tag moved away from another image, which has become dangling.
    Renamed {
        /// The reference that moved.
        reference: Reference,
        /// The image that lost it.
        from: Digest,
    },
    /// An image became visible; one per reference (or one without).
    Loaded(Loaded),
}

/// An image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: Digest,
    /// The name it was given; `None`: `Loaded image ID: …`.
    pub reference: Option<Reference>,
}

impl Store {
    /// Loads every image of an archive: docker-archive or OCI layout, plain or compressed. Blocks; a failure
    /// leaves nothing visible. Names move last.
    ///
    /// # Errors
    /// [`Error::Invalid`] with Docker's text for a malformed archive, [`Error::DigestMismatch`],
    /// [`Error::Read`] from the stream, [`Error::Io`] from the disk.
    pub fn load(
        &self,
        archive: &mut (dyn Read + Send),
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Vec<Loaded>, Error> {
        self.load_while(&|| true, archive, progress)
    }

    /// As [`Store::load`], as long as somebody wants it; what it has made by then is garbage. Once the names move it
    /// goes to its end.
    ///
    /// # Errors
    /// As [`Store::load`], and [`Error::GivenUp`].
    pub fn load_while(
        &self,
        wanted: Wanted<'_>,
        archive: &mut (dyn Read + Send),
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Vec<Loaded>, Error> {
        let mut archive = Archive::read(self, archive)?;
        let plans = archive::plan(&mut archive)?;
        let lease = self.lease();
        for plan in &plans {
            for path in plan.files() {
                go_on(wanted)?;
                if let Some(blob) = archive.take(path) {
                    self.store_blob(&lease, blob)?;
                }
            }
        }
        drop(archive);
        let images = self.unpack_plans(&lease, &plans, wanted, progress)?;
        go_on(wanted)?;
        let moved = self.commit(&images)?;
        for moved in moved {
            progress(LoadProgress::Renamed {
                reference: moved.reference,
                from: moved.from,
            });
        }
        let mut loaded = Vec::new();
        for image in &images {
            let names = image.names.iter().cloned().map(Some);
            let nameless = image.names.is_empty().then_some(None);
            for reference in names.chain(nameless) {
                loaded.push(Loaded {
                    id: image.id.clone(),
                    reference,
                });
            }
        }
        for image in &loaded {
            progress(LoadProgress::Loaded(image.clone()));
        }
        Ok(loaded)
    }

    /// Unpacks what is missing while the blobs go to disk.
    fn unpack_plans(
        &self,
        lease: &Lease,
        plans: &[Plan],
        wanted: Wanted<'_>,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Vec<NewImage>, Error> {
        let blobs: Vec<&Digest> = plans.iter().flat_map(Plan::blobs).collect();
        std::thread::scope(|scope| {
            let syncing = scope.spawn(|| self.sync_blobs(blobs.iter().copied()));
            let images: Result<Vec<NewImage>, Error> = plans
                .iter()
                .map(|plan| self.unpack_plan(lease, plan, wanted, progress))
                .collect();
            let synced = syncing
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            images.and_then(|images| synced.map(|()| images))
        })
    }

    fn unpack_plan(
        &self,
        lease: &Lease,
        plan: &Plan,
        wanted: Wanted<'_>,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<NewImage, Error> {
        let unpacking = self.begin_unpack(lease, &plan.config.rootfs.diff_ids)?;
        let mut jobs = Vec::new();
        for position in unpacking.missing() {
            let layer = &plan.layers[position];
            let input = self.open_blob(&layer.digest)?;
            let diff_id = &plan.config.rootfs.diff_ids[position];
            jobs.push(Job {
                position,
                input,
                size_bytes: layer.size_bytes,
                id: diff_id.short().to_owned(),
                // An uncompressed layer is its own blob, and that was hashed when it came in.
                is_verified: *diff_id == layer.digest,
            });
        }
        let unpacked = unpack_side_by_side(&unpacking, jobs, wanted, progress);
        // A layer that was given up says so in words of its own.
        go_on(wanted)?;
        unpacked?;
        let numbers = unpacking.finish()?;
        let blobs = plan.layers.iter().map(|layer| Some(layer.digest.clone()));
        Ok(NewImage {
            id: plan.id.clone(),
            config: Arc::clone(&plan.config),
            manifest: plan.manifest.clone(),
            parent: plan.parent.clone(),
            layers: numbers.into_iter().zip(blobs).collect(),
            names: plan.names.clone(),
        })
    }
}

/// One layer to unpack.
struct Job {
    position: usize,
    input: File,
    size_bytes: u64,
    id: String,
    is_verified: bool,
}

/// Unpacks layers on every core, the largest first: the last one to end decides how long it takes.
fn unpack_side_by_side(
    unpacking: &Unpacking<'_>,
    mut jobs: Vec<Job>,
    wanted: Wanted<'_>,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<(), Error> {
    jobs.sort_by_key(|job| std::cmp::Reverse(job.size_bytes));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = (cores * UNPACKERS_PER_CORE).min(jobs.len());
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Error>> = Mutex::default();
    std::thread::scope(|scope| {
        let (events, received) = sync_channel(PROGRESS_AHEAD);
        for _ in 0..workers {
            let events = events.clone();
            scope.spawn(|| {
                let events = events;
                while lock(&failed).is_none() {
                    let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) else {
                        break;
                    };
                    if let Err(error) = unpack_one(unpacking, job, wanted, &events) {
                        lock(&failed).get_or_insert(error);
                    }
                }
            });
        }
        drop(events);
        for event in received {
            progress(event);
        }
    });
    failed
        .into_inner()
        .expect("nobody panicked with the lock held")
        .map_or(Ok(()), Err)
}

fn unpack_one(
    unpacking: &Unpacking<'_>,
    job: &Job,
    wanted: Wanted<'_>,
    events: &SyncSender<LoadProgress>,
) -> Result<(), Error> {
    let input = Box::new(Counted {
        job,
        wanted,
        events,
        done: 0,
        shown: None,
    });
    if job.is_verified {
        unpacking.unpack_verified(job.position, input)?;
    } else {
        unpacking.unpack(job.position, input)?;
    }
    let total_bytes = job.size_bytes;
    let id = job.id.clone();
    let whole = LoadProgress::Layer {
        id,
        current_bytes: total_bytes,
        total_bytes,
    };
    if events.send(whole).is_err() {
        tracing::debug!("nobody wants to see the progress any more");
    }
    Ok(())
}

/// Whether a load shall go on; asked often, and from several threads.
pub type Wanted<'a> = &'a (dyn Fn() -> bool + Sync);

fn go_on(wanted: Wanted<'_>) -> Result<(), Error> {
    match wanted() {
        true => Ok(()),
        false => Err(Error::GivenUp),
    }
}

/// Reports how far a layer's blob was read; one that nobody wants any more is read no further.
struct Counted<'a> {
    job: &'a Job,
    wanted: Wanted<'a>,
    events: &'a SyncSender<LoadProgress>,
    done: u64,
    shown: Option<Instant>,
}

impl Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !(self.wanted)() {
            return Err(io::Error::other("the load was given up"));
        }
        let length = (&self.job.input).read(into)?;
        self.done += u64::try_from(length).expect("usize fits u64");
        if self
            .shown
            .is_none_or(|shown| shown.elapsed() >= PROGRESS_INTERVAL)
        {
            self.shown = Some(Instant::now());
            let event = LoadProgress::Layer {
                id: self.job.id.clone(),
                current_bytes: self.done.min(self.job.size_bytes),
                total_bytes: self.job.size_bytes,
            };
            if self.events.try_send(event).is_err() {
                tracing::trace!("a progress event is dropped: the reader is slow");
            }
        }
        Ok(length)
    }
}
