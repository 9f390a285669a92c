//! kill -9 at every durable step: the daemon, and the shim, end at one named point of the sources, and nothing
//! that a client was told is lost, nothing is half there, and the next start needs no hand.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::archive::{self, Entry};
use testkit::{Client, Options, TestDaemon, wait_until};

use crate::crash::DEATH_TOLD_WITHIN;
use crate::daemon_with;
use crate::lifecycle::body;
use crate::pull::Registry;

/// What a restart goes on with beside its start is done by then.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// Steps of a start after the machine itself went down; the tests of the crate image make them.
const AFTER_UNCLEAN_BOOT: [&str; 2] = ["image.layer-removed-for-repair", "image.layer-repaired"];

/// What the shim's points are called; they are another process's.
const SHIM: &str = "shim.";

/// How many shims a daemon keeps parked.
const POOL_SIZE: usize = 4;

/// The image that is pulled: it has something for a volume to start with.
const PULLED: &str = "walked:one";

/// What that is.
const SEED: &str = "seed of the image\n";

/// Every `fault!("…")` in the sources: a new one is walked without being listed anywhere.
pub(crate) fn points() -> BTreeSet<String> {
    let mut points = BTreeSet::new();
    let mut queue = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("crates")];
    while let Some(directory) = queue.pop() {
        for entry in std::fs::read_dir(directory).expect("the sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                queue.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(&path).expect("a source");
                let calls = source.split("fault!(\"").skip(1);
                points.extend(calls.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }
    // The macro's own documentation.
    points.remove("name");
    points
}

/// The points that a daemon passes whose machine stays up.
fn of_the_daemon() -> BTreeSet<String> {
    let mut points = points();
    points
        .retain(|point| !point.starts_with(SHIM) && !AFTER_UNCLEAN_BOOT.contains(&point.as_str()));
    points
}

/// What the client was told: the promise that a restart must keep. A request under way may or may not have
/// happened.
#[derive(Debug, Default)]
struct Acknowledged {
    volume: bool,
    pulled: bool,
    created: Option<String>,
    renamed: bool,
    started: bool,
    port: Option<u16>,
    stopping: bool,
    exited: Option<i64>,
    removed: bool,
    tidying: bool,
}

/// What a walk needs: a daemon's client, and a registry with [`PULLED`] in it.
struct Walk<'a> {
    client: Client,
    registry: &'a str,
}

