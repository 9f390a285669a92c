//! Mounts in their structured form (Go: `mount.Mount`), and as inspect shows them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::go;

/// One mount as the client asks for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Mount {
    /// `bind`, `volume`, `tmpfs`, `npipe`, `cluster` or `image`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub r#type: String,
    /// Path or volume name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Absolute path inside.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Whether it cannot be written.
    #[serde(skip_serializing_if = "go::is_false")]
    pub read_only: bool,
    /// Other systems only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub consistency: String,
    /// For type `bind`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<BindOptions>,
    /// For type `volume`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeOptions>,
    /// For type `image`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_options: Option<ImageOptions>,
    /// For type `tmpfs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_options: Option<TmpfsOptions>,
    /// For type `cluster`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_options: Option<go::Empty>,
}

/// Options of a bind mount.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct BindOptions {
    /// `private`, `rprivate`, `shared`, `rshared`, `slave`, `rslave`; empty means `rprivate`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub propagation: String,
    /// Mounts below the source are not taken along.
    #[serde(skip_serializing_if = "go::is_false")]
    pub non_recursive: bool,
    /// Whether a missing source is made.
    #[serde(skip_serializing_if = "go::is_false")]
    pub create_mountpoint: bool,
    /// Read-only for the top mount alone.
    #[serde(skip_serializing_if = "go::is_false")]
    pub read_only_non_recursive: bool,
    /// Fail when mounts below cannot be made read-only.
    #[serde(skip_serializing_if = "go::is_false")]
    pub read_only_force_recursive: bool,
}

/// Options of a volume mount.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeOptions {
    /// No copy-up from the image.
    #[serde(skip_serializing_if = "go::is_false")]
    pub no_copy: bool,
    /// Labels of a volume that is made here.
    #[serde(skip_serializing_if = "go::none_or_empty_map")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Path inside the volume.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subpath: String,
    /// Driver of a volume that is made here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_config: Option<Driver>,
}

/// A volume driver and its options.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Driver {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its options.
    #[serde(skip_serializing_if = "go::none_or_empty_map")]
    pub options: Option<BTreeMap<String, String>>,
}

/// Options of an image mount.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageOptions {
    /// Path inside the image.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subpath: String,
}

/// Options of a tmpfs mount.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TmpfsOptions {
    /// Bytes; 0 means half of the memory.
    #[serde(skip_serializing_if = "go::is_zero")]
    pub size_bytes: i64,
    /// Permission bits in decimal; 0 means 1777.
    #[serde(skip_serializing_if = "go::is_zero_u32")]
    pub mode: u32,
    /// `[name]` or `[name, value]`.
    #[serde(skip_serializing_if = "go::none_or_empty")]
    pub options: Option<Vec<Vec<String>>>,
}

/// One mount as inspect and list show it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MountPoint {
    /// As in [`Mount`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub r#type: String,
    /// Volume name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Path on the host.
    pub source: String,
    /// Path inside.
    pub destination: String,
    /// Volume driver.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Options as in a bind (`z`, `ro`).
    pub mode: String,
    /// Whether it can be written.
    #[serde(rename = "RW")]
    pub rw: bool,
    /// As in [`BindOptions`].
    pub propagation: String,
}
