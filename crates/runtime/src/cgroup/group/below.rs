//! What is in and below a cgroup's directory: the groups a container made, and their processes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use sys::cgroupfs;

use super::{EBUSY, is_gone};

/// Removes a group, and first the groups a container made below it. A missing group is a success.
pub(super) fn remove_tree(parent: BorrowedFd<'_>, name: &str, depth: usize) -> io::Result<()> {
    match cgroupfs::remove_dir(parent, name) {
        Ok(()) => return Ok(()),
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) if error.raw_os_error() != Some(EBUSY) || depth == 0 => return Err(error),
        Err(_) => {}
    }
    let dir = match cgroupfs::open_dir(parent, name) {
        Ok(dir) => dir,
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    for child in cgroupfs::subdirectories(dir.as_fd())? {
        remove_tree(dir.as_fd(), &child, depth - 1)?;
    }
    match cgroupfs::remove_dir(parent, name) {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

/// The processes in a directory and in those below it.
pub(in crate::cgroup) fn members(dir: BorrowedFd<'_>, depth: usize) -> io::Result<Vec<u32>> {
    let mut pids = match cgroupfs::read(dir, "cgroup.procs") {
        // A process of another pid namespace shows as 0: it can be neither named nor signalled from here.
        Ok(text) => text
            .lines()
            .filter_map(|line| line.parse().ok())
            .filter(|pid| *pid != 0)
            .collect::<Vec<u32>>(),
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    if depth == 0 {
        return Ok(pids);
    }
    for child in cgroupfs::subdirectories(dir)? {
        match cgroupfs::open_dir(dir, &child) {
            Ok(child) => pids.extend(members(child.as_fd(), depth - 1)?),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(pids)
}
