//! `exec`.

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::Args;

use super::state::{Status, Store};
use super::{Failure, Outcome, at, console, container};
use crate::cgroup::Cgroup;
use crate::exec::{Exec, exec_with};
use crate::{Io, oci};

/// Arguments of `exec`.
#[derive(Args, Debug)]
pub(super) struct ExecArguments {
    /// Socket that gets the master of the terminal
    #[arg(long)]
    console_socket: Option<PathBuf>,
    /// Working directory
    #[arg(long)]
    cwd: Option<PathBuf>,
    /// Another environment variable, KEY=VALUE
    #[arg(short, long)]
    env: Vec<String>,
    /// Make a terminal
    #[arg(short, long)]
    tty: bool,
    /// UID or UID:GID
    #[arg(short, long)]
    user: Option<String>,
    /// Another group id
    #[arg(short = 'g', long)]
    additional_gids: Vec<u32>,
    /// File with an OCI process, in place of the arguments
    #[arg(short, long)]
    process: Option<PathBuf>,
    /// Do not wait for the end
    #[arg(short, long)]
    detach: bool,
    /// File that gets the pid
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// Forbid new privileges
    #[arg(long)]
    no_new_privs: bool,
    /// Another capability
    #[arg(short, long)]
    cap: Vec<String>,
    /// How many descriptors from 3 on the program gets
    #[arg(long, default_value_t = 0)]
    preserve_fds: u32,
    /// Name of the container
    id: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs a process in a container.
pub(super) fn exec(store: &Store, arguments: &ExecArguments) -> Outcome {
    let found = store.load(&arguments.id)?;
    match found.status() {
        Status::Running | Status::Created => {}
        Status::Stopped => {
            return Err(Failure::Refused(
                "cannot exec in a stopped container".to_owned(),
            ));
        }
        Status::Paused => {
            return Err(Failure::Refused(
                "cannot exec in a paused container".to_owned(),
            ));
        }
    }
    let spec = found.spec()?;
    let process = process(arguments, &spec)?;
    let init = found.process().ok_or(crate::Error::Died)?;
    let cgroup = Cgroup::open(&found.record.cgroup)?;
    let io = if process.terminal().unwrap_or(false) {
        Io::Terminal { size: None }
    } else {
        container::inherited()?
    };
    let executed = exec_with(
        Exec {
            user: None,
            init: init.as_fd(),
            spec: &spec,
            seccomp: None,
            process: &process,
            cgroup: &cgroup,
            io,
        },
        arguments.preserve_fds,
    )?;
    if let Some(file) = &arguments.pid_file {
        at(
            format!("write {}", file.display()),
            fs::write(file, executed.pid.to_string()),
        )?;
    }
    let terminal = match (executed.terminal, &arguments.console_socket) {
        (Some(master), Some(socket)) => {
            at("hand the terminal over", console::hand_over(socket, master))?;
            None
        }
        (terminal, _) => terminal,
    };
    if arguments.detach {
        return Ok(0);
    }
    let code = match terminal {
        Some(master) => at(
            "relay the terminal",
            console::relay(master, &executed.pidfd),
        )?,
        None => {
            at(
                "wait for the process",
                sys::process::wait(executed.pidfd.as_fd()),
            )?
            .code
        }
    };
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// The process of `--process`, or the container's own with the arguments' changes.
fn process(arguments: &ExecArguments, spec: &oci::Spec) -> Result<oci::Process, Failure> {
    if let Some(path) = &arguments.process {
        let text = at(format!("read {}", path.display()), fs::read(path))?;
        return serde_json::from_slice(&text)
            .map_err(|error| Failure::Refused(format!("cannot read {}: {error}", path.display())));
    }
    let mut process = spec
        .process()
        .clone()
        .ok_or_else(|| Failure::Refused("the spec has no process".to_owned()))?;
    process.set_args(Some(arguments.command.clone()));
    process.set_terminal(Some(arguments.tty));
    if let Some(directory) = &arguments.cwd {
        process.set_cwd(directory.clone());
    }
    let mut environment = process.env().clone().unwrap_or_default();
    environment.extend(arguments.env.iter().cloned());
    process.set_env(Some(environment));
    if arguments.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    user(arguments, &mut process)?;
    capabilities(arguments, &mut process)?;
    Ok(process)
}

fn user(arguments: &ExecArguments, process: &mut oci::Process) -> Result<(), Failure> {
    let mut user = process.user().clone();
    if let Some(text) = &arguments.user {
        let (uid, gid) = text
            .split_once(':')
            .map_or((text.as_str(), None), |(u, g)| (u, Some(g)));
        let number = |text: &str| {
            text.parse::<u32>()
                .map_err(|_| Failure::Refused(format!("parsing {text} as int for uid failed")))
        };
        user.set_uid(number(uid)?);
        if let Some(gid) = gid {
            user.set_gid(number(gid)?);
        }
    }
    if !arguments.additional_gids.is_empty() {
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        groups.extend(&arguments.additional_gids);
        user.set_additional_gids(Some(groups));
    }
    process.set_user(user);
    Ok(())
}

/// A capability that is added goes into every set but ambient and inheritable, as with runc since CVE-2022-29162.
fn capabilities(arguments: &ExecArguments, process: &mut oci::Process) -> Result<(), Failure> {
    if arguments.cap.is_empty() {
        return Ok(());
    }
    let mut sets = process.capabilities().clone().unwrap_or_default();
    let more = arguments
        .cap
        .iter()
        .map(|name| {
            serde_json::from_value::<oci::Capability>(serde_json::Value::from(name.as_str()))
                .map_err(|_| Failure::Refused(format!("unknown capability {name}")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let with = |set: &Option<oci::Capabilities>| {
        let mut all = set.clone().unwrap_or_default();
        all.extend(more.iter().copied());
        Some(all)
    };
    sets.set_bounding(with(sets.bounding()));
    sets.set_effective(with(sets.effective()));
    sets.set_permitted(with(sets.permitted()));
    process.set_capabilities(Some(sets));
    Ok(())
}
