//! The census: what a daemon could leave behind on the machine, counted before and after.
//!
//! Mounts, processes, cgroups and files are found by the test's own directory and cgroup parent, so that
//! tests can run beside each other and beside another engine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use db::Db;
use db::rusqlite::Connection;

use crate::network::Bridge;
use crate::{patience, wait_until};

/// The kernel frees a namespace or a cgroup a moment after its last process.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// How a shim's command line begins.
const SHIM: &str = "cooper shim";

/// The directory in `layers` that stands for no layer.
const NO_LAYER: i64 = 0;

/// Where the control groups of version 1 and 2 are mounted.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Remembers what was there before a daemon started.
#[derive(Debug)]
pub struct Census {
    directory: PathBuf,
    data_root: PathBuf,
    cgroup_parent: String,
}

impl Census {
    /// Begins a census for a daemon that lives below `directory` and keeps its data in `data_root`, with containers
    /// below `cgroup_parent`.
    pub fn take(directory: &Path, data_root: &Path, cgroup_parent: &str) -> Self {
        Self {
            directory: directory.to_owned(),
            data_root: data_root.to_owned(),
            cgroup_parent: cgroup_parent.to_owned(),
        }
    }

    /// Fails the test, listing what there is, when anything of the daemon is left after a moment.
    pub fn assert_nothing_left(&self) {
        let mut left = BTreeSet::new();
        let deadline = Instant::now() + patience(SETTLED_WITHIN);
        wait_until(
            "nothing of the daemon to be left",
            SETTLED_WITHIN * 2,
            || {
                left = self.left();
                (left.is_empty() || Instant::now() > deadline).then_some(())
            },
        );
        if !left.is_empty() {
            self.clean_up();
            panic!(
                "left behind:\n{}",
                left.into_iter().collect::<Vec<_>>().join("\n")
            );
        }
    }

    /// Everything of the daemon that is still there, one line each.
    pub fn left(&self) -> BTreeSet<String> {
        let mut left = BTreeSet::new();
        left.extend(self.mounts().map(|line| format!("mount: {line}")));
        left.extend(
            self.processes()
                .into_iter()
                .map(|(pid, line)| format!("process {pid}: {line}")),
        );
        left.extend(
            self.cgroups()
                .into_iter()
                .map(|path| format!("cgroup: {}", path.display())),
        );
        let bridge = Bridge::of(&self.directory).left();
        left.extend(bridge.into_iter().map(|line| format!("network: {line}")));
        let run = self.directory.join("exec/containers");
        left.extend(
            children(&run)
                .into_iter()
                .map(|path| format!("run directory: {}", path.display())),
        );
        left.extend(
            self.strays()
                .into_iter()
                .map(|path| format!("stray: {}", path.display())),
        );
        let data = self.data_root.join("containers");
        left.extend(
            children(&data)
                .into_iter()
                .map(|path| format!("container directory: {}", path.display())),
        );
        left
    }

    /// Layers that the database does not know, and what was being written but for downloads that can go on.
    fn strays(&self) -> Vec<PathBuf> {
        let mut strays = children(&self.data_root.join("content/ingest"));
        strays.retain(|path| path.extension().is_none_or(|extension| extension != "part"));
        let database = self.data_root.join("cooper.db");
        let layers = children(&self.data_root.join("layers"));
        // A test may have made it unreadable.
        let known = match database.exists() && !layers.is_empty() {
            true => Db::open(&database).and_then(|db| db.read(known_layers)),
            false => return strays,
        };
        let Ok(known) = known else { return strays };
        let is_known = |path: &PathBuf| {
            let number = path
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            number.is_some_and(|number: i64| number == NO_LAYER || known.contains(&number))
        };
        strays.extend(layers.into_iter().filter(|path| !is_known(path)));
        strays
    }

    /// Ends what is left, so that one failed test does not fail the next: shims that wait for a daemon that never
    /// comes, processes frozen with their cgroup, cgroups, mounts.
    pub fn clean_up(&self) {
        let deadline = Instant::now() + SETTLED_WITHIN;
        while self.end_processes() && Instant::now() < deadline {
            std::thread::park_timeout(crate::LOOK_EVERY);
        }
        for cgroup in self.cgroups().into_iter().rev() {
            drop(std::fs::remove_dir(cgroup));
        }
        for line in self.mounts() {
            if let Some(point) = line.split(' ').nth(4) {
                run("/usr/bin/umount", &["--lazy", point]);
            }
        }
    }

