//! The messages between daemon and shim. Plain data, no I/O.
//!
//! Every message is one JSON value in one frame of [`crate::codec`]. A connection carries requests one way
//! and replies the other, one reply per request, in order. Two requests change what a connection is:
//! * [`Request::Attach`] (and [`Exec::attach`]): after the `Ok` (`Executed`) the connection is a byte
//!   stream. Shim to client: Docker's stream format, 8-byte header `[1|2, 0, 0, 0, length big-endian]` and
//!   payload, or raw bytes with a terminal; end of file when the process's output has ended. Client to
//!   shim: raw standard input; half-closing it is end of input for the process if `stdin_once` (exec: always).
//! * [`Request::Watch`]: after the `State` the shim sends [`Notice`]s until the connection ends.
//!
//! Fields may be added; both sides ignore unknown ones, so that a newer daemon can adopt an older shim.

use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;

use network::Protocol;
use runtime::oci;
use runtime::seccomp::Program;
use serde::{Deserialize, Serialize};

pub use runtime::cgroup::CgroupPath;
pub use runtime::user::Wanted;
pub use runtime::{Overlay, Rootfs};

/// The version of this protocol, told in [`State`].
pub const VERSION: u32 = 1;

/// File name of the shim's socket in the container's run directory (mode 0600).
///
/// It stays behind, refusing connections, when the shim is killed; nothing then answers for the container.
pub const SOCKET_NAME: &str = "shim.sock";

/// File name of the init's [`ExitRecord`] in the container's run directory.
pub const EXIT_RECORD_NAME: &str = "exit.json";

/// The file name of an exec process's [`ExitRecord`] in the container's run directory.
#[must_use]
pub fn exec_record_name(id: &str) -> String {
    format!("exec-{id}.json")
}

/// One process that the shim is the parent of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessId {
    /// The container's first process.
    Init,
    /// A process added by [`Request::Exec`], by the id given there.
    Exec(String),
}

/// The size of a terminal in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// The log file of a container, in dockerd's json-file format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// The file; rotated ones are beside it with `.1`, `.2`, … appended (1 is the youngest).
    pub path: PathBuf,
    /// The size in bytes at which the file is rotated; `None` never rotates.
    pub max_size_bytes: Option<u64>,
    /// How many files there are at most, the current one included; 1 begins it anew instead of rotating.
    pub max_files: u32,
    /// Extra attributes of every line (`--log-opt labels=…`, `env=…`, `tag=…`).
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// The log size limit if the user names none: 20 MB (DESIGN decision 11).
pub const LOG_SIZE_DEFAULT_BYTES: u64 = 20_000_000;
/// The number of log files if the user names none (DESIGN decision 11).
pub const LOG_FILES_DEFAULT: u32 = 5;

/// Which streams an attached client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// The client's bytes go to the process's standard input.
    pub stdin: bool,
    /// The client gets standard output (with a terminal: everything).
    pub stdout: bool,
    /// The client gets standard error (with a terminal: nothing more).
    pub stderr: bool,
}

impl Streams {
    /// All three.
    pub const ALL: Self = Self {
        stdin: true,
        stdout: true,
        stderr: true,
    };

    /// What the process writes, and nothing for it to read.
    pub const OUTPUT: Self = Self {
        stdin: false,
        ..Self::ALL
    };
}

