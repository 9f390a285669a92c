//! What can be run in the machine: named suites of tests, or a program given on the command line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::machine::Init;
use crate::{install, sh};

/// The control groups a machine boots with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cgroups {
    /// Each controller its own hierarchy.
    V1,
    /// The unified hierarchy with every controller.
    V2,
}

/// Something that a machine runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suite {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) contents: Contents,
    pub(super) cgroups: Cgroups,
    /// What the kernel is told besides.
    pub(super) parameters: &'static str,
}

/// What a suite is made of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Contents {
    /// Tests that cargo builds.
    Tests(Tests),
    /// The lines typed on a machine with systemd.
    Systemd,
}

/// Tests of one package.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tests {
    package: &'static str,
    /// What cargo builds: `--lib`, `--tests` (which has the former too), `--test=name`.
    targets: &'static str,
    /// Which of its tests run: those whose names contain one of these, all when there is none.
    pub(super) filters: &'static [&'static str],
    /// Parts of names of tests that do not run, each with the reason.
    pub(super) left_out: &'static [(&'static str, &'static str)],
    /// Whether a test reads the workspace's sources.
    pub(super) reads_sources: bool,
    /// Whether they run in a root of busybox alone, for which no Debian need be made.
    bare: bool,
}

/// What a machine without some controllers is asked.
const LIMITS: Tests = Tests {
    package: "cooper",
    targets: "--test=e2e",
    filters: &["machine::limits_are_set_or_taken_out", "lifecycle::"],
    left_out: &[],
    reads_sources: false,
    bare: false,
};

/// All suites, in the order they run.
pub(super) const SUITES: &[Suite] = &[
    Suite {
        name: "smoke",
        about: "two minutes: a container runs, is limited, paused and entered on v2, and outlives its daemon",
        contents: Contents::Tests(Tests {
            package: "cooper",
            targets: "--test=e2e",
            filters: &[
                "lifecycle::a_container_runs",
                "lifecycle::exec_runs",
                "lifecycle::pause_freezes",
                "limits::limits_stand",
                "limits::more_memory",
                "crash::containers_outlive",
                "crash::a_container_whose_shim_dies",
                "machine::an_exec_goes",
            ],
            left_out: &[],
            reads_sources: false,
            bare: true,
        }),
        cgroups: Cgroups::V2,
        parameters: "",
    },
    Suite {
        name: "sys",
        about: "system calls and their fallbacks on the older kernel; overlays of 128 layers",
        contents: Contents::Tests(Tests {
            package: "sys",
            targets: "--tests",
            filters: &[],
            left_out: &[],
            reads_sources: false,
            bare: false,
        }),
        cgroups: Cgroups::V2,
        parameters: "",
    },
    Suite {
        name: "runtime",
        about: "cgroup v2: limits, device rules, freezing, killing, counters; containers and execs",
        contents: Contents::Tests(Tests {
            package: "runtime",
            targets: "--tests",
            filters: &[],
            left_out: &[
                ("decisions_are_those", "long, and the same on every kernel"),
                ("programs_decide_as", "long, and the same on every kernel"),
            ],
            reads_sources: false,
            bare: false,
        }),
        cgroups: Cgroups::V2,
        parameters: "",
    },
    Suite {
        name: "shim",
        about: "the shim with real containers",
        contents: Contents::Tests(Tests {
            package: "cooper",
            targets: "--test=shim",
            filters: &[],
            left_out: &[],
            reads_sources: false,
            bare: false,
        }),
        cgroups: Cgroups::V2,
        parameters: "",
    },
    Suite {
        name: "e2e",
        about: "the daemon: lives of containers, limits, volumes, the bridge, pulls, the tutorials, kill -9 and adoption",
        contents: Contents::Tests(Tests {
            package: "cooper",
            targets: "--test=e2e",
            filters: &[],
            left_out: &[
                ("differential::", "needs dockerd"),
                (
                    "nothing_acknowledged_is_lost",
                    "starts a hundred daemons, an hour in an emulated machine",
                ),
                ("as_on_dockerd", "needs dockerd"),
                ("docker_py::", "needs dockerd"),
                (
                    "vanished::",
                    "thousands of clients, half an hour in an emulated machine",
                ),
                ("t7_tomcat", "needs the image of Tomcat"),
                ("t6_and_t14", "needs the image of Tomcat"),
                ("t12_", "needs Ruby and the image of PostgreSQL"),
            ],
            reads_sources: true,
            bare: false,
        }),
        cgroups: Cgroups::V2,
        parameters: "",
    },
    Suite {
        name: "without-controllers",
        about: "a kernel booted without controllers: limits are taken out with a warning, and containers run",
        contents: Contents::Tests(LIMITS),
        cgroups: Cgroups::V2,
        parameters: "cgroup_disable=memory,cpu,cpuset,io,pids",
    },
    Suite {
        name: "without-swap",
        about: "a kernel booted without accounting of swap (which 5.10 heeds and 6.1 does not)",
        contents: Contents::Tests(LIMITS),
        cgroups: Cgroups::V2,
        parameters: "swapaccount=0",
    },
    Suite {
        name: "systemd",
        about: "a Debian with systemd and Cooper's units: T1 and T2 of the tutorials, restarts, activation",
        contents: Contents::Systemd,
        cgroups: Cgroups::V2,
        parameters: "",
    },
    Suite {
        name: "cgroup-v1",
        about: "the tests of cgroups once more on v1, each controller its own hierarchy",
        contents: Contents::Tests(Tests {
            package: "runtime",
            targets: "--lib",
            filters: &["cgroup::"],
            left_out: &[],
            reads_sources: false,
            bare: false,
        }),
        cgroups: Cgroups::V1,
        parameters: "",
    },
];

