//! The engine itself: what is opened once, shared by all, and let go at the end.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use db::Db;
use registry::dns::Resolver;
use registry::pull::Puller;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::definition::Machine;
use crate::events::Journal;
use crate::exec::Execs;
use crate::index::Index;
use crate::info::Kernel;
use crate::networks::Networks;
use crate::pool::{self, Pool};
use crate::{
    Class, Config, ContainerId, Defaults, Definition, Error, adopt, events, host, launch, networks,
    rest, sweep, volumes,
};

/// How often commits are made safe against a power cut (DESIGN decision 16).
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Containers that the restart policy starts at the same time when the daemon begins: each makes a process, mounts and a
/// network, and requests must be answered meanwhile. More are not sooner done.
const BOOT_LAUNCHES_MAX: usize = 8;

/// How long a shutdown waits for effects under way. What is cut off then is what a crash would cut off.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Of the data root, as dockerd's.
const DATA_ROOT_MODE: u32 = 0o710;

/// Of the exec root: the sockets in it have modes of their own.
const EXEC_ROOT_MODE: u32 = 0o711;

/// Of what only the engine and the shims read: definitions and logs.
const PRIVATE_MODE: u32 = 0o700;

/// The engine. Clones share it; dropping the last one stops nothing that runs.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// What all parts of the engine share.
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) defaults: ArcSwap<Defaults>,
    pub(crate) db: Db,
    pub(crate) images: image::Store,
    pub(crate) puller: Puller,
    pub(crate) machine: Machine,
    /// The engine's own id, made once per data root.
    pub(crate) id: String,
    /// The program of the shims, on a file system that nobody can write to (decision 2).
    pub(crate) shim_program: OwnedFd,
    /// The daemon's own bounding set, as a mask.
    pub(crate) bounding: u64,
    pub(crate) index: Index,
    pub(crate) journal: Journal,
    pub(crate) pool: Pool,
    pub(crate) execs: Execs,
    pub(crate) networks: Networks,
    /// The volumes that somebody works on.
    pub(crate) volumes: volumes::Names,
    /// What the start found and left alone, for `info`.
    pub(crate) findings: Mutex<Vec<String>>,
    /// Held while a container gets another name.
    pub(crate) renaming: tokio::sync::Mutex<()>,
    /// Held by each start that the restart policy wants at boot.
    pub(crate) boot_launches: Semaphore,
    /// Cancelled by the shutdown.
    pub(crate) stopping: CancellationToken,
    tasks: TaskTracker,
    /// Work on threads: it cannot be cut off, and as long as it goes on the data root is ours.
    pub(crate) threads: TaskTracker,
    /// Held as long as the engine lives: a second daemon on the same data root is refused.
    lock: File,
}

