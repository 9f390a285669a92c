//! One request to Cooper and to dockerd 28.5.2, compared field by field.

use serde_json::{Value, json};
use testkit::differential::{Wanted, compare, delete, get, post};

use crate::daemon;

/// A container's body: the image that both engines have, no network.
fn body(command: &[&str]) -> Value {
    let mut body = crate::lifecycle::body(command);
    body["Image"] = json!(testkit::archive::SHARED_IMAGE);
    body
}

/// Decision 11 caps logs by default, which `inspect` shows where dockerd shows no option.
const LOGS: &str = "/HostConfig/LogConfig";

#[test]
fn a_container_looks_the_same_in_each_state() {
    let Some(daemon) = daemon() else { return };
    let Some(dockerd) = crate::reference(&daemon) else {
        return;
    };
    let create = format!(
        "/v1.51/containers/create?name=cooper-diff-{}",
        std::process::id()
    );
    let steps = [
        post(&create, body(&["sh", "-c", "exit 3"])).keep("id", "/Id"),
        get("/v1.51/containers/{id}/json"),
        post("/v1.51/containers/{id}/start", Value::Null),
        post("/v1.51/containers/{id}/wait", Value::Null),
        get("/v1.51/containers/{id}/json"),
        post("/v1.51/containers/{id}/stop", Value::Null),
        post("/v1.51/containers/{id}/kill", Value::Null),
        post("/v1.51/containers/{id}/pause", Value::Null),
        get("/v1.51/containers/{id}/top"),
        delete("/v1.51/containers/{id}"),
        get("/v1.51/containers/{id}/json"),
    ];
    let wanted = [
        Wanted {
            step: 1,
            place: LOGS,
            because: "decision 11",
        },
        Wanted {
            step: 4,
            place: LOGS,
            because: "decision 11",
        },
        Wanted {
            step: 1,
            place: "/GraphDriver",
            because: "section 2: our own on-disk layout",
        },
        Wanted {
            step: 4,
            place: "/GraphDriver",
            because: "section 2: our own on-disk layout",
        },
    ];
    compare(&daemon.client(), &dockerd, &steps, &wanted);
}

#[test]
fn bad_requests_are_refused_with_the_same_words() {
    let Some(daemon) = daemon() else { return };
    let Some(dockerd) = crate::reference(&daemon) else {
        return;
    };
    let create = "/v1.51/containers/create";
    let steps = [
        get("/v1.51/containers/nope/json"),
        post("/v1.51/containers/nope/start", Value::Null),
        delete("/v1.51/containers/nope"),
        post(create, json!({"Image": "no-such-image"})),
        post(create, json!({"Cmd": ["true"]})),
        post("/v1.51/containers/create?name=_", body(&["true"])),
        post(
            create,
            json!({"Image": testkit::archive::SHARED_IMAGE, "Cmd": 3}),
        ),
        post(
            create,
            json!({"Image": testkit::archive::SHARED_IMAGE, "HostConfig": {"Memory": 1000, "NetworkMode": "none"}}),
        ),
        post(
            create,
            json!({
                "Image": testkit::archive::SHARED_IMAGE,
                "HostConfig": {"AutoRemove": true, "RestartPolicy": {"Name": "always"}, "NetworkMode": "none"},
            }),
        ),
        get("/v1.51/nope"),
        get("/v1.99/containers/json"),
        get("/v1.51/containers/json?filters=nonsense"),
        get("/v1.51/containers/json?filters=%7B%22nope%22%3A%5B%221%22%5D%7D"),
        get("/v1.51/images/nope/json"),
        delete("/v1.51/images/nope"),
        get("/v1.51/exec/nope/json"),
    ];
    let wanted = [Wanted {
        step: 4,
        place: "",
        because: "dockerd makes a container without an image, which can never start: our 400 says so at once",
    }];
    compare(&daemon.client(), &dockerd, &steps, &wanted);
}

#[test]
fn ping_and_its_headers_are_the_same() {
    let Some(daemon) = daemon() else { return };
    let Some(dockerd) = crate::reference(&daemon) else {
        return;
    };
    compare(
        &daemon.client(),
        &dockerd,
        &[get("/_ping"), get("/v1.24/_ping")],
        &[],
    );
}

/// Every place where a hardware address can stand, and which of them counts. Docker-py's `mac_address=` is the first.
#[test]
fn mac_addresses_are_kept_as_by_dockerd() {
    let Some(daemon) = daemon() else { return };
    let Some(dockerd) = crate::reference(&daemon) else {
        return;
    };
    const ONE: &str = "02:00:00:00:00:01";
    const TWO: &str = "02:00:00:00:00:02";
    let mac = |address: &str| json!({ "MacAddress": address });
    let cases = [
        (ONE, None, json!(null)),
        (ONE, Some("default"), json!(null)),
        (ONE, Some("bridge"), json!(null)),
        (ONE, Some("none"), json!(null)),
        (ONE, Some("host"), json!(null)),
        (ONE, None, json!({"default": mac(TWO)})),
        (ONE, None, json!({"bridge": mac(TWO)})),
        (ONE, None, json!({"bridge": {}})),
        ("zz", None, json!(null)),
        ("zz", Some("host"), json!(null)),
        ("", None, json!({"default": mac(ONE)})),
        ("", None, json!({"bridge": mac(ONE)})),
        ("", Some("default"), json!({"bridge": mac(ONE)})),
        ("", None, json!({"default": mac(ONE), "bridge": {}})),
        ("", None, json!({"default": mac("zz")})),
        (ONE, None, json!({"x": {}})),
    ];
    for version in ["v1.43", "v1.51"] {
        for (own, mode, endpoints) in &cases {
            let mut body = body(&["true"]);
            body["MacAddress"] = json!(own);
            body["HostConfig"] =
                mode.map_or_else(|| json!({}), |mode| json!({"NetworkMode": mode}));
            body["NetworkingConfig"] = json!({ "EndpointsConfig": endpoints });
            let ask = |client: &testkit::Client| {
                let answer = client.post(&format!("/{version}/containers/create"), &body);
                let told = answer.json();
                let Some(id) = told["Id"].as_str() else {
                    return (answer.status, told, json!(null));
                };
                let shown = client
                    .get(&format!("/{version}/containers/{id}/json"))
                    .json();
                client
                    .delete(&format!("/containers/{id}?force=1"))
                    .expect(204);
                // Of a network that is not there only the answer to create counts.
                if endpoints.get("x").is_some() {
                    return (answer.status, told["Warnings"].clone(), json!(null));
                }
                let network = &shown["NetworkSettings"]["Networks"]["bridge"]["MacAddress"];
                let kept = json!([
                    shown["HostConfig"]["NetworkMode"],
                    shown["Config"]["MacAddress"],
                    network
                ]);
                (answer.status, told["Warnings"].clone(), kept)
            };
            assert_eq!(ask(&daemon.client()), ask(&dockerd), "{version} {body}");
        }
    }
    let script = "cat /sys/class/net/eth0/address";
    let id =
        daemon.run(&json!({"Image": "busybox", "Cmd": ["sh", "-c", script], "MacAddress": ONE}));
    daemon
        .client()
        .post(&format!("/containers/{id}/wait"), &json!(null))
        .expect(200);
    let logs = daemon
        .client()
        .get(&format!("/containers/{id}/logs?stdout=1"));
    assert_eq!(testkit::client::frames(&logs.body).0.trim(), ONE);
}
