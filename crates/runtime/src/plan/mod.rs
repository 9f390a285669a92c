//! From a spec to a list of operations as plain data: pure, no system call, testable without root.
//!
//! The order of the steps follows runc (`standard_init_linux.go`, `rootfs_linux.go`): what a step needs
//! (a capability, the old root, an open descriptor) is still there when its turn comes.

mod mounts;
mod namespaces;
mod process;
pub(crate) mod resources;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use sys::namespace::Set;

pub(crate) use mounts::{Bind, MountKind, MountStep, Spread};
pub(crate) use process::{Credentials, Limit};

use crate::{Error, cgroup, oci};

/// An index into the descriptors that accompany a plan.
pub(crate) type Slot = usize;

/// What a descriptor of a plan is opened from, by the caller, before the child is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The standard stream with this number that the caller brought.
    Stream(u8),
    /// The root file system, as a detached mount.
    Rootfs,
    /// The network namespace from the pool.
    Network,
    /// A namespace by path.
    Namespace(PathBuf),
    /// What is to be bound, as a detached copy of the tree.
    Tree {
        /// Host path.
        path: PathBuf,
        /// Whether mounts below it come along.
        recursive: bool,
    },
    /// The host's `/proc`.
    Proc,
    /// The caller's end of the channel, kept in the child for a later starter.
    Gate,
}

/// A namespace to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Join {
    /// The descriptor of it, or a pidfd.
    pub(crate) slot: Slot,
    /// Which kinds, `CLONE_NEW*` bits.
    pub(crate) kinds: u64,
}

/// One line of a uid or gid map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// First id inside.
    pub(crate) inside: u32,
    /// First id on the host.
    pub(crate) outside: u32,
    /// How many.
    pub(crate) count: u32,
}

/// A device file to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// Path in the container.
    pub(crate) path: PathBuf,
    /// Type and permission bits.
    pub(crate) mode: u32,
    /// Major and minor number.
    pub(crate) number: (u32, u32),
    /// Owner.
    pub(crate) owner: (u32, u32),
    /// Whether it is bound from the host (in a user namespace nothing can be made).
    pub(crate) bind: bool,
}

/// One operation. The child applies them in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Joins a session keyring of the container's own.
    Keyring(String),
    /// Becomes uid and gid 0 of the user namespace.
    BecomeRoot,
    /// Joins a namespace.
    Join(Join),
    /// Begins a cgroup namespace, rooted where the process now is.
    UnshareCgroup,
    /// Raises the loopback interface of a new network namespace.
    Loopback,
    /// Becomes a session leader.
    Session,
    /// Cuts the mount namespace off the host's: nothing goes out, unmounts still come in.
    IsolateMounts,
    /// Puts the root over `/`, and looks below it from now on.
    AttachRoot(Slot),
    /// Mounts one thing in the root.
    Mount(Box<MountStep>),
    /// Makes a device file.
    Device(Device),
    /// Makes `/dev/fd`, `/dev/stdin` and their kin.
    DeviceLinks,
    /// Waits for the hooks of the runtime namespace, then runs these in the container's.
    CreateHooks(Vec<Hook>),
    /// Makes the root `/`.
    Pivot,
    /// Gives the root its propagation.
    RootPropagation(Spread),
    /// Makes the working directory if it is missing.
    MakeDirectory(PathBuf),
    /// Makes the terminal, sends its master home, and binds `/dev/console`.
    Terminal {
        /// Rows and columns.
        size: Option<(u16, u16)>,
        /// Whether `/dev/console` is bound.
        console: bool,
    },
    /// Gives the process its standard streams.
    Streams([Slot; 3]),
    /// Sets the host name.
    Hostname(String),
    /// Sets the domain name.
    Domainname(String),
    /// Writes one sysctl.
    Sysctl {
        /// Path below `/proc/sys`.
        path: PathBuf,
        /// What to write.
        value: String,
    },
    /// Makes a path read-only, if it is there.
    ReadonlyPath(PathBuf),
    /// Hides a path, if it is there.
    MaskPath(PathBuf),
    /// Makes the root read-only.
    ReadonlyRoot,
    /// Takes every processor that the cgroup allows.
    Processors,
    /// Sets `oom_score_adj`.
    OomScore(i32),
    /// Sets a resource limit.
    Limit(Limit),
    /// Has the next program run under this AppArmor profile.
    Profile(String),
    /// Has the next program run with this SELinux label.
    Label(String),
    /// Closes everything but the standard streams, the channel and what is preserved.
    CloseFiles {
        /// How many descriptors from 3 on stay.
        preserve: u32,
        /// The gate's slot.
        gate: Option<Slot>,
    },
    /// Sets the file mode creation mask.
    Umask(u32),
    /// Forbids new privileges.
    NoNewPrivileges,
    /// Loads the seccomp program.
    Seccomp,
    /// Becomes the user, with exactly these capabilities, in the working directory.
    Credentials(Box<Credentials>),
    /// Makes our own init look like Docker's in `ps`; while it still has the capability for that.
    ShowAsInit,
    /// Looks the program up.
    FindProgram,
    /// Reports that all is ready, and waits for the start.
    AwaitStart,
    /// Runs hooks in the container, right before its program.
    StartHooks(Vec<Hook>),
    /// Tells the caller that only the program follows.
    Announce,
    /// Becomes the program, or PID 1 above it.
    Execute {
        /// Whether our own init stays as the parent.
        init: bool,
    },
}

