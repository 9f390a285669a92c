//! The length of functions. Clippy counts too, but takes what follows a `/*` in a string for a comment.

/// The most lines of code in one function; a table's rows do not count.
const LINES_MAX: usize = 70;

/// What a function that must be longer says, with its reason, above itself.
const LONGER: &str = "clippy::too_many_lines";

/// How far above a function that may stand, in lines: attributes.
const ABOVE: usize = 8;

/// Answers one line for each function of `content`, as rustfmt leaves it, that is too long.
pub(super) fn check(name: &str, content: &str) -> Vec<String> {
    let lines: Vec<&str> = content.lines().collect();
    let starts = (0..lines.len()).filter(|&at| is_function(lines[at]));
    starts
        .filter(|&at| {
            let above = &lines[at.saturating_sub(ABOVE)..at];
            !above.iter().any(|line| line.contains(LONGER))
        })
        .filter_map(|at| {
            let length = length(&lines[at..]);
            (length > LINES_MAX).then(|| {
                let number = at + 1;
                format!("{name}:{number}: a function of {length} lines, at most {LINES_MAX}")
            })
        })
        .collect()
}

fn is_function(line: &str) -> bool {
    let words = line.trim_start();
    let words = words.strip_prefix("pub").map_or(words, |rest| {
        rest.split_once(' ').map_or(rest, |(_, rest)| rest)
    });
    let before = words.split_once("fn ").map(|(before, _)| before);
    before.is_some_and(|before| {
        before
            .split_ascii_whitespace()
            .all(|word| ["const", "async", "unsafe", "extern", "\"C\""].contains(&word))
    })
}

/// Lines of code between the opening of the body and the brace that closes it; 0 where there is no body.
fn length(lines: &[&str]) -> usize {
    let indent: String = lines[0].chars().take_while(|c| *c == ' ').collect();
    let Some(open) = lines
        .iter()
        .position(|line| line.ends_with(['{', ';', '}']))
    else {
        return 0;
    };
    if !lines[open].ends_with('{') {
        return 0;
    }
    let close = format!("{indent}}}");
    let body = lines[open + 1..].iter().take_while(|line| **line != close);
    body.filter(|line| is_code(line.trim())).count()
}

fn is_code(line: &str) -> bool {
    let is_row = line.starts_with('"') && line.ends_with("\",");
    !(line.is_empty() || line.starts_with("//") || is_row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(lines: usize) -> String {
        let body =
            "        // why\n\n        \"/*\",\n".to_owned() + &"        f();\n".repeat(lines);
        format!(
            "impl A {{\n    pub(crate) async fn g(\n        x: u8,\n    ) -> u8 {{\n{body}    }}\n}}\n"
        )
    }

    #[test]
    fn only_what_is_too_long_and_gives_no_reason_is_a_breach() {
        assert_eq!(check("a.rs", &function(LINES_MAX)), Vec::<String>::new());
        let long = function(LINES_MAX + 1);
        assert_eq!(
            check("a.rs", &long),
            ["a.rs:2: a function of 71 lines, at most 70"]
        );
        let reasoned = long.replace(
            "    pub(crate)",
            "    #[expect(clippy::too_many_lines, reason = \"one scenario\")]\n    pub(crate)",
        );
        assert_eq!(check("a.rs", &reasoned), Vec::<String>::new());
        let trait_method = format!("    fn g();\n{}", "        f();\n".repeat(LINES_MAX + 1));
        assert_eq!(check("a.rs", &trait_method), Vec::<String>::new());
    }
}
