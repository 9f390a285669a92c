//! Making a container: claim the row, make the files, say that it is ready, show it.

use std::sync::Arc;
use std::time::Duration;

use api::container::{CreateRequest, CreateResponse};
use api::image::Platform;
use api::options::CreateOptions;
use image::manifest;
use sys::clock::now_ns;

use crate::definition::{self, Definition, Origin};
use crate::open::Inner;
use crate::rows::{self, Phase};
use crate::state::Facts;
use crate::step::{RestartPolicy, Rules, State};
use crate::task::Task;
use crate::volumes::{self, Anonymous, Wanted};
use crate::{ContainerId, Engine, Error, files, id, lookup};

/// How long what a failed create has left waits before it is tried again.
const UNDO_RETRY: Duration = Duration::from_secs(1);

impl Engine {
    /// Creates a container (`POST /containers/create`).
    ///
    /// # Errors
    /// NotFound for the image, InvalidParameter for what dockerd refuses, Conflict for a name in use.
    pub async fn create(
        &self,
        options: CreateOptions,
        request: CreateRequest,
    ) -> Result<CreateResponse, Error> {
        let inner = self.inner().clone();
        self.inner()
            .blocking(move || create(&inner, &options, request))
            .await
    }
}

/// What of a definition decides the container's life.
pub(crate) fn rules_of(definition: &Definition) -> Rules {
    let policy = &definition.host_config.restart_policy;
    let restart = match policy.name.as_str() {
        "always" => RestartPolicy::Always,
        "unless-stopped" => RestartPolicy::UnlessStopped,
        "on-failure" => RestartPolicy::OnFailure {
            max: u32::try_from(policy.maximum_retry_count).unwrap_or(0),
        },
        _ => RestartPolicy::No,
    };
    let stop_timeout = definition.config.stop_timeout.unwrap_or(STOP_TIMEOUT_S);
    Rules {
        restart,
        auto_remove: definition.host_config.auto_remove,
        stop_signal: definition.stop_signal().number(),
        // Negative: for ever.
        stop_timeout: u64::try_from(stop_timeout).ok().map(Duration::from_secs),
    }
}

/// Seconds a stop waits before SIGKILL when neither request nor image say (Docker's number).
const STOP_TIMEOUT_S: i64 = 10;

fn create(
    engine: &Arc<Inner>,
    options: &CreateOptions,
    request: CreateRequest,
) -> Result<CreateResponse, Error> {
    let image = engine.images.resolve(&request.config.image)?;
    if let Some(wanted) = &options.platform {
        check_platform(&image, &request.config.image, wanted)?;
    }
    let id =
        ContainerId::random().map_err(|source| Error::internal("make a container's id", source))?;
    let name = claim_name(engine, &options.name, &id)?;
    let made = make(engine, &id, &name, &image, request);
    if made.is_err() {
        engine.index.release(&name, &id);
    }
    made
}

/// dockerd's refusal of an image that was made for another machine than the request asks for.
fn check_platform(image: &image::Image, name: &str, wanted: &Platform) -> Result<(), Error> {
    let found = manifest::Platform {
        architecture: image.config.architecture.clone(),
        os: image.config.os.clone(),
        variant: image.config.variant.clone(),
        ..manifest::Platform::default()
    };
    let wanted = manifest::Platform {
        architecture: wanted.architecture.clone(),
        os: wanted.os.clone(),
        variant: wanted.variant.clone(),
        ..manifest::Platform::default()
    };
    if (&found.os, &found.architecture) == (&wanted.os, &wanted.architecture) {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "image with reference {name} was found but its platform ({found}) does not match the specified platform ({wanted})"
    )))
}

