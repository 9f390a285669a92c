//! The history of an image as `docker history` shows it.

use crate::config::unix_ns;
use crate::digest::Digest;
use crate::error::Error;
use crate::store::{Image, Store};

/// Nanoseconds of a second.
const SECOND_NS: i64 = 1_000_000_000;

/// One line of `docker history`, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryItem {
    /// The image of this step, if it is one; `<missing>` is `None`.
    pub id: Option<Digest>,
    /// Unix seconds.
    pub created: i64,
    /// The command.
    pub created_by: String,
    /// Familiar references of the image of this step.
    pub tags: Vec<String>,
    /// Size of its layer in bytes; 0 for a step without one.
    pub size_bytes: u64,
    /// Why.
    pub comment: String,
}

impl Store {
    /// The steps that made `image`, newest first. A step is an image of its own when the images it was built
    /// from are still here.
    ///
    /// # Errors
    /// [`Error::Invalid`] with Docker's text when the configuration names more layers than there are.
    pub fn history(&self, image: &Image) -> Result<Vec<HistoryItem>, Error> {
        let mut layers = image.layers.iter();
        let mut items = Vec::with_capacity(image.config.history.len());
        for step in &image.config.history {
            let size_bytes = if step.empty_layer {
                0
            } else {
                let layer = layers.next().ok_or_else(|| {
                    Error::Invalid("too many non-empty layers in History section".to_owned())
                })?;
                layer.size_bytes
            };
            items.push(HistoryItem {
                id: None,
                created: unix_ns(&step.created) / SECOND_NS,
                created_by: step.created_by.clone(),
                tags: Vec::new(),
                size_bytes,
                comment: step.comment.clone(),
            });
        }
        items.reverse();
        let mut current = Some(image.clone());
        for item in &mut items {
            let Some(step) = current else { break };
            item.id = Some(step.id.clone());
            item.tags = step
                .references
                .iter()
                .map(crate::Reference::familiar)
                .collect();
            current = match &step.parent {
                Some(parent) => self.get(parent).ok(),
                None => None,
            };
        }
        Ok(items)
    }
}
