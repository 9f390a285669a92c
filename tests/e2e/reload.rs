//! SIGHUP and SIGUSR1: what a running daemon takes from its file again, and what it tells of itself.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::daemon::signal;
use testkit::{Options, TestDaemon, wait_until};

/// A signal is obeyed by then.
const OBEYED_WITHIN: Duration = Duration::from_secs(10);

/// A daemon whose file lies beside it, with this content.
fn configured(file: &std::path::Path, content: &Value) -> Option<TestDaemon> {
    if !testkit::is_root() {
        return None;
    }
    std::fs::write(file, content.to_string()).expect("write the daemon's file");
    let options = Options {
        arguments: vec![format!("--config-file={}", file.display())],
        ..Options::default()
    };
    Some(TestDaemon::start_with(
        env!("CARGO_BIN_EXE_cooper"),
        options,
    ))
}

fn info(daemon: &TestDaemon) -> Value {
    daemon.client().get("/info").expect(200).json()
}

#[test]
fn sighup_takes_mirrors_insecure_registries_labels_and_debug_from_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("daemon.json");
    let Some(daemon) = configured(&file, &json!({"registry-mirrors": ["http://127.0.0.1:1"]}))
    else {
        return;
    };
    let before = info(&daemon);
    assert_eq!(
        before["RegistryConfig"]["Mirrors"],
        json!(["http://127.0.0.1:1/"])
    );
    assert_eq!(before["Debug"], false);
    let changed = json!({
        "registry-mirrors": ["http://127.0.0.1:2"], "insecure-registries": ["10.1.0.0/16", "r.test:5000"],
        "debug": true, "labels": ["a=b"],
    });
    std::fs::write(&file, changed.to_string()).expect("write the daemon's file");
    signal(daemon.pid(), "HUP");
    let after = wait_until("the file to be read again", OBEYED_WITHIN, || {
        let after = info(&daemon);
        (after["Debug"] == true).then_some(after)
    });
    let registries = &after["RegistryConfig"];
    assert_eq!(registries["Mirrors"], json!(["http://127.0.0.1:2/"]));
    let cidrs = registries["InsecureRegistryCIDRs"].to_string();
    assert!(cidrs.contains("10.1.0.0/16"), "{cidrs}");
    assert!(
        registries["IndexConfigs"]["r.test:5000"].is_object(),
        "{registries}"
    );
    assert_eq!(after["Labels"], json!(["a=b"]));
    // A file that cannot be used changes nothing, and the log says why.
    std::fs::write(&file, r#"{"registry-mirrors":["nonsense"]}"#).expect("write the daemon's file");
    signal(daemon.pid(), "HUP");
    wait_until("the refusal in the log", OBEYED_WITHIN, || {
        let words = "no scheme specified for \"nonsense\"";
        daemon.log().contains(words).then_some(())
    });
    assert_eq!(
        info(&daemon)["RegistryConfig"]["Mirrors"],
        json!(["http://127.0.0.1:2/"])
    );
}

#[test]
fn sighup_is_an_event_of_the_daemon() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("daemon.json");
    let Some(daemon) = configured(&file, &json!({"labels": ["a=b"]})) else {
        return;
    };
    signal(daemon.pid(), "HUP");
    let event = wait_until("the event", OBEYED_WITHIN, || {
        let now = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs() + 1;
        let path =
            format!("/events?since=1&until={now}&filters=%7B%22type%22%3A%5B%22daemon%22%5D%7D");
        daemon.client().get(&path).expect(200).json_lines().next()
    });
    assert_eq!(event["Action"], "reload");
    assert_eq!(event["Actor"]["ID"], info(&daemon)["ID"]);
    assert_eq!(event["Actor"]["Attributes"]["labels"], r#"["a=b"]"#);
    assert_eq!(event["Actor"]["Attributes"]["registry-mirrors"], "[]");
}

#[test]
fn sigusr1_writes_a_report_and_the_daemon_goes_on() {
    let Some(daemon) = crate::daemon() else {
        return;
    };
    let id = daemon.run(&crate::lifecycle::body(&["sleep", "600"]));
    signal(daemon.pid(), "USR1");
    let report = wait_until("the report", OBEYED_WITHIN, || {
        let entries = std::fs::read_dir(daemon.exec_root()).expect("the exec root");
        let mut names = entries.flatten().map(|entry| entry.path());
        let path = names.find(|path| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            name.starts_with("daemon-report-")
        })?;
        std::fs::read_to_string(path).ok()
    });
    assert!(report.contains(&format!("container {id}")), "{report}");
    assert!(
        report.contains("runtime: ") && report.contains("thread "),
        "{report}"
    );
    wait_until("the log to say where it is", OBEYED_WITHIN, || {
        let told = daemon.log().contains("a report was written to");
        told.then_some(())
    });
    daemon.client().get("/_ping").expect(200);
}
