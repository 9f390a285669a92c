//! The domain: containers and what they need of images, execs, events, logs.
//!
//! [`Engine`] is the façade that the server calls: it finds the object, hands the request to the container's
//! one task (`task`) and waits for the answer. What may happen to a container is decided by the pure
//! `step`; what takes time runs beside (`effects`). Readers see immutable snapshots and never wait for a
//! lifecycle operation.
//!
//! No HTTP, no wire versions (types are those of the newest API), no policy about who may ask.

pub mod config;
pub mod definition;
mod error;
pub mod events;
mod id;
pub mod images;
pub mod info;
pub mod inspect;
pub mod list;
pub mod logs;
pub mod lookup;
#[cfg(test)]
mod reference;
pub mod spec;

mod adopt;
mod attach;
mod container;
mod containers;
mod create;
mod effects;
mod exec;
mod files;
mod host;
mod image_calls;
mod index;
mod launch;
mod log_file;
mod networks;
mod open;
mod peer;
mod pool;
mod prepare;
mod pull;
mod reap;
mod refusal;
mod report;
mod rest;
mod rows;
mod shim_client;
mod sizes;
mod state;
mod step;
mod sweep;
mod task;
pub mod top;
mod views;
mod volumes;
mod wait;

pub use attach::Attachment;
pub use config::{Bridge, Config, Defaults};
pub use container::Container;
pub use definition::Definition;
pub use error::{Class, Error};
pub use exec::ExecStream;
pub use host::RUNTIMES;
pub use id::ContainerId;
pub use image_calls::Progress;
pub use network::{Ipv4Net, Pool};
pub use open::{Claim, Engine};
pub use state::{Attached, Bridged, Facts, Snapshot, Status};
pub use views::LogStream;
pub use wait::Waiting;
