//! What a person can get wrong, at every endpoint: bad values, bodies, content types, methods and names. Cooper and
//! dockerd 28.5.2 answer the same status and the same words.

mod bodies;
mod names;
mod starts;
mod values;

use serde_json::{Value, json};
use testkit::{Client, TestDaemon};

use crate::daemon;

/// One request that is refused, or odd.
struct Case {
    method: &'static str,
    path: String,
    content_type: Option<&'static str>,
    body: Vec<u8>,
    /// The decision behind an answer that is not dockerd's.
    because: Option<&'static str>,
}

fn case(method: &'static str, path: impl Into<String>) -> Case {
    Case {
        method,
        path: path.into(),
        content_type: None,
        body: Vec::new(),
        because: None,
    }
}

fn get(path: impl Into<String>) -> Case {
    case("GET", path)
}

fn post(path: impl Into<String>) -> Case {
    case("POST", path)
}

fn delete(path: impl Into<String>) -> Case {
    case("DELETE", path)
}

/// A POST with this body.
fn send(path: impl Into<String>, content_type: &'static str, body: impl Into<Vec<u8>>) -> Case {
    Case {
        content_type: Some(content_type),
        body: body.into(),
        ..post(path)
    }
}

const JSON: &str = "application/json";

impl Case {
    fn because(mut self, decision: &'static str) -> Self {
        self.because = Some(decision);
        self
    }

    /// Status, content type and words. Ids and times are none of the words.
    fn ask(&self, client: &Client) -> (u16, String, String) {
        let headers: Vec<(&str, &str)> = self
            .content_type
            .iter()
            .map(|kind| ("content-type", *kind))
            .collect();
        let path = self.path.replace(' ', "%20");
        let answer = client.request(self.method, &path, &headers, self.body.clone());
        let kind = answer.header("content-type").unwrap_or_default().to_owned();
        (answer.status, kind, plain(&answer.text()))
    }
}

/// Replaces ids, which differ between any two engines.
fn plain(text: &str) -> String {
    let is_id = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    let words = words.map(|word| {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        if is_id(bare) {
            word.replace(bare, "<id>")
        } else {
            word.to_owned()
        }
    });
    words.collect()
}

fn compare(daemon: &TestDaemon, dockerd: &Client, cases: &[Case]) {
    let ours = daemon.client();
    let mut found = Vec::new();
    for case in cases {
        let (mine, theirs) = (case.ask(&ours), case.ask(dockerd));
        if (mine == theirs) == case.because.is_none() {
            continue;
        }
        found.push(format!(
            "{} {} {} {:?}\n  dockerd: {theirs:?}\n  cooper:  {mine:?}\n  {}",
            case.method,
            case.path,
            case.content_type.unwrap_or_default(),
            String::from_utf8_lossy(&case.body[..case.body.len().min(200)]),
            case.because.map_or_else(String::new, |why| format!(
                "is no difference any more: {why}"
            )),
        ));
    }
    assert!(
        found.is_empty(),
        "{} of {}:\n{}",
        found.len(),
        cases.len(),
        found.join("\n")
    );
}

/// Both engines with the same containers: one that runs, one with a terminal, one that never ran, one that is over.
struct Both {
    daemon: TestDaemon,
    dockerd: Client,
    names: [String; 4],
}

impl Drop for Both {
    fn drop(&mut self) {
        for name in &self.names {
            self.dockerd
                .delete(&format!("/containers/{name}?force=1&v=1"));
        }
    }
}

impl Both {
    fn start(what: &str) -> Option<Self> {
        let daemon = daemon()?;
        let dockerd = crate::reference(&daemon)?;
        let mark = format!("refused-{what}-{}", std::process::id());
        let names = ["run", "tty", "new", "end"].map(|kind| format!("{mark}-{kind}"));
        let both = Self {
            daemon,
            dockerd,
            names,
        };
        for client in [&both.daemon.client(), &both.dockerd] {
            both.make(client);
        }
        Some(both)
    }

    fn make(&self, client: &Client) {
        let bodies = [
            ["sleep", "600"],
            ["sleep", "600"],
            ["true", "x"],
            ["echo", "x"],
        ];
        for (name, command) in self.names.iter().zip(bodies) {
            let mut body = body();
            body["Cmd"] = json!(command);
            body["Tty"] = json!(name.ends_with("tty"));
            client
                .post(&format!("/containers/create?name={name}"), &body)
                .expect(201);
            if name.ends_with("new") {
                continue;
            }
            client
                .post(&format!("/containers/{name}/start"), &Value::Null)
                .expect(204);
            if name.ends_with("end") {
                client
                    .post(&format!("/containers/{name}/wait"), &Value::Null)
                    .expect(200);
            }
        }
    }
}

fn body() -> Value {
    json!({"Image": testkit::archive::SHARED_IMAGE, "HostConfig": {"NetworkMode": "none"}})
}

#[test]
fn values_of_queries() {
    let Some(both) = Both::start("query") else {
        return;
    };
    let [_, _, new, end] = &both.names;
    let mut cases = Vec::new();
    for tail in ["abc", "-1", "", "all", "99999999999999999999"] {
        cases.push(get(format!(
            "/v1.51/containers/{new}/logs?stdout=1&tail={tail}"
        )));
    }
    for time in [
        "xyz",
        "-5",
        "1.5",
        "1.abc",
        "",
        "2020-01-01T00:00:00Z",
        "10m",
        "1.9999999999999",
    ] {
        cases.push(get(format!(
            "/v1.51/containers/{new}/logs?stdout=1&since={time}"
        )));
        cases.push(get(format!(
            "/v1.51/containers/{new}/logs?stdout=1&until={time}"
        )));
        cases.push(get(format!("/v1.51/events?since={time}&until=1")));
    }
    cases.push(get("/v1.51/events?since=2&until=1"));
    cases.push(get(format!("/v1.51/containers/{end}/logs")));
    for seconds in ["-5", "abc", "1.5", "", "99999999999999999999", "0x5"] {
        cases.push(post(format!("/v1.51/containers/{new}/stop?t={seconds}")));
        cases.push(post(format!("/v1.51/containers/none/restart?t={seconds}")));
    }
    compare(&both.daemon, &both.dockerd, &cases);
}

