//! The directories of one cgroup: making, opening, renaming, joining and removing them.

mod below;
mod divided;
mod make;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use sys::cgroupfs;

use super::layout::{self, Hierarchy};
use super::path::{self, CgroupPath};
use super::{Error, Version};

pub(super) use below::members;
use below::remove_tree;
use make::make;

/// How long [`Cgroup::remove`] waits for dying processes: an exit of a large process takes tens of milliseconds, and
/// what is not dead after this hangs in the kernel.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);

/// First pause between two attempts to remove a group whose last process is leaving; doubles up to the last.
const REMOVE_PAUSE_FIRST: Duration = Duration::from_micros(50);
const REMOVE_PAUSE_LAST: Duration = Duration::from_millis(5);

/// How deep below a container's cgroup we follow what it made itself.
const NESTING_MAX: usize = 64;

/// `EBUSY`, `ENOENT`, `ENODEV` (a control file of a group that is being removed) of `errno(3)`.
const EBUSY: i32 = 16;
const ENODEV: i32 = 19;

/// One cgroup: an open directory in each hierarchy.
///
/// Dropping it closes the descriptors and leaves the cgroup; [`Cgroup::remove`] removes it.
#[derive(Debug)]
pub struct Cgroup {
    path: CgroupPath,
    version: Version,
    directories: Vec<Directory>,
}

/// The cgroup in one hierarchy.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) hierarchy: &'static Hierarchy,
    parent: OwnedFd,
    pub(super) dir: OwnedFd,
    /// It was there before.
    found: bool,
}

impl Directory {
    pub(super) fn error(
        &self,
        path: &CgroupPath,
        operation: &str,
        file: &str,
        source: io::Error,
    ) -> Error {
        let file = if file.is_empty() {
            path.to_string()
        } else {
            format!("{path}/{file}")
        };
        Error::Io {
            operation: operation.to_owned(),
            file: format!("{}:{file}", self.hierarchy.label()),
            source,
        }
    }
}

impl Cgroup {
    /// Makes the cgroup in every hierarchy, with its parents, and opens it. One that exists is opened as it is.
    ///
    /// # Errors
    /// [`Error::NoHierarchy`], or [`Error::Io`]; what was made before the failure is removed again.
    pub fn create(path: &CgroupPath) -> Result<Self, Error> {
        let layout = layout::usable()?;
        let mut group = Self {
            path: path.clone(),
            version: layout.version,
            directories: Vec::new(),
        };
        for hierarchy in &layout.hierarchies {
            match make(hierarchy, layout.version, path) {
                Ok(directory) => group.directories.push(directory),
                Err(error) => {
                    for directory in group.directories.iter().filter(|one| !one.found) {
                        // The error that matters is the one that brought us here.
                        drop(cgroupfs::remove_dir(directory.parent.as_fd(), path.name()));
                    }
                    return Err(error);
                }
            }
        }
        Ok(group)
    }

