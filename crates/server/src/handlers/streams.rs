//! What flows: logs, events, attach.

use std::future::Future;
use std::io;

use api::filters::Filters;
use api::go;
use api::options::{AttachOptions, EventsOptions, LogsOptions};
use api::stream::{FrameKind, frame_header};
use bytes::Bytes;
use engine::LogStream;
use hyper::header::HeaderMap;
use tokio::sync::mpsc;

use crate::body::{Body, Chunk, CutShort};
use crate::detach::DetachKeys;
use crate::failure::Failure;
use crate::hijack::{Ended, Hijacked, Opening};
use crate::request::{Call, Reply};
use crate::respond::{JSON, MULTIPLEXED_STREAM, RAW_STREAM, stream};
use crate::version;

/// Feeds a stream's body from `next` until it ends or the client is gone.
fn feed<N, F>(
    call: &Call,
    sender: mpsc::Sender<Chunk>,
    mut source: N,
    next: impl Fn(N) -> F + Send + 'static,
) where
    N: Send + 'static,
    F: Future<Output = Option<(N, Chunk)>> + Send + 'static,
{
    let stopping = call.app.stopping().clone();
    call.app.tasks().spawn(async move {
        loop {
            let chunk = tokio::select! {
                chunk = next(source) => chunk,
                () = sender.closed() => return,
                () = stopping.cancelled() => return,
            };
            let Some((rest, chunk)) = chunk else { return };
            source = rest;
            let is_last = chunk.is_err();
            if sender.send(chunk).await.is_err() || is_last {
                return;
            }
        }
    });
}

/// `GET /containers/{id}/logs`: headers at once, then one chunk for what is there, then for what comes.
pub(crate) fn logs(call: Call) -> Reply {
    Box::pin(async move {
        let options = logs_options(&call)?;
        let LogStream { tty, logs } = call.engine()?.logs(&call.name, &options)?;
        let framed = !tty && !call.requested.below(42);
        let (sender, body) = Body::stream();
        feed(&call, sender, logs, move |mut logs| async move {
            let bytes = logs.next().await?;
            Some((
                logs,
                Ok(bytes.unwrap_or_else(|error| unreadable(&error, tty))),
            ))
        });
        Ok(stream(
            if framed {
                MULTIPLEXED_STREAM
            } else {
                RAW_STREAM
            },
            body,
        ))
    })
}

/// What dockerd says in the stream where a log cannot be read on, and clients take for a failure: a frame of the
/// engine's own; plain words where a terminal leaves no frames.
fn unreadable(error: &io::Error, tty: bool) -> Bytes {
    tracing::error!(%error, "a log could not be read");
    let text = format!("Error grabbing logs: {error}\n");
    if tty {
        return text.into();
    }
    let length = u32::try_from(text.len()).expect("the words of an error are few");
    let mut frame = frame_header(FrameKind::SystemError, length).to_vec();
    frame.extend_from_slice(text.as_bytes());
    frame.into()
}

fn logs_options(call: &Call) -> Result<LogsOptions, Failure> {
    let query = &call.query;
    let options = LogsOptions {
        follow: query.flag("follow"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        // An old client's way to say "from the beginning" or "without end".
        since: query.time("since")?.filter(|time| time.unix_nanos() != 0),
        until: query.time("until")?.filter(|time| time.unix_nanos() != 0),
        timestamps: query.flag("timestamps"),
        // `all`, negative and whatever is no number mean everything.
        tail: query.get("tail").parse().ok(),
        details: query.flag("details"),
    };
    if options.stdout || options.stderr {
        Ok(options)
    } else {
        Err(Failure::invalid(
            "Bad parameters: you must choose at least one stream",
        ))
    }
}

/// `GET /events`: one object and a newline for each event.
pub(crate) fn events(call: Call) -> Reply {
    Box::pin(async move {
        let since = call.query.time("since")?;
        let until = call.query.time("until")?;
        if let (Some(since), Some(until)) = (since, until)
            && since > until
        {
            let told = |name| call.query.get(name);
            return Err(Failure::invalid(format!(
                "`since` time ({}) cannot be after `until` time ({})",
                told("since"),
                told("until")
            )));
        }
        let options = EventsOptions {
            since,
            until,
            filters: Filters::parse(call.query.get("filters"))?,
        };
        let events = call.engine()?.events(options)?;
        let (sender, body) = Body::stream();
        let requested = call.requested;
        feed(&call, sender, events, move |mut events| async move {
            match events.next().await? {
                Ok(event) => {
                    let event = version::event(requested, &event);
                    Some((events, Ok(go::encode_line(&event, "\n").into())))
                }
                Err(error) => {
                    tracing::error!(%error, "events could not be read");
                    Some((events, Err(CutShort)))
                }
            }
        });
        Ok(stream(JSON, body))
    })
}

/// `POST /containers/{id}/attach`. dockerd hijacks first, so its errors come in plain words, not as JSON.
pub(crate) fn attach(mut call: Call) -> Reply {
    Box::pin(async move {
        // Some clients send a body; it must not land in the container's input.
        call.bytes().await?;
        let hijacked = Hijacked::take(&call)?;
        let tasks = call.app.tasks().clone();
        tasks.spawn(async move {
            if let Err(error) = attached(&call, hijacked).await {
                tracing::debug!(%error, "an attached client left");
            }
        });
        Ok(Hijacked::placeholder())
    })
}

async fn attached(call: &Call, hijacked: Hijacked) -> std::io::Result<()> {
    let (attachment, keys, logs) = match prepare(call).await {
        Ok(prepared) => prepared,
        Err(failure) => return hijacked.refuse(&failure).await,
    };
    let opening = Opening {
        framed: !attachment.tty,
        headers: HeaderMap::new(),
    };
    hijacked.open(call, &opening).await?;
    if let Some(mut logs) = logs {
        while let Some(bytes) = logs.logs.next().await {
            let bytes = bytes.unwrap_or_else(|error| unreadable(&error, attachment.tty));
            hijacked.send(&bytes).await?;
        }
    }
    if !call.query.flag("stream") {
        hijacked.finish();
        return Ok(());
    }
    let keys = (attachment.tty && call.query.flag("stdin")).then_some(keys);
    let launched = tokio::select! {
        launched = attachment.stream() => launched,
        () = hijacked.hung_up() => return Ok(()),
    };
    let Some(process) = launched else {
        hijacked.finish();
        return Ok(());
    };
    if hijacked.copy(process, keys, std::future::ready(())).await == Ended::Detached
        && let Ok(engine) = call.engine()
        && let Err(error) = engine.detached(&call.name)
    {
        tracing::warn!(%error, "a detach was not recorded");
    }
    Ok(())
}

/// Everything that can be refused.
async fn prepare(
    call: &Call,
) -> Result<(engine::Attachment, DetachKeys, Option<LogStream>), Failure> {
    let query = &call.query;
    let options = AttachOptions {
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        detach_keys: query.get("detachKeys").to_owned(),
    };
    let engine = call.engine()?;
    let keys = DetachKeys::parse(&options.detach_keys).map_err(Failure::invalid)?;
    let attachment = engine.attach(&call.name, &options).await?;
    if !options.logs {
        return Ok((attachment, keys, None));
    }
    let logs = LogsOptions {
        stdout: options.stdout,
        stderr: options.stderr,
        ..LogsOptions::default()
    };
    Ok((attachment, keys, Some(engine.logs(&call.name, &logs)?)))
}
