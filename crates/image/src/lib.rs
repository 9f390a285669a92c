//! Images: references, digests, manifests, the content store, layers, and who may still need them.
//!
//! Owns `content/` and `layers/` under the data root and the image tables of the database. Knows nothing
//! of containers but the names of those that hold an image, nothing of registries, and no HTTP. Every call
//! blocks; callers in async code use a blocking thread.
//!
//! The one lookup of an image by what a user typed is [`Store::resolve`].

mod archive;
mod config;
mod content;
mod digest;
mod error;
mod gc;
mod history;
mod layers;
mod lease;
mod load;
pub mod manifest;
mod reference;
mod remove;
mod room;
mod rows;
mod store;
pub mod unpack;

pub use config::{ContainerConfig, Healthcheck, HistoryEntry, ImageConfig, RootFs};
pub use content::{BlobWriter, Finished};
pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use error::{Error, ErrorKind};
pub use history::HistoryItem;
pub use layers::{Unpacking, chain_ids};
pub use lease::Lease;
pub use load::{LoadProgress, Loaded, Wanted};
pub use reference::{DEFAULT_DOMAIN, DEFAULT_TAG, Reference, ReferenceError};
pub use remove::{RemoveOptions, Removed};
pub use store::{Held, Image, Layer, Moved, NewImage, Sizes, Store, Strays};

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod load_tests;
#[cfg(test)]
mod peer_tests;
#[cfg(test)]
mod remove_tests;
#[cfg(test)]
mod testing;
