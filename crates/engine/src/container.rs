//! The handle of one container: what readers see, and the way to its task.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

use crate::state::Snapshot;
use crate::step::{Input, Refusal, Request};
use crate::{ContainerId, Error, attach, exec, peer, shim_client};

/// Requests and results that wait for the container's task: each is handled in well under a millisecond, and
/// a sender that finds the queue full waits.
const INBOX_MESSAGES: usize = 64;

/// One container. Everything readers need is in its [`Snapshot`]; only its task changes that.
pub struct Container {
    id: ContainerId,
    snapshot: ArcSwap<Snapshot>,
    changed: watch::Sender<u64>,
    inbox: mpsc::Sender<Message>,
    shim: shim_client::Address,
    /// The layers that it holds, once somebody has asked: they are the same for as long as it is there.
    held: OnceLock<image::Held>,
    /// Held by the one launch that prepares.
    pub(crate) preparing: Mutex<()>,
    /// Held by whoever makes or removes what it consists of, and only while that is done: a preparation that was given
    /// up may hang elsewhere, and makes nothing afterwards.
    parts: Mutex<()>,
    /// The process of the shim that is followed, and its run: one that hangs accepts nobody who would ask who it is.
    shim_process: Mutex<Option<(u64, OwnedFd)>>,
    pub(crate) attaching: attach::Waiters,
    pub(crate) execs: exec::Table,
}

/// What the task receives.
#[derive(Debug)]
pub(crate) enum Message {
    /// A client's request and where the answer goes.
    Request(Request, oneshot::Sender<Result<(), Refusal>>),
    /// Something happened.
    Input(Input),
}

impl Container {
    /// Makes the handle and the receiving end for its task.
    pub(crate) fn new(
        snapshot: Snapshot,
        shim: shim_client::Address,
    ) -> (Arc<Self>, mpsc::Receiver<Message>) {
        let (inbox, messages) = mpsc::channel(INBOX_MESSAGES);
        let container = Self {
            id: snapshot.id().clone(),
            changed: watch::Sender::new(snapshot.generation),
            snapshot: ArcSwap::from_pointee(snapshot),
            inbox,
            shim,
            held: OnceLock::new(),
            preparing: Mutex::default(),
            parts: Mutex::default(),
            shim_process: Mutex::default(),
            attaching: attach::Waiters::default(),
            execs: exec::Table::default(),
        };
        (Arc::new(container), messages)
    }

    /// Its id.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// What it is at this moment. Never waits.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Follows the changes: a receiver wakes after every new snapshot.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Shows a new snapshot to everyone.
    pub(crate) fn publish(&self, snapshot: Snapshot) {
        let generation = snapshot.generation;
        self.snapshot.store(Arc::new(snapshot));
        self.changed.send_replace(generation);
    }

    /// The image's layers that it holds; `None` for one whose image is released. The database is asked once.
    pub(crate) fn held(&self, images: &image::Store) -> Result<Option<&image::Held>, Error> {
        if let Some(held) = self.held.get() {
            return Ok(Some(held));
        }
        let found = images.held(self.id.as_str())?;
        Ok(found.map(|found| self.held.get_or_init(|| found)))
    }

    /// Waits until nobody makes or removes what it consists of, and keeps others from it. Blocks.
    pub(crate) fn parts(&self) -> MutexGuard<'_, ()> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes which process the shim of a run is.
    pub(crate) fn set_shim_process(&self, run: u64, process: OwnedFd) {
        *self.shim_process() = Some((run, process));
    }

    /// Lets go of the process of this run's shim; the one of another is kept.
    pub(crate) fn forget_shim_process(&self, run: u64) {
        self.shim_process().take_if(|(of, _)| *of == run);
    }

    /// Kills the shim of this run; the one of another is left alone.
    pub(crate) fn kill_shim(&self, run: u64) -> Result<(), Error> {
        match &*self.shim_process() {
            Some((of, process)) if *of == run => {
                peer::kill(process).map_err(|source| Error::internal("kill a shim", source))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn shim_process(&self) -> MutexGuard<'_, Option<(u64, OwnedFd)>> {
        self.shim_process
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Its shim, if it has one.
    pub(crate) fn shim(&self) -> &shim_client::Address {
        &self.shim
    }

    /// Hands a request to the task and waits for its answer.
    pub(crate) async fn ask(&self, request: Request) -> Result<(), Refusal> {
        let (answer, answered) = oneshot::channel();
        let message = Message::Request(request, answer);
        if self.inbox.send(message).await.is_err() {
            return Err(self.unanswered());
        }
        answered.await.unwrap_or_else(|_| Err(self.unanswered()))
    }

    /// Its task has ended: because it is gone, or with the engine.
    fn unanswered(&self) -> Refusal {
        match self.snapshot().removed {
            true => Refusal::Gone,
            false => Refusal::Stopping,
        }
    }

    /// Tells the task what happened. A task that has ended does not care any more.
    pub(crate) async fn tell(&self, input: Input) {
        if self.inbox.send(Message::Input(input)).await.is_err() {
            tracing::debug!(container = %self.id.short(), "news for a container that is gone");
        }
    }
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Container").field(&self.id).finish()
    }
}
