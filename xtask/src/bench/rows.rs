//! The rows of the benchmark: what is done, how it is measured and in which unit.

use std::io::Read;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testkit::client::{Open, Session};
use testkit::{Client, TestDaemon};

/// Rounds of a latency row; the median is reported.
const ROUNDS: usize = 30;

/// A throughput row asks for this long on one connection.
const THROUGHPUT_WINDOW: Duration = Duration::from_secs(2);

/// Bytes that a container writes for the stream rows.
const STREAM_MB: u32 = 300;

/// What a row's number means.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    /// Milliseconds, less is better.
    Milliseconds,
    /// Requests per second, more is better.
    PerSecond,
    /// Mebibytes, less is better.
    Mebibytes,
}

/// One row.
pub(super) struct Row {
    /// As in the table.
    pub(super) name: &'static str,
    unit: Unit,
    work: Work,
}

enum Work {
    /// One round of a latency row, answered by its duration.
    Round(fn(&mut Session, &Client) -> Result<Duration>),
    /// Prepares, then asks the path it names as often as it can.
    Requests(fn(&mut Session) -> Result<String>),
    /// One measurement of a long row.
    Once(fn(&Client) -> Result<Duration>),
    /// Memory of our daemon; the peer has no comparable process tree at hand.
    Memory(fn(&TestDaemon) -> Result<f64>),
}

/// Every row, in the order of DESIGN section 5.
pub(super) fn all() -> Vec<Row> {
    let row = |name, unit, work| Row { name, unit, work };
    vec![
        row(
            "cycle create, start, wait, remove of `true`, none",
            Unit::Milliseconds,
            Work::Round(cycle),
        ),
        row("exec true", Unit::Milliseconds, Work::Round(exec)),
        row(
            "GET /version",
            Unit::PerSecond,
            Work::Requests(|_| Ok("/version".into())),
        ),
        row(
            "GET /containers/json?all=1, 50 containers",
            Unit::PerSecond,
            Work::Requests(fifty),
        ),
        row(
            "GET /containers/{id}/json",
            Unit::PerSecond,
            Work::Requests(one),
        ),
        row(
            "container writes 300 MB to an attached client",
            Unit::Milliseconds,
            Work::Once(attach),
        ),
        row(
            "logs of 300 MB, read at the API",
            Unit::Milliseconds,
            Work::Once(logs),
        ),
        row(
            "idle daemon, RSS",
            Unit::Mebibytes,
            Work::Memory(daemon_rss),
        ),
        row(
            "per running container, PSS of its shim",
            Unit::Mebibytes,
            Work::Memory(shim_pss),
        ),
    ]
}

/// Measures one row on the peer (if there is one) and on Cooper.
pub(super) fn measure(
    row: &Row,
    peer: Option<&Client>,
    daemon: &TestDaemon,
) -> Result<(Option<f64>, f64)> {
    let client = daemon.client();
    match row.work {
        Work::Round(work) => {
            let mut ours = client.session()?;
            let mut theirs = peer.map(Client::session).transpose()?;
            let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                our_times.push(work(&mut ours, &client)?);
                if let (Some(session), Some(peer)) = (&mut theirs, peer) {
                    their_times.push(work(session, peer)?);
                }
            }
            Ok((theirs.map(|_| median(their_times)), median(our_times)))
        }
        Work::Requests(prepare) => {
            let theirs = peer
                .map(|peer| requests(&mut peer.session()?, prepare))
                .transpose()?;
            Ok((theirs, requests(&mut client.session()?, prepare)?))
        }
        Work::Once(work) => {
            let theirs = peer
                .map(work)
                .transpose()?
                .map(|time| time.as_secs_f64() * 1e3);
            Ok((theirs, work(&client)?.as_secs_f64() * 1e3))
        }
        Work::Memory(work) => Ok((None, work(daemon)?)),
    }
}

