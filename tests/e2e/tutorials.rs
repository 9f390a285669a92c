//! The lines of the old Remote API tutorials, typed as they stand there: same path, same body, no flag added.
//!
//! Only the port differs: each test has an engine of its own. The shell runs curl, as a reader would.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::{Options, TestDaemon};

use crate::daemon_with;
use crate::pull::{Registry, run};

/// A daemon on a free TCP port of 127.0.0.1, beside its unix socket.
struct Tutorial {
    daemon: TestDaemon,
    port: u16,
}

impl Tutorial {
    fn start() -> Option<Self> {
        Self::with(Vec::new())
    }

    /// One whose docker.io is a registry on loopback that has this image of `cargo xtask images`.
    fn with_image(archive: &str, name: &str) -> Option<(Self, Registry)> {
        let archive = made_image(archive)?;
        let registry = Registry::start();
        let tutorial = Self::with(vec![format!(
            "--registry-mirror=http://{}",
            registry.address
        )])?;
        registry.push(&archive, name);
        Some((tutorial, registry))
    }

    fn with(mut arguments: Vec<String>) -> Option<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|l| l.local_addr())
            .expect("a free port")
            .port();
        arguments.push(format!("--host=tcp://0.0.0.0:{port}"));
        let options = Options {
            arguments,
            ..Options::default()
        };
        Some(Self {
            daemon: daemon_with(options)?,
            port,
        })
    }

    /// Runs one line of a tutorial in a shell and answers what it prints.
    fn types(&self, line: &str) -> String {
        let line = line.replace(":2375", &format!(":{}", self.port));
        let output = sys_shell(&line, &self.daemon.host());
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{line}: {}\n{printed}",
            String::from_utf8_lossy(&output.stderr)
        );
        printed
    }

    /// Runs one curl line and answers the status code that it got.
    fn status(&self, line: &str) -> String {
        self.types(&line.replacen("curl ", "curl -s -o /dev/null -w '%{http_code}' ", 1))
    }

    fn json(&self, line: &str) -> Value {
        let printed = self.types(&line.replacen("curl ", "curl -s ", 1));
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{line}: {error}: {printed}"))
    }
}

#[expect(clippy::disallowed_methods, reason = "a test types into a shell")]
fn sys_shell(line: &str, host: &str) -> std::process::Output {
    std::process::Command::new("sh")
        .args(["-c", line])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .env("DOCKER_HOST", host)
        .output()
        .expect("a shell")
}

fn has_keys(value: &Value, keys: &[&str]) {
    for key in keys {
        assert!(value.get(key).is_some(), "no {key} in {value}");
    }
}

/// A busybox under another name, for bodies that name an image which a test does not need to really serve.
fn tag(tutorial: &Tutorial, repository: &str, tag: &str) {
    let path = format!("/images/busybox/tag?repo={repository}&tag={tag}");
    assert_eq!(
        tutorial.daemon.client().post(&path, &Value::Null).status,
        201
    );
}

#[test]
fn t3_images_three_ways() {
    let Some(tutorial) = Tutorial::start() else {
        return;
    };
    let listed = tutorial.types("docker images");
    assert!(
        listed.contains("busybox") && listed.contains("latest"),
        "{listed}"
    );
    let images = tutorial.json("curl http://localhost:2375/images/json");
    has_keys(
        &images[0],
        &[
            "Created",
            "Id",
            "ParentId",
            "RepoTags",
            "Size",
            "VirtualSize",
        ],
    );
    assert_eq!(images[0]["RepoTags"], json!(["busybox:latest"]));
    let navigation = "curl -H 'Accept: text/html' -H 'Sec-Fetch-Site: none' -H 'Sec-Fetch-Mode: navigate' http://localhost:2375/images/json";
    assert_eq!(
        tutorial.json(navigation),
        images,
        "the same address in a browser"
    );
}

