//! Running one more process in a container that runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::launch::{self, Given, Launch, host};
use crate::seccomp::Program;
use crate::{Error, Io, cgroup, create, oci, plan, user};

/// What runc says it was doing when a further process fails.
const DURING: &str = "unable to start container process: ";

/// A process to be run in a running container.
#[derive(Debug)]
pub struct Exec<'a> {
    /// The pidfd of the container's init.
    pub init: BorrowedFd<'a>,
    /// The container's spec (its seccomp policy and namespaces count).
    pub spec: &'a oci::Spec,
    /// The compiled seccomp policy; `None` compiles the one of the spec, if there is one.
    pub seccomp: Option<&'a Program>,
    /// Who the process is to be, looked up in the container; `None` takes the numbers of `process`.
    pub user: Option<&'a user::Wanted>,
    /// The process.
    pub process: &'a oci::Process,
    /// The container's cgroup; the process is in it before any code of the container's runs.
    pub cgroup: &'a cgroup::Cgroup,
    /// The standard streams; a terminal only when `process` has one.
    pub io: Io,
}

/// A process that runs in a container. The caller is its parent.
#[derive(Debug)]
pub struct Executed {
    /// Its pid in the caller's pid namespace.
    pub pid: u32,
    /// A pidfd of it.
    pub pidfd: OwnedFd,
    /// The master of its terminal.
    pub terminal: Option<OwnedFd>,
}

/// Runs a process in a container; returns when its program runs. Blocks.
///
/// # Errors
/// [`Error`], with the text and exit code Docker's clients know; no process is left then.
pub fn exec(request: Exec<'_>) -> Result<Executed, Error> {
    exec_with(request, 0)
}

/// Says who `wanted` is in the container whose init is behind the pidfd `init`.
///
/// # Errors
/// [`Error::User`] for nobody, [`Error::Died`] when the init has gone.
pub fn find_user(init: BorrowedFd<'_>, wanted: &user::Wanted) -> Result<user::User, Error> {
    let pid = sys::process::number_of(init).map_err(|_| Error::Died)?;
    let found = user::resolve_in(pid, wanted);
    // The number was the init's all the time only if the init is still there.
    match sys::process::number_of(init) {
        Ok(still) if still == pid => found,
        Ok(_) | Err(_) => Err(Error::Died),
    }
}

pub(crate) fn exec_with(request: Exec<'_>, preserve: u32) -> Result<Executed, Error> {
    launch::refuse_label(request.process)?;
    let seccomp = launch::program(request.seccomp, request.spec)?;
    let options = plan::Options {
        terminal: matches!(request.io, Io::Terminal { .. }),
        size: create::size(&request.io),
        network: false,
        init: false,
        gate: false,
        preserve,
        cgroups: cgroup::version(),
        id: request.cgroup.path().name().to_owned(),
        hook_state: String::new(),
        seccomp: seccomp.is_some(),
    };
    let mut plan = plan::exec(request.spec, request.process, &options)?;
    if let Some(wanted) = request.user {
        plan.become_user(find_user(request.init, wanted)?)?;
    }
    let given = Given {
        io: request.io,
        rootfs: None,
        network: None,
        peers: &[],
        gate: None,
    };
    // Without the init the process cannot be made, and is told so then.
    let beside = match sys::process::number_of(request.init) {
        Ok(init) => request.cgroup.beside(init)?,
        Err(_) => None,
    };
    let mut files = launch::open_sources(&plan, given)?;
    let init = request
        .init
        .try_clone_to_owned()
        .map_err(host("copy the pidfd of the container"))?;
    files.push(init);
    let launch = Launch {
        plan: &plan,
        seccomp: seccomp.as_deref(),
        files,
        cgroup: beside.as_ref().unwrap_or(request.cgroup),
        during: DURING,
    };
    let channels = sys::socket::message_pair().map_err(host("make the channel"))?;
    let mut launched = launch::launch(launch, channels)?;
    let terminal = launched.until_ready(&mut |_| Ok(()))?;
    if let Err(error) = launch::start(launched.channel.as_fd(), DURING) {
        launch::end(launched.pidfd.as_fd());
        return Err(error);
    }
    Ok(Executed {
        pid: launched.pid,
        pidfd: launched.pidfd,
        terminal,
    })
}
