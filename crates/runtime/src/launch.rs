//! From a plan to a child that waits: opening what the plan names, making the process, and the first words with it.
//!
//! Two ways lead to one child: a direct clone3, and a process in between that joins namespaces first (it cannot be in
//! a pid namespace it joins, only its children are).

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use sys::mount::{self, Depth};
use sys::namespace::Set;
use sys::path::OpenFlags;
use sys::process::{self, CloneRequest};
use sys::signal::SIGKILL;

use crate::apply::{self, Applied};
use crate::message::{self, Failure, Report};
use crate::plan::{Join, Mapping, Plan, Source};
use crate::seccomp::{self, Program};
use crate::{Error, Io, Peer, Rootfs, cgroup};

/// What is launched.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// The plan.
    pub(crate) plan: &'a Plan,
    /// The seccomp program that the plan's step loads.
    pub(crate) seccomp: Option<&'a Program>,
    /// The descriptors by slot.
    pub(crate) files: Vec<OwnedFd>,
    /// The cgroup the child is in before it does anything.
    pub(crate) cgroup: &'a cgroup::Cgroup,
    /// What runc says it was doing, before a failure of the child.
    pub(crate) during: &'static str,
}

/// A child, and the channel to it.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) channel: OwnedFd,
    /// What it has said already.
    early: Vec<Report>,
    during: &'static str,
}

/// A failure on the caller's side.
pub(crate) fn host(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let operation = operation.into();
    move |source| Error::Host { operation, source }
}

/// What the sources of a plan are opened from, beside the host.
#[derive(Debug)]
pub(crate) struct Given<'a> {
    pub(crate) io: Io,
    pub(crate) rootfs: Option<&'a Rootfs>,
    pub(crate) network: Option<OwnedFd>,
    pub(crate) peers: &'a [Peer],
    pub(crate) gate: Option<BorrowedFd<'a>>,
}

/// Opens what a plan names, in the order of its slots.
pub(crate) fn open_sources(plan: &Plan, given: Given<'_>) -> Result<Vec<OwnedFd>, Error> {
    let mut streams = match given.io {
        Io::Pipes {
            stdin,
            stdout,
            stderr,
        } => [Some(stdin), Some(stdout), Some(stderr)],
        Io::Terminal { .. } => [None, None, None],
    };
    let mut network = given.network;
    let missing = |what: &str| Error::Spec(format!("{what} is missing"));
    plan.sources
        .iter()
        .map(|source| match source {
            Source::Stream(number) => streams
                .get_mut(usize::from(*number))
                .and_then(Option::take)
                .ok_or_else(|| missing("a standard stream")),
            Source::Rootfs => open_rootfs(
                given
                    .rootfs
                    .ok_or_else(|| missing("the root file system"))?,
            ),
            Source::Network => network
                .take()
                .ok_or_else(|| missing("the network namespace")),
            Source::Namespace(path) => namespace(path, given.peers)
                .map_err(host(format!("open namespace {}", path.display()))),
            Source::Tree { path, recursive } => {
                let depth = if *recursive {
                    Depth::Recursive
                } else {
                    Depth::One
                };
                let of_a_peer = given.peers.iter().find_map(|peer| peer.tree(path));
                of_a_peer
                    .unwrap_or_else(|| tree(path, depth))
                    .map_err(|error| bind_failure(path, &error))
            }
            Source::Proc => {
                sys::path::open_directory(Path::new("/proc")).map_err(host("open /proc"))
            }
            Source::Gate => given
                .gate
                .ok_or_else(|| missing("the gate"))?
                .try_clone_to_owned()
                .map_err(host("copy the gate")),
        })
        .collect()
}

fn namespace(path: &Path, peers: &[Peer]) -> io::Result<OwnedFd> {
    for peer in peers {
        if let Some(fd) = peer.namespace(path)? {
            return Ok(fd);
        }
    }
    sys::path::open(path, OpenFlags::RDONLY)
}

fn tree(path: &Path, depth: Depth) -> io::Result<OwnedFd> {
    let at = sys::path::open_directory(Path::new("/"))?;
    mount::clone_tree(at.as_fd(), path, depth)
}

/// A bind source that cannot be had reads as runc says it.
fn bind_failure(path: &Path, error: &io::Error) -> Error {
    let what = format!(
        "error mounting {:?}: bind source",
        path.display().to_string()
    );
    Failure::new(what, error).into_error("error during container init: ")
}

