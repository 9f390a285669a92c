//! Names of things that are not there or are there already, methods, paths and versions.

use super::*;

#[test]
fn names_of_things_that_are_not_there() {
    let Some(both) = Both::start("name") else {
        return;
    };
    let [run, _, new, _] = &both.names;
    let mut cases = Vec::new();
    for verb in [
        "start", "pause", "unpause", "exec", "kill", "stop", "restart", "wait",
    ] {
        cases.push(post(format!("/v1.51/containers/none/{verb}")));
    }
    for verb in ["pause", "unpause", "kill"] {
        cases.push(post(format!("/v1.51/containers/{new}/{verb}")));
    }
    cases.push(post(format!("/v1.51/containers/{run}/unpause")));
    cases.push(post(format!("/v1.51/containers/{run}/start")));
    for name in [
        "",
        "x",
        "Upper",
        "x@sha256:12",
        "-x",
        "x:",
        "x:y:z",
        "127.0.0.1:1/x",
        "sha256:abc",
        "deadbeefdead",
    ] {
        if !name.is_empty() {
            cases.push(get(format!("/v1.51/images/{name}/json")));
            cases.push(get(format!("/v1.51/images/{name}/history")));
            cases.push(delete(format!("/v1.51/images/{name}")));
            cases.push(send(
                "/v1.51/containers/create",
                JSON,
                json!({"Image": name}).to_string(),
            ));
        }
        for tag in ["", "&tag=a b", "&tag=z"] {
            cases.push(post(format!("/v1.51/images/none/tag?repo={name}{tag}")));
        }
    }
    compare(&both.daemon, &both.dockerd, &cases);
}

#[test]
fn names_in_use_platforms_and_pulls() {
    let Some(both) = Both::start("taken") else {
        return;
    };
    let [run, _, new, _] = &both.names;
    let mut cases = Vec::new();
    let mut taken = body();
    taken["Cmd"] = json!(["true"]);
    cases.push(send(
        format!("/v1.51/containers/create?name={run}"),
        JSON,
        taken.to_string(),
    ));
    cases.push(send(
        "/v1.51/containers/create?name=_",
        JSON,
        taken.to_string(),
    ));
    cases.push(send(
        format!("/v1.51/containers/create?name={new}x&platform=linux/arm64"),
        JSON,
        taken.to_string(),
    ));
    for platform in [
        "nonsense",
        "a b",
        "linux/",
        "/",
        "unknown",
        "linux/amd64/v1/x",
    ] {
        cases.push(post(format!(
            "/v1.51/images/create?fromImage=127.0.0.1:1/x&tag=y&platform={platform}"
        )));
        cases.push(send(
            format!("/v1.51/containers/create?platform={platform}"),
            JSON,
            taken.to_string(),
        ));
    }
    for pull in [
        "Upper",
        "a b",
        "x&tag=a b",
        "127.0.0.1:1/x&tag=y",
        "127.0.0.1:1/x",
        "no-such-host.invalid/x&tag=y",
    ] {
        cases.push(post(format!("/v1.51/images/create?fromImage={pull}")));
    }
    for volume in ["x", "none"] {
        cases.push(get(format!("/v1.51/volumes/{volume}")));
        cases.push(delete(format!("/v1.51/volumes/{volume}")));
    }
    cases.push(get("/v1.51/networks/none-such"));
    cases.push(get("/v1.51/networks/bridge?verbose=nope"));
    cases.push(get("/v1.51/networks/bridge?scope=swarm"));
    compare(&both.daemon, &both.dockerd, &cases);
}

#[test]
fn methods_paths_and_versions() {
    let Some(both) = Both::start("method") else {
        return;
    };
    let mut cases = Vec::new();
    let paths = [
        "/_ping",
        "/version",
        "/info",
        "/auth",
        "/events",
        "/containers/json",
        "/containers/create",
        "/containers/x/json",
        "/containers/x/start",
        "/containers/x",
        "/containers/x/logs",
        "/images/json",
        "/images/create",
        "/images/x",
        "/images/x/json",
        "/images/x/tag",
        "/volumes",
        "/volumes/x",
        "/volumes/create",
        "/exec/x/start",
        "/exec/x/json",
        "/exec/x",
        "/containers",
        "/nope",
        "/",
        "/containers/x/nope",
        "/containers//json",
        "//containers/json",
        "/images/../json",
        "/swarm",
        "/nodes",
    ];
    for path in paths {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            let answers = [
                ("GET", "/version"),
                ("GET", "/info"),
                ("GET", "/events"),
                ("GET", "/containers/json"),
                ("GET", "/images/json"),
                ("GET", "/volumes"),
                ("POST", "/volumes/create"),
                ("GET", "/nope"),
                // Import is not there yet.
                ("POST", "/images/create"),
            ];
            if !answers.contains(&(method, path)) {
                cases.push(case(method, format!("/v1.51{path}")));
            }
        }
    }
    for version in ["v1.24", "v1.52", "v1.99", "v2.0", "vx", "v1.51.1"] {
        cases.push(get(format!("/{version}/containers/x/json")));
    }
    for version in ["v1.23", "v0.1"] {
        cases.push(
            get(format!("/{version}/containers/x/json"))
                .because("decision 18: 1.12 and later are served"),
        );
    }
    compare(&both.daemon, &both.dockerd, &cases);
}
