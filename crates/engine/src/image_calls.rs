//! The façade's calls for images: what the store does, in the API's types.

use std::io::Read;

use api::image::{DeleteResponse, HistoryItem, ImageInspect, ImageSummary};
use api::options::{ImageListOptions, ImageRemoveOptions, LoadOptions};
use api::stream::{Message, ProgressDetail};
use image::{LoadProgress, Reference, Removed};
use sys::clock::now_ns;
use tokio::sync::mpsc;

use crate::images::{self, Lookups};
use crate::{ContainerId, Engine, Error, events};

/// Messages that wait for a slow client before the work waits too.
pub(crate) const PROGRESS_MESSAGES: usize = 64;

/// A progress stream; an error is its last message.
pub type Progress = mpsc::Receiver<Result<Message, Error>>;

impl Engine {
    /// Lists images (`GET /images/json`).
    ///
    /// # Errors
    /// InvalidParameter for bad filters, NotFound for an image named by `before` or `since`.
    pub async fn images_list(&self, options: ImageListOptions) -> Result<Vec<ImageSummary>, Error> {
        let engine = self.clone();
        self.inner()
            .blocking(move || engine.images_list_now(&options))
            .await
    }

    fn images_list_now(&self, options: &ImageListOptions) -> Result<Vec<ImageSummary>, Error> {
        let containers = self.index().all();
        let count = |id: &image::Digest| {
            let users = containers
                .iter()
                .filter(|user| user.snapshot().definition.image == id.as_str());
            i64::try_from(users.count()).unwrap_or(i64::MAX)
        };
        let lookups = Lookups {
            image: &|name| Ok(self.images().resolve(name)?),
            containers: &count,
            shared_bytes: &|image| Ok(self.images().sizes(image)?.shared_bytes),
        };
        images::list(&self.images().list()?, options, &lookups, now_ns())
    }

    /// Shows an image (`GET /images/{name}/json`).
    ///
    /// # Errors
    /// NotFound.
    pub async fn image_inspect(&self, name: &str) -> Result<ImageInspect, Error> {
        let (engine, name) = (self.clone(), name.to_owned());
        let work = move || {
            let image = engine.images().resolve(&name)?;
            let layers = engine.config().data_root.join("layers");
            let path = |layer: &image::Layer| {
                layers
                    .join(layer.number.to_string())
                    .to_string_lossy()
                    .into_owned()
            };
            let paths: Vec<String> = image.layers.iter().rev().map(path).collect();
            Ok(images::inspect(&image, &paths))
        };
        self.inner().blocking(work).await
    }

    /// Shows how an image was made (`GET /images/{name}/history`).
    ///
    /// # Errors
    /// NotFound.
    pub async fn image_history(&self, name: &str) -> Result<Vec<HistoryItem>, Error> {
        let (engine, name) = (self.clone(), name.to_owned());
        let work = move || {
            let image = engine.images().resolve(&name)?;
            Ok(images::history(engine.images().history(&image)?))
        };
        self.inner().blocking(work).await
    }

    /// Gives an image another name (`POST /images/{name}/tag`).
    ///
    /// # Errors
    /// NotFound; InvalidParameter for a name that is none.
    pub async fn image_tag(&self, name: &str, repository: &str, tag: &str) -> Result<(), Error> {
        let reference = tag_reference(repository, tag)?;
        let (engine, name) = (self.clone(), name.to_owned());
        let work = move || {
            let image = engine.images().resolve(&name)?;
            engine.images().tag(&image.id, &reference)?;
            let shown = reference.or_latest().familiar();
            note(&engine, "tag", image.id.as_str(), &shown, Some(&image));
            Ok(())
        };
        self.inner().blocking(work).await
    }

    /// Takes a name from an image, or removes it (`DELETE /images/{name}`).
    ///
    /// # Errors
    /// NotFound; Conflict when containers or names are in the way.
    pub async fn image_remove(
        &self,
        name: &str,
        options: &ImageRemoveOptions,
    ) -> Result<Vec<DeleteResponse>, Error> {
        let (engine, name, options) = (self.clone(), name.to_owned(), options.clone());
        let work = move || {
            let is_running = |holder: &str| {
                let id: Option<ContainerId> = holder.parse().ok();
                let container = id.and_then(|id| engine.index().by_id(&id));
                container.is_some_and(|container| container.snapshot().status.is_running())
            };
            let options = image::RemoveOptions {
                force: options.force,
                prune: !options.no_prune,
                is_running: &is_running,
            };
            // Its labels are part of what is told.
            let image = engine.images().resolve(&name).ok();
            let removed = engine.images().remove(&name, options)?;
            for step in &removed {
                match step {
                    Removed::Untagged { image: of, .. } => {
                        let labelled = image.as_ref().filter(|image| image.id == *of);
                        note(&engine, "untag", of.as_str(), of.as_str(), labelled);
                    }
                    Removed::Deleted(id) => note(&engine, "delete", id.as_str(), id.as_str(), None),
                    Removed::DeletedLayer(_) => {}
                }
            }
            Ok(removed.into_iter().map(deleted).collect())
        };
        self.inner().blocking(work).await
    }

