//! Namespaces: which begin and which are joined, and what only a namespace of the container's own may be told.

use std::path::{Path, PathBuf};

use sys::namespace::Set;

use super::{Join, Mapping, Options, Plan, Source, Step};
use crate::{Error, oci};

fn kind(typ: oci::LinuxNamespaceType) -> Set {
    match typ {
        oci::LinuxNamespaceType::Mount => Set::MOUNT,
        oci::LinuxNamespaceType::Cgroup => Set::CGROUP,
        oci::LinuxNamespaceType::Uts => Set::UTS,
        oci::LinuxNamespaceType::Ipc => Set::IPC,
        oci::LinuxNamespaceType::User => Set::USER,
        oci::LinuxNamespaceType::Pid => Set::PID,
        oci::LinuxNamespaceType::Network => Set::NET,
        oci::LinuxNamespaceType::Time => Set::TIME,
    }
}

pub(super) fn listed(spec: &oci::Spec) -> &[oci::LinuxNamespace] {
    spec.linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().as_deref())
        .unwrap_or_default()
}

/// An exec joins what the container has of its own; joining what it shares with us would be refused or useless.
pub(super) fn joined_by_exec(spec: &oci::Spec) -> Set {
    listed(spec)
        .iter()
        .fold(Set::MOUNT, |all, namespace| all.with(kind(namespace.typ())))
}

/// Decides who begins or joins which namespace; says whether there is a user namespace.
pub(super) fn namespaces(
    spec: &oci::Spec,
    options: &Options,
    plan: &mut Plan,
) -> Result<bool, Error> {
    let mut begins = Set::default();
    let mut joins = Vec::new();
    let mut seen = Set::default();
    for namespace in listed(spec) {
        let kind = kind(namespace.typ());
        if seen.has(kind) {
            return Err(Error::Spec(format!(
                "malformed spec file: duplicated ns {:?}",
                namespace.typ()
            )));
        }
        seen = seen.with(kind);
        match namespace.path() {
            Some(path) if !path.as_os_str().is_empty() => {
                joins.push((kind, Source::Namespace(path.clone())));
            }
            _ if kind == Set::NET && options.network => joins.push((kind, Source::Network)),
            _ => begins = begins.with(kind),
        }
    }
    if !begins.has(Set::MOUNT) {
        return Err(Error::Spec(
            "a container needs a mount namespace of its own".to_owned(),
        ));
    }
    let user_namespace = seen.has(Set::USER);
    if begins.has(Set::USER) {
        plan.mappings = Some(mappings(spec)?);
    }
    // Who joins a pid namespace is not in it, only its children are; and a namespace of another
    // user namespace can be joined only before that is left.
    let between =
        user_namespace && !joins.is_empty() || joins.iter().any(|(kind, _)| *kind == Set::PID);
    plan.steps
        .push(Step::Keyring(format!("_ses.{}", options.id)));
    if user_namespace {
        plan.steps.push(Step::BecomeRoot);
    }
    // User last: joining it takes away the right to join the others.
    joins.sort_by_key(|(kind, _)| *kind == Set::USER);
    for (kind, source) in joins {
        let join = Join {
            slot: plan.slot(source),
            kinds: kind.bits(),
        };
        if between {
            plan.joins_before.push(join);
        } else {
            plan.steps.push(Step::Join(join));
        }
    }
    if begins.has(Set::CGROUP) {
        plan.steps.push(Step::UnshareCgroup);
    }
    if begins.has(Set::NET) {
        plan.steps.push(Step::Loopback);
    }
    plan.begins = begins.without(Set::CGROUP).bits();
    Ok(user_namespace)
}

fn mappings(spec: &oci::Spec) -> Result<(Vec<Mapping>, Vec<Mapping>), Error> {
    let convert = |list: Option<&Vec<oci::LinuxIdMapping>>| -> Vec<Mapping> {
        list.into_iter()
            .flatten()
            .map(|line| Mapping {
                inside: line.container_id(),
                outside: line.host_id(),
                count: line.size(),
            })
            .collect()
    };
    let linux = spec.linux().as_ref();
    let uids = convert(linux.and_then(|linux| linux.uid_mappings().as_ref()));
    let gids = convert(linux.and_then(|linux| linux.gid_mappings().as_ref()));
    if uids.is_empty() || gids.is_empty() {
        return Err(Error::Spec(
            "user namespaces enabled, but no uid or gid mappings found".to_owned(),
        ));
    }
    Ok((uids, gids))
}

pub(super) fn names(spec: &oci::Spec, steps: &mut Vec<Step>) {
    let own_uts = listed(spec)
        .iter()
        .any(|namespace| kind(namespace.typ()) == Set::UTS);
    if let Some(name) = spec
        .hostname()
        .as_ref()
        .filter(|name| own_uts && !name.is_empty())
    {
        steps.push(Step::Hostname(name.clone()));
    }
    if let Some(name) = spec
        .domainname()
        .as_ref()
        .filter(|name| own_uts && !name.is_empty())
    {
        steps.push(Step::Domainname(name.clone()));
    }
}

/// Only what a namespace of the container's keeps apart may be set; the rest is the host's.
pub(super) fn sysctls(spec: &oci::Spec, steps: &mut Vec<Step>) -> Result<(), Error> {
    let Some(wanted) = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.sysctl().as_ref())
    else {
        return Ok(());
    };
    let own = listed(spec).iter().fold(Set::default(), |all, namespace| {
        all.with(kind(namespace.typ()))
    });
    let mut sorted: Vec<_> = wanted.iter().collect();
    sorted.sort();
    for (key, value) in sorted {
        // A key may be written with slashes where a name has a dot (runc takes both).
        let path = if key.contains('/') && !key.split('/').next().unwrap_or("").contains('.') {
            PathBuf::from(key)
        } else {
            PathBuf::from(
                key.chars()
                    .map(|c| match c {
                        '.' => '/',
                        '/' => '.',
                        other => other,
                    })
                    .collect::<String>(),
            )
        };
        let needed = namespace_of_sysctl(&path);
        if !needed.is_some_and(|kind| own.has(kind)) {
            return Err(Error::Spec(format!(
                "sysctl {key:?} is not in a separate kernel namespace"
            )));
        }
        steps.push(Step::Sysctl {
            path,
            value: value.clone(),
        });
    }
    Ok(())
}

fn namespace_of_sysctl(path: &Path) -> Option<Set> {
    const IPC: [&str; 8] = [
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
    ];
    let text = path.to_str()?;
    if path.components().any(|part| part.as_os_str() == "..") {
        None
    } else if IPC.contains(&text) || text.starts_with("fs/mqueue/") {
        Some(Set::IPC)
    } else if text.starts_with("net/") {
        Some(Set::NET)
    } else if matches!(text, "kernel/domainname" | "kernel/hostname") {
        Some(Set::UTS)
    } else if text.starts_with("user/") {
        Some(Set::USER)
    } else {
        None
    }
}
