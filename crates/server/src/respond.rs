//! Answers, and the headers that stand on each of them.

use api::go;
use api::version::ApiVersion;
use hyper::ext::ReasonPhrase;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, PRAGMA, SERVER,
    VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::body::Body;
use crate::framing::Refusal;

/// Content type of nearly everything.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Content type of plain words.
pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Content type of a stream without frames, and before 1.42 of every stream.
pub(crate) const RAW_STREAM: HeaderValue =
    HeaderValue::from_static("application/vnd.docker.raw-stream");
/// Content type of a stream with frames.
pub(crate) const MULTIPLEXED_STREAM: HeaderValue =
    HeaderValue::from_static("application/vnd.docker.multiplexed-stream");

const API_VERSION: HeaderName = HeaderName::from_static("api-version");
const BUILDER_VERSION: HeaderName = HeaderName::from_static("builder-version");
const EXPERIMENTAL: HeaderName = HeaderName::from_static("docker-experimental");
const OS_TYPE: HeaderName = HeaderName::from_static("ostype");
const SWARM: HeaderName = HeaderName::from_static("swarm");

/// A JSON answer.
pub(crate) fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response<Body> {
    with_type(status, JSON, go::encode(value))
}

/// An answer with a content type.
pub(crate) fn with_type(status: StatusCode, kind: HeaderValue, bytes: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(bytes.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// What Go's server says to a head that cannot be read, before anything of dockerd's has seen it.
pub(crate) fn refusal(refusal: Refusal) -> Response<Body> {
    let mut response = with_type(refusal.status, TEXT, refusal.words.as_bytes().to_vec());
    response
        .headers_mut()
        .insert(CONNECTION, const { HeaderValue::from_static("close") });
    // Go repeats its words in the status line when they begin with the status.
    let reason = refusal.words.strip_prefix(refusal.status.as_str());
    if let Some(Ok(reason)) =
        reason.map(|reason| ReasonPhrase::try_from(reason.trim_start().as_bytes()))
    {
        response.extensions_mut().insert(reason);
    }
    response
}

/// An answer that goes on.
pub(crate) fn stream(kind: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// How much of [`common_headers`] an answer has: dockerd puts them on in steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Headers {
    /// All of them.
    All,
    /// Without the one for experimental features: the version was refused.
    Versioned,
    /// None: no route was found.
    None,
}

impl Headers {
    /// Puts them on.
    pub(crate) fn put(self, headers: &mut HeaderMap) {
        match self {
            Self::All => common_headers(headers),
            Self::Versioned => {
                common_headers(headers);
                headers.remove(EXPERIMENTAL);
            }
            Self::None => {}
        }
    }
}

/// Puts the headers on that every served answer has.
pub(crate) fn common_headers(headers: &mut HeaderMap) {
    let max = const { HeaderValue::from_static("1.51") };
    debug_assert_eq!(max, ApiVersion::MAX.to_string().as_str());
    headers.insert(API_VERSION, max);
    headers.insert(EXPERIMENTAL, HeaderValue::from_static("false"));
    headers.insert(OS_TYPE, HeaderValue::from_static("linux"));
    headers.insert(SERVER, HeaderValue::from_static("Docker/28.5.2 (linux)"));
}

/// Puts the headers on that only `_ping` has.
pub(crate) fn ping_headers(headers: &mut HeaderMap) {
    headers.insert(BUILDER_VERSION, HeaderValue::from_static("2"));
    headers.insert(SWARM, HeaderValue::from_static("inactive"));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
}

/// Puts the headers on that keep a browser from guessing or keeping anything; for answers over TCP.
pub(crate) fn browser_headers(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

/// Puts the headers on that let a page of this origin read an answer and send JSON (<https://fetch.spec.whatwg.org/>,
/// "CORS protocol"); the gate has let the request through.
pub(crate) fn cross_origin_headers(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(VARY, const { HeaderValue::from_static("Origin") });
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        const { HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE") },
    );
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        const { HeaderValue::from_static("Content-Type, X-Registry-Auth, X-Registry-Config") },
    );
}
