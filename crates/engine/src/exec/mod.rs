//! Execs: further processes in a running container.
//!
//! ```text
//! create ─▶ Created ──start──▶ Starting ──▶ Running ──exit──▶ Exited ──EXEC_KEPT──▶ forgotten
//!                                 └── failed ─────────────────▲
//! ```
//! An exec's process belongs to the shim, and the stream of a started one is the shim's own connection: the
//! server only copies. What a client may ask for later is in [`files`] too, so that a daemon that adopts the
//! container knows its execs: those that run, and the exit codes of those that ended meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::exec::{ExecConfig, ExecInspect, ExecStart, ProcessConfig};
use api::options::WindowSize;
use shim::protocol::{self, ProcessId, Reply, Request, Streams};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::container::Container;
use crate::refusal::{self, not_running, shim_error};
use crate::shim_client::ShimError;
use crate::state::Status;
use crate::{ContainerId, Engine, Error, id, peer};

pub(crate) mod ends;
mod files;
mod process;

/// How long an exec is remembered after its end (moby's collector runs every five minutes).
const EXEC_KEPT: Duration = Duration::from_secs(5 * 60);

/// Execs of one container that were made and not started: a probe that dies between the two requests leaves one each
/// time, and the oldest goes first.
const WAITING_MAX: usize = 1024;

/// How long a resize waits for the process to start (moby: 10 s).
const RESIZE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a shim may take to start a process in its container.
const EXEC_TIMEOUT: Duration = Duration::from_secs(60);

/// One exec.
#[derive(Debug)]
pub(crate) struct Exec {
    id: String,
    container: Arc<Container>,
    config: ExecConfig,
    made: Instant,
    phase: watch::Sender<Phase>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Created,
    Starting,
    Running { pid: u32 },
    Exited { code: i32, pid: u32, at: Instant },
}

/// Every exec of the engine, by id.
#[derive(Default)]
pub(crate) struct Execs(Mutex<HashMap<String, Arc<Exec>>>);

/// The ids of one container's execs.
#[derive(Default)]
pub(crate) struct Table(Mutex<BTreeSet<String>>);

/// A started exec as its client sees it.
#[derive(Debug)]
pub struct ExecStream {
    /// Whether the process has a terminal.
    pub tty: bool,
    /// The connected stream, framed unless `tty`; `None` for a detached start.
    pub stream: Option<UnixStream>,
    /// To be waited for between the last output and the end of the client's stream.
    pub ended: ExecEnd,
}

/// How long the end of an exec's output may come before its exit: a moment for a process that ends, and not
/// longer for one that only closed its streams.
const EXIT_AFTER_OUTPUT: Duration = Duration::from_millis(500);

/// How long the end of an exec may come after its shim's: only a machine that is very busy takes longer.
const EXIT_AFTER_SHIM: Duration = Duration::from_secs(10);

/// Knows when an exec has ended: a client that has seen the last output asks for the exit code next.
#[derive(Debug)]
pub struct ExecEnd(Arc<Exec>);

impl ExecEnd {
    /// Waits until the exit code is known, or a moment.
    pub async fn wait(self) {
        // A process that runs on is no reason to keep the client waiting; one that has lost its shim does not.
        if !self.within(EXIT_AFTER_OUTPUT).await && self.0.has_lost_shim().await {
            self.within(EXIT_AFTER_SHIM).await;
        }
    }

