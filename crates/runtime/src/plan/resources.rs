//! The limits of a spec with the device rules every container has.

use crate::oci;

/// Devices a container may use whatever its spec denies, as runc lists them: kind, major, minor, access.
const ALLOWED: [(oci::LinuxDeviceType, Option<i64>, Option<i64>, &str); 10] = [
    (oci::LinuxDeviceType::C, None, None, "m"),
    (oci::LinuxDeviceType::B, None, None, "m"),
    (oci::LinuxDeviceType::C, Some(1), Some(3), "rwm"),
    (oci::LinuxDeviceType::C, Some(1), Some(8), "rwm"),
    (oci::LinuxDeviceType::C, Some(1), Some(7), "rwm"),
    (oci::LinuxDeviceType::C, Some(5), Some(0), "rwm"),
    (oci::LinuxDeviceType::C, Some(1), Some(5), "rwm"),
    (oci::LinuxDeviceType::C, Some(1), Some(9), "rwm"),
    // Terminals: the slaves of any devpts, and its ptmx.
    (oci::LinuxDeviceType::C, Some(136), None, "rwm"),
    (oci::LinuxDeviceType::C, Some(5), Some(2), "rwm"),
];

fn rule(
    allow: bool,
    (kind, major, minor, access): (oci::LinuxDeviceType, Option<i64>, Option<i64>, &str),
) -> oci::LinuxDeviceCgroup {
    let mut rule = oci::LinuxDeviceCgroup::default();
    rule.set_allow(allow)
        .set_typ(Some(kind))
        .set_major(major)
        .set_minor(minor)
        .set_access(Some(access.to_owned()));
    rule
}

/// The spec's limits and device rules, then what no container can do without. A spec without rules denies the rest.
pub(crate) fn complete(spec: &oci::Spec) -> oci::LinuxResources {
    let mut resources = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.resources().clone())
        .unwrap_or_default();
    let mut rules = resources.devices().clone().unwrap_or_default();
    if rules.is_empty() {
        rules.push(rule(false, (oci::LinuxDeviceType::A, None, None, "rwm")));
    }
    // What was made for the container may be used there without another rule only if the spec says so: runc the same.
    rules.extend(ALLOWED.into_iter().map(|one| rule(true, one)));
    resources.set_devices(Some(rules));
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_rules_everything_else_is_denied_first() {
        let rules = complete(&oci::Spec::default());
        let rules = rules.devices().as_deref().unwrap();
        assert!(rules.len() > ALLOWED.len());
        let last = rules.last().unwrap();
        assert!(last.allow());
        assert_eq!((last.major(), last.minor()), (Some(5), Some(2)));
        assert!(!rules[0].allow());
    }
}