/// The row as a line of the table.
pub(super) fn line(row: &Row, theirs: Option<f64>, ours: f64) -> String {
    let show = |value: f64| match row.unit {
        Unit::Milliseconds => format!("{value:.1} ms"),
        Unit::PerSecond => format!("{value:.0} req/s"),
        Unit::Mebibytes => format!("{value:.2} MiB"),
    };
    let ratio = theirs.map(|theirs| match row.unit {
        Unit::PerSecond => ours / theirs,
        Unit::Milliseconds | Unit::Mebibytes => theirs / ours,
    });
    format!(
        "| {} | {} | {} | {} |\n",
        row.name,
        theirs.map_or_else(|| "–".into(), show),
        show(ours),
        ratio.map_or_else(|| "–".into(), |ratio| format!("{ratio:.1}×"))
    )
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// Marks every container of the benchmark, so that none is left in the peer.
const LABEL: &str = "dev.cooper.bench";

/// Removes what the rows left on one engine.
pub(super) fn clean(client: &Client) -> Result<()> {
    let mut session = client.session()?;
    let path =
        format!("/v1.51/containers/json?all=1&filters=%7B%22label%22%3A%5B%22{LABEL}%22%5D%7D");
    let left = call(&mut session, "GET", &path, &Value::Null, 200)?;
    for container in left.as_array().into_iter().flatten() {
        remove(&mut session, container["Id"].as_str().unwrap_or_default())?;
    }
    Ok(())
}

fn call(
    session: &mut Session,
    method: &str,
    path: &str,
    body: &Value,
    status: u16,
) -> Result<Value> {
    let (headers, bytes): (&[(&str, &str)], _) = if body.is_null() {
        (&[], Vec::new())
    } else {
        (
            &[("content-type", "application/json")],
            serde_json::to_vec(body)?,
        )
    };
    let answer = session.request(method, path, headers, bytes)?;
    ensure!(
        answer.status == status,
        "{method} {path}: {} {}",
        answer.status,
        answer.text()
    );
    Ok(answer.json())
}

fn create(session: &mut Session, command: &[&str]) -> Result<String> {
    let body = json!({
        "Image": "busybox",
        "Cmd": command,
        "Labels": { LABEL: "" },
        "HostConfig": {
            "NetworkMode": "none",
            // The stream rows write more than the default cap of a log (DESIGN decision 11).
            "LogConfig": { "Type": "json-file", "Config": { "max-size": "1g" } },
        },
    });
    let created = call(session, "POST", "/v1.51/containers/create", &body, 201)?;
    Ok(created["Id"].as_str().unwrap_or_default().to_owned())
}

fn remove(session: &mut Session, id: &str) -> Result<()> {
    call(
        session,
        "DELETE",
        &format!("/v1.51/containers/{id}?force=1&v=1"),
        &Value::Null,
        204,
    )
    .map(drop)
}

fn start(session: &mut Session, id: &str) -> Result<()> {
    call(
        session,
        "POST",
        &format!("/v1.51/containers/{id}/start"),
        &Value::Null,
        204,
    )
    .map(drop)
}

fn wait(session: &mut Session, id: &str) -> Result<()> {
    call(
        session,
        "POST",
        &format!("/v1.51/containers/{id}/wait"),
        &Value::Null,
        200,
    )
    .map(drop)
}

fn cycle(session: &mut Session, _client: &Client) -> Result<Duration> {
    let begin = Instant::now();
    let id = create(session, &["true"])?;
    start(session, &id)?;
    wait(session, &id)?;
    remove(session, &id)?;
    Ok(begin.elapsed())
}

fn exec(session: &mut Session, client: &Client) -> Result<Duration> {
    let id = create(session, &["sleep", "600"])?;
    start(session, &id)?;
    let begin = Instant::now();
    let body = json!({"Cmd": ["true"], "AttachStdout": true, "AttachStderr": true});
    let exec = call(
        session,
        "POST",
        &format!("/v1.51/containers/{id}/exec"),
        &body,
        201,
    )?;
    let path = format!(
        "/v1.51/exec/{}/start",
        exec["Id"].as_str().unwrap_or_default()
    );
    let headers = [
        ("Content-Type", "application/json"),
        ("Connection", "Upgrade"),
        ("Upgrade", "tcp"),
    ];
    let open = client.open("POST", &path, &headers, br#"{"Detach":false,"Tty":false}"#);
    ensure!(open.status == 101, "{}", open.head);
    drain(open)?;
    let elapsed = begin.elapsed();
    remove(session, &id)?;
    Ok(elapsed)
}

fn one(session: &mut Session) -> Result<String> {
    let id = create(session, &["true"])?;
    Ok(format!("/containers/{id}/json"))
}

fn fifty(session: &mut Session) -> Result<String> {
    for _ in 0..50 {
        create(session, &["true"])?;
    }
    Ok("/containers/json?all=1".into())
}

fn requests(session: &mut Session, prepare: fn(&mut Session) -> Result<String>) -> Result<f64> {
    let path = prepare(session)?;
    let begin = Instant::now();
    let mut count = 0_u32;
    while begin.elapsed() < THROUGHPUT_WINDOW {
        let answer = session.request("GET", &path, &[], Vec::new())?;
        ensure!(answer.status == 200, "GET {path}: {}", answer.status);
        count += 1;
    }
    Ok(f64::from(count) / begin.elapsed().as_secs_f64())
}

/// A container that writes [`STREAM_MB`] in lines of 99 bytes and a newline.
fn writer(session: &mut Session) -> Result<String> {
    let line = "x".repeat(99);
    create(
        session,
        &[
            "sh",
            "-c",
            &format!("yes {line} | head -c {STREAM_MB}000000"),
        ],
    )
}

fn attach(client: &Client) -> Result<Duration> {
    let mut session = client.session()?;
    let id = writer(&mut session)?;
    let headers = [("Connection", "Upgrade"), ("Upgrade", "tcp")];
    let path = format!("/v1.51/containers/{id}/attach?stream=1&stdout=1&stderr=1");
    let open = client.open("POST", &path, &headers, b"");
    ensure!(open.status == 101, "{}", open.head);
    let begin = Instant::now();
    start(&mut session, &id)?;
    let bytes = drain(open)?;
    ensure!(
        bytes >= u64::from(STREAM_MB) * 1_000_000,
        "only {bytes} bytes came"
    );
    let elapsed = begin.elapsed();
    remove(&mut session, &id)?;
    Ok(elapsed)
}

fn logs(client: &Client) -> Result<Duration> {
    let mut session = client.session()?;
    let id = writer(&mut session)?;
    start(&mut session, &id)?;
    wait(&mut session, &id)?;
    let begin = Instant::now();
    let headers = [("Connection", "close")];
    let open = client.open(
        "GET",
        &format!("/v1.51/containers/{id}/logs?stdout=1"),
        &headers,
        b"",
    );
    ensure!(open.status == 200, "{}", open.head);
    let bytes = drain(open)?;
    ensure!(
        bytes >= u64::from(STREAM_MB) * 1_000_000,
        "only {bytes} bytes came"
    );
    let elapsed = begin.elapsed();
    remove(&mut session, &id)?;
    Ok(elapsed)
}

fn drain(mut open: Open) -> Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        match open.stream.read(&mut buffer)? {
            0 => return Ok(total),
            count => total += count as u64,
        }
    }
}

fn daemon_rss(daemon: &TestDaemon) -> Result<f64> {
    memory_mib(daemon.pid(), "status", "VmRSS:")
}

fn shim_pss(daemon: &TestDaemon) -> Result<f64> {
    let mut session = daemon.client().session()?;
    let id = create(&mut session, &["sleep", "600"])?;
    start(&mut session, &id)?;
    let state = call(
        &mut session,
        "GET",
        &format!("/containers/{id}/json"),
        &Value::Null,
        200,
    )?;
    let init = state["State"]["Pid"].to_string();
    let stat = std::fs::read_to_string(format!("/proc/{init}/stat"))?;
    let parent = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(1))
        .unwrap_or_default();
    let pss = memory_mib(parent.parse()?, "smaps_rollup", "Pss:")?;
    remove(&mut session, &id)?;
    Ok(pss)
}

fn memory_mib(pid: u32, file: &str, field: &str) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap_or_default();
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
