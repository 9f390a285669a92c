//! `create` and `run`.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use clap::Args;
use sys::clock::Stamp;

use super::state::{self, Record, Status, Store};
use super::{Failure, Outcome, at, console};
use crate::cgroup::{Cgroup, CgroupPath};
use crate::create::{Create, Extra, Prepared, StartGate, create_with};
use crate::{Error, Init, Io, Rootfs, oci, plan};

/// Arguments of `create`.
#[derive(Args, Debug)]
pub(super) struct CreateArguments {
    /// Directory with config.json and the root
    #[arg(short, long, default_value = ".")]
    bundle: PathBuf,
    /// Socket that gets the master of the terminal
    #[arg(long)]
    console_socket: Option<PathBuf>,
    /// File that gets the pid of the first process
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on the program gets
    #[arg(long, default_value_t = 0)]
    preserve_fds: u32,
    /// Accepted: the root is always changed by pivot_root
    #[arg(long)]
    no_pivot: bool,
    /// Accepted: the session keyring is always new
    #[arg(long)]
    no_new_keyring: bool,
    /// Cooper's own init stays as PID 1 above the program
    #[arg(long)]
    init: bool,
    /// Name of the container
    id: String,
}

/// Arguments of `run`.
#[derive(Args, Debug)]
pub(super) struct RunArguments {
    #[command(flatten)]
    create: CreateArguments,
    /// Do not wait for the end
    #[arg(short, long)]
    detach: bool,
    /// Keep the state after the end
    #[arg(long)]
    keep: bool,
    /// Accepted: orphans are the caller's
    #[arg(long)]
    no_subreaper: bool,
}

/// Makes a container that waits.
pub(super) fn create(store: &Store, arguments: &CreateArguments) -> Outcome {
    let spec = read_spec(&arguments.bundle)?;
    refuse_lost_terminal(arguments, &spec)?;
    let made = make(store, arguments, &spec)?;
    hand_over(store, arguments, made.init.terminal)?;
    Ok(0)
}

/// Makes, starts, waits, removes.
pub(super) fn run(store: &Store, arguments: &RunArguments) -> Outcome {
    let spec = read_spec(&arguments.create.bundle)?;
    if arguments.detach {
        refuse_lost_terminal(&arguments.create, &spec)?;
    }
    let mut made = make(store, &arguments.create, &spec)?;
    let id = &arguments.create.id;
    let terminal = hand_over(store, &arguments.create, made.init.terminal.take())?;
    let started = made.init.start().map_err(Failure::from).and_then(|()| {
        store.load(id)?.mark_started()?;
        Ok(())
    });
    if let Err(failure) = started {
        super::lifecycle::destroy(store, id)?;
        return Err(failure);
    }
    super::lifecycle::hooks_after(
        store,
        id,
        spec.hooks().as_ref().and_then(|h| h.poststart().as_ref()),
    )?;
    if arguments.detach {
        return Ok(0);
    }
    let code = match terminal {
        Some(master) => at(
            "relay the terminal",
            console::relay(master, &made.init.pidfd),
        )?,
        None => wait_forwarding(&made.init)?,
    };
    if !arguments.keep {
        super::lifecycle::destroy(store, id)?;
    }
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Who goes away needs somebody who holds the terminal (runc's words).
fn refuse_lost_terminal(arguments: &CreateArguments, spec: &oci::Spec) -> Result<(), Failure> {
    if wants_terminal(spec) && arguments.console_socket.is_none() {
        let text = "cannot allocate tty if runc will detach without setting console socket";
        return Err(Failure::Refused(text.to_owned()));
    }
    Ok(())
}

fn wants_terminal(spec: &oci::Spec) -> bool {
    spec.process()
        .as_ref()
        .is_some_and(|process| process.terminal().unwrap_or(false))
}

/// Gives the terminal to who listens at the console socket; back, where there is none. A container whose terminal nobody
/// has is taken back.
fn hand_over(
    store: &Store,
    arguments: &CreateArguments,
    terminal: Option<OwnedFd>,
) -> Result<Option<OwnedFd>, Failure> {
    let (master, socket) = match (terminal, &arguments.console_socket) {
        (Some(master), Some(socket)) => (master, socket),
        (terminal, _) => return Ok(terminal),
    };
    let handed = at("hand the terminal over", console::hand_over(socket, master));
    if let Err(failure) = handed {
        super::lifecycle::destroy(store, &arguments.id)?;
        return Err(failure);
    }
    Ok(None)
}

fn wait_forwarding(init: &Init) -> Result<i32, Failure> {
    let ended = sys::process::wait(init.pidfd.as_fd());
    Ok(at("wait for the container", ended)?.code)
}

struct Made {
    init: Init,
}

/// Reads `config.json` of a bundle.
fn read_spec(bundle: &Path) -> Result<oci::Spec, Failure> {
    let path = bundle.join("config.json");
    let text = fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::Refused(format!(
            "JSON specification file {} not found",
            path.display()
        )),
        _ => Failure::Io(format!("read {}", path.display()), error),
    })?;
    serde_json::from_slice(&text)
        .map_err(|error| Failure::Refused(format!("cannot read {}: {error}", path.display())))
}

