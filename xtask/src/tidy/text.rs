//! Rules on the text of the sources, line by line.

use std::path::Path;

use super::{functions, tasks};

/// A source file longer than this wants a second room.
const LINES_MAX: usize = 800;

/// Phrases that announce unfinished work; the first part is split so that this table is not its own breach.
const UNFINISHED: &[(&str, &str)] = &[
    ("for ", "now"),
    ("simpli", "fied"),
    ("in a real ", "implementation"),
    ("TO", "DO"),
    ("FIX", "ME"),
    ("unimplemented", "!("),
    ("todo", "!("),
];

/// Files whose tables and tests name what they forbid.
const TABLES: &[&str] = &["xtask/src/tidy/tasks.rs", "xtask/src/tidy/text.rs"];

/// What is read for [`UNFINISHED`] besides sources.
const PROSE: &[&str] = &[".md", ".toml", ".sh", ".service", ".socket"];

/// What a changelog's sections may be called (Keep a Changelog 1.1.0).
const CHANGES: &[&str] = &[
    "Added",
    "Changed",
    "Deprecated",
    "Removed",
    "Fixed",
    "Security",
];

/// Ways to make a channel or a queue that has no end.
const UNBOUNDED: &[&str] = &[
    "unbounded_channel",
    "UnboundedSender",
    "::unbounded(",
    "mpsc::channel()",
    "mpsc::channel::<",
    "use std::sync::mpsc::channel",
];

/// Where `unsafe` begins something; the lint's own name counts too.
const UNSAFE: &[&str] = &[
    "unsafe {",
    "unsafe fn",
    "unsafe impl",
    "unsafe trait",
    "unsafe extern",
    "#[unsafe(",
    "unsafe_code",
];

/// The only file that may switch the lint against `unsafe` off.
const UNSAFE_HOME: &str = "crates/sys/src/lib.rs";

/// Answers one line a breach of `path`, whose text is `content`.
pub(super) fn check(path: &Path, content: &str) -> Vec<String> {
    let name = path.to_string_lossy();
    let mut breaches = Vec::new();
    if name.ends_with("Cargo.toml") && name != "Cargo.toml" {
        check_manifest(&name, content, &mut breaches);
    }
    if name == "CHANGELOG.md" {
        check_changelog(&name, content, &mut breaches);
    }
    if PROSE.iter().any(|end| name.ends_with(end)) {
        for (number, line) in (1..).zip(content.lines()) {
            if announces(line) {
                breaches.push(format!("{name}:{number}: announces unfinished work"));
            }
        }
    }
    if name.ends_with(".rs") && !TABLES.contains(&&*name) {
        check_source(&name, content, &mut breaches);
    }
    breaches
}

fn check_manifest(name: &str, content: &str, breaches: &mut Vec<String>) {
    if !content.contains("[lints]\nworkspace = true") {
        breaches.push(format!("{name}: does not take the workspace's lints"));
    }
    for (number, line) in (1..).zip(content.lines()) {
        if line.starts_with("version = \"") || line.contains("{ version") || line.contains("git = ")
        {
            breaches.push(format!(
                "{name}:{number}: versions stand in the root Cargo.toml, git nowhere"
            ));
        }
    }
}

fn check_changelog(name: &str, content: &str, breaches: &mut Vec<String>) {
    for (number, line) in (1..).zip(content.lines()) {
        let section = line.strip_prefix("### ");
        let good = match line.strip_prefix("## ") {
            Some(version) => version.starts_with('[') && version.contains(']'),
            None => section.is_none_or(|title| CHANGES.contains(&title)),
        };
        if !good {
            breaches.push(format!(
                "{name}:{number}: neither `## [version]` nor a section of Keep a Changelog"
            ));
        }
    }
}

