//! The stock docker CLI on Cooper and on dockerd 28.5.2: one table of lines; exit code, output and error output side
//! by side. A difference is allowed only with the decision of DESIGN that demands it, and only as long as it is there.

mod normal;
mod play;
mod table;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use testkit::TestDaemon;
use testkit::archive::{self, Entry};
use testkit::differential::{compare_values, normalise};

use crate::daemon;
use crate::pull::Registry;
use normal::{Normal, USUAL};
use play::{Engine, Outcome};

/// Lines that use one another's containers, in order; scenes know nothing of each other.
struct Scene {
    /// The end of `{name}`, which begins every name that the scene's lines give.
    name: &'static str,
    /// Makes the files that they find in `{dir}`, for a scene of this `{name}`.
    prepare: fn(dir: &Path, name: &str),
    rows: &'static [Row],
}

/// One line, as it is typed.
struct Row {
    /// With `{name}`, `{dir}`, `{root}`, `{port}`, `{port2}`, `{image}`, `{registry}` and `{digest}` filled in.
    line: &'static str,
    at: At,
    form: Form,
    /// What is taken out of both outputs, in this order.
    normal: &'static [Normal],
    allowed: &'static [Allowed],
}

/// Where a line is typed.
#[derive(Clone, Copy)]
enum At {
    /// In a shell whose input is empty; output and error output are two.
    Pipe,
    /// At a terminal, with turns of what is waited for and what is typed then.
    Terminal(&'static [(&'static str, &'static str)]),
}

/// What is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    /// Compared field by field.
    Json,
}

/// A difference that is wanted.
struct Allowed {
    /// Begins the place: `exit`, `stdout: <line>`, `stderr: <line>`, or a pointer into JSON.
    place: &'static str,
    because: &'static str,
}

const fn row(line: &'static str) -> Row {
    Row {
        line,
        at: At::Pipe,
        form: Form::Text,
        normal: USUAL,
        allowed: &[],
    }
}

impl Row {
    const fn at_terminal(mut self, turns: &'static [(&'static str, &'static str)]) -> Self {
        self.at = At::Terminal(turns);
        self
    }

    const fn json(mut self) -> Self {
        self.form = Form::Json;
        self
    }

    const fn but(mut self, normal: &'static [Normal]) -> Self {
        self.normal = normal;
        self
    }

    const fn allow(mut self, allowed: &'static [Allowed]) -> Self {
        self.allowed = allowed;
        self
    }
}

/// A line of the docker CLI gives the same on both engines.
#[test]
fn every_line_behaves_as_on_dockerd() {
    let Some(daemon) = daemon() else { return };
    let Some(dockerd) = crate::reference(&daemon) else {
        return;
    };
    let registry = Registry::start();
    let digest = push(&registry);
    let info = dockerd.get("/info").expect(200).json();
    let root = Path::new(info["DockerRootDir"].as_str().expect("a directory"));
    // What is beside its data root is there for the reference too: it has a file system of its own.
    let directory =
        tempfile::tempdir_in(root.parent().expect("a directory above")).expect("a directory");
    let bridge = dockerd.get("/networks/bridge").expect(200).json();
    let gateway = bridge.pointer("/IPAM/Config/0/Gateway");
    let gateway = gateway.and_then(Value::as_str).expect("a gateway");
    let engine = |host: String, root: &Path, gateway: &str, name: &str| Engine {
        host,
        bridge: gateway[..=gateway.rfind('.').expect("an address")].to_owned(),
        prefix: format!("cooper-cli-{}", std::process::id()),
        directory: directory.path().join(name),
        words: BTreeMap::from([
            ("image", "cooper-test/busybox".to_owned()),
            ("registry", registry.address.clone()),
            ("digest", digest.clone()),
            ("root", root.display().to_string()),
        ]),
    };
    let socket = format!("unix://{}", dockerd.socket().display());
    let theirs = engine(socket, root, gateway, "reference");
    let ours = engine(
        daemon.host(),
        &daemon.data_root(),
        &daemon.bridge().address.to_string(),
        "cooper",
    );
    let _terminal = terminal_holder(&daemon);
    let scenes = table::TABLE;
    let played = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| theirs.play(scenes));
        let ours = scope.spawn(|| ours.play(scenes));
        [theirs.join(), ours.join()].map(|played| played.expect("every line is played"))
    });
    let rows = scenes.iter().flat_map(|scene| scene.rows);
    let outcomes = played[0].iter().flatten().zip(played[1].iter().flatten());
    let found: Vec<String> = rows
        .zip(outcomes)
        .filter_map(|(row, (theirs, ours))| report(row, theirs, ours))
        .collect();
    assert!(
        found.is_empty(),
        "- dockerd, + cooper\n{}",
        found.join("\n")
    );
}

