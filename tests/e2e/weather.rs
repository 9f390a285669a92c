//! Pulls from a registry that hangs, breaks off, lies and refuses: dockerd's status and words, nothing left behind,
//! and the next pull works.

mod registry;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Client, Options, TestDaemon, wait_until};

use crate::daemon_with;
use registry::Faulty;

/// What became of a pull: its status, the error that its stream ended with or that it was answered with, and the
/// words of its layers' lines.
#[derive(Debug)]
struct Outcome {
    status: u16,
    error: String,
    retried: bool,
}

impl Outcome {
    /// Whether a client sees the same; words that need not be dockerd's are left out.
    fn is(&self, other: &Self, words: bool) -> bool {
        let ended = self.error.is_empty() == other.error.is_empty();
        self.status == other.status && ended && (!words || self.error == other.error)
    }
}

/// Pulls `<engine>/<fault>` and says what became of it, in the words of engine `ours`.
fn pulled(client: &Client, registry: &Faulty, engine: &str, fault: &str) -> Outcome {
    let repository = format!("{engine}/{fault}");
    let tag = match fault {
        "manifest-lies" => registry.manifest_digest(&repository),
        _ => "latest".to_owned(),
    };
    let query = format!(
        "/images/create?fromImage={}/{repository}&tag={tag}",
        registry.address()
    );
    let auth = auth(fault);
    let headers = [("x-registry-auth", auth.as_str())];
    let answer = client.request("POST", &query, &headers, Vec::new());
    outcome(answer.status, &answer.text(), registry)
}

fn outcome(status: u16, text: &str, registry: &Faulty) -> Outcome {
    let lines: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let last = lines.last().cloned().unwrap_or_default();
    let error = ["error", "message"]
        .iter()
        .find_map(|key| last[*key].as_str())
        .unwrap_or_default();
    assert_eq!(
        last["errorDetail"]["message"].as_str().unwrap_or(error),
        error,
        "both forms of an error in the stream"
    );
    // Each engine has repositories, and so blobs, of its own.
    let error = registry.without_digests(&error.replace("them/", "ours/"));
    Outcome {
        status,
        error,
        retried: text.contains("Retrying in"),
    }
}

/// `X-Registry-Auth` of each fault: base64url of its JSON.
fn auth(fault: &str) -> String {
    let password = match fault {
        "login" | "layer-elsewhere" => "right",
        "login-wrong" => "wrong",
        _ => return String::new(),
    };
    let text = json!({"username": "cooper", "password": password}).to_string();
    registry::base64url(text.as_bytes())
}

/// Every fault, and why our words for it may differ from dockerd's; the status never does.
const FAULTS: &[(&str, Option<&str>)] = &[
    ("none", None),
    ("manifest-429", None),
    ("manifest-500", None),
    ("manifest-503-json", None),
    ("manifest-404", None),
    ("manifest-404-html", None),
    ("manifest-401", None),
    ("manifest-403", None),
    ("manifest-lies", None),
    ("manifest-garbage", Some("the words of another JSON parser")),
    (
        "manifest-schema1",
        Some("section 6: schema 1 is not read, and the words say what to do"),
    ),
    ("config-lies", None),
    ("config-404", None),
    ("layer-lies", None),
    ("layer-404", None),
    ("layer-403", None),
    ("layer-500-once", None),
    ("layer-429-once", None),
    ("layer-truncated-once", None),
    ("layer-elsewhere", None),
    ("login", None),
    ("login-none", None),
    ("login-wrong", None),
];

fn all(client: &Client, registry: &Faulty, engine: &str) -> BTreeMap<&'static str, Outcome> {
    std::thread::scope(|scope| {
        let pulls: Vec<_> = FAULTS
            .iter()
            .map(|(fault, _)| {
                let pull = scope.spawn(move || pulled(client, registry, engine, fault));
                (*fault, pull)
            })
            .collect();
        let joined = pulls
            .into_iter()
            .map(|(fault, pull)| (fault, pull.join().expect("a pull that ends")));
        joined.collect()
    })
}

/// Blobs and beginnings of blobs of a daemon that has nothing but what was pulled.
fn nothing_is_left(daemon: &TestDaemon) {
    let images = daemon.client().get("/images/json?all=1").expect(200).json();
    assert_eq!(images, json!([]), "an image of a pull that failed");
    let layers = std::fs::read_dir(daemon.data_root().join("layers"));
    let left: Vec<_> = layers
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    // The one without content, for images without layers.
    assert!(left.len() <= 1, "layers of a pull that failed: {left:?}");
}

fn bare() -> Option<TestDaemon> {
    if !testkit::is_root() {
        return None;
    }
    Some(TestDaemon::start(env!("CARGO_BIN_EXE_cooper")))
}

