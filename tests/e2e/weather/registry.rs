//! A registry on loopback whose repositories each misbehave as their name says: `<engine>/<fault>`.
//!
//! Plain threads and one request a connection: what it does wrong must be plain to see.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::json;
use testkit::archive::{self, Entry, digest};

/// Larger than what travels in one piece.
const LAYER_FILE_BYTES: usize = 1 << 20;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The registry and its memory.
pub(super) struct Faulty {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    /// Host and port of the same registry under another name: another host to any client.
    elsewhere: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    images: HashMap<String, Image>,
    /// Repositories that behave from now on.
    mended: HashSet<String>,
    /// How often each blob was asked for.
    asked: HashMap<String, usize>,
    ranges: HashSet<String>,
    hanging: HashSet<String>,
    elsewhere_saw_authorization: bool,
    login: bool,
}

#[derive(Clone)]
struct Image {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

struct Request {
    /// HEAD gets no body.
    head: bool,
    path: String,
    headers: HashMap<String, String>,
    body: String,
}

struct Answer {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn answer(status: &'static str, body: impl Into<Vec<u8>>) -> Answer {
    Answer {
        status,
        headers: Vec::new(),
        body: body.into(),
    }
}

fn error(status: &'static str, code: &str, message: &str) -> Answer {
    // With a detail, as real registries: without one Docker says less.
    let body = json!({"errors": [{"code": code, "message": message, "detail": {"of": "a test"}}]});
    Answer {
        headers: vec![("Content-Type", "application/json".to_owned())],
        ..answer(status, body.to_string())
    }
}

/// The same, to be tried again in a second.
fn later(mut answer: Answer) -> Answer {
    answer.headers.push(("Retry-After", "1".to_owned()));
    answer
}

impl Image {
    fn of(repository: &str) -> Self {
        let own = format!("{repository} {}\n", std::process::id());
        let content = own.repeat(LAYER_FILE_BYTES / own.len());
        let layer = archive::layer(&[
            Entry::directory("etc", 0o755),
            Entry::file("etc/data", 0o644, content),
        ]);
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": format!("sha256:{}", digest(&config)), "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": format!("sha256:{}", digest(&layer)), "size": layer.len(),
            }],
        });
        Self {
            layer,
            config,
            manifest: manifest.to_string().into_bytes(),
        }
    }
}

