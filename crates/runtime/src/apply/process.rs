//! The steps that make the process: streams, limits, credentials, and the program.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sys::file;
use sys::path::{self, OpenFlags};
use sys::process::{self, CloseHow};
use sys::pty::WindowSize;
use sys::{cap, mount};

use super::{Context, Doing, NULL, Stop, await_byte};
use crate::message::{self, Failure, Report};
use crate::plan::{Credentials, Slot, Step};

/// What a process ends with when the kernel refuses its program after the start (runc's).
const REFUSED: i32 = 255;

impl Context<'_> {
    pub(super) fn process_step(&mut self, step: &Step) -> Result<(), Stop> {
        match step {
            Step::Terminal { size, console } => self.terminal(*size, *console)?,
            Step::Streams(slots) => self.streams(*slots)?,
            Step::Processors => {
                // Whatever the daemon was confined to is not the container's affair (runc does so since 1.2). And who is
                // born inside of a cgroup does not get its cpuset from a kernel before 6.3: the affinity set here does.
                process::use_all_processors().doing(|| "reset the CPU affinity".to_owned())?;
            }
            Step::OomScore(score) => self.oom_score(*score)?,
            Step::Limit(limit) => {
                process::set_limit(limit.resource, limit.soft, limit.hard)
                    .doing(|| {
                        let resource = limit.resource;
                        format!("error setting rlimits for ready process: error setting rlimit type {resource}")
                    })?;
            }
            Step::Profile(name) => self.profile(name)?,
            Step::Label(label) => self.label(label)?,
            Step::CloseFiles { preserve, gate } => self.close_files(*preserve, *gate)?,
            Step::Umask(mask) => process::set_umask(*mask),
            Step::NoNewPrivileges => {
                process::set_no_new_privileges().doing(|| "set no new privileges".to_owned())?;
            }
            Step::Seccomp => self
                .seccomp
                .map_or(Ok(()), |program| {
                    sys::seccomp::load(program.instructions(), program.flags())
                })
                .doing(|| "error loading seccomp filter into kernel".to_owned())?,
            Step::Credentials(who) => self.credentials(who)?,
            Step::ShowAsInit => {
                let line = crate::init::command_line(&self.plan.arguments);
                match process::set_name(c"docker-init")
                    .and_then(|()| process::set_command_line(line))
                {
                    Ok(()) | Err(_) => {} // how it looks in ps, no more
                }
            }
            Step::FindProgram => self.find_program()?,
            Step::AwaitStart => {
                self.send(&Report::Ready)?;
                if !await_byte(self.channel.as_fd(), message::START) {
                    return Err(Stop::Exit(1));
                }
            }
            Step::Announce => self.send(&Report::Announced)?,
            Step::Execute { init: false } => return Err(self.execute()),
            Step::Execute { init: true } => return Err(self.become_init()),
            _ => {}
        }
        Ok(())
    }

    fn terminal(&mut self, size: Option<(u16, u16)>, console: bool) -> Result<(), Failure> {
        let make = || -> io::Result<OwnedFd> {
            let root = path::open_directory(Path::new("/"))?;
            let (master, slave) = sys::pty::open_in_root(root.as_fd())?;
            if let Some((height, width)) = size {
                sys::pty::resize(master.as_fd(), WindowSize { height, width })?;
            }
            if console {
                let copy = mount::clone_tree(slave.as_fd(), Path::new(""), mount::Depth::One)?;
                let place = path::make_file(root.as_fd(), Path::new("dev/console"), 0o666)?;
                mount::attach(copy.as_fd(), place.as_fd())?;
            }
            message::send(self.channel.as_fd(), &Report::Terminal(master))?;
            sys::pty::take_control(slave.as_fd())?;
            Ok(slave)
        };
        let slave = make().doing(|| "open the terminal".to_owned())?;
        for number in 0..=2 {
            process::duplicate_to(slave.as_fd(), number)
                .doing(|| "give the process its terminal".to_owned())?;
        }
        if slave.as_raw_fd() <= 2 {
            std::mem::forget(slave); // it is one of the three now
        }
        Ok(())
    }

    fn streams(&mut self, slots: [Slot; 3]) -> Result<(), Failure> {
        let mut above = Vec::new();
        for slot in slots {
            let fd = self.take(slot)?;
            // Out of the way of the three numbers that are about to be replaced.
            let copy =
                process::duplicate_above(fd.as_fd(), 3).doing(|| "copy a stream".to_owned())?;
            if fd.as_raw_fd() <= 2 {
                std::mem::forget(fd);
            }
            above.push(copy);
        }
        for (fd, number) in above.iter().zip(0..) {
            process::duplicate_to(fd.as_fd(), number)
                .doing(|| "give the process its streams".to_owned())?;
        }
        Ok(())
    }

    fn oom_score(&self, score: i32) -> Result<(), Failure> {
        path::open_in_procfs(
            self.host_proc()?,
            Path::new("self/oom_score_adj"),
            OpenFlags::WRONLY,
        )
        .and_then(|file| file::write_once(file, score.to_string().as_bytes()))
        .doing(|| "write oom_score_adj".to_owned())
    }

    /// What the kernel says where there is no AppArmor, or no such profile, ends the start (as in runc).
    fn profile(&self, name: &str) -> Result<(), Failure> {
        const PLACES: [&str; 2] = ["self/attr/apparmor/exec", "self/attr/exec"];
        let proc = self.host_proc()?;
        let open = |place: &str| path::open_in_procfs(proc, Path::new(place), OpenFlags::WRONLY);
        // Before Linux 5.8, and without AppArmor, there is only the place that all such modules share.
        let (file, place) = match open(PLACES[0]) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (open(PLACES[1]), PLACES[1]),
            file => (file, PLACES[0]),
        };
        file.and_then(|file| file::write_once(file, format!("exec {name}").as_bytes()))
            .doing(|| {
                format!("unable to apply apparmor profile: apparmor failed to apply profile: write /proc/{place}")
            })
    }

    fn label(&self, label: &str) -> Result<(), Failure> {
        let place = Path::new("self/attr/exec");
        path::open_in_procfs(self.host_proc()?, place, OpenFlags::WRONLY)
            .and_then(|file| file::write_once(file, label.as_bytes()))
            .doing(|| "can't set process label".to_owned())
    }

    /// From here on the process has its streams, what is preserved, the channel, and perhaps the gate.
    fn close_files(&mut self, preserve: u32, gate: Option<Slot>) -> Result<(), Failure> {
        let mut close = || -> io::Result<()> {
            let first = i32::try_from(3 + preserve).map_err(|_| io::ErrorKind::InvalidInput)?;
            let channel = process::duplicate_above(self.channel.as_fd(), first + 2)?;
            let gate = match gate.and_then(|slot| self.files.get_mut(slot)?.take()) {
                Some(fd) => Some(process::duplicate_above(fd.as_fd(), first + 2)?),
                None => None,
            };
            // The numbers of the values below are about to be closed or taken over.
            for fd in self.files.drain(..).flatten() {
                std::mem::forget(fd);
            }
            if let Some(fd) = self.root.take() {
                std::mem::forget(fd);
            }
            let channel = process::move_to(channel, first)?;
            std::mem::forget(std::mem::replace(&mut self.channel, channel));
            let mut next = first + 1;
            if let Some(gate) = gate {
                std::mem::forget(process::move_to(gate, next)?);
                next += 1;
            }
            let next = u32::try_from(next).map_err(|_| io::ErrorKind::InvalidInput)?;
            process::close_range(next, u32::MAX, CloseHow::Now)
        };
        close().doing(|| "close descriptors".to_owned())
    }

    fn credentials(&mut self, who: &Credentials) -> Result<(), Failure> {
        cap::drop_bounding(cap::Set(who.bounding))
            .doing(|| "unable to apply bounding set".to_owned())?;
        cap::keep_over_user_change(cap::Keep::Yes)
            .doing(|| "unable to set keep caps".to_owned())?;
        // As root first: the directory may be closed to the user, or, on NFS, to root.
        let early = process::change_directory(&who.directory);
        if let Err(error) = &early
            && error.kind() != io::ErrorKind::PermissionDenied
        {
            return early.doing(|| chdir_text(&who.directory));
        }
        self.set_home(who.uid);
        own_streams(who.uid);
        match process::set_groups(&who.groups) {
            Err(error)
                if who.groups.is_empty()
                    && who.keeps_groups
                    && error.kind() == io::ErrorKind::PermissionDenied => {}
            other => other.doing(|| "setgroups".to_owned())?,
        }
        process::set_group(who.gid).doing(|| "setgid".to_owned())?;
        process::set_user(who.uid).doing(|| "setuid".to_owned())?;
        if early.is_err() {
            process::change_directory(&who.directory).doing(|| chdir_text(&who.directory))?;
        }
        verify_directory()?;
        cap::keep_over_user_change(cap::Keep::No)
            .doing(|| "unable to clear keep caps".to_owned())?;
        cap::set(cap::Sets {
            effective: cap::Set(who.effective),
            permitted: cap::Set(who.permitted),
            inheritable: cap::Set(who.inheritable),
        })
        .doing(|| "unable to apply caps".to_owned())?;
        cap::set_ambient(cap::Set(who.ambient)).doing(|| "unable to apply ambient caps".to_owned())
    }

    /// The user's home from the container's own passwd, unless the spec gave one (runc does the same for Docker).
    fn set_home(&mut self, uid: u32) {
        if self
            .environment
            .iter()
            .any(|one| one.starts_with("HOME=") && one.len() > 5)
        {
            return;
        }
        let home = path::open_directory(Path::new("/"))
            .ok()
            .and_then(|root| crate::user::home(root.as_fd(), uid))
            .unwrap_or_else(|| "/".to_owned());
        self.environment.retain(|one| !one.starts_with("HOME="));
        self.environment.push(format!("HOME={home}"));
    }

    fn find_program(&mut self) -> Result<(), Failure> {
        let name = self.plan.arguments.first().map_or("", String::as_str);
        let search = self
            .environment
            .iter()
            .rev()
            .find_map(|one| one.strip_prefix("PATH="))
            .unwrap_or_default();
        self.program = find(name, search).map_err(|(reason, errno)| Failure {
            message: format!("exec: {name:?}: {reason}"),
            errno,
        })?;
        Ok(())
    }

    /// Becomes the program. What the kernel says to that comes too late for the caller: it goes to the container's
    /// own standard error, as with runc.
    fn execute(&self) -> Stop {
        process::reset_signals();
        let program = CString::new(self.program.as_os_str().as_bytes());
        let strings = process::Strings::new(&self.plan.arguments)
            .and_then(|arguments| Ok((arguments, process::Strings::new(&self.environment)?)));
        let error = match (program, strings) {
            (Ok(program), Ok((arguments, environment))) => {
                process::execute(&program, &arguments, &environment)
            }
            (Err(_), _) | (_, Err(_)) => io::ErrorKind::InvalidInput.into(),
        };
        let what = format!("exec {}", self.program.display());
        let line = format!("{}\n", Failure::new(what, &error).message);
        if let Ok(stderr) = process::borrow_number(2) {
            match file::write_once(&stderr, line.as_bytes()) {
                Ok(()) | Err(_) => {} // there is nobody else to tell
            }
        }
        Stop::Exit(REFUSED)
    }

    /// Stays as PID 1 above the program.
    fn become_init(&mut self) -> Stop {
        process::block_signals();
        let made = process::clone(process::CloneRequest::default(), || {
            match crate::init::foreground() {
                Ok(()) => {}
                Err(_) => return REFUSED,
            }
            match self.execute() {
                Stop::Exit(code) => code,
                Stop::Failed(_) => REFUSED,
            }
        });
        match made {
            Ok(child) => {
                // The program runs when the last copies of channel and gate are gone: ours must go now.
                match process::close_range(3, u32::MAX, CloseHow::Now) {
                    Ok(()) => {}
                    Err(_) => process::exit(REFUSED),
                }
                std::mem::forget(child.pidfd);
                // Not by returning: values here still own the descriptors that were just closed.
                process::exit(crate::init::run(child.pid))
            }
            Err(error) => Stop::Failed(Failure::new("fork the program below init", &error)),
        }
    }
}

