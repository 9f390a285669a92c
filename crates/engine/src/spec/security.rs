//! `HostConfig.SecurityOpt`: labels, seccomp, no-new-privileges (moby `daemon/daemon_unix.go`,
//! `parseSecurityOpt`), and seccomp profiles in Docker's own form.

use runtime::oci;
use serde::Deserialize;
use sys::kernel::Version;

use super::capabilities;
use crate::launch::CREATE_FAILED;

/// What the options say.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct SecurityOptions {
    /// Which AppArmor profile: absent for none.
    pub(crate) apparmor: Option<String>,
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
    /// Reads the options. Labels have no effect, as with a dockerd without `--selinux-enabled`.
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
                "label" => {}
                "apparmor" => parsed.apparmor = Some(value.to_owned()),
                "seccomp" => parsed.seccomp = Some(value.to_owned()),
                "no-new-privileges" => parsed.no_new_privileges = flag()?,
                "writable-cgroups" => parsed.writable_cgroups = flag()?,
                _ => return Err(BadOption::Value(option.clone())),
            }
        }
        Ok(parsed)
    }
}

/// Whether the kernel enforces AppArmor profiles.
pub(crate) fn has_apparmor() -> bool {
    const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
    std::fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y'))
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
    /// A rule for kernels of a version that is none.
    #[error(
        "Decoding seccomp profile failed: invalid kernel version: {0:?}, expected \"<kernel>.<major>\""
    )]
    Kernel(String),
    /// A flag of the filter that nobody knows.
    #[error("{CREATE_FAILED}seccomp flag {0} is not known to runc")]
    Flag(String),
    /// Calls that somebody else decides about, and nobody is named.
    #[error(
        "{CREATE_FAILED}unable to start container process: error during container init: seccomp listenerPath is not set"
    )]
    NoListener,
    /// Calls that an agent decides about.
    #[error(
        "seccomp agents (listenerPath {0}) are not there yet: give the calls another action than SCMP_ACT_NOTIFY"
    )]
    Listener(String),
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
    flags: Option<Vec<String>>,
    #[serde(default)]
    listener_path: String,
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
    min_kernel: Option<String>,
}

impl Condition {
    /// Whether the kernel is at least the one that is asked for; absent where none is.
    fn is_new_enough(&self, kernel: Version) -> Result<Option<bool>, BadProfile> {
        let Some(text) = self.min_kernel.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let number = |text: &str| text.parse::<u32>().ok();
        let wanted = text.split_once('.');
        let wanted = wanted.and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
        match wanted {
            None | Some((0, 0)) => Err(BadProfile::Kernel(text.to_owned())),
            Some(wanted) => Ok(Some(kernel >= wanted)),
        }
    }
}

/// The kernel that runs; none is older than what cannot be read.
fn running_kernel() -> Version {
    sys::kernel::version(&sys::kernel::release()).unwrap_or_default()
}

/// The name that Docker's profiles give this machine.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    "amd64"
};

/// Reads a profile in Docker's form, for a container with these capabilities.
fn profile(text: &str, names: &[String], kernel: Version) -> Result<oci::LinuxSeccomp, BadProfile> {
    let profile: Profile = serde_json::from_str(text)?;
    let rules = rules(profile.syscalls, names, kernel)?;
    if rules
        .iter()
        .any(|rule| rule.action() == oci::LinuxSeccompAction::ScmpActNotify)
    {
        return Err(match profile.listener_path {
            none if none.is_empty() => BadProfile::NoListener,
            path => BadProfile::Listener(path),
        });
    }
    let flags = profile.flags.into_iter().flatten().map(|flag| {
        serde_json::from_value(flag.clone().into()).map_err(|_| BadProfile::Flag(flag))
    });
    let flags: Vec<oci::LinuxSeccompFilterFlag> = flags.collect::<Result<_, _>>()?;
    let architectures = architectures(profile.architectures, profile.arch_map)?;
    let mut built = oci::LinuxSeccompBuilder::default()
        .default_action(profile.default_action)
        .syscalls(rules);
    if let Some(errno) = profile.default_errno_ret {
        built = built.default_errno_ret(errno);
    }
    if !architectures.is_empty() {
        built = built.architectures(architectures);
    }
    if !flags.is_empty() {
        built = built.flags(flags);
    }
    Ok(built.build().expect("a default action is set"))
}