    /// Sends SIGKILL to every process of the daemon's; false when there is none.
    fn end_processes(&self) -> bool {
        let mut pids: BTreeSet<String> = self
            .processes()
            .into_iter()
            .map(|(pid, _)| pid.to_string())
            .collect();
        for cgroup in self.cgroups() {
            let listed = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
            pids.extend(listed.lines().map(str::to_owned));
            // A frozen process does not die on version 1.
            drop(std::fs::write(cgroup.join("freezer.state"), "THAWED"));
        }
        for pid in &pids {
            run("/bin/kill", &["-KILL", pid]);
        }
        !pids.is_empty()
    }

    fn mounts(&self) -> impl Iterator<Item = String> {
        let needle = self.directory.to_string_lossy().into_owned();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("read the mount table");
        mounts
            .lines()
            .filter(move |line| line.contains(&needle))
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Processes whose command line or environment names the daemon's directory, or that sit in its cgroups.
    fn processes(&self) -> Vec<(u32, String)> {
        let needle = self.directory.to_string_lossy().into_owned();
        let own = std::process::id();
        let mut found = Vec::new();
        for path in children(Path::new("/proc")) {
            let Some(pid) = path
                .file_name()
                .and_then(|name| name.to_str()?.parse::<u32>().ok())
            else {
                continue;
            };
            let read = |file: &str| std::fs::read(path.join(file)).unwrap_or_default();
            let is_dead = read("stat")
                .rsplit(|byte| *byte == b')')
                .next()
                .is_some_and(|rest| rest.starts_with(b" Z"));
            if is_dead {
                continue; // it waits to be reaped, by its parent or the machine's init
            }
            let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
            let cgroup = String::from_utf8_lossy(&read("cgroup")).into_owned();
            let ours = line.contains(&needle)
                || String::from_utf8_lossy(&read("environ")).contains(&needle)
                || cgroup.contains(&format!("{}/", self.cgroup_parent))
                || (line.starts_with(SHIM) && self.is_held_by(&path));
            if ours && pid != own {
                found.push((pid, line));
            }
        }
        found
    }

    /// Whether a process has something of the daemon's open: a shim has its log and its cgroups, and names the
    /// daemon nowhere else.
    fn is_held_by(&self, process: &Path) -> bool {
        let data_root = self.data_root.to_string_lossy();
        children(&process.join("fd")).iter().any(|fd| {
            std::fs::read_link(fd).is_ok_and(|file| {
                let file = file.to_string_lossy();
                file.contains(&self.cgroup_parent) || file.starts_with(&*data_root)
            })
        })
    }

    /// The daemon's cgroups below its parent (the parent itself may stay), parents before children.
    fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut roots = children(Path::new(CGROUP_ROOT));
        roots.push(PathBuf::from(CGROUP_ROOT));
        for root in roots {
            let parent = root.join(self.cgroup_parent.trim_start_matches('/'));
            let mut queue: Vec<PathBuf> = directories(&parent);
            while let Some(path) = queue.pop() {
                queue.extend(directories(&path));
                found.push(path);
            }
        }
        found
    }
}

impl Drop for Census {
    fn drop(&mut self) {
        let mut roots = children(Path::new(CGROUP_ROOT));
        roots.push(PathBuf::from(CGROUP_ROOT));
        for root in roots {
            // The empty parent is the test's own; the daemon keeps it for the next start.
            drop(std::fs::remove_dir(
                root.join(self.cgroup_parent.trim_start_matches('/')),
            ));
        }
    }
}

fn known_layers(connection: &Connection) -> Result<BTreeSet<i64>, db::Error> {
    let mut statement = connection.prepare("SELECT number FROM layers")?;
    let numbers = statement.query_map([], |row| row.get(0))?;
    Ok(numbers.collect::<Result<_, _>>()?)
}

/// Runs a program for its effect; what it says is nobody's business in a clean-up.
fn run(program: &str, arguments: &[&str]) {
    let mut command = sys::command::Command::new(program);
    for argument in arguments {
        command = command.arg(argument);
    }
    drop(command.output());
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

fn directories(directory: &Path) -> Vec<PathBuf> {
    children(directory)
        .into_iter()
        .filter(|path| path.is_dir())
        .collect()
}