impl Walk<'_> {
    /// A request's answer; nothing when the daemon died at it.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Option<testkit::Response> {
        let bytes = match body {
            Value::Null => Vec::new(),
            body => body.to_string().into_bytes(),
        };
        let headers = [("content-type", "application/json")];
        self.client.try_request(method, path, &headers, bytes).ok()
    }

    fn post(&self, path: &str, body: &Value) -> Option<testkit::Response> {
        self.ask("POST", path, body)
    }

    fn delete(&self, path: &str) -> Option<testkit::Response> {
        self.ask("DELETE", path, &Value::Null)
    }

    fn image(&self) -> String {
        format!("{}/{PULLED}", self.registry)
    }

    /// Everything that makes a durable step; ends at the first broken connection.
    fn walk(&self, acknowledged: &mut Acknowledged) -> Option<()> {
        self.load()?;
        self.post("/volumes/create", &json!({"Name": "kept"}))?
            .expect(201);
        acknowledged.volume = true;
        let (name, tag) = PULLED.split_once(':').expect("a tag");
        let pull = format!(
            "/images/create?fromImage={}/{name}&tag={tag}",
            self.registry
        );
        let pulled = self.post(&pull, &Value::Null)?.expect(200);
        assert!(pulled.text().contains("Status: "), "{}", pulled.text());
        acknowledged.pulled = true;
        self.run(acknowledged)?;
        self.tidy(acknowledged)
    }

    fn load(&self) -> Option<()> {
        let layer = archive::layer(&[Entry::file("x", 0o644, "x")]);
        let archive = archive::docker_archive("second:latest", &[layer], &json!({}));
        let headers = [("content-type", "application/x-tar")];
        let path = "/images/load?quiet=1";
        self.client
            .try_request("POST", path, &headers, archive)
            .ok()?
            .expect(200);
        Some(())
    }

    /// A container on the bridge with a published port, a named volume and one without a name.
    fn run(&self, acknowledged: &mut Acknowledged) -> Option<()> {
        let script = "trap 'exit 4' TERM; busybox httpd -h /data; while :; do usleep 10000; done";
        let request = json!({
            "Image": self.image(), "Cmd": ["sh", "-c", script],
            "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/scratch": {}},
            "HostConfig": {
                "Binds": ["kept:/data"],
                "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1"}]},
            },
        });
        let created = self
            .post("/containers/create?name=walker", &request)?
            .expect(201);
        let id = created.json()["Id"].as_str().expect("an id").to_owned();
        acknowledged.created = Some(id.clone());
        let rename = format!("/containers/{id}/rename?name=wanderer");
        self.post(&rename, &Value::Null)?.expect(204);
        acknowledged.renamed = true;
        self.post(&format!("/containers/{id}/start"), &Value::Null)?
            .expect(204);
        acknowledged.started = true;
        let inspected = self
            .ask("GET", &format!("/containers/{id}/json"), &Value::Null)?
            .expect(200);
        let port = &inspected.json()["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"];
        let port = port.as_str().and_then(|port| port.parse().ok());
        // It serves once its trap is set, also while the daemon is away.
        served(port.unwrap_or_else(|| panic!("{}", inspected.text())));
        acknowledged.port = port;
        let exec = self.post(&format!("/containers/{id}/exec"), &json!({"Cmd": ["true"]}))?;
        let exec = exec.expect(201).json()["Id"]
            .as_str()
            .expect("an exec id")
            .to_owned();
        self.post(&format!("/exec/{exec}/start"), &json!({"Detach": true}))?
            .expect(200);
        acknowledged.stopping = true;
        self.post(&format!("/containers/{id}/stop?t=5"), &Value::Null)?
            .expect(204);
        let waited = self
            .post(&format!("/containers/{id}/wait"), &Value::Null)?
            .expect(200);
        acknowledged.exited = waited.json()["StatusCode"].as_i64();
        Some(())
    }

    /// Removes what the walk has made.
    fn tidy(&self, acknowledged: &mut Acknowledged) -> Option<()> {
        let tag = "/images/second:latest/tag?repo=third&tag=latest";
        self.post(tag, &Value::Null)?.expect(201);
        self.delete("/images/third:latest")?.expect(200);
        self.delete("/images/second:latest")?.expect(200);
        self.delete("/containers/wanderer?v=1")?.expect(204);
        acknowledged.removed = true;
        acknowledged.tidying = true;
        self.delete("/volumes/kept")?.expect(204);
        self.delete(&format!("/images/{}", self.image()))?
            .expect(200);
        Some(())
    }

    /// As [`Walk::tidy`], of whatever a walk that was cut off has left.
    fn tidy_leftovers(&self, point: &str) {
        for path in [
            "/containers/walker?force=1&v=1",
            "/containers/wanderer?force=1&v=1",
            "/volumes/kept",
            "/images/third:latest",
            "/images/second:latest",
            &format!("/images/{}", self.image()),
        ] {
            wait_until("what a crash left to go", SETTLED_WITHIN, || {
                let answer = self.client.delete(path);
                // 409: the restart is still at work on it.
                let fine = [200, 204, 404, 409].contains(&answer.status);
                assert!(fine, "{point}: {path}: {}", answer.text());
                (answer.status != 409).then_some(())
            });
        }
    }
}