/// A program that the spec wants run at some point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    /// Path of the program.
    pub(crate) path: PathBuf,
    /// Arguments, the first of which is the program's name.
    pub(crate) arguments: Vec<String>,
    /// Environment.
    pub(crate) environment: Vec<String>,
    /// After how many seconds it is killed.
    pub(crate) timeout_s: Option<u64>,
}

/// Everything the child does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Namespaces the child begins, `CLONE_NEW*` bits.
    pub(crate) begins: u64,
    /// Namespaces to be joined by a process in between, which then makes the child.
    pub(crate) joins_before: Vec<Join>,
    /// Maps of a new user namespace, uids and gids.
    pub(crate) mappings: Option<(Vec<Mapping>, Vec<Mapping>)>,
    /// What the descriptors are opened from; their order is that of the slots.
    pub(crate) sources: Vec<Source>,
    /// The operations.
    pub(crate) steps: Vec<Step>,
    /// Argument vector of the program.
    pub(crate) arguments: Vec<String>,
    /// Its environment.
    pub(crate) environment: Vec<String>,
    /// What hooks in the container get on their standard input.
    pub(crate) hook_state: String,
    /// `oom_score_adj`, written by the caller where the child may not.
    pub(crate) oom_score_by_parent: Option<i32>,
}

impl Plan {
    /// The slot of the container's root file system.
    pub(crate) fn root(&self) -> Option<Slot> {
        let is_root = |source: &Source| matches!(source, Source::Rootfs);
        self.sources.iter().position(is_root)
    }

    /// Makes the process this user instead of the spec's.
    pub(crate) fn become_user(&mut self, user: crate::user::User) -> Result<(), Error> {
        let who = self.steps.iter_mut().find_map(|step| match step {
            Step::Credentials(who) => Some(who),
            _ => None,
        });
        who.ok_or_else(|| Error::Spec("the process is nobody".to_owned()))?
            .become_user(user);
        Ok(())
    }

    pub(crate) fn slot(&mut self, source: Source) -> Slot {
        self.sources.push(source);
        self.sources.len() - 1
    }
}

/// What a plan depends on beside the spec.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// A terminal is made.
    pub(crate) terminal: bool,
    /// Its size; else the spec's console size counts.
    pub(crate) size: Option<(u16, u16)>,
    /// A network namespace comes from the pool.
    pub(crate) network: bool,
    /// Our own init is PID 1.
    pub(crate) init: bool,
    /// The gate stays open for any starter.
    pub(crate) gate: bool,
    /// How many descriptors from 3 on the program gets.
    pub(crate) preserve: u32,
    /// The host's cgroups.
    pub(crate) cgroups: cgroup::Version,
    /// The container's name, for the keyring.
    pub(crate) id: String,
    /// State for hooks in the container, as JSON.
    pub(crate) hook_state: String,
    /// There is a seccomp program.
    pub(crate) seccomp: bool,
}

