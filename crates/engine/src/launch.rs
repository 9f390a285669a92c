//! Starting a run, and undoing or ending it: everything between the engine and one shim.
//!
//! The order of a launch: run directory, network and spec → a shim (parked or fresh) makes the init → those who wait
//! to attach are connected → the program starts. Only then is anything saved; a daemon that dies before that
//! has promised nothing, and the sweep of the next one ends what it finds.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use runtime::cgroup::{self, Cgroup, CgroupPath};
use shim::protocol::{FailureKind, ProcessId, Reply, Request};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::container::Container;
use crate::error::Chain;
use crate::open::Inner;
use crate::prepare::Prepared;
use crate::reap::Process;
use crate::shim_client::{Address, Connection, ShimError};
use crate::state::Attached;
use crate::step::Failure;
use crate::{Class, ContainerId, Error, files, peer, pool, prepare};

/// How long making and starting a container may take before it is given up: far longer than any mount on a
/// disk that works.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(120);

/// Docker's exit code for a start that failed for a reason of its own.
pub(crate) const EXIT_NOT_STARTED: i32 = 128;

/// dockerd's words before runc's.
pub(crate) const CREATE_FAILED: &str = "failed to create task for container: failed to create shim task: \
     OCI runtime create failed: runc create failed: ";

/// A shim: the connection that is its control, then its watch, and the process if this daemon started it.
#[derive(Debug)]
pub(crate) struct Shim {
    pub(crate) connection: Connection,
    pub(crate) child: Option<Process>,
    /// The name of the cgroup that it parked in, if it came from the pool.
    pub(crate) parked: Option<String>,
}

impl Shim {
    /// Its process.
    pub(crate) fn process(&self) -> io::Result<OwnedFd> {
        match &self.child {
            Some(child) => child.pidfd(),
            None => self.connection.peer(),
        }
    }
}

/// A run that has begun.
pub(crate) struct Launched {
    pub(crate) pid: u32,
    pub(crate) at_ns: i64,
    pub(crate) shim: Shim,
    pub(crate) network: Option<Box<Attached>>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            exit_code: EXIT_NOT_STARTED,
            class: error.class,
            message: error.message,
        }
    }
}

/// Starts a run, once nobody looks after the `last` any more: its shim has ended. When it fails, or `abort` is cancelled,
/// nothing of it is left.
pub(crate) async fn launch(
    engine: &Arc<Inner>,
    container: &Arc<Container>,
    last: Option<oneshot::Receiver<()>>,
    abort: &CancellationToken,
) -> Result<Launched, Failure> {
    let mut making = None;
    let preparing = prepared(engine, container);
    let launching = async {
        if let Some(last) = last {
            // Its root ends with its shim, once it is on the disk, and must not be there twice.
            last.await.unwrap_or(());
        }
        let prepared = preparing.await?;
        begin(engine, container, prepared, &mut making).await
    };
    let launched = tokio::select! {
        launched = tokio::time::timeout(LAUNCH_TIMEOUT, launching) => {
            launched.unwrap_or_else(|_| Err(Failure {
                exit_code: EXIT_NOT_STARTED,
                class: Class::Internal,
                message: format!("the container was not started within {} s", LAUNCH_TIMEOUT.as_secs()),
            }))
        }
        () = abort.cancelled() => Err(Failure {
            exit_code: 137,
            ..prepare::interrupted(container.id()).into()
        }),
    };
    if launched.is_err() {
        if let Some(shim) = making {
            abandon(engine, container.id(), shim).await;
        }
        undo(engine, container.id()).await;
    }
    launched
}

/// Prepares on a thread that may block for ever (a bind source on a dead server): whoever does not wait for it
/// any more goes on, and what it makes then is undone when it comes back.
async fn prepared(engine: &Arc<Inner>, container: &Arc<Container>) -> Result<Prepared, Failure> {
    let (to, prepared) = oneshot::channel();
    let threads = engine.threads.clone();
    let (engine, container) = (engine.clone(), container.clone());
    threads.spawn_blocking(move || {
        // One after the other: the undo of an earlier one must not meet the next.
        let _turn = container
            .preparing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if to.is_closed() {
            return;
        }
        let made = prepare::launch(&engine, &container, || to.is_closed());
        if to.send(made).is_err() {
            let _parts = container.parts();
            if let Err(error) = undo_blocking(&engine, container.id()) {
                tracing::error!(container = %container.id().short(), %error, "leftover of a start that was given up");
            }
        }
    });
    let answer = prepared.await;
    let gone = |source| Err(Error::internal("prepare a start", source));
    Ok(answer.unwrap_or_else(gone)?)
}

