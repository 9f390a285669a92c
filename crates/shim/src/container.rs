//! The container: what the shim asks of the runtime and of the cgroup.
//!
//! The only file that makes processes. Everything else of the crate works with descriptors, and its tests
//! with ordinary children.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use runtime::cgroup::{self, Cgroup, CgroupPath, MemoryWatch};
use runtime::seccomp::Program;
use runtime::{Init, Io, Peer, Prepared, StartGate, WindowSize, oci};
use sys::clock::now_ns;
use sys::signal::SIGKILL;

use crate::process::{Ends, StdinEnd};
use crate::protocol::{self, Exec, FailureKind, Phase, Reply, Size};
use crate::supervisor::NewProcess;

/// `PF_EXITING` of the kernel's `include/linux/sched.h`.
const PF_EXITING: u64 = 0x4;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// A failure of the kernel while we were doing something.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::new(FailureKind::Internal, format!("{doing}: {error}"))
    }
}

impl From<runtime::Error> for Failure {
    fn from(error: runtime::Error) -> Self {
        if let runtime::Error::User(error) = error {
            return Self::new(FailureKind::NoUser, error.to_string());
        }
        let kind = match error.class() {
            runtime::FailureClass::NotFound => FailureKind::NotFound,
            runtime::FailureClass::NotExecutable => FailureKind::NotExecutable,
            runtime::FailureClass::Other => FailureKind::Other,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<cgroup::Error> for Failure {
    fn from(error: cgroup::Error) -> Self {
        Self::new(FailureKind::Other, error.to_string())
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        Self::Failed {
            kind: failure.kind,
            message: failure.message,
        }
    }
}

/// A cgroup made in advance.
#[derive(Debug)]
pub(crate) struct Parked {
    cgroup: Cgroup,
}

impl Parked {
    /// Makes one.
    ///
    /// # Errors
    /// What the cgroup failed with; nothing is left then.
    pub(crate) fn new(path: &CgroupPath) -> Result<Self, Failure> {
        Ok(Self {
            cgroup: Cgroup::create(path)?,
        })
    }

    /// The cgroup at `path`: this one, if it can become that.
    fn adopt(mut self, path: &CgroupPath) -> Result<Cgroup, Failure> {
        let same_parent = self.cgroup.path().parent() == path.parent();
        if same_parent && self.cgroup.rename(path.name()).is_ok() {
            return Ok(self.cgroup);
        }
        self.cgroup.destroy()?;
        Ok(Cgroup::create(path)?)
    }

    /// Removes the cgroup.
    ///
    /// # Errors
    /// The cgroup's refusal.
    pub(crate) fn remove(self) -> Result<(), Failure> {
        Ok(self.cgroup.destroy()?)
    }
}

/// The container and its directory.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) run_dir: PathBuf,
    pub(crate) phase: Phase,
    pub(crate) started_at_ns: Option<i64>,
    pub(crate) oom_killed: bool,
    oom_kills_seen: u64,
    /// v1: the kill that the next look will count has been told already.
    shortage_told: bool,
    /// Its epoll key and itself, while the cgroup exists.
    pub(crate) memory_watch: Option<(u64, MemoryWatch)>,
    /// The spec as JSON: a tenth of what it takes parsed, and only an exec wants it.
    spec: Vec<u8>,
    /// The seccomp program of every process.
    seccomp: Option<Arc<Program>>,
    /// Whether the init was process 1 of a pid namespace: the kernel lets nothing in it outlive that.
    owns_pids: bool,
    /// The init and its cgroup, until the cgroup is removed. Absent in tests without a container.
    init: Option<Init>,
    /// A cgroup that could not be removed.
    leftover: Option<CgroupPath>,
    /// The root file system, to the end of this shim and of its connections: nobody who hears of an exit waits for the
    /// disk, and who sees them end knows that it is written.
    _root: Option<OwnedFd>,
}

/// What a container is made of besides its request.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) parked: Option<Parked>,
    pub(crate) netns: Option<OwnedFd>,
    pub(crate) peers: Vec<Peer>,
}

impl Container {
    /// A container that was not started.
    fn new(id: String, run_dir: PathBuf, spec: Vec<u8>, mut init: Option<Init>) -> Self {
        Self {
            _root: init.as_mut().and_then(|init| init.root.take()),
            id,
            run_dir,
            phase: Phase::Created,
            started_at_ns: None,
            oom_killed: false,
            oom_kills_seen: 0,
            shortage_told: false,
            memory_watch: None,
            spec,
            seccomp: None,
            owns_pids: false,
            init,
            leftover: None,
        }
    }

