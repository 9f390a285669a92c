//! One machine: its initial ramfs, the emulator, its console, its verdict.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::archive::Archive;
use super::kernel::{Kernel, Release};
use super::suites::{self, Cgroups};
use super::{Plan, debian};
use crate::{install, sh};

/// Memory of the machine, in MiB: the tests' programs lie in it, and a test that must be killed at 32 MiB has room.
const MEMORY_MIB: u32 = 3072;

/// Processors of the machine: as many as the smallest machine we build on.
const PROCESSORS: u32 = 2;

/// How long one test may take in an emulated machine, in seconds: the longest take one minute on an idle host, and
/// another job on it may take most of its time.
const TEST_TIMEOUT_S: u32 = 600;

/// How long a machine may run in all, and how long it may be silent: an emulated boot takes 20 s, a test up to its own
/// limit.
const MACHINE_TIMEOUT: Duration = Duration::from_secs(40 * 60);
const SILENCE_TIMEOUT: Duration = Duration::from_secs(TEST_TIMEOUT_S as u64 + 60);

/// Lines of the console kept between reader and us.
const LINES_MAX: usize = 1024;

/// The beginning of the machine's last line, and of one that tells of a test that passed.
const DONE: &str = "vm: done in ";
const PASSED: &str = "vm: ok ";

/// Who becomes the machine's first process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Init {
    /// A script that runs the suites.
    #[default]
    Script,
    /// The same in a root of busybox alone, in memory.
    Bare,
    /// systemd, with Cooper's units, and a service that types the tutorials' lines.
    Systemd,
}

/// What to boot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub(super) release: Release,
    pub(super) cgroups: Cgroups,
    /// What the kernel is told besides.
    pub(super) parameters: &'static str,
    pub(super) interactive: bool,
}

/// Boots a machine and waits for its verdict.
pub(super) fn boot(plan: &Plan, choice: Choice) -> Result<()> {
    let cache = sh::root().join(".cache/vm");
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    install::debian(&["qemu-system-x86", "busybox-static", "binutils"])?;
    let kernel = Kernel::fetch(&cache, choice.release)?;
    let disk = match plan.init {
        Init::Script | Init::Systemd => Some(debian::disk(&cache)?),
        Init::Bare => None,
    };
    let directory = cache.join(format!("run-{}", std::process::id()));
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let outcome = start(plan, choice, &kernel, disk.as_deref(), &directory);
    fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
    outcome
}

fn start(
    plan: &Plan,
    choice: Choice,
    kernel: &Kernel,
    disk: Option<&Path>,
    directory: &Path,
) -> Result<()> {
    let initrd = directory.join("initrd");
    fs::write(&initrd, ramfs(plan, choice.cgroups, kernel, directory)?)?;
    let mut qemu = emulator(choice, kernel, disk, &initrd);
    // Where the emulator keeps what the machine writes to its disk.
    qemu.env("TMPDIR", directory);
    println!(
        "booting Linux {} with cgroup {:?}",
        kernel.name(),
        choice.cgroups
    );
    if choice.interactive {
        return sh::run(&mut qemu);
    }
    let child = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("run qemu-system-x86_64")?;
    let console = watch(child)?;
    verdict(&console.last)?;
    let missing: Vec<&str> = plan
        .expected
        .iter()
        .filter(|name| !console.passed.contains(*name))
        .map(String::as_str)
        .collect();
    ensure!(missing.is_empty(), "never reported: {}", missing.join("; "));
    Ok(())
}

