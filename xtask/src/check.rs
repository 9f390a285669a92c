//! `cargo xtask check`: everything that can be judged without running Cooper.

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
    // The advisory database lies on a host that a build machine may not reach; the other checks are local.
    sh::run(sh::cargo().args(["deny", "--offline", "check", "bans", "licenses", "sources"]))
}