/// Asks the container's web server for the file of its volume.
fn served(port: u16) -> String {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    wait_until("the published port to answer", SETTLED_WITHIN, || {
        let mut stream = TcpStream::connect_timeout(&address, SETTLED_WITHIN).ok()?;
        stream.write_all(b"GET /seed HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        (!answer.is_empty()).then_some(answer)
    })
}

/// Checks what was promised; nothing when the daemon dies meanwhile, as a late step can be the armed one.
fn check(point: &str, walk: &Walk<'_>, told: &Acknowledged, data_root: &Path) -> Option<()> {
    let get = |path: &str| walk.ask("GET", path, &Value::Null);
    if told.volume && !told.tidying {
        let status = get("/volumes/kept")?.status;
        assert_eq!(status, 200, "{point}: the volume is lost");
    }
    if told.created.is_some() && !told.tidying {
        let seed = std::fs::read_to_string(data_root.join("volumes/kept/_data/seed"));
        assert_eq!(
            seed.ok().as_deref(),
            Some(SEED),
            "{point}: what the volume holds"
        );
    }
    if told.pulled && !told.tidying {
        let status = get(&format!("/images/{}/json", walk.image()))?.status;
        assert_eq!(status, 200, "{point}: the pulled image is lost");
    }
    check_container(point, walk, told)
}

fn check_container(point: &str, walk: &Walk<'_>, told: &Acknowledged) -> Option<()> {
    let get = |path: &str| walk.ask("GET", path, &Value::Null);
    let list = get("/containers/json?all=1")?.expect(200).json();
    let list = list.as_array().expect("a list");
    let Some(id) = &told.created else {
        assert!(list.len() <= 1, "{point}: {list:?}");
        return Some(());
    };
    if told.removed {
        assert!(list.is_empty(), "{point}: removed, yet {list:?}");
        return Some(());
    }
    // A remove that was under way may have been finished by the restart.
    let Some(container) = list.iter().find(|container| container["Id"] == json!(id)) else {
        assert!(
            told.exited.is_some(),
            "{point}: the created container is lost"
        );
        return Some(());
    };
    if told.renamed && container["State"] != "removing" {
        assert_eq!(container["Names"], json!(["/wanderer"]), "{point}");
    }
    let inspected = get(&format!("/containers/{id}/json"))?;
    if inspected.status == 404 && told.exited.is_some() {
        return Some(()); // finished since the list
    }
    let inspected = inspected.expect(200).json();
    let state = &inspected["State"];
    if let Some(code) = told.exited {
        assert_eq!(state["ExitCode"], code, "{point}: {state}");
        // The remove that was under way is an intent that the restart carries out.
        let fine = state["Status"] == "exited" || state["Status"] == "removing";
        assert!(fine, "{point}: {state}");
    } else if told.stopping {
        let fine = state["Running"] == true || state["ExitCode"] == 4;
        assert!(fine, "{point}: asked to stop, yet {state}");
    } else if told.started {
        assert_eq!(state["Running"], true, "{point}: started, yet {state}");
        let port = &inspected["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"];
        if let Some(told) = told.port {
            assert_eq!(*port, told.to_string(), "{point}: its published port");
        }
    }
    Some(())
}

/// What was not saved is not there: a container that does not run has nothing of a run, and one of which nobody
/// was told is whole.
fn check_nothing_half_done(point: &str, walk: &Walk<'_>, told: &Acknowledged, daemon: &TestDaemon) {
    let list = walk.client.get("/containers/json?all=1").expect(200).json();
    for container in list.as_array().expect("a list") {
        let id = container["Id"].as_str().expect("an id");
        if container["State"] == "running" || container["State"] == "removing" {
            continue;
        }
        let run_dir = daemon.exec_root().join("containers").join(id);
        let mut left = Vec::new();
        let deadline = Instant::now() + SETTLED_WITHIN;
        while Instant::now() < deadline {
            left = daemon
                .bridge()
                .left()
                .into_iter()
                .filter(|line| line.contains(id))
                .collect();
            let cgroups = runtime::cgroup::list(&daemon.cgroup_parent());
            left.extend(cgroups.into_iter().filter(|name| name == id));
            left.extend(run_dir.exists().then(|| run_dir.display().to_string()));
            if left.is_empty() {
                break;
            }
        }
        assert!(
            left.is_empty(),
            "{point}: of a container that does not run: {left:?}"
        );
        if told.created.is_none() {
            let started = walk
                .client
                .post(&format!("/containers/{id}/start"), &Value::Null);
            assert_eq!(
                started.status,
                204,
                "{point}: half a container: {}",
                started.text()
            );
        }
    }
}

fn registry() -> Registry {
    let registry = Registry::start();
    let mut files = archive::busybox();
    files.push(Entry::directory("data", 0o755));
    files.push(Entry::file("data/seed", 0o644, SEED));
    files.push(Entry::directory("data/more", 0o700));
    let config = archive::config(&["sh"]);
    let tar = archive::docker_archive(PULLED, &[archive::layer(&files)], &config);
    registry.push_archive(&tar, PULLED);
    registry
}

/// Walks with `point` armed, restarts, checks, and walks again. Whether the daemon died there.
fn kill_at(point: &str, registry: &Registry) -> bool {
    let armed = Options {
        environment: vec![(sys::fault::VARIABLE.into(), point.into())],
        ..Options::default()
    };
    let mut daemon = TestDaemon::launch_with(env!("CARGO_BIN_EXE_cooper"), armed);
    let walk = Walk {
        client: daemon.client(),
        registry: &registry.address,
    };
    let mut told = Acknowledged::default();
    let mut reached = false;
    if daemon.ready_or_ended() && walk.walk(&mut told).is_none() {
        daemon.wait();
        reached = true;
        if let (Some(port), false) = (told.port, told.stopping) {
            let answer = served(port);
            assert!(
                answer.ends_with(SEED),
                "{point}: while the daemon is away: {answer:?}"
            );
        }
    }
    loop {
        if daemon.has_ended() {
            reached = true;
            daemon.start_again();
        }
        if check(point, &walk, &told, &daemon.data_root()).is_some() && !daemon.has_ended() {
            break;
        }
        daemon.wait();
    }
    check_nothing_half_done(point, &walk, &told, &daemon);
    // The next start needs no hand: the same walk now runs to its end.
    walk.tidy_leftovers(point);
    let left = walk.client.get("/volumes").expect(200).json();
    assert!(
        left["Volumes"].as_array().is_none_or(Vec::is_empty),
        "{point}: {left}"
    );
    let mut again = Acknowledged::default();
    walk.walk(&mut again)
        .unwrap_or_else(|| panic!("{point}: {again:?}\n{}", daemon.log()));
    assert_eq!(again.exited, Some(4), "{point}");
    reached
}

/// Every test takes its part of the points, so that they run beside each other.
fn kill_at_each(belongs: fn(&str) -> bool) {
    if !testkit::is_root() {
        return;
    }
    let registry = registry();
    let points: Vec<String> = of_the_daemon()
        .into_iter()
        .filter(|point| belongs(point))
        .collect();
    assert!(!points.is_empty());
    let begin = Instant::now();
    let missed: Vec<&String> = points
        .iter()
        .filter(|point| !kill_at(point, &registry))
        .collect();
    println!("{} points in {:?}", points.len(), begin.elapsed());
    assert!(
        missed.is_empty(),
        "points that the walk never reaches: {missed:?}"
    );
}

fn is_a_launch(point: &str) -> bool {
    [
        "engine.launch",
        "engine.retire",
        "engine.rename",
        "network.",
    ]
    .iter()
    .any(|prefix| point.starts_with(prefix))
}

fn is_a_volume(point: &str) -> bool {
    point.starts_with("volume.")
}

fn is_an_image(point: &str) -> bool {
    point.starts_with("image.") || point.starts_with("registry.")
}

#[test]
fn nothing_acknowledged_is_lost_at_any_step_of_a_launch() {
    kill_at_each(is_a_launch);
}

#[test]
fn nothing_acknowledged_is_lost_at_any_step_of_a_volume() {
    kill_at_each(is_a_volume);
}

#[test]
fn nothing_acknowledged_is_lost_at_any_step_of_an_image() {
    kill_at_each(is_an_image);
}

#[test]
fn nothing_acknowledged_is_lost_at_any_other_step() {
    kill_at_each(|point| !is_a_launch(point) && !is_a_volume(point) && !is_an_image(point));
}

#[test]
fn a_full_walk_without_faults_works() {
    let Some(daemon) = daemon_with(Options::default()) else {
        return;
    };
    let registry = registry();
    let walk = Walk {
        client: daemon.client(),
        registry: &registry.address,
    };
    let mut told = Acknowledged::default();
    walk.walk(&mut told)
        .unwrap_or_else(|| panic!("{told:?}\n{}", daemon.log()));
    assert_eq!(told.exited, Some(4));
}

/// A daemon whose first shim dies at `point`, and which has that shim parked.
fn with_armed_shim(point: &str) -> Option<TestDaemon> {
    let armed = Options {
        environment: vec![(sys::fault::SHIM_VARIABLE.into(), point.into())],
        ..Options::default()
    };
    let daemon = daemon_with(armed)?;
    let parked = |name: &String| name.starts_with("pool-");
    wait_until("a shim to be parked", SETTLED_WITHIN, || {
        runtime::cgroup::list(&daemon.cgroup_parent())
            .iter()
            .any(parked)
            .then_some(())
    });
    Some(daemon)
}

/// The state of a container that was told dead within the bound.
fn death(client: &Client, id: &str) -> Value {
    let begin = Instant::now();
    let state = wait_until("the container to be told dead", SETTLED_WITHIN, || {
        let state = client
            .get(&format!("/containers/{id}/json"))
            .expect(200)
            .json()["State"]
            .clone();
        (state["Running"] == false).then_some(state)
    });
    let took = begin.elapsed();
    assert!(took <= DEATH_TOLD_WITHIN, "told after {took:?}");
    state
}

#[test]
fn a_parked_shim_that_dies_with_the_init_made_is_replaced_by_another() {
    let Some(daemon) = with_armed_shim("shim.created") else {
        return;
    };
    let client = daemon.client();
    let id = daemon.run(&json!({
        "Image": "busybox", "Cmd": ["sleep", "600"],
        "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1"}]}},
    }));
    assert!(
        daemon.log().contains("a parked shim has died"),
        "{}",
        daemon.log()
    );
    let top = client
        .get(&format!("/containers/{id}/top"))
        .expect(200)
        .json();
    let processes = top["Processes"].as_array().map(Vec::len);
    assert_eq!(processes, Some(1), "the first shim's init is gone: {top}");
    client
        .post(&format!("/containers/{id}/kill"), &Value::Null)
        .expect(204);
    assert_eq!(death(&client, &id)["ExitCode"], 137);
}

