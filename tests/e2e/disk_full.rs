//! A data root without room: every request that writes is refused with Docker's error, nothing that was
//! acknowledged is lost, nothing is half there, and all works again once there is room.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::archive::{self, Entry};
use testkit::client::frames;
use testkit::{Client, Options, Response, TestDaemon, wait_until};

use crate::lifecycle::body;
use crate::pull::Registry;

/// Room for a busybox, a pulled image and the database, and little more.
const SIZE_KB: u64 = 24 << 10;

/// A page of the file system: the smallest step in which it fills.
const PAGE_BYTES: usize = 4 << 10;

/// How much is left free, in pages, so that each time another write is the first that fails.
const FREE_PAGES: [usize; 12] = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 48, 160];

/// What the kernel and SQLite say.
const FULL: [&str; 2] = ["no space left on device", "database or disk is full"];

/// What goes on beside the answers is over by then.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// A small file system of the test's own.
pub(crate) struct Disk {
    directory: TempDir,
}

impl Disk {
    pub(crate) fn mount(size_kb: u64) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("small-disk-")
            .tempdir()
            .expect("a directory");
        let at = directory.path().to_string_lossy().into_owned();
        command(
            "/usr/bin/mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size_kb}k,mode=0755"),
                "small",
                &at,
            ],
        );
        Self { directory }
    }

    pub(crate) fn data_root(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn ballast(&self) -> PathBuf {
        self.directory.path().join("ballast")
    }

    /// Leaves this much free.
    fn fill(&self, free_pages: usize) {
        let mut file = File::create(self.ballast()).expect("a file");
        let page = vec![0x55; PAGE_BYTES];
        while file.write_all(&page).is_ok() {}
        let length = file.metadata().expect("its size").len();
        let free = u64::try_from(free_pages * PAGE_BYTES).expect("a size");
        file.set_len(length.saturating_sub(free))
            .expect("make it shorter");
    }

    fn free(&self) {
        drop(std::fs::remove_file(self.ballast()));
    }

    pub(crate) fn remount(&self, how: &str) {
        let at = self.directory.path().to_string_lossy().into_owned();
        command("/usr/bin/mount", &["-o", &format!("remount,{how}"), &at]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let at = self.directory.path().to_string_lossy().into_owned();
        drop(
            sys::command::Command::new("/usr/bin/umount")
                .arg("--lazy")
                .arg(at)
                .output(),
        );
    }
}

fn command(program: &str, arguments: &[&str]) {
    let mut command = sys::command::Command::new(program);
    for argument in arguments {
        command = command.arg(argument);
    }
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {told}");
}

pub(crate) fn on(disk: &Disk) -> Options {
    Options {
        data_root: Some(disk.data_root()),
        ..Options::default()
    }
}

/// The error of an answer in Docker's shape, or nothing when it is `success`.
fn refused(what: &str, answer: &Response, success: u16) -> Option<String> {
    if answer.status == success {
        return None;
    }
    let message = answer.json()["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let full = FULL
        .iter()
        .any(|words| message.to_lowercase().contains(words));
    assert!(full, "{what}: {} {}", answer.status, answer.text());
    assert_eq!(answer.status, 500, "{what}: {message}");
    Some(message)
}

/// The error at the end of a stream of progress, or nothing when there is none.
fn broken_off(what: &str, answer: &Response) -> Option<String> {
    if answer.status != 200 {
        return refused(what, answer, 200);
    }
    let message = answer
        .json_lines()
        .find_map(|line| Some(line["error"].as_str()?.to_owned()))?;
    let full = FULL
        .iter()
        .any(|words| message.to_lowercase().contains(words));
    assert!(full, "{what}: {message}");
    Some(message)
}

fn load(client: &Client, name: &str, bytes: usize) -> Response {
    let layer = archive::layer(&[Entry::file("x", 0o644, vec![7; bytes])]);
    let tar = archive::docker_archive(&format!("{name}:latest"), &[layer], &json!({}));
    client.request(
        "POST",
        "/images/load?quiet=1",
        &[("content-type", "application/x-tar")],
        tar,
    )
}

/// What a client sees: names of containers, volumes and images.
fn seen(client: &Client) -> [Vec<String>; 3] {
    let containers = client.get("/containers/json?all=1").expect(200).json();
    let volumes = client.get("/volumes").expect(200).json();
    let images = client.get("/images/json").expect(200).json();
    let names = |list: &Value, name: fn(&Value) -> Value| {
        let mut names: Vec<String> = list
            .as_array()
            .into_iter()
            .flatten()
            .map(|entry| name(entry).to_string())
            .collect();
        names.sort();
        names
    };
    [
        names(&containers, |container| container["Names"].clone()),
        names(&volumes["Volumes"], |volume| volume["Name"].clone()),
        names(&images, |image| image["RepoTags"].clone()),
    ]
}

/// The names in a directory.
fn listed(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

/// One request that writes, and its undoing.
struct Deed {
    what: &'static str,
    request: fn(&Scene) -> Option<String>,
    undo: fn(&Scene),
    /// Removes what stays of a refused one on purpose.
    undo_refused: fn(&Scene),
}

/// What the deeds work on.
struct Scene {
    client: Client,
    idle: String,
    busy: String,
    registry: String,
}

const DEEDS: [Deed; 7] = [
    Deed {
        what: "volume create",
        request: |scene| {
            let answer = scene
                .client
                .post("/volumes/create", &json!({"Name": "new"}));
            refused("volume create", &answer, 201)
        },
        undo: |scene| {
            scene.client.delete("/volumes/new").expect(204);
        },
        undo_refused: |_| {},
    },
    Deed {
        what: "create",
        request: |scene| {
            let answer = scene
                .client
                .post("/containers/create?name=new", &body(&["true"]));
            refused("create", &answer, 201)
        },
        undo: |scene| {
            scene.client.delete("/containers/new").expect(204);
        },
        undo_refused: |_| {},
    },
    Deed {
        what: "create with a volume to fill",
        request: |scene| {
            let mut request = body(&["true"]);
            request["HostConfig"]["Binds"] = json!(["filled:/etc"]);
            let answer = scene.client.post("/containers/create?name=new", &request);
            refused("create with a volume", &answer, 201)
        },
        undo: |scene| {
            scene.client.delete("/containers/new").expect(204);
            scene.client.delete("/volumes/filled").expect(204);
        },
        undo_refused: |scene| {
            // As in dockerd, a volume with a name stays, and here as empty as the next container must find it.
            wait_until("the undo of the create to end", SETTLED_WITHIN, || {
                let removed = scene.client.delete("/volumes/filled").status;
                assert!([204, 404, 409].contains(&removed), "{removed}");
                (removed != 409).then_some(())
            });
        },
    },
    Deed {
        what: "start",
        request: |scene| {
            let path = format!("/containers/{}/start", scene.idle);
            refused("start", &scene.client.post(&path, &Value::Null), 204)
        },
        undo: |scene| {
            let path = format!("/containers/{}/stop?t=0", scene.idle);
            scene.client.post(&path, &Value::Null).expect(204);
        },
        undo_refused: |_| {},
    },
    Deed {
        what: "exec",
        request: |scene| {
            let path = format!("/containers/{}/exec", scene.busy);
            let made = scene.client.post(&path, &json!({"Cmd": ["true"]}));
            refused("exec create", &made, 201).or_else(|| {
                let id = made.json()["Id"].as_str().expect("an id").to_owned();
                let path = format!("/exec/{id}/start");
                refused(
                    "exec start",
                    &scene.client.post(&path, &json!({"Detach": true})),
                    200,
                )
            })
        },
        undo: |_| {},
        undo_refused: |_| {},
    },
    Deed {
        what: "load",
        request: |scene| broken_off("load", &load(&scene.client, "new", 300_000)),
        undo: |scene| {
            scene.client.delete("/images/new").expect(200);
        },
        undo_refused: |_| {},
    },
    Deed {
        what: "pull",
        request: |scene| {
            let path = format!("/images/create?fromImage={}/small&tag=one", scene.registry);
            broken_off("pull", &scene.client.post(&path, &Value::Null))
        },
        undo: |scene| {
            let path = format!("/images/{}/small:one", scene.registry);
            scene.client.delete(&path).expect(200);
        },
        undo_refused: |_| {},
    },
];

fn registry() -> Registry {
    let registry = Registry::start();
    let layer = archive::layer(&[Entry::file("y", 0o644, vec![9; 200_000])]);
    registry.push_archive(
        &archive::docker_archive("small:one", &[layer], &json!({})),
        "small:one",
    );
    registry
}

/// Does it with ever more room until it succeeds; each time there must be a clear refusal and no trace.
fn squeeze(deed: &Deed, disk: &Disk, daemon: &mut TestDaemon, scene: &Scene) {
    let before = seen(&scene.client);
    let mut refusals = 0;
    for free_pages in FREE_PAGES {
        disk.fill(free_pages);
        let outcome = (deed.request)(scene);
        assert!(!daemon.has_ended(), "{}: {}", deed.what, daemon.log());
        disk.free();
        println!("{} with {free_pages} pages: {outcome:?}", deed.what);
        if outcome.is_none() {
            (deed.undo)(scene);
        } else {
            (deed.undo_refused)(scene);
            refusals += 1;
        }
        let left = wait_for(&before, &scene.client);
        assert_eq!(
            left, before,
            "{} with {free_pages} pages: {outcome:?}",
            deed.what
        );
        check_directories(daemon, &scene.client);
    }
    println!("{}: refused {refusals} times", deed.what);
    // With room it works.
    assert_eq!((deed.request)(scene), None, "{}", deed.what);
    (deed.undo)(scene);
}

/// What is seen, after a moment for what goes on beside the answers.
fn wait_for(before: &[Vec<String>; 3], client: &Client) -> [Vec<String>; 3] {
    let mut last = seen(client);
    let deadline = std::time::Instant::now() + SETTLED_WITHIN;
    while last != *before && std::time::Instant::now() < deadline {
        last = seen(client);
    }
    last
}

/// On the disk is what is listed, and nothing else.
fn check_directories(daemon: &TestDaemon, client: &Client) {
    let containers = client.get("/containers/json?all=1").expect(200).json();
    let mut ids: Vec<String> = containers
        .as_array()
        .into_iter()
        .flatten()
        .map(|container| container["Id"].as_str().expect("an id").to_owned())
        .collect();
    ids.sort();
    wait_until(
        "directories of containers to be those of the list",
        SETTLED_WITHIN,
        || {
            let mut there = listed(&daemon.data_root().join("containers"));
            there.sort();
            (there == ids).then_some(())
        },
    );
}

#[test]
fn every_request_that_writes_is_refused_clearly_on_a_full_disk_and_leaves_no_trace() {
    if !testkit::is_root() {
        return;
    }
    let registry = registry();
    let disk = Disk::mount(SIZE_KB);
    let mut daemon = TestDaemon::start_with(env!("CARGO_BIN_EXE_cooper"), on(&disk));
    daemon.load_busybox();
    let scene = Scene {
        client: daemon.client(),
        idle: daemon.create(&body(&["sleep", "600"])),
        busy: daemon.run(&body(&["sleep", "600"])),
        registry: registry.address.clone(),
    };
    for deed in &DEEDS {
        squeeze(deed, &disk, &mut daemon, &scene);
    }
    // All that was told is still there after kill -9 on the full disk.
    let before = seen(&scene.client);
    disk.fill(0);
    daemon.kill();
    disk.free();
    daemon.start_again();
    assert_eq!(seen(&scene.client), before);
    let state = scene
        .client
        .get(&format!("/containers/{}/json", scene.busy))
        .expect(200)
        .json();
    assert_eq!(state["State"]["Running"], true);
}

#[test]
fn a_full_disk_neither_holds_up_a_container_that_logs_nor_hides_its_end() {
    if !testkit::is_root() {
        return;
    }
    let disk = Disk::mount(SIZE_KB);
    let mut daemon = TestDaemon::start_with(env!("CARGO_BIN_EXE_cooper"), on(&disk));
    daemon.load_busybox();
    let client = daemon.client();
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo done > /dev/null; exit 6";
    let writer = daemon.create(&body(&["sh", "-c", script]));
    let stopped = daemon.run(&body(&["sleep", "600"]));
    let removed = daemon.create(&body(&["true"]));
    client
        .post(&format!("/containers/{writer}/start"), &Value::Null)
        .expect(204);
    disk.fill(0);
    let waited = client
        .post(&format!("/containers/{writer}/wait"), &Value::Null)
        .expect(200)
        .json();
    assert_eq!(waited["StatusCode"], 6);
    client
        .post(&format!("/containers/{stopped}/stop?t=0"), &Value::Null)
        .expect(204);
    // Making room must work without room.
    client.delete(&format!("/containers/{removed}")).expect(204);
    client.delete(&format!("/containers/{stopped}")).expect(204);
    assert!(!daemon.has_ended(), "{}", daemon.log());
    disk.free();
    daemon.kill();
    daemon.start_again();
    let state = client
        .get(&format!("/containers/{writer}/json"))
        .expect(200)
        .json()["State"]
        .clone();
    assert_eq!(
        (&state["Status"], &state["ExitCode"]),
        (&json!("exited"), &json!(6))
    );
    let all = client.get("/containers/json?all=1").expect(200).json();
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    let logs = client
        .get(&format!("/containers/{writer}/logs?stdout=1"))
        .expect(200);
    let (lines, _) = frames(&logs.body);
    assert!(
        lines.starts_with("line 0\nline 1\n"),
        "{}",
        &lines[..lines.len().min(80)]
    );
    let whole = lines.lines().all(|line| {
        line.strip_prefix("line ")
            .is_some_and(|n| n.parse::<u32>().is_ok())
    });
    assert!(whole, "no torn line");
}

/// Runs a daemon that cannot start and answers what it says.
pub(crate) fn refused_start(options: Options) -> String {
    let mut daemon = TestDaemon::launch_with(env!("CARGO_BIN_EXE_cooper"), options);
    let status = daemon.wait();
    assert!(!status.success(), "{}", daemon.log());
    let log = daemon.log();
    daemon.abandon();
    log
}

#[test]
fn a_data_root_that_cannot_be_used_is_named_with_the_reason() {
    if !testkit::is_root() {
        return;
    }
    let disk = Disk::mount(SIZE_KB);
    let root = disk.data_root().display().to_string();
    // As new: nothing can be made.
    disk.fill(0);
    let log = refused_start(on(&disk));
    let full = ["No space left on device", "database or disk is full"];
    let full = full.iter().any(|words| log.contains(words));
    assert!(log.contains(&root) && full, "{log}");
    disk.free();
    let mut daemon = TestDaemon::start_with(env!("CARGO_BIN_EXE_cooper"), on(&disk));
    daemon.load_busybox();
    let id = daemon.create(&body(&["true"]));
    daemon.stop();
    disk.remount("ro");
    let log = refused_start(on(&disk));
    assert!(
        log.contains(&root) && log.contains("Read-only file system"),
        "{log}"
    );
    disk.remount("rw");
    // One that has been used and is full is either refused as clearly, or serves with the room that it has kept for
    // itself: more can be made then.
    disk.fill(0);
    daemon.launch();
    let client = daemon.client();
    let path = format!("/containers/{id}");
    if daemon.ready_or_ended() {
        client.get(&format!("{path}/json")).expect(200);
        client.delete(&path).expect(204);
    } else {
        let log = daemon.log();
        assert!(log.contains("database or disk is full"), "{log}");
        disk.free();
        daemon.start_again();
        client.delete(&path).expect(204);
    }
    disk.free();
    let elsewhere = Options {
        data_root: Some("/proc/self/nothing/here".into()),
        ..Options::default()
    };
    let log = refused_start(elsewhere);
    assert!(log.contains("/proc/self/nothing/here"), "{log}");
}
