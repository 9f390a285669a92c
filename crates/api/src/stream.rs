//! Messages of the progress streams (pull, push, load, build), and the frames of attached output.

use serde::{Deserialize, Serialize};

use crate::go;

/// One message of a progress stream (Go: `jsonmessage.JSONMessage`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Message {
    /// Text of a build step or of load, with its own newline.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stream: String,
    /// `Downloading`, `Pull complete`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// How far; `Some` (even if empty) for every update of an action, since compose drops messages without it.
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// The drawn bar.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub progress: String,
    /// 12 hex digits of a layer, or a tag.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// What went wrong, after the first byte.
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    /// As the error's message, for old clients.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// A result (`{"ID":"sha256:…"}`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

/// How far an action is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressDetail {
    /// Done.
    #[serde(skip_serializing_if = "go::is_zero")]
    pub current: i64,
    /// Of how much; 0 when not known.
    #[serde(skip_serializing_if = "go::is_zero")]
    pub total: i64,
    /// Empty means bytes; `s` seconds.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub units: String,
}

impl ProgressDetail {
    /// So many bytes done of so many.
    #[must_use]
    pub fn of_bytes(current: u64, total: u64) -> Self {
        let signed = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        Self {
            current: signed(current),
            total: signed(total),
            units: String::new(),
        }
    }
}

/// What went wrong in a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    /// Exit code of a build step; 0 otherwise.
    #[serde(skip_serializing_if = "go::is_zero")]
    pub code: i64,
    /// Docker's words.
    pub message: String,
}

impl Message {
    /// An error inside a stream whose status is already out.
    #[must_use]
    pub fn failed(message: String) -> Self {
        Self {
            error_detail: Some(ErrorDetail {
                code: 0,
                message: message.clone(),
            }),
            error: message,
            ..Self::default()
        }
    }
}

/// Bytes of the header before each frame of a multiplexed stream.
pub const FRAME_HEADER_BYTES: usize = 8;

/// Which stream a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// A failure of the engine itself.
    SystemError = 3,
}

/// The header of a frame of `length` bytes.
#[must_use]
pub fn frame_header(kind: FrameKind, length: u32) -> [u8; FRAME_HEADER_BYTES] {
    let [a, b, c, d] = length.to_be_bytes();
    [kind as u8, 0, 0, 0, a, b, c, d]
}
