//! `cargo xtask test`: every test, one process each, with what ran and what was skipped.

use anyhow::{Result, bail};

use crate::{images, install, sh};

/// What the end-to-end tests use beside the Rust toolchain.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "curl",
    "runc",
    "nftables",
    "iproute2",
    "debootstrap",
    "docker-registry",
    "ruby-docker-api",
    // The gem needs it, its package does not say so.
    "ruby-multi-json",
    "python3-venv",
    "skopeo",
];

/// Where the docker command line comes from when the machine has none: its own package since Debian 13.
const DOCKER_CLI: &[&str] = &["docker-cli", "docker.io"];

/// docker-py and what it needs, from PyPI: Debian's is years older than what people install.
const DOCKER_PY: &[&str] = &["docker==7.2.0"];

/// Runs the tests. `--unit`: without root and packages; `--long`: longer suites too; anything else filters by name.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let unit = arguments.iter().any(|word| word == "--unit");
    let long = arguments.iter().any(|word| word == "--long");
    let filters: Vec<&String> = arguments
        .iter()
        .filter(|word| !word.starts_with("--"))
        .collect();
    if let Some(unknown) = arguments
        .iter()
        .find(|w| w.starts_with("--") && *w != "--unit" && *w != "--long")
    {
        bail!("unknown option {unknown}: test takes --unit, --long and name filters");
    }
    install::cargo_tool("nextest")?;
    if !unit {
        if !install::is_root() {
            bail!("the end-to-end tests need root; run them as root, or use --unit for the rest");
        }
        install::debian(PACKAGES)?;
        install::one_of("docker", DOCKER_CLI)?;
        install::python(".cache/docker-py", DOCKER_PY)?;
        images::run(&[])?;
        sh::run(sh::cargo().args(["build", "--locked", "--bin", "cooper"]))?;
    }
    let mut nextest = sh::cargo();
    nextest.args([
        "nextest",
        "run",
        "--workspace",
        "--locked",
        "--no-fail-fast",
    ]);
    if unit {
        nextest.arg("--lib");
    }
    if long {
        // Tests of the longer suites ask `testkit::long()`, which reads this.
        nextest.env("COOPER_LONG", "1");
    }
    sh::run(nextest.args(filters))?;
    if unit {
        Ok(())
    } else {
        sh::run(sh::cargo().args(["test", "--workspace", "--locked", "--doc", "--quiet"]))
    }
}
