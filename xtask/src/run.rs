//! `cargo xtask run`: builds Cooper and brings an engine up in a throw-away root, ready to be tried.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use testkit::{Client, archive};

use crate::{install, sh};

/// What the engine has of the machine, beside whatever engine is there already.
struct Place {
    port: u16,
    bridge: &'static str,
}

/// The port of the tutorials, and a bridge of its own beside that of an installed Cooper.
const PLACE: Place = Place {
    port: 2375,
    bridge: "cooper-run",
};

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
    check_port(PLACE.port)?;
    let binary = sh::build_cooper("release")?;
    bring_up(&binary, &PLACE, |daemon, _| match once {
        true => Ok(()),
        false => wait_for_end(daemon),
    })
}

fn check_port(port: u16) -> Result<()> {
    if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        bail!("port {port} on 127.0.0.1 is taken ({error}): another engine? Stop it first");
    }
    Ok(())
}

/// An engine in a throw-away root, for as long as `stay` takes; nothing of it is left.
fn bring_up(
    binary: &Path,
    place: &Place,
    stay: impl FnOnce(&mut Child, &Client) -> Result<()>,
) -> Result<()> {
    let root = tempfile::Builder::new()
        .prefix("cooper-run-")
        .tempdir()
        .context("a throw-away root")?;
    let socket = root.path().join("cooper.sock");
    let mut daemon = launch(binary, place, root.path(), &socket)?;
    let client = Client::new(&socket);
    let outcome =
        introduce(&mut daemon, binary, place, &socket).and_then(|()| stay(&mut daemon, &client));
    let stopped = stop(&client, &mut daemon);
    let bridge = testkit::network::Bridge::named(place.bridge);
    outcome
        .and(stopped)
        .and(bridge.take_down(&root.path().join("data")))
}

fn launch(binary: &Path, place: &Place, root: &Path, socket: &Path) -> Result<Child> {
    let log = std::fs::File::create(root.join("daemon.log"))?;
    let mut command = sh::command(binary);
    command.arg("daemon").args(["--config-file", "/dev/null"]);
    command.arg(format!("--data-root={}", root.join("data").display()));
    command.arg(format!("--exec-root={}", root.join("exec").display()));
    command.arg(format!("--pidfile={}", root.join("cooper.pid").display()));
    command.arg(format!("--cgroup-parent=/cooper-run-{}", place.port));
    // An installed Cooper keeps its own.
    command.arg(format!("--bridge={}", place.bridge));
    command.arg(format!("--host=unix://{}", socket.display()));
    command.arg(format!("--host=tcp://127.0.0.1:{}", place.port));
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    // Ctrl-C is for this command, which then takes the engine down in order.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn().context("start the engine")
}

fn introduce(daemon: &mut Child, binary: &Path, place: &Place, socket: &Path) -> Result<()> {
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
    println!("{}", next_steps(place.port, socket));
    Ok(())
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

fn next_steps(port: u16, socket: &Path) -> String {
    format!(
        "
try next, in another terminal:
    curl http://127.0.0.1:{port}/version
    curl http://127.0.0.1:{port}/images/json
    curl http://127.0.0.1:{port}/containers/json?all=1
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    use testkit::network::Bridge;
    use testkit::{TestDaemon, wait_until};

    use super::*;

    const SERVES_WITHIN: Duration = Duration::from_secs(20);

    /// The binary that the same build has made.
    fn cooper() -> Option<std::path::PathBuf> {
        let own = std::env::current_exe().unwrap();
        let built = own.parent().unwrap().with_file_name("cooper");
        if built.exists() {
            return Some(built);
        }
        assert!(!testkit::is_ci(), "{} is missing", built.display());
        println!("skipped: no {}; build it first", built.display());
        None
    }

    fn free_port() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap().port()
    }

    /// Runs a web server that says `word`, and answers its port.
    fn serve(client: &Client, word: &str) -> u16 {
        let port = free_port();
        let script = format!("echo {word} > /index.html; exec httpd -f -p 80 -h /");
        let body = json!({
            "Image": "busybox", "Cmd": ["sh", "-c", script],
            "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": port.to_string()}]}},
        });
        let created = client.post("/containers/create", &body).expect(201).json();
        let start = format!("/containers/{}/start", created["Id"].as_str().unwrap());
        client.post(&start, &Value::Null).expect(204);
        port
    }

    fn page(port: u16) -> Option<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        stream.set_read_timeout(Some(SERVES_WITHIN)).unwrap();
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.contains("200 OK").then_some(answer)
    }

    fn serves(port: u16, word: &str) {
        let page = wait_until("the page", SERVES_WITHIN, || page(port));
        assert!(page.ends_with(&format!("{word}\n")), "{page}");
    }

    #[test]
    fn an_engine_that_is_brought_up_leaves_the_one_that_runs_alone() {
        if !testkit::is_root() {
            return;
        }
        let Some(binary) = cooper() else { return };
        let first = TestDaemon::start(&binary);
        first.load_busybox();
        let port = serve(&first.client(), "first");
        serves(port, "first");
        // What its rules have counted goes on.
        let held = || -> Vec<String> {
            let uncounted = |line: String| {
                let words: Vec<&str> = line.split_ascii_whitespace().collect();
                let is_count = |at: usize| at > 0 && ["packets", "bytes"].contains(&words[at - 1]);
                let kept = (0..words.len()).filter(|at| !is_count(*at));
                let words: Vec<&str> = kept.map(|at| words[at]).collect();
                words.join(" ")
            };
            first.bridge().left().into_iter().map(uncounted).collect()
        };
        let before = held();
        let place = Place {
            port: free_port(),
            bridge: "ctbeside",
        };
        let mut seen = Ok(());
        let look = |client: &Client| {
            let second = serve(client, "second");
            serves(second, "second");
            serves(port, "first");
            assert_eq!(held(), before, "while both run");
            let listed = first.client().get("/containers/json?all=1").json();
            assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
            let taken = check_port(place.port).unwrap_err();
            assert!(taken.to_string().contains("is taken"), "{taken}");
        };
        // A look that fails must not leave the engine behind.
        let brought = bring_up(&binary, &place, |_, client| {
            seen = catch_unwind(AssertUnwindSafe(|| look(client)));
            Ok(())
        });
        if let Err(panic) = seen {
            resume_unwind(panic);
        }
        brought.unwrap();
        serves(port, "first");
        assert_eq!(held(), before, "afterwards");
        let left = Bridge::named(place.bridge).left();
        assert!(left.is_empty(), "{left:?}");
        check_port(place.port).unwrap();
    }
}
