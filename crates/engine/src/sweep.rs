//! The sweep: whatever belongs to a container of this data root and whose row does not explain it goes.
//!
//! Run once at the daemon's start, after the rows are known and before anything new is made. It looks at
//! every kind of thing that a container is made of: cgroups, run directories with their shims, the files
//! of containers, holds on images, and what the pool of a dead daemon left.
//!
//! A container's files without a row are what a lost database leaves: they stay, and an administrator is told.
//!
//! Cgroups and run directories lie where others may have theirs too: another data root's on the same exec
//! root, another engine's or systemd's below the same cgroup. Only those are touched that carry the id of a
//! container in this database, or this engine's name for its pool. A removal ends these before its row, so
//! that none of ours is ever without one.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use crate::open::Inner;
use crate::state::Status;
use crate::{ContainerId, Error, files, launch, pool};

/// Removes everything without an owner, and nothing of the containers in `unread`. What cannot be removed is
/// logged and tried at the next start.
pub(crate) async fn sweep(engine: &Arc<Inner>, unread: Vec<String>) -> Result<(), Error> {
    let containers = engine.index.all();
    let known: HashSet<String> = containers
        .iter()
        .map(|container| container.id().as_str().to_owned())
        .chain(unread.iter().cloned())
        .collect();
    // A container that does not run owns no cgroup and no run directory: a start that was never saved.
    let running: HashSet<String> = containers
        .iter()
        .filter(|container| match container.snapshot().status {
            Status::Running | Status::Paused | Status::Restarting | Status::Removing => true,
            Status::Created | Status::Exited | Status::Dead => false,
        })
        .map(|container| container.id().as_str().to_owned())
        .chain(unread)
        .collect();
    let sweeping = engine.clone();
    engine
        .blocking(move || {
            let failures = sweep_blocking(&sweeping, &known, &running);
            for failure in failures {
                tracing::error!(error = %failure.message, "leftover of an earlier run");
            }
            Ok(())
        })
        .await
}

fn sweep_blocking(
    engine: &Inner,
    known: &HashSet<String>,
    running: &HashSet<String>,
) -> Vec<Error> {
    let mut failures = Vec::new();
    let mut attempt = |result: Result<(), Error>| failures.extend(result.err());
    let stopped = |name: &String| known.contains(name) && !running.contains(name);
    for name in names(&engine.config.run_dirs()) {
        match name.parse::<ContainerId>() {
            Ok(id) if stopped(&name) => attempt(launch::undo_blocking(engine, &id)),
            Ok(_) | Err(_) => {}
        }
    }
    let parked = pool::cgroup_prefix(&engine.id);
    for name in runtime::cgroup::list(&engine.config.cgroup_parent) {
        if stopped(&name) || name.starts_with(&parked) {
            attempt(launch::remove_cgroup(&engine.config.cgroup_parent, &name));
        }
    }
    for name in names(&engine.config.containers_dir()) {
        let directory = engine.config.containers_dir().join(&name);
        if known.contains(&name) {
            continue;
        }
        if directory.join(files::DEFINITION).exists() {
            engine.finding(format!(
                "{} is left alone: the database knows no such container",
                directory.display()
            ));
        } else {
            attempt(files::remove_directory(&directory));
        }
    }
    attempt(engine.networks.sweep(running));
    match engine.images.holders() {
        Ok(holders) => {
            for holder in holders.iter().filter(|holder| !known.contains(*holder)) {
                attempt(engine.images.release(holder).map_err(Error::from));
            }
        }
        Err(error) => attempt(Err(error.into())),
    }
    failures
}

fn names(directory: &Path) -> Vec<String> {
    std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}