    /// Loads images from an archive (`POST /images/load`). The archive is read on a thread for it; when the
    /// receiver is dropped the load goes on to its end.
    pub fn image_load(&self, options: LoadOptions, mut archive: Box<dyn Read + Send>) -> Progress {
        let (sender, messages) = mpsc::channel(PROGRESS_MESSAGES);
        let engine = self.clone();
        self.inner().threads.spawn_blocking(move || {
            let mut noted = Vec::new();
            let mut tell = |progress: LoadProgress| {
                if let LoadProgress::Loaded(loaded) = &progress
                    && !noted.contains(&loaded.id)
                {
                    let id = loaded.id.as_str();
                    let image = engine.images().resolve(id).ok();
                    note(&engine, "load", id, id, image.as_ref());
                    noted.push(loaded.id.clone());
                }
                if let Some(message) = message(progress, options.quiet)
                    && sender.blocking_send(Ok(message)).is_err()
                {
                    tracing::debug!("the client of a load is gone");
                }
            };
            let wanted = || !sender.is_closed();
            if let Err(error) = engine
                .images()
                .load_while(&wanted, &mut *archive, &mut tell)
                && sender.blocking_send(Err(error.into())).is_err()
            {
                tracing::debug!("the client of a failed load is gone");
            }
        });
        messages
    }
}

/// Journals what happened to an image, in dockerd's words: with its labels, and `name` as the attribute. It has
/// happened, whether it can be journaled or not.
pub(crate) fn note(
    engine: &Engine,
    action: &str,
    id: &str,
    name: &str,
    image: Option<&image::Image>,
) {
    let labels = image.and_then(|image| image.config.config.as_ref()?.labels.clone());
    let mut attributes = labels.unwrap_or_default();
    attributes.insert("name".to_owned(), name.to_owned());
    let event = events::event("image", action, id, attributes);
    engine.inner().note(vec![event]);
}

/// The name that an image gets; `tag` replaces what the repository's name says.
fn tag_reference(repository: &str, tag: &str) -> Result<Reference, Error> {
    let invalid = |error: image::ReferenceError| Error::invalid(error.to_string());
    let reference = Reference::parse(repository).map_err(invalid)?;
    if reference.digest().is_some() {
        return Err(Error::invalid("cannot import digest reference"));
    }
    let reference = if tag.is_empty() {
        reference.or_latest()
    } else {
        reference.with_tag(tag).map_err(invalid)?
    };
    if reference.familiar_name() == "sha256" {
        return Err(Error::invalid(
            "refusing to create an ambiguous tag using digest algorithm as name",
        ));
    }
    Ok(reference)
}

fn deleted(removed: Removed) -> DeleteResponse {
    match removed {
        Removed::Untagged { reference, .. } => DeleteResponse {
            untagged: reference,
            ..DeleteResponse::default()
        },
        Removed::Deleted(id) | Removed::DeletedLayer(id) => DeleteResponse {
            deleted: id.to_string(),
            ..DeleteResponse::default()
        },
    }
}

/// The message for one step of a load; `None` for one that a quiet client does not want.
fn message(progress: LoadProgress, quiet: bool) -> Option<Message> {
    let stream = |stream: String| {
        Some(Message {
            stream,
            ..Message::default()
        })
    };
    match progress {
        LoadProgress::Layer { .. } if quiet => None,
        LoadProgress::Layer {
            id,
            current_bytes,
            total_bytes,
        } => Some(Message {
            status: "Loading layer".to_owned(),
            progress_detail: Some(ProgressDetail::of_bytes(current_bytes, total_bytes)),
            id,
            ..Message::default()
        }),
        LoadProgress::Renamed { reference, from } => stream(format!(
            "The image {} already exists, renaming the old one with ID {from} to empty string\n",
            reference.familiar()
        )),
        LoadProgress::Loaded(image) => stream(match image.reference {
            Some(reference) => format!("Loaded image: {}\n", reference.familiar()),
            None => format!("Loaded image ID: {}\n", image.id),
        }),
    }
}