/// Makes the plan for a container's first process.
pub(crate) fn create(spec: &oci::Spec, options: &Options) -> Result<Plan, Error> {
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| Error::Spec("process is missing".to_owned()))?;
    let mut plan = Plan {
        hook_state: options.hook_state.clone(),
        ..Plan::default()
    };
    let streams = process::streams(&mut plan, options);
    let rootfs = plan.slot(Source::Rootfs);
    plan.slot(Source::Proc);
    let user_namespace = namespaces::namespaces(spec, options, &mut plan)?;

    let mut steps = vec![Step::Session, Step::IsolateMounts, Step::AttachRoot(rootfs)];
    mounts::steps(spec, options, user_namespace, &mut plan, &mut steps)?;
    hooks(spec, &mut steps);
    steps.push(Step::Pivot);
    if let Some(spread) = root_propagation(spec)? {
        steps.push(Step::RootPropagation(spread));
    }
    steps.push(Step::MakeDirectory(process.cwd().clone()));
    process::terminal_steps(process, options, streams, true, &mut steps);
    namespaces::names(spec, &mut steps);
    namespaces::sysctls(spec, &mut steps)?;
    mounts::final_steps(spec, &mut steps);
    process::steps(
        spec,
        process,
        options,
        &process::Place {
            user_namespace,
            first: true,
        },
        &mut plan,
        &mut steps,
    )?;
    plan.steps.append(&mut steps);
    Ok(plan)
}

/// Makes the plan for one more process of a container; slot of the init's pidfd is the first after the streams.
pub(crate) fn exec(
    spec: &oci::Spec,
    process: &oci::Process,
    options: &Options,
) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    let streams = process::streams(&mut plan, options);
    let proc = plan.slot(Source::Proc);
    let joined = namespaces::joined_by_exec(spec);
    plan.joins_before.push(Join {
        slot: proc + 1, // the pidfd: the one descriptor the caller adds itself
        kinds: joined.bits(),
    });
    let user_namespace = joined.has(Set::USER);
    let mut steps = vec![Step::Keyring(format!("_ses.{}", options.id))];
    if user_namespace {
        steps.push(Step::BecomeRoot);
    }
    steps.push(Step::Session);
    process::terminal_steps(process, options, streams, false, &mut steps);
    let place = process::Place {
        user_namespace,
        first: false,
    };
    process::steps(spec, process, options, &place, &mut plan, &mut steps)?;
    plan.steps = steps;
    Ok(plan)
}

fn hooks(spec: &oci::Spec, steps: &mut Vec<Step>) {
    let Some(hooks) = spec.hooks() else { return };
    let before = [hooks.prestart(), hooks.create_runtime()];
    let inside = convert_hooks(hooks.create_container().as_ref());
    let any_before = before
        .iter()
        .any(|list| list.as_ref().is_some_and(|list| !list.is_empty()));
    if any_before || !inside.is_empty() {
        steps.push(Step::CreateHooks(inside));
    }
}

/// Converts the spec's hooks.
pub(crate) fn convert_hooks(hooks: Option<&Vec<oci::Hook>>) -> Vec<Hook> {
    hooks
        .into_iter()
        .flatten()
        .map(|hook| Hook {
            path: hook.path().clone(),
            arguments: hook.args().clone().unwrap_or_default(),
            environment: hook.env().clone().unwrap_or_default(),
            timeout_s: hook.timeout().and_then(|time| u64::try_from(time).ok()),
        })
        .collect()
}

fn root_propagation(spec: &oci::Spec) -> Result<Option<Spread>, Error> {
    let asked = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.rootfs_propagation().as_deref())
        .unwrap_or_default();
    if asked.is_empty() {
        return Ok(None);
    }
    Spread::named(asked)
        .map(Some)
        .ok_or_else(|| Error::Spec(format!("rootfsPropagation={asked} is not supported")))
}