/// Has a shim make the init and start the program. The shim is in `making` until that has succeeded or the shim has
/// ended: whoever gives this up finds it there.
async fn begin(
    engine: &Arc<Inner>,
    container: &Arc<Container>,
    prepared: Prepared,
    making: &mut Option<Shim>,
) -> Result<Launched, Failure> {
    let Prepared {
        create,
        netns,
        peers,
        forwards,
        held,
        network,
    } = prepared;
    let create = Request::Create(Box::new(create));
    let fds = netns.iter().chain(&peers).chain(&forwards);
    let fds: Vec<_> = fds.map(AsFd::as_fd).collect();
    let pid = create_init(engine, container.id(), &create, &fds, making).await?;
    // From here on the shim alone has the ports: with its copies they are free again.
    drop((netns, peers, forwards, held));
    sys::fault!("engine.launch.created");
    let shim = making.as_mut().expect("it has made the init");
    let started = start(container, shim).await;
    let shim = making.take().expect("it was there");
    match started {
        Ok(at_ns) => Ok(Launched {
            pid,
            at_ns,
            shim,
            network,
        }),
        Err(error) => {
            end(shim).await;
            Err(failure(error))
        }
    }
}

/// Ends a shim in the middle of its work, of which a parked one may not have begun. It is dead before its cgroup is
/// looked for: one that it renames meanwhile would be missed under both names.
async fn abandon(engine: &Arc<Inner>, id: &ContainerId, shim: Shim) {
    let Shim {
        connection,
        child,
        parked,
    } = shim;
    if let Some(child) = child {
        child.kill().await;
    }
    drop(connection);
    if let Err(failure) = clear(engine, id, parked).await {
        tracing::error!(container = %id.short(), error = failure.message, "leftover of a start that was interrupted");
    }
}

