//! HTTP as clients see it, on real sockets, as far as it needs no engine: what reaches one gets 503 here, so an
//! answer of 503 proves that a request went through gate and routing.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use server::{App, Gate, Listener, TableRow, route_table, serve};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a unix socket and on loopback, without an engine.
struct Server {
    _dir: TempDir,
    path: PathBuf,
    tcp: SocketAddr,
    stop: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    fn start() -> Self {
        Self::behind(Gate::default())
    }

    fn behind(gate: Gate) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let guard = runtime.enter();
        let unix = Listener::unix(&path, None).unwrap();
        let tcp = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = tcp.address().unwrap();
        let stop = CancellationToken::new();
        runtime.spawn(serve(App::new(gate), vec![unix, tcp], stop.clone()));
        drop(guard);
        Self {
            _dir: dir,
            path,
            tcp: address,
            stop,
            runtime: Some(runtime),
        }
    }

    fn unix(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// One request on a connection of its own, whole answer.
    fn ask(&self, request: &str) -> Answer {
        let mut stream = self.unix();
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Answer::new(&bytes)
    }

    /// `GET path` and the like, without a body.
    fn get(&self, line: &str) -> Answer {
        self.ask(&format!(
            "{line} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
        ))
    }

    fn post(&self, path: &str, kind: &str, body: &str) -> Answer {
        let length = body.len();
        self.ask(&format!(
            "POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n{kind}Content-Length: {length}\r\n\r\n{body}"
        ))
    }

    fn ask_tcp(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.tcp).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        // A refused peer may reset the connection after its answer: what came counts.
        drop(stream.read_to_end(&mut bytes));
        Answer::new(&bytes)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    line: String,
    head: String,
    body: String,
}

impl Answer {
    fn new(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let (line, head) = head.split_once("\r\n").unwrap_or((head, ""));
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        Self {
            status,
            line: line.to_owned(),
            head: format!("{head}\r\n"),
            body: body.to_owned(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let start = format!("{name}: ");
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(start.as_str()))
    }
}

#[test]
fn ping_is_dockers() {
    let server = Server::start();
    let get = server.get("GET /_ping");
    assert_eq!((get.status, get.body.as_str()), (200, "OK"));
    for (name, value) in [
        ("Api-Version", "1.51"),
        ("Builder-Version", "2"),
        ("Cache-Control", "no-cache, no-store, must-revalidate"),
        ("Docker-Experimental", "false"),
        ("Ostype", "linux"),
        ("Pragma", "no-cache"),
        ("Server", "Docker/28.5.2 (linux)"),
        ("Swarm", "inactive"),
        ("Content-Length", "2"),
        ("Content-Type", "text/plain; charset=utf-8"),
    ] {
        assert_eq!(get.header(name), Some(value), "{name}");
    }
    assert!(get.header("Date").is_some());
    let head = server.get("HEAD /v1.30/_ping");
    assert_eq!(
        (
            head.status,
            head.header("Content-Length"),
            head.body.as_str()
        ),
        (200, Some("0"), "")
    );
}

#[test]
fn unknown_paths_methods_and_versions() {
    let server = Server::start();
    for line in [
        "GET /nope",
        "PUT /version",
        "GET /",
        "GET /v1.51",
        "GET /v1.60/nope",
        "PATCH /info",
    ] {
        let answer = server.get(line);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (404, "{\"message\":\"page not found\"}\n"),
            "{line}"
        );
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
    }
    for (line, message) in [
        (
            "GET /v1.60/version",
            "client version 1.60 is too new. Maximum supported API version is 1.51",
        ),
        (
            "GET /v1.11/version",
            "client version 1.11 is too old. Minimum supported API version is 1.12, \
             please upgrade your client to a newer version",
        ),
    ] {
        let answer = server.get(line);
        assert_eq!(
            (answer.status, answer.body.clone()),
            (400, format!("{{\"message\":\"{message}\"}}\n"))
        );
        assert_eq!(answer.header("Api-Version"), Some("1.51"));
    }
    assert_eq!(server.get("OPTIONS /nope").status, 200);
    assert_eq!(server.get("GET /v1.12/info").status, 503);
    // A verb of its own, which dockerd has for `_ping` and `archive` alone.
    assert_eq!(server.get("HEAD /v1.51/info").status, 404);
}

