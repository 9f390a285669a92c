//! The layer rules of DESIGN section 2, read off `cargo metadata`.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::sh;

/// Which workspace crates each crate may use outside tests. A crate that is not here is a breach: its line in
/// ARCHITECTURE.md and here come together.
const MAY_USE: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("db", &[]),
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
    ("server", &["engine", "registry", "api", "sys"]),
    ("testkit", &["api", "sys", "db", "network"]),
    ("cooper", &["server", "shim", "runtime", "sys", "engine"]),
    ("xtask", &["server", "testkit"]),
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

/// Answers one line a breach.
pub(super) fn check() -> Result<Vec<String>> {
    let metadata = sh::read(sh::cargo().args(["metadata", "--format-version=1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata")?;
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
