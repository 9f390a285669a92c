//! The image configuration: Docker's and OCI's fields as types, with the exact bytes beside them.
//!
//! An image's id is the digest of these bytes, so they are never written again from the types. Fields we
//! do not know stay readable in `other`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Error;
use crate::manifest::{LAYERS_MAX, within};

/// An image's configuration, [OCI image config](https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md)
/// with Docker's additions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// RFC 3339 time of creation, as written.
    #[serde(deserialize_with = "null_default")]
    pub created: String,
    /// Who made it.
    #[serde(deserialize_with = "null_default")]
    pub author: String,
    /// Docker's comment (`docker commit -m`, `import`).
    #[serde(deserialize_with = "null_default")]
    pub comment: String,
    /// CPU architecture in Go's terms: `amd64`.
    #[serde(deserialize_with = "null_default")]
    pub architecture: String,
    /// CPU variant: `v8`.
    #[serde(deserialize_with = "null_default")]
    pub variant: String,
    /// Operating system in Go's terms: `linux`.
    #[serde(deserialize_with = "null_default")]
    pub os: String,
    /// `os.version` (Windows).
    #[serde(rename = "os.version", deserialize_with = "null_default")]
    pub os_version: String,
    /// `os.features` (Windows).
    #[serde(rename = "os.features", deserialize_with = "null_default")]
    pub os_features: Vec<String>,
    /// Version of the Docker that made it.
    #[serde(deserialize_with = "null_default")]
    pub docker_version: String,
    /// What a container of it runs by default.
    pub config: Option<ContainerConfig>,
    /// The layers, as digests of their uncompressed tars.
    #[serde(deserialize_with = "null_default")]
    pub rootfs: RootFs,
    /// One entry per build step, oldest first.
    #[serde(deserialize_with = "null_default")]
    pub history: Vec<HistoryEntry>,
    /// Fields not named above, as they were.
    #[serde(flatten)]
    pub other: Map<String, Value>,
    /// The exact bytes this was read from.
    #[serde(skip)]
    pub raw: Arc<[u8]>,
}

impl ImageConfig {
    /// Parses a configuration and keeps its bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] with Docker's text.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut config: Self =
            serde_json::from_slice(bytes).map_err(|error| Error::Invalid(error.to_string()))?;
        if config.rootfs.kind.is_empty() && config.rootfs.diff_ids.is_empty() {
            return Err(Error::Invalid(
                "invalid image JSON, no RootFS key".to_owned(),
            ));
        }
        within("layers", config.rootfs.diff_ids.len(), LAYERS_MAX)?;
        config.raw = bytes.into();
        Ok(config)
    }

    /// When it was made, in unix nanoseconds; 0 when it does not say.
    #[must_use]
    pub fn created_ns(&self) -> i64 {
        unix_ns(&self.created)
    }

    /// The operating system; what does not say is for Linux.
    #[must_use]
    pub fn operating_system(&self) -> &str {
        if self.os.is_empty() {
            "linux"
        } else {
            &self.os
        }
    }
}

/// An RFC 3339 time as unix nanoseconds; 0 when it is none, as Go's zero time is none.
pub(crate) fn unix_ns(time: &str) -> i64 {
    let parsed: Option<jiff::Timestamp> = time.parse().ok();
    let ns = parsed
        .and_then(|time| i64::try_from(time.as_nanosecond()).ok())
        .unwrap_or(0);
    ns.max(0)
}

/// What a container of the image runs by default (Docker's `Config`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// Host name (old images only).
    #[serde(deserialize_with = "null_default")]
    pub hostname: String,
    /// Domain name (old images only).
    #[serde(deserialize_with = "null_default")]
    pub domainname: String,
    /// `user[:group]` by name or number.
    #[serde(deserialize_with = "null_default")]
    pub user: String,
    /// `80/tcp` and the like.
    #[serde(deserialize_with = "null_default")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// `KEY=value`, in order.
    pub env: Option<Vec<String>>,
    /// The command; `None` is JSON's null.
    pub cmd: Option<Vec<String>>,
    /// `None` inherits.
    pub healthcheck: Option<Healthcheck>,
    /// Windows: the command line is already escaped.
    #[serde(deserialize_with = "null_default")]
    pub args_escaped: bool,
    /// Paths that get an anonymous volume.
    #[serde(deserialize_with = "null_default")]
    pub volumes: BTreeMap<String, Value>,
    /// Working directory.
    #[serde(deserialize_with = "null_default")]
    pub working_dir: String,
    /// What the command is given to.
    pub entrypoint: Option<Vec<String>>,
    /// Instructions for images built from this one.
    pub on_build: Option<Vec<String>>,
    /// Key and value.
    pub labels: Option<BTreeMap<String, String>>,
    /// `SIGTERM` or a number.
    #[serde(deserialize_with = "null_default")]
    pub stop_signal: String,
    /// Seconds.
    pub stop_timeout: Option<i64>,
    /// The shell of the shell form of RUN, CMD and ENTRYPOINT.
    pub shell: Option<Vec<String>>,
    /// Fields not named above, as they were.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// How to see whether a container is well; durations in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", "…"]`, or none to inherit.
    pub test: Option<Vec<String>>,
    /// Time between two checks; 0 inherits.
    #[serde(deserialize_with = "null_default")]
    pub interval: i64,
    /// How long one check may take; 0 inherits.
    #[serde(deserialize_with = "null_default")]
    pub timeout: i64,
    /// Time in which failures do not count.
    #[serde(deserialize_with = "null_default")]
    pub start_period: i64,
    /// Time between two checks in the start period.
    #[serde(deserialize_with = "null_default")]
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy; 0 inherits.
    #[serde(deserialize_with = "null_default")]
    pub retries: i64,
}

/// The layers of an image, bottom first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", deserialize_with = "null_default")]
    pub kind: String,
    /// Digests of the uncompressed tars, as written; checked when the image is committed.
    #[serde(deserialize_with = "null_default")]
    pub diff_ids: Vec<crate::Digest>,
}

/// One build step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryEntry {
    /// RFC 3339 time, as written.
    #[serde(deserialize_with = "null_default")]
    pub created: String,
    /// The command.
    #[serde(deserialize_with = "null_default")]
    pub created_by: String,
    /// Who.
    #[serde(deserialize_with = "null_default")]
    pub author: String,
    /// Why.
    #[serde(deserialize_with = "null_default")]
    pub comment: String,
    /// The step made no layer.
    #[serde(deserialize_with = "null_default")]
    pub empty_layer: bool,
}

/// Go reads null as the zero value.
fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
