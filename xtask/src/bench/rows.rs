//! The rows of the benchmark: what is done, how it is measured and in which unit.

use std::cell::OnceCell;
use std::io::Read;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testkit::client::Open;
use testkit::{Client, TestDaemon};

use super::wire::{self, Wire};
use crate::images::{self, Registry};
use crate::sh;

/// Rounds of a latency row; the median is reported.
const ROUNDS: usize = 40;

/// Rounds of the pull, which takes dockerd a minute.
const PULLS: usize = 3;

/// A throughput row asks for this long on one connection, each engine in turn.
const THROUGHPUT_WINDOW: Duration = Duration::from_millis(500);

/// Windows of a throughput row; the median is reported.
const THROUGHPUT_WINDOWS: usize = 5;

/// A shim that has had nothing to do for this long has given back what it does not need.
const IDLE: Duration = Duration::from_secs(1);

/// An engine that has had nothing to do for this long has given back what its work took: it looks each second, and takes
/// three looks that found nothing for a rest.
const RESTED: Duration = Duration::from_secs(8);

/// Bytes that a container writes for the stream rows.
const STREAM_MB: u32 = 300;

/// What a row's number means.
#[derive(Clone, Copy)]
enum Unit {
    /// Milliseconds, less is better.
    Milliseconds,
    /// Seconds, less is better.
    Seconds,
    /// Requests per second, more is better.
    PerSecond,
    /// Mebibytes, less is better.
    Mebibytes,
}

/// One row.
pub(super) struct Row {
    /// As in the table.
    pub(super) name: &'static str,
    work: Work,
}

enum Work {
    /// One round of a latency row, answered by its duration.
    Round(fn(&mut Wire, &Client) -> Result<Duration>),
    /// Prepares, then the path it names is asked for as often as one connection can.
    Requests(fn(&mut Wire) -> Result<String>),
    /// One measurement of a long row.
    Once(fn(&Client) -> Result<Duration>),
    /// One round of a row that needs the registry with the image of six layers.
    Pull(fn(&Client, &Registry) -> Result<Duration>),
    /// Memory of our daemon; the peer has no comparable process tree at hand.
    Memory(fn(&Stage) -> Result<f64>),
}

/// What the rows are measured on.
pub(super) struct Stage {
    /// The dockerd to compare with.
    pub(super) peer: Option<Client>,
    /// Cooper.
    pub(super) daemon: TestDaemon,
    registry: OnceCell<Registry>,
}

impl Stage {
    pub(super) fn new(peer: Option<Client>, daemon: TestDaemon) -> Self {
        let registry = OnceCell::new();
        Self {
            peer,
            daemon,
            registry,
        }
    }

    /// The registry for the pulls, started by the first row that needs it.
    fn registry(&self) -> Result<&Registry> {
        if self.registry.get().is_none() {
            let started = images::six_layers()?;
            return Ok(self.registry.get_or_init(|| started));
        }
        Ok(self.registry.get().expect("just looked"))
    }
}

/// Every row, in the order of DESIGN section 5.
pub(super) const ROWS: &[Row] = &[
    row(
        "cycle create, start, wait, remove of `true`, none",
        Work::Round(|session, _| cycle(session, "none")),
    ),
    row(
        "cycle create, start, wait, remove of `true`, bridge",
        Work::Round(|session, _| cycle(session, "bridge")),
    ),
    row("exec true", Work::Round(exec)),
    row("pull of six layers, 530 MB compressed", Work::Pull(pull)),
    row("GET /version", Work::Requests(version)),
    row(
        "GET /containers/json?all=1, 50 containers",
        Work::Requests(fifty),
    ),
    row("GET /containers/{id}/json", Work::Requests(one)),
    row(
        "container writes 300 MB to an attached client",
        Work::Once(attach),
    ),
    row("logs of 300 MB, read at the API", Work::Once(logs)),
    row("idle daemon, RSS", Work::Memory(daemon_rss)),
    row("the daemon in that pull, RSS at most", Work::Memory(peak)),
    row("the daemon after all rows, RSS", Work::Memory(daemon_rss)),
    row(
        "per running container, PSS of its shim",
        Work::Memory(shim_pss),
    ),
];