    async fn within(&self, limit: Duration) -> bool {
        let mut phase = self.0.phase.subscribe();
        let exited = phase.wait_for(|phase| matches!(phase, Phase::Exited { .. }));
        tokio::time::timeout(limit, exited).await.is_ok()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    /// The ids, sorted.
    pub(crate) fn ids(&self) -> Vec<String> {
        lock(&self.0).iter().cloned().collect()
    }
}

impl Execs {
    /// Adds an exec, and answers those that are forgotten now.
    fn insert(&self, exec: &Arc<Exec>) -> Vec<Arc<Exec>> {
        let mut all = lock(&self.0);
        let forgotten = all.extract_if(|_, old| old.is_forgotten());
        let mut forgotten: Vec<_> = forgotten.map(|(_, old)| old).collect();
        let waiting = || all.values().filter(|old| old.waits_in(&exec.container));
        if waiting().count() >= WAITING_MAX
            && let Some(oldest) = waiting().min_by_key(|old| old.made).cloned()
        {
            all.remove(&oldest.id);
            lock(&exec.container.execs.0).remove(&oldest.id);
            forgotten.push(oldest);
        }
        lock(&exec.container.execs.0).insert(exec.id.clone());
        all.insert(exec.id.clone(), exec.clone());
        forgotten
    }

    fn remove(&self, exec: &Exec) {
        lock(&self.0).remove(&exec.id);
        lock(&exec.container.execs.0).remove(&exec.id);
    }

    fn find(&self, id: &str) -> Option<Arc<Exec>> {
        let found = lock(&self.0).get(id).cloned();
        found.filter(|exec| !exec.is_forgotten())
    }
}

impl Exec {
    fn is_forgotten(&self) -> bool {
        let old = match *self.phase.borrow() {
            Phase::Exited { at, .. } => at.elapsed() > EXEC_KEPT,
            Phase::Created | Phase::Starting | Phase::Running { .. } => {
                self.container.snapshot().removed
            }
        };
        if old {
            lock(&self.container.execs.0).remove(&self.id);
        }
        old
    }

    fn waits_in(&self, container: &Container) -> bool {
        *self.phase.borrow() == Phase::Created && self.container.id() == container.id()
    }

    /// As dockerd writes it: the program, a space, the arguments.
    fn command_line(&self) -> String {
        let words: Vec<&str> = self
            .config
            .cmd
            .iter()
            .flatten()
            .map(String::as_str)
            .collect();
        match words.split_first() {
            Some((program, arguments)) => format!("{program} {}", arguments.join(" ")),
            None => String::new(),
        }
    }

    /// Makes it start, once; else answers what it does. In one step: its exit may be told meanwhile.
    fn claim(&self) -> Result<(), Phase> {
        let mut previous = Phase::Created;
        let claimed = self.phase.send_if_modified(|phase| {
            previous = *phase;
            let created = previous == Phase::Created;
            if created {
                *phase = Phase::Starting;
            }
            created
        });
        match claimed {
            true => Ok(()),
            false => Err(previous),
        }
    }

    /// Ends it with this code if it has not ended before, and answers the code that counts.
    fn end(&self, code: i32) -> i32 {
        let at = Instant::now();
        let mut first = code;
        self.phase.send_modify(|phase| {
            let pid = match *phase {
                Phase::Running { pid } => pid,
                Phase::Created | Phase::Starting => 0,
                Phase::Exited { code, .. } => {
                    first = code;
                    return;
                }
            };
            *phase = Phase::Exited { code, pid, at };
        });
        lock(&self.container.execs.0).remove(&self.id);
        first
    }

    fn run_dir(&self) -> &Path {
        self.container.shim().run_dir()
    }

