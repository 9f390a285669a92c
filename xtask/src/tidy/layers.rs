//! The layer rules of DESIGN section 2, read off `cargo metadata`.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::sh;

/// Which workspace crates each crate may use outside tests. A crate that is not here is a breach: its line in
/// ARCHITECTURE.md and here come together.
const MAY_USE: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("db", &["sys"]),
    ("api", &[]),
    ("image", &["sys", "db"]),
    ("registry", &["image", "sys"]),
    ("network", &["sys", "db"]),
    ("runtime", &["sys"]),
    ("shim", &["runtime", "sys", "network"]),
    (
        "engine",
        &[
            "image", "registry", "network", "shim", "runtime", "sys", "db", "api",
        ],
    ),
    ("server", &["engine", "api", "sys"]),
    ("testkit", &["sys", "db", "network"]),
    ("cooper", &["server", "shim", "runtime"]),
    ("xtask", &["testkit"]),
];

/// Third-party crates that only these workspace crates may use.
const CONFINED: &[(&str, &[&str])] = &[
    ("libc", &["sys"]),
    ("rustix", &["sys"]),
    ("hyper", &["server", "registry", "cli", "testkit"]),
    ("hyper-util", &["server", "registry", "cli", "testkit"]),
    ("http-body-util", &["server", "registry", "cli", "testkit"]),
    (
        "tokio",
        &["engine", "registry", "server", "cli", "testkit", "xtask"],
    ),
    ("rusqlite", &["db"]),
    ("anyhow", &["xtask", "testkit"]),
];

/// More locked packages than this need a second look at what they bring.
const LOCKED_PACKAGES_MAX: usize = 300;

/// Where people read the same table.
const MAP: &str = "ARCHITECTURE.md";

/// Answers one line a breach in the workspace at `root`.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let metadata = sh::read(sh::cargo().args(["metadata", "--format-version=1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata")?;
    let mut breaches = check_metadata(&metadata)?;
    let map = std::fs::read_to_string(root.join(MAP)).context(MAP)?;
    check_map(&map, &mut breaches);
    Ok(breaches)
}

fn check_metadata(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"]
        .as_array()
        .context("packages of cargo metadata")?;
    let ours: Vec<&Value> = packages
        .iter()
        .filter(|package| package["source"].is_null())
        .collect();
    let mut breaches = Vec::new();
    if packages.len() > LOCKED_PACKAGES_MAX {
        breaches.push(format!(
            "Cargo.lock: {} packages, the cap is {LOCKED_PACKAGES_MAX}",
            packages.len()
        ));
    }
    for package in &ours {
        check_package(package, &ours, &mut breaches);
    }
    Ok(breaches)
}

/// The last column of the map's table of crates says what [`MAY_USE`] says.
fn check_map(map: &str, breaches: &mut Vec<String>) {
    for (name, allowed) in MAY_USE {
        let rows = [format!("| `crates/{name}`"), format!("| `{name}`")];
        let row = map
            .lines()
            .find(|line| rows.iter().any(|row| line.starts_with(row)));
        let Some(row) = row else {
            breaches.push(format!("{MAP}: no row for {name}"));
            continue;
        };
        let last = row.trim_end_matches(['|', ' ']).rsplit('|').next();
        let mut told: Vec<&str> = last
            .unwrap_or_default()
            .split(',')
            .map(|word| word.trim().split(' ').next().unwrap_or_default())
            .filter(|word| !["–", ""].contains(word))
            .collect();
        let mut allowed = allowed.to_vec();
        told.sort_unstable();
        allowed.sort_unstable();
        if told != allowed {
            breaches.push(format!(
                "{MAP}: says that {name} may use {told:?}, tidy says {allowed:?}"
            ));
        }
    }
}