const fn row(name: &'static str, work: Work) -> Row {
    Row { name, work }
}

/// Measures one row on the peer (if there is one) and on Cooper.
pub(super) fn measure(row: &Row, stage: &Stage) -> Result<(Option<f64>, f64)> {
    let (client, peer) = (stage.daemon.client(), stage.peer.as_ref());
    match row.work {
        Work::Round(work) => {
            let mut ours = Wire::connect(&client)?;
            let mut theirs = peer.map(Wire::connect).transpose()?;
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
            let asked = |client: &Client| -> Result<(Wire, Vec<u8>)> {
                let mut session = Wire::connect(client)?;
                let path = prepare(&mut session)?;
                Ok((session, wire::request("GET", &path, &Value::Null)))
            };
            let (mut ours, mut theirs) = (asked(&client)?, peer.map(asked).transpose()?);
            let (mut our_rates, mut their_rates) = (Vec::new(), Vec::new());
            for _ in 0..THROUGHPUT_WINDOWS {
                our_rates.push(rate(&mut ours)?);
                if let Some(theirs) = &mut theirs {
                    their_rates.push(rate(theirs)?);
                }
            }
            let middle = |mut rates: Vec<f64>| {
                rates.sort_unstable_by(f64::total_cmp);
                rates[rates.len() / 2]
            };
            Ok((theirs.map(|_| middle(their_rates)), middle(our_rates)))
        }
        Work::Once(work) => {
            let theirs = peer
                .map(work)
                .transpose()?
                .map(|time| time.as_secs_f64() * 1e3);
            Ok((theirs, work(&client)?.as_secs_f64() * 1e3))
        }
        Work::Pull(work) => {
            let registry = stage.registry()?;
            let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
            for _ in 0..PULLS {
                our_times.push(work(&client, registry)?);
                if let Some(peer) = peer {
                    their_times.push(work(peer, registry)?);
                }
            }
            let theirs = peer.map(|_| median(their_times) / 1e3);
            Ok((theirs, median(our_times) / 1e3))
        }
        Work::Memory(work) => Ok((None, work(stage)?)),
    }
}