impl Engine {
    /// Opens the engine on its directories: migrates the database, ends what a crash left half done, adopts
    /// the containers that run, and starts those whose restart policy says so. Needs a tokio runtime.
    ///
    /// # Errors
    /// Unavailable when another engine has the data root; Internal when directories or database cannot be
    /// opened.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let claim = Claim::take(&config).await?;
        Self::open_claimed(config, claim).await
    }

    /// As [`Engine::open`], on a data root that is ours already.
    ///
    /// # Errors
    /// Internal when directories or database cannot be opened.
    pub async fn open_claimed(config: Config, claim: Claim) -> Result<Self, Error> {
        // Awaited at once, before there is an engine that could count it.
        let opened = tokio::task::spawn_blocking(move || {
            let inner = Inner::open(config, claim)?;
            volumes::sweep(&inner)?;
            Ok::<_, Error>(inner)
        });
        let inner = opened
            .await
            .map_err(|source| Error::internal("open the engine", source))??;
        let engine = Self {
            inner: Arc::new(inner),
        };
        let unread = adopt::restore(&engine.inner).await?;
        sweep::sweep(&engine.inner, unread).await?;
        adopt::boot(&engine.inner).await;
        let inner = engine.inner.clone();
        inner.clone().spawn(Pool::refill(inner.clone()));
        inner.clone().spawn(networks::refill(inner.clone()));
        inner.clone().spawn(sync_regularly(inner.clone()));
        inner.clone().spawn(rest::rest(inner));
        Ok(engine)
    }

    /// Replaces the settings for containers that do not say, and journals that. Those that exist keep theirs.
    ///
    /// # Errors
    /// Internal when the event cannot be recorded; the settings are replaced all the same.
    pub fn reload(&self, defaults: Defaults) -> Result<(), Error> {
        let list = |words: &[String]| serde_json::to_string(words).unwrap_or_default();
        let attributes = [
            ("debug", defaults.debug.to_string()),
            ("default-ipc-mode", defaults.ipc_mode.clone()),
            ("default-shm-size", defaults.shm_size_bytes.to_string()),
            ("insecure-registries", list(defaults.registries.insecure())),
            ("labels", list(&defaults.labels)),
            ("live-restore", true.to_string()),
            ("name", Kernel::read().hostname),
            ("registry-mirrors", list(defaults.registries.mirrors())),
        ];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value));
        self.inner.defaults.store(Arc::new(defaults));
        let event = events::event("daemon", "reload", &self.inner.id, attributes.into());
        self.inner.journal.append(vec![event])
    }

    /// Stops the engine; containers go on running, and the next engine on this data root adopts them.
    /// Bounded by a few seconds. The lock of the data root is let go last, or else with the process.
    ///
    /// # Errors
    /// Internal when the last commits could not be synced.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        self.inner.networks.drain();
        for shim in self.inner.pool.drain() {
            launch::end(shim).await;
        }
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, self.inner.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("effects were still under way at shutdown");
        }
        let inner = self.inner.clone();
        self.inner.blocking(move || Ok(inner.db.sync()?)).await?;
        self.inner.threads.close();
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, self.inner.threads.wait())
            .await
            .is_err()
        {
            // The lock ends with the process, and so does what still writes.
            tracing::warn!("work on the data root was still under way at shutdown");
            return Ok(());
        }
        self.inner
            .lock
            .unlock()
            .map_err(|source| Error::internal("let the data root go", source))
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The image store.
    pub fn images(&self) -> &image::Store {
        &self.inner.images
    }

    /// What all parts share.
    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// The containers.
    pub(crate) fn index(&self) -> &Index {
        &self.inner.index
    }

    /// Journals something that happened to a container and changed nothing about its row. It has happened, whether
    /// it can be journaled or not.
    pub(crate) fn journal_container(
        &self,
        container: &crate::Container,
        action: &str,
        attributes: &[(&'static str, String)],
    ) {
        self.inner.journal_container(container, action, attributes);
    }
}

/// Makes a directory, and those above it, with this mode. One that is there may be an administrator's, and keeps its own.
fn make_private(path: &std::path::Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(not_a_directory)?;
    }
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        // The umask may have taken more away than is meant.
        Ok(()) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)),
        Err(_) if path.is_dir() => Ok(()),
        Err(error) => Err(not_a_directory(error)),
    }
}

/// What is there already where a directory shall be is something else.
fn not_a_directory(error: std::io::Error) -> std::io::Error {
    match error.kind() {
        std::io::ErrorKind::AlreadyExists => std::io::ErrorKind::NotADirectory.into(),
        _ => error,
    }
}

/// Makes a directory that a flag names, or one in it.
fn make_for(flag: &str, path: &std::path::Path, mode: u32) -> Result<(), Error> {
    make_private(path, mode).map_err(|source| {
        let mut error = Error::internal(format!("make {}", path.display()), source);
        let hint = format!("; {flag} wants a directory that can be written to");
        error.message.push_str(&hint);
        error
    })
}

/// A data root that no other engine has, until it is dropped.
#[derive(Debug)]
pub struct Claim(File);

impl Claim {
    /// Makes the data root if it is not there and claims it. Waits a moment for an engine that is ending.
    ///
    /// # Errors
    /// Unavailable when another engine has it; Internal when it cannot be made or locked.
    pub async fn take(config: &Config) -> Result<Self, Error> {
        let root = config.data_root.clone();
        // Awaited at once, before there is an engine that could count it.
        let taken = tokio::task::spawn_blocking(move || {
            make_for("--data-root", &root, DATA_ROOT_MODE)?;
            lock(&root).map(Self)
        });
        taken
            .await
            .map_err(|source| Error::internal("claim the data root", source))?
    }
}

