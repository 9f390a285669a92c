//! Makes sure that a tool is there, and says so when it has to install it.

use std::path::Path;

use anyhow::{Result, bail};

use crate::sh;

/// Makes sure that each Debian package is installed. Asks for nothing; needs root when one is missing.
pub(crate) fn debian(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|name| !is_installed(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() {
        bail!(
            "Debian packages are missing: as root, run: apt-get install {}",
            missing.join(" ")
        );
    }
    println!("installing from Debian: {}", missing.join(" "));
    sh::run(sh::command("apt-get").args(["update", "-qq"]))?;
    let mut install = sh::command("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    sh::run(
        install
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(&missing),
    )
}

/// Makes sure that `command` can be run, from wherever it came; else installs the first of `packages` that
/// this release of Debian has.
pub(crate) fn one_of(command: &str, packages: &[&str]) -> Result<()> {
    if sh::read(sh::command(command).arg("--version")).is_ok() {
        return Ok(());
    }
    if is_root() {
        sh::run(sh::command("apt-get").args(["update", "-qq"]))?;
    }
    let Some(package) = packages.iter().find(|name| is_available(name)) else {
        bail!(
            "the command {command} is missing, and this release of Debian has none of {}: install it by hand",
            packages.join(", ")
        );
    };
    debian(&[package])
}

/// Makes sure that `cargo <tool>` works, by `cargo install` when it does not.
pub(crate) fn cargo_tool(tool: &str) -> Result<()> {
    if sh::read(sh::cargo().args([tool, "--version"])).is_ok() {
        return Ok(());
    }
    let name = format!("cargo-{tool}");
    println!("installing {name}: a few minutes, once");
    // Out of the workspace, so that its static target settings do not apply to the tool.
    sh::run(
        sh::cargo()
            .args(["install", "--locked", "--quiet", &name])
            .current_dir("/"),
    )
}

/// Makes sure that `directory` of the workspace is a Python environment with these packages from PyPI.
pub(crate) fn python(directory: &str, packages: &[&str]) -> Result<()> {
    let root = sh::root().join(directory);
    let finished = root.join("finished");
    let wanted = packages.join(" ");
    if std::fs::read_to_string(&finished).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    println!("installing from PyPI into {directory}: {wanted}");
    sh::run(
        sh::command("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&root),
    )?;
    let mut pip = sh::command(root.join("bin/pip"));
    sh::run(
        pip.args(["install", "--quiet", "--disable-pip-version-check"])
            .args(packages),
    )?;
    // Whole or not at all: the next run takes what is told here for finished.
    std::fs::write(finished, wanted)?;
    Ok(())
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    sh::read(sh::command("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Whether apt could install it: `apt-cache show` ends with an error for an unknown name.
fn is_available(package: &str) -> bool {
    sh::read(sh::command("apt-cache").args(["show", "--no-all-versions", package])).is_ok()
}

/// The archive that this machine installs Debian packages from.
pub(crate) fn mirror() -> Option<String> {
    let sources = std::fs::read_to_string("/etc/apt/sources.list.d/debian.sources").ok()?;
    sources
        .lines()
        .find_map(|line| Some(line.strip_prefix("URIs:")?.trim().to_owned()))
}

fn is_installed(package: &str) -> bool {
    Path::new("/var/lib/dpkg/info")
        .join(format!("{package}.list"))
        .exists()
        || sh::read(sh::command("dpkg-query").args(["-W", "-f", "${Status}", package]))
            .is_ok_and(|status| status.ends_with("ok installed"))
}