#[test]
fn t4_version() {
    let Some(tutorial) = Tutorial::start() else {
        return;
    };
    let version = tutorial.json("curl -X GET http://127.0.0.1:2375/version");
    has_keys(
        &version,
        &[
            "ApiVersion",
            "Arch",
            "GitCommit",
            "GoVersion",
            "KernelVersion",
            "Os",
            "Version",
        ],
    );
    for (key, value) in version.as_object().expect("an object") {
        assert_ne!(value, "", "{key}");
    }
    let told = tutorial.types("docker version");
    let own = format!(
        " cooper:\n  Version:          {}",
        env!("CARGO_PKG_VERSION")
    );
    assert!(told.contains(&own), "{told}");
}

#[test]
fn t5_containers_with_and_without_all() {
    let Some(tutorial) = Tutorial::start() else {
        return;
    };
    let mut published = crate::lifecycle::body(&["sleep", "600"]);
    published["HostConfig"] =
        json!({"PortBindings": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}});
    let running = tutorial.daemon.run(&published);
    let created = tutorial
        .daemon
        .create(&crate::lifecycle::body(&["sleep", "600"]));
    let ids = |list: &Value| -> Vec<String> {
        list.as_array()
            .expect("a list")
            .iter()
            .map(|c| c["Id"].as_str().expect("an id").to_owned())
            .collect()
    };
    let some = tutorial.json("curl http://localhost:2375/containers/json");
    assert_eq!(ids(&some), std::slice::from_ref(&running));
    has_keys(
        &some[0],
        &[
            "Command", "Created", "Id", "Image", "Names", "Ports", "Status",
        ],
    );
    let port = &some[0]["Ports"][0];
    assert_eq!(
        (&port["PrivatePort"], &port["Type"]),
        (&json!(8080), &json!("tcp"))
    );
    assert!(
        port["PublicPort"].as_u64().is_some_and(|port| port > 0),
        "{port}"
    );
    let status = some[0]["Status"].as_str().expect("a status");
    assert!(
        status.starts_with("Up ") || status == "Up Less than a second",
        "{status}"
    );
    let all = tutorial.json("curl http://localhost:2375/containers/json?all=1");
    assert_eq!(ids(&all), [created, running]);
}

#[test]
fn t8_the_body_of_2015_creates_a_container() {
    let Some(tutorial) = Tutorial::start() else {
        return;
    };
    tag(&tutorial, "postgres", "9.3");
    let body = r#"{"Hostname":"","User":"","Memory":0,"MemorySwap":0,"AttachStdin":false,"AttachStdout":true,"AttachStderr":true,"PortSpecs":null,"Privileged":false,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Dns":null,"Image":"postgres:9.3","Volumes":{},"VolumesFrom":{},"WorkingDir":""}"#;
    let line = format!(
        "curl -X POST -H \"Content-Type: application/json\" http://localhost:2375/containers/create -d '{body}'"
    );
    let created = tutorial.json(&line);
    assert_eq!(created["Id"].as_str().map(str::len), Some(64), "{created}");
}

#[test]
fn t9_and_t10_the_life_of_a_container() {
    let Some(tutorial) = Tutorial::start() else {
        return;
    };
    let script = [
        "sh",
        "-c",
        "trap 'exit 0' TERM; while :; do sleep 0.1; done",
    ];
    let id = tutorial.daemon.create(&crate::lifecycle::body(&script));
    let post_to = |id: &str, verb: &str| {
        tutorial.status(&format!(
            "curl -XPOST http://localhost:2375/containers/{id}/{verb}"
        ))
    };
    let post = |verb: &str| post_to(&id[..12], verb);
    assert_eq!(id.len(), 64);
    assert_eq!(post_to(&id, "start"), "204");
    assert_eq!(post_to(&id, "start"), "304", "the second time");
    assert_eq!(post("start"), "304", "by a short prefix");
    for verb in ["pause", "unpause", "restart", "stop", "start", "kill"] {
        assert_eq!(post(verb), "204", "{verb}");
    }
    let remove = format!("curl -X DELETE http://localhost:2375/containers/{id}");
    assert_eq!(tutorial.status(&remove), "204");
    assert_eq!(tutorial.status(&remove), "404");
}

