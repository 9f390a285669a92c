//! What comes in the query of a request, decoded: the engine's argument types.

use crate::auth::AuthConfig;
use crate::filters::Filters;
use crate::image::Platform;
use crate::time::Time;

/// For `POST /containers/create`: what is not in the body.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CreateOptions {
    /// As given, with or without a slash; empty means a generated one. Not validated yet.
    pub name: String,
    /// For which machine; `None` means the host's.
    pub platform: Option<Platform>,
}

/// For `GET /containers/json`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListOptions {
    /// Also those that do not run.
    pub all: bool,
    /// The newest so many, running or not; 0 or less means no limit.
    pub limit: i64,
    /// With sizes.
    pub size: bool,
    /// Keys are not validated yet.
    pub filters: Filters,
}

/// For stop and restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// A signal's number, 1 … 64; `None` means the container's.
    pub signal: Option<i32>,
    /// Seconds until SIGKILL; negative means for ever, `None` the container's.
    pub timeout_seconds: Option<i64>,
}

/// For `DELETE /containers/{id}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Kill it first.
    pub force: bool,
    /// Remove its anonymous volumes.
    pub volumes: bool,
    /// Remove the link of this name only.
    pub link: bool,
}

/// For `POST /containers/{id}/wait`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// At once when it does not run.
    #[default]
    NotRunning,
    /// At the next end, never a past one.
    NextExit,
    /// When it is gone.
    Removed,
}

/// For `GET /containers/{id}/logs`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogsOptions {
    /// Stay and send what comes.
    pub follow: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Nothing older.
    pub since: Option<Time>,
    /// Nothing younger.
    pub until: Option<Time>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// The last so many lines; `None` means all.
    pub tail: Option<u64>,
    /// Each line begins with its attributes.
    pub details: bool,
}

/// For `POST /containers/{id}/attach`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// First what was written before.
    pub logs: bool,
    /// Then what comes.
    pub stream: bool,
    /// Connect stdin.
    pub stdin: bool,
    /// Connect stdout.
    pub stdout: bool,
    /// Connect stderr.
    pub stderr: bool,
    /// Keys that leave it running; empty means the daemon's default.
    pub detach_keys: String,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WindowSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// For `GET /events`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EventsOptions {
    /// Begin with what happened since.
    pub since: Option<Time>,
    /// End then; `None` means never.
    pub until: Option<Time>,
    /// Keys are not validated yet.
    pub filters: Filters,
}

/// For `GET /images/json`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageListOptions {
    /// Also intermediate ones.
    pub all: bool,
    /// Compute what is shared.
    pub shared_size: bool,
    /// Keys are not validated yet.
    pub filters: Filters,
}

/// For `DELETE /images/{name}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageRemoveOptions {
    /// Even if it has more names or stopped containers.
    pub force: bool,
    /// Keep parents that have no name.
    pub no_prune: bool,
}

/// For `POST /images/create?fromImage=…`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullOptions {
    /// As given; may hold a tag or digest.
    pub from_image: String,
    /// Tag or digest; empty means what `from_image` says, or all tags.
    pub tag: String,
    /// For which machine; `None` means the host's.
    pub platform: Option<Platform>,
    /// Credentials.
    pub auth: AuthConfig,
}

/// For `POST /images/load`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// No progress.
    pub quiet: bool,
    /// Only what is for this machine.
    pub platform: Option<Platform>,
}

/// For `GET /volumes`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VolumeListOptions {
    /// Keys are not validated yet.
    pub filters: Filters,
}