impl Inner {
    fn open(config: Config, Claim(lock): Claim) -> Result<Self, Error> {
        host::check_kernel(&sys::kernel::release())?;
        for (path, mode, flag) in [
            (&config.exec_root, EXEC_ROOT_MODE, "--exec-root"),
            (&config.containers_dir(), PRIVATE_MODE, "--data-root"),
            (&config.run_dirs(), PRIVATE_MODE, "--exec-root"),
        ] {
            make_for(flag, path, mode)?;
        }
        let db = Db::open(&config.data_root.join("cooper.db"))?;
        let (strays, finding) = strays(&config, &db)?;
        let images = image::Store::open(&config.data_root, db.clone(), strays)?;
        let puller = Puller::new(images.clone(), Resolver::default())
            .map_err(|source| Error::internal("prepare to reach registries", source))?;
        let journal = Journal::open(&db)?;
        let id = engine_id(&config.data_root)?;
        let shim_program = sys::selfexe::seal_binary(&config.shim_program)
            .map_err(|source| Error::internal("seal the program of the shims", source))?;
        let networks = Networks::open(&config, &db)?;
        let inner = Self {
            defaults: ArcSwap::from_pointee(config.defaults.clone()),
            // The sweep knows a leftover of it by its name, as it does parked ones.
            machine: host::machine(
                &config.cgroup_parent,
                &format!("{}probe", pool::cgroup_prefix(&id)),
            ),
            config,
            db,
            images,
            puller,
            id,
            shim_program,
            bounding: host::bounding(),
            index: Index::default(),
            journal,
            pool: Pool::new(),
            execs: Execs::default(),
            networks,
            volumes: volumes::Names::default(),
            findings: Mutex::default(),
            renaming: tokio::sync::Mutex::default(),
            boot_launches: Semaphore::new(BOOT_LAUNCHES_MAX),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            threads: TaskTracker::new(),
            lock,
        };
        if let Some(text) = finding {
            inner.finding(text);
        }
        Ok(inner)
    }

    /// Tells an administrator, in the log and in `info`, of something that only he can decide.
    pub(crate) fn finding(&self, text: String) {
        tracing::warn!("{text}");
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        findings.push(format!("WARNING: {text}"));
    }

    /// How many futures run beside everything else.
    pub(crate) fn tasks_under_way(&self) -> usize {
        self.tasks.len()
    }

