//! The lifecycle verbs of the façade: find the container, ask its task, word the answer.
//!
//! A call whose future is dropped (the client went away) has been handed over already and goes on.

use std::sync::Arc;
use std::time::Duration;

use api::options::{RemoveOptions, StopOptions, WindowSize};
use shim::protocol;
use sys::signal::Signal;

use crate::container::Container;
use crate::refusal::{self, Verb};
use crate::step::{Request, Stop, Timeout};
use crate::{Class, Engine, Error, files, lookup};

impl Engine {
    /// Finds a container by id, name or unique prefix of an id.
    ///
    /// # Errors
    /// NotFound, InvalidParameter for an ambiguous prefix.
    pub fn container(&self, name: &str) -> Result<Arc<Container>, Error> {
        lookup::container(self.index(), name)
    }

    /// Starts a container (`POST /containers/{id}/start`); answers when its program runs.
    ///
    /// # Errors
    /// NotModified when it runs, Conflict when paused or being removed, InvalidParameter (exit codes 126
    /// and 127) or Internal when it cannot be started.
    pub async fn start(&self, name: &str) -> Result<(), Error> {
        self.ask(name, Verb::Start, Request::Start).await
    }

    /// Stops a container (`POST /containers/{id}/stop`); answers when it has exited.
    ///
    /// # Errors
    /// NotModified when it does not run; Internal when it does not even die of SIGKILL.
    pub async fn stop(&self, name: &str, options: &StopOptions) -> Result<(), Error> {
        self.ask(name, Verb::Stop, Request::Stop(stop(options)))
            .await
    }

    /// Refuses to stop or restart a container with a signal that is none, as dockerd does: not before it is known that
    /// a process would get it.
    ///
    /// # Errors
    /// NotModified when a container to be stopped does not run, Internal with `reason` otherwise; nothing for a
    /// container to be restarted that does not run.
    pub fn refuse_signal(&self, name: &str, restart: bool, reason: &str) -> Result<(), Error> {
        let container = self.container(name)?;
        let context = match (restart, container.snapshot().status.is_running()) {
            (true, false) => return Ok(()),
            (true, true) => format!("Cannot restart container {name}"),
            (false, true) => format!("cannot stop container: {name}"),
            (false, false) => return Err(Error::not_modified("container is already stopped")),
        };
        Err(Error::new(Class::Internal, reason).wrap(&context))
    }

    /// Stops a container if it runs and starts it (`POST /containers/{id}/restart`).
    ///
    /// # Errors
    /// As [`Engine::stop`] and [`Engine::start`], but NotModified.
    pub async fn restart(&self, name: &str, options: &StopOptions) -> Result<(), Error> {
        self.ask(name, Verb::Restart, Request::Restart(stop(options)))
            .await
    }

    /// Sends a signal (`POST /containers/{id}/kill`); after SIGKILL answers when it has exited.
    ///
    /// # Errors
    /// Conflict when it does not run.
    pub async fn kill(&self, name: &str, signal: Signal) -> Result<(), Error> {
        let signal = signal.number();
        self.ask(name, Verb::Kill, Request::Kill { signal }).await
    }

    /// Freezes a container (`POST /containers/{id}/pause`).
    ///
    /// # Errors
    /// Conflict when it does not run or is paused already.
    pub async fn pause(&self, name: &str) -> Result<(), Error> {
        self.ask(name, Verb::Pause, Request::Pause).await
    }

    /// Thaws a container (`POST /containers/{id}/unpause`).
    ///
    /// # Errors
    /// Conflict when it is not paused.
    pub async fn unpause(&self, name: &str) -> Result<(), Error> {
        self.ask(name, Verb::Unpause, Request::Unpause).await
    }

    /// Removes a container (`DELETE /containers/{id}`); answers when nothing is left of it.
    ///
    /// # Errors
    /// Conflict when it runs and the removal has no force, or when it is being removed already.
    pub async fn remove(&self, name: &str, options: &RemoveOptions) -> Result<(), Error> {
        if options.link {
            self.container(name)?;
            // Each container has the one name that it was given, and that is no link.
            let text = "Conflict, cannot remove the default link name of the container";
            return Err(Error::new(Class::Internal, text));
        }
        let request = Request::Remove {
            force: options.force,
            volumes: options.volumes,
        };
        self.ask(name, Verb::Remove, request).await
    }

