//! One HTTP exchange with a registry: TLS by the endpoint's rules, redirects, and a limit on every wait.
//!
//! Secrets travel in `Authorization` only, to the host they are meant for: a redirect to another host drops
//! it, and one from TLS to plain text is refused (attack class 11).

mod body;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};

pub use self::body::{Body, DOCUMENT_BYTES_MAX, document};
use self::body::{DOCUMENT_TIMEOUT, STALL_TIMEOUT};
use crate::dns::{self, Resolver};
use crate::endpoint::Endpoint;

/// A registry that does not accept a connection within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A registry that does not begin its answer within this time hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Idle connections are kept this long for the next blob.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// As Go's HTTP client.
const REDIRECTS_MAX: usize = 10;

/// What went wrong in an exchange.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke.
    #[error("{method} {url:?}: {reason}")]
    Exchange {
        /// The HTTP method.
        method: Method,
        /// What was asked for, without query.
        url: String,
        /// The innermost cause, which says what a person can act on.
        reason: String,
        /// Whether the server speaks no TLS there.
        not_tls: bool,
        /// The whole chain.
        #[source]
        source: Box<ClientError>,
    },
    /// A wait had its limit.
    #[error("{method} {url:?}: no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Hung {
        /// The HTTP method.
        method: Method,
        /// What was asked for, without query.
        url: String,
    },
    /// The registry sent us somewhere we do not go.
    #[error("the registry redirects {from:?} to {to:?}, which is refused: {why}")]
    Redirect {
        /// Where we were.
        from: String,
        /// Where it wants us.
        to: String,
        /// The rule.
        why: &'static str,
    },
    /// The URL cannot be asked for.
    #[error("{url:?} is not a URL")]
    Url {
        /// What should have been one.
        url: String,
    },
    /// The body broke off.
    #[error("the connection broke off in the middle of an answer")]
    Body(#[source] hyper::Error),
    /// The body ended too early.
    #[error("the registry sent less than it announced")]
    Short,
    /// The body stopped coming, or all but stopped.
    #[error("the registry sent next to nothing for {} s in the middle of an answer", STALL_TIMEOUT.as_secs())]
    Stalled,
    /// A document takes longer than any real one.
    #[error("the registry's answer is not complete after {} s", DOCUMENT_TIMEOUT.as_secs())]
    Slow,
    /// A document is larger than any real one.
    #[error("the registry's answer is larger than {DOCUMENT_BYTES_MAX} bytes")]
    TooLarge,
    /// TLS cannot be set up on this machine.
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
}

impl Error {
    /// Go's words for a connection that was never made, where they are known: what Docker's clients read.
    #[must_use]
    pub fn dialled(&self, address: &str) -> Option<String> {
        let Self::Exchange { source, .. } = self else {
            return None;
        };
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&**source);
        while let Some(cause) = next {
            if let Some(name) = cause.downcast_ref::<crate::dns::Error>() {
                return Some(format!("dial tcp: {name}"));
            }
            if let Some(io) = cause.downcast_ref::<io::Error>() {
                let words = match io.kind() {
                    io::ErrorKind::ConnectionRefused => "connection refused",
                    io::ErrorKind::HostUnreachable => "no route to host",
                    io::ErrorKind::NetworkUnreachable => "network is unreachable",
                    io::ErrorKind::TimedOut => "connection timed out",
                    _ => "",
                };
                if !words.is_empty() {
                    return Some(format!("dial tcp {address}: connect: {words}"));
                }
                let name = io
                    .get_ref()
                    .and_then(|inner| inner.downcast_ref::<crate::dns::Error>());
                if let Some(name) = name {
                    return Some(format!("dial tcp: {name}"));
                }
            }
            next = cause.source();
        }
        None
    }

    /// Whether no connection was made: refused, unreachable, or what answered speaks no TLS. No request was sent.
    #[must_use]
    pub fn is_unconnected(&self) -> bool {
        matches!(self, Self::Exchange { source, .. } if source.is_connect())
    }

    /// Whether the same request may succeed a moment later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Exchange { not_tls, .. } => !not_tls,
            Self::Hung { .. } | Self::Body(_) | Self::Short | Self::Stalled | Self::Slow => true,
            Self::Redirect { .. } | Self::Url { .. } | Self::TooLarge | Self::Tls(_) => false,
        }
    }
}