    /// Runs a future beside everything else; the shutdown waits for it (bounded).
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = future => {}
                () = stopping.cancelled() => {}
            }
        });
    }

    /// Runs what blocks on a thread for it. A panic there is an error here.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.threads
            .spawn_blocking(work)
            .await
            .unwrap_or_else(|source| Err(Error::internal("the engine failed at its work", source)))
    }

    /// As [`Inner::blocking`]; what the work answers beside its result is dropped after that was told, on its thread.
    pub(crate) async fn blocking_then_drop<T, R>(
        &self,
        work: impl FnOnce() -> Result<(T, R), Error> + Send + 'static,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
    {
        let (to, answer) = oneshot::channel();
        self.threads.spawn_blocking(move || {
            let (answer, rest) = match work() {
                Ok((answer, rest)) => (Ok(answer), Some(rest)),
                Err(error) => (Err(error), None),
            };
            // Whoever does not listen any more needs no answer.
            drop(to.send(answer));
            drop(rest);
        });
        let gone = |source| Err(Error::internal("the engine failed at its work", source));
        answer.await.unwrap_or_else(gone)
    }

    /// The cgroup below which a container's own one is.
    pub(crate) fn cgroup_parent(&self, definition: &Definition) -> String {
        match definition.host_config.cgroup_parent.as_str() {
            "" => self.config.cgroup_parent.clone(),
            own => own.to_owned(),
        }
    }

    /// As [`Inner::cgroup_parent`], by id; a container that nobody knows has the default.
    pub(crate) fn cgroup_parent_of(&self, id: &ContainerId) -> String {
        self.index.by_id(id).map_or_else(
            || self.config.cgroup_parent.clone(),
            |container| self.cgroup_parent(&container.snapshot().definition),
        )
    }

    /// See [`Engine::journal_container`].
    pub(crate) fn journal_container(
        &self,
        container: &crate::Container,
        action: &str,
        attributes: &[(&'static str, String)],
    ) {
        let snapshot = container.snapshot();
        let events = self.journal.container_events(
            &snapshot.definition,
            &snapshot.name,
            std::iter::once((action, attributes)),
        );
        self.note(events);
    }

    /// Journals what has happened, whether it can be journaled or not.
    pub(crate) fn note(&self, events: Vec<api::event::EventMessage>) {
        let told = events
            .first()
            .map(|event| (event.action.clone(), event.actor.id.clone()));
        if let Err(error) = self.journal.append(events) {
            tracing::warn!(event = ?told, %error, "an event is lost");
        }
    }
}

/// The file that keeps layers and blobs that the database does not know.
const KEEP_FILE: &str = "keep-unknown";

/// What becomes of layers and blobs without a row: they go, unless the database was lost beside them. Then they
/// stay until an administrator has decided.
fn strays(config: &Config, db: &Db) -> Result<(image::Strays, Option<String>), Error> {
    let keep = config.data_root.join(KEEP_FILE);
    let failed = |source| Error::internal(format!("make {}", keep.display()), source);
    if db.is_new()
        && ["layers", "content/sha256"]
            .iter()
            .any(|part| holds(config, part))
    {
        File::create(&keep).map_err(failed)?;
    }
    if !keep.exists() {
        return Ok((image::Strays::Remove, None));
    }
    let text = format!(
        "the database was made anew beside older layers and blobs, which are kept: remove {} to have those removed that it does not know",
        keep.display()
    );
    Ok((image::Strays::Keep, Some(text)))
}

fn holds(config: &Config, part: &str) -> bool {
    let entries = std::fs::read_dir(config.data_root.join(part));
    entries.is_ok_and(|mut entries| entries.next().is_some())
}

/// The file with the engine's id, as dockerd names it.
const ID_FILE: &str = "engine-id";

/// A random UUID that stays as long as the data root does.
fn engine_id(data_root: &std::path::Path) -> Result<String, Error> {
    let failed = |source| Error::internal("the engine's id", source);
    if let Ok(text) = std::fs::read_to_string(data_root.join(ID_FILE)) {
        let known = text.trim();
        if !known.is_empty() {
            return Ok(known.to_owned());
        }
    }
    let hex = crate::id::random_hex().map_err(failed)?;
    // RFC 9562: version 4, variant 10.
    let id = format!(
        "{}-{}-4{}-a{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..32]
    );
    let directory = File::open(data_root).map_err(failed)?;
    let durability = sys::file::Durability::Synced;
    sys::file::write_atomic(
        std::os::fd::AsFd::as_fd(&directory),
        ID_FILE.as_ref(),
        id.as_bytes(),
        0o600,
        durability,
    )
    .map_err(failed)?;
    Ok(id)
}

fn lock(root: &Path) -> Result<File, Error> {
    let path = root.join("cooper.lock");
    let failed = |source| Error::internal(format!("open {}", path.display()), source);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    match sys::file::lock_within(&file, sys::file::LOCK_PATIENCE) {
        Ok(true) => Ok(file),
        Ok(false) => Err(Error::new(
            Class::Unavailable,
            format!(
                "another Cooper is running on the data root {}: stop it, or choose another --data-root",
                root.display()
            ),
        )),
        Err(source) => Err(failed(source)),
    }
}

async fn sync_regularly(inner: Arc<Inner>) {
    let mut interval = tokio::time::interval(SYNC_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if inner.db.is_synced() {
            continue;
        }
        let db = inner.db.clone();
        let synced = inner.blocking(move || Ok(db.sync()?)).await;
        if let Err(error) = synced {
            tracing::error!(error = %error.message, "commits are not safe against a power cut");
        }
        let db = inner.db.clone();
        if let Err(error) = inner.blocking(move || Ok(db.checkpoint()?)).await {
            tracing::warn!(error = %error.message, "the database's log grows");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_the_engine_makes_is_open_to_none_but_whom_it_must() {
        let above = tempfile::tempdir().unwrap();
        let mode =
            |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let data = above.path().join("lib/data");
        make_private(&data, DATA_ROOT_MODE).unwrap();
        make_private(&data.join("containers"), PRIVATE_MODE).unwrap();
        assert_eq!(
            (mode(&data), mode(&data.join("containers"))),
            (0o710, 0o700)
        );
        // An administrator's directory is his.
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o750)).unwrap();
        make_private(&data, DATA_ROOT_MODE).unwrap();
        assert_eq!(mode(&data), 0o750);
        std::fs::write(above.path().join("file"), b"").unwrap();
        make_private(&above.path().join("file"), PRIVATE_MODE).unwrap_err();
    }
}
