//! `HostConfig.SecurityOpt`: labels, seccomp, no-new-privileges (moby `daemon/daemon_unix.go`,
//! `parseSecurityOpt`), and seccomp profiles in Docker's own form.

use runtime::oci;
use serde::Deserialize;

use super::capabilities;

/// What the options say.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct SecurityOptions {
    /// Which seccomp policy: absent for the default.
    pub(crate) seccomp: Option<String>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub(crate) no_new_privileges: bool,
    /// Whether the container may change its cgroups.
    pub(crate) writable_cgroups: bool,
}

/// An option that is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadOption {
    /// A word without a value that is no known flag.
    #[error("invalid --security-opt 1: \"{0}\"")]
    Flag(String),
    /// An unknown name, or a value that does not fit it.
    #[error("invalid --security-opt 2: \"{0}\"")]
    Value(String),
}

impl SecurityOptions {
    /// Reads the options; labels and AppArmor profiles are accepted and have no effect where the kernel
    /// has neither.
    pub(crate) fn parse(options: &[String]) -> Result<Self, BadOption> {
        let mut parsed = Self::default();
        for option in options {
            if option == "no-new-privileges" {
                parsed.no_new_privileges = true;
                continue;
            }
            if option == "disable" {
                continue;
            }
            let split = option.split_once('=').or_else(|| option.split_once(':'));
            let Some((name, value)) = split else {
                return Err(BadOption::Flag(option.clone()));
            };
            let flag = || match value {
                "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
                "false" | "0" | "f" | "F" | "FALSE" | "False" => Ok(false),
                _ => Err(BadOption::Value(option.clone())),
            };
            match name {
                "label" | "apparmor" => {}
                "seccomp" => parsed.seccomp = Some(value.to_owned()),
                "no-new-privileges" => parsed.no_new_privileges = flag()?,
                "writable-cgroups" => parsed.writable_cgroups = flag()?,
                _ => return Err(BadOption::Value(option.clone())),
            }
        }
        Ok(parsed)
    }
}

/// A profile that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadProfile {
    /// It is no JSON of a profile.
    #[error("Decoding seccomp profile failed: {0}")]
    Decode(#[from] serde_json::Error),
    /// It names both or neither of what excludes each other.
    #[error(
        "'{0}' and '{1}' were both specified in the seccomp profile, use either '{0}' or '{1}'"
    )]
    Both(&'static str, &'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: oci::LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<oci::Arch>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: oci::Arch,
    #[serde(default)]
    sub_architectures: Option<Vec<oci::Arch>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: oci::LinuxSeccompAction,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<oci::LinuxSeccompArg>>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
}

/// The name that Docker's profiles give this machine.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    "amd64"
};

/// Reads a profile in Docker's form, for a container with these capabilities.
pub(crate) fn profile(text: &str, names: &[String]) -> Result<oci::LinuxSeccomp, BadProfile> {
    let profile: Profile = serde_json::from_str(text)?;
    let has = |wanted: &Option<Vec<String>>| wanted.iter().flatten().any(|cap| names.contains(cap));
    let is_here =
        |arches: &Option<Vec<String>>| arches.iter().flatten().any(|arch| arch == ARCHITECTURE);
    let mut rules = Vec::new();
    for rule in profile.syscalls.into_iter().flatten() {
        let included = rule
            .includes
            .caps
            .iter()
            .flatten()
            .all(|cap| names.contains(cap))
            && (rule.includes.arches.as_ref().is_none_or(Vec::is_empty)
                || is_here(&rule.includes.arches));
        if !included || has(&rule.excludes.caps) || is_here(&rule.excludes.arches) {
            continue;
        }
        let mut called = rule.names.unwrap_or_default();
        if !rule.name.is_empty() {
            if !called.is_empty() {
                return Err(BadProfile::Both("name", "names"));
            }
            called.push(rule.name);
        }
        let mut built = oci::LinuxSyscallBuilder::default()
            .names(called)
            .action(rule.action);
        if let Some(errno) = rule.errno_ret {
            built = built.errno_ret(errno);
        }
        if let Some(args) = rule.args.filter(|args| !args.is_empty()) {
            built = built.args(args);
        }
        rules.push(built.build().expect("names and action are set"));
    }
    let architectures = match (profile.architectures, profile.arch_map) {
        (Some(list), Some(map)) if !list.is_empty() && !map.is_empty() => {
            return Err(BadProfile::Both("architectures", "archMap"));
        }
        (list, map) => {
            let native = if cfg!(target_arch = "aarch64") {
                oci::Arch::ScmpArchAarch64
            } else {
                oci::Arch::ScmpArchX86_64
            };
            let mapped = map
                .into_iter()
                .flatten()
                .filter(|entry| entry.architecture == native);
            let mut all = list.unwrap_or_default();
            for entry in mapped {
                all.push(entry.architecture);
                all.extend(entry.sub_architectures.into_iter().flatten());
            }
            all
        }
    };
    let mut built = oci::LinuxSeccompBuilder::default()
        .default_action(profile.default_action)
        .syscalls(rules);
    if let Some(errno) = profile.default_errno_ret {
        built = built.default_errno_ret(errno);
    }
    if !architectures.is_empty() {
        built = built.architectures(architectures);
    }
    Ok(built.build().expect("a default action is set"))
}

/// The policy of a container: none, Docker's default, or its own.
pub(crate) fn seccomp(
    options: &SecurityOptions,
    names: &[String],
    privileged: bool,
) -> Result<Option<oci::LinuxSeccomp>, BadProfile> {
    match options.seccomp.as_deref() {
        Some("unconfined") => Ok(None),
        None | Some("" | "builtin") if privileged => Ok(None),
        None | Some("" | "builtin") => Ok(Some(runtime::seccomp::docker_default(
            &capabilities::set(names),
        ))),
        Some(text) => profile(text, names).map(Some),
    }
}