#[test]
fn plaintext_from_elsewhere_is_told_what_works() {
    let Some(tutorial) = Tutorial::start() else {
        return;
    };
    let Some(address) = own_address() else { return };
    // A peer on this machine is loopback by decision 14 only when its address is: its own LAN address is not.
    let line = format!("curl -s -w '\\n%{{http_code}}' http://{address}:2375/containers/json");
    let printed = tutorial.types(&line);
    let (body, code) = printed.rsplit_once('\n').expect("body and code");
    assert_eq!(code, "401", "{body}");
    assert!(
        body.contains("ssh://") && body.contains("--allow-plaintext"),
        "{body}"
    );
}

/// An address of this machine that is not loopback; a machine without a network has none.
fn own_address() -> Option<String> {
    let output = sys_shell(
        "ip -4 -o addr show scope global | awk '{print $4}' | cut -d/ -f1 | head -1",
        "",
    );
    let address = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if address.is_empty() || !Path::new("/sys/class/net").exists() {
        println!("skipped: this machine has no address but loopback");
        return None;
    }
    Some(address)
}

/// The images that `cargo xtask images` makes.
fn made_image(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(".cache/images")
        .join(name);
    if path.exists() {
        return Some(path);
    }
    assert!(!testkit::is_ci(), "{} is missing", path.display());
    println!(
        "skipped: {} is made by `cargo xtask images`",
        path.display()
    );
    None
}

#[test]
fn t6_and_t7_tomcat_is_pulled_and_answers_on_a_port_of_the_host() {
    let made = Tutorial::with_image("tomcat_9.0.tar", "library/tomcat:9.0");
    let Some((tutorial, _registry)) = made else {
        return;
    };
    let line = "curl -sf -XPOST http://localhost:2375/images/create?fromImage=tomcat:9.0";
    let pulled = tutorial.types(line);
    let first = r#"{"status":"Pulling from library/tomcat","id":"9.0"}"#;
    assert!(pulled.starts_with(first), "{pulled}");
    let moving = r#""status":"Downloading","progressDetail":{"current":"#;
    assert!(pulled.contains(moving), "{pulled}");
    let last = "Status: Downloaded newer image for tomcat:9.0";
    assert!(pulled.contains(last), "{pulled}");
    let body =
        r#"{ "Image":"tomcat:9.0", "PortBindings": { "8080/tcp": [{ "HostPort": "9090" }] } }"#;
    let free = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).and_then(|l| l.local_addr());
    let port = free(9090).or_else(|_| free(0)).expect("a free port").port();
    let body = body.replace("9090", &port.to_string());
    let created = tutorial.json(&format!(
        "curl -X POST -H \"Content-Type: application/json\" http://localhost:2375/containers/create -d '{body}'"
    ));
    let id = created["Id"].as_str().expect("an id");
    let start = format!("curl -XPOST http://localhost:2375/containers/{id}/start");
    assert_eq!(tutorial.status(&start), "204");
    let look = format!(
        "curl -s --max-time 10 -o /dev/null -w '%{{http_code}}' http://localhost:{port}/ || true"
    );
    testkit::wait_until(
        "Tomcat to answer 200",
        std::time::Duration::from_secs(60),
        || (tutorial.types(&look) == "200").then_some(()),
    );
    let page = tutorial.types(&format!("curl -s http://localhost:{port}/"));
    assert!(page.contains("Tomcat"), "{page}");
    let server = tutorial.types(&format!("curl -s http://localhost:{port}/no-such-page"));
    assert!(
        server.contains("Apache Tomcat/"),
        "a real Tomcat says who it is: {server}"
    );
}

