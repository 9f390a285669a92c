//! What is the same for a container's first process and for an exec: streams, limits, credentials, program.

use std::path::PathBuf;

use sys::cap;

use crate::user::User;

use super::{Options, Plan, Slot, Source, Step};
use crate::{Error, oci};

/// One resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// `RLIMIT_*` number.
    pub(crate) resource: u32,
    /// Soft value.
    pub(crate) soft: u64,
    /// Hard value.
    pub(crate) hard: u64,
}

/// Who the process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// User id.
    pub(crate) uid: u32,
    /// Group id.
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    /// Whether the kernel may refuse to take the caller's groups away: in a user namespace that denies setgroups.
    pub(crate) keeps_groups: bool,
    /// Capabilities that stay in the bounding set.
    pub(crate) bounding: u64,
    /// Effective ones.
    pub(crate) effective: u64,
    /// Permitted ones.
    pub(crate) permitted: u64,
    /// Inheritable ones.
    pub(crate) inheritable: u64,
    /// Ambient ones.
    pub(crate) ambient: u64,
    /// The working directory.
    pub(crate) directory: PathBuf,
}

impl Credentials {
    /// Makes it this user, as dockerd does: the own group is among the further ones, and a user that is not root
    /// holds no capability, only keeps the bound of what programs may give it.
    pub(super) fn become_user(&mut self, user: User) {
        self.uid = user.uid;
        self.gid = user.gid;
        self.groups.push(user.gid);
        self.groups.extend(user.groups);
        self.groups.sort_unstable();
        self.groups.dedup();
        if user.uid != 0 {
            self.effective = 0;
            self.permitted = 0;
            self.ambient = 0;
        }
    }
}

/// Where the process comes to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// In a user namespace.
    pub(super) user_namespace: bool,
    /// As the container's first.
    pub(super) first: bool,
}

/// The mask a process gets when the spec names none.
const DEFAULT_UMASK: u32 = 0o022;

pub(super) fn streams(plan: &mut Plan, options: &Options) -> Option<[Slot; 3]> {
    (!options.terminal).then(|| [0, 1, 2].map(|number| plan.slot(Source::Stream(number))))
}

pub(super) fn terminal_steps(
    process: &oci::Process,
    options: &Options,
    streams: Option<[Slot; 3]>,
    console: bool,
    steps: &mut Vec<Step>,
) {
    if let Some(slots) = streams {
        steps.push(Step::Streams(slots));
        return;
    }
    let in_spec = process.console_size().as_ref().and_then(|size| {
        Some((
            u16::try_from(size.height()).ok()?,
            u16::try_from(size.width()).ok()?,
        ))
    });
    steps.push(Step::Terminal {
        size: options.size.or(in_spec),
        console,
    });
}