fn check_source(name: &str, content: &str, breaches: &mut Vec<String>) {
    if !content.starts_with("//!") {
        breaches.push(format!(
            "{name}:1: opens without `//!`: what it owns, what it must not do"
        ));
    }
    let lines = content.lines().count();
    if lines > LINES_MAX {
        breaches.push(format!("{name}: {lines} lines, at most {LINES_MAX}"));
    }
    breaches.extend(functions::check(name, content));
    breaches.extend(tasks::check(name, content));
    let mut in_tests = ["tests/", "/tests/", "/examples/", "/benches/", "testkit"]
        .iter()
        .any(|place| name.starts_with(place) || name.contains(place))
        || name.ends_with("tests.rs");
    let mut before = "";
    for (number, line) in (1..).zip(content.lines()) {
        in_tests |= before == "#[cfg(test)]" && line.starts_with("mod ") && line.ends_with('{');
        let place = if in_tests {
            Place::Test
        } else {
            Place::Product
        };
        for complaint in complaints(name, before, line, place) {
            breaches.push(format!("{name}:{number}: {complaint}"));
        }
        before = line;
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Product,
    Test,
}

fn complaints(name: &str, before: &str, line: &str, place: Place) -> Vec<&'static str> {
    let code = line.trim_start();
    if code.starts_with("//") {
        return match announces(line) {
            true => vec!["announces unfinished work"],
            false => Vec::new(),
        };
    }
    let product = place == Place::Product;
    let xtask = name.starts_with("xtask/");
    let has = |needle: &str| code.contains(needle);
    let rules = [
        (announces(line), "announces unfinished work"),
        (
            name != UNSAFE_HOME && has("unsafe_code")
                || !name.starts_with("crates/sys/") && UNSAFE.iter().any(|one| has(one)),
            "unsafe lives in crates/sys only",
        ),
        (
            product
                && (has("let _ =") || has("let _: ") || code.starts_with("_ = ") && !has(" => ")),
            "`let _ =` hides a result: handle it, or `drop` with a reason",
        ),
        (
            product && drops_in_silence(before, code),
            "`drop` of what a call answers: the reason stands above it",
        ),
        (
            product && tasks::is_uncounted(before, code),
            "a task that nobody counts: a tracker spawns it, or a line above says who waits for it",
        ),
        (
            UNBOUNDED.iter().any(|one| has(one)),
            "every queue has a named limit",
        ),
        (
            product && !xtask && unnamed_duration(before, code),
            "a wait is a named const with its reason",
        ),
        (
            !product && sleeps_for_a_number(code),
            "wait for a condition, not for a time",
        ),
        (
            code.starts_with("#[ignore") || code.starts_with("#[should_panic"),
            "no #[ignore], no #[should_panic]",
        ),
        (
            code.starts_with("#[allow(") || code.starts_with("#![allow("),
            "#[expect(…, reason)] instead of #[allow]",
        ),
    ];
    rules
        .into_iter()
        .filter(|(broken, _)| *broken)
        .map(|(_, complaint)| complaint)
        .collect()
}

fn announces(line: &str) -> bool {
    UNFINISHED.iter().any(|(a, b)| contains_phrase(line, a, b))
}

fn contains_phrase(line: &str, first: &str, second: &str) -> bool {
    line.match_indices(first).any(|(at, _)| {
        let rest = &line[at + first.len()..];
        let before = line[..at].chars().next_back();
        rest.starts_with(second)
            && !rest[second.len()..].starts_with(|c: char| c.is_ascii_alphanumeric())
            && !before.is_some_and(|c| c.is_ascii_alphanumeric())
    })
}

/// Answers that are no results, or whose end is the point.
const DROPPED: &[&str] = &[".take()", ".pop()", ".drain("];

/// Whether the answer of a call is dropped, and neither the line `before` (a comment, or one more drop under it) nor
/// this one says why.
fn drops_in_silence(before: &str, code: &str) -> bool {
    let reasoned = ["// ", "drop("]
        .iter()
        .any(|one| before.trim_start().starts_with(one));
    let Some((_, dropped)) = code.split_once("drop(") else {
        return false;
    };
    let is_a_value = dropped.starts_with(|c: char| c.is_ascii_uppercase() || c == '(');
    let is_a_call =
        dropped.contains('(') && !is_a_value && !DROPPED.iter().any(|one| dropped.contains(one));
    is_a_call && !reasoned && !code.contains("//") && !code.contains("fn drop(")
}

/// A poll's interval has a name; `sleep(Duration::from_millis(50))` hopes.
fn sleeps_for_a_number(code: &str) -> bool {
    let argument = code
        .split_once("thread::sleep(")
        .or_else(|| code.split_once("time::sleep("));
    argument.is_some_and(|(_, rest)| rest.contains(|c: char| c.is_ascii_digit()))
}

