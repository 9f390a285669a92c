//! One request from its headers to its answer.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::task::{Context, Poll};

use api::query::{Query, unescape};
use api::version::ApiVersion;
use engine::Engine;
use hyper::body::{Body as _, Incoming};
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::{Body, Unread};
use crate::failure::Failure;
use crate::framing::{BodyLength, Refusal};
use crate::gate::{Gate, Peer};
use crate::request::{Call, Reply, Requested};
use crate::respond::{Headers, browser_headers, cross_origin_headers, empty};
use crate::route::Action;
use crate::routes;
use crate::tap::Tap;

/// What all requests share.
#[derive(Default)]
pub struct App {
    engine: OnceLock<Engine>,
    gate: RwLock<Arc<Gate>>,
    /// State changes: they outlive the request that began them, and the daemon's end waits for them.
    changes: TaskTracker,
    /// Streams, raw ones too.
    tasks: TaskTracker,
    /// Clients.
    connections: TaskTracker,
    /// Cancelled when the daemon ends: what would go on without end does not.
    stopping: CancellationToken,
}

impl App {
    /// An application behind this gate, whose engine comes later.
    #[must_use]
    pub fn new(gate: Gate) -> Arc<Self> {
        Arc::new(Self {
            gate: RwLock::new(Arc::new(gate)),
            ..Self::default()
        })
    }

    /// Gives it its engine. Until then whatever needs one answers 503.
    ///
    /// # Panics
    /// When it has one already.
    pub fn set_engine(&self, engine: Engine) {
        assert!(
            self.engine.set(engine).is_ok(),
            "the engine is set once, after it was opened"
        );
    }

    /// Changes the gate for connections and requests to come.
    pub fn set_gate(&self, gate: Gate) {
        *self.gate.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(gate);
    }

    /// Ends what goes on without end: logs and events that are followed, waits, attached clients. State changes go on.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Waits until state changes under way are done. Call it when no more connections are accepted.
    pub async fn finish(&self) {
        self.changes.close();
        self.changes.wait().await;
    }

    pub(crate) fn engine(&self) -> Result<Engine, Failure> {
        let starting = || Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the engine is starting");
        self.engine.get().cloned().ok_or_else(starting)
    }

