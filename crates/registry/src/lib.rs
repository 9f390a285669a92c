//! The distribution protocol: how images come from and go to registries.
//!
//! Owns which hosts are asked ([`endpoint`]), how one logs in ([`auth`])
//! and what travels. What is received goes through the image store, which trusts no
//! byte of it; no path on this machine is chosen here.

pub mod auth;
pub mod dns;
pub mod endpoint;
pub mod progress;
pub mod pull;
pub mod remote;
pub mod transport;
