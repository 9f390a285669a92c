//! Why a registry did not give what was asked for, and how its answers say so.

use hyper::body::Incoming;
use hyper::header;
use hyper::{Response, StatusCode};
use image::Digest;
use serde::Deserialize;

use super::text;
use crate::transport;

/// Why a registry did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The exchange itself failed.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// The registry says that it has no such thing.
    #[error("{code}: {message}", code = words(code))]
    NotFound {
        /// The registry's error code, such as `MANIFEST_UNKNOWN`.
        code: String,
        /// Its words.
        message: String,
    },
    /// The registry refuses us: wrong or missing credentials, or no right to it.
    #[error("{code}: {message}", code = words(code))]
    Denied {
        /// The registry's error code, such as `DENIED`.
        code: String,
        /// Its words.
        message: String,
    },
    /// The token server does not accept our credentials.
    #[error("{code}: {message}", code = words(code))]
    TokenDenied {
        /// Its error code, such as `UNAUTHORIZED`.
        code: String,
        /// Its words.
        message: String,
    },
    /// The registry wants fewer requests.
    #[error("toomanyrequests: {message}")]
    TooManyRequests {
        /// Its words.
        message: String,
        /// What `Retry-After` says, in seconds.
        retry_after_s: Option<u64>,
    },
    /// The registry refuses without saying why in its own terms.
    #[error("unknown: {0}")]
    Unknown(String),
    /// Any other status.
    #[error("received unexpected HTTP status: {0}")]
    Status(StatusCode),
    /// The token server gave no token.
    #[error("the token server of the registry answered {0}")]
    Token(StatusCode),
    /// A token server where no secret may be sent.
    #[error("the registry asks to log in at {realm:?}, which is refused: {why}")]
    Realm {
        /// The token server's URL.
        realm: String,
        /// The rule.
        why: &'static str,
    },
    /// What came is not what its digest names.
    #[error("manifest verification failed for digest {expected}")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The registry has nothing from the byte on that was asked for, or sent another range.
    #[error("the registry cannot go on where the download stopped")]
    Range,
    /// The list of tags is malformed, or never ends.
    #[error("the registry's list of tags cannot be read")]
    Tags,
    /// The registry sent an old manifest, or something else.
    #[error(
        "the registry sent a manifest of type {0:?}: push the image again with a current client"
    )]
    MediaType(String),
}

impl Error {
    /// Whether the registry asks who we are, rather than refuses who we are.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Denied { code, .. } if code == "UNAUTHORIZED")
    }

    /// What the registry wants us to wait, in seconds, when it wants fewer requests.
    #[must_use]
    pub fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::TooManyRequests { retry_after_s, .. } => *retry_after_s,
            _ => None,
        }
    }

    /// Whether the same request may succeed a moment later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Transport(error) => error.is_passing(),
            Self::TooManyRequests { .. } => true,
            Self::Status(status) => {
                status.is_server_error() || *status == StatusCode::REQUEST_TIMEOUT
            }
            Self::NotFound { .. }
            | Self::Denied { .. }
            | Self::TokenDenied { .. }
            | Self::Unknown(_)
            | Self::Token(_)
            | Self::Realm { .. }
            | Self::Digest { .. }
            | Self::Range
            | Self::Tags
            | Self::MediaType(_) => false,
        }
    }
}

/// `MANIFEST_UNKNOWN` as Docker prints it.
fn words(code: &str) -> String {
    code.to_lowercase().replace('_', " ")
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    errors: Vec<ErrorItem>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorItem {
    code: String,
    message: String,
}

/// The error of an answer in nobody's terms: as Docker, what it says is all that is known.
fn unexplained(status: StatusCode, bytes: &[u8], retry_after_s: Option<u64>) -> Error {
    let end = bytes.len().min(WORDS_BYTES_MAX);
    let message = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let denied = |code: &str, message| Error::Denied {
        code: code.to_owned(),
        message,
    };
    match status {
        StatusCode::UNAUTHORIZED => denied("UNAUTHORIZED", message),
        StatusCode::FORBIDDEN => denied("DENIED", message),
        StatusCode::TOO_MANY_REQUESTS => Error::TooManyRequests {
            message,
            retry_after_s,
        },
        // These two mean something to a download.
        StatusCode::REQUEST_TIMEOUT | StatusCode::RANGE_NOT_SATISFIABLE => Error::Status(status),
        _ => Error::Unknown(message),
    }
}

/// Bytes of a refusal that is no JSON which are shown.
const WORDS_BYTES_MAX: usize = 1024;

/// Reads the error of an answer (OCI distribution-spec, "Error Codes").
pub(super) async fn failure(answer: Response<Incoming>) -> Error {
    let status = answer.status();
    let retry_after_s = text(answer.headers(), &header::RETRY_AFTER).parse().ok();
    let kind = text(answer.headers(), &header::CONTENT_TYPE);
    let bytes = transport::document(answer.into_body())
        .await
        .unwrap_or_default();
    let is_json = kind
        .split(';')
        .next()
        .is_some_and(|kind| matches!(kind.trim(), "application/json" | "application/vnd.api+json"));
    let body: ErrorBody = serde_json::from_slice(&bytes).unwrap_or_default();
    if !is_json && body.errors.is_empty() && status.is_client_error() {
        return unexplained(status, &bytes, retry_after_s);
    }
    let item = body.errors.into_iter().next().unwrap_or_default();
    let message = if item.message.is_empty() {
        words(status.canonical_reason().unwrap_or("unknown"))
    } else {
        item.message
    };
    let code = |default: &str| {
        if item.code.is_empty() {
            default.to_owned()
        } else {
            item.code.clone()
        }
    };
    match status {
        StatusCode::NOT_FOUND => Error::NotFound {
            code: code("NOT_FOUND"),
            message,
        },
        StatusCode::UNAUTHORIZED => Error::Denied {
            code: code("UNAUTHORIZED"),
            message,
        },
        StatusCode::FORBIDDEN => Error::Denied {
            code: code("DENIED"),
            message,
        },
        StatusCode::TOO_MANY_REQUESTS => Error::TooManyRequests {
            message,
            retry_after_s,
        },
        other => Error::Status(other),
    }
}