    /// A container without a runtime behind it.
    #[cfg(test)]
    pub(crate) fn for_tests(id: &str, run_dir: &std::path::Path) -> Self {
        Self::new(id.to_owned(), run_dir.to_owned(), Vec::new(), None)
    }

    /// Makes the init, which waits for its start. Blocks.
    ///
    /// # Errors
    /// The runtime's failure; no process and no cgroup is left then.
    pub(crate) fn create(
        mut request: protocol::Create,
        parts: Parts,
    ) -> Result<(Self, NewProcess), Failure> {
        if let Some(process) = request.spec.process_mut() {
            process.set_terminal(Some(request.terminal));
        }
        let spec = serde_json::to_vec(&request.spec).map_err(|error| {
            Failure::new(FailureKind::Invalid, format!("specification: {error}"))
        })?;
        let (ends, io) = standard_streams(request.terminal, request.stdin, request.size)?;
        let cgroup = match parts.parked {
            Some(parked) => parked.adopt(&request.cgroup)?,
            None => Cgroup::create(&request.cgroup)?,
        };
        let made = runtime::create(runtime::Create {
            spec: &request.spec,
            seccomp: request.seccomp.as_deref(),
            user: Some(&request.user),
            rootfs: &request.rootfs,
            io,
            prepared: Prepared {
                cgroup,
                netns: parts.netns,
            },
            peers: &parts.peers,
            init: request.init,
            gate: StartGate::Creator,
        });
        let mut init = match made {
            Ok(init) => init,
            Err(error) => {
                // The cgroup went into the call; what is left of it is opened again.
                if let Ok(cgroup) = Cgroup::open(&request.cgroup) {
                    cgroup.destroy()?;
                }
                return Err(error.into());
            }
        };
        let process = init_process(&mut init, ends, &request);
        let mut container = Self::new(request.id, request.run_dir, spec, Some(init));
        container.seccomp = request.seccomp;
        container.owns_pids = owns_pids(&request.spec);
        match process {
            Ok(process) => Ok((container, process)),
            Err(failure) => {
                let mut container = container;
                container.destroy()?;
                Err(failure)
            }
        }
    }

    /// Lets the init go on to the program. Blocks until it has.
    ///
    /// # Errors
    /// The runtime's failure, with the text for the client.
    pub(crate) fn start(&mut self) -> Result<i64, Failure> {
        if self.phase != Phase::Created {
            return Err(Failure::new(FailureKind::Busy, "container already started"));
        }
        if let Some(init) = &mut self.init {
            init.start()?;
        }
        let at_ns = now_ns();
        self.started_at_ns = Some(at_ns);
        self.phase = Phase::Running;
        Ok(at_ns)
    }

