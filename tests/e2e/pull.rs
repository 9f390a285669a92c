//! Pulls from Debian's docker-registry: the stream of dockerd, the lines of the tutorials, and kill -9 in between.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::archive::{self, Entry};
use testkit::{Client, Options, TestDaemon, wait_until};

use crate::daemon_with;
use testkit::client::frames;

/// Debian's registry answers this soon after its start.
const REGISTRY_WITHIN: Duration = Duration::from_secs(20);

/// A pull of a few MB has begun, or broken off, by then.
const PULL_WITHIN: Duration = Duration::from_secs(60);

/// A docker-registry of the test's own on a free port of 127.0.0.1.
pub(crate) struct Registry {
    directory: TempDir,
    /// Host and port.
    pub(crate) address: String,
    process: Child,
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Tests beside this one look for free ports too, and one may be faster.
const PORTS_TRIED: usize = 5;

impl Registry {
    pub(crate) fn start() -> Self {
        (0..PORTS_TRIED)
            .find_map(|_| Self::try_start())
            .expect("a port that docker-registry can have")
    }

    /// Nothing when its port was taken meanwhile.
    fn try_start() -> Option<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let directory = tempfile::tempdir().expect("a directory");
        let address = format!("127.0.0.1:{port}");
        let file = directory.path().join("registry.yml");
        let data = directory.path().join("data");
        let settings = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
            data.display()
        );
        std::fs::write(&file, settings).expect("the registry's settings");
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let mut process = sys::command::Command::new("/usr/bin/docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(log.try_clone().expect("a second handle").into())
            .stderr(log.into())
            .spawn()
            .expect("start docker-registry");
        let serves = wait_until("the registry to answer or to end", REGISTRY_WITHIN, || {
            if process
                .try_wait()
                .expect("wait for docker-registry")
                .is_some()
            {
                return Some(false);
            }
            std::net::TcpStream::connect(&address).ok().map(|_| true)
        });
        serves.then_some(Self {
            directory,
            address,
            process,
        })
    }

    /// Puts an archive's image under `name:tag` into the registry.
    pub(crate) fn push(&self, archive: &Path, name: &str) {
        run(
            "/usr/bin/skopeo",
            &[
                "copy",
                "--quiet",
                "--insecure-policy",
                "--dest-tls-verify=false",
                // What is pulled is as large or small as it is; the push need not take long.
                "--dest-compress-format=gzip",
                "--dest-compress-level=1",
                &format!("docker-archive:{}", archive.display()),
                &format!("docker://{}/{name}", self.address),
            ],
            &[],
        );
    }

    /// The digest of the manifest that `name:tag` has here.
    pub(crate) fn digest(&self, name: &str) -> String {
        let image = format!("docker://{}/{name}", self.address);
        let inspect = ["inspect", "--tls-verify=false", "--format={{.Digest}}"];
        let printed = run("/usr/bin/skopeo", &[&inspect[..], &[&image]].concat(), &[]);
        printed.trim().to_owned()
    }

    /// A busybox below `layers` more layers of `bytes` noise each, under `name:tag`.
    fn push_layers(&self, name: &str, layers: u8, bytes: usize) {
        let mut all = vec![archive::layer(&archive::busybox())];
        for number in 0..layers {
            let path = format!("noise-{number}");
            all.push(archive::layer(&[Entry::file(
                &path,
                0o644,
                noise(number, bytes),
            )]));
        }
        let mut config = archive::config(&["sh"]);
        config["Labels"] = json!({"maker": "noise"});
        self.push_archive(
            &archive::docker_archive("noise:latest", &all, &config),
            name,
        );
    }

    /// As [`Registry::push`], of an archive in memory.
    pub(crate) fn push_archive(&self, archive: &[u8], name: &str) {
        let path = self.directory.path().join("image.tar");
        archive::write(&path, archive);
        self.push(&path, name);
    }
}