    /// Opens a cgroup that exists in at least one hierarchy.
    ///
    /// # Errors
    /// [`Error::Io`] with `ENOENT` when no hierarchy has it.
    pub fn open(path: &CgroupPath) -> Result<Self, Error> {
        let layout = layout::usable()?;
        let mut directories = Vec::new();
        for hierarchy in &layout.hierarchies {
            match open_in(hierarchy, path) {
                Ok(directory) => directories.push(directory),
                Err(source) if source.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failed(hierarchy, "open", path.to_string(), source)),
            }
        }
        if directories.is_empty() {
            let source = io::Error::from(io::ErrorKind::NotFound);
            return Err(Error::Io {
                operation: "open".to_owned(),
                file: path.to_string(),
                source,
            });
        }
        Ok(Self {
            path: path.clone(),
            version: layout.version,
            directories,
        })
    }

    /// The hierarchies in which it was there before [`Cgroup::create`].
    #[must_use]
    pub fn found(&self) -> Vec<String> {
        let found = self.directories.iter().filter(|one| one.found);
        found.map(|one| one.hierarchy.label().to_owned()).collect()
    }

    /// Removes it as [`Cgroup::remove`] does, but for these hierarchies.
    ///
    /// # Errors
    /// As [`Cgroup::remove`].
    pub fn remove_except(mut self, hierarchies: &[String]) -> Result<(), Error> {
        self.directories
            .retain(|one| hierarchies.iter().all(|name| name != one.hierarchy.label()));
        self.remove()
    }

    /// Its path, after any rename.
    #[must_use]
    pub fn path(&self) -> &CgroupPath {
        &self.path
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn directories(&self) -> &[Directory] {
        &self.directories
    }

    /// The directory that a controller's files are in: on v1 that of its hierarchy, on v2 the only one, if the
    /// controller is there.
    pub(super) fn directory(&self, controller: &str) -> Option<&Directory> {
        self.directories
            .iter()
            .find(|directory| directory.hierarchy.has(controller))
    }

    /// Renames the group in every hierarchy, with the processes in it (v1 only: v2 cannot rename).
    ///
    /// # Errors
    /// [`Error::Unsupported`] on v2; [`Error::Io`], and then the hierarchies already renamed are renamed back.
    pub fn rename(&mut self, name: &str) -> Result<(), Error> {
        if self.version == Version::V2 {
            return Err(Error::Unsupported {
                what: "renaming a cgroup".to_owned(),
            });
        }
        let target = self.path.with_name(name)?;
        for (index, directory) in self.directories.iter().enumerate() {
            let Err(source) = cgroupfs::rename(directory.parent.as_fd(), self.path.name(), name)
            else {
                continue;
            };
            for done in &self.directories[..index] {
                // What cannot be renamed back is found by its name at the next sweep.
                drop(cgroupfs::rename(
                    done.parent.as_fd(),
                    name,
                    self.path.name(),
                ));
            }
            return Err(directory.error(&self.path, &format!("rename to {name:?}"), "", source));
        }
        self.path = target;
        Ok(())
    }

    /// Moves a process into the group, in every hierarchy. On v1 this waits for a grace period of the kernel, 6 to
    /// 14 ms: a process we start enters by itself ([`Cgroup::entry`]).
    ///
    /// # Errors
    /// [`Error::Io`]; the process may then be in some hierarchies and not in others.
    pub fn join(&self, pid: u32) -> Result<(), Error> {
        let pid = pid.to_string();
        for directory in &self.directories {
            cgroupfs::write(directory.dir.as_fd(), "cgroup.procs", &pid).map_err(|source| {
                directory.error(
                    &self.path,
                    &format!("add process {pid} to"),
                    "cgroup.procs",
                    source,
                )
            })?;
        }
        Ok(())
    }

    /// The way in for a single-threaded process that joins by itself, opened beforehand: what a container's first
    /// process uses on v1 right after `clone3`, before anything else. Measured: 0.3 ms for nine hierarchies, where
    /// [`Cgroup::join`] from outside costs 6 to 14 ms (see [`Entry`]).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn entry(&self) -> Result<Entry, Error> {
        let file = match self.version {
            Version::V1 => "tasks",
            Version::V2 => "cgroup.procs",
        };
        let open = |directory: &Directory| {
            cgroupfs::open_for_write(directory.dir.as_fd(), file)
                .map_err(|source| directory.error(&self.path, "open", file, source))
        };
        Ok(Entry {
            files: self
                .directories
                .iter()
                .map(open)
                .collect::<Result<_, _>>()?,
        })
    }

    /// The directory for `clone3(CLONE_INTO_CGROUP)`: v2 only.
    #[must_use]
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        match self.version {
            Version::V1 => None,
            Version::V2 => self
                .directories
                .first()
                .map(|directory| directory.dir.as_fd()),
        }
    }

    /// Removes the group and all groups below it, in every hierarchy; waits, bounded, until dying processes have left.
    /// One that is already gone is a success.
    ///
    /// # Errors
    /// [`Error::Busy`] when processes remain (it kills nothing: [`Cgroup::kill`] comes first), else [`Error::Io`].
    /// Every hierarchy is tried; the first failure is returned.
    pub fn remove(self) -> Result<(), Error> {
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        let mut first = None;
        for directory in &self.directories {
            if let Err(error) = self.remove_in(directory, deadline) {
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// Kills what is in the group and removes it: [`Cgroup::kill`], then [`Cgroup::remove`]. An empty group, as nearly
    /// every container leaves it, is removed without a look at its members (on v1 that is a file in each hierarchy).
    ///
    /// # Errors
    /// As those two.
    pub fn destroy(self) -> Result<(), Error> {
        let removed = self.directories.iter().all(|directory| {
            remove_tree(directory.parent.as_fd(), self.path.name(), NESTING_MAX).is_ok()
        });
        if removed {
            return Ok(());
        }
        self.kill()?;
        self.remove()
    }

    fn remove_in(&self, directory: &Directory, deadline: Instant) -> Result<(), Error> {
        let mut pause = REMOVE_PAUSE_FIRST;
        loop {
            let source = match remove_tree(directory.parent.as_fd(), self.path.name(), NESTING_MAX)
            {
                Ok(()) => return Ok(()),
                Err(source) => source,
            };
            if source.raw_os_error() != Some(EBUSY) {
                return Err(directory.error(&self.path, "remove", "", source));
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(Error::Busy {
                    path: self.path.clone(),
                });
            }
            // A process that is still there is waited for by itself; one between its last sight and the group's
            // release (the kernel shows no event for that on v1) by a short pause.
            match members(directory.dir.as_fd(), NESTING_MAX)
                .unwrap_or_default()
                .first()
            {
                // What cannot be waited for is looked at again.
                Some(&pid) => drop(cgroupfs::wait_exit(pid, deadline - now)),
                None => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(REMOVE_PAUSE_LAST);
                }
            }
        }
    }
}

/// Open files through which the *calling* single-threaded process moves itself into a cgroup.
///
/// Writing a process id into `cgroup.procs` takes the kernel's `cgroup_threadgroup_rwsem` for writing, and the first
/// writer after a pause waits for an RCU grace period. A thread that moves only itself (`0` into v1's `tasks`) needs no
/// such lock (kernel/cgroup/cgroup.c, `cgroup_procs_write_start`; since Linux 5.6), and a process with one thread is
/// moved whole by that. On v2 it is `cgroup.procs`, since `cgroup.threads` cannot leave the domain: use
/// [`Cgroup::clone_into`] there.
#[derive(Debug)]
pub struct Entry {
    files: Vec<OwnedFd>,
}

impl Entry {
    /// Moves the calling process, which must have a single thread, into the cgroup. Allocates nothing.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn enter(&self) -> io::Result<()> {
        self.files
            .iter()
            .try_for_each(|file| cgroupfs::write_open(file.as_fd(), "0"))
    }
}