fn chdir_text(directory: &Path) -> String {
    format!(
        "chdir to cwd ({:?}) set in config.json failed",
        directory.display().to_string()
    )
}

/// A working directory outside of the root would be a way out (CVE-2024-21626).
fn verify_directory() -> Result<(), Failure> {
    match process::current_directory() {
        Ok(directory) if directory.is_absolute() => Ok(()),
        Ok(_) => Err(outside()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(outside()),
        Err(error) => Err(Failure::new(
            "failed to verify if current working directory is safe",
            &error,
        )),
    }
}

fn outside() -> Failure {
    Failure {
        message: "current working directory is outside of container mount namespace root -- \
                  possible container breakout detected"
            .to_owned(),
        errno: None,
    }
}

/// The process may open its own streams again by `/dev/stdout`: pipes and terminals become the user's.
fn own_streams(uid: u32) {
    let null = std::fs::metadata("/dev/null").ok();
    for number in 0..=2 {
        let Ok(fd) = process::borrow_number(number) else {
            continue;
        };
        let Ok(found) = file::stat(&fd) else {
            continue;
        };
        let is_null = null.is_some() && found.kind == NULL;
        if is_null || found.uid == uid {
            continue;
        }
        match file::chown_user(&fd, uid) {
            Ok(()) | Err(_) => {} // a socket or a read-only file keeps its owner, as with runc
        }
    }
}

const ENOENT: i32 = 2;
const EACCES: i32 = 13;

/// Looks a program up as Go's `exec.LookPath` does, whose texts Docker's users see: what stands in the working directory
/// by chance is not run.
fn find(name: &str, search: &str) -> Result<PathBuf, (String, Option<i32>)> {
    if name.contains('/') {
        return executable(Path::new(name)).map(|()| PathBuf::from(name));
    }
    if !name.is_empty() && !search.is_empty() {
        for directory in search.split(':') {
            let candidate = Path::new(directory).join(name);
            match executable(&candidate) {
                Ok(()) if candidate.is_absolute() => return Ok(candidate),
                Ok(()) => {
                    let reason = "cannot run executable found relative to current directory";
                    return Err((reason.to_owned(), None));
                }
                Err(_) => {}
            }
        }
    }
    Err((
        "executable file not found in $PATH".to_owned(),
        Some(ENOENT),
    ))
}

fn executable(program: &Path) -> Result<(), (String, Option<i32>)> {
    let found = match std::fs::metadata(program) {
        Ok(found) => found,
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(ENOENT);
            let text = sys::error::text(errno);
            return Err((format!("stat {}: {text}", program.display()), Some(errno)));
        }
    };
    if found.is_dir() {
        return Err(("is a directory: permission denied".to_owned(), Some(EACCES)));
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&found.permissions());
    if mode & 0o111 == 0 || !file::may_execute(program) {
        return Err(("permission denied".to_owned(), Some(EACCES)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_up_has_the_texts_of_go() {
        let error = find("nope", "/bin:/usr/bin").unwrap_err();
        let nowhere = ("executable file not found in $PATH".to_owned(), Some(2));
        assert_eq!(error, nowhere);
        let error = find("/nope", "").unwrap_err();
        assert_eq!(error.0, "stat /nope: no such file or directory");
        let error = find("/etc/passwd", "").unwrap_err();
        assert_eq!(error, ("permission denied".to_owned(), Some(13)));
        let error = find("/tmp", "").unwrap_err();
        assert_eq!(error.0, "is a directory: permission denied");
        assert_eq!(find("", "/bin").unwrap_err().1, Some(2));
        assert_eq!(find("Cargo.toml", "").unwrap_err(), nowhere);
    }

    /// The words are those of dockerd 28.5.2 for `-w / -e PATH=bin:/bin` and `-w /bin -e PATH=.` with `ls`.
    #[test]
    fn a_program_below_the_working_directory_is_not_found_by_chance() {
        let depth = std::env::current_dir().unwrap().components().count() - 1;
        let relative = "../".repeat(depth) + "bin";
        let reason = "cannot run executable found relative to current directory".to_owned();
        let both = format!("{relative}:/bin");
        assert_eq!(find("sh", &both).unwrap_err(), (reason, None));
        let after = format!("nowhere:/bin:{relative}");
        assert_eq!(find("sh", &after).unwrap(), Path::new("/bin/sh"));
    }
}
