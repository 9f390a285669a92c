//! The one exec of a child from a threaded process.
//!
//! [`Command`] wraps [`std::process::Command`] without `pre_exec`, so that the standard library takes
//! its `posix_spawn` path and no code of ours runs between fork and exec. The environment is empty
//! unless the caller fills it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};

/// A child to be: program, arguments, environment and the three standard streams (null by default).
#[derive(Debug)]
#[must_use = "a command does nothing until it is spawned"]
pub struct Command(std::process::Command);

impl Command {
    /// Prepares `program` with an empty environment and null standard streams.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the one exec of a child")]
        let mut command = std::process::Command::new(program);
        command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command)
    }

    /// Replaces argv\[0\].
    pub fn arg0(mut self, name: impl AsRef<OsStr>) -> Self {
        std::os::unix::process::CommandExt::arg0(&mut self.0, name);
        self
    }

    /// Appends one argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.0.arg(argument);
        self
    }

    /// Adds one environment variable.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.0.env(key, value);
        self
    }

    /// Gives the child `fd` as its standard input.
    pub fn stdin(mut self, fd: OwnedFd) -> Self {
        self.0.stdin(Stdio::from(fd));
        self
    }

    /// Gives the child `fd` as its standard output.
    pub fn stdout(mut self, fd: OwnedFd) -> Self {
        self.0.stdout(Stdio::from(fd));
        self
    }

    /// Gives the child `fd` as its standard error.
    pub fn stderr(mut self, fd: OwnedFd) -> Self {
        self.0.stderr(Stdio::from(fd));
        self
    }

    /// Makes the child the leader of a process group of its own, out of reach of a terminal's signals.
    pub fn own_group(mut self) -> Self {
        std::os::unix::process::CommandExt::process_group(&mut self.0, 0);
        self
    }

    /// Starts the child. The caller must wait for it.
    ///
    /// # Errors
    /// The errno of fork or exec.
    pub fn spawn(mut self) -> io::Result<Child> {
        self.0.spawn()
    }

    /// Runs the child to its end and collects what it writes. Blocks.
    ///
    /// # Errors
    /// The errno of fork, exec or the pipes.
    pub fn output(mut self) -> io::Result<std::process::Output> {
        self.0
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
    }
}

/// Ends this process with SIGKILL: no destructor, no handler, no flush. For [`crate::fault!`].
pub(crate) fn kill_self() -> ! {
    let me = rustix::process::getpid();
    rustix::process::kill_process(me, rustix::process::Signal::KILL)
        .expect("a process may always signal itself");
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn child_sees_only_the_environment_it_was_given() {
        let output = Command::new("/usr/bin/env")
            .env("ONLY", "this")
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "ONLY=this\n");
    }

    #[test]
    fn missing_program_is_an_error_at_spawn() {
        let error = Command::new("/no/such/program").spawn().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
