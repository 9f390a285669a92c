//! The reading half of the façade: lists, inspections, logs, events, the engine itself.
//!
//! Renderings are pure and stand in their own modules; here they get their data.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use api::container::TopResponse;
use api::container::inspect::ContainerInspect;
use api::container::summary::ContainerSummary;
use api::options::{EventsOptions, ListOptions, LogsOptions};
use api::system::{SystemInfo, SystemVersion};
use sys::clock::now_ns;

use crate::info::{Counts, Daemon, Kernel};
use crate::inspect::Paths;
use crate::list::{Lookups, View};
use crate::logs::{Form, Logs};
use crate::networks::render;
use crate::{
    Class, Container, Engine, Error, Status, events, info, inspect, launch, list, log_file,
    refusal, top,
};

/// The Docker release whose behaviour is matched; clients read it as the server's version.
const DOCKER_RELEASE: &str = "28.5.2";

/// How long a client waits for what is read from the machine: /proc, cgroups, the host's `ps`. Each takes milliseconds,
/// but a file system that hangs may hang them.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// A container's log on its way to a client.
pub struct LogStream {
    /// Whether the container has a terminal: the text is raw then, framed otherwise.
    pub tty: bool,
    /// The log, block by block.
    pub logs: Logs,
}

fn view(engine: &Engine, container: &Container) -> View {
    let snapshot = container.snapshot();
    View {
        network: render::settings(&engine.inner().networks, &snapshot),
        snapshot,
        health: None,
        sizes: None,
    }
}

impl Engine {
    /// Lists containers (`GET /containers/json`).
    ///
    /// # Errors
    /// InvalidParameter for bad filters, NotFound for a container named by `before` or `since`.
    pub fn list(&self, options: &ListOptions) -> Result<Vec<ContainerSummary>, Error> {
        let views = self
            .index()
            .all()
            .iter()
            .map(|container| view(self, container))
            .collect();
        let image = |name: &str| {
            let id = self.images().resolve_id(name).ok()?;
            Some(id.to_string())
        };
        let lookups = Lookups {
            container: &|name| Ok(self.container(name)?.id().clone()),
            image: &image,
            descends: &|image, ancestor| image == ancestor || self.is_built_on(image, ancestor),
        };
        list::list(views, options, &lookups, now_ns())
    }

    /// Whether an image was built on another: it begins with all of its layers.
    fn is_built_on(&self, image: &str, ancestor: &str) -> bool {
        let (Ok(image), Ok(ancestor)) = (
            self.images().resolve(image),
            self.images().resolve(ancestor),
        ) else {
            return false;
        };
        let diff_ids = |image: &image::Image| {
            image
                .layers
                .iter()
                .map(|layer| layer.diff_id.clone())
                .collect::<Vec<_>>()
        };
        diff_ids(&image).starts_with(&diff_ids(&ancestor))
    }

    /// Shows a container whole (`GET /containers/{id}/json`).
    ///
    /// # Errors
    /// NotFound, InvalidParameter for an ambiguous prefix.
    pub fn inspect(&self, name: &str) -> Result<ContainerInspect, Error> {
        let container = self.container(name)?;
        let layers = match container.held(self.images())? {
            Some(held) => held
                .lower
                .iter()
                .map(|lower| held.layers_dir.join(lower))
                .collect(),
            None => Vec::new(),
        };
        // It has the files of the container whose network it joined; its id stands in the mode since it was made.
        let mode = &container.snapshot().definition.host_config.network_mode;
        let peer = mode
            .strip_prefix("container:")
            .and_then(|id| id.parse().ok());
        let peer = peer.map(|id| self.config().container_dir(&id));
        let paths = Paths {
            directory: &self.config().container_dir(container.id()),
            layers: &layers,
            network_directory: peer.as_deref(),
        };
        Ok(inspect::inspect(
            &view(self, &container),
            &paths,
            container.execs.ids(),
        ))
    }

    /// Shows the processes of a container (`GET /containers/{id}/top`). Reads /proc, so it blocks shortly.
    ///
    /// # Errors
    /// Conflict when it does not run, Internal with the words of ps for options that it does not know, Unavailable when
    /// the machine does not tell in time.
    pub async fn top(&self, name: &str, ps_args: &str) -> Result<TopResponse, Error> {
        let container = self.container(name)?;
        let snapshot = container.snapshot();
        if !snapshot.status.has_process() {
            return Err(refusal::not_running(&container));
        }
        let ps_args = if ps_args.is_empty() { "-ef" } else { ps_args }.to_owned();
        let columns = top::parse(&ps_args)?;
        let engine = self.clone();
        let looking = self.inner().blocking(move || {
            let failed = |source| Error::internal("read the container's processes", source);
            let parent = engine.inner().cgroup_parent(&snapshot.definition);
            let cgroup = launch::open_cgroup(&parent, container.id().as_str()).map_err(failed)?;
            let pids = cgroup.map_or(Ok(Vec::new()), |cgroup| cgroup.pids());
            let pids = pids.map_err(failed)?;
            if pids.is_empty() {
                // It has just ended, and its cgroup may be gone already.
                return Err(refusal::not_running(&container));
            }
            let shown = match columns {
                Some(columns) => top::top(&columns, &pids),
                None => top::from_ps(&top::host_ps(&ps_args, &pids)?, &pids),
            }?;
            engine.journal_container(&container, "top", &[]);
            Ok(shown)
        });
        within(LOOK_TIMEOUT, looking).await
    }

