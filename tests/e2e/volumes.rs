//! Volumes, binds and tmpfs: what containers write stays where it should, and goes when it should.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::TestDaemon;
use testkit::archive::{Entry, busybox, config, docker_archive, layer};

use crate::daemon;
use testkit::client::frames;

/// How long something inside a container may take.
const SOON: Duration = Duration::from_secs(20);

fn body(image: &str, script: &str, host: &Value) -> Value {
    let mut host = host.clone();
    host["NetworkMode"] = json!("none");
    json!({"Image": image, "Cmd": ["sh", "-c", script], "HostConfig": host})
}

/// Runs a script to its end and answers what it wrote; the container stays.
fn output_of(daemon: &TestDaemon, body: &Value) -> (String, String) {
    let client = daemon.client();
    let id = daemon.run(body);
    client
        .post(&format!("/containers/{id}/wait"), &Value::Null)
        .expect(200);
    let logs = client
        .get(&format!("/containers/{id}/logs?stdout=1&stderr=1"))
        .expect(200);
    let (out, err) = frames(&logs.body);
    (id, format!("{out}{err}"))
}

/// As [`output_of`], and removes the container with its anonymous volumes.
fn output(daemon: &TestDaemon, body: &Value) -> String {
    let (id, output) = output_of(daemon, body);
    daemon
        .client()
        .delete(&format!("/containers/{id}?v=1"))
        .expect(204);
    output
}

fn volume_names(daemon: &TestDaemon) -> Vec<String> {
    let volumes = daemon.client().get("/volumes").expect(200).json();
    let volumes = volumes["Volumes"].as_array().expect("a list").clone();
    let name = |volume: Value| volume["Name"].as_str().expect("a name").to_owned();
    volumes.into_iter().map(name).collect()
}

/// An image with something at /data and /ro, and `VOLUME /data`.
fn load_seeded(daemon: &TestDaemon) {
    let mut files = busybox();
    files.push(Entry::directory("data", 0o2770));
    files.push(Entry::file("data/seed", 0o640, "seed"));
    files.push(Entry::symlink("data/link", "seed"));
    files.push(Entry::symlink("evil", "../../../../data"));
    let mut config = config(&["sh"]);
    config["Volumes"] = json!({"/data": {}});
    daemon.load(docker_archive("seeded:latest", &[layer(&files)], &config));
}

#[test]
fn what_a_container_wrote_to_a_volume_outlives_it_and_a_killed_daemon() {
    let Some(mut daemon) = daemon() else { return };
    let binds = json!({"Binds": ["kept:/v"]});
    assert_eq!(
        output(&daemon, &body("busybox", "echo one > /v/file", &binds)),
        ""
    );
    let writer = daemon.run(&body("busybox", "echo two >> /v/file; sleep 600", &binds));
    let busy = daemon.client().delete("/volumes/kept").expect(409).json();
    let text = format!("remove kept: volume is in use - [{writer}]");
    assert_eq!(busy["message"], text);
    daemon.kill();
    daemon.start_again();
    let client = daemon.client();
    let running = client
        .get(&format!("/containers/{writer}/json"))
        .expect(200)
        .json();
    assert_eq!(running["State"]["Running"], true);
    assert_eq!(running["Mounts"][0]["Name"], "kept");
    client.delete("/volumes/kept").expect(409);
    client
        .delete(&format!("/containers/{writer}?force=1&v=1"))
        .expect(204);
    let read = body(
        "busybox",
        "cat /v/file; echo no > /v/file",
        &json!({"Binds": ["kept:/v:ro"]}),
    );
    let read = output(&daemon, &read);
    assert!(
        read.starts_with("one\ntwo\n") && read.contains("Read-only file system"),
        "{read}"
    );
    client.delete("/volumes/kept").expect(204);
    client.delete("/volumes/kept").expect(404);
    client.delete("/volumes/kept?force=1").expect(204);
    assert_eq!(volume_names(&daemon), Vec::<String>::new());
}

