//! Where the root of a container comes from, as data.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The root file system of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// A directory that is ready as it is.
    Directory {
        /// Absolute path on the host.
        path: PathBuf,
    },
    /// Image layers below a writable directory.
    Overlay(Overlay),
}

/// An overlay of unpacked layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// The directory that holds the layers.
    pub layers: PathBuf,
    /// Names of the layers below `layers`, topmost first; at most 128 are certain to work on every kernel.
    pub lower: Vec<String>,
    /// The writable directory.
    pub upper: PathBuf,
    /// Overlay's work directory, on the same file system as `upper`.
    pub work: PathBuf,
}
