//! The one error of the engine: a class that decides the HTTP status, the text Docker's clients know, and
//! a source for the log alone.
//!
//! Every conversion from a lower crate's error lives here. The type has no `Display` of its chain: the
//! server shows [`Error::message`] and logs [`Error::source`], and neither leaks into the other.

use std::error::Error as Source;

/// What kind of failure a client sees; the server maps each to one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The object does not exist (404).
    NotFound,
    /// The request itself is wrong (400).
    InvalidParameter,
    /// The object's state forbids it (409).
    Conflict,
    /// It is already so (304).
    NotModified,
    /// Who is asking is unknown (401).
    Unauthorized,
    /// Who is asking may not (403).
    Forbidden,
    /// A registry wants fewer requests (429).
    TooManyRequests,
    /// Not now, or not by this engine (503).
    Unavailable,
    /// Part of the API that is not there (501).
    NotImplemented,
    /// The engine's own fault (500).
    Internal,
}

/// A failure of the engine: class, the exact text for the client, and the cause for the log.
#[derive(Debug)]
pub struct Error {
    /// What kind of failure this is.
    pub class: Class,
    /// What the client reads.
    pub message: String,
    /// What the log gets; never shown to a client.
    pub source: Option<Box<dyn Source + Send + Sync>>,
}

impl Error {
    /// Makes an error whose text says all.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            source: None,
        }
    }

    /// The object does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Class::NotFound, message)
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Class::InvalidParameter, message)
    }

    /// The object's state forbids it.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Class::Conflict, message)
    }

    /// It is already so.
    pub fn not_modified(message: impl Into<String>) -> Self {
        Self::new(Class::NotModified, message)
    }

    /// The engine failed while `doing`; the client reads what it was doing and why.
    pub fn internal(doing: impl Into<String>, source: impl Source + Send + Sync + 'static) -> Self {
        Self {
            class: Class::Internal,
            message: format!("{}: {}", doing.into(), Chain(&source)),
            source: Some(Box::new(source)),
        }
    }

    /// Puts `context` and a colon before the text, as moby's `errors.Wrap` does.
    #[must_use]
    pub fn wrap(mut self, context: &str) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl Source for Error {
    fn source(&self) -> Option<&(dyn Source + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Shows an error and all its causes, joined by colons.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn Source + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some errors say their cause themselves.
            if !last.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
            next = cause.source();
        }
        Ok(())
    }
}

impl From<db::Error> for Error {
    fn from(source: db::Error) -> Self {
        Self::internal("the state could not be saved or read", source)
    }
}

impl From<db::rusqlite::Error> for Error {
    fn from(source: db::rusqlite::Error) -> Self {
        Self::from(db::Error::from(source))
    }
}

impl From<image::Error> for Error {
    fn from(source: image::Error) -> Self {
        let class = match source.kind() {
            image::ErrorKind::NotFound => Class::NotFound,
            image::ErrorKind::Invalid => Class::InvalidParameter,
            image::ErrorKind::Conflict => Class::Conflict,
            image::ErrorKind::Internal => return Self::internal("the image store", source),
        };
        Self {
            class,
            message: source.to_string(),
            source: Some(Box::new(source)),
        }
    }
}

impl From<registry::pull::Error> for Error {
    fn from(source: registry::pull::Error) -> Self {
        use registry::pull::Error as Pull;
        use registry::remote::Error as Remote;
        let class = match &source {
            Pull::NotFound { .. } | Pull::Denied { .. } | Pull::NoRepository { .. } => {
                Class::NotFound
            }
            Pull::Manifest(image::manifest::ManifestError::NoMatch { .. }) => Class::NotFound,
            Pull::LoginRefused { .. }
            | Pull::TokenRefused { .. }
            | Pull::Remote(Remote::Denied { .. }) => Class::Unauthorized,
            Pull::OperatingSystem(_) => Class::InvalidParameter,
            Pull::Remote(Remote::TooManyRequests { .. }) => Class::TooManyRequests,
            Pull::Remote(_)
            | Pull::Unreachable { .. }
            | Pull::Manifest(_)
            | Pull::RootFs { .. }
            | Pull::Configuration(_)
            | Pull::ConfigurationDigest(_)
            | Pull::NoConfiguration(_)
            | Pull::LoginFailed { .. }
            | Pull::UnknownBlob(_)
            | Pull::Verification(_)
            | Pull::Store(_)
            | Pull::Gone(_)
            | Pull::Worker => Class::Internal,
        };
        Self {
            class,
            message: source.to_string(),
            source: Some(Box::new(source)),
        }
    }
}

impl From<api::name::NameError> for Error {
    fn from(source: api::name::NameError) -> Self {
        Self::invalid(source.to_string())
    }
}
