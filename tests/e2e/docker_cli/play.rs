//! Plays the table on one engine: types each line into a shell or at a terminal, and keeps what comes back.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::normal::Normal;
use super::{At, Row, Scene};

/// No line takes longer; `timeout` ends it with status 124, which no engine answers.
const LINE_WITHIN_S: &str = "60";

/// Scenes played at once on one engine.
const SCENES_AT_ONCE: usize = 3;

/// One engine, and what stands for each `{word}` of the table on it.
pub(super) struct Engine {
    /// `DOCKER_HOST`.
    pub(super) host: String,
    /// The first three numbers of an address on its bridge, with the dot after them.
    pub(super) bridge: String,
    /// Begins the name of everything that is made in it.
    pub(super) prefix: String,
    /// For files of the scenes.
    pub(super) directory: PathBuf,
    /// Words that are the same in every scene.
    pub(super) words: BTreeMap<&'static str, String>,
}

/// What one line brought, in the order of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) exit: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Engine {
    /// All scenes, some at once; each line's outcome in the order of the table.
    pub(super) fn play(&self, scenes: &[Scene]) -> Vec<Vec<Outcome>> {
        let next = AtomicUsize::new(0);
        let all = Mutex::new(vec![Vec::new(); scenes.len()]);
        std::thread::scope(|scope| {
            for _ in 0..SCENES_AT_ONCE {
                scope.spawn(|| {
                    while let Some((number, scene)) = {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        scenes.get(number).map(|scene| (number, scene))
                    } {
                        let outcomes = self.scene(scene);
                        all.lock().unwrap_or_else(PoisonError::into_inner)[number] = outcomes;
                    }
                });
            }
        });
        all.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn scene(&self, scene: &Scene) -> Vec<Outcome> {
        let mut words = self.words.clone();
        words.insert("name", format!("{}-{}", self.prefix, scene.name));
        let directory = self.directory.join(scene.name);
        std::fs::create_dir_all(&directory).expect("the scene's directory");
        words.insert("dir", directory.display().to_string());
        // Held until both are known, so that they are two.
        let held = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
        let ports = held.map(|held| held.local_addr().expect("its address").port());
        words.insert("port", ports[0].to_string());
        words.insert("port2", ports[1].to_string());
        (scene.prepare)(&directory, &words["name"]);
        let rows = scene.rows.iter().map(|row| self.row(row, &words));
        rows.collect()
    }

    fn row(&self, row: &Row, words: &BTreeMap<&'static str, String>) -> Outcome {
        let line = words
            .iter()
            .fold(row.line.to_owned(), |line, (word, value)| {
                line.replace(&format!("{{{word}}}"), value)
            });
        let output = match row.at {
            At::Pipe => shell(&self.host, &line).output().expect("a shell"),
            At::Terminal(turns) => terminal(&self.host, &line, turns),
        };
        let text = |bytes: &[u8]| {
            let mut text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
            // The longest first: one value may begin another.
            let mut values: Vec<_> = words.iter().collect();
            values.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
            for (word, value) in values {
                text = text.replace(value.as_str(), &format!("{{{word}}}"));
            }
            text = text.replace(&self.bridge, "<bridge>.");
            row.normal
                .iter()
                .fold(text, |text, normal: &Normal| normal.of(&text))
        };
        Outcome {
            exit: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}

/// Removes whatever a scene has left in the engine: the reference is there for others too.
impl Drop for Engine {
    fn drop(&mut self) {
        let (prefix, registry) = (format!("{}-", self.prefix), &self.words["registry"]);
        let lines = [
            format!("docker ps -aq --filter name={prefix} | xargs -r docker rm -fv"),
            format!("docker volume ls -q --filter name={prefix} | xargs -r docker volume rm -f"),
            format!(
                "docker images --format '{{{{.Repository}}}}:{{{{.Tag}}}}' | grep -F -e {prefix} -e {registry} | xargs -r docker rmi -f"
            ),
        ];
        for line in lines {
            // Nothing to remove is no failure, and what is left in Cooper shows in the census.
            drop(shell(&self.host, &line).output());
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test types into a shell")]
fn shell(host: &str, line: &str) -> std::process::Command {
    let mut command = std::process::Command::new("timeout");
    command
        .args(["-k", "5", LINE_WITHIN_S, "sh", "-c", line])
        .stdin(Stdio::null())
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .env("DOCKER_HOST", host);
    command
}

/// The line at a terminal, as `script` of util-linux gives it one; of each turn the first is waited for in what is
/// shown after the last turn, and the second typed.
fn terminal(host: &str, line: &str, turns: &[(&str, &str)]) -> std::process::Output {
    let mut command = shell(host, "exec script -qec \"$LINE\" /dev/null");
    command
        .env("LINE", line)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("script of util-linux");
    // At the end of its own input `script` would type something, so it is kept open.
    let mut input = child.stdin.take().expect("a pipe");
    let mut shown = Vec::new();
    let mut from = 0;
    let mut output = child.stdout.take().expect("a pipe");
    for (awaited, typed) in turns {
        if !await_text(&mut output, &mut shown, &mut from, awaited) {
            break;
        }
        input.write_all(typed.as_bytes()).expect("type");
    }
    output.read_to_end(&mut shown).expect("what is shown");
    let mut rest = child.wait_with_output().expect("the end of script");
    drop(input);
    rest.stdout = shown;
    rest
}

/// Reads until `awaited` stands in `shown` after `from`; false when the output ends before.
fn await_text(
    output: &mut impl Read,
    shown: &mut Vec<u8>,
    from: &mut usize,
    awaited: &str,
) -> bool {
    let mut some = [0; 1024];
    loop {
        let found = String::from_utf8_lossy(&shown[*from..]).contains(awaited);
        if found {
            *from = shown.len();
            return true;
        }
        // Not for ever: the line ends in time.
        match output.read(&mut some).expect("what is shown") {
            0 => return false,
            count => shown.extend_from_slice(&some[..count]),
        }
    }
}