fn open_rootfs(rootfs: &Rootfs) -> Result<OwnedFd, Error> {
    match rootfs {
        Rootfs::Directory { path } => tree(path, Depth::Recursive).map_err(host(format!(
            "open the root file system {}",
            path.display()
        ))),
        Rootfs::Overlay(overlay) => sys::overlay::mount(
            &sys::overlay::Request {
                layers: &overlay.layers,
                lower: &overlay.lower,
                upper: Some((&overlay.upper, &overlay.work)),
            },
            None,
        )
        .map_err(host(format!(
            "mount the overlay at {}",
            overlay.upper.display()
        ))),
    }
}

/// A label means nothing without SELinux, and who asked for it would believe to be protected (runc's words).
pub(crate) fn refuse_label(process: &crate::oci::Process) -> Result<(), Error> {
    let asked = process.selinux_label().as_ref();
    if asked.is_none_or(String::is_empty) || Path::new("/sys/fs/selinux/enforce").exists() {
        return Ok(());
    }
    Err(Error::Spec(
        "selinux label is specified in config, but selinux is disabled or not supported".to_owned(),
    ))
}

/// The seccomp program of a process: the one that was compiled for it, else that of the spec's policy.
pub(crate) fn program<'a>(
    compiled: Option<&'a Program>,
    spec: &crate::oci::Spec,
) -> Result<Option<Cow<'a, Program>>, Error> {
    let policy = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref());
    let program = match (compiled, policy) {
        (Some(program), _) => Cow::Borrowed(program),
        (None, Some(policy)) => Cow::Owned(seccomp::compile(policy)?),
        (None, None) => return Ok(None),
    };
    if program.needs_listener() {
        return Err(Error::Spec(
            "seccomp listeners are not supported".to_owned(),
        ));
    }
    Ok(Some(program))
}

/// Makes the child and lets it begin; it is inside its cgroup then.
pub(crate) fn launch(
    launch: Launch<'_>,
    (ours, theirs): (OwnedFd, OwnedFd),
) -> Result<Launched, Error> {
    let Launch {
        plan,
        seccomp,
        files,
        cgroup,
        during,
    } = launch;
    let between = !plan.joins_before.is_empty();
    let way = Way::open(cgroup)?;
    let awaits_maps = plan.mappings.is_some();
    let request = CloneRequest {
        namespaces: if between {
            Set::default()
        } else {
            Set::from_bits(plan.begins)
        },
        cgroup: way.clone_into(),
        sibling: false,
    };
    let child = process::clone(request, || {
        if let Err(error) = way.enter() {
            let failure = Failure::new("unable to join the cgroup", &error);
            return i32::from(message::send(theirs.as_fd(), &Report::Failed(failure)).is_err());
        }
        if between {
            return between_main(plan, seccomp, files, theirs);
        }
        apply::run(Applied {
            plan,
            seccomp,
            files,
            channel: theirs,
            await_caller: awaits_maps,
        })
    })
    .map_err(host("clone3"))?;
    let first = Guard(Some(child.pidfd));
    if between {
        let (pid, early) = pid_of_child(ours.as_fd(), during)?;
        first.reap()?;
        return begun(pid, early, ours, plan, during);
    }
    if awaits_maps {
        write_maps(child.pid, plan)?;
        say_continue(ours.as_fd())?;
    }
    Ok(Launched {
        pid: child.pid,
        pidfd: first.keep()?,
        channel: ours,
        early: Vec::new(),
        during,
    })
}

/// Whether a child made by a process in between has to wait for what its caller writes about it. What it does without
/// is what it may do before its start in any case.
fn awaits_caller(plan: &Plan) -> bool {
    plan.mappings.is_some() || plan.oom_score_by_parent.is_some()
}

fn say_continue(channel: BorrowedFd<'_>) -> Result<(), Error> {
    sys::socket::send_with_fds(channel, &[message::CONTINUE], &[]).map_err(|_| Error::Died)?;
    Ok(())
}

/// The way into a cgroup: born in it on v2, by an own step before anything else on v1.
#[derive(Debug)]
pub(crate) struct Way<'a> {
    cgroup: &'a cgroup::Cgroup,
    entry: Option<cgroup::Entry>,
}

impl<'a> Way<'a> {
    pub(crate) fn open(cgroup: &'a cgroup::Cgroup) -> Result<Self, Error> {
        let entry = match cgroup.clone_into() {
            Some(_) => None,
            None => Some(cgroup.entry()?),
        };
        Ok(Self { cgroup, entry })
    }

