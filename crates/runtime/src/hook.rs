//! Running one hook of a spec: the state on its standard input, bounded by its timeout.

use std::io;
use std::os::fd::AsFd;
use std::process::Child;
use std::time::Duration;

use sys::command::Command;

use crate::plan::Hook;

/// Runs a hook to its end, or to the end of its time.
pub(crate) fn run(hook: &Hook, state: &str) -> io::Result<()> {
    // A file, not a pipe: nobody waits for a hook that does not read.
    let state = sys::process::memory_file("state", state.as_bytes())?;
    let mut command = Command::new(&hook.path).stdin(state);
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
    let in_time = hook
        .timeout_s
        .map_or(Ok(true), |seconds| ends_within(&child, seconds));
    if !matches!(in_time, Ok(true)) {
        child.kill()?;
    }
    let status = child.wait()?;
    match (in_time?, hook.timeout_s) {
        (false, Some(seconds)) => Err(io::Error::other(format!("hook ran past {seconds}s"))),
        _ if status.success() => Ok(()),
        _ => Err(io::Error::other(status.to_string())),
    }
}

fn ends_within(child: &Child, seconds: u64) -> io::Result<bool> {
    let pidfd = sys::process::open_pidfd(child.id())?;
    let limit = Duration::from_secs(seconds);
    let ended = sys::process::wait_readable(&[pidfd.as_fd()], Some(limit))?;
    Ok(ended == [true])
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

    /// More than a pipe holds: annotations are the user's, and may be long.
    #[test]
    fn a_hook_that_reads_nothing_has_no_more_than_its_time() {
        let long = "x".repeat(1 << 20);
        let error = run(&shell("exec sleep 100", Some(0)), &long).unwrap_err();
        assert_eq!(error.to_string(), "hook ran past 0s");
        run(&shell("true", None), &long).unwrap();
        run(&shell("test $(wc -c) = 1048576", None), &long).unwrap();
    }
}
