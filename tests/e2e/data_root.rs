//! A data root that cannot be one, and one that goes away while the daemon runs: a disk that was unmounted.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Client, Options, TestDaemon};

use crate::disk_full::{Disk, on, refused_start};
use crate::lifecycle::body;

/// Whatever is asked of a daemon without its data root is answered by then.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// Of a file system on which nothing is written.
const SIZE_KB: u64 = 64;

#[test]
fn a_data_root_that_is_no_directory_is_refused_and_a_missing_one_is_made() {
    if !testkit::is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "").expect("a file");
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("/nowhere/at/all", &link).expect("a link");
    for (data_root, reason) in [
        (file.clone(), "not a directory"),
        (file.join("below"), "not a directory"),
        (link, "not a directory"),
    ] {
        let shown = data_root.display().to_string();
        let log = refused_start(Options {
            data_root: Some(data_root),
            ..Options::default()
        });
        let hint = "; --data-root wants a directory that can be written to";
        let told = format!("make {shown}: {reason}{hint}");
        assert!(log.contains(&told), "{told}\n{log}");
    }
    let disk = Disk::mount(SIZE_KB);
    disk.remount("ro");
    let log = refused_start(on(&disk));
    let told = format!("make {}: Read-only file system", disk.data_root().display());
    assert!(
        log.contains(&told) && log.contains("--data-root wants"),
        "{log}"
    );
    let missing = directory.path().join("not/yet/there");
    let options = Options {
        data_root: Some(missing.clone()),
        ..Options::default()
    };
    let daemon = TestDaemon::start_with(env!("CARGO_BIN_EXE_cooper"), options);
    assert!(missing.join("cooper.db").exists());
    drop(daemon);
}

/// One request, answered in time: its status, and what it says when it fails.
fn ask(client: &Client, method: &str, path: &str, body: &Value) -> (u16, String) {
    let begin = Instant::now();
    let headers = [("content-type", "application/json")];
    let body = match body {
        Value::Null => Vec::new(),
        body => body.to_string().into_bytes(),
    };
    let answer = client.request(method, path, &headers, body);
    assert!(begin.elapsed() < ANSWERED_WITHIN, "{method} {path}");
    let told = match answer.status {
        ..400 => answer.text(),
        _ => answer.json()["message"]
            .as_str()
            .expect("a message")
            .to_owned(),
    };
    (answer.status, told)
}

/// What a container that runs and one that ends are asked without any file.
fn needs_no_file(client: &Client, runs: &str, ends: &str) {
    let exec = json!({"Cmd": ["true"], "AttachStdout": true});
    for (method, path, body, expected) in [
        ("GET", "/containers/json?all=1".to_owned(), Value::Null, 200),
        ("GET", format!("/containers/{runs}/json"), Value::Null, 200),
        ("GET", "/info".to_owned(), Value::Null, 200),
        ("POST", format!("/containers/{runs}/exec"), exec, 201),
        (
            "POST",
            format!("/containers/{runs}/pause"),
            Value::Null,
            204,
        ),
        (
            "POST",
            format!("/containers/{runs}/unpause"),
            Value::Null,
            204,
        ),
        ("POST", format!("/containers/{ends}/kill"), Value::Null, 204),
        ("POST", format!("/containers/{ends}/wait"), Value::Null, 200),
    ] {
        let (status, told) = ask(client, method, &path, &body);
        assert_eq!(status, expected, "{method} {path}: {told}");
    }
}

/// What is refused, what is asked without any file, and what is asked again when the data root is back.
#[test]
fn a_data_root_that_goes_away_is_named_and_taken_up_again_when_it_is_back() {
    let Some(daemon) = crate::daemon() else {
        return;
    };
    let client = daemon.client();
    let runs = daemon.run(&body(&["sh", "-c", "echo said; sleep 600"]));
    let ends = daemon.run(&body(&["sleep", "600"]));
    let gone = daemon.run(&body(&["sleep", "600"]));
    let made = daemon.create(&body(&["true"]));
    let elsewhere = daemon.data_root().with_extension("away");
    std::fs::rename(daemon.data_root(), &elsewhere).expect("move the data root");

    let hint = format!(
        "; the data root {} is not there: put it back and try again",
        daemon.data_root().display()
    );
    let start = |id: &str| format!("/containers/{id}/start");
    let refused = [
        ("POST", "/containers/create".to_owned(), body(&["true"])),
        ("POST", start(&made), Value::Null),
        (
            "POST",
            format!("/containers/{made}/rename?name=other"),
            Value::Null,
        ),
        (
            "POST",
            "/volumes/create".to_owned(),
            json!({"Name": "data"}),
        ),
        ("DELETE", format!("/containers/{made}"), Value::Null),
        ("DELETE", format!("/containers/{gone}?force=1"), Value::Null),
    ];
    for (method, path, body) in &refused {
        let (status, told) = ask(&client, method, path, body);
        assert!(
            status == 500 && told.ends_with(&hint),
            "{method} {path}: {status} {told}"
        );
    }
    // As of every log that cannot be read: told in the stream.
    let logs = format!("/containers/{runs}/logs?stdout=1");
    let (_, told) = ask(&client, "GET", &logs, &Value::Null);
    assert!(told.contains("Error grabbing logs: No such file"), "{told}");
    needs_no_file(&client, &runs, &ends);

    std::fs::rename(&elsewhere, daemon.data_root()).expect("move the data root back");
    for (method, path, expected) in [
        ("GET", logs, 200),
        ("POST", start(&ends), 204),
        ("DELETE", format!("/containers/{made}"), 204),
        ("DELETE", format!("/containers/{gone}?force=1"), 204),
    ] {
        let (status, told) = ask(&client, method, &path, &Value::Null);
        assert_eq!(status, expected, "{method} {path}: {told}");
    }
    let listed = std::fs::read_dir(daemon.data_root().join("containers")).expect("containers");
    let names = listed
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    assert_eq!(names.collect::<BTreeSet<_>>(), BTreeSet::from([runs, ends]));
    let volumes = client.get("/volumes").expect(200).json();
    assert_eq!(
        volumes["Volumes"],
        json!([]),
        "of a create that was refused"
    );
}
