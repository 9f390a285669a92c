//! What a shim is asked to run for an exec, and dockerd's words for its refusal.

use std::collections::BTreeMap;
use std::path::Path;

use api::exec::ExecConfig;
use runtime::{cgroup, oci};
use shim::protocol::{self, FailureKind, Wanted};

use super::Exec;
use crate::refusal::{not_running, shim_error};
use crate::shim_client::ShimError;
use crate::spec::{self, Place};
use crate::{Definition, Error};

/// runc's words before the reason.
const EXEC_FAILED: &str = "OCI runtime exec failed: exec failed: ";

/// Who an exec's process is: the container's own user unless it says otherwise.
pub(super) fn user(definition: &Definition, config: &ExecConfig) -> Wanted {
    let mut wanted = spec::user(definition);
    if !config.user.is_empty() {
        wanted.user.clone_from(&config.user);
    }
    wanted
}

/// The process of an exec: the container's own, with what the exec says otherwise.
pub(super) fn process(
    definition: &Definition,
    config: &ExecConfig,
    bounding: u64,
) -> Result<oci::Process, Error> {
    let mut merged = definition.clone();
    let mut words = config.cmd.iter().flatten().cloned();
    merged.path = words.next().unwrap_or_default();
    merged.args = words.collect();
    merged.config.tty = config.tty;
    if !config.working_dir.is_empty() {
        merged.config.working_dir.clone_from(&config.working_dir);
    }
    let environment = merged.config.env.get_or_insert_default();
    environment.extend(config.env.iter().flatten().cloned());
    let host = &mut merged.host_config;
    host.privileged |= config.privileged;
    // What the process does not have of its own, and what need not be looked up for it.
    host.console_size = [0, 0];
    host.devices = None;
    for mode in [
        &mut host.network_mode,
        &mut host.ipc_mode,
        &mut host.pid_mode,
    ] {
        if mode.starts_with("container:") {
            *mode = String::new();
        }
    }
    let place = Place {
        directory: Path::new("/"),
        cgroup_v2: cgroup::version() == cgroup::Version::V2,
        bounding,
        cgroup_parent: cgroup::PARENT,
        peers: &BTreeMap::new(),
        sources: &BTreeMap::new(),
    };
    let spec = spec::generate(&merged, &place)?;
    let process = spec.process().clone();
    Ok(process.expect("every specification has a process"))
}

pub(super) fn size([height, width]: [u32; 2]) -> Option<protocol::Size> {
    Some(protocol::Size {
        width: u16::try_from(width).ok()?,
        height: u16::try_from(height).ok()?,
    })
}

pub(super) fn failure(exec: &Exec, error: ShimError) -> Error {
    let ShimError::Refused { kind, message } = error else {
        return shim_error(error, &exec.container, "exec");
    };
    match kind {
        FailureKind::NotFound | FailureKind::NotExecutable => {
            exec.end(if kind == FailureKind::NotFound {
                127
            } else {
                126
            });
            Error::invalid(format!("{EXEC_FAILED}{message}"))
        }
        FailureKind::NoUser => Error::new(crate::Class::Internal, message),
        FailureKind::Other | FailureKind::Invalid | FailureKind::Internal => {
            Error::new(crate::Class::Internal, format!("{EXEC_FAILED}{message}"))
        }
        FailureKind::NotRunning => not_running(&exec.container),
        // A limit that is reached, or a container that was paused meanwhile: the shim says which.
        FailureKind::Busy => Error::conflict(message),
    }
}