impl Faulty {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Shared {
            elsewhere: format!("127.0.0.2:{port}"),
            state: Mutex::default(),
        });
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&served);
                std::thread::spawn(move || {
                    if let Err(error) = shared.serve(stream) {
                        println!("the registry's client left: {error}");
                    }
                });
            }
        });
        Self {
            address: format!("127.0.0.1:{port}"),
            shared,
        }
    }

    /// Host and port.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The repository behaves from now on.
    pub(super) fn mend(&self, repository: &str) {
        self.shared.state().mended.insert(repository.to_owned());
    }

    /// `/v2/` itself asks for a token from now on.
    pub(super) fn ask_for_login(&self) {
        self.shared.state().login = true;
    }

    pub(super) fn manifest_digest(&self, repository: &str) -> String {
        format!("sha256:{}", digest(&self.shared.image(repository).manifest))
    }

    /// Whether a download of the repository's layer was resumed.
    pub(super) fn saw_range(&self, repository: &str) -> bool {
        self.shared.state().ranges.contains(repository)
    }

    /// Whether a request of the repository waits in vain.
    pub(super) fn is_hanging(&self, repository: &str) -> bool {
        self.shared.state().hanging.contains(repository)
    }

    pub(super) fn elsewhere_saw_authorization(&self) -> bool {
        self.shared.state().elsewhere_saw_authorization
    }

    /// The text with every digest replaced: each repository has other ones.
    pub(super) fn without_digests(&self, text: &str) -> String {
        let mut parts = text.split("sha256:");
        let mut plain = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let rest = part.trim_start_matches(|c: char| c.is_ascii_hexdigit());
            plain.push_str("sha256:…");
            plain.push_str(rest);
        }
        plain.replace(&self.address, "<registry>")
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with the lock")
    }

    fn image(&self, repository: &str) -> Image {
        let mut state = self.state();
        let image = state.images.entry(repository.to_owned());
        image.or_insert_with(|| Image::of(repository)).clone()
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut first = [0];
        if stream.peek(&mut first)? == 1 && first[0] == 0x16 {
            // A TLS greeting: this registry speaks plain text.
            stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n")?;
            return stream.shutdown(Shutdown::Both);
        }
        let mut reader = BufReader::new(stream.try_clone()?);
        let Some(request) = read(&mut reader)? else {
            return Ok(());
        };
        let local = stream.local_addr()?.ip().to_string();
        if local == "127.0.0.2" && request.headers.contains_key("authorization") {
            self.state().elsewhere_saw_authorization = true;
        }
        let answer = self.answer(&request, &mut stream)?;
        let Some(answer) = answer else {
            return stream.shutdown(Shutdown::Both);
        };
        let sent = if request.head { 0 } else { answer.body.len() };
        send(&mut stream, &answer, sent, answer.body.len())
    }

    /// Nothing when it was answered already, or never is.
    fn answer(&self, request: &Request, stream: &mut TcpStream) -> io::Result<Option<Answer>> {
        if request.path.starts_with("/token") {
            return Ok(Some(token(request)));
        }
        if request.path == "/v2/" {
            // As real registries: whoever comes is sent to the token server first.
            let authorization = request.headers.get("authorization");
            let known = match self.state().login {
                true => is_logged_in(request),
                false => authorization.is_some_and(|value| value.starts_with("Bearer ")),
            };
            return Ok(Some(if known {
                answer("200 OK", "{}")
            } else {
                challenge(request)
            }));
        }
        let Some((repository, kind, reference)) = parts(&request.path) else {
            return Ok(Some(error(
                "404 Not Found",
                "NAME_UNKNOWN",
                "no such thing",
            )));
        };
        let fault = match repository.split_once('/') {
            Some((_, fault)) if !self.state().mended.contains(repository) => fault,
            _ => "none",
        };
        let image = self.image(repository);
        if kind == "manifests" {
            return self.manifest(fault, repository, &image, request, stream);
        }
        if fault == "layer-elsewhere" && !is_logged_in(request) {
            let local = stream.local_addr()?.ip().to_string();
            if local != "127.0.0.2" {
                return Ok(Some(challenge(request)));
            }
        }
        let wanted = reference.trim_start_matches("sha256:");
        if wanted == digest(&image.config) {
            return Ok(Some(match fault {
                "config-lies" => answer("200 OK", image.config.to_ascii_uppercase()),
                "config-404" => error("404 Not Found", "BLOB_UNKNOWN", "blob unknown to registry"),
                _ => answer("200 OK", image.config),
            }));
        }
        if wanted == digest(&image.layer) {
            return self.layer(fault, repository, &image.layer, request, stream);
        }
        Ok(Some(error(
            "404 Not Found",
            "BLOB_UNKNOWN",
            "blob unknown to registry",
        )))
    }

    fn manifest(
        &self,
        fault: &str,
        repository: &str,
        image: &Image,
        request: &Request,
        stream: &mut TcpStream,
    ) -> io::Result<Option<Answer>> {
        let good = |body: Vec<u8>| Answer {
            headers: vec![
                ("Content-Type", MANIFEST.to_owned()),
                (
                    "Docker-Content-Digest",
                    format!("sha256:{}", digest(&image.manifest)),
                ),
            ],
            ..answer("200 OK", body)
        };
        Ok(Some(match fault {
            "manifest-hangs" => {
                self.hang(repository, stream)?;
                return Ok(None);
            }
            "manifest-429" => later(error(
                "429 Too Many Requests",
                "TOOMANYREQUESTS",
                "You have reached your pull rate limit",
            )),
            "manifest-500" => answer("500 Internal Server Error", "oops"),
            "manifest-503-json" => error("503 Service Unavailable", "UNAVAILABLE", "try later"),
            "manifest-404" => error("404 Not Found", "MANIFEST_UNKNOWN", "manifest unknown"),
            "manifest-404-html" => Answer {
                headers: vec![("Content-Type", "text/html".to_owned())],
                ..answer("404 Not Found", "<html>nothing here</html>")
            },
            "manifest-401" => error(
                "401 Unauthorized",
                "UNAUTHORIZED",
                "authentication required",
            ),
            "manifest-403" => error("403 Forbidden", "DENIED", "requested access is denied"),
            "manifest-lies" => {
                let mut body = image.manifest.clone();
                body.push(b'\n');
                good(body)
            }
            "manifest-garbage" => good(b"<html>".to_vec()),
            "manifest-schema1" => Answer {
                headers: vec![(
                    "Content-Type",
                    "application/vnd.docker.distribution.manifest.v1+prettyjws".to_owned(),
                )],
                ..answer("200 OK", r#"{"schemaVersion":1,"name":"x","tag":"latest"}"#)
            },
            "login" | "login-none" | "login-wrong" | "layer-elsewhere"
                if !is_logged_in(request) =>
            {
                challenge(request)
            }
            _ => good(image.manifest.clone()),
        }))
    }

    fn layer(
        &self,
        fault: &str,
        repository: &str,
        layer: &[u8],
        request: &Request,
        stream: &mut TcpStream,
    ) -> io::Result<Option<Answer>> {
        let asked = {
            let mut state = self.state();
            let asked = state.asked.entry(repository.to_owned()).or_default();
            *asked += 1;
            *asked
        };
        if let Some(begin) = request.headers.get("range").and_then(|range| begin(range)) {
            self.state().ranges.insert(repository.to_owned());
            let last = layer.len() - 1;
            return Ok(Some(Answer {
                headers: vec![(
                    "Content-Range",
                    format!("bytes {begin}-{last}/{}", layer.len()),
                )],
                ..answer("206 Partial Content", &layer[begin..])
            }));
        }
        let whole = || answer("200 OK", layer);
        Ok(Some(match fault {
            "layer-hangs" => {
                self.hang(repository, stream)?;
                return Ok(None);
            }
            "layer-stalls" => {
                send(stream, &whole(), layer.len() / 2, layer.len())?;
                self.hang(repository, stream)?;
                return Ok(None);
            }
            "layer-truncated-once" if asked == 1 => {
                send(stream, &whole(), layer.len() / 2, layer.len())?;
                return Ok(None);
            }
            "layer-lies" => {
                let mut body = layer.to_vec();
                *body.last_mut().expect("a layer has bytes") ^= 1;
                answer("200 OK", body)
            }
            "layer-404" => error("404 Not Found", "BLOB_UNKNOWN", "blob unknown to registry"),
            "layer-403" => error("403 Forbidden", "DENIED", "requested access is denied"),
            "layer-500-once" if asked == 1 => answer("500 Internal Server Error", "oops"),
            "layer-429-once" if asked == 1 => later(error(
                "429 Too Many Requests",
                "TOOMANYREQUESTS",
                "slow down",
            )),
            "layer-elsewhere" if stream.local_addr()?.ip() == Ipv4Addr::LOCALHOST => Answer {
                headers: vec![(
                    "Location",
                    format!("http://{}{}", self.elsewhere, request.path),
                )],
                ..answer("307 Temporary Redirect", "")
            },
            _ => whole(),
        }))
    }

    /// Keeps the connection until the client gives it up.
    fn hang(&self, repository: &str, stream: &mut TcpStream) -> io::Result<()> {
        self.state().hanging.insert(repository.to_owned());
        let ended = io::copy(stream, &mut io::sink());
        self.state().hanging.remove(repository);
        ended.map(drop)
    }
}