/// What [`Request::Create`] makes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Create {
    /// The container's id (64 hexadecimal digits).
    pub id: String,
    /// The run directory, which exists: the shim puts its socket and the exit records there.
    pub run_dir: PathBuf,
    /// The OCI specification. `process.terminal` is taken from `terminal` below.
    pub spec: Box<oci::Spec>,
    /// The seccomp program of the init and of every exec: compiled once by the daemon, not for each container.
    /// Without one the specification's own policy counts.
    #[serde(default)]
    pub seccomp: Option<Arc<Program>>,
    /// Who the init is to be, looked up in the container.
    pub user: Wanted,
    /// The root directory.
    pub rootfs: Rootfs,
    /// Whether Cooper's own init is process 1 and the program its child (`--init`).
    pub init: bool,
    /// Whether the init gets a terminal instead of pipes.
    pub terminal: bool,
    /// Whether standard input stays open (`OpenStdin`); otherwise it is at its end at once.
    pub stdin: bool,
    /// Whether standard input ends when the first client that is attached to it half-closes (`StdinOnce`).
    pub stdin_once: bool,
    /// The terminal's first size.
    pub size: Option<Size>,
    /// The log file; `None` writes none.
    pub log: Option<Log>,
    /// The cgroup to make, or to rename the parked one to.
    pub cgroup: CgroupPath,
    /// Whether a network namespace's file descriptor comes with this message (`SCM_RIGHTS`).
    pub netns: bool,
    /// Containers that the specification joins, by the pid of their first process. A pidfd of each comes with this
    /// message, in this order, after the namespace's: what the specification names by the pid is taken from that.
    #[serde(default)]
    pub peers: Vec<u32>,
    /// Published ports. The descriptor of each one's socket comes with this message, in this order, after
    /// the peers'. They are closed when the init has exited.
    #[serde(default)]
    pub forwards: Vec<ForwardSpec>,
}

/// How many ports a container may publish: each is an open socket of its shim, which lives with the usual
/// limit of 1,024 descriptors.
pub const FORWARDS_MAX: usize = 256;

/// A published port's socket, and where what arrives there goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardSpec {
    /// TCP (a listening socket) or UDP.
    pub protocol: Protocol,
    /// What the socket is bound to.
    pub local: SocketAddr,
    /// The container's address and port.
    pub target: SocketAddrV4,
}

/// What [`Request::Exec`] adds to a running container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// The exec's id, unique in this container.
    pub id: String,
    /// Who the process is to be, looked up in the container.
    pub user: Wanted,
    /// What to run. `process.terminal` says whether it gets a terminal.
    pub process: Box<oci::Process>,
    /// Whether standard input stays open; otherwise it is at its end at once.
    pub stdin: bool,
    /// The terminal's first size.
    pub size: Option<Size>,
    /// Makes this connection the stream of the process after the `Executed`, as [`Request::Attach`] would,
    /// but from its first byte.
    pub attach: Option<Streams>,
}

/// What a client asks of the shim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Prepares a pooled shim (control connection only, before `Create`): makes the cgroup. Answer:
    /// [`Reply::Parked`].
    Park {
        /// The temporary cgroup; `Create` renames it.
        cgroup: CgroupPath,
    },
    /// Makes the container's init (control connection only). Answer: [`Reply::Created`]. From here on the
    /// socket in the run directory answers, and the end of the control connection means nothing. A failed
    /// `Create` cleans up, answers [`Reply::Failed`] and ends the shim.
    Create(Box<Create>),
    /// Lets the init run the container's program. Answer: [`Reply::Started`]. A failed `Start` cleans up,
    /// writes no exit record, answers [`Reply::Failed`] and ends the shim.
    Start,
    /// Asks whether the container has such a user, and such groups. Answer: [`Reply::Ok`], or `NoUser`.
    FindUser(Wanted),
    /// Runs one more process in the container. Answer: [`Reply::Executed`].
    Exec(Box<Exec>),
    /// Sends a signal. Answer: [`Reply::Ok`], or `NotRunning`.
    Kill {
        /// Whom.
        process: ProcessId,
        /// The signal's number.
        signal: i32,
        /// Whether every process of the container's cgroup gets it (`Init` only).
        all: bool,
    },
    /// Sets a terminal's size. Answer: [`Reply::Ok`]; `NotRunning`, or `Invalid` without a terminal.
    Resize {
        /// Whose terminal.
        process: ProcessId,
        /// The new size.
        size: Size,
    },
    /// Freezes the container's cgroup. Answer: [`Reply::Ok`].
    Pause,
    /// Thaws the container's cgroup. Answer: [`Reply::Ok`].
    Resume,
    /// Sets limits of the running container. Answer: [`Reply::Ok`].
    Update {
        /// The limits to change; what is absent stays.
        resources: Box<oci::LinuxResources>,
    },
    /// Makes this connection a stream of the process (see the module's head). Legal before `Start`, and after
    /// the exit until it is acknowledged. Answer: [`Reply::Ok`].
    Attach {
        /// Whose streams.
        process: ProcessId,
        /// Which streams.
        streams: Streams,
    },
    /// Ends the process's standard input. Answer: [`Reply::Ok`].
    CloseStdin {
        /// Whose.
        process: ProcessId,
    },
    /// Asks for the [`State`].
    State,
    /// Asks for the [`State`], and for every [`Notice`] from then on.
    Watch,
    /// Says that the exit is persisted and its record may go (the daemon deletes the file). For `Init` the
    /// shim has removed the cgroup when it answers, removes its socket and ends. Answer: [`Reply::Ok`];
    /// `Busy` if the process has not exited.
    Acknowledge {
        /// Whose exit.
        process: ProcessId,
    },
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done.
    Ok,
    /// The answer to `Park`.
    Parked,
    /// The answer to `Create`.
    Created {
        /// The init's process id in the shim's namespace.
        pid: u32,
    },
    /// The answer to `Start`: the program was executed.
    Started {
        /// When, in nanoseconds since the epoch.
        at_ns: i64,
    },
    /// The answer to `Exec`: the program was executed.
    Executed {
        /// Its process id in the shim's namespace.
        pid: u32,
    },
    /// The answer to `State` and `Watch`.
    State(Box<State>),
    /// The request failed.
    Failed {
        /// What sort of failure.
        kind: FailureKind,
        /// The text for the client, as dockerd and runc would word it.
        message: String,
    },
}