    pub(crate) fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.cgroup.clone_into()
    }

    /// Run by the new process itself.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.entry.as_ref().map_or(Ok(()), cgroup::Entry::enter)
    }
}

/// The pid that the process in between reports, and what its child was quicker to say.
fn pid_of_child(channel: BorrowedFd<'_>, during: &str) -> Result<(u32, Vec<Report>), Error> {
    let mut early = Vec::new();
    loop {
        match message::receive(channel).map_err(host("hear from the child"))? {
            Report::Pid(pid) => return Ok((pid, early)),
            Report::Gone => break,
            said => early.push(said),
        }
    }
    // Without a child all that was said is why there is none.
    Err(match early.pop() {
        Some(Report::Failed(failure)) => failure.into_error(during),
        _ => Error::Died,
    })
}

/// A child made by another process has said its pid; it is ours, and not reaped, so the pid is still its.
fn begun(
    pid: u32,
    early: Vec<Report>,
    channel: OwnedFd,
    plan: &Plan,
    during: &'static str,
) -> Result<Launched, Error> {
    let pidfd = process::open_pidfd(pid).map_err(host("open the pidfd of the child"))?;
    let guard = Guard(Some(pidfd));
    if plan.mappings.is_some() {
        write_maps(pid, plan)?;
    } else if let Some(score) = plan.oom_score_by_parent {
        write_oom_score(pid, score)?;
    }
    if awaits_caller(plan) {
        say_continue(channel.as_fd())?;
    }
    Ok(Launched {
        pid,
        pidfd: guard.keep()?,
        channel,
        early,
        during,
    })
}

fn write_oom_score(pid: u32, score: i32) -> Result<(), Error> {
    write_proc(pid, "oom_score_adj", &score.to_string())
}

fn write_proc(pid: u32, name: &str, text: &str) -> Result<(), Error> {
    let path = format!("/proc/{pid}/{name}");
    sys::path::open(Path::new(&path), OpenFlags::WRONLY)
        .and_then(|file| sys::file::write_once(file, text.as_bytes()))
        .map_err(host(format!("write {path}")))
}

fn write_maps(pid: u32, plan: &Plan) -> Result<(), Error> {
    if let Some(score) = plan.oom_score_by_parent {
        write_oom_score(pid, score)?;
    }
    let Some((uids, gids)) = &plan.mappings else {
        return Ok(());
    };
    let text = |lines: &[Mapping]| -> String {
        lines
            .iter()
            .map(|line| format!("{} {} {}\n", line.inside, line.outside, line.count))
            .collect()
    };
    write_proc(pid, "gid_map", &text(gids))?;
    write_proc(pid, "uid_map", &text(uids))
}

/// The process in between: joins, makes the child as a sibling, reports its pid, ends.
pub(crate) fn between_main(
    plan: &Plan,
    seccomp: Option<&Program>,
    files: Vec<OwnedFd>,
    channel: OwnedFd,
) -> i32 {
    let result = between(plan, seccomp, files, channel.as_fd());
    let report = match result {
        Ok(pid) => Report::Pid(pid),
        Err(failure) => Report::Failed(failure),
    };
    i32::from(message::send(channel.as_fd(), &report).is_err())
}

fn between(
    plan: &Plan,
    seccomp: Option<&Program>,
    files: Vec<OwnedFd>,
    channel: BorrowedFd<'_>,
) -> Result<u32, Failure> {
    // Nobody in the namespaces about to be joined may look at or trace what follows.
    process::set_not_dumpable().map_err(|error| Failure::new("set not dumpable", &error))?;
    // Nor find more of the caller's than what the plan needs: who may trace it may take its descriptors.
    let needed: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).chain([channel]).collect();
    process::close_all_but(&needed)
        .map_err(|error| Failure::new("close the descriptors of the caller", &error))?;
    for Join { slot, kinds } in &plan.joins_before {
        let fd = files.get(*slot).ok_or_else(|| Failure {
            message: "the descriptor of a namespace is missing".to_owned(),
            errno: None,
        })?;
        sys::namespace::join(fd.as_fd(), Set::from_bits(*kinds))
            .map_err(|error| Failure::new("join the namespaces of the container", &error))?;
    }
    let theirs = channel
        .try_clone_to_owned()
        .map_err(|error| Failure::new("copy the channel", &error))?;
    let request = CloneRequest {
        namespaces: Set::from_bits(plan.begins),
        cgroup: None,
        sibling: true,
    };
    let child = process::clone(request, || {
        apply::run(Applied {
            plan,
            seccomp,
            files,
            channel: theirs,
            await_caller: awaits_caller(plan),
        })
    })
    .map_err(|error| Failure::new("clone3", &error))?;
    Ok(child.pid)
}