/// Bytes that hardly compress, the same at each call, other ones for another seed.
fn noise(seed: u8, bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (u64::from(seed) << 32) ^ bytes as u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// Runs a program and answers what it prints.
pub(crate) fn run(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = sys::command::Command::new(program)
        .env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/nonexistent");
    for argument in arguments {
        command = command.arg(argument);
    }
    for (name, value) in environment {
        command = command.env(name, value);
    }
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{printed}",
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

fn pull(client: &Client, query: &str) -> testkit::client::Response {
    client.post(&format!("/images/create?{query}"), &Value::Null)
}

/// The stream with what time decides taken out: lines of the whole pull in order, then each layer's own in order.
fn shape(text: &str) -> (Vec<Value>, Vec<Vec<String>>) {
    let lines: Vec<Value> = text
        .split_terminator("\r\n")
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let (layers, whole): (Vec<_>, Vec<_>) = lines
        .into_iter()
        .partition(|line| line.get("progressDetail").is_some());
    let mut order: Vec<String> = Vec::new();
    let mut each: Vec<Vec<String>> = Vec::new();
    for line in layers {
        let id = line["id"].as_str().expect("an id").to_owned();
        let at = order.iter().position(|known| *known == id);
        let at = at.unwrap_or_else(|| {
            order.push(id.clone());
            each.push(vec![id]);
            each.len() - 1
        });
        let mut words = line["status"].as_str().expect("a status").to_owned();
        let keys: Vec<&String> = line.as_object().expect("an object").keys().collect();
        words.push_str(&format!(" {keys:?}"));
        // Waiting depends on which downloads were first, how often bytes are counted on the clock; dockerd drops
        // the moment of verifying when another message is due.
        let by_chance = words.starts_with("Waiting") || words.starts_with("Verifying Checksum");
        if !by_chance && each[at].last() != Some(&words) {
            each[at].push(words);
        }
    }
    (whole, each)
}

#[test]
fn the_stream_is_dockerds() {
    let Some(daemon) = daemon_with(Options::default()) else {
        return;
    };
    let registry = Registry::start();
    registry.push_layers("noise:one", 5, 3_000_000);
    let query = format!("fromImage={}/noise&tag=one", registry.address);
    let ours = pull(&daemon.client(), &query).expect(200);
    assert_eq!(ours.header("content-type"), Some("application/json"));
    let again = pull(&daemon.client(), &query).expect(200);
    let Some(peer) = testkit::peers::dockerd() else {
        return;
    };
    let theirs = pull(&peer, &query).expect(200);
    let theirs_again = pull(&peer, &query).expect(200);
    let told = [&daemon.client(), &peer].map(|client| pull_events(client, &registry));
    let removed = peer.delete(&format!("/images/{}/noise:one", registry.address));
    assert_eq!(removed.status, 200);
    assert_eq!(told[0], told[1], "events, with the image's labels");
    let (ours, theirs) = (shape(&ours.text()), shape(&theirs.text()));
    assert_eq!(ours.0, theirs.0, "lines of the whole pull");
    for (ours, theirs) in ours.1.iter().zip(&theirs.1).skip(1) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.1.len(), theirs.1.len());
    assert_eq!(
        again.text(),
        theirs_again.text(),
        "of an image that is there"
    );
}

/// What the journal has of pulls from this registry, without times.
fn pull_events(client: &Client, registry: &Registry) -> Vec<Value> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let until = now.expect("a clock after 1970").as_secs() + 1;
    let events = client
        .get(&format!("/events?since=0&until={until}"))
        .expect(200);
    let own = |event: &Value| {
        event["Action"] == "pull"
            && event["Actor"]["ID"]
                .as_str()
                .is_some_and(|id| id.starts_with(&registry.address))
    };
    events
        .json_lines()
        .filter(own)
        .map(|event| event["Actor"].clone())
        .collect()
}

#[test]
fn a_name_without_tag_pulls_every_tag_and_each_refusal_is_dockerds() {
    let Some(daemon) = daemon_with(Options::default()) else {
        return;
    };
    let registry = Registry::start();
    for tag in ["one", "two"] {
        registry.push_layers(&format!("several:{tag}"), 1, 1000);
    }
    let ours = daemon.client();
    let at = &registry.address;
    let all = pull(&ours, &format!("fromImage={at}/several")).expect(200);
    let last = all.json_lines().last().expect("a last line");
    let status = format!("Status: Downloaded newer image for {at}/several");
    assert_eq!(last["status"], status);
    let images = ours.get("/images/json").json().to_string();
    for tag in ["one", "two"] {
        assert!(images.contains(&format!("{at}/several:{tag}")), "{images}");
    }
    let Some(peer) = testkit::peers::dockerd() else {
        return;
    };
    for query in [
        format!("fromImage={at}/nope&tag=x"),
        format!("fromImage={at}/several&tag=three"),
        format!("fromImage={at}/nope"),
        "fromImage=127.0.0.1:1/nope&tag=x".to_owned(),
        "fromImage=127.0.0.1:1/nope".to_owned(),
        "fromImage=busybox&tag=a%20b".to_owned(),
        "fromImage=library/x@sha256:12".to_owned(),
        format!("fromImage={}", "a".repeat(64)),
        format!("fromImage={at}/several&tag=one&platform=linux/bogus/x/y"),
    ] {
        let (ours, theirs) = (pull(&ours, &query), pull(&peer, &query));
        assert_eq!(
            (ours.status, ours.json()),
            (theirs.status, theirs.json()),
            "{query}"
        );
    }
}