/// `ps f` looks at processes with a terminal, and fails when the whole machine has none: here is one.
fn terminal_holder(daemon: &TestDaemon) -> String {
    let mut body = crate::lifecycle::body(&["sleep", "600"]);
    body["Tty"] = true.into();
    daemon.run(&body)
}

/// Two tags of one image, whose layers no engine has met, and the digest of its manifest.
fn push(registry: &Registry) -> String {
    let own = format!("{} {}", std::process::id(), registry.address);
    let layers = ["one", "two"].map(|name| {
        let content = format!("{name} of {own}\n").repeat(1000);
        archive::layer(&[Entry::file(name, 0o644, content)])
    });
    let image = archive::docker_archive("several:latest", &layers, &archive::config(&["/none"]));
    for tag in ["several:one", "several:two"] {
        registry.push_archive(&image, tag);
    }
    registry.digest("several:one")
}

/// What one place has on each side.
struct Difference {
    place: String,
    shown: String,
}

/// What differs and is not allowed, and what is allowed and does not differ.
fn report(row: &Row, theirs: &Outcome, ours: &Outcome) -> Option<String> {
    let mut found = Vec::new();
    if theirs.exit != ours.exit {
        found.push(Difference {
            place: "exit".to_owned(),
            shown: format!("  exit\n  - {:?}\n  + {:?}", theirs.exit, ours.exit),
        });
    }
    match (row.form, json(&theirs.stdout), json(&ours.stdout)) {
        (Form::Json, Some(theirs), Some(ours)) => {
            let mut places = Vec::new();
            compare_values("", &theirs, &ours, &mut places);
            found.extend(places.into_iter().map(|(place, theirs, ours)| Difference {
                shown: format!("  {place}\n  - {theirs}\n  + {ours}"),
                place,
            }));
        }
        (Form::Json | Form::Text, ..) => {
            found.extend(lines("stdout", &theirs.stdout, &ours.stdout))
        }
    }
    found.extend(lines("stderr", &theirs.stderr, &ours.stderr));
    let is =
        |allowed: &Allowed, difference: &Difference| difference.place.starts_with(allowed.place);
    let stale = row
        .allowed
        .iter()
        .filter(|allowed| !found.iter().any(|d| is(allowed, d)));
    let stale = stale.map(|allowed| {
        format!(
            "  {}: no difference, but allowed by {}",
            allowed.place, allowed.because
        )
    });
    let wrong = found
        .iter()
        .filter(|d| !row.allowed.iter().any(|allowed| is(allowed, d)));
    let told: Vec<String> = wrong.map(|d| d.shown.clone()).chain(stale).collect();
    (!told.is_empty()).then(|| format!("{}\n{}\n", row.line, told.join("\n")))
}

fn json(text: &str) -> Option<Value> {
    let mut value = serde_json::from_str(text).ok()?;
    normalise(&mut value);
    Some(value)
}

/// Lines that one side alone has, by the longest common subsequence.
fn lines(stream: &str, theirs: &str, ours: &str) -> Vec<Difference> {
    let (a, b): (Vec<&str>, Vec<&str>) = (theirs.split('\n').collect(), ours.split('\n').collect());
    let mut common = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] = if a[i] == b[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let difference = |sign: char, line: &str| Difference {
        place: format!("{stream}: {}", line.trim_start()),
        shown: format!("  {stream} {sign} {line}"),
    };
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || (i < a.len() && common[i + 1][j] >= common[i][j + 1]) {
            found.push(difference('-', a[i]));
            i += 1;
        } else {
            found.push(difference('+', b[j]));
            j += 1;
        }
    }
    found
}

#[test]
fn a_difference_is_told_unless_it_is_allowed_and_so_is_what_is_allowed_in_vain() {
    const ALLOWED: &[Allowed] = &[Allowed {
        place: "stdout: b",
        because: "a test",
    }];
    let outcome = |stdout: &str| Outcome {
        exit: Some(0),
        stdout: stdout.to_owned(),
        stderr: String::new(),
    };
    let (theirs, ours) = (outcome("a\nb1\nc\n"), outcome("a\nb2\nc\n"));
    let told = report(&row("line"), &theirs, &ours);
    assert_eq!(
        told.as_deref(),
        Some("line\n  stdout - b1\n  stdout + b2\n")
    );
    assert_eq!(report(&row("line").allow(ALLOWED), &theirs, &ours), None);
    let told = report(&row("line").allow(ALLOWED), &ours, &ours);
    let vain = "line\n  stdout: b: no difference, but allowed by a test\n";
    assert_eq!(told.as_deref(), Some(vain));
    let (one, two) = (
        outcome("[{\"A\": 1, \"B\": 2}]"),
        outcome("[{\"B\": 3, \"A\": 1}]"),
    );
    let told = report(&row("line").json(), &one, &two);
    assert_eq!(told.as_deref(), Some("line\n  /0/B\n  - 2\n  + 3\n"));
}
