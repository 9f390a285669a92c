//! The state directory: one directory for each container with what a later command needs to know.
//!
//! ```text
//! <root>/<id>/state.json    who the first process is, where its gate and cgroup are
//!             config.json   the spec as it was at create
//!             created       is there until the start
//! ```
//! The status is never stored: it is read off the process and the `created` file.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sys::file;

use super::{Failure, at};
use crate::cgroup::{Cgroup, CgroupPath};
use crate::oci;

/// What is remembered of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) pid: u32,
    /// The kernel's start time of that pid, in clock ticks: a pid that is used again has another.
    pub(super) born_ticks: u64,
    pub(super) bundle: PathBuf,
    pub(super) cgroup: CgroupPath,
    /// The hierarchies that had it before: there it stays.
    #[serde(default)]
    pub(super) found: Vec<String>,
    /// Number of the gate's descriptor in the waiting process.
    pub(super) gate: i32,
    /// RFC 3339.
    pub(super) created: String,
}

/// The OCI status of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// The state directory.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
}

/// One container of it.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) record: Record,
    directory: PathBuf,
}

impl Store {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Claims an id: a directory that did not exist.
    pub(super) fn claim(&self, id: &str) -> Result<PathBuf, Failure> {
        let plain = !id.is_empty()
            && id != "."
            && id != ".."
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte));
        if !plain {
            return Err(Failure::Refused(
                "invalid container ID format: ".to_owned() + id,
            ));
        }
        let make = |mode: u32, directory: &Path| {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(mode == ROOT_MODE).mode(mode);
            builder.create(directory)
        };
        at("make the state directory", make(ROOT_MODE, &self.root))?;
        let directory = self.root.join(id);
        match make(PRIVATE_MODE, &directory) {
            Ok(()) => Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Failure::Refused(
                "container with given ID already exists".to_owned(),
            )),
            Err(error) => Err(Failure::Io(format!("make {}", directory.display()), error)),
        }
    }

    pub(super) fn load(&self, id: &str) -> Result<Container, Failure> {
        let missing = || Failure::Refused("container does not exist".to_owned());
        if id.is_empty() || id.contains('/') || id == ".." {
            return Err(missing());
        }
        let directory = self.root.join(id);
        let text = fs::read(directory.join("state.json")).map_err(|_| missing())?;
        let record = serde_json::from_slice(&text)
            .map_err(|error| Failure::Io("read state.json".to_owned(), error.into()))?;
        Ok(Container { record, directory })
    }

    pub(super) fn directory(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }
}

/// Of the directory above the containers' own: those who know a container's id may ask for it by name.
const ROOT_MODE: u32 = 0o711;

/// Of a container's directory and of the files in it: the environment in config.json is full of secrets.
const PRIVATE_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Writes all that is remembered of a container that waits for its start.
pub(super) fn save(directory: &Path, record: &Record, spec: &oci::Spec) -> Result<(), Failure> {
    let place = at("open the state directory", file::open_directory(directory))?;
    let write = |name: &str, bytes: serde_json::Result<Vec<u8>>| {
        let write = || {
            let durability = file::Durability::None;
            file::write_atomic(place.as_fd(), name.as_ref(), &bytes?, FILE_MODE, durability)
        };
        at(format!("write {name}"), write())
    };
    write("config.json", serde_json::to_vec(spec))?;
    write("created", Ok(Vec::new()))?;
    write("state.json", serde_json::to_vec(record))
}

impl Container {
    pub(super) fn spec(&self) -> Result<oci::Spec, Failure> {
        let text = at(
            "read config.json",
            fs::read(self.directory.join("config.json")),
        )?;
        serde_json::from_slice(&text)
            .map_err(|error| Failure::Io("read config.json".to_owned(), error.into()))
    }

    /// The pidfd of the first process, if that still is the one that was made.
    pub(super) fn process(&self) -> Option<OwnedFd> {
        let pidfd = sys::process::open_pidfd(self.record.pid).ok()?;
        let (born, ended) = birth(self.record.pid)?;
        (born == self.record.born_ticks && !ended).then_some(pidfd)
    }

    pub(super) fn status(&self) -> Status {
        if self.process().is_none() {
            Status::Stopped
        } else if self.directory.join("created").exists() {
            Status::Created
        } else if Cgroup::open(&self.record.cgroup)
            .and_then(|cgroup| cgroup.is_frozen())
            .unwrap_or(false)
        {
            Status::Paused
        } else {
            Status::Running
        }
    }

    pub(super) fn mark_started(&self) -> Result<(), Failure> {
        at(
            "note the start",
            fs::remove_file(self.directory.join("created")),
        )
    }

    pub(super) fn forget(&self) -> Result<(), Failure> {
        at("remove the state", fs::remove_dir_all(&self.directory))
    }

    /// The OCI state, as the specification draws it and as hooks get it.
    pub(super) fn oci_state(&self, status: Status) -> Result<serde_json::Value, Failure> {
        let spec = self.spec()?;
        Ok(oci_state(&self.record, status, &spec))
    }
}

pub(super) fn oci_state(record: &Record, status: Status, spec: &oci::Spec) -> serde_json::Value {
    let mut value = serde_json::json!({
        "ociVersion": spec.version(),
        "id": record.id,
        "pid": if status == Status::Stopped { 0 } else { record.pid },
        "status": status.name(),
        "bundle": record.bundle,
        "rootfs": rootfs(&record.bundle, spec),
        "created": record.created,
        "owner": "",
    });
    if let Some(annotations) = spec.annotations() {
        value["annotations"] = serde_json::json!(annotations);
    }
    value
}

/// The root directory of a bundle, absolute.
pub(super) fn rootfs(bundle: &Path, spec: &oci::Spec) -> PathBuf {
    spec.root()
        .as_ref()
        .map_or_else(|| bundle.join("rootfs"), |root| bundle.join(root.path()))
}

/// When a process was born, in clock ticks, and whether it has ended already.
pub(super) fn birth(pid: u32) -> Option<(u64, bool)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after = text.rsplit_once(") ")?.1;
    let mut fields = after.split(' ');
    let state = fields.next()?;
    let born = fields.nth(18)?.parse().ok()?;
    Some((born, matches!(state, "Z" | "X")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_birth_is_known() {
        let (born, ended) = birth(std::process::id()).unwrap();
        assert!(born > 0);
        assert!(!ended);
    }
}