    pub(crate) fn changes(&self) -> &TaskTracker {
        &self.changes
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    pub(crate) fn connections(&self) -> &TaskTracker {
        &self.connections
    }

    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    pub(crate) fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Begins a request of this connection. Call it the moment hyper has one, before it reads on; `Some` is its answer.
pub(crate) fn begin(tap: &Tap, request: &Request<Incoming>) -> Option<Refusal> {
    if request.version() >= Version::HTTP_2 {
        return None;
    }
    tap.begin(body_length(request))
}

/// Answers one request; never fails and never panics.
pub(crate) async fn answer(
    app: Arc<App>,
    peer: Peer,
    tap: Tap,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let head_only = request.method() == Method::HEAD;
    let page = app.gate().allowed_page(peer, request.headers());
    let (mut response, headers) = match process(app.clone(), peer, tap, request).await {
        Ok(response) => (response, Headers::All),
        Err(failure) => {
            let failure = explained(&app, failure).await;
            let headers = failure.headers;
            (failure.into_response(), headers)
        }
    };
    headers.put(response.headers_mut());
    if peer != Peer::Unix {
        browser_headers(response.headers_mut());
    }
    if let Some(origin) = page {
        cross_origin_headers(response.headers_mut(), origin);
    }
    if head_only && matches!(response.body(), Body::Stream(_)) {
        *response.body_mut() = Body::empty();
    }
    Ok(response)
}

/// What the engine could not do says what to do next when the data root is what is missing: a disk that was unmounted.
async fn explained(app: &App, mut failure: Failure) -> Failure {
    if failure.status != StatusCode::INTERNAL_SERVER_ERROR {
        return failure;
    }
    let Ok(engine) = app.engine() else {
        return failure;
    };
    let data_root = engine.config().data_root.clone();
    let shown = data_root.display().to_string();
    // Awaited at once; a disk that hangs keeps its request, as it kept the work before.
    let looked = tokio::task::spawn_blocking(move || data_root.is_dir());
    if matches!(looked.await, Ok(false)) {
        let hint = format!("; the data root {shown} is not there: put it back and try again");
        failure.message.push_str(&hint);
    }
    failure
}

fn body_length(request: &Request<Incoming>) -> BodyLength {
    match request.body().size_hint().exact() {
        Some(length) => BodyLength::Known(length),
        None => BodyLength::Chunked,
    }
}

async fn process(
    app: Arc<App>,
    peer: Peer,
    tap: Tap,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let (head, body) = request.into_parts();
    app.gate().check(peer, &head)?;
    let path = unescape(head.uri.path(), false);
    if let Some(clean) = cleaned(&path) {
        return Err(Failure::moved(&clean, head.uri.query()));
    }
    if head.method == Method::OPTIONS {
        return Ok(empty(StatusCode::OK));
    }
    let (version, path) = split_version(&path);
    let (route, name) = routes::find(&head.method, path).ok_or_else(Failure::page_not_found)?;
    let requested = requested(version)?;
    let query = head.uri.query().unwrap_or_default();
    if reads_forms(&route.action, route.pattern) {
        Query::check(query)?;
    }
    let query = Query::parse(query);
    let (changes, stopping) = (app.changes.clone(), app.stopping.clone());
    let body = Unread::new(body, app.tasks().clone());
    let call = Call {
        app,
        head,
        requested,
        name,
        query,
        body,
        tap,
    };
    match route.action {
        Action::Run(handler) => tokio::select! {
            answer = caught(handler, call) => answer,
            () = stopping.cancelled() => Err(Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the engine is stopping",
            )),
        },
        Action::Change(handler) => {
            // In its own task: a client that goes away must not stop a change half-way.
            let change = changes.spawn(caught(handler, call));
            change.await.unwrap_or_else(|error| Err(panicked(&error)))
        }
        Action::NotYet => {
            Err(nobody(&call, route.pattern).unwrap_or_else(|| not_yet(&call, route.pattern)))
        }
        Action::NoManager => {
            let words = match route.pattern {
                "/volumes/{name}" => NO_CLUSTER_VOLUMES,
                _ => NO_MANAGER,
            };
            Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, words))
        }
        Action::NoSwarm => Err(Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "This node is not part of a swarm",
        )),
        Action::NeverSwarm => Err(Failure::new(StatusCode::NOT_IMPLEMENTED, NEVER_SWARM)),
    }
}

/// Whether dockerd's handler parses the query as a whole, and so tells what is wrong with it. The others look for one
/// value, or for none.
fn reads_forms(action: &Action, pattern: &str) -> bool {
    let looks = [
        "/_ping",
        "/version",
        "/info",
        "/auth",
        "/containers/{id}/json",
        "/exec/{id}/json",
    ];
    matches!(action, Action::Run(_) | Action::Change(_)) && !looks.contains(&pattern)
}

const NO_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" \
    to connect this node to swarm and try again.";
const NO_CLUSTER_VOLUMES: &str =
    "volume update only valid for cluster volumes, but swarm is unavailable";
const NEVER_SWARM: &str =
    "swarm mode is not part of this engine; to run containers on several machines use Kubernetes";

/// Of a kind that is not served there is nothing by any name, and `docker inspect` goes from one kind to the next
/// at a 404. dockerd's words.
fn nobody(call: &Call, pattern: &str) -> Option<Failure> {
    let name = &call.name;
    let message = match (call.head.method.as_str(), pattern) {
        ("GET", "/plugins/{name}/json") => format!("plugin \"{name}\" not found"),
        _ => return None,
    };
    Some(Failure::new(StatusCode::NOT_FOUND, message))
}

