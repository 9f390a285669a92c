//! Values that only show when the container starts or is measured: log options, sizes.

use serde_json::{Value, json};
use testkit::Client;

use super::{Both, body, encoded, plain};

#[test]
fn log_drivers_and_their_options() {
    let Some(both) = Both::start("logs") else {
        return;
    };
    let created = |client: &Client, settings: &Value| {
        let mut wanted = body();
        wanted["Cmd"] = json!(["true"]);
        wanted["HostConfig"]["LogConfig"] = settings.clone();
        let made = client.post("/containers/create", &wanted);
        if made.status != 201 {
            return (made.status, plain(&made.text()));
        }
        let id = made.json()["Id"].as_str().expect("an id").to_owned();
        let started = client.post(&format!("/containers/{id}/start"), &Value::Null);
        let logs = client.get(&format!("/containers/{id}/logs?stdout=1"));
        client
            .delete(&format!("/containers/{id}?force=1"))
            .expect(204);
        let told = format!(
            "{}{}",
            started.text(),
            if logs.status == 200 {
                String::new()
            } else {
                logs.text()
            }
        );
        (started.status, plain(&told))
    };
    let json_file = |options: Value| json!({"Type": "json-file", "Config": options});
    let mut settings: Vec<Value> = ["abc", "0", "", "10x", "10m", "10MiB", "1.5m"]
        .iter()
        .map(|size| json_file(json!({"max-size": size})))
        .collect();
    settings.extend(
        ["0", "-1", "abc", "3", ""]
            .iter()
            .map(|files| json_file(json!({"max-file": files}))),
    );
    settings.extend([
        json_file(json!({"compress": "true"})),
        json_file(json!({"compress": "maybe"})),
        json_file(json!({"compress": "true", "max-size": "1m", "max-file": "2"})),
        json_file(json!({"tag": "{{.ID}}/{{.Name}}"})),
        json_file(json!({"tag": "{{.Nope}}"})),
        json_file(json!({"tag": "{{"})),
        json_file(json!({"labels": "a,b", "env": "A"})),
        json_file(json!({"nope": "x"})),
        json_file(json!({"mode": "x"})),
        json_file(json!({"mode": "non-blocking", "max-buffer-size": "abc"})),
        json_file(json!({"max-buffer-size": "1m"})),
        json!({"Type": "local", "Config": {"max-size": "abc"}}),
        json!({"Type": "local", "Config": {"tag": "x"}}),
        json!({"Type": "none"}),
        json!({"Type": "nope"}),
    ]);
    let found: Vec<String> = settings
        .iter()
        .filter_map(|settings| {
            let (ours, theirs) = (
                created(&both.daemon.client(), settings),
                created(&both.dockerd, settings),
            );
            (ours != theirs)
                .then(|| format!("{settings}\n  dockerd: {theirs:?}\n  cooper:  {ours:?}"))
        })
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn sizes_are_told_when_asked_for() {
    let Some(both) = Both::start("size") else {
        return;
    };
    let run = &both.names[0];
    let exec = json!({"AttachStdout": true, "Cmd": ["sh", "-c", "head -c 100000 /dev/zero > /root/a; ln /root/a /root/b; mkdir /root/c"]});
    let sizes = |client: &Client| {
        let made = client
            .post(&format!("/containers/{run}/exec"), &exec)
            .expect(201)
            .json();
        let id = made["Id"].as_str().expect("an id").to_owned();
        client
            .post(&format!("/exec/{id}/start"), &json!({"Detach": false}))
            .expect(200);
        let inspected = client
            .get(&format!("/containers/{run}/json?size=1"))
            .expect(200)
            .json();
        let plain = client
            .get(&format!("/containers/{run}/json"))
            .expect(200)
            .json();
        let filter = encoded(&format!("{{\"name\":[\"{run}\"]}}"));
        let listed = client
            .get(&format!("/containers/json?size=1&filters={filter}"))
            .expect(200)
            .json();
        json!([
            inspected["SizeRw"],
            inspected["SizeRootFs"],
            plain.get("SizeRw"),
            listed[0]["SizeRw"],
            listed[0]["SizeRootFs"],
        ])
    };
    let ours = sizes(&both.daemon.client());
    assert_eq!(ours[0], 100_000);
    assert_eq!(ours, sizes(&both.dockerd));
}