/// A child that is killed and reaped unless it is kept.
#[derive(Debug)]
pub(crate) struct Guard(pub(crate) Option<OwnedFd>);

impl Guard {
    pub(crate) fn keep(mut self) -> Result<OwnedFd, Error> {
        self.0.take().ok_or(Error::Died)
    }

    pub(crate) fn reap(mut self) -> Result<(), Error> {
        if let Some(pidfd) = self.0.take() {
            process::wait(pidfd.as_fd()).map_err(host("wait for the process in between"))?;
        }
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(pidfd) = self.0.take() {
            end(pidfd.as_fd());
        }
    }
}

/// Kills and reaps a child that is not to be.
pub(crate) fn end(pidfd: BorrowedFd<'_>) {
    match process::send_signal(pidfd, SIGKILL).and_then(|()| process::wait(pidfd)) {
        Ok(_) | Err(_) => {} // it is gone already, which is what was wanted
    }
}

impl Launched {
    /// Waits until the child is ready; gives the master of its terminal. The child is ended on an error.
    pub(crate) fn until_ready(
        &mut self,
        hooks: &mut dyn FnMut(u32) -> Result<(), Error>,
    ) -> Result<Option<OwnedFd>, Error> {
        let mut terminal = None;
        let mut early = std::mem::take(&mut self.early).into_iter();
        let result = loop {
            let said = early.next().map(Ok);
            match said.unwrap_or_else(|| message::receive(self.channel.as_fd())) {
                Ok(Report::Terminal(master)) => terminal = Some(master),
                Ok(Report::Hooks) => {
                    if let Err(error) =
                        hooks(self.pid).and_then(|()| say_continue(self.channel.as_fd()))
                    {
                        break Err(error);
                    }
                }
                Ok(Report::Ready) => break Ok(()),
                Ok(Report::Failed(failure)) => break Err(failure.into_error(self.during)),
                Ok(Report::Gone | Report::Pid(_) | Report::Announced) => break Err(Error::Died),
                Err(source) => {
                    break Err(host("hear from the child")(source));
                }
            }
        };
        match result {
            Ok(()) => Ok(terminal),
            Err(error) => {
                end(self.pidfd.as_fd());
                Err(error)
            }
        }
    }
}

/// Lets a waiting child go on to its program, and returns when it runs.
pub(crate) fn start(channel: BorrowedFd<'_>, during: &str) -> Result<(), Error> {
    sys::socket::send_with_fds(channel, &[message::START], &[]).map_err(|_| Error::Died)?;
    let mut announced = false;
    loop {
        match message::receive(channel).map_err(host("hear from the child"))? {
            Report::Announced => announced = true,
            Report::Failed(failure) => return Err(failure.into_error(during)),
            Report::Gone if announced => return Ok(()),
            Report::Gone | Report::Pid(_) | Report::Terminal(_) | Report::Hooks | Report::Ready => {
                return Err(Error::Died);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_may_speak_before_the_process_in_between() {
        let (ours, theirs) = sys::socket::message_pair().unwrap();
        message::send(theirs.as_fd(), &Report::Ready).unwrap();
        message::send(theirs.as_fd(), &Report::Pid(7)).unwrap();
        let (pid, early) = pid_of_child(ours.as_fd(), "").unwrap();
        assert_eq!(pid, 7);
        assert!(matches!(early[..], [Report::Ready]), "{early:?}");
    }

    #[test]
    fn a_process_in_between_that_makes_no_child_says_why() {
        let (ours, theirs) = sys::socket::message_pair().unwrap();
        let failure = Failure::new("clone3", &io::Error::from_raw_os_error(12));
        message::send(theirs.as_fd(), &Report::Failed(failure)).unwrap();
        drop(theirs);
        let error = pid_of_child(ours.as_fd(), "during: ").unwrap_err();
        assert!(error.to_string().starts_with("during: clone3"), "{error}");
        let (ours, theirs) = sys::socket::message_pair().unwrap();
        drop(theirs);
        assert!(matches!(pid_of_child(ours.as_fd(), ""), Err(Error::Died)));
    }
}
