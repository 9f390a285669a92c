//! A registry with one image of one layer, on loopback, that misbehaves as it is told.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use image::{Algorithm, Digest};
use serde_json::json;
use tokio::net::TcpListener;

/// What the registry does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The first download of the layer breaks off half way; the next may go on.
    Truncate,
    /// The layer's bytes are others than its digest names, at the same length.
    WrongLayer,
    /// The configuration names another diff id.
    WrongDiffId,
    /// The layer goes on after its announced size.
    LongLayer,
    /// The manifest asked for by digest is another one.
    WrongManifest,
    /// A token is needed, and a password for the token.
    Login,
    /// The first download of the layer is one request too many; two seconds later it would not be.
    TooMany,
    /// Blobs are on another host.
    Redirect(SocketAddr),
    /// The manifest names a layer that is not there.
    NoLayer,
    /// The manifest names a configuration that is not there.
    NoConfig,
    /// As `Truncate`, and what follows is another part than the one asked for.
    OtherRange,
}

pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) ranges: Arc<AtomicUsize>,
    pub(crate) saw_authorization: Arc<AtomicBool>,
    /// How often somebody asked for a token.
    pub(crate) tokens: Arc<AtomicUsize>,
    content: Arc<Content>,
}

struct Content {
    fault: Fault,
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
    address: SocketAddr,
    ranges: Arc<AtomicUsize>,
    downloads: AtomicUsize,
    saw_authorization: Arc<AtomicBool>,
    tokens: Arc<AtomicUsize>,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Fake {
    pub(crate) async fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let ranges = Arc::new(AtomicUsize::new(0));
        let saw_authorization = Arc::new(AtomicBool::new(false));
        let tokens = Arc::new(AtomicUsize::new(0));
        let mut content = Content::new(fault, address, &ranges, &saw_authorization);
        content.tokens = Arc::clone(&tokens);
        let content = Arc::new(content);
        let served = Arc::clone(&content);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let content = Arc::clone(&served);
                tokio::spawn(async move {
                    let answer = service_fn(move |request| {
                        let content = Arc::clone(&content);
                        async move { Ok::<_, Infallible>(content.answer(request).await) }
                    });
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), answer)
                            .await,
                    );
                });
            }
        });
        Self {
            address,
            ranges,
            saw_authorization,
            tokens,
            content,
        }
    }

    pub(crate) fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.address)
    }

    pub(crate) fn manifest_digest(&self) -> Digest {
        Digest::of(&self.content.manifest)
    }

    pub(crate) fn layer_digest(&self, _position: usize) -> Digest {
        Digest::of(&self.content.layer)
    }

    pub(crate) fn layer(&self) -> &[u8] {
        &self.content.layer
    }

    /// The manifest's other name.
    pub(crate) fn manifest_sha512(&self) -> Digest {
        Digest::with(Algorithm::Sha512, &self.content.manifest)
    }

    /// How often the layer was asked for from its beginning.
    pub(crate) fn downloads(&self) -> usize {
        self.content.downloads.load(Ordering::Relaxed)
    }
}

