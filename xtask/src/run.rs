//! `cargo xtask run`: builds Cooper and brings an engine up in a throw-away root, ready to be tried.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use testkit::{Client, archive};

use crate::{install, sh};

const PORT: u16 = 2375;

/// Its own, beside that of an installed Cooper.
const BRIDGE: &str = "cooper-run";

/// The engine answers within this time after its start, even on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// The starter image, made from Cooper's own binary.
const STARTER: &str = "cooper/starter:latest";

/// Brings the engine up and stays until Ctrl-C; with `--once` it stops after the first container's greeting.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let once = arguments.iter().any(|word| word == "--once");
    if !install::is_root() {
        bail!(
            "Cooper makes namespaces, mounts and control groups: run this as root (sudo cargo xtask run)"
        );
    }
    if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)) {
        bail!("port {PORT} on 127.0.0.1 is taken ({error}): another engine? Stop it first");
    }
    let binary = sh::build_cooper("release")?;
    let root = tempfile::Builder::new()
        .prefix("cooper-run-")
        .tempdir()
        .context("a throw-away root")?;
    let socket = root.path().join("cooper.sock");
    let mut daemon = launch(&binary, root.path(), &socket)?;
    let outcome = introduce(&mut daemon, &binary, &socket, once);
    let client = Client::new(&socket);
    let stopped = stop(&client, &mut daemon);
    let bridge = testkit::network::Bridge::named(BRIDGE);
    outcome
        .and(stopped)
        .and(bridge.take_down(&root.path().join("data")))
}

fn launch(binary: &Path, root: &Path, socket: &Path) -> Result<Child> {
    let log = std::fs::File::create(root.join("daemon.log"))?;
    let mut command = sh::command(binary);
    command.arg("daemon").args(["--config-file", "/dev/null"]);
    command.arg(format!("--data-root={}", root.join("data").display()));
    command.arg(format!("--exec-root={}", root.join("exec").display()));
    command.arg(format!("--pidfile={}", root.join("cooper.pid").display()));
    command.arg(format!("--cgroup-parent=/cooper-run-{PORT}"));
    // An installed Cooper keeps its own.
    command.arg(format!("--bridge={BRIDGE}"));
    command.arg(format!("--host=unix://{}", socket.display()));
    command.arg(format!("--host=tcp://127.0.0.1:{PORT}"));
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    // Ctrl-C is for this command, which then takes the engine down in order.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn().context("start the engine")
}

fn introduce(daemon: &mut Child, binary: &Path, socket: &Path, once: bool) -> Result<()> {
    let client = Client::new(socket);
    let begin = std::time::Instant::now();
    while !client.answers() {
        if daemon.try_wait()?.is_some() || begin.elapsed() > READY_WITHIN {
            let log = socket.with_file_name("daemon.log");
            bail!(
                "the engine did not start:\n{}",
                std::fs::read_to_string(log).unwrap_or_default()
            );
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    println!(
        "the engine answers after {} ms",
        begin.elapsed().as_millis()
    );
    load(&client, &starter(binary)?)?;
    if Path::new(archive::BUSYBOX).exists() || install::debian(&["busybox-static"]).is_ok() {
        load(&client, &archive::busybox_archive())?;
    } else {
        println!("no busybox image: Debian's package busybox-static cannot be had here");
    }
    greet(&client)?;
    println!("{}", next_steps(socket));
    if once { Ok(()) } else { wait_for_end(daemon) }
}

/// An image of one layer: this binary as /cooper, which greets or serves.
fn starter(binary: &Path) -> Result<Vec<u8>> {
    let binary = std::fs::read(binary).context("read the binary")?;
    let layer = archive::layer(&[
        archive::Entry::directory("tmp", 0o1777),
        archive::Entry::file("cooper", 0o755, binary),
    ]);
    let config = json!({
        "Entrypoint": ["/cooper", "starter"],
        "ExposedPorts": {"8080/tcp": {}},
    });
    Ok(archive::docker_archive(STARTER, &[layer], &config))
}

fn load(client: &Client, archive: &[u8]) -> Result<()> {
    let headers = [("content-type", "application/x-tar")];
    let answer = client.try_request("POST", "/images/load?quiet=1", &headers, archive.to_vec())?;
    ensure!(answer.status == 200, "load an image: {}", answer.text());
    print!(
        "{}",
        answer
            .json_lines()
            .filter_map(|line| line["stream"].as_str().map(str::to_owned))
            .collect::<String>()
    );
    Ok(())
}

/// Runs the first container and shows what it says.
fn greet(client: &Client) -> Result<()> {
    let begin = std::time::Instant::now();
    let body = json!({"Image": STARTER, "HostConfig": {"NetworkMode": "none"}});
    let created = client.post("/containers/create?name=first", &body);
    ensure!(
        created.status == 201,
        "create the first container: {}",
        created.text()
    );
    let started = client.post("/containers/first/start", &Value::Null);
    ensure!(
        started.status == 204,
        "start the first container: {}",
        started.text()
    );
    let waited = client.post("/containers/first/wait", &Value::Null);
    ensure!(
        waited.json()["StatusCode"] == 0,
        "the first container failed: {}",
        waited.text()
    );
    let elapsed = begin.elapsed();
    let logs = client.get("/containers/first/logs?stdout=1");
    ensure!(logs.status == 200, "read its output: {}", logs.text());
    let (text, _) = testkit::client::frames(&logs.body);
    println!(
        "\nthe first container, created, run and ended in {:.1} ms, says:\n",
        elapsed.as_secs_f64() * 1e3
    );
    for line in text.lines() {
        println!("    {line}");
    }
    Ok(())
}

fn next_steps(socket: &Path) -> String {
    format!(
        "
try next, in another terminal:
    curl http://127.0.0.1:{PORT}/version
    curl http://127.0.0.1:{PORT}/images/json
    curl http://127.0.0.1:{PORT}/containers/json?all=1
    export DOCKER_HOST=unix://{socket}
    docker images
    docker run --rm busybox echo hello
    docker run -it --rm busybox
    docker run -d -p 8080:8080 cooper/starter serve     # then open http://127.0.0.1:8080
Ctrl-C ends the engine and removes all of this.",
        socket = socket.display()
    )
}

fn wait_for_end(daemon: &mut Child) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let interrupted = runtime.block_on(async {
        let mut look = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                pressed = tokio::signal::ctrl_c() => return pressed.map(|()| true),
                _ = look.tick() => {
                    if daemon.try_wait()?.is_some() {
                        return Ok(false);
                    }
                }
            }
        }
    })?;
    ensure!(interrupted, "the engine ended by itself");
    Ok(())
}

/// Removes every container, ends the engine and waits for it.
fn stop(client: &Client, daemon: &mut Child) -> Result<()> {
    if daemon.try_wait()?.is_some() {
        return Ok(());
    }
    println!("\nremoving the containers and stopping the engine");
    if let Ok(list) = client.try_request("GET", "/containers/json?all=1", &[], Vec::new()) {
        for container in list.json().as_array().into_iter().flatten() {
            client.delete(&format!(
                "/containers/{}?force=1&v=1",
                container["Id"].as_str().unwrap_or_default()
            ));
        }
    }
    testkit::daemon::signal(daemon.id(), "TERM");
    daemon.wait().context("wait for the engine")?;
    Ok(())
}
