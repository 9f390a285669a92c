//! What a container is at one moment: the persisted facts and the snapshot that readers see.
//!
//! Plain data without a clock or I/O. How it changes is [`step`](crate::step)'s business, who changes it
//! is the container's one task.

use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ContainerId;
use crate::definition::Definition;

/// The status words of the Engine API (`State.Status` of inspect).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// Never started.
    Created,
    /// Its process runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// It has exited and waits for its restart policy to start it again.
    Restarting,
    /// It is being removed.
    Removing,
    /// It has run and does not.
    Exited,
    /// It could not be removed.
    Dead,
}

impl Status {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }

    /// Whether there is a process that can be talked to.
    pub fn has_process(self) -> bool {
        match self {
            Self::Running | Self::Paused => true,
            Self::Created | Self::Restarting | Self::Removing | Self::Exited | Self::Dead => false,
        }
    }

    /// What Docker calls running: its `State.Running` is also set while paused and while restarting.
    pub fn is_running(self) -> bool {
        match self {
            Self::Running | Self::Paused | Self::Restarting => true,
            Self::Created | Self::Removing | Self::Exited | Self::Dead => false,
        }
    }
}

/// What is persisted of a container's life, next to its definition. Times are Unix nanoseconds, 0 = never.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// How often it was started: the number names a run, so that news of an older one is recognised.
    pub run: u64,
    /// The init's process id, while it runs.
    pub pid: Option<u32>,
    /// Start of the last run.
    pub started_at_ns: i64,
    /// End of the last run.
    pub finished_at_ns: i64,
    /// Exit code of the last run, or of the start that failed.
    pub exit_code: i32,
    /// Why the last start failed; empty otherwise.
    pub error: String,
    /// Whether the kernel killed it for memory in the last run.
    pub oom_killed: bool,
    /// How often the restart policy started it since a person did.
    pub restart_count: u32,
    /// Whether a person stopped it: `unless-stopped` then leaves it alone at boot.
    pub manually_stopped: bool,
    /// Whether it is frozen.
    pub paused: bool,
    /// Whether its removal, once decided, takes its anonymous volumes along.
    pub remove_volumes: bool,
    /// Its place in a network, while it runs in one of its own or in the host's.
    pub network: Option<Box<Attached>>,
}

/// What one run has of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attached {
    /// Id of what libnetwork calls the sandbox.
    pub sandbox: String,
    /// Endpoint id.
    pub endpoint: String,
    /// What it has on the bridge; absent in `none` and `host`.
    pub bridged: Option<Bridged>,
}

/// A run's addresses and ports on the bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridged {
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Bits of the subnet.
    pub prefix: u8,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    /// Its hardware address.
    pub mac: network::Mac,
    /// Its published ports, in the order they are shown.
    pub ports: Vec<network::PublishedPort>,
}

/// One container as readers see it: immutable, replaced whole after every change.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts the changes; a later snapshot has a higher number.
    pub generation: u64,
    /// What it was created as.
    pub definition: Arc<Definition>,
    /// Its name, without a slash.
    pub name: Arc<str>,
    /// What clients are told it does.
    pub status: Status,
    /// What is known of its runs.
    pub facts: Facts,
    /// Runs that ended since this daemon knows it; waits for the next exit count it.
    pub exits: u64,
    /// Whether it is gone: its row is deleted and nothing of it is left.
    pub removed: bool,
    /// Why its removal failed; empty otherwise.
    pub removal_error: String,
}

impl Snapshot {
    /// The container's id.
    pub fn id(&self) -> &ContainerId {
        &self.definition.id
    }
}
