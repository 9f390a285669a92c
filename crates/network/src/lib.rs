//! The network of containers: bridge, address pool, veth pairs, firewall, published ports.
//!
//! A library of blocking calls; the engine makes them from its blocking pool. Nothing here knows HTTP,
//! tokio or container states. An attachment is validated whole, then set up whole, and undone when a
//! step fails. The order that survives a crash: reserve the ports (sockets), claim the row, touch the
//! kernel; and when detaching: touch the kernel, delete the row. Every kernel object carries the id of
//! its container (interface alias, comment of a map element), so that [`Network::sweep`] finds what
//! has no row.

mod attachment;
mod bridge;
mod claim;
mod config;
mod error;
mod files;
mod firewall;
mod ipam;
mod namespace;
mod network;
mod ports;
pub mod relay;
mod rows;
mod settings;

pub use attachment::{
    Attachment, Endpoint, EndpointRecord, Forward, HostPort, Mac, PortRequest, Protocol,
    PublishedPort,
};
pub use config::{Config, Lookup, MTU_BYTES, Names, Pool, default_pools};
pub use error::{Error, Holder};
pub use files::{Dns, Servers, host_resolv_conf, hosts_file, resolv_conf};
pub use ipnet::Ipv4Net;
pub use namespace::Namespace;
pub use network::Network;