/// The rules that hold for a container with these capabilities, on this machine.
fn rules(
    given: Option<Vec<Rule>>,
    names: &[String],
    kernel: Version,
) -> Result<Vec<oci::LinuxSyscall>, BadProfile> {
    let has = |wanted: &Option<Vec<String>>| wanted.iter().flatten().any(|cap| names.contains(cap));
    let is_here =
        |arches: &Option<Vec<String>>| arches.iter().flatten().any(|arch| arch == ARCHITECTURE);
    let mut rules = Vec::new();
    for rule in given.into_iter().flatten() {
        let (wanted, unwanted) = (
            rule.includes.is_new_enough(kernel)?,
            rule.excludes.is_new_enough(kernel)?,
        );
        let included = rule
            .includes
            .caps
            .iter()
            .flatten()
            .all(|cap| names.contains(cap))
            && (rule.includes.arches.as_ref().is_none_or(Vec::is_empty)
                || is_here(&rule.includes.arches))
            && wanted != Some(false);
        if !included
            || unwanted == Some(true)
            || has(&rule.excludes.caps)
            || is_here(&rule.excludes.arches)
        {
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
    Ok(rules)
}

fn architectures(
    given: Option<Vec<oci::Arch>>,
    map: Option<Vec<ArchMap>>,
) -> Result<Vec<oci::Arch>, BadProfile> {
    match (given, map) {
        (Some(list), Some(map)) if !list.is_empty() && !map.is_empty() => {
            Err(BadProfile::Both("architectures", "archMap"))
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
            Ok(all)
        }
    }
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
        Some(text) => profile(text, names, running_kernel()).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The calls that a profile with this rule refuses on Linux 5.10; the words are dockerd 28.5.2's.
    fn refused(rule: &str) -> Result<usize, String> {
        let text = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["getcwd"],"action":"SCMP_ACT_ERRNO",{rule}}}]}}"#
        );
        let policy = profile(&text, &[], (5, 10)).map_err(|error| error.to_string())?;
        Ok(policy.syscalls().as_ref().map_or(0, Vec::len))
    }

    #[test]
    fn rules_for_newer_kernels_hold_on_those_only() {
        for (version, included) in [("4.8", 1), ("5.10", 1), ("5.11", 0), ("99.0", 0), ("", 1)] {
            let rule = |kind: &str| format!(r#""{kind}":{{"minKernel":"{version}"}}"#);
            assert_eq!(refused(&rule("includes")), Ok(included), "{version}");
            let excluded = if version.is_empty() { 1 } else { 1 - included };
            assert_eq!(refused(&rule("excludes")), Ok(excluded), "{version}");
        }
        for version in ["x", "4", "4.8.1", "0.0"] {
            let told = refused(&format!(r#""includes":{{"minKernel":"{version}"}}"#));
            let words = "Decoding seccomp profile failed: invalid kernel version";
            assert_eq!(
                told,
                Err(format!(
                    r#"{words}: "{version}", expected "<kernel>.<major>""#
                ))
            );
        }
        assert!(running_kernel() > (4, 0), "{:?}", running_kernel());
    }

    #[test]
    fn flags_and_listeners_are_not_lost() {
        let told = |rest: &str| {
            let text = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW",{rest}}}"#);
            profile(&text, &[], (5, 10)).map_err(|error| error.to_string())
        };
        let logged = told(r#""flags":["SECCOMP_FILTER_FLAG_LOG"],"listenerPath":"/run/x.sock""#);
        assert_eq!(
            logged.unwrap().flags().as_deref(),
            Some(&[oci::LinuxSeccompFilterFlag::SeccompFilterFlagLog][..])
        );
        assert!(
            told(r#""flags":["X"]"#)
                .unwrap_err()
                .ends_with("runc create failed: seccomp flag X is not known to runc")
        );
        let notify = r#""syscalls":[{"names":["getcwd"],"action":"SCMP_ACT_NOTIFY"}]"#;
        assert!(
            told(notify)
                .unwrap_err()
                .ends_with("container init: seccomp listenerPath is not set")
        );
        let listened = told(&format!(r#"{notify},"listenerPath":"/run/x.sock""#)).unwrap_err();
        assert!(
            listened.contains("/run/x.sock") && listened.contains("not there yet"),
            "{listened}"
        );
    }
}
