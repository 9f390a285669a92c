//! Shims kept ready, so that a start need not wait for a process and a cgroup to be made.
//!
//! A parked shim has its cgroup under a name of the pool; the launch gives it the container's. It ends with this
//! daemon: its control connection is its life.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime::cgroup::CgroupPath;
use shim::protocol::{Reply, Request};
use sys::command::Command;
use tokio::sync::Notify;

use crate::Error;
use crate::launch::{self, Shim};
use crate::open::Inner;
use crate::reap::Process;
use crate::shim_client::{Connection, ShimError};

/// Digits of the engine's id in the names of parked cgroups.
const OWNER_DIGITS: usize = 8;

/// The beginning of this engine's parked cgroups' names; the sweep knows leftovers of a dead daemon by it.
pub(crate) fn cgroup_prefix(engine_id: &str) -> String {
    let owner: String = engine_id.chars().take(OWNER_DIGITS).collect();
    format!("pool-{owner}-")
}

/// How long the pool rests after a shim could not be made, so that a broken host is not kept busy.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// First word of a shim's command line. Below `--init` a container sees it, and no path of the host.
const SHIM_NAME: &str = "cooper";

/// The parked shims.
pub(crate) struct Pool {
    ready: Mutex<VecDeque<Shim>>,
    taken: Notify,
    made: AtomicU64,
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self {
            ready: Mutex::default(),
            taken: Notify::new(),
            made: AtomicU64::new(0),
        }
    }

    /// A parked shim, if there is one.
    pub(crate) fn take(&self) -> Option<Shim> {
        let shim = self.lock().pop_front();
        self.taken.notify_one();
        shim
    }

    /// Keeps the pool full until the engine stops.
    pub(crate) async fn refill(engine: Arc<Inner>) {
        loop {
            while engine.pool.lock().len() < engine.config.pool_size {
                match engine.pool.park(&engine).await {
                    Ok(shim) => engine.pool.lock().push_back(shim),
                    Err(error) => {
                        tracing::warn!(error = %error.message, "a shim could not be kept ready");
                        tokio::time::sleep(RETRY_AFTER).await;
                    }
                }
            }
            engine.pool.taken.notified().await;
        }
    }

    /// Ends every parked shim: they see the end of their control connections.
    pub(crate) fn drain(&self) -> Vec<Shim> {
        self.lock().drain(..).collect()
    }

    async fn park(&self, engine: &Arc<Inner>) -> Result<Shim, Error> {
        let mut shim = spawn(engine).await?;
        // The daemon's pid keeps the names of two daemons apart: the older one's may not be swept yet.
        let name = format!(
            "{}{}-{}",
            cgroup_prefix(&engine.id),
            std::process::id(),
            self.made.fetch_add(1, Ordering::Relaxed)
        );
        let cgroup = CgroupPath::new(&engine.config.cgroup_parent, &name)
            .map_err(|source| Error::internal("name a parked cgroup", source))?;
        let source = match shim.connection.call(&Request::Park { cgroup }).await {
            Ok(Reply::Parked) => {
                shim.parked = Some(name);
                return Ok(shim);
            }
            Ok(other) => ShimError::unexpected(&other),
            Err(error) => error,
        };
        launch::end(shim).await;
        Err(Error::internal("park a shim", source))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Shim>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a shim that belongs to no container yet.
pub(crate) async fn spawn(engine: &Arc<Inner>) -> Result<Shim, Error> {
    let sealed = engine.clone();
    let (ours, child) = engine
        .blocking(move || {
            let failed = |source| Error::internal("start a shim", source);
            let (ours, theirs) = UnixStream::pair().map_err(failed)?;
            // What a container sees of it through /proc cannot be written, by nobody.
            let mut command = Command::new(sys::selfexe::path_of(&sealed.shim_program))
                .arg0(SHIM_NAME)
                .arg("shim")
                .stdin(OwnedFd::from(theirs))
                .own_group();
            if let Some(point) = sys::fault::take_for_shim() {
                command = command.env(sys::fault::VARIABLE, point);
            }
            let child = command.spawn().map_err(failed)?;
            // Containers inherit the limit from their shim.
            sys::limits::give_back_open_files(child.id()).map_err(failed)?;
            Ok::<(UnixStream, Child), Error>((ours, child))
        })
        .await?;
    let connection =
        Connection::new(ours).map_err(|source| Error::internal("talk to a shim", source))?;
    Ok(Shim {
        connection,
        child: Some(Process::new(child)),
        parked: None,
    })
}
