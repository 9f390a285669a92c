//! `cargo xtask tidy`: the house rules that rustfmt and clippy do not know (STYLE section 1, DESIGN section 2).
//!
//! [`layers`] checks who may depend on whom, [`text`] what stands in the sources, [`functions`] how long they are,
//! [`tasks`] what runs beside what. A rule that a place must break is broken there with a line that says why, never by an exception here.

mod functions;
mod layers;
mod tasks;
mod text;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::sh;

/// Checks every rule and lists every breach.
pub(crate) fn run() -> Result<()> {
    let root = sh::root();
    let mut breaches = layers::check(&root)?;
    for path in tracked(&root)? {
        let Ok(content) = std::fs::read_to_string(root.join(&path)) else {
            continue;
        };
        breaches.extend(text::check(&path, &content));
    }
    for breach in &breaches {
        println!("{breach}");
    }
    match breaches.len() {
        0 => {
            println!("tidy: every house rule holds");
            Ok(())
        }
        count => bail!("tidy: {count} breaches of the house rules"),
    }
}

fn tracked(root: &Path) -> Result<Vec<PathBuf>> {
    let listed = sh::read(
        sh::command("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(root),
    )?;
    Ok(listed.lines().map(PathBuf::from).collect())
}