/// The classes of failure that the daemon treats differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The program does not exist (exit code 127).
    NotFound,
    /// The program cannot be executed (exit code 126).
    NotExecutable,
    /// The container has no such user or group; the text is dockerd's whole answer.
    NoUser,
    /// The container or process could not be made for another reason (exit code 128).
    Other,
    /// The process is not there, not started yet, or has exited.
    NotRunning,
    /// The request does not fit the present state: a second `Create`, an id in use, too many connections.
    Busy,
    /// The request itself is wrong.
    Invalid,
    /// The shim or the kernel failed.
    Internal,
}

/// What [`Request::Watch`] delivers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// A process has exited; its record is written, its output drained.
    Exited {
        /// Which one.
        process: ProcessId,
        /// How.
        exit: Exit,
    },
    /// The kernel killed a process of the container for memory.
    OutOfMemory,
    /// An exit record could not be written: if nobody watches now, the exit is not known to anyone.
    RecordFailed {
        /// What failed.
        message: String,
    },
    /// The log file cannot be written. Sent once per failure, not once per line.
    LogFailed {
        /// What failed.
        message: String,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit status, or 128 + n if signal n ended it.
    pub code: i32,
    /// Whether the kernel's out-of-memory killer was at work in the container.
    pub oom_killed: bool,
    /// When, in nanoseconds since the epoch.
    pub at_ns: i64,
}

/// The content of an exit record file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The container's id.
    pub id: String,
    /// Which process.
    pub process: ProcessId,
    /// How it ended.
    pub exit: Exit,
}

/// The phases of the container's init, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// No container yet.
    Idle,
    /// The init exists and waits for `Start`.
    Created,
    /// The program runs.
    Running,
    /// The container is frozen.
    Paused,
    /// The init has exited.
    Exited,
}

/// What the shim knows about its container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The shim's [`VERSION`].
    pub version: u32,
    /// The container's id; empty in [`Phase::Idle`].
    pub id: String,
    /// The phase.
    pub phase: Phase,
    /// The init's process id.
    pub pid: Option<u32>,
    /// When `Start` succeeded, in nanoseconds since the epoch.
    pub started_at_ns: Option<i64>,
    /// How the init ended.
    pub exit: Option<Exit>,
    /// Whether the kernel killed a process of the container for memory.
    pub oom_killed: bool,
    /// Log lines lost because the file could not be written.
    pub log_lines_dropped: u64,
    /// The exec processes that run, or whose exit is not acknowledged.
    pub execs: Vec<ExecState>,
}

/// One exec process in [`State`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecState {
    /// Its id.
    pub id: String,
    /// Its process id.
    pub pid: u32,
    /// How it ended.
    pub exit: Option<Exit>,
}