    async fn has_lost_shim(&self) -> bool {
        match self.container.shim().connect().await {
            Err(ShimError::Io(source)) => peer::is_absence(&source),
            Ok(_) | Err(_) => false,
        }
    }
}

impl Engine {
    /// Makes an exec (`POST /containers/{id}/exec`) and answers its id.
    ///
    /// # Errors
    /// InvalidParameter without a command, Conflict when the container does not run or is paused.
    pub async fn exec_create(&self, name: &str, config: ExecConfig) -> Result<String, Error> {
        let container = self.container(name)?;
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            return Err(Error::invalid("No exec command specified"));
        }
        active(&container, name)?;
        let wanted = Request::FindUser(process::user(&container.snapshot().definition, &config));
        let id = id::random_hex().map_err(|source| Error::internal("make an exec's id", source))?;
        let exec = Arc::new(Exec {
            id: id.clone(),
            container,
            config,
            made: Instant::now(),
            phase: watch::Sender::new(Phase::Created),
        });
        let forgotten = self.inner().execs.insert(&exec);
        let saving = exec.clone();
        let saved = self.inner().blocking(move || {
            for old in forgotten {
                files::remove(old.container.shim().run_dir(), &old.id)?;
            }
            files::write_config(saving.run_dir(), &saving.id, &saving.config)
        });
        // As dockerd, and for the client a plain answer instead of a stream that breaks off; the start looks again.
        let found = exec.container.shim().call(&wanted);
        let (saved, found) = tokio::join!(saved, found);
        // With its run a container loses the directory of it.
        let saved = saved.map_err(|error| active(&exec.container, name).err().unwrap_or(error));
        let looking = "look up the user of an exec";
        let found = found.map_err(|error| shim_error(error, &exec.container, looking));
        if let Err(error) = found.and(saved) {
            self.inner().execs.remove(&exec);
            let refused = exec.clone();
            let removing = self
                .inner()
                .blocking(move || files::remove(refused.run_dir(), &refused.id));
            if let Err(leftover) = removing.await {
                tracing::debug!(exec = id, error = %leftover.message, "the file of an exec that was refused");
            }
            return Err(error);
        }
        let action = format!("exec_create: {}", exec.command_line());
        self.journal_container(&exec.container, &action, &[("execID", id.clone())]);
        Ok(id)
    }

    /// Starts an exec (`POST /exec/{id}/start`).
    ///
    /// # Errors
    /// NotFound, Conflict when it was started before or the container does not run; InvalidParameter when
    /// the program cannot be executed (the exec's exit code is 126 or 127 then).
    pub async fn exec_start(&self, id: &str, options: &ExecStart) -> Result<ExecStream, Error> {
        let exec = self.exec(id)?;
        if let Err(previous) = exec.claim() {
            let what = match previous {
                Phase::Created | Phase::Exited { .. } => "has already run",
                Phase::Starting | Phase::Running { .. } => "is already running",
            };
            return Err(Error::conflict(format!("exec command {id} {what}")));
        }
        let started = self.exec_run(&exec, options).await;
        if started.is_err() {
            // The exit code was set where the reason was known; this is for all others.
            let code = exec.end(crate::launch::EXIT_NOT_STARTED);
            let ended = exec.clone();
            let saved = self.inner().blocking(move || {
                files::write_exit(ended.run_dir(), ended.container.id(), &ended.id, code)
            });
            if let Err(error) = saved.await {
                tracing::debug!(exec = exec.id, error = %error.message, "the code of an exec that did not start");
            }
        }
        started
    }

    async fn exec_run(&self, exec: &Arc<Exec>, options: &ExecStart) -> Result<ExecStream, Error> {
        let container = &exec.container;
        active(container, container.id().as_str())?;
        let snapshot = container.snapshot();
        let config = &exec.config;
        let process = process::process(&snapshot.definition, config, self.inner().bounding)?;
        let attach = (!options.detach).then_some(Streams {
            stdin: config.attach_stdin,
            stdout: config.attach_stdout,
            stderr: config.attach_stderr,
        });
        let size = options
            .console_size
            .or(config.console_size)
            .and_then(process::size);
        let request = Request::Exec(Box::new(protocol::Exec {
            id: exec.id.clone(),
            user: process::user(&snapshot.definition, config),
            process: Box::new(process),
            stdin: config.attach_stdin && !options.detach,
            size,
            attach,
        }));
        let action = format!("exec_start: {}", exec.command_line());
        self.journal_container(container, &action, &[("execID", exec.id.clone())]);
        let connected = container.shim().connect().await;
        let talk = "talk to the container's shim";
        let mut connection = connected.map_err(|error| shim_error(error, container, talk))?;
        match connection.call_long(&request, EXEC_TIMEOUT).await {
            Ok(Reply::Executed { pid }) => {
                // Its exit may have been told already.
                exec.phase.send_if_modified(|phase| {
                    let starting = *phase == Phase::Starting;
                    if starting {
                        *phase = Phase::Running { pid };
                    }
                    starting
                });
                Ok(ExecStream {
                    tty: config.tty,
                    stream: (!options.detach).then(|| connection.into_stream()),
                    ended: ExecEnd(exec.clone()),
                })
            }
            Ok(other) => Err(ShimError::unexpected(&other).into_error("exec")),
            Err(error) => Err(process::failure(exec, error)),
        }
    }

