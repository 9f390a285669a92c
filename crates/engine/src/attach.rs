//! Attaching to a container's streams, also before it runs.
//!
//! The shim serves the streams in Docker's framing; the server only copies bytes between the client and the
//! socket it gets here. Whoever attaches to a container that does not run waits for its next launch, which
//! connects him before the program's first instruction: no byte of output is lost.

use std::sync::{Mutex, PoisonError};

use api::options::AttachOptions;
use shim::protocol::{ProcessId, Reply, Request, Streams};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::container::Container;
use crate::shim_client::{Address, ShimError};
use crate::state::Status;
use crate::{Engine, Error, refusal};

/// A client's place at a container's streams.
#[derive(Debug)]
pub struct Attachment {
    /// Whether the container has a terminal: the stream is raw then, framed otherwise.
    pub tty: bool,
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Now(UnixStream),
    AtLaunch(oneshot::Receiver<UnixStream>),
}

impl Attachment {
    /// The connected stream: reading gives the container's output as the client must get it and ends with it;
    /// what is written is standard input. Waits for the next launch when the container does not run; `None`
    /// when that fails, or when the container is removed instead.
    pub async fn stream(self) -> Option<UnixStream> {
        match self.stream {
            Stream::Now(stream) => Some(stream),
            Stream::AtLaunch(launched) => launched.await.ok(),
        }
    }
}

/// Those who wait for a container's next launch.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Mutex<Vec<Waiter>>);

#[derive(Debug)]
struct Waiter {
    streams: Streams,
    to: oneshot::Sender<UnixStream>,
}

impl Waiters {
    fn add(&self, streams: Streams) -> oneshot::Receiver<UnixStream> {
        let (to, launched) = oneshot::channel();
        let mut waiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.retain(|waiter| !waiter.to.is_closed());
        waiters.push(Waiter { streams, to });
        launched
    }

    fn take(&self) -> Vec<Waiter> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells everyone that there is no launch to wait for.
    pub(crate) fn end(&self) {
        drop(self.take());
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// Connects everyone to a container that was made: before it begins, and once more when that is known, for
    /// those who came in between. Who cannot be connected sees the end of his stream; the others are no worse off.
    pub(crate) async fn connect(&self, shim: &Address) {
        for waiter in self.take() {
            if waiter.to.is_closed() {
                continue;
            }
            match open(shim, waiter.streams).await {
                // The client may have gone away meanwhile: the shim sees the end of the connection.
                Ok(stream) => drop(waiter.to.send(stream)),
                Err(error) => tracing::warn!(%error, "attach a client that waited for the start"),
            }
        }
    }
}

async fn open(shim: &Address, streams: Streams) -> Result<UnixStream, ShimError> {
    let mut connection = shim.connect().await?;
    let attach = Request::Attach {
        process: ProcessId::Init,
        streams,
    };
    match connection.call_soon(&attach).await? {
        Reply::Ok => Ok(connection.into_stream()),
        other => Err(ShimError::unexpected(&other)),
    }
}

impl Engine {
    /// Attaches to a container (`POST /containers/{id}/attach`, the `stream` part; earlier output is
    /// `logs`' business).
    ///
    /// # Errors
    /// Conflict when it is paused or restarting, with the texts that dockerd sends in plain.
    pub async fn attach(&self, name: &str, options: &AttachOptions) -> Result<Attachment, Error> {
        let container = self.container(name)?;
        let snapshot = container.snapshot();
        let config = &snapshot.definition.config;
        let streams = Streams {
            stdin: options.stdin && config.open_stdin,
            stdout: options.stdout,
            stderr: options.stderr,
        };
        let stream = match snapshot.status {
            Status::Paused => {
                return Err(Error::conflict(format!(
                    "container {name} is paused, unpause the container before attach"
                )));
            }
            Status::Restarting => return Err(refusal::restarting(&container)),
            Status::Running => attach_running(&container, streams).await?,
            Status::Created | Status::Exited => at_launch(&container, streams).await,
            Status::Removing | Status::Dead => {
                return Err(Error::conflict(format!(
                    "container {} is marked for removal",
                    container.id()
                )));
            }
        };
        self.journal_container(&container, "attach", &[]);
        Ok(Attachment {
            tty: config.tty,
            stream,
        })
    }
}

/// Waits for the next launch.
async fn at_launch(container: &Container, streams: Streams) -> Stream {
    let launched = container.attaching.add(streams);
    // It may have begun since it was looked at, and whoever waited was connected before.
    if container.snapshot().status == Status::Running {
        container.attaching.connect(container.shim()).await;
    }
    Stream::AtLaunch(launched)
}

/// A container that exits in between is one that is not running; one whose shim cannot be asked is an error, since
/// nobody would ever connect the client.
async fn attach_running(container: &Container, streams: Streams) -> Result<Stream, Error> {
    match open(container.shim(), streams).await {
        Ok(stream) => Ok(Stream::Now(stream)),
        Err(error) if error.is_over() => Ok(at_launch(container, streams).await),
        Err(error) => Err(error.into_error("attach to the container")),
    }
}
