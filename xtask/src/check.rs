//! `cargo xtask check`: everything that can be judged without running Cooper.

use std::path::PathBuf;

use anyhow::Result;

use crate::{install, sh, tidy};

/// Runs rustfmt, clippy with warnings as errors, the house rules and cargo-deny.
pub(crate) fn run() -> Result<()> {
    sh::run(sh::cargo().args(["fmt", "--all", "--check"]))?;
    tidy::run()?;
    sh::run(sh::cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))?;
    install::cargo_tool("deny")?;
    let mut deny = sh::cargo();
    deny.args(["deny", "--offline", "check", "bans", "licenses", "sources"]);
    // The database lies on a host that a build machine may not reach; the other checks are local.
    if has_advisories() {
        deny.arg("advisories");
    } else {
        println!(
            "check: known vulnerabilities of dependencies were NOT looked for, since there is no copy of the advisory \
             database; `cargo deny fetch` brings one where github.com can be reached"
        );
    }
    sh::run(&mut deny)
}

/// Whether cargo-deny finds a copy of the advisory database where it keeps them.
fn has_advisories() -> bool {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| {
            let home = std::env::var_os("HOME")?;
            Some(PathBuf::from(home).join(".cargo"))
        });
    home.and_then(|home| std::fs::read_dir(home.join("advisory-dbs")).ok())
        .is_some_and(|mut databases| databases.next().is_some())
}
