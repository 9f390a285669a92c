//! A request as handlers see it: already through the gate, routed, with its version.

use std::pin::Pin;
use std::sync::Arc;

use api::auth::AuthConfig;
use api::go;
use api::image::Platform;
use api::query::Query;
use api::version::ApiVersion;
use bytes::{Bytes, BytesMut};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, UPGRADE};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde::de::DeserializeOwned;

use crate::body::{Body, Unread};
use crate::failure::Failure;
use crate::service::App;
use crate::tap::Tap;
use crate::{media_type, platform};

/// What a handler returns.
pub(crate) type Reply = Pin<Box<dyn Future<Output = Result<Response<Body>, Failure>> + Send>>;

/// Bytes of a JSON body. The largest sensible one is a create request with thousands of mounts and labels.
const MAX_JSON_BYTES: usize = 16 << 20;

/// Which version a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Requested {
    /// The version that decides about shapes.
    pub(crate) version: ApiVersion,
    /// Whether the path had none: then it is the newest, plus what old clients look for (decision 18).
    pub(crate) unversioned: bool,
}

impl Requested {
    /// Whether the client's version is below 1.`minor`.
    pub(crate) fn below(self, minor: u16) -> bool {
        self.version < ApiVersion::v1(minor)
    }
}

/// One request on its way to the engine.
pub(crate) struct Call {
    /// What is shared.
    pub(crate) app: Arc<App>,
    /// Method, path and headers.
    pub(crate) head: Parts,
    /// The client's version.
    pub(crate) requested: Requested,
    /// What stands in the path for `{name}`.
    pub(crate) name: String,
    /// What stands after the question mark.
    pub(crate) query: Query,
    /// Not read yet.
    pub(crate) body: Unread,
    /// The connection, for those who take it over.
    pub(crate) tap: Tap,
}

impl Call {
    /// The engine.
    ///
    /// # Errors
    /// Unavailable while it starts.
    pub(crate) fn engine(&self) -> Result<engine::Engine, Failure> {
        self.app.engine()
    }

    /// Value of a header, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// Credentials of `X-Registry-Auth`.
    pub(crate) fn registry_auth(&self) -> AuthConfig {
        self.header("x-registry-auth")
            .map(AuthConfig::from_header)
            .unwrap_or_default()
    }

    /// Whether the client wants a raw connection and says so.
    pub(crate) fn wants_upgrade(&self) -> bool {
        self.head.headers.contains_key(UPGRADE)
    }

    /// Bytes that the body will have; `None` when the client does not say.
    pub(crate) fn content_length(&self) -> Option<u64> {
        match self.header(CONTENT_LENGTH.as_str()) {
            Some(text) => text.parse().ok(),
            None if self.body.is_end() => Some(0),
            None => None,
        }
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// When it is too long, or the client goes away.
    pub(crate) async fn bytes(&mut self) -> Result<Bytes, Failure> {
        let mut bytes = BytesMut::new();
        while let Some(frame) = self.body.frame().await {
            let frame =
                frame.map_err(|error| Failure::invalid(format!("reading the body: {error}")))?;
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > MAX_JSON_BYTES {
                    return Err(Failure::new(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        format!("the body is longer than {MAX_JSON_BYTES} bytes"),
                    ));
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(bytes.freeze())
    }

    /// Reads a body that must be JSON if there is one; no body is an empty object.
    ///
    /// # Errors
    /// In dockerd's words when the content type or the JSON is wrong.
    pub(crate) async fn json<T: DeserializeOwned + Default>(&mut self) -> Result<T, Failure> {
        let bytes = self.json_bytes().await?;
        if bytes.is_empty() {
            Ok(T::default())
        } else {
            Ok(go::decode(&bytes)?)
        }
    }

    /// The bytes of a JSON body, after the check of its content type.
    ///
    /// # Errors
    /// In dockerd's words when the content type is wrong.
    pub(crate) async fn json_bytes(&mut self) -> Result<Bytes, Failure> {
        let kind = self
            .header(CONTENT_TYPE.as_str())
            .unwrap_or_default()
            .to_owned();
        let nothing = kind.is_empty() && self.content_length() == Some(0);
        match media_type::parse(&kind) {
            _ if nothing => {}
            Ok(media_type) if media_type == "application/json" => {}
            Ok(_) => {
                return Err(Failure::invalid(format!(
                    "unsupported Content-Type header ({kind}): must be 'application/json'"
                )));
            }
            Err(why) => {
                return Err(Failure::invalid(format!(
                    "malformed Content-Type header ({kind}): {why}"
                )));
            }
        }
        self.bytes().await
    }

    /// `platform=os[/architecture[/variant]]`, or the same as JSON.
    ///
    /// # Errors
    /// In dockerd's words when it is neither.
    pub(crate) fn platform(&self) -> Result<Option<Platform>, Failure> {
        let text = self.query.get("platform");
        if text.is_empty() {
            return Ok(None);
        }
        if text.starts_with('{') {
            let decoded = go::decode(text.as_bytes());
            return decoded
                .map(Some)
                .map_err(|error| Failure::invalid(format!("failed to parse platform: {error}")));
        }
        platform::parse(text).map(Some).map_err(Failure::invalid)
    }
}
