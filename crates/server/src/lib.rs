//! The Engine API over HTTP: listeners, gate, routes, versions, streams; and the daemon around it.
//!
//! A request goes accept → [`gate`] (headers only, before a byte of the body is read) → [`routes`] → [`version`] →
//! policy on the typed request → engine. Handlers validate, convert, call the engine and map its errors; they decide
//! nothing about containers. What the engine answers is always in the newest shape.

mod body;
pub mod daemon;
mod detach;
mod failure;
mod framing;
mod gate;
mod handlers;
mod hijack;
mod listen;
mod media_type;
mod platform;
mod policy;
mod request;
mod respond;
mod route;
mod routes;
mod service;
mod tap;
mod version;

pub use gate::Gate;
pub use listen::{Listener, serve};
pub use route::Coverage;
pub use routes::{TableRow, route_table};
pub use service::App;