fn emulator(choice: Choice, kernel: &Kernel, disk: Option<&Path>, initrd: &Path) -> Command {
    let mut append =
        "console=ttyS0 panic=-1 loglevel=4 swapaccount=1 net.ifnames=0 systemd.show_status=0 systemd.getty_auto=no "
            .to_owned();
    append.push_str(choice.parameters);
    if choice.cgroups == Cgroups::V1 {
        append.push_str(" systemd.unified_cgroup_hierarchy=0");
    }
    let mut qemu = sh::command("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-nic", "none", "-serial", "stdio"])
        // Emulated: that works everywhere and always the same. A /dev/kvm inside a virtual machine may be there and hang.
        .args(["-accel", "tcg,thread=multi", "-cpu", "max"])
        .args(["-m", &MEMORY_MIB.to_string()])
        .args(["-smp", &PROCESSORS.to_string()])
        .args(["-object", "rng-random,id=rng,filename=/dev/urandom"])
        .args(["-device", "virtio-rng-pci,rng=rng"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", &append]);
    if let Some(disk) = disk {
        qemu.arg("-drive").arg(format!(
            "file={},format=raw,if=virtio,snapshot=on,cache=unsafe",
            disk.display()
        ));
    }
    qemu
}

/// What a machine begins with: modules for its disk, the programs to run, and the script that goes on from there.
fn ramfs(plan: &Plan, cgroups: Cgroups, kernel: &Kernel, directory: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for place in ["new", "proc", "sys", "usr/bin", "usr/sbin"] {
        archive.directory(place);
    }
    archive.device("dev/console", (5, 1));
    archive.device("dev/null", (1, 3));
    // One place for programs, as Debian has it.
    archive.symlink("bin", "usr/bin");
    archive.symlink("sbin", "usr/sbin");
    let busybox = fs::read("/bin/busybox").context("read /bin/busybox")?;
    archive.file("usr/bin/busybox", 0o755, &busybox);
    for applet in ["usr/bin/sh", "usr/sbin/modprobe"] {
        archive.symlink(applet, "/bin/busybox");
    }
    kernel.add_modules(&mut archive)?;

    let cooper = suites::build_cooper()?;
    archive.file("vm/bin/cooper", 0o755, &stripped(&cooper, directory)?);
    let mut links = format!("{} /usr/bin/cooper\n", cooper.display());
    for (binary, place) in &plan.binaries {
        archive.file(place, 0o755, &stripped(binary, directory)?);
        links.push_str(&format!("{} {place}\n", binary.display()));
    }
    for (path, content) in &plan.files {
        archive.file(path, 0o644, content);
    }
    for (path, target) in &plan.links {
        archive.symlink(path, target);
    }
    archive.file("init", 0o755, include_bytes!("init.sh"));
    archive.file("vm/tests.sh", 0o755, include_bytes!("tests.sh"));
    archive.file("vm/one.sh", 0o755, include_bytes!("one.sh"));
    archive.file("vm/links", 0o644, links.as_bytes());
    archive.file("vm/runs", 0o644, plan.runs.as_bytes());
    archive.file("vm/timeout", 0o644, TEST_TIMEOUT_S.to_string().as_bytes());
    let version = match cgroups {
        Cgroups::V1 => "v1",
        Cgroups::V2 => "v2",
    };
    let init = match plan.init {
        Init::Script => "script",
        Init::Bare => "bare",
        Init::Systemd => "systemd",
    };
    archive.file("vm/cgroups", 0o644, version.as_bytes());
    archive.file("vm/init", 0o644, init.as_bytes());
    Ok(archive.finish())
}

/// A program without its line tables, which are most of it.
fn stripped(program: &Path, directory: &Path) -> Result<Vec<u8>> {
    let target = directory.join("stripped");
    sh::read(
        sh::command("strip")
            .args(["--strip-debug", "-o"])
            .args([target.as_path(), program]),
    )?;
    let content = fs::read(&target).with_context(|| format!("read {}", target.display()))?;
    Ok(content)
}

/// What the console said.
#[derive(Default)]
struct Console {
    /// The line with the counts; empty when it never came.
    last: String,
    /// What passed, by name.
    passed: BTreeSet<String>,
}

/// Shows the console until the machine is off. A machine that hangs is ended.
fn watch(mut child: Child) -> Result<Console> {
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
    let mut console = Console::default();
    let hung = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left.min(SILENCE_TIMEOUT)) {
            Ok(line) => {
                println!("{line}");
                if let Some(name) = line.strip_prefix(PASSED) {
                    console.passed.insert(name.trim().to_owned());
                }
                if line.starts_with(DONE) {
                    console.last = line;
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
    Ok(console)
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
