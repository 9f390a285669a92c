//! Rules on what an async crate runs where: every task is counted by somebody, and no file is read on the runtime's
//! own threads.

/// Ways to begin a task that no tracker counts, so that no shutdown waits for it.
const UNCOUNTED: &[&str] = &[
    "tokio::spawn(",
    "task::spawn(",
    "task::spawn_blocking(",
    "Handle::current().spawn",
];

/// The crates with a runtime.
const ASYNC: &[&str] = &[
    "crates/engine/src/",
    "crates/registry/src/",
    "crates/server/src/",
];

/// What waits for a disk.
const BLOCKING: &[&str] = &[
    "std::fs::",
    " fs::",
    "(fs::",
    "File::open(",
    "File::create(",
];

/// Whether `code` begins a task that nobody counts, and the line `before` does not say why.
pub(super) fn is_uncounted(before: &str, code: &str) -> bool {
    UNCOUNTED.iter().any(|one| code.contains(one)) && !before.trim_start().starts_with("// ")
}

/// Answers one line for each place of `content`, as rustfmt leaves it, where the body of an async function or block
/// waits for a disk itself and not in a closure that somebody runs on a thread. Tests may.
pub(super) fn check(name: &str, content: &str) -> Vec<String> {
    if !ASYNC.iter().any(|place| name.starts_with(place)) || name.ends_with("tests.rs") {
        return Vec::new();
    }
    let mut breaches = Vec::new();
    // What ends the async body we are in, and the closure in it.
    let (mut body, mut closure): (Option<String>, Option<String>) = (None, None);
    for (number, line) in (1..).zip(content.lines()) {
        if line.starts_with("#[cfg(test)]") {
            break;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let closes = |end: &String| line.starts_with(end.as_str());
        if body.is_none() {
            let opens = line.contains("async fn ")
                || line.ends_with("async move {")
                || line.ends_with("async {");
            body = opens.then(|| format!("{indent}}}"));
        } else if body.as_ref().is_some_and(closes) {
            (body, closure) = (None, None);
        } else if closure.as_ref().is_some_and(closes) {
            closure = None;
        } else if closure.is_none() {
            let code = line.trim_start();
            closure = line.ends_with("|| {").then(|| format!("{indent}}}"));
            if !code.starts_with("//") && waits_for_a_disk(line) {
                breaches.push(format!(
                    "{name}:{number}: a disk is waited for on a thread for that: `Inner::blocking`"
                ));
            }
        }
    }
    breaches
}

fn waits_for_a_disk(line: &str) -> bool {
    let blocking = BLOCKING.iter().any(|one| line.contains(one));
    blocking && !line.contains("tokio::fs") && !line.contains("|| ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_nobody_counts_says_why() {
        assert!(is_uncounted("let x = 1;", "tokio::spawn(async {});"));
        assert!(is_uncounted(
            "{",
            "let read = tokio::task::spawn_blocking(move || {"
        ));
        assert!(!is_uncounted(
            "    // Awaited below.",
            "let read = task::spawn_blocking(read);"
        ));
        assert!(!is_uncounted("{", "self.threads.spawn_blocking(work)"));
    }

    #[test]
    fn an_async_body_reads_no_file_itself() {
        let found = |body: &str| check("crates/engine/src/a.rs", body).len();
        assert_eq!(
            found("async fn f() {\n    let x = std::fs::read(p)?;\n}\n"),
            1
        );
        assert_eq!(
            found("    spawn(async move {\n        let x = File::open(p);\n    });\n"),
            1
        );
        let inside = "async fn f() {\n    blocking(move || {\n        std::fs::read(p)\n    });\n    fs::write(p);\n}\n";
        assert_eq!(found(inside), 1);
        assert_eq!(found("fn f() {\n    std::fs::read(p);\n}\n"), 0);
        assert_eq!(
            found(
                "async fn f() {\n    tokio::fs::read(p);\n    on_a_thread(|| std::fs::read(p));\n}\n"
            ),
            0
        );
        assert_eq!(
            check(
                "crates/sys/src/a.rs",
                "async fn f() {\n    std::fs::read(p);\n}\n"
            ),
            Vec::<String>::new()
        );
    }
}
