//! One repository on one registry: manifests and blobs, after whatever login the registry asks for.

mod tags;

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode, Uri};
use image::{Algorithm, Digest};
use serde::Deserialize;

use crate::auth::{self, Challenge, Credentials, Token};
use crate::endpoint::{Endpoint, Scheme};
use crate::transport::{self, Answer, Transport};

/// What we read: images and indexes, Docker's and OCI's. Schema 1 is not among them.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// As Docker calls itself to token servers.
const CLIENT_ID: &str = "docker";

/// Base64 of `user:password` (RFC 7617).
fn basic(credentials: &Credentials) -> HeaderValue {
    let text = format!("{}:{}", credentials.username, credentials.password);
    let mut value = HeaderValue::try_from(format!("Basic {}", base64(text.as_bytes())))
        .expect("base64 is a header value");
    value.set_sensitive(true);
    value
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

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
    /// The bytes, to be read with [`transport::chunk`].
    pub body: Incoming,
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

#[derive(Clone, Debug)]
enum Login {
    /// Nothing was asked for.
    None,
    Basic,
    Token(Token, Instant),
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
            body: answer.into_body(),
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

    fn authorization(&self) -> Option<HeaderValue> {
        if !self.credentials.registry_token.is_empty() {
            return bearer(&self.credentials.registry_token);
        }
        match &*self.login.lock().unwrap_or_else(PoisonError::into_inner) {
            Login::None => None,
            Login::Basic => Some(basic(&self.credentials)),
            Login::Token(token, until) => (Instant::now() < *until).then(|| bearer(&token.text))?,
        }
    }

    /// Does what the registry asks; false when there is nothing that we could do.
    async fn log_in(&self, challenges: &[Challenge]) -> Result<bool, Error> {
        let has_password = !self.credentials.username.is_empty();
        let login = match challenges
            .iter()
            .find(|challenge| matches!(challenge, Challenge::Bearer { .. }))
        {
            Some(Challenge::Bearer { realm, service, .. }) => {
                let token = self.token(realm, service.as_deref()).await?;
                let until = Instant::now() + token.usable;
                Login::Token(token, until)
            }
            Some(Challenge::Basic) | None
                if has_password && challenges.contains(&Challenge::Basic) =>
            {
                Login::Basic
            }
            Some(Challenge::Basic) | None => return Ok(false),
        };
        *self.login.lock().unwrap_or_else(PoisonError::into_inner) = login;
        Ok(true)
    }

    /// Asks the token server: by POST with a secret (OAuth 2), by GET without one or when it knows no POST.
    async fn token(&self, realm: &str, service: Option<&str>) -> Result<Token, Error> {
        let refused = |why| Error::Realm {
            realm: realm.to_owned(),
            why,
        };
        let uri: Uri = realm.parse().map_err(|_| refused("it is not a URL"))?;
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => return Err(refused("only http and https are used")),
        };
        let host = uri
            .authority()
            .ok_or_else(|| refused("it has no host"))?
            .as_str()
            .to_owned();
        let anonymous = self.credentials.is_anonymous();
        if !anonymous
            && !auth::may_send_secret((self.endpoint.scheme, &self.endpoint.host), (scheme, &host))
        {
            return Err(refused("credentials are not sent there in plain text"));
        }
        if scheme == Scheme::Http && self.endpoint.scheme == Scheme::Https {
            return Err(refused("it leaves TLS"));
        }
        let server = self.endpoint.token_server(scheme, host);
        let mut query = Vec::new();
        if !self.path.is_empty() {
            query.push(("scope", auth::scope(&self.path, false)));
        }
        query.extend(service.map(|service| ("service", service.to_owned())));
        if !anonymous && let Some(token) = self.token_by_post(&server, realm, &query).await? {
            return Ok(token);
        }
        let mut headers = HeaderMap::new();
        if !self.credentials.username.is_empty() {
            headers.insert(header::AUTHORIZATION, basic(&self.credentials));
            query.push(("account", self.credentials.username.clone()));
        }
        let separator = if uri.query().is_some() { '&' } else { '?' };
        let url = format!("{realm}{separator}{}", form(&query));
        let answer = self
            .transport
            .send(&server, Method::GET, &url, headers, Bytes::new())
            .await?
            .response;
        let status = answer.status();
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return Err(match failure(answer).await {
                Error::Denied { code, message } => Error::TokenDenied { code, message },
                other => other,
            });
        }
        auth::token(&transport::document(answer.into_body()).await?).ok_or(Error::Token(status))
    }

    async fn token_by_post(
        &self,
        server: &Endpoint,
        realm: &str,
        query: &[(&str, String)],
    ) -> Result<Option<Token>, Error> {
        let mut fields = query.to_vec();
        fields.push(("client_id", CLIENT_ID.to_owned()));
        if self.credentials.identity_token.is_empty() {
            fields.push(("grant_type", "password".to_owned()));
            fields.push(("username", self.credentials.username.clone()));
            fields.push(("password", self.credentials.password.clone()));
        } else {
            fields.push(("grant_type", "refresh_token".to_owned()));
            fields.push(("refresh_token", self.credentials.identity_token.clone()));
        }
        let mut headers = HeaderMap::new();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, kind);
        let answer = self
            .transport
            .send(server, Method::POST, realm, headers, form(&fields).into())
            .await?
            .response;
        let status = answer.status();
        if !status.is_success() {
            return Ok(None);
        }
        Ok(auth::token(&transport::document(answer.into_body()).await?))
    }
}

/// The first byte that a `Content-Range` announces (RFC 9110 section 14.4).
fn begin(content_range: &str) -> Option<u64> {
    let range = content_range.strip_prefix("bytes ")?;
    range.split_once('-')?.0.parse().ok()
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn form(fields: &[(&str, String)]) -> String {
    let pairs: Vec<_> = fields
        .iter()
        .map(|(key, value)| format!("{key}={}", auth::encode(value)))
        .collect();
    pairs.join("&")
}

fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(auth::challenges)
        .collect()
}

fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned()
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
async fn failure(answer: Response<Incoming>) -> Error {
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
