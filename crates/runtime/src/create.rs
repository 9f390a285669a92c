//! Creating a container's first process, and starting it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::launch::{self, Given, Launch, host};
use crate::plan::Plan;
use crate::seccomp::Program;
use crate::{Error, Io, Peer, Rootfs, cgroup, oci, plan, user};

/// What runc says it was doing when a container's first process fails.
const DURING: &str = "unable to start container process: error during container init: ";

/// What may come from a pool.
#[derive(Debug)]
pub struct Prepared {
    /// The container's cgroup, fresh or renamed. Limits are written by [`create`].
    pub cgroup: cgroup::Cgroup,
    /// A network namespace to join where the spec asks for a new one.
    pub netns: Option<OwnedFd>,
}

/// Who tells the waiting process to go on to its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartGate {
    /// The creating process, through [`Init::start`]; when it dies, the waiting process ends too.
    Creator,
    /// Any later process that may trace it; the waiting process outlives its creator.
    Anyone,
}

/// A container to be.
#[derive(Debug)]
pub struct Create<'a> {
    /// The OCI spec. Its `root.path` is not looked at: `rootfs` counts.
    pub spec: &'a oci::Spec,
    /// The compiled seccomp policy; `None` compiles the one of the spec, if there is one.
    pub seccomp: Option<&'a Program>,
    /// Who the process is to be, looked up in `rootfs`; `None` takes the numbers of the spec.
    pub user: Option<&'a user::Wanted>,
    /// The root file system.
    pub rootfs: &'a Rootfs,
    /// The standard streams; a terminal only when the spec's process has one.
    pub io: Io,
    /// Cgroup and network namespace.
    pub prepared: Prepared,
    /// Running containers that the spec joins by the pid of their first process.
    pub peers: &'a [Peer],
    /// Whether Cooper's own init is PID 1 and the spec's process its child (`--init`). Only for a caller that runs from
    /// a sealed binary (`sys::selfexe`).
    pub init: bool,
    /// Who may start it.
    pub gate: StartGate,
}

/// Parts of a creation only the command line has.
pub(crate) struct Extra<'a> {
    /// Name of the container.
    pub(crate) id: String,
    /// State for hooks in the container.
    pub(crate) hook_state: String,
    /// How many descriptors from 3 on the program gets.
    pub(crate) preserve: u32,
    /// Runs the hooks of the runtime namespace, given the pid.
    pub(crate) hooks: &'a mut dyn FnMut(u32) -> Result<(), Error>,
}

/// The first process of a container, waiting for its start or running. The caller is its parent.
#[derive(Debug)]
pub struct Init {
    /// Its pid in the caller's pid namespace.
    pub pid: u32,
    /// A pidfd of it.
    pub pidfd: OwnedFd,
    /// The master of its terminal.
    pub terminal: Option<OwnedFd>,
    /// Its cgroup.
    pub cgroup: cgroup::Cgroup,
    /// Its root file system, if that is an overlay. It is there for as long as this is held, beyond the process's end:
    /// at the end of an overlay the kernel writes all of the file system below it to disk, and whoever lets go last
    /// waits for that.
    pub root: Option<OwnedFd>,
    channel: Option<OwnedFd>,
}

/// Makes the namespaces, the root and everything else the spec asks for, up to just before the program.
///
/// Blocks until the process waits for its start. On an error no process is left; the cgroup is (the caller made it).
/// Hooks that run outside of the container are left to [`crate::cli`].
///
/// # Errors
/// [`Error`], with the text and exit code Docker's clients know.
pub fn create(request: Create<'_>) -> Result<Init, Error> {
    let id = request.prepared.cgroup.path().name().to_owned();
    create_with(
        request,
        Extra {
            id,
            hook_state: String::new(),
            preserve: 0,
            hooks: &mut |_| Ok(()),
        },
    )
}

