//! Answers of dockerd, decoded and encoded again: the bytes must be the same.
//!
//! `COOPER_RECORD=/path/of/docker.sock cargo test -p api --test golden` records them anew from a running dockerd
//! that has `busybox:latest`, and removes what it made there. The first line of each file names the engine and
//! the request.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use api::container::inspect::ContainerInspect;
use api::container::summary::ContainerSummary;
use api::container::{CreateResponse, FilesystemChange, TopResponse, WaitResponse};
use api::error::ErrorResponse;
use api::event::EventMessage;
use api::exec::{ExecCreateResponse, ExecInspect};
use api::go;
use api::image::{HistoryItem, ImageInspect, ImageSummary};
use api::network::Network;
use api::stream::Message;
use api::system::{SystemInfo, SystemVersion};
use api::volume::{ListResponse, Volume};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A container with nearly everything set.
const RICH: &str = r#"{"Image":"busybox","Cmd":["sleep","600"],"Tty":true,"OpenStdin":true,"Env":["A=b&c"],
"User":"0:0","WorkingDir":"/tmp","Labels":{"b":"<2>","a":"1"},"ExposedPorts":{"80/tcp":{},"81/udp":{}},
"Volumes":{"/data":{}},"StopSignal":"SIGINT","StopTimeout":3,"Entrypoint":[],
"Healthcheck":{"Test":["CMD","true"],"Interval":1000000000,"Retries":3},
"HostConfig":{"Binds":["/tmp:/host:ro","golden_vol:/vol"],"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1"}],
"82/tcp":[]},"Memory":67108864,"NanoCpus":500000000,"PidsLimit":50,"Init":true,"Dns":["8.8.8.8"],
"ExtraHosts":["h:1.2.3.4"],"Tmpfs":{"/t":"size=1m"},"CapAdd":["NET_ADMIN"],"CapDrop":["CAP_CHOWN"],
"Ulimits":[{"Name":"nofile","Soft":100,"Hard":200}],"Devices":[{"PathOnHost":"/dev/null",
"PathInContainer":"/dev/x","CgroupPermissions":"rwm"}],"SecurityOpt":["no-new-privileges"],
"Sysctls":{"net.ipv4.ip_forward":"1"},"Annotations":{"x":"y"},"ShmSize":1048576,"GroupAdd":["5"],
"LogConfig":{"Type":"json-file","Config":{"max-size":"1m"}},"RestartPolicy":{"Name":"on-failure",
"MaximumRetryCount":2},"ConsoleSize":[24,80],"Mounts":[{"Type":"tmpfs","Target":"/m",
"TmpfsOptions":{"SizeBytes":4096,"Mode":511}}],"ReadonlyRootfs":true}}"#;

const PLAIN: &str =
    r#"{"Image":"busybox","Cmd":["sleep","600"],"HostConfig":{"NetworkMode":"none"}}"#;
const EXEC: &str =
    r#"{"Cmd":["sleep","300"],"AttachStdout":true,"User":"0","Privileged":true,"Tty":true}"#;
const EXEC_PLAIN: &str = r#"{"Cmd":["true"]}"#;

/// One request; `check` is what its answer must survive.
struct Case {
    file: &'static str,
    request: &'static str,
    body: &'static str,
    check: fn(&[u8]) -> Vec<u8>,
}

const fn case(file: &'static str, request: &'static str, check: fn(&[u8]) -> Vec<u8>) -> Case {
    Case {
        file,
        request,
        body: "",
        check,
    }
}

const fn posted(mut case: Case, body: &'static str) -> Case {
    case.body = body;
    case
}

/// Decodes one value by Go's rules and encodes it again.
fn one<T: DeserializeOwned + Serialize>(body: &[u8]) -> Vec<u8> {
    go::encode(&go::decode::<T>(body).expect("decodes"))
}

/// The same for a stream of lines.
fn lines<T: DeserializeOwned + Serialize>(body: &[u8]) -> Vec<u8> {
    let split = body.split_inclusive(|byte| *byte == b'\n');
    split
        .flat_map(|line| {
            let end = if line.ends_with(b"\r\n") {
                "\r\n"
            } else {
                "\n"
            };
            go::encode_line(&go::decode::<T>(line).expect("decodes"), end)
        })
        .collect()
}