    /// Sets the size of an exec's terminal (`POST /exec/{id}/resize`); waits a while for a process that is
    /// not there yet.
    ///
    /// # Errors
    /// NotFound, Conflict when the process is not there in time or has ended.
    pub async fn exec_resize(&self, id: &str, size: WindowSize) -> Result<(), Error> {
        let exec = self.exec(id)?;
        let mut phase = exec.phase.subscribe();
        let running = phase.wait_for(|phase| match phase {
            Phase::Created | Phase::Starting => false,
            Phase::Running { .. } | Phase::Exited { .. } => true,
        });
        let running = match tokio::time::timeout(RESIZE_PATIENCE, running).await {
            Ok(Ok(phase)) => matches!(*phase, Phase::Running { .. }),
            Ok(Err(_)) | Err(_) => false,
        };
        if !running {
            return Err(Error::conflict(format!("exec process {id} is not running")));
        }
        let request = Request::Resize {
            process: ProcessId::Exec(exec.id.clone()),
            size: protocol::Size {
                width: size.width,
                height: size.height,
            },
        };
        // As dockerd: a process without a terminal has no size, which is no error.
        if !exec.config.tty {
            return Ok(());
        }
        match exec.container.shim().call(&request).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_over() => {
                Err(Error::conflict(format!("exec process {id} is not running")))
            }
            Err(error) => Err(error.into_error("resize an exec's terminal")),
        }
    }

    /// What an exec is and does (`GET /exec/{id}/json`).
    ///
    /// # Errors
    /// NotFound, also some minutes after its end.
    pub fn exec_inspect(&self, id: &str) -> Result<ExecInspect, Error> {
        let exec = self.exec(id)?;
        let phase = *exec.phase.borrow();
        let (running, exit_code, pid) = match phase {
            Phase::Created | Phase::Starting => (false, None, 0),
            Phase::Running { pid } => (true, None, pid),
            Phase::Exited { code, pid, .. } => (false, Some(code.into()), pid),
        };
        let config = &exec.config;
        let mut words = config.cmd.iter().flatten().cloned();
        Ok(ExecInspect {
            id: exec.id.clone(),
            running,
            exit_code,
            process_config: ProcessConfig {
                tty: config.tty,
                entrypoint: words.next().unwrap_or_default(),
                arguments: words.collect(),
                privileged: Some(config.privileged),
                user: config.user.clone(),
            },
            open_stdin: config.attach_stdin,
            open_stderr: config.attach_stderr,
            open_stdout: config.attach_stdout,
            can_remove: false,
            container_id: exec.container.id().to_string(),
            detach_keys: config.detach_keys.clone(),
            pid: pid.into(),
        })
    }

    /// The container of an exec, for the server's version and policy decisions.
    ///
    /// # Errors
    /// NotFound.
    pub fn exec_container(&self, id: &str) -> Result<ContainerId, Error> {
        Ok(self.exec(id)?.container.id().clone())
    }

    fn exec(&self, id: &str) -> Result<Arc<Exec>, Error> {
        self.inner()
            .execs
            .find(id)
            .ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
    }
}

/// Whether a container can take another process; `name` is what the client called it.
fn active(container: &Container, name: &str) -> Result<(), Error> {
    match container.snapshot().status {
        Status::Running => Ok(()),
        Status::Paused => Err(Error::conflict(format!(
            "Container {name} is paused, unpause the container before exec"
        ))),
        Status::Restarting => Err(refusal::restarting(container)),
        Status::Created | Status::Removing | Status::Exited | Status::Dead => {
            Err(not_running(container))
        }
    }
}
