//! Containers, all but their streams.

use api::container::create::CreateBodyError;
use api::container::inspect::Sizes;
use api::container::{CreateRequest, WaitResponse};
use api::filters::Filters;
use api::go::{self, DecodeError};
use api::options::{
    CreateOptions, ListOptions, RemoveOptions, StopOptions, WaitCondition, WindowSize,
};
use engine::Class;
use hyper::StatusCode;
use sys::signal::{SIGKILL, Signal, SignalError};

use crate::body::Body;
use crate::failure::Failure;
use crate::policy::{self, Operation};
use crate::request::{Call, Reply};
use crate::respond::{JSON, empty, json, stream};
use crate::version;

/// Bodies of `start` that are allowed: `{}`, `null` and their like. Longer ones were a host configuration until 1.23.
const MAX_START_BODY_BYTES: u64 = 7;

/// `GET /containers/json`
pub(crate) fn list(call: Call) -> Reply {
    Box::pin(async move {
        let options = ListOptions {
            all: call.query.flag("all"),
            limit: call.query.number("limit")?.unwrap_or(0),
            size: call.query.flag("size"),
            filters: Filters::parse(call.query.get("filters"))?,
        };
        let engine = call.engine()?;
        let mut containers = engine.list(&options)?;
        if options.size {
            for container in &mut containers {
                let sizes = match engine.sizes(&container.id).await {
                    // One that is removed meanwhile is no reason to refuse the others.
                    Err(error) if error.class == Class::NotFound => Sizes::default(),
                    measured => measured?,
                };
                (container.size_rw, container.size_root_fs) = (sizes.rw, sizes.root_fs);
            }
        }
        version::containers(call.requested, &mut containers);
        Ok(json(StatusCode::OK, &containers))
    })
}

/// `POST /containers/create`
pub(crate) fn create(mut call: Call) -> Reply {
    Box::pin(async move {
        let body = call.json_bytes().await?;
        let mut request = CreateRequest::decode(&body).map_err(|error| match error {
            // Here dockerd says what was missing, elsewhere an empty body is an empty object.
            CreateBodyError::Decode(DecodeError::Empty) => {
                Failure::invalid("invalid JSON: got EOF while reading request body")
            }
            other => other.into(),
        })?;
        let warnings = version::create(call.requested, &mut request)?;
        let platform = if call.requested.below(41) {
            None
        } else {
            call.platform()?
        };
        let options = CreateOptions {
            name: call.query.get("name").to_owned(),
            platform,
        };
        policy::check(&Operation::Create(&request))?;
        let mut created = call.engine()?.create(options, request).await?;
        created.warnings.extend(warnings);
        Ok(json(StatusCode::CREATED, &created))
    })
}

/// `GET /containers/{id}/json`
pub(crate) fn inspect(call: Call) -> Reply {
    Box::pin(async move {
        let engine = call.engine()?;
        let mut container = engine.inspect(&call.name)?;
        if call.query.flag("size") {
            let sizes = engine.sizes(&container.id).await?;
            container = container.with_sizes(sizes);
        }
        version::container(call.requested, &mut container);
        Ok(json(StatusCode::OK, &container))
    })
}

/// `GET /containers/{id}/top`
pub(crate) fn top(call: Call) -> Reply {
    Box::pin(async move {
        let ps_args = call.query.get("ps_args");
        let processes = call.engine()?.top(&call.name, ps_args).await?;
        Ok(json(StatusCode::OK, &processes))
    })
}

/// `POST /containers/{id}/start`
pub(crate) fn start(call: Call) -> Reply {
    Box::pin(async move {
        if call
            .content_length()
            .is_none_or(|length| length > MAX_START_BODY_BYTES)
        {
            return Err(Failure::invalid(
                "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
            ));
        }
        call.engine()?.start(&call.name).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    })
}

/// `POST /containers/{id}/stop`
pub(crate) fn stop(call: Call) -> Reply {
    Box::pin(async move {
        let options = stop_options(&call, Verb::Stop)?;
        call.engine()?.stop(&call.name, &options).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    })
}