#[test]
fn each_fault_of_a_registry_ends_as_with_dockerd() {
    let Some(daemon) = bare() else { return };
    let registry = Faulty::start();
    let ours = all(&daemon.client(), &registry, "ours");
    for (fault, outcome) in &ours {
        println!("{fault}: {outcome:?}");
    }
    assert!(
        registry.saw_range("ours/layer-truncated-once"),
        "the second try asked for all of it again"
    );
    for fault in ["layer-truncated-once", "layer-500-once", "layer-429-once"] {
        assert!(ours[fault].retried, "{fault}");
    }
    assert!(
        !registry.elsewhere_saw_authorization(),
        "the token went to another host"
    );
    let Some(peer) = testkit::peers::dockerd() else {
        return;
    };
    let theirs = all(&peer, &registry, "them");
    for (fault, outcome) in &theirs {
        if outcome.error.is_empty() {
            let name = format!("/images/{}/them/{fault}", registry.address());
            assert_eq!(peer.delete(&name).status, 200, "{fault}");
        }
    }
    let found: Vec<String> = FAULTS
        .iter()
        .filter(|(fault, because)| !ours[fault].is(&theirs[fault], because.is_none()))
        .map(|(fault, _)| {
            format!(
                "{fault}\n  dockerd: {:?}\n  cooper:  {:?}",
                theirs[fault], ours[fault]
            )
        })
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_pull_that_failed_leaves_nothing_and_the_next_one_works() {
    let Some(daemon) = bare() else { return };
    let registry = Faulty::start();
    let client = daemon.client();
    for fault in [
        "manifest-500",
        "manifest-lies",
        "manifest-garbage",
        "config-lies",
        "layer-lies",
        "layer-404",
    ] {
        let failed = pulled(&client, &registry, "ours", fault);
        assert_ne!(failed.error, "", "{fault}");
        nothing_is_left(&daemon);
        registry.mend(&format!("ours/{fault}"));
        let mended = pulled(&client, &registry, "ours", fault);
        assert_eq!((mended.status, mended.error.as_str()), (200, ""), "{fault}");
        let name = format!("/images/{}/ours/{fault}", registry.address());
        if fault != "manifest-lies" {
            client.delete(&name).expect(200);
        } else {
            let digest = registry.manifest_digest("ours/manifest-lies");
            client.delete(&format!("{name}@{digest}")).expect(200);
        }
        nothing_is_left(&daemon);
    }
}

/// A client that gives up on a registry that hangs is forgotten at once.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn a_registry_that_hangs_keeps_no_pull_whose_client_has_left() {
    let Some(daemon) = bare() else { return };
    let registry = Faulty::start();
    let client = daemon.client();
    for fault in ["manifest-hangs", "layer-hangs", "layer-stalls"] {
        let repository = format!("ours/{fault}");
        let query = format!(
            "/images/create?fromImage={}/{repository}&tag=latest",
            registry.address()
        );
        let head = format!("POST {query} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        let mut stream = std::os::unix::net::UnixStream::connect(client.socket()).expect("connect");
        std::io::Write::write_all(&mut stream, head.as_bytes()).expect("ask");
        wait_until("the registry to hang", FORGOTTEN_WITHIN, || {
            registry.is_hanging(&repository).then_some(())
        });
        drop(stream);
        wait_until("the connection to be given up", FORGOTTEN_WITHIN, || {
            (!registry.is_hanging(&repository)).then_some(())
        });
        nothing_is_left(&daemon);
        registry.mend(&repository);
        let mended = pulled(&client, &registry, "ours", fault);
        assert_eq!((mended.status, mended.error.as_str()), (200, ""), "{fault}");
        let name = format!("/images/{}/{repository}", registry.address());
        client.delete(&name).expect(200);
    }
}

#[test]
fn a_registry_that_never_answers_is_given_up() {
    let Some(daemon) = bare() else { return };
    let registry = Faulty::start();
    let outcome = pulled(&daemon.client(), &registry, "ours", "manifest-hangs");
    assert_eq!(outcome.status, 500);
    assert!(
        outcome.error.contains("no answer within 30 s"),
        "{outcome:?}"
    );
    nothing_is_left(&daemon);
}

#[test]
fn credentials_are_checked_and_refused_in_dockerds_words() {
    let Some(daemon) = daemon_with(Options::default()) else {
        return;
    };
    let registry = Faulty::start();
    let log_in = |client: &Client, server: String, password: &str| {
        let body = json!({"username": "cooper", "password": password, "serveraddress": server});
        let answer = client.post("/v1.51/auth", &body);
        (answer.status, answer.json())
    };
    let address = registry.address().to_owned();
    // What protects a repository called `login` protects `/v2/` of the same name as well.
    let servers = [
        address.clone(),
        format!("http://{address}/v1/"),
        "127.0.0.1:1".to_owned(),
    ];
    let ours = daemon.client();
    registry.ask_for_login();
    let right = log_in(&ours, address.clone(), "right");
    assert_eq!(right.0, 200, "{}", right.1);
    assert_eq!(right.1["Status"], "Login Succeeded");
    assert_eq!(log_in(&ours, address, "wrong").0, 401);
    let Some(peer) = testkit::peers::dockerd() else {
        return;
    };
    for server in servers {
        for password in ["right", "wrong", ""] {
            let ours = log_in(&ours, server.clone(), password);
            let theirs = log_in(&peer, server.clone(), password);
            assert_eq!(ours, theirs, "{server} {password:?}");
        }
    }
}