impl Content {
    fn new(
        fault: Fault,
        address: SocketAddr,
        ranges: &Arc<AtomicUsize>,
        saw: &Arc<AtomicBool>,
    ) -> Self {
        let layer = testkit::archive::layer(&[
            testkit::archive::Entry::directory("etc", 0o755),
            // Larger than what travels in one piece.
            testkit::archive::Entry::file("etc/data", 0o644, vec![b'x'; 1 << 20]),
        ]);
        let diff_id = if fault == Fault::WrongDiffId {
            Digest::of(b"other")
        } else {
            Digest::of(&layer)
        };
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [diff_id.as_str()]},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(&config).as_str(), "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": Digest::of(&layer).as_str(), "size": layer.len(),
            }],
        });
        Self {
            fault,
            layer,
            config,
            manifest: manifest.to_string().into_bytes(),
            address,
            ranges: Arc::clone(ranges),
            downloads: AtomicUsize::new(0),
            saw_authorization: Arc::clone(saw),
            tokens: Arc::default(),
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let authorization = request.headers().get(header::AUTHORIZATION).cloned();
        self.saw_authorization
            .fetch_or(authorization.is_some(), Ordering::Relaxed);
        let path = request.uri().path().to_owned();
        if path == "/token" {
            return self.token(request).await;
        }
        let allowed = authorization.is_some_and(|value| value == "Bearer good");
        if self.fault == Fault::Login && !allowed {
            let realm = format!(
                "Bearer realm=\"http://{}/token\",service=\"fake\"",
                self.address
            );
            return error(401, "UNAUTHORIZED", "authentication required", Some(realm));
        }
        let (_, reference) = path.rsplit_once('/').unwrap_or_default();
        if path.contains("/manifests/") {
            return self.manifest(reference);
        }
        if let (Fault::Redirect(other), true) = (self.fault, path.contains("/blobs/")) {
            let location = format!("http://{other}{path}");
            return Response::builder()
                .status(307)
                .header(header::LOCATION, location)
                .body(Full::default())
                .unwrap();
        }
        if reference == Digest::of(&self.config).as_str() && self.fault != Fault::NoConfig {
            return Response::new(Full::from(self.config.clone()));
        }
        if reference == Digest::of(&self.layer).as_str() && self.fault != Fault::NoLayer {
            return self.blob(&request);
        }
        error(404, "BLOB_UNKNOWN", "blob unknown", None)
    }

    fn manifest(&self, reference: &str) -> Response<Full<Bytes>> {
        // Who asks for a SHA-512 digest gets the manifest, whatever the digest says.
        let known = reference == "latest"
            || reference.starts_with("sha512:")
            || reference == Digest::of(&self.manifest).as_str();
        if !known {
            return error(404, "MANIFEST_UNKNOWN", "manifest unknown", None);
        }
        let mut bytes = self.manifest.clone();
        if self.fault == Fault::WrongManifest {
            bytes.push(b'\n');
        }
        Response::builder()
            .header(header::CONTENT_TYPE, MANIFEST)
            .body(Full::from(bytes))
            .unwrap()
    }

    fn blob(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let mut bytes = self.layer.clone();
        match self.fault {
            Fault::WrongLayer => *bytes.last_mut().unwrap() ^= 1,
            Fault::LongLayer => bytes.push(0),
            _ => {}
        }
        if let Some(range) = request.headers().get(header::RANGE) {
            self.ranges.fetch_add(1, Ordering::Relaxed);
            let begin: usize = range.to_str().unwrap()["bytes=".len()..]
                .trim_end_matches('-')
                .parse()
                .unwrap();
            if begin >= bytes.len() {
                return error(416, "RANGE_INVALID", "invalid range", None);
            }
            let begin = if self.fault == Fault::OtherRange {
                begin / 2
            } else {
                begin
            };
            let range = format!("bytes {begin}-{}/{}", bytes.len() - 1, bytes.len());
            let rest = bytes.split_off(begin);
            return Response::builder()
                .status(206)
                .header(header::CONTENT_RANGE, range)
                .body(Full::from(rest))
                .unwrap();
        }
        let first = self.downloads.fetch_add(1, Ordering::Relaxed) == 0;
        if self.fault == Fault::TooMany && first {
            let mut refusal = error(429, "TOOMANYREQUESTS", "slow down", None);
            let pause = header::HeaderValue::from_static("2");
            refusal.headers_mut().insert(header::RETRY_AFTER, pause);
            return refusal;
        }
        if matches!(self.fault, Fault::Truncate | Fault::OtherRange) && first {
            bytes.truncate(bytes.len() / 2);
        }
        Response::new(Full::from(bytes))
    }

    async fn token(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        self.tokens.fetch_add(1, Ordering::Relaxed);
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let form = String::from_utf8_lossy(&body).into_owned();
        if form.contains("username=cooper") && form.contains("password=right") {
            return Response::new(Full::from(r#"{"token":"good"}"#));
        }
        error(401, "UNAUTHORIZED", "incorrect username or password", None)
    }
}

fn error(
    status: u16,
    code: &str,
    message: &str,
    challenge: Option<String>,
) -> Response<Full<Bytes>> {
    let body = json!({"errors": [{"code": code, "message": message}]}).to_string();
    let mut response = Response::builder().status(status);
    if let Some(challenge) = challenge {
        response = response.header(header::WWW_AUTHENTICATE, challenge);
    }
    response.body(Full::from(body)).unwrap()
}
