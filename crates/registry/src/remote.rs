//! One repository on one registry: manifests and blobs, after whatever login the registry asks for.

mod error;
mod login;
mod tags;

use std::sync::Mutex;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};
use image::{Algorithm, Digest};

pub use self::error::Error;
use self::error::failure;
use self::login::{Login, challenges};
use crate::auth::{self, Credentials};
use crate::endpoint::Endpoint;
use crate::transport::{self, Answer, Transport};

/// What we read: images and indexes, Docker's and OCI's. Schema 1 is not among them.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// A manifest or index exactly as it came.
#[derive(Clone, Debug)]
pub struct Document {
    /// Hash of the bytes.
    pub digest: Digest,
    /// What the registry says it is.
    pub media_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A blob on its way.
#[derive(Debug)]
pub struct Blob {
    /// Where in the blob the body begins: what was asked for, or 0 when the registry knows no ranges.
    pub offset: u64,
    /// The bytes.
    pub body: transport::Body,
}

/// A repository on an endpoint.
#[derive(Debug)]
pub struct Remote {
    transport: Transport,
    endpoint: Endpoint,
    path: String,
    /// The registry that the user means, for mirrors.
    domain: String,
    credentials: Credentials,
    login: Mutex<Login>,
}

impl Remote {
    /// The repository `path` of the registry `domain` on `endpoint`. Mirrors get no credentials.
    #[must_use]
    pub fn new(
        transport: Transport,
        endpoint: Endpoint,
        domain: &str,
        path: &str,
        credentials: &Credentials,
    ) -> Self {
        let credentials = if endpoint.mirror {
            Credentials::default()
        } else {
            credentials.clone()
        };
        Self {
            transport,
            endpoint,
            path: path.to_owned(),
            domain: domain.to_owned(),
            credentials,
            login: Mutex::new(Login::None),
        }
    }

    /// The endpoint that is asked.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Where the manifest of a reference is; without tag and digest, the list of tags.
    #[must_use]
    pub fn manifest_url(&self, reference: &image::Reference) -> String {
        let rest = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => format!("manifests/{digest}"),
            (None, Some(tag)) => format!("manifests/{tag}"),
            (None, None) => "tags/list".to_owned(),
        };
        self.endpoint.url(&format!("{}/{rest}", self.path))
    }

    /// The manifest or index behind a tag or digest.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub async fn manifest(&self, tag: &str, digest: Option<&Digest>) -> Result<Document, Error> {
        let reference = digest.map_or(tag, Digest::as_str);
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPT));
        let answer = self.get(&format!("manifests/{reference}"), headers).await?;
        let media_type = text(answer.headers(), &header::CONTENT_TYPE);
        let media_type = media_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned();
        let bytes = transport::document(answer.into_body()).await?;
        if media_type.contains("docker.distribution.manifest.v1+") {
            return Err(Error::MediaType(media_type));
        }
        let algorithm = digest.map_or(Algorithm::Sha256, Digest::algorithm);
        let found = Digest::with(algorithm, &bytes);
        if let Some(expected) = digest
            && *expected != found
        {
            return Err(Error::Digest {
                expected: expected.clone(),
                found,
            });
        }
        Ok(Document {
            digest: found,
            media_type,
            bytes,
        })
    }

    /// The blob `digest` from byte `offset` on. The caller verifies what comes.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub async fn blob(&self, digest: &Digest, offset: u64) -> Result<Blob, Error> {
        let mut headers = HeaderMap::new();
        // What is compressed once more on the way would not be the blob.
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        if offset > 0 {
            let range = HeaderValue::try_from(format!("bytes={offset}-"))
                .expect("a number is a header value");
            headers.insert(header::RANGE, range);
        }
        let answer = match self.get(&format!("blobs/{digest}"), headers).await {
            Err(Error::Status(StatusCode::RANGE_NOT_SATISFIABLE)) if offset > 0 => {
                return Err(Error::Range);
            }
            other => other?,
        };
        let offset = if answer.status() == StatusCode::PARTIAL_CONTENT {
            let begin = begin(&text(answer.headers(), &header::CONTENT_RANGE));
            if begin.is_some_and(|begin| begin != offset) {
                return Err(Error::Range);
            }
            offset
        } else {
            0
        };
        Ok(Blob {
            offset,
            body: answer.into_body().into(),
        })
    }

    /// Asks whether the registry lets us in at all (`docker login`).
    ///
    /// # Errors
    /// [`Error::Denied`] and the others of [`enum@Error`].
    pub async fn check(&self) -> Result<(), Error> {
        let answer = self.fetch(&self.endpoint.url(""), HeaderMap::new()).await?;
        transport::document(answer.into_body()).await?;
        Ok(())
    }

    async fn get(&self, rest: &str, headers: HeaderMap) -> Result<Response<Incoming>, Error> {
        let mut url = self.endpoint.url(&format!("{}/{rest}", self.path));
        if self.endpoint.mirror {
            let separator = if rest.contains('?') { '&' } else { '?' };
            url = format!("{url}{separator}ns={}", auth::encode(&self.domain));
        }
        self.fetch(&url, headers).await
    }

    async fn fetch(&self, url: &str, headers: HeaderMap) -> Result<Response<Incoming>, Error> {
        let answer = self.authorised(url, &headers).await?;
        // A challenge of another host, behind a redirect, would collect the registry's password.
        let is_challenge =
            answer.from_endpoint && answer.response.status() == StatusCode::UNAUTHORIZED;
        let answer = if is_challenge {
            let challenges = challenges(answer.response.headers());
            if !self.log_in(&challenges).await? {
                return Err(failure(answer.response).await);
            }
            self.authorised(url, &headers).await?.response
        } else {
            answer.response
        };
        if answer.status().is_success() {
            Ok(answer)
        } else {
            Err(failure(answer).await)
        }
    }

    async fn authorised(&self, url: &str, headers: &HeaderMap) -> Result<Answer, Error> {
        let mut headers = headers.clone();
        if let Some(value) = self.authorization() {
            headers.insert(header::AUTHORIZATION, value);
        }
        Ok(self
            .transport
            .send(&self.endpoint, Method::GET, url, headers, Bytes::new())
            .await?)
    }
}

/// The first byte that a `Content-Range` announces (RFC 9110 section 14.4).
fn begin(content_range: &str) -> Option<u64> {
    let range = content_range.strip_prefix("bytes ")?;
    range.split_once('-')?.0.parse().ok()
}

fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}
