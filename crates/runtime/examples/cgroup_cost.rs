//! Measures what a cgroup costs on this machine: create, enter, join, rename, stats, remove; in microseconds.
//! Run as root: `cargo run --release -p runtime --example cgroup_cost`.
#![expect(clippy::print_stdout, reason = "it prints its figures")]

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use runtime::cgroup::{Cgroup, CgroupPath, Version, remove_empty_parent, version};

/// Rounds of the measurement, and the pause before each: long enough for the kernel's lock to settle, as between
/// containers on a quiet host.
const ROUNDS: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Costs {
    rows: Vec<(&'static str, Vec<u128>)>,
}

impl Costs {
    fn time<T>(&mut self, what: &'static str, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let value = work();
        let micros = started.elapsed().as_micros();
        match self.rows.iter_mut().find(|(name, _)| *name == what) {
            Some((_, times)) => times.push(micros),
            None => self.rows.push((what, vec![micros])),
        }
        value
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an example is no part of the engine"
)]
fn sleeper() -> std::io::Result<Child> {
    std::process::Command::new("sleep")
        .arg("60")
        .stdin(Stdio::null())
        .spawn()
}

#[expect(
    clippy::disallowed_methods,
    reason = "an example is no part of the engine"
)]
fn entering(parent: &str) -> std::io::Result<Child> {
    std::process::Command::new(std::env::current_exe()?)
        .arg(parent)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
}

/// The child: enters by itself and says how long that took.
fn enter(parent: &str) -> Result<(), Box<dyn std::error::Error>> {
    let entry = Cgroup::open(&CgroupPath::new(parent, "entry")?)?.entry()?;
    let started = Instant::now();
    entry.enter()?;
    print!("{}", started.elapsed().as_micros());
    std::io::stdout().flush()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(parent) = std::env::args().nth(1) {
        return enter(&parent);
    }
    let parent = format!("/cooper-cost-{}", std::process::id());
    let mut costs = Costs::default();
    Cgroup::create(&CgroupPath::new(&parent, "warm")?)?.remove()?;
    for _ in 0..ROUNDS {
        std::thread::sleep(PAUSE);
        round(&parent, &mut costs)?;
    }
    remove_empty_parent(&parent);
    println!(
        "cgroup {:?}, microseconds, of {ROUNDS} rounds: least, median, most",
        version()
    );
    for (what, mut times) in costs.rows {
        times.sort_unstable();
        println!(
            "{what:<32}{:>8}{:>8}{:>8}",
            times[0],
            times[times.len() / 2],
            times[times.len() - 1]
        );
    }
    Ok(())
}

fn round(parent: &str, costs: &mut Costs) -> Result<(), Box<dyn std::error::Error>> {
    let mut cgroup = costs.time("create", || {
        CgroupPath::new(parent, "pool-1").and_then(|path| Cgroup::create(&path))
    })?;
    let mut child = sleeper()?;
    costs.time("join from outside", || cgroup.join(child.id()))?;
    let mut second = sleeper()?;
    costs.time("join from outside, at once again", || {
        cgroup.join(second.id())
    })?;
    if version() == Version::V1 {
        costs.time("rename", || cgroup.rename("final"))?;
    }
    costs.time("stats", || cgroup.stats())?;
    costs.time("freeze", || cgroup.freeze())?;
    costs.time("thaw", || cgroup.thaw())?;
    costs.time("kill", || cgroup.kill())?;
    child.wait()?;
    second.wait()?;
    costs.time("remove", || cgroup.remove())?;
    let group = Cgroup::create(&CgroupPath::new(parent, "entry")?)?;
    costs.time("open entry", || group.entry())?;
    std::thread::sleep(PAUSE);
    let mut child = entering(parent)?;
    let mut text = String::new();
    child
        .stdout
        .take()
        .expect("it was piped")
        .read_to_string(&mut text)?;
    child.wait()?;
    match costs
        .rows
        .iter_mut()
        .find(|(name, _)| *name == "enter by itself")
    {
        Some((_, times)) => times.push(text.parse()?),
        None => costs.rows.push(("enter by itself", vec![text.parse()?])),
    }
    group.remove()?;
    Ok(())
}