/// Has a shim make the init. A parked one that died meanwhile is no reason to fail.
async fn create_init(
    engine: &Arc<Inner>,
    id: &ContainerId,
    create: &Request,
    fds: &[BorrowedFd<'_>],
    making: &mut Option<Shim>,
) -> Result<u32, Failure> {
    if let Some(parked) = engine.pool.take() {
        let shim = making.insert(parked);
        match shim.connection.call_with(create, fds).await {
            Err(ShimError::Io(error)) => {
                tracing::warn!(%error, "a parked shim has died");
                let name = shim.parked.clone();
                end_made(making).await;
                clear(engine, id, name).await?;
            }
            answer => return created(making, answer).await,
        }
    }
    let shim = making.insert(pool::spawn(engine).await?);
    let answer = shim.connection.call_with(create, fds).await;
    created(making, answer).await
}

async fn end_made(making: &mut Option<Shim>) {
    if let Some(shim) = making.take() {
        end(shim).await;
    }
}

/// Removes what a parked shim has left that died idle or at any moment of making an init: its cgroup under the name
/// of the pool or already of the container, and whatever is in it.
async fn clear(
    engine: &Arc<Inner>,
    id: &ContainerId,
    parked: Option<String>,
) -> Result<(), Failure> {
    let (clearing, id) = (engine.clone(), id.clone());
    let cleared = engine.blocking(move || {
        remove_cgroup(&clearing.cgroup_parent_of(&id), id.as_str())?;
        if let Some(parked) = parked {
            remove_cgroup(&clearing.config.cgroup_parent, &parked)?;
        }
        Ok(())
    });
    Ok(cleared.await?)
}

async fn created(
    making: &mut Option<Shim>,
    answer: Result<Reply, ShimError>,
) -> Result<u32, Failure> {
    let error = match answer {
        Ok(Reply::Created { pid }) => return Ok(pid),
        Ok(other) => ShimError::unexpected(&other),
        Err(error) => error,
    };
    end_made(making).await;
    Err(failure(error))
}

async fn start(container: &Container, shim: &mut Shim) -> Result<i64, ShimError> {
    container.attaching.connect(container.shim()).await;
    let at_ns = match shim.connection.call(&Request::Start).await? {
        Reply::Started { at_ns } => at_ns,
        other => return Err(ShimError::unexpected(&other)),
    };
    sys::fault!("engine.launch.started");
    Ok(at_ns)
}

/// Words for a start that failed, as dockerd and runc say it: clients look for parts of them.
fn failure(error: ShimError) -> Failure {
    let ShimError::Refused { kind, message } = error else {
        return Failure {
            exit_code: EXIT_NOT_STARTED,
            class: Class::Internal,
            message: format!("failed to create task for container: {}", Chain(&error)),
        };
    };
    if kind == FailureKind::NoUser {
        return Failure {
            exit_code: EXIT_NOT_STARTED,
            class: Class::Internal,
            message,
        };
    }
    let (exit_code, class) = match kind {
        FailureKind::NotFound => (127, Class::InvalidParameter),
        FailureKind::NotExecutable => (126, Class::InvalidParameter),
        FailureKind::Invalid => (EXIT_NOT_STARTED, Class::InvalidParameter),
        FailureKind::NoUser
        | FailureKind::Other
        | FailureKind::NotRunning
        | FailureKind::Busy
        | FailureKind::Internal => (EXIT_NOT_STARTED, Class::Internal),
    };
    Failure {
        exit_code,
        class,
        message: format!("{CREATE_FAILED}{message}"),
    }
}

/// Lets a run go whose exit is saved: the shim removes the cgroup and ends, then the run directory goes.
/// Blocks until the cgroup and the directory are gone, so that the next run finds nothing of this one.
pub(crate) async fn retire(engine: &Arc<Inner>, container: &Arc<Container>) {
    let acknowledge = Request::Acknowledge {
        process: ProcessId::Init,
    };
    match container.shim().call(&acknowledge).await {
        Ok(_) => {
            sys::fault!("engine.retire.acknowledged");
            let run_dir = container.shim().run_dir().to_owned();
            let (retiring, id) = (engine.clone(), container.id().clone());
            let removed = engine
                .blocking_then_drop(move || {
                    let network = retiring.networks.detach(&id);
                    sys::fault!("engine.retire.detached");
                    let remains = files::remove_run_dir(&run_dir)?;
                    network.map(|()| ((), remains))
                })
                .await;
            if let Err(error) = removed {
                tracing::warn!(container = %container.id().short(), error = %error.message, "leftover of a run");
            }
        }
        Err(error) => {
            tracing::debug!(container = %container.id().short(), %error, "no shim to acknowledge to");
            undo(engine, container.id()).await;
        }
    }
}

/// Ends whatever there is of a run, by force: shim, processes, cgroup, run directory.
pub(crate) async fn undo(engine: &Arc<Inner>, id: &ContainerId) {
    let (undoing, of) = (engine.clone(), id.clone());
    let undone = engine.blocking(move || undo_blocking(&undoing, &of)).await;
    if let Err(error) = undone {
        tracing::error!(container = %id.short(), error = %error.message, "leftover of a run");
    }
}

/// As [`undo`], on a thread that may block. All parts are tried; the first failure is returned. The run directory goes
/// last, and not before the cgroup: it says that there is something left to undo.
pub(crate) fn undo_blocking(engine: &Inner, id: &ContainerId) -> Result<(), Error> {
    let run_dir = engine.config.run_dir(id);
    let shim = kill_shim(&run_dir);
    let cgroup = remove_cgroup(&engine.cgroup_parent_of(id), id.as_str());
    let network = engine.networks.detach(id);
    shim.and(cgroup).and(network)?;
    files::remove_run_dir(&run_dir).map(drop)
}

/// How long a shim may take to say that it lives, after its container was killed without it: it is killed then too.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(2);

/// Kills the processes of a run without its shim, thawed, and a shim that does not answer after them. What is told of
/// the end comes from whoever follows the shim.
pub(crate) async fn force(
    engine: &Arc<Inner>,
    container: &Arc<Container>,
    run: u64,
) -> Result<(), Error> {
    tracing::warn!(container = %container.id().short(), "its shim has not killed it: it is killed without");
    let (forcing, of) = (engine.clone(), container.clone());
    engine
        .blocking(move || {
            // No other run can begin meanwhile and be taken for this one.
            let _parts = of.parts();
            match is_running(&of, run) {
                true => kill_cgroup(&forcing.cgroup_parent_of(of.id()), of.id().as_str()),
                false => Ok(()),
            }
        })
        .await?;
    let asked = container.shim().call(&Request::State);
    if matches!(
        tokio::time::timeout(LIVENESS_TIMEOUT, asked).await,
        Ok(Ok(_))
    ) {
        return Ok(());
    }
    tracing::error!(container = %container.id().short(), "its shim does not answer: it is killed");
    let of = container.clone();
    engine
        .blocking(move || {
            let _parts = of.parts();
            match is_running(&of, run) {
                true => of.kill_shim(run),
                false => Ok(()),
            }
        })
        .await
}

/// Whether this run has not been seen to end.
fn is_running(container: &Container, run: u64) -> bool {
    let facts = &container.snapshot().facts;
    facts.run == run && facts.pid.is_some()
}

/// Kills every process of a cgroup, thawed, and waits for nobody. One that is not there is fine.
fn kill_cgroup(parent: &str, name: &str) -> Result<(), Error> {
    let failed = |source| Error::internal(format!("kill the cgroup {name}"), source);
    match open_cgroup(parent, name).map_err(failed)? {
        Some(cgroup) => cgroup.kill().map_err(failed),
        None => Ok(()),
    }
}

/// How long what was killed may take to be gone before it is killed again.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(5);

/// Kills every process of a cgroup and waits until none is left; the cgroup stays. One that is not there is fine.
pub(crate) fn empty_cgroup(parent: &str, name: &str) -> Result<(), Error> {
    let failed = |source| Error::internal(format!("kill the cgroup {name}"), source);
    let Some(cgroup) = open_cgroup(parent, name).map_err(failed)? else {
        return Ok(());
    };
    cgroup.kill().map_err(failed)?;
    match cgroup.wait_empty(EMPTY_TIMEOUT).map_err(failed)? {
        true => Ok(()),
        false => Err(Error::new(
            Class::Internal,
            format!("processes of the cgroup {name} do not die"),
        )),
    }
}

/// The cgroup of a container, or nothing where it is gone.
pub(crate) fn open_cgroup(parent: &str, name: &str) -> Result<Option<Cgroup>, cgroup::Error> {
    match Cgroup::open(&CgroupPath::new(parent, name)?) {
        Ok(cgroup) => Ok(Some(cgroup)),
        Err(cgroup::Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Kills the shim that listens in a run directory, if one does.
fn kill_shim(run_dir: &Path) -> Result<(), Error> {
    let failed = |source| Error::internal("kill a shim", source);
    let Some(socket) = peer::connect(run_dir).map_err(failed)? else {
        return Ok(());
    };
    match peer::process(socket.as_fd()) {
        Ok(process) => peer::kill(&process).map_err(failed),
        // It has ended between the connect and the question.
        Err(_) => Ok(()),
    }
}

/// Kills every process of a cgroup and removes it. One that is not there is fine.
pub(crate) fn remove_cgroup(parent: &str, name: &str) -> Result<(), Error> {
    let failed = |source| Error::internal(format!("remove the cgroup {name}"), source);
    match open_cgroup(parent, name).map_err(failed)? {
        Some(cgroup) => cgroup.destroy().map_err(failed),
        None => Ok(()),
    }
}

/// Whether the cgroup of a container is frozen, as far as that can be seen: what cannot be seen may be.
pub(crate) async fn is_frozen(engine: &Arc<Inner>, container: &Arc<Container>) -> bool {
    let (parent, id) = (
        engine.cgroup_parent_of(container.id()),
        container.id().clone(),
    );
    let looking = engine.blocking(move || {
        let failed = |source| Error::internal("look at the freezer", source);
        match open_cgroup(&parent, id.as_str()).map_err(failed)? {
            Some(cgroup) => cgroup.is_frozen().map_err(failed),
            None => Ok(false),
        }
    });
    looking.await.unwrap_or(true)
}

/// Sees a shim of ours to its end, so that no zombie is left. One that does not end is killed.
pub(crate) async fn end(shim: Shim) {
    let Shim {
        connection, child, ..
    } = shim;
    drop(connection);
    if let Some(child) = child {
        child.end().await;
    }
}

/// The address of a container's shim, for adoption.
pub(crate) fn address(engine: &Inner, id: &ContainerId) -> Address {
    Address::new(engine.config.run_dir(id))
}
