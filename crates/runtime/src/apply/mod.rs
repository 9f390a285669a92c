//! The loop that applies a plan in the child, one step after the other.
//!
//! It runs in a copy of a single-threaded process: it may allocate, but it must not panic, log or return to its
//! caller's code. The first failure is reported over the channel and ends the process.

mod mounts;
mod process;

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use sys::file::{self, Kind};
use sys::namespace::{self, Set};
use sys::path::{self, OpenFlags};

use crate::message::{self, Failure, Report};
use crate::plan::{Hook, Plan, Slot, Source, Step};
use crate::seccomp::Program;

/// `/dev/null`.
const NULL: Kind = Kind::Character { major: 1, minor: 3 };

/// What a child needs beside its plan.
#[derive(Debug)]
pub(crate) struct Applied<'a> {
    /// The plan.
    pub(crate) plan: &'a Plan,
    /// The seccomp program that a step loads.
    pub(crate) seccomp: Option<&'a Program>,
    /// The descriptors, by slot.
    pub(crate) files: Vec<OwnedFd>,
    /// This end of the channel.
    pub(crate) channel: OwnedFd,
    /// Whether the caller says when to begin.
    pub(crate) await_caller: bool,
}

/// The state of the loop.
#[derive(Debug)]
struct Context<'a> {
    plan: &'a Plan,
    seccomp: Option<&'a Program>,
    files: Vec<Option<OwnedFd>>,
    channel: OwnedFd,
    root: Option<OwnedFd>,
    environment: Vec<String>,
    program: PathBuf,
}

/// Applies the plan; ends in the program, or in an exit code after a failure was reported.
pub(crate) fn run(applied: Applied<'_>) -> i32 {
    if applied.await_caller && !await_byte(applied.channel.as_fd(), message::CONTINUE) {
        return 1;
    }
    let mut context = Context {
        plan: applied.plan,
        seccomp: applied.seccomp,
        files: applied.files.into_iter().map(Some).collect(),
        channel: applied.channel,
        root: None,
        environment: applied.plan.environment.clone(),
        program: PathBuf::new(),
    };
    sys::process::set_umask(0);
    match context.steps() {
        Ok(never) => match never {},
        Err(Stop::Failed(failure)) => {
            // The caller is told if it is still there; the exit code says the rest.
            match message::send(context.channel.as_fd(), &Report::Failed(failure)) {
                Ok(()) | Err(_) => 1,
            }
        }
        Err(Stop::Exit(code)) => code,
    }
}

/// Why the loop ended.
#[derive(Debug)]
enum Stop {
    /// A step failed.
    Failed(Failure),
    /// The process ends without more words.
    Exit(i32),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn await_byte(channel: BorrowedFd<'_>, expected: u8) -> bool {
    sys::socket::read_byte(channel).is_ok_and(|byte| byte == Some(expected))
}

/// Adds what was done to an error of the kernel.
trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(what(), &error))
    }
}

