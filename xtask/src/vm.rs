//! `cargo xtask vm`: runs tests in a small virtual machine with Debian 12's own 6.1 kernel, on cgroup v2 and on v1.
//!
//! Installs qemu and a static busybox, fetches the kernel's package into `.cache/vm`, builds an initial root file
//! system of static binaries, and boots it without any network of the host's. The serial console is shown as it comes;
//! its last line says what passed.

mod archive;
mod kernel;
mod suites;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{install, sh};
use archive::Archive;
use kernel::Kernel;
use suites::{Cgroups, SUITES, Suite};

const HELP: &str = "\
cargo xtask vm [--cgroup v1|v2] [suite[:part]…]   all suites, or those named; tests with that part in their names
cargo xtask vm [--cgroup v1|v2] -- program [args…]  a static program
cargo xtask vm [--cgroup v1|v2] --shell           a shell on the machine's console (end: exit)
";

/// Memory of the machine, in MiB: the root file system lies in it, and a test that must be killed at 32 MiB has room.
const MEMORY_MIB: u32 = 3072;

/// Processors of the machine: as many as the smallest machine we build on.
const PROCESSORS: u32 = 2;

/// Size of the machine's scratch disk (a sparse file), in bytes; mounted on /var.
const DISK_BYTES: u64 = 8 << 30;

/// How long one test may take in an emulated machine, in seconds.
const TEST_TIMEOUT_S: u32 = 180;

/// How long a machine may run in all, and how long it may be silent: an emulated boot takes 10 s, a test up to its own
/// limit.
const MACHINE_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const SILENCE_TIMEOUT: Duration = Duration::from_secs(TEST_TIMEOUT_S as u64 + 60);

/// Lines of the console kept between reader and us.
const LINES_MAX: usize = 1024;

/// The beginning of the machine's last line.
const DONE: &str = "vm: done in ";

/// What a machine runs: a line of `/vm/runs` for each, and the binaries it needs.
#[derive(Default)]
struct Plan {
    runs: String,
    /// Where a program lies on the host, and in the machine.
    binaries: BTreeMap<PathBuf, String>,
}

impl Plan {
    /// Adds the tests of a suite; those whose names contain `only` when it is given.
    fn suite(&mut self, suite: &Suite, only: Option<&str>) -> Result<()> {
        // Beside the directory of the tests, as in cargo's target directory.
        for example in suite.build_examples()? {
            let place = format!("/examples/{}", file_name(&example));
            self.binaries.insert(example, place);
        }
        let filters = only.map_or_else(|| suite.filters.join(" "), str::to_owned);
        for binary in suite.build()? {
            self.add(suite.name, "tests", &binary, &filters);
        }
        Ok(())
    }