fn make(store: &Store, arguments: &CreateArguments, spec: &oci::Spec) -> Result<Made, Failure> {
    let bundle = at("find the bundle", fs::canonicalize(&arguments.bundle))?;
    let terminal = wants_terminal(spec);
    if arguments.console_socket.is_some() && !terminal {
        return Err(Failure::Refused(
            "cannot use console socket if runc will not detach or allocate tty".to_owned(),
        ));
    }
    let rootfs = state::rootfs(&bundle, spec);
    if !rootfs.is_dir() {
        return Err(Failure::Refused(format!(
            "invalid rootfs: stat {}: no such file or directory",
            rootfs.display()
        )));
    }
    let id = &arguments.id;
    let path = cgroup_path(spec, id)?;
    let directory = store.claim(id)?;
    let result = claim_cgroup(&path).and_then(|cgroup| {
        let found = cgroup.found();
        let made = make_claimed(arguments, spec, &bundle, rootfs, cgroup, &directory);
        if made.is_err() {
            // What was begun is taken back; the first failure is the one to tell.
            drop(Cgroup::open(&path).and_then(|cgroup| cgroup.remove_except(&found)));
        }
        made
    });
    if result.is_err() {
        // The failure that brought us here is the one to tell.
        drop(fs::remove_dir_all(&directory));
    }
    result
}

/// Makes the container's cgroup. One that is there already may be used, but not one in which somebody runs: the limits
/// would be theirs too, and the end of the container their end (refused by runc since 1.2).
fn claim_cgroup(path: &CgroupPath) -> Result<Cgroup, Failure> {
    let cgroup = Cgroup::create(path)?;
    let found = cgroup.found();
    if found.is_empty() {
        return Ok(cgroup);
    }
    let strangers = cgroup.pids()?.len();
    if strangers == 0 {
        return Ok(cgroup);
    }
    cgroup.remove_except(&found)?;
    Err(Failure::Refused(format!(
        "container's cgroup is not empty: {strangers} process(es) found"
    )))
}

fn make_claimed(
    arguments: &CreateArguments,
    spec: &oci::Spec,
    bundle: &Path,
    rootfs: PathBuf,
    cgroup: Cgroup,
    directory: &Path,
) -> Result<Made, Failure> {
    let terminal = wants_terminal(spec);
    let io = if terminal {
        Io::Terminal { size: None }
    } else {
        inherited()?
    };
    let mut record = Record {
        id: arguments.id.clone(),
        pid: 0,
        born_ticks: 0,
        bundle: bundle.to_owned(),
        cgroup: cgroup.path().clone(),
        found: cgroup.found(),
        gate: i32::try_from(4 + arguments.preserve_fds)
            .map_err(|_| Failure::Refused("too many preserved descriptors".to_owned()))?,
        created: Stamp::now().to_string(),
    };
    let hook_state = state::oci_state(&record, Status::Created, spec).to_string();
    let early = record.clone();
    let request = Create {
        user: None,
        spec,
        seccomp: None,
        rootfs: &Rootfs::Directory { path: rootfs },
        io,
        prepared: Prepared {
            cgroup,
            netns: None,
        },
        peers: &[],
        init: arguments.init,
        gate: StartGate::Anyone,
    };
    let init = create_with(
        request,
        Extra {
            id: arguments.id.clone(),
            hook_state,
            preserve: arguments.preserve_fds,
            hooks: &mut |pid| runtime_hooks(spec, &early, pid),
        },
    )?;
    record.pid = init.pid;
    record.born_ticks = state::birth(init.pid).ok_or(Error::Died)?.0;
    let saved = state::save(directory, &record, spec).and_then(|()| {
        arguments.pid_file.as_ref().map_or(Ok(()), |file| {
            at(
                format!("write {}", file.display()),
                fs::write(file, init.pid.to_string()),
            )
        })
    });
    if let Err(failure) = saved {
        crate::launch::end(init.pidfd.as_fd());
        return Err(failure);
    }
    Ok(Made { init })
}

/// Hooks of the runtime namespace: prestart, then createRuntime.
fn runtime_hooks(spec: &oci::Spec, record: &Record, pid: u32) -> Result<(), Error> {
    let mut record = record.clone();
    record.pid = pid;
    let text = state::oci_state(&record, Status::Created, spec).to_string();
    let Some(hooks) = spec.hooks() else {
        return Ok(());
    };
    for (kind, list) in [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
    ] {
        for (number, hook) in plan::convert_hooks(list.as_ref()).iter().enumerate() {
            crate::hook::run(hook, &text).map_err(|source| Error::Host {
                operation: format!("error running {kind} hook #{number}"),
                source,
            })?;
        }
    }
    Ok(())
}

/// Our own standard streams, for the container.
pub(super) fn inherited() -> Result<Io, Failure> {
    let copy = |number: i32| -> Result<OwnedFd, Failure> {
        at(
            "copy a standard stream",
            sys::process::borrow_number(number),
        )
    };
    Ok(Io::Pipes {
        stdin: copy(0)?,
        stdout: copy(1)?,
        stderr: copy(2)?,
    })
}

/// `linux.cgroupsPath`, or a cgroup of the container's name.
fn cgroup_path(spec: &oci::Spec, id: &str) -> Result<CgroupPath, Failure> {
    let asked = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.cgroups_path().as_ref())
        .filter(|path| !path.as_os_str().is_empty());
    let path = match asked {
        None => CgroupPath::own(id)?,
        Some(path) => {
            let text = path.to_string_lossy();
            if !text.contains('/') && text.matches(':').count() == 2 {
                return Err(Failure::Refused(format!(
                    "cgroupsPath {text:?} is a slice of systemd's, and cgroups are not made by systemd here"
                )));
            }
            let text = text.trim_end_matches('/');
            match text.rsplit_once('/') {
                Some((parent, name)) => CgroupPath::new(parent, name)?,
                None => CgroupPath::new("/", text)?,
            }
        }
    };
    Ok(path)
}
