//! The Engine API's wire types in their newest shape (1.51), and Go's JSON and form rules.
//!
//! Pure: serde only, no I/O, no clock, no async. The types follow the struct tags of Go's types, which is what
//! goes over the wire, in Go's field order; `None` of a slice or map is Go's `nil` and encodes as `null`.
//! Older versions of the API are the server's matter (`server::version`); whoever uses these types sees the
//! newest only.

pub mod auth;
pub mod container;
pub mod error;
pub mod event;
pub mod exec;
pub mod filters;
pub mod go;
pub mod image;
pub mod name;
pub mod network;
pub mod options;
pub mod query;
pub mod stream;
pub mod system;
pub mod time;
pub mod version;
pub mod volume;