    fn add(&mut self, name: &str, kind: &str, binary: &Path, rest: &str) {
        let place = format!("/tests/{}", file_name(binary));
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

/// Runs suites, a program or a shell; fails when a test did.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let mut words = arguments.iter().map(String::as_str).peekable();
    let mut cgroups = None;
    if words.next_if_eq(&"--cgroup").is_some() {
        cgroups = Some(match words.next() {
            Some("v1") => Cgroups::V1,
            Some("v2") => Cgroups::V2,
            other => bail!("--cgroup takes v1 or v2, not {other:?}\n\n{HELP}"),
        });
    }
    let chosen = cgroups.unwrap_or(Cgroups::V2);
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
            boot(&plan, chosen, true)
        }
        Some("--") => {
            words.next();
            let Some(name) = words.next() else {
                bail!("a program is missing\n\n{HELP}")
            };
            let rest: Vec<&str> = words.collect();
            if let Ok(chosen) = choose(name) {
                return run_suites(&[chosen], cgroups);
            }
            let mut plan = Plan::default();
            plan.add(name, "program", &suites::program(name)?, &rest.join(" "));
            boot(&plan, chosen, false)
        }
        Some(word) if word.starts_with("--") => bail!("unknown option {word}\n\n{HELP}"),
        Some(_) => run_suites(&words.map(choose).collect::<Result<Vec<_>>>()?, cgroups),
        None => run_suites(
            &SUITES.iter().map(|suite| (suite, None)).collect::<Vec<_>>(),
            cgroups,
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

/// One machine for all suites on v2 and one for those on v1.
fn run_suites(list: &[Chosen<'_>], cgroups: Option<Cgroups>) -> Result<()> {
    let mut failures = Vec::new();
    for version in [Cgroups::V2, Cgroups::V1] {
        let mut plan = Plan::default();
        for (suite, only) in list {
            if cgroups.unwrap_or(suite.cgroups) == version {
                plan.suite(suite, *only)?;
            }
        }
        if !plan.runs.is_empty()
            && let Err(error) = boot(&plan, version, false)
        {
            println!("cgroup {version:?}: {error:#}");
            failures.push(error);
        }
    }
    failures.into_iter().next().map_or(Ok(()), Err)
}

/// Boots a machine and waits for its verdict.
fn boot(plan: &Plan, cgroups: Cgroups, interactive: bool) -> Result<()> {
    let cache = sh::root().join(".cache/vm");
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    install::debian(&["qemu-system-x86", "busybox-static"])?;
    let kernel = Kernel::fetch(&cache)?;
    let directory = cache.join(format!("run-{}", std::process::id()));
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let outcome = start(plan, cgroups, interactive, &kernel, &directory);
    fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
    outcome
}

fn start(
    plan: &Plan,
    cgroups: Cgroups,
    interactive: bool,
    kernel: &Kernel,
    directory: &Path,
) -> Result<()> {
    let initrd = directory.join("initrd");
    fs::write(&initrd, root_file_system(plan, cgroups, kernel)?)?;
    let disk = directory.join("disk");
    fs::File::create(&disk)?.set_len(DISK_BYTES)?;
    println!("booting Linux {} with cgroup {cgroups:?}", kernel.release());
    let mut qemu = sh::command("qemu-system-x86_64");
    qemu.args([
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-nic",
        "none",
    ])
    // Emulated: that works everywhere and always the same. A /dev/kvm inside a virtual machine may be there and hang.
    .args(["-accel", "tcg,thread=multi", "-cpu", "max"])
    .args([
        "-m",
        &MEMORY_MIB.to_string(),
        "-smp",
        &PROCESSORS.to_string(),
    ])
    .args([
        "-serial",
        "stdio",
        "-object",
        "rng-random,id=rng,filename=/dev/urandom",
    ])
    .args(["-device", "virtio-rng-pci,rng=rng"])
    .arg("-drive")
    .arg(format!("file={},format=raw,if=virtio", disk.display()))
    .arg("-kernel")
    .arg(&kernel.image)
    .arg("-initrd")
    .arg(&initrd)
    .args([
        "-append",
        "console=ttyS0 panic=-1 loglevel=4 swapaccount=1 net.ifnames=0",
    ]);
    if interactive {
        let status = qemu.status().context("run qemu-system-x86_64")?;
        return if status.success() {
            Ok(())
        } else {
            bail!("qemu-system-x86_64: {status}")
        };
    }
    let child = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("run qemu-system-x86_64")?;
    verdict(&watch(child)?)
}

/// Everything the machine is made of, as an initial ramfs.
fn root_file_system(plan: &Plan, cgroups: Cgroups, kernel: &Kernel) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in [
        "new", "proc", "root", "sys", "tmp", "usr/bin", "usr/sbin", "var", "etc", "examples",
        "tests",
    ] {
        archive.directory(directory);
    }
    archive.device("dev/console", (5, 1));
    archive.device("dev/null", (1, 3));
    // One place for programs, as Debian has it.
    archive.symlink("bin", "usr/bin");
    archive.symlink("sbin", "usr/sbin");
    archive.file(
        "usr/bin/busybox",
        0o755,
        &fs::read("/bin/busybox").context("read /bin/busybox")?,
    );
    for applet in ["usr/bin/sh", "usr/sbin/modprobe"] {
        archive.symlink(applet, "/bin/busybox");
    }
    archive.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    );
    archive.file(
        "etc/group",
        0o644,
        b"root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    );
    archive.file(
        "etc/hosts",
        0o644,
        b"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 cooper-vm\n",
    );
    archive.file("etc/resolv.conf", 0o644, b"");
    kernel.add_modules(&mut archive)?;

    let cooper = suites::build_cooper()?;
    archive.file("usr/bin/cooper", 0o755, &fs::read(&cooper)?);
    let mut links = format!("{} /usr/bin/cooper\n", cooper.display());
    for (binary, place) in &plan.binaries {
        let content = fs::read(binary).with_context(|| format!("read {}", binary.display()))?;
        archive.file(place, 0o755, &content);
        links.push_str(&format!("{} {place}\n", binary.display()));
    }
    // Under its own name for switch_root, which will not empty a file system that has no /init.
    archive.file("init", 0o755, include_bytes!("vm/init.sh"));
    archive.file("vm/one", 0o755, include_bytes!("vm/one.sh"));
    archive.file("vm/links", 0o644, links.as_bytes());
    archive.file("vm/runs", 0o644, plan.runs.as_bytes());
    archive.file("vm/timeout", 0o644, TEST_TIMEOUT_S.to_string().as_bytes());
    archive.file(
        "vm/cgroups",
        0o644,
        if cgroups == Cgroups::V1 { b"v1" } else { b"v2" },
    );
    Ok(archive.finish())
}

/// Shows the console until the machine is off; its last line. A machine that hangs is ended.
fn watch(mut child: Child) -> Result<String> {
    let output = child.stdout.take().context("the output of qemu")?;
    let (sender, lines) = sync_channel(LINES_MAX);
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + MACHINE_TIMEOUT;
    let mut last = String::new();
    let hung = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left.min(SILENCE_TIMEOUT)) {
            Ok(line) => {
                println!("{line}");
                if line.starts_with(DONE) {
                    last = line;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => break true,
        }
    };
    if hung {
        child.kill().context("end qemu")?;
    }
    let status = child.wait().context("wait for qemu")?;
    drop(lines);
    reader
        .join()
        .map_err(|_| anyhow::anyhow!("the reader of the console panicked"))?;
    if hung {
        bail!(
            "the machine said nothing for {SILENCE_TIMEOUT:?}, or ran for {MACHINE_TIMEOUT:?}: ended"
        );
    }
    if !status.success() {
        bail!("qemu-system-x86_64: {status}");
    }
    Ok(last)
}

/// The verdict in the machine's last line.
fn verdict(last: &str) -> Result<()> {
    if last.is_empty() {
        bail!("the machine stopped before its tests were done");
    }
    let count = |word: &str| -> Option<u32> {
        let rest = last.split(word).nth(1)?;
        rest.trim_start()
            .split(|c: char| !c.is_ascii_digit())
            .next()?
            .parse()
            .ok()
    };
    match (count("passed"), count("failed")) {
        (Some(0), Some(0)) => bail!("nothing ran in the machine"),
        (Some(_), Some(0)) => Ok(()),
        (Some(_), Some(failed)) => bail!("{failed} failed in the machine"),
        _ => bail!("no verdict in {last:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::verdict;

    #[test]
    fn only_a_clean_end_is_a_success() {
        assert!(verdict("vm: done in 12.3 s; passed 7, failed 0").is_ok());
        for last in [
            "",
            "vm: done in 1 s; passed 7, failed 1",
            "vm: done in 1 s; passed 0, failed 0",
            "vm: done in",
        ] {
            assert!(verdict(last).is_err(), "{last}");
        }
    }
}
