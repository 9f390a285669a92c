//! Bodies that are no JSON, or not what is asked for, and content types.

use super::*;

const BODIES: [&[u8]; 24] = [
    b"",
    b"{",
    b"{}",
    b"null",
    b"[]",
    b"\"x\"",
    b"1",
    b"{\"Image\":1}",
    b"{} x",
    b"{}{}",
    b"{\"HostConfig\":[]}",
    b"{\"HostConfig\":{\"Memory\":\"x\"}}",
    b"{\"Env\":\"x\"}",
    b"{\"Labels\":[\"x\"]}",
    b"\xff\xfe",
    b"{\"Tty\":\"yes\"}",
    b"{\"HostConfig\":{\"Memory\":1.5}}",
    b"<html>",
    b"{\"a\":tru}",
    b"{\"a\":\"\x01\"}",
    b"{\"Image\" \"x\"}",
    b"{'Image':'x'}",
    b"{\"Image\":\"x\",}",
    b"{\"Cmd\":1}",
];

const KINDS: [&str; 11] = [
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/json; charset=utf-8",
    "APPLICATION/JSON",
    "application/jsonx",
    "application/json;",
    "application/",
    "application/json, text/plain",
    "garbage",
    "application/json;charset",
    "a b",
];

#[test]
fn bodies_and_content_types() {
    let Some(both) = Both::start("body") else {
        return;
    };
    let run = &both.names[0];
    let ends = [
        "/v1.51/containers/create".to_owned(),
        format!("/v1.51/containers/{run}/exec"),
        "/v1.51/exec/none/start".to_owned(),
    ];
    let mut cases = Vec::new();
    for end in &ends {
        for body in BODIES {
            // An exec's command may be one string here as in a create body.
            let is_exec = end.ends_with("/exec") && body == b"{\"Cmd\":1}";
            let case = send(end.clone(), JSON, body);
            cases.push(if is_exec {
                case.because("decision 18")
            } else {
                case
            });
        }
        for kind in KINDS {
            cases.push(send(end.clone(), kind, "{}"));
            cases.push(send(end.clone(), kind, ""));
        }
        let bare = Case {
            content_type: None,
            ..send(end.clone(), JSON, "{}")
        };
        cases.push(bare);
    }
    compare(&both.daemon, &both.dockerd, &cases);
}

#[test]
fn bodies_of_volumes_logins_and_starts() {
    let Some(both) = Both::start("start") else {
        return;
    };
    let [_, _, new, _] = &both.names;
    let mut cases = Vec::new();
    for body in [
        &b"[]"[..],
        b"1",
        b"{",
        b"{\"Name\":1}",
        b"{\"Labels\":1}",
        b"{\"Name\":\"-\"}",
        b"{\"Name\":\"a/b\"}",
    ] {
        cases.push(send("/v1.51/volumes/create", JSON, body));
    }
    for body in [
        &b""[..],
        b"{",
        b"[]",
        b"1",
        b"\xff",
        b"{'x'}",
        b"{\"username\":1}",
    ] {
        cases.push(send("/v1.51/auth", JSON, body));
        cases.push(send("/v1.51/auth", "text/plain", body));
    }
    for body in [
        &b"{}"[..],
        b"null",
        b"{\"Binds\":[\"x\"]}",
        b"12345678",
        b"x",
    ] {
        cases.push(send("/v1.51/containers/none/start", JSON, body));
        cases.push(send("/v1.51/containers/none/start", "text/plain", body));
    }
    cases.push(send(
        format!("/v1.51/containers/{new}/start"),
        JSON,
        "{\"Binds\":[\"x\"]}",
    ));
    compare(&both.daemon, &both.dockerd, &cases);
}

#[test]
fn a_huge_body_is_refused_and_not_a_broken_pipe() {
    let Some(daemon) = daemon() else { return };
    // 20 MB of one variable; dockerd reads what there is.
    let body = format!(
        "{{\"Image\":\"x\",\"Env\":[\"{}\"]}}",
        "x".repeat(20_000_000)
    );
    let headers = [("content-type", JSON)];
    let answer = daemon
        .client()
        .try_request("POST", "/containers/create", &headers, body.into());
    if let Ok(answer) = answer {
        assert_eq!(answer.status, 413, "{}", answer.text());
    }
    daemon.client().get("/_ping").expect(200);
}