fn nothing(_: &[u8]) -> Vec<u8> {
    Vec::new()
}

/// In order: later requests use what earlier ones made. `{exec}` is the id of the last exec.
const CASES: &[Case] = &[
    case("version", "GET /v1.51/version", one::<SystemVersion>),
    case("info", "GET /v1.51/info", one::<SystemInfo>),
    posted(
        case(
            "create",
            "POST /v1.51/containers/create?name=golden_rich",
            one::<CreateResponse>,
        ),
        RICH,
    ),
    posted(
        case(
            "",
            "POST /v1.51/containers/create?name=golden_plain",
            nothing,
        ),
        PLAIN,
    ),
    case(
        "inspect-created",
        "GET /v1.51/containers/golden_rich/json",
        one::<ContainerInspect>,
    ),
    case("", "POST /v1.51/containers/golden_rich/start", nothing),
    case("", "POST /v1.51/containers/golden_plain/start", nothing),
    case(
        "inspect-running",
        "GET /v1.51/containers/golden_rich/json?size=1",
        one::<ContainerInspect>,
    ),
    case(
        "inspect-running-1.44",
        "GET /v1.44/containers/golden_rich/json",
        one::<ContainerInspect>,
    ),
    case(
        "inspect-none",
        "GET /v1.51/containers/golden_plain/json",
        one::<ContainerInspect>,
    ),
    case(
        "list",
        "GET /v1.51/containers/json?all=1&size=1&filters={\"name\":[\"golden\"]}",
        one::<Vec<ContainerSummary>>,
    ),
    case(
        "top",
        "GET /v1.51/containers/golden_plain/top",
        one::<TopResponse>,
    ),
    case(
        "changes",
        "GET /v1.51/containers/golden_rich/changes",
        one::<Option<Vec<FilesystemChange>>>,
    ),
    posted(
        case(
            "exec-create",
            "POST /v1.51/containers/golden_plain/exec",
            one::<ExecCreateResponse>,
        ),
        EXEC,
    ),
    case(
        "exec-created",
        "GET /v1.51/exec/{exec}/json",
        one::<ExecInspect>,
    ),
    posted(
        case("", "POST /v1.51/exec/{exec}/start", nothing),
        r#"{"Detach":true}"#,
    ),
    case(
        "exec-running",
        "GET /v1.51/exec/{exec}/json",
        one::<ExecInspect>,
    ),
    case(
        "inspect-with-exec",
        "GET /v1.51/containers/golden_plain/json",
        one::<ContainerInspect>,
    ),
    posted(
        case("", "POST /v1.51/containers/golden_plain/exec", nothing),
        EXEC_PLAIN,
    ),
    posted(case("", "POST /v1.51/exec/{exec}/start", nothing), "{}"),
    case(
        "exec-ended",
        "GET /v1.51/exec/{exec}/json",
        one::<ExecInspect>,
    ),
    case(
        "network-bridge",
        "GET /v1.51/networks/bridge",
        one::<Network>,
    ),
    case("networks", "GET /v1.51/networks", one::<Vec<Network>>),
    posted(
        case("volume-create", "POST /v1.51/volumes/create", one::<Volume>),
        r#"{"Name":"golden_two","Labels":{"a":"b"}}"#,
    ),
    case(
        "volumes",
        "GET /v1.51/volumes?filters={\"name\":[\"golden\"]}",
        one::<ListResponse>,
    ),
    case("volume", "GET /v1.51/volumes/golden_vol", one::<Volume>),
    case(
        "",
        "POST /v1.51/images/busybox/tag?repo=golden/tagged&tag=one",
        nothing,
    ),
    case("images", "GET /v1.51/images/json", one::<Vec<ImageSummary>>),
    case(
        "images-1.43",
        "GET /v1.43/images/json",
        one::<Vec<ImageSummary>>,
    ),
    case(
        "image",
        "GET /v1.51/images/busybox/json",
        one::<ImageInspect>,
    ),
    case(
        "history",
        "GET /v1.51/images/busybox/history",
        one::<Vec<HistoryItem>>,
    ),
    case(
        "image-untag",
        "DELETE /v1.51/images/golden/tagged:one",
        one::<Vec<api::image::DeleteResponse>>,
    ),
    case("", "POST /v1.51/containers/golden_plain/kill", nothing),
    case(
        "wait",
        "POST /v1.51/containers/golden_plain/wait",
        one::<WaitResponse>,
    ),
    case(
        "inspect-exited",
        "GET /v1.51/containers/golden_plain/json",
        one::<ContainerInspect>,
    ),
    case(
        "",
        "DELETE /v1.51/containers/golden_rich?force=1&v=1",
        nothing,
    ),
    case(
        "",
        "DELETE /v1.51/containers/golden_plain?force=1&v=1",
        nothing,
    ),
    case("", "DELETE /v1.51/volumes/golden_vol", nothing),
    case("", "DELETE /v1.51/volumes/golden_two", nothing),
    case(
        "events",
        "GET /v1.51/events?since=1&until=2000000000000&filters={\"container\":[\"golden_rich\"]}",
        lines::<EventMessage>,
    ),
    case(
        "not-found",
        "GET /v1.51/containers/golden_none/json",
        one::<ErrorResponse>,
    ),
    case("load-failed", "POST /v1.51/images/load", lines::<Message>),
];