#[test]
fn a_parked_shim_that_dies_idle_is_replaced_and_leaves_no_cgroup() {
    let Some(daemon) = daemon_with(Options::default()) else {
        return;
    };
    let parked = || {
        let mut names = runtime::cgroup::list(&daemon.cgroup_parent());
        names.retain(|name| name.starts_with("pool-"));
        names
    };
    let full = wait_until("the pool to be full", SETTLED_WITHIN, || {
        (parked().len() == POOL_SIZE).then(parked)
    });
    // Children of the daemon in the order in which they were started; the oldest is taken next.
    let mut pids: Vec<u32> = std::fs::read_dir(format!("/proc/{}/task", daemon.pid()))
        .expect("the daemon's threads")
        .flat_map(|thread| {
            let path = thread.expect("a thread").path().join("children");
            let listed = std::fs::read_to_string(path).unwrap_or_default();
            let pids: Vec<u32> = listed
                .split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect();
            pids
        })
        .collect();
    pids.sort_unstable();
    testkit::daemon::signal(pids[0], "KILL");
    daemon.run(&body(&["sleep", "600"]));
    assert!(
        daemon.log().contains("a parked shim has died"),
        "{}",
        daemon.log()
    );
    wait_until("the pool to be full again", SETTLED_WITHIN, || {
        let now = parked();
        let others = now.iter().filter(|name| !full.contains(name)).count();
        (now.len() == POOL_SIZE && others == 1).then_some(())
    });
}

