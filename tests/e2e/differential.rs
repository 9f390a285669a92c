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
