//! Processes in running containers.

use api::exec::{ExecConfig, ExecCreateResponse, ExecStart};
use api::stream::{FrameKind, frame_header};
use hyper::header::HeaderMap;
use hyper::{Response, StatusCode};

use super::containers::window_size;
use crate::body::Body;
use crate::detach::DetachKeys;
use crate::failure::Failure;
use crate::hijack::{Hijacked, Opening};
use crate::policy::{self, Operation};
use crate::request::{Call, Reply};
use crate::respond::{common_headers, empty, json};
use crate::version;

/// `POST /containers/{id}/exec`
pub(crate) fn create(mut call: Call) -> Reply {
    Box::pin(async move {
        let mut config: ExecConfig = call.json().await?;
        version::exec(call.requested, &mut config);
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            return Err(Failure::invalid("No exec command specified"));
        }
        if DetachKeys::parse(&config.detach_keys).is_err() {
            // Of the same keys attach says other words, with another status.
            let words = format!("Invalid escape keys ({}) provided", config.detach_keys);
            return Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, words));
        }
        policy::check(&Operation::Exec(&config))?;
        let id = call.engine()?.exec_create(&call.name, config).await?;
        Ok(json(StatusCode::CREATED, &ExecCreateResponse { id }))
    })
}

/// `GET /exec/{id}/json`
pub(crate) fn inspect(call: Call) -> Reply {
    Box::pin(async move {
        let mut exec = call.engine()?.exec_inspect(&call.name)?;
        exec.detach_keys = DetachKeys::shown(&exec.detach_keys);
        Ok(json(StatusCode::OK, &exec))
    })
}

/// `POST /exec/{id}/resize`
pub(crate) fn resize(call: Call) -> Reply {
    Box::pin(async move {
        let size = window_size(&call)?;
        call.engine()?.exec_resize(&call.name, size).await?;
        Ok(empty(StatusCode::OK))
    })
}

/// `POST /exec/{id}/start`. Unless detached, dockerd hijacks before it starts the process: what then fails is told
/// in the stream.
pub(crate) fn start(mut call: Call) -> Reply {
    Box::pin(async move {
        let mut options: ExecStart = call.json().await?;
        version::exec_start(call.requested, &mut options);
        let engine = call.engine()?;
        let known = engine.exec_inspect(&call.name)?;
        if options.detach {
            return detached(call, options).await;
        }
        let keys = DetachKeys::parse(&known.detach_keys).map_err(Failure::invalid)?;
        let hijacked = Hijacked::take(&call)?;
        let keys = (options.tty && known.open_stdin).then_some(keys);
        let tasks = call.app.tasks().clone();
        tasks.spawn(async move {
            if let Err(error) = attached(&call, hijacked, &options, keys).await {
                tracing::debug!(%error, "the client of an exec left");
            }
        });
        Ok(Hijacked::placeholder())
    })
}

/// In its own task: the process starts even if the client goes away meanwhile.
async fn detached(call: Call, options: ExecStart) -> Result<Response<Body>, Failure> {
    let engine = call.engine()?;
    let started = call
        .app
        .changes()
        .spawn(async move { engine.exec_start(&call.name, &options).await });
    match started.await {
        Ok(started) => started
            .map(|_| empty(StatusCode::OK))
            .map_err(Failure::from),
        Err(error) => {
            tracing::error!(%error, "the start of an exec was lost");
            Err(Failure::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the engine made a mistake; its log says more",
            ))
        }
    }
}

async fn attached(
    call: &Call,
    hijacked: Hijacked,
    options: &ExecStart,
    keys: Option<DetachKeys>,
) -> std::io::Result<()> {
    let mut headers = HeaderMap::new();
    common_headers(&mut headers);
    // Frames follow what this request says of a terminal.
    hijacked
        .open(
            call,
            &Opening {
                framed: !options.tty,
                headers,
            },
        )
        .await?;
    let started = match call.engine() {
        Ok(engine) => engine
            .exec_start(&call.name, options)
            .await
            .map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    match started {
        Ok(started) => {
            let ended = started.ended;
            if let Some(process) = started.stream {
                hijacked.copy(process, keys, ended.wait()).await;
            }
            Ok(())
        }
        Err(failure) => {
            hijacked
                .send(&in_band(&failure.message, options.tty))
                .await?;
            hijacked.finish();
            Ok(())
        }
    }
}

/// An error in a stream whose head is out: a frame of stdout, as dockerd sends it, or plain on a terminal.
fn in_band(message: &str, tty: bool) -> Vec<u8> {
    let line = format!("{message}\r\n");
    if tty {
        return line.into_bytes();
    }
    let length = u32::try_from(line.len()).unwrap_or(u32::MAX);
    let mut frame = frame_header(FrameKind::Stdout, length).to_vec();
    frame.extend_from_slice(line.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_the_stream_are_frames_of_stdout() {
        assert_eq!(in_band("no", false), b"\x01\0\0\0\0\0\0\x04no\r\n");
        assert_eq!(in_band("no", true), b"no\r\n");
    }
}