    /// Reads a container's log (`GET /containers/{id}/logs`). Following ends when the container does.
    ///
    /// # Errors
    /// NotFound; Conflict while it is removed; NotImplemented when it keeps no log; Internal when the log cannot be
    /// watched.
    pub fn logs(&self, name: &str, options: &LogsOptions) -> Result<LogStream, Error> {
        let container = self.container(name)?;
        let snapshot = container.snapshot();
        match snapshot.status {
            Status::Removing | Status::Dead => {
                return Err(Error::conflict(
                    "can not get logs from container which is dead or marked for removal",
                ));
            }
            Status::Created
            | Status::Running
            | Status::Paused
            | Status::Restarting
            | Status::Exited => {}
        }
        if snapshot.definition.host_config.log_config.r#type == "none" {
            return Err(Error::new(
                Class::NotImplemented,
                "configured logging driver does not support reading",
            ));
        }
        let directory = self.config().container_dir(container.id());
        // As dockerd, which makes the driver to read with it: what could not start cannot be read either.
        log_file::settings(&snapshot.definition, &snapshot.name, &directory)
            .map_err(|why| Error::new(Class::Internal, why))?;
        let tty = snapshot.definition.config.tty;
        let form = if tty { Form::Raw } else { Form::Frames };
        let path = directory.join(format!("{}-json.log", container.id()));
        let logs = Logs::open(&path, options, form, Box::pin(ended(container)))
            .map_err(|source| Error::internal("watch the log", source))?;
        Ok(LogStream { tty, logs })
    }

    /// Streams events (`GET /events`).
    ///
    /// # Errors
    /// InvalidParameter for bad filters or times, Internal when the journal cannot be read.
    pub fn events(&self, options: EventsOptions) -> Result<events::Stream, Error> {
        self.inner().journal.subscribe(options)
    }

    /// Describes the engine and its machine (`GET /info`).
    ///
    /// # Errors
    /// Internal when images cannot be counted, Unavailable when the machine does not tell in time.
    pub async fn info(&self) -> Result<SystemInfo, Error> {
        let engine = self.clone();
        within(
            LOOK_TIMEOUT,
            self.inner().blocking(move || engine.describe()),
        )
        .await
    }

    fn describe(&self) -> Result<SystemInfo, Error> {
        let mut counts = Counts {
            images: i64::try_from(self.images().list()?.len()).unwrap_or(i64::MAX),
            event_listeners: self.inner().journal.listeners(),
            open_files: info::open_files(),
            tasks: info::tasks(),
            ..Counts::default()
        };
        for container in self.index().all() {
            match container.snapshot().status {
                Status::Running | Status::Restarting => counts.running += 1,
                Status::Paused => counts.paused += 1,
                Status::Created | Status::Exited | Status::Removing | Status::Dead => {
                    counts.stopped += 1
                }
            }
        }
        let defaults = self.inner().defaults.load_full();
        let mut warnings = self.inner().networks.warnings();
        let findings = &self.inner().findings;
        warnings.extend_from_slice(&findings.lock().unwrap_or_else(PoisonError::into_inner));
        let daemon = Daemon {
            id: &self.inner().id,
            version: DOCKER_RELEASE,
            backing_filesystem: info::backing_filesystem(&self.config().data_root),
            config: self.config(),
            defaults: &defaults,
            debug: defaults.debug,
            mirrors: defaults.registries.mirrors(),
            insecure: defaults.registries.insecure(),
            warnings: &warnings,
            controllers: self.inner().machine.controllers,
            runtimes: &crate::RUNTIMES,
        };
        let now = api::time::Time::from_unix_nanos(now_ns()).to_string();
        Ok(info::info(&daemon, &Kernel::read(), &counts, now))
    }

    /// Tells versions (`GET /version`).
    pub fn version(&self) -> SystemVersion {
        static KERNEL: std::sync::OnceLock<Kernel> = std::sync::OnceLock::new();
        info::version(DOCKER_RELEASE, KERNEL.get_or_init(Kernel::read))
    }

    /// Notes that a client left a container by its detach keys.
    ///
    /// # Errors
    /// NotFound.
    pub fn detached(&self, name: &str) -> Result<(), Error> {
        self.journal_container(&*self.container(name)?, "detach", &[]);
        Ok(())
    }
}

/// What `looking` answers, or that it does not within `limit`; it goes on all the same.
async fn within<T>(
    limit: Duration,
    looking: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let late = |_| {
        let message = format!("the machine did not answer within {limit:?}");
        Err(Error::new(Class::Unavailable, message))
    };
    tokio::time::timeout(limit, looking)
        .await
        .unwrap_or_else(late)
}

/// Ready when the container does not run any more.
async fn ended(container: Arc<Container>) {
    let mut changes = container.changes();
    while container.snapshot().status.is_running() {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_does_not_wait_for_a_machine_that_hangs() {
        let limit = Duration::from_millis(10);
        let error = within::<()>(limit, std::future::pending())
            .await
            .unwrap_err();
        assert_eq!(error.class, Class::Unavailable);
        assert_eq!(error.message, "the machine did not answer within 10ms");
        assert_eq!(within(limit, async { Ok(7) }).await.unwrap(), 7);
    }
}