fn make(
    engine: &Arc<Inner>,
    id: &ContainerId,
    name: &Arc<str>,
    image: &image::Image,
    request: CreateRequest,
) -> Result<CreateResponse, Error> {
    let image_id = image.id.to_string();
    let origin = Origin {
        id: id.clone(),
        name,
        created_ns: now_ns(),
        image: Some((&image_id, &image.config)),
    };
    let (mut definition, mut warnings) =
        engine.with_host(|host| definition::define(request, origin, host))?;
    // Ours alone: dockerd runs them.
    if definition::has_health_check(&definition.config) {
        warnings.push("Health checks are accepted and kept, but not run yet.".to_owned());
    }
    if definition::has_links(&definition.host_config) {
        warnings.push("Links are accepted and kept, but not made yet.".to_owned());
    }
    let wanted = volumes::settle(engine, &mut definition)?;
    claim_row(engine, name, &definition)?;
    sys::fault!("engine.create.claimed");
    let ready = fill(engine, name, &definition, &wanted)
        .and_then(|()| save_ready(engine, name, &definition));
    if let Err(error) = ready {
        if let Err(leftover) = undo(engine, id) {
            tracing::error!(container = %id.short(), error = %leftover.message, "undo a create");
            engine.spawn(undo_later(engine.clone(), id.clone()));
        }
        return Err(error);
    }
    let state = State::idle(rules_of(&definition), name.clone(), Facts::default());
    let (task, messages) = Task::new(engine, definition, state);
    engine.index.insert(task.container().clone());
    engine.spawn(task.run(messages));
    Ok(CreateResponse {
        id: id.to_string(),
        warnings,
    })
}

fn claim_row(engine: &Inner, name: &str, definition: &Definition) -> Result<(), Error> {
    let insert = || {
        engine
            .db
            .write(|transaction| rows::insert(transaction, name, definition))
    };
    let Err(error) = insert() else { return Ok(()) };
    let stale = engine
        .db
        .read(|connection| rows::creating(connection, name))?;
    match stale {
        // The name is claimed, so this is what a failed create has left.
        Some(stale) => {
            undo(engine, &stale)?;
            insert()
        }
        None => Err(error),
    }
}

/// Removes all that a create has made of which nobody was told. What stays behind has a row in the making: the
/// next start destroys it at the latest.
fn undo(engine: &Inner, id: &ContainerId) -> Result<(), Error> {
    files::destroy(engine, id, Anonymous::Remove)?;
    engine.db.write(|transaction| rows::delete(transaction, id))
}

/// As [`undo`], again and again: on a full disk it works once there is room.
async fn undo_later(engine: Arc<Inner>, id: ContainerId) {
    loop {
        tokio::time::sleep(UNDO_RETRY).await;
        let (undoing, of) = (engine.clone(), id.clone());
        if engine.blocking(move || undo(&undoing, &of)).await.is_ok() {
            return;
        }
    }
}

fn fill(
    engine: &Inner,
    name: &str,
    definition: &Definition,
    wanted: &[Wanted],
) -> Result<(), Error> {
    let image = definition
        .image
        .parse()
        .map_err(|source: image::DigestError| Error::internal("read the image's id", source))?;
    let held = engine.images.hold(&image, definition.id.as_str())?;
    sys::fault!("engine.create.held");
    files::make(engine, definition, name, &held)?;
    sys::fault!("engine.create.files");
    volumes::take(engine, &definition.id, wanted, &held)
}

fn save_ready(engine: &Inner, name: &str, definition: &Definition) -> Result<(), Error> {
    let events =
        engine
            .journal
            .container_events(definition, name, std::iter::once(("create", &[][..])));
    engine.journal.write(&engine.db, events, |transaction| {
        rows::update(transaction, &definition.id, Phase::Ready, &Facts::default())
    })?;
    sys::fault!("engine.create.ready");
    Ok(())
}

fn claim_name(engine: &Inner, wanted: &str, id: &ContainerId) -> Result<Arc<str>, Error> {
    if !wanted.is_empty() {
        let name: Arc<str> = api::name::container_name(wanted)?.into();
        engine.index.claim(&name, id)?;
        return Ok(name);
    }
    loop {
        let name: Arc<str> =
            lookup::random_name(id::random_number, |name| engine.index.is_taken(name))
                .map_err(|source| Error::internal("make a name", source))?
                .into();
        // Another create may have taken it in between.
        if engine.index.claim(&name, id).is_ok() {
            return Ok(name);
        }
    }
}