/// `Duration::from_secs(3)` and its like outside a constant, whose line may be the one `before`.
fn unnamed_duration(before: &str, code: &str) -> bool {
    let is_constant = |line: &str| line.contains("const ") || line.contains("static ");
    let literal = code.match_indices("Duration::from_").any(|(at, call)| {
        match code[at + call.len()..].split_once('(') {
            Some((_, rest)) => rest.starts_with(|c: char| c.is_ascii_digit()),
            None => false,
        }
    });
    literal && !is_constant(code) && !(is_constant(before) && before.trim_end().ends_with('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaches(name: &str, content: &str) -> Vec<String> {
        check(Path::new(name), content)
    }

    /// Every rule, and what it says of one line that breaks it.
    #[test]
    fn each_rule_finds_its_breach() {
        let product = "crates/a/src/lib.rs";
        let test = "crates/a/tests/x.rs";
        let cases: &[(&str, &str, &str)] = &[
            (product, "let _ = g();", "hides a result"),
            (product, "let _: Result<()> = g();", "hides a result"),
            (product, "_ = g();", "hides a result"),
            (product, "drop(file.sync_all());", "the reason stands"),
            (product, "Err(e) => drop(g()),", "the reason stands"),
            (product, "drop(write(", "the reason stands"),
            (product, "tokio::spawn(g());", "nobody counts"),
            (
                product,
                "let a = tokio::task::spawn_blocking(g);",
                "nobody counts",
            ),
            (product, "// works for now", "unfinished"),
            (product, "// a simplified form", "unfinished"),
            (product, "// in a real implementation", "unfinished"),
            (product, "todo!()", "unfinished"),
            (product, "unsafe { g() }", "unsafe lives"),
            (product, "unsafe extern \"C\" {", "unsafe lives"),
            (product, "#[unsafe(no_mangle)]", "unsafe lives"),
            (
                product,
                "#![expect(unsafe_code, reason = \"\")]",
                "unsafe lives",
            ),
            (
                "crates/sys/src/mount.rs",
                "#![expect(unsafe_code, reason = \"\")]",
                "unsafe lives",
            ),
            (product, "wait(Duration::from_secs(3));", "named const"),
            (product, "wait(Duration::from_mins(3));", "named const"),
            (product, "let (a, b) = unbounded_channel();", "named limit"),
            (test, "let (a, b) = mpsc::channel();", "named limit"),
            (
                product,
                "let (a, b) = mpsc::channel::<u8>();",
                "named limit",
            ),
            (
                test,
                "std::thread::sleep(Duration::from_millis(5));",
                "not for a time",
            ),
            (test, "#[ignore]", "no #[ignore]"),
            (test, "#[should_panic]", "no #[ignore]"),
            (product, "#[allow(dead_code)]", "instead of #[allow]"),
        ];
        for (name, line, complaint) in cases {
            let found = breaches(name, &format!("//! Owns a.\n{line}\n"));
            assert_eq!(found.len(), 1, "{name}: {line}: {found:?}");
            assert!(found[0].contains(complaint), "{line}: {found:?}");
        }
    }

    #[test]
    fn each_rule_on_a_whole_file_finds_its_breach() {
        let long = format!("//! a\n{}", "\n".repeat(LINES_MAX));
        let versioned = "[lints]\nworkspace = true\n[dependencies]\nx = { version = \"1\" }\n";
        let cases: &[(&str, &str, &str)] = &[
            ("crates/a/src/lib.rs", "fn main() {}\n", "opens without"),
            ("crates/a/src/lib.rs", &long, "at most 800"),
            ("crates/a/Cargo.toml", versioned, "versions stand"),
            ("crates/a/Cargo.toml", "[dependencies]\n", "lints"),
            ("README.md", "It works for now.\n", "unfinished"),
            ("CHANGELOG.md", "## [1.0.0]\n### News\n", "Keep a Changelog"),
            ("CHANGELOG.md", "## 1.0.0\n", "Keep a Changelog"),
        ];
        for (name, content, complaint) in cases {
            let found = breaches(name, content);
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            assert!(found[0].contains(complaint), "{name}: {found:?}");
        }
    }

    #[test]
    fn clean_sources_pass() {
        let clean = "//! Owns a.\nconst WAIT: Duration = Duration::from_secs(3);\n\
            const LONG: Option<Duration> =\n    Some(Duration::from_secs(3));\n\
            // for nowhere, for knowing, unsafe {\nlet (a, b) = mpsc::channel(MESSAGES);\n\
            // Nobody listens any more.\ndrop(to.send(1));\ndrop(to.send(2));\ndrop(guard);\n\
            drop(Self(Some(child)));\ndrop(self.take());\nfn drop(&mut self) {\n\
            // Awaited below.\nlet read = tokio::task::spawn_blocking(read);\nself.threads.spawn_blocking(work);\n\
            _ = stop.recv() => break,\nself.ids.range((Bound::Unbounded, Bound::Unbounded));\n";
        assert_eq!(breaches("crates/a/src/lib.rs", clean), Vec::<String>::new());
        let tests = "//! a\n#[cfg(test)]\nmod tests {\n    wait(Duration::from_secs(3));\n}\n";
        assert_eq!(breaches("crates/a/src/lib.rs", tests), Vec::<String>::new());
        let log = "## [Unreleased]\n### Added\n- It waits.\n";
        assert_eq!(breaches("CHANGELOG.md", log), Vec::<String>::new());
    }
}
