//! The README's table of endpoints is the route table.

use std::fmt::Write;
use std::path::Path;

use server::{Coverage, TableRow};

const BEGIN: &str = "<!-- begin: routes -->\n";
const END: &str = "<!-- end: routes -->";

/// The rows of one coverage, an area a line: `/containers` with its verbs and paths.
fn rows(table: &[TableRow], coverage: Coverage) -> String {
    let mut text = String::new();
    let mut area = "";
    for row in table.iter().filter(|row| row.coverage == coverage) {
        let first = row
            .path
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default();
        if first == area {
            text.push_str(", ");
        } else {
            let separator = if area.is_empty() { "" } else { " |\n" };
            write!(text, "{separator}| `/{first}` | ").expect("writing to a string");
            area = first;
        }
        write!(text, "{} `{}`", row.verb, row.path).expect("writing to a string");
    }
    text.push_str(" |\n");
    text
}

fn section() -> String {
    let mut table = server::route_table();
    table.sort_by(|a, b| (a.path, a.verb).cmp(&(b.path, b.verb)));
    let head = "| area | operations |\n|---|---|\n";
    format!(
        "Works, in every API version that has it:\n\n{head}{}\n\
         Not there yet; answers 501 and says so:\n\n{head}{}\n\
         Swarm mode is not part of Cooper; these answer as an engine that is in no swarm:\n\n{head}{}",
        rows(&table, Coverage::Served),
        rows(&table, Coverage::NotYet),
        rows(&table, Coverage::Inactive),
    )
}

/// `COOPER_WRITE=1 cargo test -p server --test readme` writes what this compares.
#[test]
fn the_table_in_the_readme_is_the_route_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(&path).expect("the README");
    let (head, rest) = readme.split_once(BEGIN).expect("a begin marker");
    let (table, tail) = rest.split_once(END).expect("an end marker");
    let expected = section();
    if std::env::var_os("COOPER_WRITE").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{expected}{END}{tail}"))
            .expect("write the README");
        return;
    }
    assert_eq!(
        table, expected,
        "run: COOPER_WRITE=1 cargo test -p server --test readme"
    );
}
