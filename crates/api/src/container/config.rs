//! A container's or image's configuration: what runs in it (Go: `container.Config`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::go::{self, Empty};

/// What runs: command, environment, user, labels. Independent of the host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Config {
    /// Host name inside; empty means the short id.
    pub hostname: String,
    /// NIS domain name inside.
    pub domainname: String,
    /// `user`, `uid`, `user:group`, …; empty means root.
    pub user: String,
    /// Recorded only: whether the creating client attached to stdin.
    pub attach_stdin: bool,
    /// Recorded only: whether the creating client attached to stdout.
    pub attach_stdout: bool,
    /// Recorded only: whether the creating client attached to stderr.
    pub attach_stderr: bool,
    /// Ports the image listens on, as `80/tcp`.
    #[serde(skip_serializing_if = "go::none_or_empty_map")]
    pub exposed_ports: Option<BTreeMap<String, Empty>>,
    /// Whether the process has a terminal.
    pub tty: bool,
    /// Whether stdin stays open.
    pub open_stdin: bool,
    /// Whether stdin is closed when the first attached client leaves.
    pub stdin_once: bool,
    /// `NAME=value` or `NAME` (removes it from the image's).
    pub env: Option<Vec<String>>,
    /// Arguments, or the command when there is no entrypoint.
    #[serde(deserialize_with = "go::string_or_list")]
    pub cmd: Option<Vec<String>>,
    /// How to find out whether the container works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// Windows only.
    #[serde(skip_serializing_if = "go::is_false")]
    pub args_escaped: bool,
    /// The image as the client named it.
    pub image: String,
    /// Anonymous volumes by destination.
    pub volumes: Option<BTreeMap<String, Empty>>,
    /// Working directory; empty means `/`.
    pub working_dir: String,
    /// Command before `cmd`.
    #[serde(deserialize_with = "go::string_or_list")]
    pub entrypoint: Option<Vec<String>>,
    /// No network at all; legacy form of network mode `none`.
    #[serde(skip_serializing_if = "go::is_false")]
    pub network_disabled: bool,
    /// Legacy place of the endpoint's MAC address (below 1.44).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac_address: String,
    /// Triggers for builds upon this image.
    pub on_build: Option<Vec<String>>,
    /// Metadata.
    pub labels: Option<BTreeMap<String, String>>,
    /// Signal that `stop` sends; empty means SIGTERM.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Seconds that `stop` waits before SIGKILL; `None` means 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Shell for the shell form of RUN, CMD and ENTRYPOINT.
    #[serde(
        skip_serializing_if = "go::none_or_empty",
        deserialize_with = "go::string_or_list"
    )]
    pub shell: Option<Vec<String>>,
}

/// How to find out whether a container works. Durations are nanoseconds; 0 means inherit or default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthConfig {
    /// `[]` inherit, `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`.
    #[serde(skip_serializing_if = "go::none_or_empty")]
    pub test: Option<Vec<String>>,
    /// Nanoseconds between two checks.
    #[serde(skip_serializing_if = "go::is_zero")]
    pub interval: i64,
    /// Nanoseconds until a check counts as hung.
    #[serde(skip_serializing_if = "go::is_zero")]
    pub timeout: i64,
    /// Nanoseconds after start in which failures do not count.
    #[serde(skip_serializing_if = "go::is_zero")]
    pub start_period: i64,
    /// Nanoseconds between two checks during the start period.
    #[serde(skip_serializing_if = "go::is_zero")]
    pub start_interval: i64,
    /// Failures in a row until unhealthy.
    #[serde(skip_serializing_if = "go::is_zero")]
    pub retries: i64,
}