impl Context<'_> {
    fn steps(&mut self) -> Result<Infallible, Stop> {
        sys::process::set_not_dumpable().doing(|| "set not dumpable".to_owned())?;
        let plan = self.plan;
        for step in &plan.steps {
            self.step(step)?;
        }
        Err(Stop::Failed(Failure {
            message: "the plan ends without a program".to_owned(),
            errno: None,
        }))
    }

    fn step(&mut self, step: &Step) -> Result<(), Stop> {
        match step {
            Step::Keyring(name) => sys::process::join_session_keyring(name)
                .doing(|| "unable to join session keyring".to_owned())?,
            Step::BecomeRoot => become_root()?,
            Step::Join(join) => {
                let fd = self.take(join.slot)?;
                namespace::join(fd.as_fd(), Set::from_bits(join.kinds))
                    .doing(|| format!("join namespace {:?}", plan_source(self.plan, join.slot)))?;
            }
            Step::UnshareCgroup => namespace::unshare(Set::CGROUP)
                .doing(|| "unable to begin a cgroup namespace".to_owned())?,
            Step::Loopback => {
                sys::netns::raise_loopback().doing(|| "raise the loopback interface".to_owned())?
            }
            Step::Session => {
                sys::process::new_session().doing(|| "setsid".to_owned())?;
            }
            Step::IsolateMounts
            | Step::AttachRoot(_)
            | Step::Mount(_)
            | Step::Device(_)
            | Step::DeviceLinks
            | Step::Pivot
            | Step::RootPropagation(_)
            | Step::MakeDirectory(_)
            | Step::ReadonlyPath(_)
            | Step::MaskPath(_)
            | Step::ReadonlyRoot => self.root_step(step)?,
            Step::CreateHooks(hooks) => {
                self.send(&Report::Hooks)?;
                if !await_byte(self.channel.as_fd(), message::CONTINUE) {
                    return Err(Stop::Exit(1));
                }
                self.hooks("createContainer", hooks)?;
            }
            Step::Hostname(name) => {
                namespace::set_hostname(name).doing(|| "sethostname".to_owned())?;
            }
            Step::Domainname(name) => {
                namespace::set_domainname(name).doing(|| "setdomainname".to_owned())?;
            }
            Step::Sysctl { path, value } => self.sysctl(path, value)?,
            Step::StartHooks(hooks) => self.hooks("startContainer", hooks)?,
            Step::Terminal { .. }
            | Step::Streams(_)
            | Step::Processors
            | Step::OomScore(_)
            | Step::Limit(_)
            | Step::Profile(_)
            | Step::Label(_)
            | Step::CloseFiles { .. }
            | Step::Umask(_)
            | Step::NoNewPrivileges
            | Step::Seccomp
            | Step::Credentials(_)
            | Step::ShowAsInit
            | Step::FindProgram
            | Step::AwaitStart
            | Step::Announce
            | Step::Execute { .. } => self.process_step(step)?,
        }
        Ok(())
    }

    fn take(&mut self, slot: Slot) -> Result<OwnedFd, Failure> {
        self.files
            .get_mut(slot)
            .and_then(Option::take)
            .ok_or_else(|| Failure {
                message: format!("descriptor {slot} of the plan is missing"),
                errno: None,
            })
    }

    /// The host's `/proc`, which no container can have tampered with.
    fn host_proc(&self) -> Result<BorrowedFd<'_>, Failure> {
        let slot = self
            .plan
            .sources
            .iter()
            .position(|source| *source == Source::Proc);
        slot.and_then(|slot| self.files.get(slot))
            .and_then(Option::as_ref)
            .map(AsFd::as_fd)
            .ok_or_else(|| Failure {
                message: "the host's /proc is missing".to_owned(),
                errno: None,
            })
    }

    fn root(&self) -> Result<BorrowedFd<'_>, Failure> {
        self.root.as_ref().map(AsFd::as_fd).ok_or_else(|| Failure {
            message: "the root is not there yet".to_owned(),
            errno: None,
        })
    }

    fn send(&self, report: &Report) -> Result<(), Failure> {
        message::send(self.channel.as_fd(), report)
            .doing(|| "report to the caller of the runtime".to_owned())
    }

    fn sysctl(&self, name: &Path, value: &str) -> Result<(), Failure> {
        let full = Path::new("sys").join(name);
        path::open_strictly(self.host_proc()?, &full, OpenFlags::WRONLY)
            .and_then(|file| file::write_once(file, value.as_bytes()))
            .doing(|| format!("open sysctl {} file", name.display()))
    }

    fn hooks(&self, kind: &str, hooks: &[Hook]) -> Result<(), Failure> {
        for (number, hook) in hooks.iter().enumerate() {
            crate::hook::run(hook, &self.plan.hook_state).map_err(|error| Failure {
                message: format!("error running {kind} hook #{number}: {error}"),
                errno: None,
            })?;
        }
        Ok(())
    }
}

fn plan_source(plan: &Plan, slot: Slot) -> Option<&Source> {
    plan.sources.get(slot)
}

fn become_root() -> Result<(), Failure> {
    sys::process::set_group(0)
        .doing(|| "setresgid to the root of the user namespace".to_owned())?;
    sys::process::set_user(0).doing(|| "setresuid to the root of the user namespace".to_owned())
}