#[test]
fn an_empty_volume_gets_the_images_content_and_a_full_one_keeps_its_own() {
    let Some(daemon) = daemon() else { return };
    load_seeded(&daemon);
    let show = "cat /data/seed /data/link; stat -c '%a %u' /data /data/seed; readlink /data/link";
    let whole = "seedseed2770 0\n640 0\nseed\n";
    let anonymous = json!({});
    assert_eq!(output(&daemon, &body("seeded", show, &anonymous)), whole);
    assert_eq!(
        volume_names(&daemon),
        Vec::<String>::new(),
        "v=1 took the anonymous volume"
    );
    let named = json!({"Binds": ["filled:/data"]});
    assert_eq!(output(&daemon, &body("seeded", show, &named)), whole);
    let change = body("seeded", "rm /data/link; echo mine > /data/seed", &named);
    assert_eq!(output(&daemon, &change), "");
    assert_eq!(
        output(&daemon, &body("seeded", "ls /data; cat /data/seed", &named)),
        "seed\nmine\n"
    );
    let bare = json!({"Binds": ["bare:/data:nocopy"]});
    assert_eq!(output(&daemon, &body("seeded", "ls /data", &bare)), "");
    let evil = json!({"Binds": ["evil:/evil"]});
    assert_eq!(
        output(&daemon, &body("seeded", "ls /evil/", &evil)),
        "link\nseed\n"
    );
    for name in ["filled", "bare", "evil"] {
        daemon
            .client()
            .delete(&format!("/volumes/{name}"))
            .expect(204);
    }
}

#[test]
fn binds_tmpfs_and_volumes_of_other_containers() {
    let Some(daemon) = daemon() else { return };
    let made = daemon.directory().join("made/by/bind");
    let host = json!({
        "Binds": [format!("{}:/b", made.display()), "shared:/a/b", format!("{}:/a:ro", made.display())],
        "Tmpfs": {"/t": "size=1m,mode=700"},
        "Mounts": [{"Type": "tmpfs", "Target": "/m", "TmpfsOptions": {"SizeBytes": 65536}}],
        "ReadonlyRootfs": true,
    });
    let script = "echo x > /b/file; echo y > /a/b/inner; cat /a/file; echo z > /a/no; echo r > /root/no; \
                  echo t > /t/t && echo m > /m/m; grep -c -E ' /(t|m) tmpfs' /proc/mounts";
    // The place of the volume in the read-only bind must be there.
    std::fs::create_dir_all(made.join("b")).expect("make a directory");
    let (first, told) = output_of(&daemon, &body("busybox", script, &host));
    assert!(told.starts_with("x\n2\n"), "{told}");
    assert_eq!(told.matches("Read-only file system").count(), 2, "{told}");
    assert_eq!(
        std::fs::read_to_string(made.join("file")).expect("written through the bind"),
        "x\n"
    );

    let from = json!({"VolumesFrom": [format!("{first}:ro")]});
    let told = output(
        &daemon,
        &body("busybox", "cat /a/b/inner /b/file; echo no > /b/no", &from),
    );
    assert!(
        told.starts_with("y\nx\n") && told.contains("Read-only"),
        "{told}"
    );
    let client = daemon.client();
    client.delete(&format!("/containers/{first}")).expect(204);
    client.delete("/volumes/shared").expect(204);

    let lost = json!({"Mounts": [{"Type": "bind", "Source": "/no/such", "Target": "/x"}]});
    let refused = client
        .post("/containers/create", &body("busybox", "true", &lost))
        .expect(400);
    let text = "invalid mount config for type \"bind\": bind source path does not exist: /no/such";
    assert_eq!(refused.json()["message"], text);
}

#[test]
fn a_path_in_a_volume_cannot_be_led_out_of_it() {
    let Some(daemon) = daemon() else { return };
    let whole = json!({"Binds": ["deep:/v"]});
    let prepare = "mkdir /v/sub; echo in > /v/sub/f; ln -s ../../../../../../etc /v/out";
    assert_eq!(output(&daemon, &body("busybox", prepare, &whole)), "");
    let below = |path: &str| {
        json!({"Mounts": [{
            "Type": "volume", "Source": "deep", "Target": "/x", "VolumeOptions": {"Subpath": path},
        }]})
    };
    assert_eq!(
        output(&daemon, &body("busybox", "cat /x/f", &below("sub"))),
        "in\n"
    );
    let client = daemon.client();
    for path in ["out", "nope"] {
        let id = daemon.create(&body("busybox", "ls /x", &below(path)));
        let start = client
            .post(&format!("/containers/{id}/start"), &Value::Null)
            .expect(404);
        assert!(
            start.text().contains("cannot access path"),
            "{}",
            start.text()
        );
        client.delete(&format!("/containers/{id}")).expect(204);
    }
    client.delete("/volumes/deep").expect(204);
}

