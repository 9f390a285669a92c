//! Containers on the wire: what `/containers/…` takes and answers.

pub mod config;
pub mod create;
pub mod host_config;
pub mod inspect;
pub mod mount;
pub mod summary;

use serde::{Deserialize, Serialize};

use config::Config;
use host_config::HostConfig;

use crate::network::EndpointsConfig;

/// The body of `POST /containers/create`, whole and in its newest form.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CreateRequest {
    /// What runs: command, environment, user, labels.
    pub config: Config,
    /// What it may have of the host: mounts, ports, limits.
    pub host_config: HostConfig,
    /// Networks to join, by network name or id; `None` when the request does not say.
    pub endpoints: EndpointsConfig,
}

/// The answer to `POST /containers/create`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateResponse {
    /// The new container's 64 hex digits.
    pub id: String,
    /// What was changed or ignored; never `null`.
    pub warnings: Vec<String>,
}

/// The answer to `POST /containers/{id}/wait`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WaitResponse {
    /// The exit code.
    pub status_code: i64,
    /// Set when waiting itself failed (the container could not be removed, for instance).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<WaitExitError>,
}

/// Why a wait ended without what it waited for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WaitExitError {
    /// Text for a person; absent when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The answer to `GET /containers/{id}/top`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TopResponse {
    /// One row for each process; as many columns as `titles`.
    pub processes: Option<Vec<Vec<String>>>,
    /// Column heads (`UID`, `PID`, …, `CMD`).
    pub titles: Option<Vec<String>>,
}

/// One row of `GET /containers/{id}/changes`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct FilesystemChange {
    /// Absolute path inside the container.
    pub path: String,
    /// 0 modified, 1 added, 2 deleted.
    pub kind: u8,
}