/// An answer, and who gave it.
#[derive(Debug)]
pub struct Answer {
    /// Status, headers and body.
    pub response: Response<Incoming>,
    /// Whether the endpoint itself answered: scheme, host and port are its own. What a host at the end of a
    /// redirect asks for, a login above all, is not the registry's wish.
    pub from_endpoint: bool,
}

type HttpClient = Client<HttpsConnector<HttpConnector<Names>>, Full<Bytes>>;

/// The connections to registries. Clones share them.
#[derive(Clone, Debug)]
pub struct Transport {
    verifying: HttpClient,
    trusting: HttpClient,
}

impl Transport {
    /// Loads the machine's trust roots (or, where there are none, Mozilla's) and connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn new(resolver: Resolver) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = || {
            rustls::ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .map_err(Error::Tls)
        };
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        let verifying = builder()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let any = Arc::new(AnyCertificate(provider.clone()));
        let trusting = builder()?
            .dangerous()
            .with_custom_certificate_verifier(any)
            .with_no_client_auth();
        Ok(Self {
            verifying: client(verifying, &resolver),
            trusting: client(trusting, &resolver),
        })
    }

    /// Sends a request to `endpoint` and follows redirects. `url` may be on another host than the endpoint's
    /// (an upload location); `headers` with a secret are for the endpoint's host alone.
    ///
    /// # Errors
    /// [`enum@Error`]; a status that tells of failure is an answer, not an error.
    pub async fn send(
        &self,
        endpoint: &Endpoint,
        method: Method,
        url: &str,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Error> {
        let mut url: Uri = url.parse().map_err(|_| Error::Url {
            url: url.to_owned(),
        })?;
        keep_secrets_home(endpoint, &url, &mut headers);
        for _ in 0..=REDIRECTS_MAX {
            let response = self.once(endpoint, &method, &url, &headers, &body).await?;
            let Some(location) = redirection(&method, &response) else {
                return Ok(Answer {
                    response,
                    from_endpoint: is_on(&url, endpoint),
                });
            };
            let next = follow(endpoint, &url, &location)?;
            keep_secrets_home(endpoint, &next, &mut headers);
            url = next;
        }
        Err(refused(&url, "", "too many redirects"))
    }

    async fn once(
        &self,
        endpoint: &Endpoint,
        method: &Method,
        url: &Uri,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = method.clone();
        *request.uri_mut() = url.clone();
        *request.headers_mut() = headers.clone();
        let agent = HeaderValue::from_static(concat!("cooper/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        let client = if endpoint.verify {
            &self.verifying
        } else {
            &self.trusting
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, client.request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => {
                let reason = innermost(&source);
                let not_tls = is_not_tls(&source);
                Err(Error::Exchange {
                    method: method.clone(),
                    url: without_query(url),
                    reason,
                    not_tls,
                    source: Box::new(source),
                })
            }
            Err(_) => Err(Error::Hung {
                method: method.clone(),
                url: without_query(url),
            }),
        }
    }
}

/// Whether `url` is on the endpoint's own host, spoken to in its own way.
fn is_on(url: &Uri, endpoint: &Endpoint) -> bool {
    url.scheme_str() == Some(endpoint.scheme.as_str())
        && url.authority().map(hyper::http::uri::Authority::as_str) == Some(endpoint.host.as_str())
}

/// Secrets are for the endpoint's own host, spoken to as the endpoint is: the same name without TLS is another one.
fn keep_secrets_home(endpoint: &Endpoint, url: &Uri, headers: &mut HeaderMap) {
    if !is_on(url, endpoint) {
        headers.remove(header::AUTHORIZATION);
    }
}

fn redirection(method: &Method, answer: &Response<Incoming>) -> Option<String> {
    let redirects = matches!(
        answer.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    if !redirects || !(method == Method::GET || method == Method::HEAD) {
        return None;
    }
    Some(
        answer
            .headers()
            .get(header::LOCATION)?
            .to_str()
            .ok()?
            .to_owned(),
    )
}

fn follow(endpoint: &Endpoint, from: &Uri, location: &str) -> Result<Uri, Error> {
    let next = resolve(from, location).ok_or_else(|| refused(from, location, "it is not a URL"))?;
    match (from.scheme_str(), next.scheme_str()) {
        (_, Some("https")) | (Some("http"), Some("http")) => Ok(next),
        // An insecure registry speaks plain text anyway.
        (Some("https"), Some("http")) if !endpoint.verify => Ok(next),
        (Some("https"), Some("http")) => Err(refused(from, location, "it leaves TLS")),
        _ => Err(refused(from, location, "only http and https are followed")),
    }
}

/// Resolves a reference against a URL: absolute, `//host/path` or `/path` (RFC 3986 section 5.2 without dot
/// segments, which no registry sends).
#[must_use]
pub fn resolve(base: &Uri, reference: &str) -> Option<Uri> {
    if reference.contains("://") {
        return reference.parse().ok();
    }
    let scheme = base.scheme_str()?;
    if let Some(rest) = reference.strip_prefix("//") {
        return format!("{scheme}://{rest}").parse().ok();
    }
    let authority = base.authority()?;
    if reference.starts_with('/') {
        return format!("{scheme}://{authority}{reference}").parse().ok();
    }
    let directory = base
        .path()
        .rsplit_once('/')
        .map_or("", |(directory, _)| directory);
    format!("{scheme}://{authority}{directory}/{reference}")
        .parse()
        .ok()
}

fn refused(from: &Uri, to: &str, why: &'static str) -> Error {
    let to = to.split(['?', '#']).next().unwrap_or_default().to_owned();
    Error::Redirect {
        from: without_query(from),
        to,
        why,
    }
}

/// Queries carry tokens and signatures: they are kept out of messages.
fn without_query(url: &Uri) -> String {
    let authority = url
        .authority()
        .map_or("", hyper::http::uri::Authority::as_str);
    format!(
        "{}://{authority}{}",
        url.scheme_str().unwrap_or_default(),
        url.path()
    )
}

fn innermost(error: &ClientError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = cause.to_string();
        next = cause.source();
    }
    text
}

/// Whether what answered a TLS greeting was not TLS: then plain text may be tried where that is allowed.
fn is_not_tls(error: &ClientError) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(cause) = next {
        if let Some(rustls::Error::InvalidMessage(_)) = cause.downcast_ref::<rustls::Error>() {
            return true;
        }
        // tokio-rustls wraps it in an io::Error, whose source skips the error it holds.
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && let Some(rustls::Error::InvalidMessage(_)) = io
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            return true;
        }
        next = cause.source();
    }
    false
}