/// The names of the cgroups directly below `parent`, the union over all hierarchies; empty when the parent is not
/// there or its name is not acceptable.
#[must_use]
pub fn list(parent: &str) -> Vec<String> {
    let Ok(components) = path::components(parent) else {
        return Vec::new();
    };
    let mut names: Vec<String> = layout::layout()
        .hierarchies
        .iter()
        .filter_map(|hierarchy| descend(hierarchy, &components).ok())
        .flat_map(|dir| cgroupfs::subdirectories(dir.as_fd()).unwrap_or_default())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Removes a parent and what is above it as far as they are empty, in every hierarchy: what an uninstall and a test do.
pub fn remove_empty_parent(parent: &str) {
    let Ok(components) = path::components(parent) else {
        return;
    };
    for hierarchy in &layout::layout().hierarchies {
        for depth in (0..components.len()).rev() {
            let removed = descend(hierarchy, &components[..depth])
                .and_then(|dir| cgroupfs::remove_dir(dir.as_fd(), components[depth]));
            if removed.is_err() {
                break;
            }
        }
    }
}

fn failed(hierarchy: &Hierarchy, operation: &str, file: String, source: io::Error) -> Error {
    Error::Io {
        operation: operation.to_owned(),
        file: format!("{}:{file}", hierarchy.label()),
        source,
    }
}

/// Opens the directory at `components` below the root, which must be there.
fn descend(hierarchy: &Hierarchy, components: &[&str]) -> io::Result<OwnedFd> {
    let mut dir = hierarchy.root.try_clone()?;
    for component in components {
        dir = cgroupfs::open_dir(dir.as_fd(), component)?;
    }
    Ok(dir)
}

fn open_in(hierarchy: &'static Hierarchy, path: &CgroupPath) -> io::Result<Directory> {
    let components =
        path::components(path.parent()).expect("a CgroupPath holds only valid components");
    let parent = descend(hierarchy, &components)?;
    let dir = cgroupfs::open_dir(parent.as_fd(), path.name())?;
    Ok(Directory {
        hierarchy,
        parent,
        dir,
        found: true,
    })
}

/// Everything in and below the group, over all hierarchies, each process once.
pub(super) fn all_members(group: &Cgroup) -> Result<Vec<u32>, Error> {
    let mut pids = Vec::new();
    for directory in &group.directories {
        let found = members(directory.dir.as_fd(), NESTING_MAX)
            .map_err(|source| directory.error(&group.path, "read", "cgroup.procs", source))?;
        pids.extend(found);
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// The group vanished, before or while its file was open.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ENODEV)
}