impl Suite {
    /// The suite with a name.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        SUITES.iter().find(|suite| suite.name == name)
    }

    /// The first process it needs.
    pub(super) fn init(&self) -> Init {
        match self.contents {
            Contents::Tests(tests) if tests.bare => Init::Bare,
            Contents::Tests(_) => Init::Script,
            Contents::Systemd => Init::Systemd,
        }
    }
}

/// The sources below `crates`, at the place where they lie on the host.
pub(super) fn add_sources(files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    let mut pending = vec![sh::root().join("crates")];
    while let Some(directory) = pending.pop() {
        for entry in
            fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?
        {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let place = format!("/vm/root{}", path.display());
                files.insert(place, fs::read(&path)?);
            }
        }
    }
    Ok(())
}

impl Tests {
    /// Builds the examples of its package, which its tests may run.
    pub(super) fn build_examples(&self) -> Result<Vec<PathBuf>> {
        let mut cargo = sh::cargo();
        cargo.args([
            "build",
            "--locked",
            "--examples",
            "--message-format=json-render-diagnostics",
        ]);
        cargo.args(["-p", self.package]);
        let built = executables(&sh::read(&mut cargo)?, false)?;
        Ok(built
            .into_iter()
            .filter(|path| {
                path.parent()
                    .is_some_and(|parent| parent.ends_with("examples"))
            })
            .collect())
    }

    /// Builds its tests; the static binaries.
    pub(super) fn build(&self) -> Result<Vec<PathBuf>> {
        let mut cargo = sh::cargo();
        cargo.args([
            "test",
            "--locked",
            "--no-run",
            "--message-format=json-render-diagnostics",
        ]);
        cargo.args(["-p", self.package, self.targets]);
        executables(&sh::read(&mut cargo)?, true)
    }
}

/// What a bare machine needs of this one for the census of the tests: the program and the libraries that it is linked with.
pub(super) fn census() -> Result<Vec<PathBuf>> {
    install::debian(&["nftables"])?;
    let linked = sh::read(sh::command("ldd").arg(NFT))?;
    let words = linked.split_whitespace();
    let libraries = words.filter(|word| word.starts_with('/'));
    Ok(libraries.chain([NFT]).map(PathBuf::from).collect())
}

/// Where Debian has it.
const NFT: &str = "/usr/sbin/nft";

/// Builds the engine itself.
pub(super) fn build_cooper() -> Result<PathBuf> {
    let mut cargo = sh::cargo();
    cargo.args([
        "build",
        "--locked",
        "--bin",
        "cooper",
        "--message-format=json-render-diagnostics",
    ]);
    executables(&sh::read(&mut cargo)?, false)?
        .pop()
        .context("cargo built no cooper")
}

/// The programs cargo says it built.
fn executables(messages: &str, tests: bool) -> Result<Vec<PathBuf>> {
    let mut list = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Value = serde_json::from_str(line).context("a message of cargo")?;
        if let (Some(path), true) = (
            message["executable"].as_str(),
            message["profile"]["test"] == tests,
        ) {
            list.push(PathBuf::from(path));
        }
    }
    Ok(list)
}

/// A program that is run as it is.
pub(super) fn program(path: &str) -> Result<PathBuf> {
    let path = Path::new(path);
    if !path.is_file() {
        let names: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
        bail!(
            "{} is neither a file nor a suite; suites: {}",
            path.display(),
            names.join(", ")
        );
    }
    path.canonicalize()
        .with_context(|| format!("find {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_told_from_programs() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","executable":"/t/a","profile":{"test":true}}"#,
            "\nnoise\n",
            r#"{"reason":"compiler-artifact","executable":"/t/b","profile":{"test":false}}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executables(messages, true).unwrap(), [Path::new("/t/a")]);
        assert_eq!(executables(messages, false).unwrap(), [Path::new("/t/b")]);
    }

    #[test]
    fn names_are_unique() {
        for suite in SUITES {
            assert_eq!(
                SUITES
                    .iter()
                    .filter(|other| other.name == suite.name)
                    .count(),
                1
            );
            assert_eq!(
                Suite::find(suite.name).map(|found| found.name),
                Some(suite.name)
            );
        }
    }
}