#[test]
fn every_answer_survives_the_round_trip() {
    if let Ok(socket) = std::env::var("COOPER_RECORD") {
        record(Path::new(&socket));
    }
    let mut compared = 0;
    for case in CASES.iter().filter(|case| !case.file.is_empty()) {
        let file = fs::read(path(case.file)).expect("recorded");
        let header = file.iter().position(|byte| *byte == b'\n').expect("header") + 1;
        let body = &file[header..];
        assert_same(case.file, &(case.check)(body), body);
        compared += 1;
    }
    assert!(compared > 25, "{compared} answers compared");
}

/// Fails with the surroundings of the first byte that differs.
fn assert_same(file: &str, found: &[u8], wanted: &[u8]) {
    let at = found
        .iter()
        .zip(wanted)
        .position(|(a, b)| a != b)
        .unwrap_or(found.len().min(wanted.len()));
    let around = |bytes: &[u8]| {
        let end = bytes.len().min(at + 60);
        String::from_utf8_lossy(&bytes[at.saturating_sub(60)..end]).into_owned()
    };
    assert_eq!(around(found), around(wanted), "{file}, byte {at}");
    assert_eq!(found.len(), wanted.len(), "{file}");
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.json"))
}

fn record(socket: &Path) {
    let mut engine = String::new();
    let mut exec = String::new();
    let root = go::decode::<SystemInfo>(&ask(socket, "GET /v1.51/info", "")).expect("info");
    let containerd = root.containerd.unwrap_or_default().address;
    // The paths of this very machine are no fact about dockerd.
    let neutral = |answer: &[u8]| {
        let text =
            String::from_utf8_lossy(answer).replace(&root.docker_root_dir, "/var/lib/docker");
        text.replace(&containerd, "/run/containerd/containerd.sock")
            .into_bytes()
    };
    for case in CASES {
        let request = case.request.replace("{exec}", &exec);
        // An events stream without end would hang: ask up to now.
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .as_secs();
        let request = request.replace("2000000000000", &now.to_string());
        let answer = ask(socket, &request, case.body);
        if case.file == "version" {
            engine = go::decode::<SystemVersion>(&answer)
                .expect("version")
                .version;
        }
        if request.contains("/exec") && request.starts_with("POST /v1.51/containers") {
            exec = go::decode::<ExecCreateResponse>(&answer).expect("exec").id;
        }
        if !case.file.is_empty() {
            let mut file = format!(
                "// dockerd {engine}: {} {}\n",
                case.request,
                case.body.replace('\n', " ")
            )
            .into_bytes();
            file.extend(neutral(&answer));
            fs::write(path(case.file), file).expect("written");
        }
    }
}

fn ask(socket: &Path, request: &str, body: &str) -> Vec<u8> {
    let request = request
        .replace('{', "%7B")
        .replace('}', "%7D")
        .replace('"', "%22");
    let mut stream = UnixStream::connect(socket).expect("connect");
    let kind = if body.is_empty() {
        ""
    } else {
        "Content-Type: application/json\r\n"
    };
    let head = format!(
        "{request} HTTP/1.0\r\nHost: docker\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("written");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("read");
    let start = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("head")
        + 4;
    answer.split_off(start)
}