/// From the finished surroundings to the program.
pub(super) fn steps(
    spec: &oci::Spec,
    process: &oci::Process,
    options: &Options,
    place: &Place,
    plan: &mut Plan,
    steps: &mut Vec<Step>,
) -> Result<(), Error> {
    plan.arguments = process.args().clone().unwrap_or_default();
    if plan.arguments.is_empty() {
        return Err(Error::Spec("args must not be empty".to_owned()));
    }
    if !process.cwd().is_absolute() {
        return Err(Error::Spec("cwd must be an absolute path".to_owned()));
    }
    plan.environment = process.env().clone().unwrap_or_default();
    steps.push(Step::Processors);
    if let Some(score) = process.oom_score_adj() {
        if place.user_namespace {
            plan.oom_score_by_parent = Some(score);
        } else {
            steps.push(Step::OomScore(score));
        }
    }
    for limit in process.rlimits().iter().flatten() {
        steps.push(Step::Limit(Limit {
            resource: resource(limit.typ()),
            soft: limit.soft(),
            hard: limit.hard(),
        }));
    }
    let named = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    if let Some(label) = named(process.selinux_label()) {
        steps.push(Step::Label(label));
    }
    if let Some(profile) = named(process.apparmor_profile()) {
        steps.push(Step::Profile(profile));
    }
    let gate = (options.gate && place.first).then(|| plan.slot(Source::Gate));
    steps.push(Step::CloseFiles {
        preserve: options.preserve,
        gate,
    });
    steps.push(Step::Umask(process.user().umask().unwrap_or(DEFAULT_UMASK)));
    let no_new_privileges = process.no_new_privileges().unwrap_or(false);
    let seccomp = options.seccomp;
    if no_new_privileges {
        steps.push(Step::NoNewPrivileges);
    } else if seccomp {
        // Loading needs CAP_SYS_ADMIN here, so it comes before the capabilities go (as in runc).
        steps.push(Step::Seccomp);
    }
    if options.init && place.first {
        steps.push(Step::ShowAsInit);
    }
    steps.push(Step::Credentials(Box::new(credentials(process, place)?)));
    steps.push(Step::FindProgram);
    steps.push(Step::AwaitStart);
    if place.first {
        let hooks = spec
            .hooks()
            .as_ref()
            .and_then(|hooks| hooks.start_container().as_ref());
        let hooks = super::convert_hooks(hooks);
        if !hooks.is_empty() {
            steps.push(Step::StartHooks(hooks));
        }
    }
    steps.push(Step::Announce);
    if no_new_privileges && seccomp {
        // No capability is needed now: as late as possible, so that the policy need not allow our own calls.
        steps.push(Step::Seccomp);
    }
    steps.push(Step::Execute {
        init: options.init && place.first,
    });
    Ok(())
}

fn resource(typ: oci::PosixRlimitType) -> u32 {
    match typ {
        oci::PosixRlimitType::RlimitCpu => 0,
        oci::PosixRlimitType::RlimitFsize => 1,
        oci::PosixRlimitType::RlimitData => 2,
        oci::PosixRlimitType::RlimitStack => 3,
        oci::PosixRlimitType::RlimitCore => 4,
        oci::PosixRlimitType::RlimitRss => 5,
        oci::PosixRlimitType::RlimitNproc => 6,
        oci::PosixRlimitType::RlimitNofile => 7,
        oci::PosixRlimitType::RlimitMemlock => 8,
        oci::PosixRlimitType::RlimitAs => 9,
        oci::PosixRlimitType::RlimitLocks => 10,
        oci::PosixRlimitType::RlimitSigpending => 11,
        oci::PosixRlimitType::RlimitMsgqueue => 12,
        oci::PosixRlimitType::RlimitNice => 13,
        oci::PosixRlimitType::RlimitRtprio => 14,
        oci::PosixRlimitType::RlimitRttime => 15,
    }
}

fn credentials(process: &oci::Process, place: &Place) -> Result<Credentials, Error> {
    let user = process.user();
    for id in [user.uid(), user.gid()] {
        // Docker's bound; above it ids are read as negative by old interfaces.
        if id > crate::user::ID_MAX {
            return Err(Error::Spec(format!("uid or gid {id} is out of range")));
        }
    }
    let set = |names: Option<&oci::Capabilities>| -> u64 {
        names
            .into_iter()
            .flatten()
            .filter_map(|name| cap::Set::named(&name.to_string()))
            .fold(cap::Set::default(), cap::Set::with)
            .0
    };
    let wanted = process.capabilities().as_ref();
    Ok(Credentials {
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        keeps_groups: place.user_namespace,
        bounding: set(wanted.and_then(|sets| sets.bounding().as_ref())),
        effective: set(wanted.and_then(|sets| sets.effective().as_ref())),
        permitted: set(wanted.and_then(|sets| sets.permitted().as_ref())),
        inheritable: set(wanted.and_then(|sets| sets.inheritable().as_ref())),
        ambient: set(wanted.and_then(|sets| sets.ambient().as_ref())),
        directory: process.cwd().clone(),
    })
}
