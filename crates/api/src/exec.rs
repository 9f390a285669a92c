//! Execs on the wire.

use serde::{Deserialize, Serialize};

use crate::go;

/// The body of `POST /containers/{id}/exec`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExecConfig {
    /// Empty means the container's.
    pub user: String,
    /// Everything allowed.
    pub privileged: bool,
    /// Whether the process has a terminal.
    pub tty: bool,
    /// Initial terminal size: height, width.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<[u32; 2]>,
    /// Whether start connects stdin.
    pub attach_stdin: bool,
    /// Whether start connects stderr.
    pub attach_stderr: bool,
    /// Whether start connects stdout.
    pub attach_stdout: bool,
    /// Keys that leave it running; empty means the daemon's default.
    pub detach_keys: String,
    /// `NAME=value`, upon the container's.
    pub env: Option<Vec<String>>,
    /// Empty means the container's.
    pub working_dir: String,
    /// What runs.
    #[serde(deserialize_with = "go::string_or_list")]
    pub cmd: Option<Vec<String>>,
}

/// The answer to `POST /containers/{id}/exec`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExecCreateResponse {
    /// 64 hex digits.
    pub id: String,
}

/// The body of `POST /exec/{id}/start`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExecStart {
    /// No stream; the answer comes once it runs.
    pub detach: bool,
    /// Decides whether the stream is raw or framed.
    pub tty: bool,
    /// Initial terminal size: height, width.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<[u32; 2]>,
}

/// The answer to `GET /exec/{id}/json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExecInspect {
    /// 64 hex digits.
    #[serde(rename = "ID")]
    pub id: String,
    /// Whether it runs.
    pub running: bool,
    /// `null` before it ended.
    pub exit_code: Option<i64>,
    /// What runs.
    pub process_config: ProcessConfig,
    /// Whether stdin is connected.
    pub open_stdin: bool,
    /// Whether stderr is connected.
    pub open_stderr: bool,
    /// Whether stdout is connected.
    pub open_stdout: bool,
    /// Whether it will be forgotten.
    pub can_remove: bool,
    /// 64 hex digits.
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// In base64.
    pub detach_keys: String,
    /// On the host; 0 when not running.
    pub pid: i64,
}

/// What an exec runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "lowercase")]
pub struct ProcessConfig {
    /// Whether the process has a terminal.
    pub tty: bool,
    /// First word.
    pub entrypoint: String,
    /// The other words; never `null`.
    pub arguments: Vec<String>,
    /// Everything allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileged: Option<bool>,
    /// As asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
}