pub(crate) fn create_with(request: Create<'_>, extra: Extra<'_>) -> Result<Init, Error> {
    let Create {
        spec,
        seccomp,
        user,
        rootfs,
        io,
        prepared,
        peers,
        init,
        gate,
    } = request;
    if init && !sys::selfexe::is_sealed() {
        // PID 1 would show our own binary as its exe, open to be written by a container with CAP_SYS_PTRACE.
        return Err(Error::Spec(
            "an init is only made by a process that runs from a sealed binary".to_owned(),
        ));
    }
    if let Some(process) = spec.process() {
        launch::refuse_label(process)?;
    }
    let seccomp = launch::program(seccomp, spec)?;
    let options = plan::Options {
        terminal: matches!(io, Io::Terminal { .. }),
        size: size(&io),
        network: prepared.netns.is_some(),
        init,
        gate: gate == StartGate::Anyone,
        preserve: extra.preserve,
        cgroups: cgroup::version(),
        id: extra.id,
        hook_state: extra.hook_state,
        seccomp: seccomp.is_some(),
    };
    let mut plan = plan::create(spec, &options)?;
    let (ours, theirs) = sys::socket::message_pair().map_err(host("make the channel"))?;
    let given = Given {
        io,
        rootfs: Some(rootfs),
        network: prepared.netns,
        peers,
        gate: Some(ours.as_fd()),
    };
    let files = launch::open_sources(&plan, given)?;
    if let Some(wanted) = user {
        // As dockerd: in the image and what was written over it, before anything is mounted into that.
        plan.become_user(user::resolve(root_of(&plan, &files)?, wanted)?)?;
    }
    let root = kept(rootfs, root_of(&plan, &files)?)?;
    let launch = Launch {
        plan: &plan,
        seccomp: seccomp.as_deref(),
        files,
        cgroup: &prepared.cgroup,
        during: DURING,
    };
    let mut launched = launch::launch(launch, (ours, theirs))?;
    let terminal = launched.until_ready(extra.hooks)?;
    // After the child made its devices and before any code of the container's (runc's order).
    if let Err(error) = prepared.cgroup.apply(&plan::resources::complete(spec)) {
        launch::end(launched.pidfd.as_fd());
        return Err(error.into());
    }
    Ok(Init {
        pid: launched.pid,
        pidfd: launched.pidfd,
        terminal,
        cgroup: prepared.cgroup,
        root,
        channel: Some(launched.channel),
    })
}

/// The root file system among the descriptors of a plan.
fn root_of<'a>(plan: &Plan, files: &'a [OwnedFd]) -> Result<BorrowedFd<'a>, Error> {
    let root = plan.root().and_then(|slot| files.get(slot));
    root.map(AsFd::as_fd)
        .ok_or_else(|| Error::Spec("the root file system is missing".to_owned()))
}

/// What is held of the root file system beyond the process: of an overlay, itself.
fn kept(rootfs: &Rootfs, root: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Error> {
    match rootfs {
        Rootfs::Overlay(_) => root
            .try_clone_to_owned()
            .map(Some)
            .map_err(host("copy the root file system")),
        Rootfs::Directory { .. } => Ok(None),
    }
}

/// The size a terminal begins with, as rows and columns.
pub(crate) fn size(io: &Io) -> Option<(u16, u16)> {
    match io {
        Io::Terminal { size } => size.map(|size| (size.height, size.width)),
        Io::Pipes { .. } => None,
    }
}

/// Lets a container's first process go on, over a channel that was taken from it.
pub(crate) fn start_over(channel: BorrowedFd<'_>) -> Result<(), Error> {
    launch::start(channel, DURING)
}

impl Init {
    /// Lets the process go on to its program; returns when the program runs.
    ///
    /// A program the kernel then refuses to run (wrong format, missing interpreter) is no error here: as
    /// with runc the process says so on its standard error and ends with 255.
    ///
    /// # Errors
    /// [`Error::Died`] when it is gone or was started before, [`Error::Child`] when a last step failed.
    pub fn start(&mut self) -> Result<(), Error> {
        let channel = self.channel.take().ok_or(Error::Died)?;
        start_over(channel.as_fd())
    }

    /// Borrows the pidfd.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
