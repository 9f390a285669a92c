//! The machine with systemd: Cooper's units as a package would install them, and a service that types what people type.

use anyhow::{Context, Result};

use super::Plan;
use crate::sh;

/// What is typed there. Each `check "name"` of it must be reported as passed.
const SCRIPT: &str = include_str!("systemd.sh");

/// Runs the script once the machine is up, and ends the machine whatever becomes of it.
const UNIT: &str = "\
[Unit]
Description=What people type
After=basic.target
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=oneshot
ExecStart=/bin/sh /vm/systemd.sh
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
TimeoutStartSec=infinity
";

/// Puts everything of it into a plan.
pub(super) fn plan(plan: &mut Plan) -> Result<()> {
    for entry in std::fs::read_dir(sh::root().join("packaging"))? {
        let path = entry?.path();
        let place = format!("/vm/packaging/{}", super::file_name(&path));
        if let Ok(target) = std::fs::read_link(&path) {
            plan.links
                .insert(place, target.to_string_lossy().into_owned());
            continue;
        }
        let content = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        plan.files.insert(place, content);
    }
    let mut file = |place: &str, content: &[u8]| {
        plan.files.insert(place.to_owned(), content.to_vec());
    };
    file("/vm/systemd.sh", SCRIPT.as_bytes());
    file(
        "/vm/root/etc/systemd/system/vm-test.service",
        UNIT.as_bytes(),
    );
    // Wanted by the target that systemd starts, in place of all that a full boot brings.
    file(
        "/vm/root/etc/systemd/system/default.target",
        b"[Unit]\nRequires=basic.target vm-test.service\nAfter=basic.target\nAllowIsolate=yes\n",
    );
    file("/vm/busybox.tar", &testkit::archive::busybox_archive());
    plan.expected.extend(names(SCRIPT));
    Ok(())
}

/// The names of the checks in a script.
fn names(script: &str) -> Vec<String> {
    script
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("check \""))
        .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_check_is_known_by_a_name_of_its_own() {
        assert_eq!(names("x\n  check \"a b\" [ 1 ]\n#check \"c\""), ["a b"]);
        let all = names(SCRIPT);
        let different: BTreeSet<&String> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert!(all.len() > 20, "{all:?}");
    }
}