fn check_package(package: &Value, ours: &[&Value], breaches: &mut Vec<String>) {
    let name = package["name"].as_str().unwrap_or_default();
    let Some((_, allowed)) = MAY_USE.iter().find(|(known, _)| *known == name) else {
        breaches.push(format!(
            "{name}: not in the layer table of tidy and ARCHITECTURE.md"
        ));
        return;
    };
    let dependencies = package["dependencies"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    for dependency in dependencies.iter().filter(|d| d["kind"] != "dev") {
        let used = dependency["name"].as_str().unwrap_or_default();
        if ours.iter().any(|p| p["name"] == used) && !allowed.contains(&used) {
            breaches.push(format!("{name}: may not use {used} (DESIGN section 2)"));
        }
        if let Some((_, homes)) = CONFINED.iter().find(|(confined, _)| *confined == used)
            && !homes.contains(&name)
        {
            breaches.push(format!(
                "{name}: {used} is confined to {}",
                homes.join(", ")
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A workspace crate called `name` that uses `dependency` in this kind (null: the product).
    fn workspace(name: &str, dependency: &str, kind: &Value) -> Value {
        let ours = |name: &str, dependencies: Value| json!({"name": name, "source": null, "dependencies": dependencies});
        let used = json!([{"name": dependency, "kind": kind}]);
        json!({"packages": [
            ours(name, used), ours("engine", json!([])), ours("testkit", json!([])), ours("api", json!([])),
        ]})
    }

    #[test]
    fn each_rule_finds_its_breach() {
        let cases = [
            ("newcomer", "serde", "not in the layer table"),
            ("sys", "api", "sys: may not use api"),
            ("network", "engine", "network: may not use engine"),
            ("shim", "testkit", "shim: may not use testkit"),
            ("runtime", "tokio", "tokio is confined"),
            ("network", "tokio", "tokio is confined"),
            ("db", "tokio", "tokio is confined"),
            ("engine", "libc", "libc is confined to sys"),
            ("shim", "rustix", "rustix is confined to sys"),
            ("image", "hyper", "hyper is confined"),
            ("engine", "rusqlite", "rusqlite is confined to db"),
            ("engine", "anyhow", "anyhow is confined"),
        ];
        for (name, dependency, complaint) in cases {
            let found = check_metadata(&workspace(name, dependency, &Value::Null)).unwrap();
            assert_eq!(found.len(), 1, "{name} {dependency}: {found:?}");
            assert!(found[0].contains(complaint), "{found:?}");
            let build = check_metadata(&workspace(name, dependency, &json!("build"))).unwrap();
            assert_eq!(found, build, "a build script is no test");
        }
        let crowd = vec![json!({"name": "x", "source": "registry"}); LOCKED_PACKAGES_MAX + 1];
        let found = check_metadata(&json!({"packages": crowd})).unwrap();
        assert!(found[0].contains("the cap is"), "{found:?}");
    }

    #[test]
    fn tests_may_use_what_the_product_may_not() {
        let found = check_metadata(&workspace("image", "tokio", &json!("dev"))).unwrap();
        assert_eq!(found, Vec::<String>::new());
        let found = check_metadata(&workspace("server", "engine", &Value::Null)).unwrap();
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn the_map_must_say_the_same() {
        let row = |(name, allowed): &(&str, &[&str])| match allowed.is_empty() {
            true => format!("| `crates/{name}` | x | – |\n"),
            false => format!("| `crates/{name}` | x | {} (y) |\n", allowed.join(", ")),
        };
        let map: String = MAY_USE.iter().map(row).collect();
        let mut breaches = Vec::new();
        check_map(&map, &mut breaches);
        assert_eq!(breaches, Vec::<String>::new());
        check_map(&map.replace("| sys, db (y) |", "| sys |"), &mut breaches);
        assert_eq!(breaches.len(), 2, "{breaches:?}");
        let mut breaches = Vec::new();
        check_map(&map.replace("| `crates/db`", "| db"), &mut breaches);
        assert_eq!(breaches, ["ARCHITECTURE.md: no row for db"]);
    }
}