    /// Gives a container another name (`POST /containers/{id}/rename`).
    ///
    /// # Errors
    /// InvalidParameter for a bad name or its present one, Conflict when another has the name.
    pub async fn rename(&self, name: &str, new_name: &str) -> Result<(), Error> {
        if name.is_empty() || new_name.is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        let container = self.container(name)?;
        // dockerd looks at the name with its slash, and shows it so.
        let new_name: Arc<str> = api::name::container_name(new_name)
            .map_err(|error| Error::from(error.slashed()))
            .map_err(|error| error.wrap("Error when allocating new name"))?
            .into();
        if container.snapshot().name == new_name {
            return Err(Error::invalid(
                "Renaming a container with the same name as its current name",
            ));
        }
        self.index()
            .claim(&new_name, container.id())
            .map_err(|error| error.wrap("Error when allocating new name"))?;
        // One at a time: the file must end with the name that the row ends with.
        let renaming = self.inner().renaming.lock().await;
        let renamed = self.rename_claimed(name, &container, &new_name).await;
        drop(renaming);
        renamed.inspect_err(|_| {
            if container.snapshot().name != new_name {
                self.index().release(&new_name, container.id());
            }
        })
    }

    /// The file first: what cannot be written is not done, and a crash in between has promised nothing.
    async fn rename_claimed(
        &self,
        name: &str,
        container: &Arc<Container>,
        new_name: &Arc<str>,
    ) -> Result<(), Error> {
        let old_name = container.snapshot().name.clone();
        self.write_name(container, new_name).await?;
        let request = Request::Rename {
            name: new_name.clone(),
        };
        let renamed = self
            .ask_container(name, container, Verb::Rename, request)
            .await;
        if renamed.is_err()
            && let Err(error) = self.write_name(container, &old_name).await
        {
            tracing::warn!(container = %container.id().short(), error = %error.message, "its file keeps a name it did not get");
        }
        renamed
    }

    async fn write_name(&self, container: &Container, name: &Arc<str>) -> Result<(), Error> {
        let (engine, name) = (self.inner().clone(), name.clone());
        let definition = container.snapshot().definition.clone();
        let writing = engine.clone();
        engine
            .blocking(move || {
                files::write_definition(&writing, &definition, &name)?;
                sys::fault!("engine.rename.file");
                Ok(())
            })
            .await
    }

    /// Sets the size of a container's terminal (`POST /containers/{id}/resize`).
    ///
    /// # Errors
    /// Conflict when it does not run.
    pub async fn resize(&self, name: &str, size: WindowSize) -> Result<(), Error> {
        let container = self.container(name)?;
        let id = container.id().clone();
        if !container.snapshot().status.has_process() {
            return Err(refusal::not_running(&container));
        }
        let request = protocol::Request::Resize {
            process: protocol::ProcessId::Init,
            size: protocol::Size {
                width: size.width,
                height: size.height,
            },
        };
        // As dockerd: a process without a terminal has no size, which is no error.
        if container.snapshot().definition.config.tty {
            let resized = container.shim().call(&request).await;
            let doing = format!("cannot resize container {id}");
            resized.map_err(|error| refusal::shim_error(error, &container, &doing))?;
        }
        self.journal_container(
            &container,
            "resize",
            &[
                ("height", size.height.to_string()),
                ("width", size.width.to_string()),
            ],
        );
        Ok(())
    }

    async fn ask(&self, name: &str, verb: Verb, request: Request) -> Result<(), Error> {
        let container = self.container(name)?;
        self.ask_container(name, &container, verb, request).await
    }

    async fn ask_container(
        &self,
        name: &str,
        container: &Arc<Container>,
        verb: Verb,
        request: Request,
    ) -> Result<(), Error> {
        container
            .ask(request)
            .await
            .map_err(|refused| refusal::into_error(refused, verb, name, container))
    }
}

fn stop(options: &StopOptions) -> Stop {
    let timeout = options.timeout_seconds.map(|seconds| {
        u64::try_from(seconds).map_or(Timeout::Never, |seconds| {
            Timeout::After(Duration::from_secs(seconds))
        })
    });
    Stop {
        signal: options.signal,
        timeout,
    }
}