    /// Runs one more process. Blocks until it runs.
    ///
    /// # Errors
    /// `NotRunning` and `Busy` by phase, else the runtime's failure.
    pub(crate) fn exec(&self, mut request: Exec) -> Result<NewProcess, Failure> {
        match self.phase {
            Phase::Running => {}
            Phase::Paused => return Err(Failure::new(FailureKind::Busy, "container is paused")),
            Phase::Idle | Phase::Created | Phase::Exited => return Err(not_running()),
        }
        let Some(init) = &self.init else {
            return Err(not_running());
        };
        let spec: oci::Spec = serde_json::from_slice(&self.spec).map_err(|error| {
            Failure::new(
                FailureKind::Internal,
                format!("kept specification: {error}"),
            )
        })?;
        let terminal = request.process.terminal().unwrap_or(false);
        request.process.set_terminal(Some(terminal));
        let (ends, io) = standard_streams(terminal, request.stdin, request.size)?;
        let executed = runtime::exec(runtime::Exec {
            init: init.pidfd.as_fd(),
            spec: &spec,
            seccomp: self.seccomp.as_deref(),
            user: Some(&request.user),
            process: &request.process,
            cgroup: &init.cgroup,
            io,
        });
        let executed = executed.map_err(|error| failed_beside(init, error))?;
        Ok(NewProcess {
            pid: executed.pid,
            pidfd: executed.pidfd,
            ends: complete(ends, executed.terminal)?,
            stdin: request.stdin,
            stdin_end: StdinEnd::WithClient,
        })
    }

    /// Says whether the container has such a user.
    ///
    /// # Errors
    /// `NoUser`, `NotRunning`, or why its files cannot be read.
    pub(crate) fn find_user(&self, wanted: &protocol::Wanted) -> Result<(), Failure> {
        let init = self.init.as_ref().ok_or_else(not_running)?;
        runtime::find_user(init.pidfd.as_fd(), wanted)
            .map(drop)
            .map_err(|error| failed_beside(init, error))
    }

    /// The cgroup, while it exists.
    ///
    /// # Errors
    /// `NotRunning`.
    pub(crate) fn cgroup(&self) -> Result<&Cgroup, Failure> {
        self.init
            .as_ref()
            .map(|init| &init.cgroup)
            .ok_or_else(not_running)
    }

    /// The init has exited: kills what it has left behind.
    ///
    /// # Errors
    /// The cgroup's refusal.
    pub(crate) fn init_exited(&mut self) -> Result<(), Failure> {
        self.phase = Phase::Exited;
        let Some(init) = self.init.as_ref().filter(|_| !self.owns_pids) else {
            return Ok(());
        };
        if init.cgroup.is_populated()? {
            init.cgroup.kill()?;
        }
        Ok(())
    }

    /// Whether the kernel killed for memory since the last call.
    pub(crate) fn saw_memory_kill(&mut self) -> bool {
        let kills = self
            .cgroup()
            .ok()
            .and_then(|cgroup| cgroup.oom_kills().ok())
            .unwrap_or(self.oom_kills_seen);
        let more = kills > self.oom_kills_seen;
        self.oom_kills_seen = kills;
        let news = more && !self.shortage_told;
        self.oom_killed |= more;
        self.shortage_told = false;
        news
    }

    /// Takes an event of the memory watch. Whether there is something to tell.
    pub(crate) fn memory_event(&mut self) -> bool {
        let Some((_key, watch)) = &self.memory_watch else {
            return false;
        };
        // Nothing to take is nothing to tell.
        if watch.clear().is_err() {
            return false;
        }
        match watch.version() {
            // Reported when the shortage begins: the kill that follows is counted a moment later.
            cgroup::Version::V1 => {
                self.oom_killed = true;
                self.shortage_told = true;
                true
            }
            cgroup::Version::V2 => self.saw_memory_kill(),
        }
    }

    /// Sends a signal to every process of the container.
    ///
    /// # Errors
    /// `NotRunning`, or the cgroup's refusal.
    pub(crate) fn signal_all(&self, signal: i32) -> Result<(), Failure> {
        let cgroup = self.cgroup()?;
        if signal == SIGKILL {
            return Ok(cgroup.kill()?);
        }
        for pid in cgroup.pids()? {
            let Ok(pidfd) = sys::process::open_pidfd(pid) else {
                continue;
            };
            // The number may be somebody else's by now; what is in the cgroup while we hold it is ours.
            if cgroup.pids()?.contains(&pid) {
                match sys::process::send_signal(pidfd.as_fd(), signal) {
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                        let text = format!("no such signal: {signal}");
                        return Err(Failure::new(FailureKind::Invalid, text));
                    }
                    Ok(()) | Err(_) => {} // it has exited meanwhile
                }
            }
        }
        Ok(())
    }

