//! Cooper's own PID 1 for `--init`: forwards signals, reaps what is orphaned, ends with the program's code.
//!
//! It runs on in the image of the process that made the container, with the container's credentials.

use std::io;
use std::os::fd::AsFd;

use sys::process;

/// How Docker's init looks in `ps`.
const SHOWN_AS: &str = "/sbin/docker-init";

const SIGCHLD: i32 = 17;
const SIGTTIN: i32 = 21;
const SIGTTOU: i32 = 22;

/// The command line shown for PID 1.
pub(crate) fn command_line(arguments: &[String]) -> Vec<u8> {
    let mut line = format!("{SHOWN_AS}\0--\0").into_bytes();
    for argument in arguments {
        line.extend_from_slice(argument.as_bytes());
        line.push(0);
    }
    line
}

/// Puts the program into a group of its own, in the foreground of its terminal if it has one (as tini does).
pub(crate) fn foreground() -> io::Result<()> {
    process::new_group()?;
    let stdin = process::borrow_number(0)?;
    sys::pty::take_foreground(stdin.as_fd())
}

/// Runs until `program` has ended; says its exit code, 128 + n after a signal.
pub(crate) fn run(program: u32) -> i32 {
    loop {
        if let Some(code) = reap(program) {
            return code;
        }
        match process::next_signal() {
            // Stopped for terminal access in the background: the program's business, and it got its own.
            Ok(SIGCHLD | SIGTTIN | SIGTTOU) | Err(_) => {}
            Ok(signal) => match process::kill(program, signal) {
                Ok(()) | Err(_) => {} // it just ended: the next reap says so
            },
        }
    }
}

fn reap(program: u32) -> Option<i32> {
    loop {
        match process::reap_any() {
            Ok(Some((pid, ended))) if pid == program => return Some(ended.code),
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(_) => return Some(255), // no child at all: there is nothing to wait for
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_as_dockers_init() {
        let line = command_line(&["sleep".into(), "1".into()]);
        assert_eq!(line, b"/sbin/docker-init\0--\0sleep\x001\0");
    }
}