/// `/v2/<repository>/<kind>/<reference>`.
fn parts(path: &str) -> Option<(&str, &str, &str)> {
    let (rest, reference) = path.strip_prefix("/v2/")?.rsplit_once('/')?;
    let (repository, kind) = rest.rsplit_once('/')?;
    Some((repository, kind, reference))
}

fn begin(range: &str) -> Option<usize> {
    range
        .strip_prefix("bytes=")?
        .split('-')
        .next()?
        .parse()
        .ok()
}

fn is_logged_in(request: &Request) -> bool {
    request
        .headers
        .get("authorization")
        .is_some_and(|value| value == "Bearer good")
}

fn challenge(request: &Request) -> Answer {
    let host = request.headers.get("host").cloned().unwrap_or_default();
    let realm = format!("Bearer realm=\"http://{host}/token\",service=\"fake\"");
    let mut answer = error(
        "401 Unauthorized",
        "UNAUTHORIZED",
        "authentication required",
    );
    answer.headers.push(("Www-Authenticate", realm));
    answer
}

fn token(request: &Request) -> Answer {
    let basic = format!("Basic {}", base64(b"cooper:right", b'+', b'/'));
    let by_post =
        request.body.contains("username=cooper") && request.body.contains("password=right");
    if by_post || request.headers.get("authorization") == Some(&basic) {
        return given("good");
    }
    if !request.headers.contains_key("authorization") && !request.body.contains("username=") {
        return given("anonymous");
    }
    error(
        "401 Unauthorized",
        "UNAUTHORIZED",
        "incorrect username or password",
    )
}

fn given(token: &str) -> Answer {
    let body = json!({"token": token, "access_token": token}).to_string();
    Answer {
        headers: vec![("Content-Type", "application/json".to_owned())],
        ..answer("200 OK", body)
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let target = line.split_whitespace().nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Some(Request {
        head: line.starts_with("HEAD "),
        path,
        headers,
        body,
    }))
}

/// Sends `sent` bytes of a body that is announced with `length`.
fn send(stream: &mut TcpStream, answer: &Answer, sent: usize, length: usize) -> io::Result<()> {
    let mut head = format!(
        "HTTP/1.1 {}\r\nContent-Length: {length}\r\nConnection: close\r\n",
        answer.status
    );
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&answer.body[..sent])?;
    stream.flush()
}

/// Base64url with padding (RFC 4648 section 5), as `X-Registry-Auth` has it.
pub(super) fn base64url(bytes: &[u8]) -> String {
    base64(bytes, b'-', b'_')
}

fn base64(bytes: &[u8], plus: u8, slash: u8) -> String {
    let mut digits: Vec<u8> = (b'A'..=b'Z')
        .chain(b'a'..=b'z')
        .chain(b'0'..=b'9')
        .collect();
    digits.extend([plus, slash]);
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = digits[(group >> (18 - 6 * place) & 63) as usize];
            let padding = place > chunk.len();
            text.push(if padding { '=' } else { char::from(digit) });
        }
    }
    text
}
