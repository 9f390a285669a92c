//! Images: what there is, load, pull, tag, remove.

use std::io;

use api::filters::Filters;
use api::go;
use api::options::{ImageListOptions, ImageRemoveOptions, LoadOptions, PullOptions};
use api::stream::Message;
use bytes::Bytes;
use hyper::{Response, StatusCode};
use tokio::sync::mpsc;

use crate::body::{Body, Unread};
use crate::failure::Failure;
use crate::request::{Call, Reply};
use crate::respond::{JSON, empty, json, stream, with_type};
use crate::service::App;
use crate::version;

/// `GET /images/json`
pub(crate) fn list(call: Call) -> Reply {
    Box::pin(async move {
        let mut filters = Filters::parse(call.query.get("filters"))?;
        if call.requested.below(25) && !call.query.get("filter").is_empty() {
            filters.add("reference", call.query.get("filter"));
        }
        let options = ImageListOptions {
            all: call.query.flag("all"),
            shared_size: call.query.flag("shared-size") && !call.requested.below(42),
            filters,
        };
        let images = call.engine()?.images_list(options).await?;
        Ok(with_type(
            StatusCode::OK,
            JSON,
            version::images(call.requested, images),
        ))
    })
}

/// `GET /images/{name}/json`
pub(crate) fn inspect(call: Call) -> Reply {
    Box::pin(async move {
        let image = call.engine()?.image_inspect(&call.name).await?;
        Ok(with_type(
            StatusCode::OK,
            JSON,
            version::image(call.requested, &image),
        ))
    })
}

/// `GET /images/{name}/history`
pub(crate) fn history(call: Call) -> Reply {
    Box::pin(async move {
        Ok(json(
            StatusCode::OK,
            &call.engine()?.image_history(&call.name).await?,
        ))
    })
}

/// `POST /images/{name}/tag`
pub(crate) fn tag(call: Call) -> Reply {
    Box::pin(async move {
        let (repository, tag) = (call.query.get("repo"), call.query.get("tag"));
        if repository.is_empty() {
            // dockerd does nothing then, and says so by this status alone.
            return Ok(empty(StatusCode::OK));
        }
        call.engine()?
            .image_tag(&call.name, repository, tag)
            .await?;
        Ok(empty(StatusCode::CREATED))
    })
}

/// `DELETE /images/{name}`
pub(crate) fn remove(call: Call) -> Reply {
    Box::pin(async move {
        if call.name.trim().is_empty() {
            return Err(Failure::invalid("image name cannot be blank"));
        }
        let options = ImageRemoveOptions {
            force: call.query.flag("force"),
            no_prune: call.query.flag("noprune"),
        };
        Ok(json(
            StatusCode::OK,
            &call.engine()?.image_remove(&call.name, &options).await?,
        ))
    })
}

/// `POST /images/create`: pull, or import with `fromSrc`. Before the first message errors have a status.
pub(crate) fn create(call: Call) -> Reply {
    Box::pin(async move {
        let from_image = call.query.get("fromImage").to_owned();
        if from_image.is_empty() {
            return Err(Failure::new(
                StatusCode::NOT_IMPLEMENTED,
                "POST /images/create with fromSrc is not implemented yet",
            ));
        }
        let options = PullOptions {
            from_image,
            tag: call.query.get("tag").to_owned(),
            platform: call.platform()?,
            auth: call.registry_auth(),
        };
        let mut messages = call.engine()?.image_pull(options)?;
        match messages.recv().await {
            Some(Err(error)) => Err(error.into()),
            first => Ok(progress(&call.app, first, messages)),
        }
    })
}

/// `POST /images/load`: every error comes in the stream.
pub(crate) fn load(call: Call) -> Reply {
    Box::pin(async move {
        let options = LoadOptions {
            quiet: call.query.flag("quiet"),
            platform: call.platform()?,
        };
        let (sender, archive) = mpsc::channel(UPLOAD_CHUNKS);
        call.app.tasks().spawn(upload(call.body, sender));
        let archive = Upload {
            chunks: archive,
            current: Bytes::new(),
        };
        let messages = call.app.engine()?.image_load(options, Box::new(archive));
        Ok(progress(&call.app, None, messages))
    })
}

/// Messages of a progress stream; an error is the last.
type Messages = mpsc::Receiver<Result<Message, engine::Error>>;

/// Sends progress messages, `first` before the others, until they end or the client is gone.
fn progress(
    app: &App,
    first: Option<Result<Message, engine::Error>>,
    mut messages: Messages,
) -> Response<Body> {
    let (sender, body) = Body::stream();
    app.tasks().spawn(async move {
        let mut next = first;
        if next.is_none() {
            next = tokio::select! {
                next = messages.recv() => next,
                () = sender.closed() => return,
            };
        }
        while let Some(message) = next {
            let message =
                message.unwrap_or_else(|error| Message::failed(Failure::from(error).message));
            if sender
                .send(Ok(go::encode_line(&message, "\r\n").into()))
                .await
                .is_err()
            {
                return;
            }
            next = tokio::select! {
                next = messages.recv() => next,
                () = sender.closed() => return,
            };
        }
    });
    stream(JSON, body)
}

/// Chunks of an upload that wait for a slow disk before the client waits too.
const UPLOAD_CHUNKS: usize = 32;

/// Moves a request's body to whoever reads it; a client that breaks off is an error there, not an end.
async fn upload(mut body: Unread, to: mpsc::Sender<io::Result<Bytes>>) {
    while let Some(frame) = body.frame().await {
        let chunk = match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => Ok(data),
            Ok(Err(_trailers)) => continue,
            Err(error) => Err(io::Error::other(error)),
        };
        if to.send(chunk).await.is_err() {
            return;
        }
    }
}

/// An upload as a blocking reader, for a thread that may wait.
struct Upload {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl io::Read for Upload {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let length = self.current.len().min(into.len());
        into[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}