#[test]
fn volumes_with_mount_options() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let device = daemon.directory().join("device");
    std::fs::create_dir(&device).expect("make a directory");
    std::fs::write(device.join("there"), "host\n").expect("write a file");
    let options = json!({"type": "none", "o": "bind,ro", "device": device});
    let create = json!({"Name": "bound", "DriverOpts": options});
    client.post("/volumes/create", &create).expect(201);
    let told = output(
        &daemon,
        &body(
            "busybox",
            "cat /v/there; echo > /v/x",
            &json!({"Binds": ["bound:/v"]}),
        ),
    );
    assert!(
        told.starts_with("host\n") && told.contains("Read-only"),
        "{told}"
    );
    let options = json!({"type": "tmpfs", "o": "size=1m,uid=7", "device": "tmpfs"});
    let create = json!({"Name": "light", "DriverOpts": options});
    client.post("/volumes/create", &create).expect(201);
    let script = "grep ' /v ' /proc/mounts | cut -d' ' -f3; stat -c '%a %u' /v";
    let told = output(
        &daemon,
        &body("busybox", script, &json!({"Binds": ["light:/v"]})),
    );
    assert_eq!(told, "tmpfs\n1777 7\n");
    for name in ["bound", "light"] {
        client.delete(&format!("/volumes/{name}")).expect(204);
    }
    assert!(
        device.join("there").exists(),
        "a bound directory is not the volume's to remove"
    );
}

/// A tmpfs of the host that goes with the test.
struct Mount(std::path::PathBuf);

impl Mount {
    /// Mounts one at a place and gives it a propagation of mount(8).
    fn new(at: std::path::PathBuf, propagation: &str) -> Self {
        std::fs::create_dir_all(&at).expect("make a mount point");
        let mount = Self(at);
        host(&["mount", "-t", "tmpfs", "none", &mount.path()]);
        host(&["mount", propagation, &mount.path()]);
        mount
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        sys::mount::unmount_detached(&self.0).expect("a test's mount goes");
    }
}

fn host(words: &[&str]) {
    let mut command = sys::command::Command::new(words[0]);
    for word in &words[1..] {
        command = command.arg(word);
    }
    let output = command.output().expect("run a program");
    assert!(output.status.success(), "{words:?}: {output:?}");
}

/// The words are dockerd 28.5.2's.
#[test]
fn what_is_mounted_below_a_bind_is_heard_of_where_the_source_passes_it_on() {
    let Some(daemon) = daemon() else { return };
    let private = Mount::new(daemon.directory().join("private"), "--make-private");
    let shared = Mount::new(daemon.directory().join("shared"), "--make-shared");
    let client = daemon.client();
    for (propagation, kind) in [
        ("shared", "a shared mount"),
        ("rshared", "a shared mount"),
        ("slave", "a shared or slave mount"),
        ("rslave", "a shared or slave mount"),
    ] {
        let source = format!("{}/sub", private.path());
        std::fs::create_dir_all(&source).expect("make a source");
        for host in [
            json!({"Binds": [format!("{source}:/x:{propagation}")]}),
            json!({"Mounts": [{"Type": "bind", "Source": source, "Target": "/x",
                "BindOptions": {"Propagation": propagation}}]}),
        ] {
            let id = daemon.create(&body("busybox", "true", &host));
            let start = client.post(&format!("/containers/{id}/start"), &Value::Null);
            let words = format!(
                "path {source} is mounted on {} but it is not {kind}",
                private.path()
            );
            assert_eq!(start.expect(500).json()["message"], words);
            client.delete(&format!("/containers/{id}")).expect(204);
        }
    }
    // From the host into the container, and back only where both are peers.
    for (propagation, comes_back) in [("rslave", false), ("rshared", true)] {
        let inside = format!("{}/in", shared.path());
        let outside = format!("{}/out", shared.path());
        for path in [&inside, &outside] {
            std::fs::create_dir_all(path).expect("make a mount point");
        }
        let settings = json!({
            "Binds": [format!("{}:/x:{propagation}", shared.path())], "Privileged": true,
        });
        let script = "mount -t tmpfs none /x/out && touch /x/out/file /x/ready; \
                      until [ -e /x/in/file ]; do usleep 10000; done; grep -c ' /x/' /proc/mounts";
        let id = daemon.run(&body("busybox", script, &settings));
        let ready = shared.0.join("ready");
        testkit::wait_until("a mount in the container", SOON, || {
            ready.exists().then_some(())
        });
        assert_eq!(
            shared.0.join("out/file").exists(),
            comes_back,
            "{propagation}"
        );
        host(&["mount", "-t", "tmpfs", "none", &inside]);
        std::fs::write(shared.0.join("in/file"), "").expect("a file in the new mount");
        let waited = client.post(&format!("/containers/{id}/wait"), &Value::Null);
        assert_eq!(waited.expect(200).json()["StatusCode"], 0);
        let logs = client.get(&format!("/containers/{id}/logs?stdout=1&stderr=1"));
        let (out, err) = frames(&logs.expect(200).body);
        assert_eq!((out.as_str(), err.as_str()), ("2\n", ""), "{propagation}");
        client.delete(&format!("/containers/{id}")).expect(204);
        if comes_back {
            host(&["umount", &outside]);
        }
        host(&["umount", &inside]);
        std::fs::remove_file(ready).expect("the mark of readiness");
    }
}