#[test]
fn t11_docker_run_with_d_and_p() {
    let Some(tutorial) = Tutorial::start() else {
        return;
    };
    let printed = tutorial.types(
        "docker run -d -p 80 --name web busybox sh -c 'echo hello > /index.html; exec httpd -f -p 80 -h /'",
    );
    assert_eq!(printed.trim().len(), 64, "{printed}");
    let places = tutorial.types("docker port web 80");
    let place = places
        .lines()
        .next()
        .expect("a place")
        .replace("0.0.0.0", "localhost");
    let look = format!("curl -s --max-time 10 http://{place}/index.html || true");
    testkit::wait_until("the page", std::time::Duration::from_secs(20), || {
        (tutorial.types(&look) == "hello\n").then_some(())
    });
    let table = tutorial.types("docker ps --format '{{.Names}} {{.Ports}}'");
    let port = place.trim_start_matches("localhost:");
    let expected = format!("web 0.0.0.0:{port}->80/tcp, [::]:{port}->80/tcp\n");
    assert_eq!(table, expected);
    tutorial.types("docker run --rm -p 127.0.0.1::81 busybox true");
    tutorial.types("docker rm -f web");
}

/// The gem's lines as they stand in the tutorial, and what comes back as JSON, a line each.
const GEM: &str = r#"
require 'docker'
require 'json'
Docker.url = 'tcp://127.0.0.1:2375'
Docker.options = { read_timeout: 300 }
puts JSON.generate(Docker.version)
Docker::Image.create('fromImage' => 'postgres:9.3')
container = Docker::Container.create('Image' => 'postgres:9.3')
container.start
300.times do
  names = container.top.map { |row| row['CMD'] }.join
  break if names.include?('checkpointer') && names.include?('writer')
  sleep 0.2
end
puts JSON.generate(container.top)
puts container.id
"#;

#[test]
fn t12_and_t14_the_gem_runs_postgres_and_top_shows_its_processes() {
    let made = Tutorial::with_image("postgres_9.3.tar", "library/postgres:9.3");
    let Some((tutorial, registry)) = made else {
        return;
    };
    let pull = format!("docker pull {}/library/postgres:9.3", registry.address);
    let pulled = tutorial.types(&pull);
    assert!(
        pulled.contains("Status: Downloaded newer image for "),
        "{pulled}"
    );
    // A unix socket's URL is refused by this gem's own HTTP library; the tutorial has TCP.
    let script = GEM.replace(":2375", &format!(":{}", tutorial.port));
    let printed = run("/usr/bin/ruby", &["-e", &script], &[]);
    let mut lines = printed.lines();
    let mut next = || {
        lines
            .next()
            .unwrap_or_else(|| panic!("too few lines: {printed}"))
    };
    let version: Value = serde_json::from_str(next()).expect("a version");
    has_keys(
        &version,
        &[
            "ApiVersion",
            "Arch",
            "GitCommit",
            "GoVersion",
            "KernelVersion",
            "Os",
            "Version",
        ],
    );
    let top: Value = serde_json::from_str(next()).expect("processes");
    let rows = top.as_array().expect("a list");
    for row in rows {
        let titles: Vec<&String> = row.as_object().expect("a hash").keys().collect();
        let expected = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
        assert_eq!(titles, expected, "{row}");
        let pid = row["PID"].as_str().expect("a number");
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        assert!(name.starts_with("postgres"), "{pid} is {name:?}: {row}");
    }
    let named = |part: &str| rows.iter().any(|row| row["CMD"].to_string().contains(part));
    assert!(named("checkpointer") && named("writer"), "{top}");
    let id = next();
    let ask = format!("docker exec {id} psql -U postgres -h 127.0.0.1 -Atc 'select 6 * 7'");
    let ready = format!("{ask} 2>/dev/null || true");
    testkit::wait_until(
        "PostgreSQL to answer",
        std::time::Duration::from_secs(60),
        || (tutorial.types(&ready) == "42\n").then_some(()),
    );
}