fn client(tls: rustls::ClientConfig, resolver: &Resolver) -> HttpClient {
    let mut http = HttpConnector::new_with_resolver(Names(resolver.clone()));
    http.enforce_http(false);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    http.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(http);
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_timer(TokioTimer::new())
        .build(connector)
}

/// Our resolver in the form that hyper asks for.
#[derive(Clone, Debug)]
struct Names(Resolver);

impl tower_service::Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = dns::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.0.clone();
        Box::pin(async move {
            let found: Vec<IpAddr> = resolver.lookup(name.as_str()).await?;
            // The connector puts the port in.
            Ok(found
                .into_iter()
                .map(|address| SocketAddr::new(address, 0))
                .collect::<Vec<_>>()
                .into_iter())
        })
    }
}

/// For registries that the user listed as insecure: any certificate will do, but the handshake is a real one.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Scheme;

    /// Where a redirect from `https://registry.test` may lead, and whether with the password.
    #[test]
    fn no_redirect_takes_a_secret_off_tls() {
        let from: Uri = "https://registry.test/v2/a/blobs/b".parse().unwrap();
        let cases = [
            (true, "https://registry.test/x", Some(true)),
            (true, "http://registry.test/x", None),
            (true, "https://other.test/x", Some(false)),
            (true, "https://registry.test:8443/x", Some(false)),
            // One that is listed as insecure may lead to plain text, and says nothing there.
            (false, "http://registry.test/x", Some(false)),
            (false, "http://other.test/x", Some(false)),
        ];
        for (verify, location, with_secret) in cases {
            let endpoint = Endpoint {
                scheme: Scheme::Https,
                host: "registry.test".to_owned(),
                path: String::new(),
                verify,
                mirror: false,
            };
            let mut headers = HeaderMap::new();
            let secret = HeaderValue::from_static("Basic c2VjcmV0");
            headers.insert(header::AUTHORIZATION, secret);
            let carries = follow(&endpoint, &from, location).ok().map(|next| {
                keep_secrets_home(&endpoint, &next, &mut headers);
                headers.contains_key(header::AUTHORIZATION)
            });
            assert_eq!(carries, with_secret, "{verify} {location}");
        }
    }
}