/// The row as a line of the table.
pub(super) fn line(row: &Row, theirs: Option<f64>, ours: f64) -> String {
    let unit = match row.work {
        Work::Round(_) | Work::Once(_) => Unit::Milliseconds,
        Work::Pull(_) => Unit::Seconds,
        Work::Requests(_) => Unit::PerSecond,
        Work::Memory(_) => Unit::Mebibytes,
    };
    let show = |value: f64| match unit {
        Unit::Milliseconds => format!("{value:.1} ms"),
        Unit::Seconds => format!("{value:.1} s"),
        Unit::PerSecond => format!("{value:.0} req/s"),
        Unit::Mebibytes => format!("{value:.2} MiB"),
    };
    let ratio = theirs.map(|theirs| match unit {
        Unit::PerSecond => ours / theirs,
        Unit::Milliseconds | Unit::Seconds | Unit::Mebibytes => theirs / ours,
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
    let mut session = Wire::connect(client)?;
    let path =
        format!("/v1.51/containers/json?all=1&filters=%7B%22label%22%3A%5B%22{LABEL}%22%5D%7D");
    let left = call(&mut session, "GET", &path, &Value::Null, 200)?;
    for container in left.as_array().into_iter().flatten() {
        remove(&mut session, container["Id"].as_str().unwrap_or_default())?;
    }
    Ok(())
}

fn call(session: &mut Wire, method: &str, path: &str, body: &Value, status: u16) -> Result<Value> {
    let answer = session.ask(&wire::request(method, path, body))?;
    ensure!(
        answer.status == status,
        "{method} {path}: {} {}",
        answer.status,
        answer.text()
    );
    answer.json()
}

fn create(session: &mut Wire, command: &[&str]) -> Result<String> {
    create_on(session, "none", command)
}

fn create_on(session: &mut Wire, network: &str, command: &[&str]) -> Result<String> {
    let body = json!({
        "Image": "busybox",
        "Cmd": command,
        "Labels": { LABEL: "" },
        "HostConfig": {
            "NetworkMode": network,
            // The stream rows write more than the default cap of a log (DESIGN decision 11).
            "LogConfig": { "Type": "json-file", "Config": { "max-size": "1g" } },
        },
    });
    let created = call(session, "POST", "/v1.51/containers/create", &body, 201)?;
    Ok(created["Id"].as_str().unwrap_or_default().to_owned())
}

fn remove(session: &mut Wire, id: &str) -> Result<()> {
    call(
        session,
        "DELETE",
        &format!("/v1.51/containers/{id}?force=1&v=1"),
        &Value::Null,
        204,
    )
    .map(drop)
}

fn start(session: &mut Wire, id: &str) -> Result<()> {
    call(
        session,
        "POST",
        &format!("/v1.51/containers/{id}/start"),
        &Value::Null,
        204,
    )
    .map(drop)
}

fn wait(session: &mut Wire, id: &str) -> Result<()> {
    call(
        session,
        "POST",
        &format!("/v1.51/containers/{id}/wait"),
        &Value::Null,
        200,
    )
    .map(drop)
}

fn cycle(session: &mut Wire, network: &str) -> Result<Duration> {
    let begin = Instant::now();
    let id = create_on(session, network, &["true"])?;
    start(session, &id)?;
    wait(session, &id)?;
    remove(session, &id)?;
    Ok(begin.elapsed())
}

fn exec(session: &mut Wire, client: &Client) -> Result<Duration> {
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

fn version(_session: &mut Wire) -> Result<String> {
    Ok("/version".into())
}

fn one(session: &mut Wire) -> Result<String> {
    let id = create(session, &["true"])?;
    Ok(format!("/containers/{id}/json"))
}

fn fifty(session: &mut Wire) -> Result<String> {
    for _ in 0..50 {
        create(session, &["true"])?;
    }
    Ok("/containers/json?all=1".into())
}

/// Answers per second.
fn rate((session, request): &mut (Wire, Vec<u8>)) -> Result<f64> {
    let begin = Instant::now();
    let mut count = 0_u32;
    while begin.elapsed() < THROUGHPUT_WINDOW {
        let answer = session.ask(request)?;
        ensure!(answer.status == 200, "{}", answer.text());
        count += 1;
    }
    Ok(f64::from(count) / begin.elapsed().as_secs_f64())
}

/// A container that writes [`STREAM_MB`] in lines of 99 bytes and a newline.
fn writer(session: &mut Wire) -> Result<String> {
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
    let mut session = Wire::connect(client)?;
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
    let mut session = Wire::connect(client)?;
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

/// Pulls the image of six layers and answers how long that took; removes it again.
fn pull(client: &Client, registry: &Registry) -> Result<Duration> {
    let mut session = Wire::connect(client)?;
    let image = format!("{}/{}", registry.address(), images::SIX_LAYERS);
    // What was written before is on disk before the clock runs, or one engine would pay for the other.
    sh::read(&mut sh::command("sync"))?;
    let begin = Instant::now();
    let path = format!("/v1.51/images/create?fromImage={image}");
    let answer = session.ask(&wire::request("POST", &path, &Value::Null))?;
    let elapsed = begin.elapsed();
    ensure!(
        answer.text().contains("Downloaded newer image"),
        "{}",
        answer.text()
    );
    let path = format!("/v1.51/images/{image}");
    call(&mut session, "DELETE", &path, &Value::Null, 200)?;
    Ok(elapsed)
}

/// The most that the daemon ever holds while it pulls.
fn peak(stage: &Stage) -> Result<f64> {
    let pid = stage.daemon.pid();
    // proc(5): 5 sets the peak back to what the process holds now.
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    pull(&stage.daemon.client(), stage.registry()?)?;
    memory_mib(pid, "status", "VmHWM:")
}

fn daemon_rss(stage: &Stage) -> Result<f64> {
    std::thread::sleep(RESTED);
    memory_mib(stage.daemon.pid(), "status", "VmRSS:")
}

fn shim_pss(stage: &Stage) -> Result<f64> {
    let mut session = Wire::connect(&stage.daemon.client())?;
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
    std::thread::sleep(IDLE);
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
