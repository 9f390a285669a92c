//! `cargo xtask vm`: runs tests in a small virtual machine with a kernel of Debian's, on cgroup v2 and on v1.
//!
//! Installs qemu and a static busybox, fetches the kernel's package and makes a Debian disk in `.cache/vm`, and boots
//! them without any network of the host's; what a boot writes to the disk ends with it. The serial console is shown as
//! it comes; its last line says what passed.

mod archive;
mod debian;
mod kernel;
mod machine;
mod suites;
mod systemd;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use kernel::Release;
use machine::{Choice, Init, boot};
use suites::{Cgroups, Contents, SUITES, Suite};

const HELP: &str = "\
cargo xtask vm [options] [suite[:part]…]   all suites, or those named; tests with that part in their names
cargo xtask vm [options] -- program [args…]  a static program
cargo xtask vm [options] --shell           a shell on the machine's console (end: exit)

options:
  --cgroup v1|v2     instead of what a suite asks for
  --kernel 6.1|5.10  Debian 12's kernel (the default), or Debian 11's, the oldest that Cooper runs on
";

/// What a machine runs: a line of `/vm/runs` for each, and what it needs.
#[derive(Default)]
struct Plan {
    init: Init,
    runs: String,
    /// Where a program lies on the host, and in the machine.
    binaries: BTreeMap<PathBuf, String>,
    /// Further files by their places in the machine.
    files: BTreeMap<String, Vec<u8>>,
    /// Further symbolic links, and where they lead.
    links: BTreeMap<String, String>,
    /// What must have passed at the end, by name; more may.
    expected: Vec<String>,
}

impl Plan {
    /// Adds the tests of a suite; those whose names contain `only` when it is given.
    fn suite(&mut self, suite: &Suite, only: Option<&str>) -> Result<()> {
        let Contents::Tests(tests) = &suite.contents else {
            return systemd::plan(self);
        };
        // Beside the directory of the tests, as in cargo's target directory.
        for example in tests.build_examples()? {
            let place = format!("/vm/examples/{}", file_name(&example));
            self.binaries.insert(example, place);
        }
        let mut filters: Vec<&str> = tests.filters.to_vec();
        if let Some(only) = only {
            filters = vec![only];
        }
        for (name, why) in tests.left_out {
            println!("{}: left out: {name} ({why})", suite.name);
            filters.extend(["--skip", name]);
        }
        if suite.init() == Init::Bare {
            for file in suites::census()? {
                let place = format!("/vm/census/{}", file_name(&file));
                self.binaries.insert(file, place);
            }
        }
        if tests.reads_sources {
            suites::add_sources(&mut self.files)?;
        }
        for binary in tests.build()? {
            self.add(suite.name, "tests", &binary, &filters.join(" "));
        }
        Ok(())
    }

    fn add(&mut self, name: &str, kind: &str, binary: &Path, rest: &str) {
        let place = format!("/vm/tests/{}", file_name(binary));
        self.runs
            .push_str(&format!("{name} {kind} {place} {rest}\n"));
        self.binaries.insert(binary.to_owned(), place);
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Options before the words that say what to run.
#[derive(Clone, Copy, Default)]
struct Asked {
    cgroups: Option<Cgroups>,
    release: Release,
}

impl Asked {
    fn choice(self, cgroups: Cgroups, parameters: &'static str) -> Choice {
        Choice {
            release: self.release,
            cgroups: self.cgroups.unwrap_or(cgroups),
            parameters,
            interactive: false,
        }
    }
}

/// Runs suites, a program or a shell; fails when a test did.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let mut words = arguments.iter().map(String::as_str).peekable();
    let mut asked = Asked::default();
    loop {
        if words.next_if_eq(&"--cgroup").is_some() {
            asked.cgroups = Some(match words.next() {
                Some("v1") => Cgroups::V1,
                Some("v2") => Cgroups::V2,
                other => bail!("--cgroup takes v1 or v2, not {other:?}\n\n{HELP}"),
            });
        } else if words.next_if_eq(&"--kernel").is_some() {
            asked.release = match words.next() {
                Some("6.1") => Release::Bookworm,
                Some("5.10") => Release::Bullseye,
                other => bail!("--kernel takes 6.1 or 5.10, not {other:?}\n\n{HELP}"),
            };
        } else {
            break;
        }
    }
    let choice = asked.choice(Cgroups::V2, "");
    match words.peek().copied() {
        Some("--help" | "-h") => {
            print!("{HELP}\nsuites:\n");
            SUITES
                .iter()
                .for_each(|suite| println!("  {:<12}{}", suite.name, suite.about));
            Ok(())
        }
        Some("--shell") => {
            let mut plan = Plan::default();
            plan.runs.push_str("shell shell - -\n");
            let interactive = true;
            boot(
                &plan,
                Choice {
                    interactive,
                    ..choice
                },
            )
        }
        Some("--") => {
            words.next();
            let Some(name) = words.next() else {
                bail!("a program is missing\n\n{HELP}")
            };
            let rest: Vec<&str> = words.collect();
            let mut plan = Plan::default();
            plan.add(name, "program", &suites::program(name)?, &rest.join(" "));
            boot(&plan, choice)
        }
        Some(word) if word.starts_with("--") => bail!("unknown option {word}\n\n{HELP}"),
        Some(_) => run_suites(&words.map(choose).collect::<Result<Vec<_>>>()?, asked),
        None => run_suites(
            // What a bare machine is asked is asked again on a whole one.
            &SUITES
                .iter()
                .filter(|suite| suite.init() != Init::Bare)
                .map(|suite| (suite, None))
                .collect::<Vec<_>>(),
            asked,
        ),
    }
}

/// A suite, and the part of names that its tests must contain.
type Chosen<'a> = (&'static Suite, Option<&'a str>);

/// Reads `suite` or `suite:part-of-name`.
fn choose(word: &str) -> Result<Chosen<'_>> {
    let (name, only) = word
        .split_once(':')
        .map_or((word, None), |(name, only)| (name, Some(only)));
    let suite =
        Suite::find(name).with_context(|| format!("no suite {name}; see cargo xtask vm --help"))?;
    Ok((suite, only))
}

/// One machine for all suites that need the same kind.
fn run_suites(list: &[Chosen<'_>], asked: Asked) -> Result<()> {
    let kind = |suite: &Suite| {
        let choice = asked.choice(suite.cgroups, suite.parameters);
        (choice.cgroups, suite.init(), choice.parameters)
    };
    let mut kinds: Vec<(Cgroups, Init, &'static str)> =
        list.iter().map(|(suite, _)| kind(suite)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut failures = Vec::new();
    for (cgroups, init, parameters) in kinds {
        let mut plan = Plan {
            init,
            ..Plan::default()
        };
        for (suite, only) in list {
            if kind(suite) == (cgroups, init, parameters) {
                plan.suite(suite, *only)?;
            }
        }
        if let Err(error) = boot(&plan, asked.choice(cgroups, parameters)) {
            println!("cgroup {cgroups:?}, {init:?} {parameters}: {error:#}");
            failures.push(error);
        }
    }
    failures.into_iter().next().map_or(Ok(()), Err)
}