#[test]
fn signals_and_sizes() {
    let Some(both) = Both::start("signal") else {
        return;
    };
    let [run, tty, new, _] = &both.names;
    let mut cases = Vec::new();
    for signal in [
        "NOPE",
        "0",
        "-1",
        "32",
        "65",
        "SIGNOPE",
        "sigterm",
        "9x",
        "RTMIN%2B99",
        "",
    ] {
        for name in [new.as_str(), "none"] {
            cases.push(post(format!(
                "/v1.51/containers/{name}/kill?signal={signal}"
            )));
            cases.push(post(format!(
                "/v1.51/containers/{name}/stop?signal={signal}"
            )));
        }
    }
    for signal in ["NOPE", "0"] {
        cases.push(post(format!(
            "/v1.51/containers/{run}/kill?signal={signal}"
        )));
        cases.push(post(format!(
            "/v1.51/containers/{run}/stop?signal={signal}"
        )));
        cases.push(post(format!(
            "/v1.51/containers/{run}/restart?signal={signal}"
        )));
    }
    for size in [
        "",
        "?h=10",
        "?h=x&w=10",
        "?h=10&w=x",
        "?h=-1&w=5",
        "?h=70000&w=5",
        "?h=1&w=1",
    ] {
        for name in [run.as_str(), tty, new, "none"] {
            cases.push(post(format!("/v1.51/containers/{name}/resize{size}")));
        }
        cases.push(post(format!("/v1.51/exec/none/resize{size}")));
    }
    compare(&both.daemon, &both.dockerd, &cases);
}

#[test]
fn conditions_columns_and_new_names() {
    let Some(both) = Both::start("rest") else {
        return;
    };
    let [run, _, new, end] = &both.names;
    let mut cases = Vec::new();
    for condition in ["nope", "not-running", "Removed"] {
        cases.push(post(format!(
            "/v1.51/containers/{end}/wait?condition={condition}"
        )));
        cases.push(post(format!(
            "/v1.51/containers/none/wait?condition={condition}"
        )));
    }
    for ps in ["", "?ps_args=-o%20cmd", "?ps_args=--nope"] {
        cases.push(get(format!("/v1.51/containers/{run}/top{ps}")).because_of_ps(ps));
        cases.push(get(format!("/v1.51/containers/{new}/top{ps}")));
        cases.push(get(format!("/v1.51/containers/none/top{ps}")));
    }
    for name in ["", "_", run.as_str(), new, "a/b"] {
        cases.push(post(format!("/v1.51/containers/{new}/rename?name={name}")));
        cases.push(post(format!("/v1.51/containers/none/rename?name={name}")));
    }
    cases.push(delete(format!("/v1.51/containers/{run}?link=1")));
    cases.push(delete(format!("/v1.51/containers/{new}?link=1")));
    cases.push(delete("/v1.51/containers/none?link=1"));
    cases.push(delete(format!("/v1.51/containers/{run}")));
    compare(&both.daemon, &both.dockerd, &cases);
}

impl Case {
    /// The list of processes itself is another test's.
    fn because_of_ps(self, ps: &str) -> Self {
        if ps.is_empty() {
            self.because("process ids differ")
        } else {
            self
        }
    }
}

#[test]
fn filters_of_lists() {
    let Some(both) = Both::start("filter") else {
        return;
    };
    let mut cases = Vec::new();
    let filters = [
        "{",
        "[]",
        r#"{"status":["bad"]}"#,
        r#"{"exited":["x"]}"#,
        r#"{"label":1}"#,
        r#"{"before":["nope"]}"#,
        r#"{"health":["x"]}"#,
        r#"{"publish":["x"]}"#,
        r#"{"publish":["99999"]}"#,
        r#"{"is-task":["x"]}"#,
        r#"{"volume":["none"]}"#,
        r#"{"nope":["x"]}"#,
    ];
    for filter in filters {
        let filter = encoded(filter);
        cases.push(get(format!("/v1.51/containers/json?filters={filter}")));
        cases.push(get(format!("/v1.51/networks?filters={filter}")));
        cases.push(get(format!("/v1.51/volumes?filters={filter}")));
        cases.push(get(format!("/v1.51/images/json?filters={filter}")));
    }
    for filter in [
        r#"{"reference":["["]}"#,
        r#"{"until":["x"]}"#,
        r#"{"dangling":["x"]}"#,
        r#"{"type":["x"]}"#,
    ] {
        let filter = encoded(filter);
        cases.push(get(format!("/v1.51/images/json?filters={filter}")));
        cases.push(get(format!("/v1.51/networks?filters={filter}")));
        cases.push(get(format!("/v1.51/volumes?filters={filter}")));
    }
    for limit in ["limit=abc", "limit=1.5"] {
        cases.push(get(format!("/v1.51/containers/json?{limit}")));
    }
    // What is not refused lists what each engine has.
    let refused: Vec<Case> = cases
        .into_iter()
        .filter(|case| case.ask(&both.dockerd).0 != 200)
        .collect();
    assert!(refused.len() > 30, "{}", refused.len());
    compare(&both.daemon, &both.dockerd, &refused);
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