#[test]
fn the_exit_of_a_container_whose_shim_died_after_recording_it_is_known() {
    let Some(daemon) = with_armed_shim("shim.exit.recorded") else {
        return;
    };
    let client = daemon.client();
    let id = daemon.run(&body(&["sh", "-c", "exit 5"]));
    assert_eq!(death(&client, &id)["ExitCode"], 5);
    assert!(
        daemon.log().contains("its shim is gone"),
        "{}",
        daemon.log()
    );
    client.delete(&format!("/containers/{id}")).expect(204);
}

#[test]
fn a_shim_that_dies_at_the_end_of_an_exec_takes_its_container_and_the_code_is_known() {
    let Some(daemon) = with_armed_shim("shim.exit.recorded") else {
        return;
    };
    let client = daemon.client();
    let id = daemon.run(&body(&["sleep", "600"]));
    let exec = client.post(
        &format!("/containers/{id}/exec"),
        &json!({"Cmd": ["sh", "-c", "exit 7"]}),
    );
    let exec = exec.expect(201).json()["Id"]
        .as_str()
        .expect("an exec id")
        .to_owned();
    client
        .post(&format!("/exec/{exec}/start"), &json!({"Detach": true}))
        .expect(200);
    assert_eq!(death(&client, &id)["ExitCode"], 137);
    assert!(
        daemon.log().contains("its shim is gone"),
        "{}",
        daemon.log()
    );
    let inspected = client.get(&format!("/exec/{exec}/json")).expect(200).json();
    assert_eq!(
        (&inspected["Running"], &inspected["ExitCode"]),
        (&json!(false), &json!(7))
    );
    client
        .post(&format!("/containers/{id}/start"), &Value::Null)
        .expect(204);
}

#[test]
fn every_point_of_the_shim_has_a_test_here() {
    let points = points();
    let of_the_shim: Vec<&str> = points
        .iter()
        .map(String::as_str)
        .filter(|point| point.starts_with(SHIM))
        .collect();
    assert_eq!(of_the_shim, ["shim.created", "shim.exit.recorded"]);
}