#[test]
fn bodies_must_be_json_when_there_are_any() {
    let server = Server::start();
    let json = "Content-Type: application/json\r\n";
    for (kind, body, told) in [
        (
            "Content-Type: text/plain\r\n",
            "{}",
            "unsupported Content-Type header (text/plain): must be 'application/json'",
        ),
        (
            "",
            "{}",
            "malformed Content-Type header (): mime: no media type",
        ),
        ("", "", "invalid JSON: got EOF while reading request body"),
        (
            json,
            "{}",
            "config cannot be empty in order to create a container",
        ),
        (json, "{", "invalid JSON: unexpected EOF"),
        (json, r#"{"Image":"a"} x"#, "unexpected content after JSON"),
    ] {
        let answer = server.post("/v1.51/containers/create", kind, body);
        let told = format!("{{\"message\":\"{told}\"}}\n");
        assert_eq!((answer.status, answer.body), (400, told), "{kind}{body}");
    }
    let accepted = "Content-Type: application/json; charset=utf-8\r\n";
    assert_eq!(
        server
            .post("/containers/create", accepted, r#"{"Image":"a"}"#)
            .status,
        503
    );
}

/// The answer does not wait for a body that nobody wants, and the client that still writes it sees no broken pipe.
#[test]
fn an_unwanted_body_is_thrown_away() {
    let server = Server::start();
    let mut stream = server.unix();
    stream
        .write_all(b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: a/b\r\nContent-Length: 2\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 400"));
    stream
        .write_all(b"{}GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut next = String::new();
    stream.read_to_string(&mut next).unwrap();
    assert!(
        next.starts_with("HTTP/1.1 200") && next.ends_with("OK"),
        "{next}"
    );
}

#[test]
fn odd_paths_are_sent_to_the_one_there_is() {
    let server = Server::start();
    let answer = server.get("GET //containers/json?all=1");
    assert_eq!(
        (
            answer.status,
            answer.header("Location"),
            answer.body.as_str()
        ),
        (301, Some("/containers/json?all=1"), "")
    );
}

#[test]
fn bad_queries_have_dockers_words_and_status() {
    let server = Server::start();
    let cases = [
        (
            "GET /containers/json?limit=x",
            500,
            r#"strconv.Atoi: parsing \"x\": invalid syntax"#,
        ),
        ("GET /containers/json?filters=x", 400, "invalid filter"),
        (
            "POST /containers/a/stop?t=x",
            500,
            r#"strconv.Atoi: parsing \"x\": invalid syntax"#,
        ),
        (
            "POST /containers/a/kill?signal=xx",
            400,
            "cannot kill container: a: invalid signal: xx",
        ),
        (
            "POST /containers/a/wait?condition=x",
            400,
            r#"invalid condition: \"x\""#,
        ),
        (
            "POST /containers/a/resize?h=x&w=1",
            400,
            r#"invalid resize height \"x\": invalid syntax"#,
        ),
        (
            "GET /containers/a/logs",
            400,
            "Bad parameters: you must choose at least one stream",
        ),
        (
            "GET /containers/a/logs?stdout=1&since=x",
            500,
            r#"strconv.ParseInt: parsing \"x\": invalid syntax"#,
        ),
        (
            "GET /events?since=9&until=1",
            400,
            "`since` time (9) cannot be after `until` time (1)",
        ),
    ];
    for (line, status, told) in cases {
        let answer = server.get(line);
        let told = format!("{{\"message\":\"{told}\"}}\n");
        assert_eq!((answer.status, answer.body), (status, told), "{line}");
    }
}

#[test]
fn start_takes_a_body_of_seven_bytes_and_no_more() {
    let server = Server::start();
    assert_eq!(server.post("/containers/a/start", "", "{}").status, 503);
    assert_eq!(server.post("/containers/a/start", "", "").status, 503);
    let long = server.post(
        "/containers/a/start",
        "Content-Type: application/json\r\n",
        r#"{"Binds":[]}"#,
    );
    assert_eq!(long.status, 400);
    assert!(
        long.body
            .contains("starting container with non-empty request body was deprecated"),
        "{}",
        long.body
    );
}

/// Every row that is not there yet, and those of swarm, in Docker's shape.
#[test]
fn rows_without_an_engine_behind_them() {
    let server = Server::start();
    for row in route_table() {
        let answer = server.get(&concrete(&row));
        // Of a kind that is not there yet nothing exists by name, which `docker inspect` relies on.
        let by_name = row.path == "/plugins/{name}/json";
        let wanted = match row.coverage {
            server::Coverage::NotYet if row.verb == "GET" && by_name => 404..=404,
            server::Coverage::NotYet => 501..=501,
            server::Coverage::Inactive => 501..=503,
            server::Coverage::Served => 200..=503,
        };
        assert!(wanted.contains(&answer.status), "{row:?}: {answer:?}");
        if answer.status > 500 && row.verb != "HEAD" && !row.path.ends_with("/attach") {
            assert!(
                answer.body.starts_with("{\"message\":\""),
                "{row:?}: {answer:?}"
            );
        }
    }
    let leave = server.get("POST /swarm/leave");
    assert_eq!(
        (
            leave.status,
            leave.body.contains("This node is not part of a swarm")
        ),
        (503, true)
    );
    assert!(
        server
            .get("GET /nodes")
            .body
            .contains("This node is not a swarm manager.")
    );
}

fn concrete(row: &TableRow) -> String {
    format!(
        "{} {}",
        row.verb,
        row.path.replace("{id}", "abc").replace("{name}", "abc")
    )
}

/// T-H1, T-O1, T-C1, T-W1: pages in the browser of the machine itself, against every route.
#[test]
fn no_foreign_page_reaches_any_route_on_tcp() {
    let server = Server::start();
    let port = server.tcp.port();
    let own = format!("Host: localhost:{port}\r\n");
    let form = |kind: &str| {
        format!("{own}Origin: http://evil.example\r\nContent-Type: {kind}\r\nContent-Length: 3\r\n")
    };
    let websocket = format!(
        "{own}Origin: http://evil.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n"
    );
    let attacks = [
        ("rebound name", format!("Host: evil.example:{port}\r\n")),
        (
            "rebound name with our origin",
            format!("Host: evil.example\r\nOrigin: http://localhost:{port}\r\n"),
        ),
        ("origin", format!("{own}Origin: http://evil.example\r\n")),
        ("opaque origin", format!("{own}Origin: null\r\n")),
        ("other port", format!("{own}Origin: http://localhost:1\r\n")),
        ("cross-site", format!("{own}Sec-Fetch-Site: cross-site\r\n")),
        ("same-site", format!("{own}Sec-Fetch-Site: same-site\r\n")),
        (
            "old browser",
            format!("{own}Referer: http://evil.example/\r\nContent-Length: 0\r\n"),
        ),
        (
            "url-encoded form",
            form("application/x-www-form-urlencoded"),
        ),
        ("multipart form", form("multipart/form-data; boundary=x")),
        ("text form", form("text/plain")),
        ("websocket", websocket),
    ];
    for row in route_table() {
        for (attack, headers) in &attacks {
            for protocol in ["HTTP/1.1", "HTTP/1.0"] {
                let request = format!(
                    "{} {protocol}\r\n{headers}Connection: close\r\n\r\na=b",
                    concrete(&row)
                );
                let answer = server.ask_tcp(&request);
                assert_eq!(
                    answer.status, 403,
                    "{attack}: {row:?} {protocol}: {answer:?}"
                );
            }
        }
    }
    let good = server.ask_tcp(&format!(
        "GET /info HTTP/1.1\r\n{own}Connection: close\r\n\r\n"
    ));
    assert_eq!(good.status, 503);
    assert_eq!(good.header("X-Content-Type-Options"), Some("nosniff"));
}

/// The refusal comes before the body: a client that announced one and sends nothing gets its answer.
#[test]
fn a_refused_request_is_answered_before_its_body_is_read() {
    let server = Server::start();
    let mut stream = TcpStream::connect(server.tcp).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(
            b"POST /images/load HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 1000000\r\n\r\n",
        )
        .unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 403");
}

/// dockerd hijacks before it looks for the container, so its refusal is raw.
#[test]
fn a_refused_attach_is_plain_words_on_a_raw_connection() {
    let server = Server::start();
    for upgrade in ["", "Upgrade: tcp\r\nConnection: Upgrade\r\n"] {
        let request =
            format!("POST /containers/a/attach?stream=1 HTTP/1.1\r\nHost: d\r\n{upgrade}\r\n");
        let answer = server.ask(&request);
        assert_eq!(answer.line, "HTTP/1.1 503 Service Unavailable");
        assert_eq!(
            answer.head,
            "Content-Type: application/vnd.docker.raw-stream\r\n"
        );
        assert_eq!(answer.body, "the engine is starting\r\n");
    }
}

#[test]
fn connections_are_kept_and_pipelines_answered_in_order() {
    let server = Server::start();
    let mut stream = server.unix();
    let one = "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n";
    let last = "GET /nope HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";
    stream
        .write_all(format!("{one}{one}{last}").as_bytes())
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("HTTP/1.1") || line.contains("HTTP/1.1 "))
        .collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[2].ends_with("404 Not Found"));
}

/// What `curl -g` and shell scripts send; dockerd 28.5.2 takes them all.
#[test]
fn targets_are_taken_with_any_byte_in_them() {
    let server = Server::start();
    for target in [
        r#"/containers/json?filters={"status":["running"],"name":["a|b^c`d\\"]}"#,
        "/images/json?filters={\"reference\":[\"\u{fc}\"]}",
        "/containers/{a}<b>/json",
        "http://docker/events?filters={}",
    ] {
        assert_eq!(server.get(&format!("GET {target}")).status, 503, "{target}");
    }
    // A redirection names the place as it was asked for.
    let moved = server.get("GET //containers/json?filters={}");
    assert_eq!(
        moved.header("Location"),
        Some("/containers/json?filters=%7B%7D")
    );
    for (query, words) in [
        ("%zz", r#"{"message":"invalid URL escape \"%zz\""}"#),
        ("a=%", r#"{"message":"invalid URL escape \"%\""}"#),
        (
            "a=b;c",
            r#"{"message":"invalid semicolon separator in query"}"#,
        ),
    ] {
        let answer = server.get(&format!("GET /containers/json?{query}"));
        assert_eq!((answer.status, answer.body.trim_end()), (400, words));
        assert_eq!(server.get(&format!("GET /_ping?{query}")).status, 200);
    }
}

/// Go's server speaks before dockerd does: plain words, none of dockerd's headers, and the connection ends.
#[test]
fn a_head_that_cannot_be_read_is_answered_in_words() {
    let server = Server::start();
    let field = format!(
        "GET /_ping HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
        "a".repeat(70_000)
    );
    for (head, line, body) in [
        ("GARBAGE\r\n\r\n", "400 Bad Request", "400 Bad Request"),
        (
            "GET /_ping?a b HTTP/1.1\r\nHost: x\r\n\r\n",
            "400 Bad Request",
            "400 Bad Request",
        ),
        (
            "GET /a%zzb HTTP/1.1\r\nHost: x\r\n\r\n",
            "400 Bad Request",
            "400 Bad Request",
        ),
        (
            "GET /_ping HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n",
            "400 Bad Request: invalid header name",
            "400 Bad Request: invalid header name",
        ),
        (
            "GET / HTTP/9.9\r\n\r\n",
            "505 HTTP Version Not Supported: unsupported protocol version",
            "505 HTTP Version Not Supported: unsupported protocol version",
        ),
        (
            "POST /_ping HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
            "501 Not Implemented",
            "Unsupported transfer encoding",
        ),
        (
            &field[..65_000],
            "431 Request Header Fields Too Large",
            "431 Request Header Fields Too Large",
        ),
    ] {
        // Behind a good one on the same connection.
        let mut stream = server.unix();
        let both = format!("GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n{head}");
        stream.write_all(both.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        // What was sent behind it and never read may reset the connection: what came counts.
        drop(stream.read_to_end(&mut bytes));
        let text = String::from_utf8(bytes).unwrap();
        let (_, second) = text.split_once("\r\n\r\nOK").unwrap();
        let answer = Answer::new(second.as_bytes());
        assert_eq!(answer.line, format!("HTTP/1.1 {line}"));
        assert_eq!(answer.body, body);
        assert_eq!(answer.header("Connection"), Some("close"));
        assert_eq!(
            answer.header("Content-Type"),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(answer.header("Api-Version"), None);
    }
}

#[test]
fn the_socket_is_the_groups_and_no_living_one_is_taken() {
    let server = Server::start();
    let mode = std::fs::metadata(&server.path)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _guard = runtime.enter();
    let taken = Listener::unix(&server.path, None).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    assert!(
        taken.to_string().contains("another daemon answers there"),
        "{taken}"
    );
    let dir = tempfile::tempdir().unwrap();
    let stale = dir.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    Listener::unix(&stale, None).unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(Listener::unix(&file, None).is_err());
    assert!(file.exists());
}

#[test]
fn a_page_that_was_allowed_may_ask_first_and_read_the_answer() {
    let gate = Gate {
        origins: ["https://panel.example".to_owned()].into(),
        ..Gate::default()
    };
    let server = Server::behind(gate);
    let ask = |verb: &str, origin: &str| {
        server.ask_tcp(&format!(
            "{verb} /containers/create HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n\
             Content-Length: 0\r\n\r\n"
        ))
    };
    // The fetch standard's preflight, and the request itself: an answer without these headers is kept from the page.
    for (verb, status) in [("OPTIONS", 200), ("GET", 404)] {
        let answer = ask(verb, "https://panel.example");
        assert_eq!(answer.status, status, "{verb}");
        let header = |name: &str| answer.header(name).map(str::to_owned);
        assert_eq!(
            header("Access-Control-Allow-Origin").as_deref(),
            Some("https://panel.example"),
            "{verb}"
        );
        assert_eq!(header("Vary").as_deref(), Some("Origin"));
        let methods = header("Access-Control-Allow-Methods").unwrap();
        assert!(methods.contains("POST") && methods.contains("DELETE"));
        let headers = header("Access-Control-Allow-Headers").unwrap();
        assert!(headers.contains("Content-Type"));
    }
    let foreign = ask("OPTIONS", "https://other.example");
    assert_eq!(foreign.status, 403);
    assert!(foreign.header("Access-Control-Allow-Origin").is_none());
}
