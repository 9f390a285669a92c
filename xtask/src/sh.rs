//! Running programs from xtask: the one place where it does.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The workspace's root directory.
pub(crate) fn root() -> PathBuf {
    let manifest = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .parent()
        .expect("xtask lies in the workspace root")
        .to_owned()
}

/// A program to be run in the workspace's root, with this process's environment.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is xtask's one exec of a child"
    )]
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The cargo that runs this xtask.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The profile of what is installed and measured.
const INSTALLED: &str = "dist";

/// Builds Cooper with one of the workspace's profiles and answers where the static target puts it.
pub(crate) fn build_cooper(profile: &str) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--profile", profile, "--locked", "--bin", "cooper"]);
    // What is installed says what it was made from; the other profiles would be built anew for each commit.
    if profile == INSTALLED {
        for (variable, format) in [
            ("COOPER_GIT_COMMIT", "--format=%H"),
            ("COOPER_BUILD_TIME", "--format=%cI"),
        ] {
            // Sources without their history are built all the same.
            if let Ok(value) = read(command("git").args(["log", "-1", format])) {
                build.env(variable, value.trim());
            }
        }
    }
    run(&mut build)?;
    let directory = root().join("target/x86_64-unknown-linux-gnu");
    Ok(directory.join(profile).join("cooper"))
}

/// Shows `command`, runs it to its end with inherited output and fails unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = describe(command);
    println!("» {line}");
    let status = command.status().with_context(|| format!("run {line}"))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

/// Runs `command` and returns its standard output; fails, with its standard error, unless it succeeds.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let line = describe(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {line}"))?;
    if !output.status.success() {
        bail!(
            "{line}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("output of {line}"))
}

fn describe(command: &Command) -> String {
    let mut words = vec![
        std::path::Path::new(command.get_program())
            .file_name()
            .unwrap_or_else(|| command.get_program())
            .to_string_lossy()
            .into_owned(),
    ];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}
