//! `start`, `state`, `kill` and `delete`.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use clap::Args;
use sys::signal::{SIGKILL, Signal};

use super::state::{Container, Status, Store};
use super::{Failure, Outcome, at};
use crate::cgroup::{self, Cgroup};
use crate::{oci, plan};

/// How long the processes of a group that stays may take to be gone once they were killed.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(5);

/// Arguments of `start`.
#[derive(Args, Debug)]
pub(super) struct StartArguments {
    /// Name of the container
    id: String,
}

/// Arguments of `state`.
#[derive(Args, Debug)]
pub(super) struct StateArguments {
    /// Name of the container
    id: String,
}

/// Arguments of `kill`.
#[derive(Args, Debug)]
pub(super) struct KillArguments {
    /// Signal every process in the container's cgroup
    #[arg(short, long)]
    all: bool,
    /// Name of the container
    id: String,
    /// Signal by name or number
    #[arg(default_value = "SIGTERM")]
    signal: String,
}

/// Arguments of `delete`.
#[derive(Args, Debug)]
pub(super) struct DeleteArguments {
    /// Kill it first, and do not mind when there is none
    #[arg(short, long)]
    force: bool,
    /// Name of the container
    id: String,
}

/// Opens the gate of a waiting process.
pub(super) fn start(store: &Store, arguments: &StartArguments) -> Outcome {
    let container = store.load(&arguments.id)?;
    match container.status() {
        Status::Created => {}
        Status::Stopped => {
            return Err(Failure::Refused(
                "cannot start a container that has stopped".to_owned(),
            ));
        }
        Status::Running | Status::Paused => {
            return Err(Failure::Refused(
                "cannot start an already running container".to_owned(),
            ));
        }
    }
    let pidfd = container.process().ok_or(crate::Error::Died)?;
    let gate = at(
        "open the gate of the container",
        sys::process::take_fd(pidfd.as_fd(), container.record.gate),
    )?;
    crate::create::start_over(gate.as_fd())?;
    container.mark_started()?;
    let spec = container.spec()?;
    let hooks = spec
        .hooks()
        .as_ref()
        .and_then(|hooks| hooks.poststart().as_ref());
    hooks_after(store, &arguments.id, hooks)?;
    Ok(0)
}

/// Runs poststart or poststop hooks; a failing one is told and stops nothing (OCI runtime-spec, lifecycle).
pub(super) fn hooks_after(
    store: &Store,
    id: &str,
    hooks: Option<&Vec<oci::Hook>>,
) -> Result<(), Failure> {
    let hooks = plan::convert_hooks(hooks);
    if hooks.is_empty() {
        return Ok(());
    }
    let container = store.load(id)?;
    let text = container.oci_state(container.status())?.to_string();
    for (number, hook) in hooks.iter().enumerate() {
        if let Err(error) = crate::hook::run(hook, &text) {
            super::say(&format!("warning: hook #{number} failed: {error}"));
        }
    }
    Ok(())
}

/// Prints the OCI state.
pub(super) fn state(store: &Store, arguments: &StateArguments) -> Outcome {
    let container = store.load(&arguments.id)?;
    let value = container.oci_state(container.status())?;
    let text = serde_json::to_string_pretty(&value)
        .map_err(|error| Failure::Io("write the state".to_owned(), error.into()))?;
    at("write the state", writeln!(std::io::stdout(), "{text}"))?;
    Ok(0)
}

/// Sends a signal.
pub(super) fn kill(store: &Store, arguments: &KillArguments) -> Outcome {
    // 0 is no signal: it only asks whether there is a process, as for kill(2).
    let number = match arguments.signal.as_str() {
        "0" => 0,
        text => text
            .parse::<Signal>()
            .map_err(|_| Failure::Refused(format!("unknown signal {text:?}")))?
            .number(),
    };
    let container = store.load(&arguments.id)?;
    let process = container.process();
    if arguments.all {
        let cgroup = Cgroup::open(&container.record.cgroup)?;
        for pid in cgroup.pids()? {
            match sys::process::kill(pid, number) {
                Ok(()) | Err(_) => {} // one that has just ended needs no signal
            }
        }
        return Ok(0);
    }
    let Some(process) = process else {
        return Err(Failure::Refused("container not running".to_owned()));
    };
    at(
        "signal the container",
        sys::process::send_signal(process.as_fd(), number),
    )?;
    Ok(0)
}

/// Removes a stopped container, or one that never started.
pub(super) fn delete(store: &Store, arguments: &DeleteArguments) -> Outcome {
    let container = match store.load(&arguments.id) {
        Ok(container) => container,
        Err(_) if arguments.force => return remove_remains(store, &arguments.id),
        Err(failure) => return Err(failure),
    };
    match container.status() {
        Status::Stopped | Status::Created => {}
        Status::Running | Status::Paused if arguments.force => {}
        status @ (Status::Running | Status::Paused) => {
            return Err(Failure::Refused(format!(
                "cannot delete container {} that is not stopped: {}",
                arguments.id,
                status.name()
            )));
        }
    }
    destroy(store, &arguments.id)?;
    Ok(0)
}

/// A create that was killed leaves a directory without a state.
fn remove_remains(store: &Store, id: &str) -> Outcome {
    match std::fs::remove_dir(store.directory(id)) {
        Ok(()) | Err(_) => Ok(0),
    }
}

/// Ends every process, removes cgroup and state, runs the poststop hooks.
pub(super) fn destroy(store: &Store, id: &str) -> Result<(), Failure> {
    let container = store.load(id)?;
    let spec = container.spec()?;
    stop(&container)?;
    let hooks = plan::convert_hooks(
        spec.hooks()
            .as_ref()
            .and_then(|hooks| hooks.poststop().as_ref()),
    );
    let text = container.oci_state(Status::Stopped)?.to_string();
    container.forget()?;
    for (number, hook) in hooks.iter().enumerate() {
        if let Err(error) = crate::hook::run(hook, &text) {
            super::say(&format!("warning: poststop hook #{number} failed: {error}"));
        }
    }
    Ok(())
}

fn stop(container: &Container) -> Result<(), Failure> {
    if let Some(process) = container.process() {
        at(
            "kill the container",
            sys::process::send_signal(process.as_fd(), SIGKILL),
        )?;
    }
    let Ok(cgroup) = Cgroup::open(&container.record.cgroup) else {
        return Ok(());
    };
    match container.record.found.as_slice() {
        [] => Ok(cgroup.destroy()?),
        // It was empty before the container: who is in it is the container's.
        found => {
            cgroup.kill()?;
            if !cgroup.wait_empty(EMPTY_TIMEOUT)? {
                let path = cgroup.path().clone();
                return Err(cgroup::Error::Busy { path }.into());
            }
            Ok(cgroup.remove_except(found)?)
        }
    }
}
