//! Running one hook of a spec: the state on its standard input, bounded by its timeout.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use sys::command::Command;

use crate::plan::Hook;

/// Runs a hook to its end.
pub(crate) fn run(hook: &Hook, state: &str) -> io::Result<()> {
    let (read, write) = sys::process::pipe()?;
    let mut command = Command::new(&hook.path).stdin(read);
    if let Some((name, rest)) = hook.arguments.split_first() {
        command = command.arg0(name);
        for argument in rest {
            command = command.arg(argument);
        }
    }
    for pair in &hook.environment {
        if let Some((key, value)) = pair.split_once('=') {
            command = command.env(key, value);
        }
    }
    let mut child = command.spawn()?;
    feed(write, state)?;
    if let Some(seconds) = hook.timeout_s {
        let pidfd = sys::process::open_pidfd(child.id())?;
        let ended =
            sys::process::wait_readable(&[pidfd.as_fd()], Some(Duration::from_secs(seconds)))?;
        if ended == [false] {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other(format!("hook ran past {seconds}s")));
        }
    }
    let status = child.wait()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(status.to_string()))
    }
}

/// A hook need not read its input: that its pipe is closed is no failure.
fn feed(pipe: OwnedFd, state: &str) -> io::Result<()> {
    match std::fs::File::from(pipe).write_all(state.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout_s: Option<u64>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            arguments: vec!["sh".into(), "-c".into(), script.into()],
            environment: vec!["KEY=value".into()],
            timeout_s,
        }
    }

    #[test]
    fn the_state_arrives_and_the_environment_is_the_hooks() {
        run(
            &shell("test \"$(cat)\" = state && test $KEY = value", None),
            "state",
        )
        .unwrap();
    }

    #[test]
    fn a_failing_and_a_slow_hook_are_errors() {
        assert!(run(&shell("exit 3", None), "").is_err());
        assert!(run(&shell("exec sleep 100", Some(0)), "").is_err());
    }
}
