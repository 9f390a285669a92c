//! Making a cgroup's directory in one hierarchy, with its parents.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use sys::cgroupfs;

use super::super::layout::Hierarchy;
use super::super::path::{self, CgroupPath};
use super::super::{Error, Version};
use super::{Directory, failed};

/// Makes and opens the group in one hierarchy.
pub(super) fn make(
    hierarchy: &'static Hierarchy,
    version: Version,
    path: &CgroupPath,
) -> Result<Directory, Error> {
    let components =
        path::components(path.parent()).expect("a CgroupPath holds only valid components");
    let mut parent = hierarchy
        .root
        .try_clone()
        .map_err(|source| failed(hierarchy, "open", "/".to_owned(), source))?;
    let wrap = |operation: &'static str| {
        move |source| failed(hierarchy, operation, path.to_string(), source)
    };
    for component in components {
        hand_down(hierarchy, version, parent.as_fd());
        let fresh =
            cgroupfs::make_dir(parent.as_fd(), component).map_err(wrap("make the parent of"))?;
        let dir =
            cgroupfs::open_dir(parent.as_fd(), component).map_err(wrap("open the parent of"))?;
        if version == Version::V1 {
            prepare_v1(hierarchy, parent.as_fd(), dir.as_fd(), fresh)
                .map_err(wrap("prepare the parent of"))?;
        }
        parent = dir;
    }
    hand_down(hierarchy, version, parent.as_fd());
    let fresh = cgroupfs::make_dir(parent.as_fd(), path.name()).map_err(wrap("make"))?;
    let dir = cgroupfs::open_dir(parent.as_fd(), path.name()).map_err(wrap("open"))?;
    if version == Version::V1 && hierarchy.has("cpuset") {
        inherit_cpuset(parent.as_fd(), dir.as_fd()).map_err(wrap("set the processors of"))?;
    }
    Ok(Directory {
        hierarchy,
        parent,
        dir,
        found: !fresh,
    })
}

/// v2: turns on, for the groups below, each controller that can be. One that cannot (processes in an inner group,
/// threads of real-time policy for cpu) is reported when a limit asks for it.
fn hand_down(hierarchy: &Hierarchy, version: Version, dir: BorrowedFd<'_>) {
    if version == Version::V1 {
        return;
    }
    let on = cgroupfs::read(dir, "cgroup.subtree_control").unwrap_or_default();
    let missing = hierarchy
        .controllers
        .iter()
        .filter(|name| !on.split_whitespace().any(|other| other == name.as_str()));
    for controller in missing {
        // Told when a limit asks for it.
        drop(cgroupfs::write(
            dir,
            "cgroup.subtree_control",
            &format!("+{controller}"),
        ));
    }
}

/// v1: a cpuset without processors and memory nodes takes no process, so a new parent gets those above it and hands
/// them down by itself; and before Linux 5.11 charges reach the groups above only with `use_hierarchy`.
fn prepare_v1(
    hierarchy: &Hierarchy,
    above: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    fresh: bool,
) -> io::Result<()> {
    if hierarchy.has("cpuset") {
        inherit_cpuset(above, dir)?;
        if fresh {
            cgroupfs::write(dir, "cgroup.clone_children", "1")?;
        }
    }
    if fresh && hierarchy.has("memory") {
        let hierarchical = cgroupfs::read(dir, "memory.use_hierarchy").unwrap_or_default();
        if hierarchical.trim() == "0" {
            cgroupfs::write(dir, "memory.use_hierarchy", "1")?;
        }
    }
    Ok(())
}

fn inherit_cpuset(above: BorrowedFd<'_>, dir: BorrowedFd<'_>) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if cgroupfs::read(dir, file)?.trim().is_empty() {
            let inherited = cgroupfs::read(above, file)?;
            cgroupfs::write(dir, file, inherited.trim())?;
        }
    }
    Ok(())
}
