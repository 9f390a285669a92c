//! Rules on the text of the sources, line by line.

use std::path::Path;

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

/// Answers one line a breach of `path`, whose text is `content`.
pub(super) fn check(path: &Path, content: &str) -> Vec<String> {
    let name = path.to_string_lossy();
    let mut breaches = Vec::new();
    if name.ends_with("Cargo.toml") && name != "Cargo.toml" {
        check_manifest(&name, content, &mut breaches);
    }
    // This file's table and tests name what they forbid.
    if name.ends_with(".rs") && name != "xtask/src/tidy/text.rs" {
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
    let mut in_tests = ["tests/", "/tests/", "/examples/", "/benches/", "testkit"]
        .iter()
        .any(|place| name.starts_with(place) || name.contains(place))
        || name.ends_with("tests.rs");
    let mut after_cfg_test = false;
    for (number, line) in (1..).zip(content.lines()) {
        in_tests |= after_cfg_test && line.starts_with("mod ") && line.ends_with('{');
        after_cfg_test = line == "#[cfg(test)]";
        let place = if in_tests {
            Place::Test
        } else {
            Place::Product
        };
        for complaint in complaints(name, line, place) {
            breaches.push(format!("{name}:{number}: {complaint}"));
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Product,
    Test,
}

fn complaints(name: &str, line: &str, place: Place) -> Vec<&'static str> {
    let code = line.trim_start();
    let is_comment = code.starts_with("//");
    let product = place == Place::Product;
    let xtask = name.starts_with("xtask/");
    let has = |needle: &str| !is_comment && code.contains(needle);
    let rules = [
        (
            UNFINISHED.iter().any(|(a, b)| contains_phrase(line, a, b)),
            "announces unfinished work",
        ),
        (
            !name.starts_with("crates/sys/")
                && (has("unsafe {") || has("unsafe fn") || has("unsafe impl")),
            "unsafe lives in crates/sys only",
        ),
        (
            product && has("let _ ="),
            "`let _ =` hides a result: handle it, or `drop` with a reason",
        ),
        (
            has("unbounded_channel") || has("mpsc::channel()"),
            "every queue has a named limit",
        ),
        (
            product && !xtask && unnamed_duration(code) && !is_comment,
            "a wait is a named const with its reason",
        ),
        (
            !product && sleeps_for_a_number(code) && !is_comment,
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

fn contains_phrase(line: &str, first: &str, second: &str) -> bool {
    line.match_indices(first).any(|(at, _)| {
        let rest = &line[at + first.len()..];
        let before = line[..at].chars().next_back();
        rest.starts_with(second)
            && !rest[second.len()..].starts_with(|c: char| c.is_ascii_alphanumeric())
            && !before.is_some_and(|c| c.is_ascii_alphanumeric())
    })
}

/// A poll's interval has a name; `sleep(Duration::from_millis(50))` hopes.
fn sleeps_for_a_number(code: &str) -> bool {
    let argument = code
        .split_once("thread::sleep(")
        .or_else(|| code.split_once("time::sleep("));
    argument.is_some_and(|(_, rest)| rest.contains(|c: char| c.is_ascii_digit()))
}

fn unnamed_duration(code: &str) -> bool {
    let literal = ["Duration::from_secs(", "Duration::from_millis("]
        .iter()
        .any(|call| {
            code.split_once(call)
                .is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()))
        });
    literal && !code.contains("const ") && !code.contains("static ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaches(name: &str, content: &str) -> Vec<String> {
        check(Path::new(name), content)
    }

    #[test]
    fn each_rule_finds_its_breach() {
        let cases: &[(&str, &str)] = &[
            ("crates/a/src/lib.rs", "fn main() {}\n"),
            ("crates/a/src/lib.rs", "//! a\nfn f() { let _ = g(); }\n"),
            ("crates/a/src/lib.rs", "//! a\n// works for now\n"),
            ("crates/a/src/lib.rs", "//! a\nfn f() { unsafe { g() } }\n"),
            (
                "crates/a/src/lib.rs",
                "//! a\nwait(Duration::from_secs(3));\n",
            ),
            (
                "crates/a/tests/x.rs",
                "//! a\nstd::thread::sleep(Duration::from_millis(5));\n",
            ),
            ("crates/a/src/lib.rs", "//! a\n#[allow(dead_code)]\n"),
            (
                "crates/a/Cargo.toml",
                "[lints]\nworkspace = true\n[dependencies]\nx = { version = \"1\" }\n",
            ),
            ("crates/a/Cargo.toml", "[dependencies]\n"),
        ];
        for (name, content) in cases {
            assert_eq!(breaches(name, content).len(), 1, "{name}: {content}");
        }
    }

    #[test]
    fn clean_sources_pass() {
        let clean = "//! Owns a.\nconst WAIT: Duration = Duration::from_secs(3);\n// for nowhere, for knowing\n";
        assert_eq!(breaches("crates/a/src/lib.rs", clean), Vec::<String>::new());
        let long = format!("//! a\n{}", "\n".repeat(LINES_MAX));
        assert_eq!(breaches("crates/a/src/lib.rs", &long).len(), 1);
    }
}
