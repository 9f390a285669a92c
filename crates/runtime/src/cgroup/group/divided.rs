//! Containers that divide their own cgroup on v2, as a systemd in one does.

use std::os::fd::AsFd;

use sys::cgroupfs;

use super::super::{Error, Version};
use super::{Cgroup, Directory};

impl Cgroup {
    /// Where a further process goes, when not into the group itself: one that hands controllers down to groups below
    /// it has no processes on v2 (Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint"). That is
    /// the group of `member`, as with runc; it is only to be joined.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn beside(&self, member: u32) -> Result<Option<Self>, Error> {
        let whole = match (self.version, self.directories.first()) {
            (Version::V2, Some(whole)) => whole,
            (Version::V1, _) | (Version::V2, None) => return Ok(None),
        };
        if self.read_from(whole, "cgroup.subtree_control")?.trim() == "" {
            return Ok(None);
        }
        let failed = |source| whole.error(&self.path, "find the first process of", "", source);
        let membership = format!("/proc/{member}/cgroup");
        let membership = std::fs::read_to_string(membership).map_err(failed)?;
        let Some(components) = below(&membership, &self.path.to_string()) else {
            return Ok(None);
        };
        let mut dir = whole.dir.try_clone().map_err(failed)?;
        for component in components {
            dir = cgroupfs::open_dir(dir.as_fd(), component).map_err(failed)?;
        }
        let parent = whole.dir.try_clone().map_err(failed)?;
        Ok(Some(Self {
            path: self.path.clone(),
            version: self.version,
            directories: vec![Directory {
                hierarchy: whole.hierarchy,
                parent,
                dir,
                found: true,
            }],
        }))
    }
}

/// What follows a group in a process's path on v2; nothing for a process that is elsewhere.
fn below<'a>(membership: &'a str, group: &str) -> Option<Vec<&'a str>> {
    let mut lines = membership.lines();
    let path = lines.find_map(|line| line.strip_prefix("0::"))?;
    let below = path.strip_prefix(group)?.strip_prefix('/')?;
    let components: Vec<&str> = below.split('/').collect();
    let is_plain = |name: &&str| !matches!(*name, "" | "." | "..");
    components.iter().all(is_plain).then_some(components)
}

#[cfg(test)]
mod tests {
    use super::below;

    #[test]
    fn only_what_is_below_the_group_is_followed() {
        for (membership, found) in [
            (
                "1:name=x:/a\n0::/cooper/c/init.scope\n",
                Some(vec!["init.scope"]),
            ),
            ("0::/cooper/c/a/b\n", Some(vec!["a", "b"])),
            ("0::/cooper/c\n", None),
            ("0::/cooper/cd/e\n", None),
            ("0::/cooper/c/../x\n", None),
            ("0::/elsewhere\n", None),
            ("", None),
        ] {
            assert_eq!(below(membership, "/cooper/c"), found, "{membership}");
        }
    }
}