    /// Removes the cgroup; a second call does nothing.
    ///
    /// # Errors
    /// The kernel's refusal; the cgroup is then tried again by the next call.
    pub(crate) fn remove_cgroup(&mut self) -> Result<(), Failure> {
        let cgroup = match (self.init.take(), self.leftover.take()) {
            (Some(init), _) => init.cgroup,
            (None, Some(path)) => Cgroup::open(&path)?,
            (None, None) => return Ok(()),
        };
        let path = cgroup.path().clone();
        cgroup.destroy().map_err(|error| {
            self.leftover = Some(path);
            error.into()
        })
    }

    /// Kills everything and removes the cgroup: after a failed start.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn destroy(&mut self) -> Result<(), Failure> {
        if let Some(init) = &self.init {
            // It may be dead and reaped already.
            drop(sys::process::send_signal(init.pidfd.as_fd(), SIGKILL));
            drop(sys::process::wait(init.pidfd.as_fd()));
        }
        self.remove_cgroup()
    }
}

/// What failed beside an init that is ending failed by that: its files and its namespaces go before its exit is seen.
fn failed_beside(init: &Init, error: runtime::Error) -> Failure {
    match is_ending(init.pid) {
        true => not_running(),
        false => error.into(),
    }
}

/// Whether a child of ours has begun to exit: proc_pid_stat(5), `flags`.
fn is_ending(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' '));
    let flags = fields.and_then(|mut fields| fields.nth(6)?.parse::<u64>().ok());
    flags.is_none_or(|flags| flags & PF_EXITING != 0)
}

/// The failure of a request to a process that is not there.
pub(crate) fn not_running() -> Failure {
    Failure::new(FailureKind::NotRunning, "process is not running")
}

/// Whether a specification asks for a new pid namespace.
fn owns_pids(spec: &oci::Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
    namespaces.into_iter().flatten().any(|namespace| {
        namespace.typ() == oci::LinuxNamespaceType::Pid && namespace.path().is_none()
    })
}

fn init_process(
    init: &mut Init,
    ends: Option<Ends>,
    request: &protocol::Create,
) -> Result<NewProcess, Failure> {
    Ok(NewProcess {
        pid: init.pid,
        pidfd: init
            .pidfd
            .try_clone()
            .map_err(Failure::io("duplicate pidfd"))?,
        ends: complete(ends, init.terminal.take())?,
        stdin: request.stdin,
        stdin_end: if request.stdin_once {
            StdinEnd::WithClient
        } else {
            StdinEnd::Never
        },
    })
}

/// Our ends of the pipes and the process's, or the request for a terminal.
fn standard_streams(
    terminal: bool,
    stdin: bool,
    size: Option<Size>,
) -> Result<(Option<Ends>, Io), Failure> {
    if terminal {
        let size = size.map(|size| WindowSize {
            height: size.height,
            width: size.width,
        });
        return Ok((None, Io::Terminal { size }));
    }
    let (ends, [stdin, stdout, stderr]) =
        Ends::pipes(stdin).map_err(Failure::io("make standard streams"))?;
    let io = Io::Pipes {
        stdin,
        stdout,
        stderr,
    };
    Ok((Some(ends), io))
}

fn complete(ends: Option<Ends>, master: Option<OwnedFd>) -> Result<Ends, Failure> {
    match (ends, master) {
        (Some(ends), _) => Ok(ends),
        (None, Some(master)) => Ends::terminal(master).map_err(Failure::io("take terminal")),
        (None, None) => Err(Failure::new(
            FailureKind::Internal,
            "the runtime made no terminal",
        )),
    }
}

/// Opens the run directory.
///
/// # Errors
/// `Internal` with the errno.
pub(crate) fn open_dir(path: &std::path::Path) -> Result<File, Failure> {
    File::open(path).map_err(Failure::io("open run directory"))
}
