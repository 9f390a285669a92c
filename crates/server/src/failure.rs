//! Failures of a request: which status, which words. The only place where errors become HTTP.

use api::container::create::CreateBodyError;
use api::error::ErrorResponse;
use api::filters::FilterError;
use api::go::{self, DecodeError};
use api::name::NameError;
use api::query::QueryError;
use api::version::VersionError;
use engine::Class;
use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{Response, StatusCode};
use sys::signal::SignalError;

use crate::body::Body;
use crate::respond::Headers;

/// Why a request is answered with an error.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// Docker's words for the client.
    pub(crate) message: String,
    /// Which headers stand on it beside those of its content.
    pub(crate) headers: Headers,
    /// Where the client shall go instead.
    pub(crate) location: Option<HeaderValue>,
}

impl Failure {
    /// A status and its words.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            headers: Headers::All,
            location: None,
        }
    }

    /// The request is wrong.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// dockerd's answer to every unknown path and every wrong method.
    pub(crate) fn page_not_found() -> Self {
        Self {
            headers: Headers::None,
            ..Self::new(StatusCode::NOT_FOUND, "page not found")
        }
    }

    /// The words in Docker's shape.
    pub(crate) fn body(&self) -> Vec<u8> {
        go::encode(&ErrorResponse {
            message: self.message.clone(),
        })
    }

    /// The same thing under its one path.
    pub(crate) fn moved(path: &str, query: Option<&str>) -> Self {
        let mut location = String::new();
        for byte in path.bytes() {
            if byte.is_ascii_graphic() && !b"%?#\"<>\\^`{|}".contains(&byte) {
                location.push(char::from(byte));
            } else {
                location.push_str(&format!("%{byte:02X}"));
            }
        }
        if let Some(query) = query {
            location.push('?');
            location.push_str(query);
        }
        Self {
            headers: Headers::None,
            location: HeaderValue::try_from(location).ok(),
            ..Self::new(StatusCode::MOVED_PERMANENTLY, String::new())
        }
    }

    /// In Docker's shape; a redirection and a 304 have no body.
    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        if let Some(location) = self.location.clone() {
            response.headers_mut().insert(LOCATION, location);
        }
        if !self.status.is_redirection() {
            *response.body_mut() = self.body().into();
            response
                .headers_mut()
                .insert(CONTENT_TYPE, crate::respond::JSON);
        }
        response
    }
}

/// The status of each class of engine errors.
pub(crate) fn status(class: Class) -> StatusCode {
    match class {
        Class::NotFound => StatusCode::NOT_FOUND,
        Class::InvalidParameter => StatusCode::BAD_REQUEST,
        Class::Conflict => StatusCode::CONFLICT,
        Class::NotModified => StatusCode::NOT_MODIFIED,
        Class::Unauthorized => StatusCode::UNAUTHORIZED,
        Class::Forbidden => StatusCode::FORBIDDEN,
        Class::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Class::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        Class::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<engine::Error> for Failure {
    /// The log gets the cause here, once; the client gets the words. dockerd gives many a mistake of a client the status
    /// of its own failures; one that has no cause in the engine is none.
    fn from(error: engine::Error) -> Self {
        match (error.class, error.source.as_deref()) {
            (Class::Internal, Some(cause)) => {
                tracing::error!(cause = %cause, "{}", error.message);
            }
            (Class::Internal, None) => tracing::info!("refused: {}", error.message),
            _ => {}
        }
        Self::new(status(error.class), error.message)
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        let status = match error {
            // dockerd hands Go's own error through, and that has no class.
            QueryError::Number { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            QueryError::Resize { .. } | QueryError::Escape(_) | QueryError::Semicolon => {
                StatusCode::BAD_REQUEST
            }
        };
        Self::new(status, error.to_string())
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Trailing => Self::invalid(error.to_string()),
            _ => Self::invalid(format!("invalid JSON: {error}")),
        }
    }
}

impl From<CreateBodyError> for Failure {
    fn from(error: CreateBodyError) -> Self {
        match error {
            CreateBodyError::Decode(error) => error.into(),
            CreateBodyError::NoConfig => Self::invalid(error.to_string()),
        }
    }
}

/// Errors whose text is the whole answer, always with status 400.
macro_rules! invalid {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::invalid(error.to_string())
            }
        }
    )*};
}

invalid!(FilterError, NameError, SignalError);

impl From<VersionError> for Failure {
    fn from(error: VersionError) -> Self {
        Self {
            headers: Headers::Versioned,
            ..Self::invalid(error.to_string())
        }
    }
}