/// A daemon whose mirror of docker.io is `registry`.
fn mirrored(registry: &Registry) -> Option<TestDaemon> {
    daemon_with(Options {
        arguments: vec![format!("--registry-mirror=http://{}", registry.address)],
        ..Options::default()
    })
}

#[test]
fn t14_the_mirror_serves_names_of_docker_io() {
    let registry = Registry::start();
    let Some(daemon) = mirrored(&registry) else {
        return;
    };
    registry.push_layers("library/alpine:latest", 1, 100_000);
    let host = daemon.host();
    let docker = |words: &[&str]| run("docker", words, &[("DOCKER_HOST", &host)]);
    let pulled = docker(&["pull", "alpine"]);
    assert!(
        pulled.contains("Downloaded newer image for alpine:latest"),
        "{pulled}"
    );
    let said = docker(&["run", "--rm", "--network=none", "alpine", "echo", "hello"]);
    assert_eq!(said, "hello\n");
    let info = daemon.client().get("/info").json();
    let mirror = format!("http://{}/", registry.address);
    assert_eq!(info["RegistryConfig"]["Mirrors"][0], mirror);
}

#[test]
fn a_pull_cut_by_kill_9_leaves_no_image_and_is_resumed() {
    let registry = Registry::start();
    let Some(mut daemon) = daemon_with(Options::default()) else {
        return;
    };
    registry.push_layers("noise:cut", 4, 8_000_000);
    let query = format!(
        "/images/create?fromImage={}/noise&tag=cut",
        registry.address
    );
    let open = daemon
        .client()
        .open("POST", &query, &[("Content-Length", "0")], b"");
    assert_eq!(open.status, 200);
    let blobs = daemon.data_root().join("content");
    wait_until("bytes of a blob to be on disk", PULL_WITHIN, || {
        (size(&blobs) > 3_000_000).then_some(())
    });
    daemon.kill();
    drop(open);
    daemon.start_again();
    whole_after_second_pull(&daemon, &registry, "noise", "cut");
}

#[test]
fn a_kill_at_each_step_of_a_pull_leaves_no_half_image() {
    let registry = Registry::start();
    if !testkit::is_root() {
        return;
    }
    registry.push_layers("noise:steps", 2, 200_000);
    let points = crate::kill_matrix::points();
    let points = points.iter().filter(|point| point.starts_with("registry."));
    for point in points {
        let options = Options {
            environment: vec![("COOPER_FAULT".into(), point.clone())],
            ..Options::default()
        };
        let mut daemon = TestDaemon::start_with(env!("CARGO_BIN_EXE_cooper"), options);
        let query = format!(
            "/images/create?fromImage={}/noise&tag=steps",
            registry.address
        );
        let cut = daemon.client().try_request("POST", &query, &[], Vec::new());
        println!("{point}: {}", if cut.is_ok() { "answered" } else { "cut" });
        daemon.wait();
        daemon.start_again();
        whole_after_second_pull(&daemon, &registry, "noise", "steps");
    }
}

/// There is no image of the first pull; the second one makes a whole one that runs.
fn whole_after_second_pull(daemon: &TestDaemon, registry: &Registry, name: &str, tag: &str) {
    let client = daemon.client();
    let reference = format!("{}/{name}:{tag}", registry.address);
    let missing = client.get(&format!("/images/{reference}/json"));
    assert_eq!(missing.status, 404, "half an image: {}", missing.text());
    let query = format!("fromImage={}/{name}&tag={tag}", registry.address);
    let pulled = pull(&client, &query).expect(200).text();
    assert!(pulled.contains("Downloaded newer image"), "{pulled}");
    let body = serde_json::json!({
        "Image": reference, "Cmd": ["sha256sum", "/noise-1"], "HostConfig": {"NetworkMode": "none"},
    });
    let id = daemon.run(&body);
    client
        .post(&format!("/containers/{id}/wait"), &Value::Null)
        .expect(200);
    let logs = client
        .get(&format!("/containers/{id}/logs?stdout=1"))
        .expect(200);
    let (printed, _) = frames(&logs.body);
    assert!(printed.ends_with("  /noise-1\n"), "{printed}");
}

fn size(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => size(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