fn not_yet(call: &Call, pattern: &str) -> Failure {
    Failure::new(
        StatusCode::NOT_IMPLEMENTED,
        format!("{} {pattern} is not implemented yet", call.head.method),
    )
}

/// Where dockerd's router sends a client whose path has empty segments or dots (Go's `path.Clean`).
fn cleaned(path: &str) -> Option<String> {
    let odd = |segment: &str| matches!(segment, "" | "." | "..");
    let inner = path.strip_prefix('/').unwrap_or(path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if inner.is_empty() || !inner.split('/').any(odd) {
        return None;
    }
    let mut segments = Vec::new();
    for segment in inner.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    let slash = if path.ends_with('/') && !segments.is_empty() {
        "/"
    } else {
        ""
    };
    Some(format!("/{}{slash}", segments.join("/")))
}

/// Takes `/v1.44` off the path. What looks like a version but has nothing behind it is a path of its own.
fn split_version(path: &str) -> (Option<&str>, &str) {
    let Some(rest) = path.strip_prefix("/v") else {
        return (None, path);
    };
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    let (version, tail) = rest.split_at(end);
    if version.is_empty() || !tail.starts_with('/') {
        (None, path)
    } else {
        (Some(version), tail)
    }
}

fn requested(version: Option<&str>) -> Result<Requested, Failure> {
    match version {
        None => Ok(Requested {
            version: ApiVersion::MAX,
            unversioned: true,
        }),
        Some(text) => Ok(Requested {
            version: text.parse()?,
            unversioned: false,
        }),
    }
}

/// Runs a handler; its panic is one failed request.
async fn caught(handler: fn(Call) -> Reply, call: Call) -> Result<Response<Body>, Failure> {
    let request = format!("{} {}", call.head.method, call.head.uri.path());
    Caught(handler(call)).await.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message = message
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        tracing::error!(request, message, "a handler panicked");
        Err(Failure::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the engine made a mistake; its log says more",
        ))
    })
}

fn panicked(error: &tokio::task::JoinError) -> Failure {
    tracing::error!(%error, "a state change was lost");
    Failure::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the engine made a mistake; its log says more",
    )
}

/// A handler's future under `catch_unwind`. Handlers box an async block, so nothing runs before the first poll.
struct Caught(Reply);

impl Future for Caught {
    type Output = Result<Result<Response<Body>, Failure>, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let poll = AssertUnwindSafe(|| self.0.as_mut().poll(context));
        match std::panic::catch_unwind(poll) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(answer)) => Poll::Ready(Ok(answer)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_are_cleaned_as_go_does() {
        for (path, wanted) in [
            ("//containers/json", Some("/containers/json")),
            ("/v1.51/containers//json", Some("/v1.51/containers/json")),
            ("/images/http://x/json", Some("/images/http:/x/json")),
            ("/volumes/..", Some("/")),
            ("/volumes/.", Some("/volumes")),
            ("/a//b/", Some("/a/b/")),
            ("/networks/", None),
            ("/", None),
            ("/images/a/b:c/json", None),
        ] {
            assert_eq!(cleaned(path).as_deref(), wanted, "{path}");
        }
    }

    #[test]
    fn versions_are_taken_off_only_in_front_of_a_path() {
        for (path, wanted) in [
            ("/v1.44/info", (Some("1.44"), "/info")),
            ("/info", (None, "/info")),
            ("/version", (None, "/version")),
            ("/volumes/v1.2", (None, "/volumes/v1.2")),
            ("/v1.44", (None, "/v1.44")),
            ("/v1.44/", (Some("1.44"), "/")),
            ("/v/info", (None, "/v/info")),
            ("/v1.24x/info", (None, "/v1.24x/info")),
        ] {
            assert_eq!(split_version(path), wanted, "{path}");
        }
    }
}
