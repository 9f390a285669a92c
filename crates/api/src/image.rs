//! Images on the wire: what `/images/…` answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::container::config::HealthConfig;
use crate::go::{self, Empty};
use crate::time::Time;

/// One image in `GET /images/json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageSummary {
    /// Containers that use it; -1 when not counted.
    pub containers: i64,
    /// Unix seconds.
    pub created: i64,
    /// `sha256:…`.
    pub id: String,
    /// Metadata of the image.
    pub labels: Option<BTreeMap<String, String>>,
    /// Id of the parent when it was built here.
    pub parent_id: String,
    /// What it points to; only with a content store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<Descriptor>,
    /// `name@sha256:…`; never `null`.
    pub repo_digests: Vec<String>,
    /// `name:tag`; never `null`.
    pub repo_tags: Vec<String>,
    /// Bytes shared with other images; -1 when not computed.
    pub shared_size: i64,
    /// Bytes unpacked.
    pub size: i64,
    /// Bytes unpacked, again (below 1.44 and unversioned).
    #[serde(skip_serializing_if = "go::is_zero")]
    pub virtual_size: i64,
}

/// The answer to `GET /images/{name}/json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageInspect {
    /// `sha256:…`.
    pub id: String,
    /// `name:tag`; never `null`.
    pub repo_tags: Vec<String>,
    /// `name@sha256:…`; never `null`.
    pub repo_digests: Vec<String>,
    /// Id of the parent when it was built here.
    pub parent: String,
    /// As committed or imported.
    pub comment: String,
    /// When it was built; absent when the image does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,
    /// Version of the engine that built it.
    pub docker_version: String,
    /// As committed.
    pub author: String,
    /// Go's name of the architecture.
    pub architecture: String,
    /// Variant of the architecture.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Go's name of the system.
    pub os: String,
    /// Windows only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Bytes unpacked.
    pub size: i64,
    /// Bytes unpacked, again (below 1.44 and unversioned).
    #[serde(skip_serializing_if = "go::is_zero")]
    pub virtual_size: i64,
    /// Where its layers are.
    pub graph_driver: GraphDriver,
    /// Its layers.
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
    /// What the engine knows about it.
    pub metadata: ImageMetadata,
    /// What it points to; only with a content store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<Descriptor>,
    /// What containers of it get.
    pub config: Option<ImageConfig>,
}

/// What containers of an image get. Go writes it through a map, so its keys are sorted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageConfig {
    /// Windows only.
    #[serde(skip_serializing_if = "go::is_false")]
    pub args_escaped: bool,
    /// Arguments, or the command when there is no entrypoint.
    pub cmd: Option<Vec<String>>,
    /// Command before `cmd`.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value`.
    pub env: Option<Vec<String>>,
    /// Ports the image listens on.
    #[serde(skip_serializing_if = "go::none_or_empty_map")]
    pub exposed_ports: Option<BTreeMap<String, Empty>>,
    /// How to find out whether a container works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// Metadata.
    pub labels: Option<BTreeMap<String, String>>,
    /// Triggers for builds upon this image.
    pub on_build: Option<Vec<String>>,
    /// Shell for the shell forms.
    #[serde(skip_serializing_if = "go::none_or_empty")]
    pub shell: Option<Vec<String>>,
    /// Signal that `stop` sends.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Who runs.
    pub user: String,
    /// Anonymous volumes.
    pub volumes: Option<BTreeMap<String, Empty>>,
    /// Working directory.
    pub working_dir: String,
}

/// The layers of an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RootFs {
    /// `layers`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub r#type: String,
    /// Diff ids, lowest first.
    #[serde(skip_serializing_if = "go::none_or_empty")]
    pub layers: Option<Vec<String>>,
}

/// What the engine knows about an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageMetadata {
    /// When it was last tagged here; Go's zero time if never.
    pub last_tag_time: Time,
}

/// Where a file system is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct GraphDriver {
    /// Paths by name; `null` once the container is gone.
    pub data: Option<BTreeMap<String, String>>,
    /// The storage driver.
    pub name: String,
}

/// An OCI descriptor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// `sha256:…`.
    pub digest: String,
    /// Bytes.
    pub size: i64,
    /// For which machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// For which machine an image is (OCI). In queries it comes as `os/architecture/variant` or as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// Go's name.
    pub architecture: String,
    /// Go's name.
    pub os: String,
    /// Windows only.
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Windows only.
    #[serde(rename = "os.features", skip_serializing_if = "go::none_or_empty")]
    pub os_features: Option<Vec<String>>,
    /// `v7`, `v8`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// One row of `GET /images/{name}/history`, newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HistoryItem {
    /// As committed.
    pub comment: String,
    /// Unix seconds.
    pub created: i64,
    /// The instruction.
    pub created_by: String,
    /// Image id, or `<missing>`.
    pub id: String,
    /// Bytes of the layer.
    pub size: i64,
    /// References to this very image.
    pub tags: Option<Vec<String>>,
}

/// One step of `DELETE /images/{name}`; exactly one field is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DeleteResponse {
    /// An image or layer that is gone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deleted: String,
    /// A reference that is gone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub untagged: String,
}

/// The answer to `POST /images/prune`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PruneReport {
    /// What went.
    pub images_deleted: Option<Vec<DeleteResponse>>,
    /// Bytes.
    pub space_reclaimed: u64,
}