/// `POST /containers/{id}/restart`
pub(crate) fn restart(call: Call) -> Reply {
    Box::pin(async move {
        let options = stop_options(&call, Verb::Restart)?;
        call.engine()?.restart(&call.name, &options).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Stop,
    Restart,
}

fn stop_options(call: &Call, verb: Verb) -> Result<StopOptions, Failure> {
    let timeout_seconds = call.query.number("t")?;
    let signal = match call.query.get("signal") {
        "" => None,
        // Before 1.42 the parameter did not exist.
        _ if call.requested.below(42) => None,
        text => match text.parse::<Signal>() {
            Ok(signal) => Some(signal.number()),
            // dockerd sends it, the kernel refuses it, and SIGKILL follows.
            Err(SignalError::Unsupported(_)) => Some(SIGKILL),
            Err(SignalError::Invalid(_)) => {
                let reason = format!("invalid signal: {text}");
                let restart = verb == Verb::Restart;
                call.engine()?.refuse_signal(&call.name, restart, &reason)?;
                None
            }
        },
    };
    Ok(StopOptions {
        signal,
        timeout_seconds,
    })
}

/// `POST /containers/{id}/kill`
pub(crate) fn kill(call: Call) -> Reply {
    Box::pin(async move {
        let name = &call.name;
        let signal = match call.query.get("signal") {
            "" => Signal::KILL,
            text => text.parse().map_err(|error| {
                Failure::invalid(format!("cannot kill container: {name}: {error}"))
            })?,
        };
        let context = |error: engine::Error| match error.class {
            engine::Class::NotFound => error.wrap(&format!("cannot kill container: {name}")),
            _ => error,
        };
        let engine = call.engine()?;
        engine.container(name).map_err(context)?;
        engine.kill(name, signal).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    })
}

/// `POST /containers/{id}/pause`
pub(crate) fn pause(call: Call) -> Reply {
    Box::pin(async move {
        call.engine()?.pause(&call.name).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    })
}

/// `POST /containers/{id}/unpause`
pub(crate) fn unpause(call: Call) -> Reply {
    Box::pin(async move {
        call.engine()?.unpause(&call.name).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    })
}

/// `POST /containers/{id}/rename`
pub(crate) fn rename(call: Call) -> Reply {
    Box::pin(async move {
        call.engine()?
            .rename(&call.name, call.query.get("name"))
            .await?;
        Ok(empty(StatusCode::NO_CONTENT))
    })
}

/// `POST /containers/{id}/resize`
pub(crate) fn resize(call: Call) -> Reply {
    Box::pin(async move {
        let size = window_size(&call)?;
        call.engine()?.resize(&call.name, size).await?;
        Ok(empty(StatusCode::OK))
    })
}

/// `h` and `w`, in dockerd's order of complaint.
pub(crate) fn window_size(call: &Call) -> Result<WindowSize, Failure> {
    let height = call.query.terminal_side("h", "height")?;
    let width = call.query.terminal_side("w", "width")?;
    Ok(WindowSize { height, width })
}

/// `DELETE /containers/{id}`
pub(crate) fn remove(call: Call) -> Reply {
    Box::pin(async move {
        let options = RemoveOptions {
            force: call.query.flag("force"),
            volumes: call.query.flag("v"),
            link: call.query.flag("link"),
        };
        call.engine()?.remove(&call.name, &options).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    })
}

/// `POST /containers/{id}/wait`: the headers go out at once, because the CLI starts the container only after them.
pub(crate) fn wait(call: Call) -> Reply {
    Box::pin(async move {
        let old = call.requested.below(30);
        let condition = match call.query.get("condition") {
            _ if old => WaitCondition::NotRunning,
            "" | "not-running" => WaitCondition::NotRunning,
            "next-exit" => WaitCondition::NextExit,
            "removed" => WaitCondition::Removed,
            other => return Err(Failure::invalid(format!("invalid condition: {other:?}"))),
        };
        let waiting = call.engine()?.wait(&call.name, condition)?;
        if old {
            return Ok(json(StatusCode::OK, &waiting.done().await));
        }
        // Before 1.34 a removal that failed was told by an answer without a body.
        let silent = call.requested.below(34) && condition == WaitCondition::Removed;
        let (sender, body) = Body::stream();
        let stopping = call.app.stopping().clone();
        call.app.tasks().spawn(async move {
            let done = tokio::select! {
                done = waiting.done() => done,
                () = sender.closed() => return,
                () = stopping.cancelled() => return,
            };
            if let Some(answer) = wait_answer(&done, silent)
                && sender.send(Ok(answer.into())).await.is_err()
            {
                tracing::debug!("a waiting client left at the last moment");
            }
        });
        Ok(stream(JSON, body))
    })
}

fn wait_answer(done: &WaitResponse, silent: bool) -> Option<Vec<u8>> {
    (!(silent && done.error.is_some())).then(|| go::encode_line(done, "\n"))
}
