//! What caller and child say to each other over their channel. One byte of kind, then the rest.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};
use sys::socket;

use crate::{Error, FailureClass};

/// Caller to child: go on.
pub(crate) const CONTINUE: u8 = b'C';
/// Caller to child: run the program.
pub(crate) const START: u8 = b'S';
/// Child to caller: only the program follows.
pub(crate) const ANNOUNCE: u8 = b'X';

const PID: u8 = b'P';
const TERMINAL: u8 = b'T';
const HOOKS: u8 = b'H';
const READY: u8 = b'R';
const FAILED: u8 = b'F';

/// Why a child could not go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// What failed, with the cause at its end.
    pub(crate) message: String,
    /// The errno behind it.
    pub(crate) errno: Option<i32>,
}

impl Failure {
    /// A failure of `what`, whose cause is an errno.
    pub(crate) fn new(what: impl std::fmt::Display, cause: &std::io::Error) -> Self {
        let errno = sys::error::errno(cause);
        let cause = match cause.raw_os_error() {
            Some(errno) => sys::error::text(errno),
            None => cause.to_string(),
        };
        Self {
            message: format!("{what}: {cause}"),
            errno,
        }
    }

    /// The caller's error; `during` is what runc says it was doing.
    pub(crate) fn into_error(self, during: &str) -> Error {
        let mut message = format!("{during}{}", self.message);
        // dockerd goes by the text of the errno at the end; we have the number.
        let class = match self.errno {
            Some(ENOENT) => FailureClass::NotFound,
            Some(ENOTDIR) => {
                message.push_str(
                    ": Are you trying to mount a directory onto a file (or vice-versa)? \
                     Check if the specified host path exists and is the expected type",
                );
                FailureClass::NotFound
            }
            Some(EACCES | EISDIR) => FailureClass::NotExecutable,
            Some(_) | None => FailureClass::Other,
        };
        Error::Child {
            message,
            class,
            errno: self.errno,
        }
    }
}

const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;

/// What a child reports.
#[derive(Debug)]
pub(crate) enum Report {
    /// The process in between made this child and ends.
    Pid(u32),
    /// The master of the terminal.
    Terminal(OwnedFd),
    /// It waits for the hooks of the runtime namespace.
    Hooks,
    /// It waits for the start.
    Ready,
    /// Only the program follows.
    Announced,
    /// It failed.
    Failed(Failure),
    /// The other end is gone.
    Gone,
}

/// Sends a report; a caller that is gone is found out by the next read.
pub(crate) fn send(channel: BorrowedFd<'_>, report: &Report) -> std::io::Result<()> {
    let say = |bytes: &[u8], fds: &[BorrowedFd<'_>]| {
        socket::send_with_fds(channel, bytes, fds).map(|_whole| ())
    };
    match report {
        Report::Pid(pid) => {
            let mut bytes = vec![PID];
            bytes.extend_from_slice(&pid.to_ne_bytes());
            say(&bytes, &[])
        }
        Report::Terminal(master) => say(&[TERMINAL], &[master.as_fd()]),
        Report::Hooks => say(&[HOOKS], &[]),
        Report::Ready => say(&[READY], &[]),
        Report::Announced => socket::write_byte(channel, ANNOUNCE),
        Report::Failed(failure) => {
            let mut bytes = vec![FAILED];
            bytes.extend_from_slice(&encoded(failure, socket::MESSAGE_MAX_BYTES - 1));
            say(&bytes, &[])
        }
        Report::Gone => Ok(()),
    }
}

/// A failure as JSON of at most `limit` bytes: the end of a longer text is left out.
fn encoded(failure: &Failure, limit: usize) -> Vec<u8> {
    let mut failure = failure.clone();
    loop {
        let json = serde_json::to_vec(&failure).unwrap_or_default();
        let characters = failure.message.chars().count();
        if json.len() <= limit || characters == 0 {
            return json;
        }
        let keep = characters * limit / json.len();
        failure.message = failure.message.chars().take(keep).collect();
    }
}

/// Waits for a report.
pub(crate) fn receive(channel: BorrowedFd<'_>) -> std::io::Result<Report> {
    let (bytes, mut fds) = socket::receive_message(channel)?;
    let bad = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    Ok(match bytes.split_first() {
        None => Report::Gone,
        Some((&PID, rest)) => Report::Pid(u32::from_ne_bytes(rest.try_into().map_err(|_| bad())?)),
        Some((&TERMINAL, _)) => Report::Terminal(fds.pop().ok_or_else(bad)?),
        Some((&HOOKS, _)) => Report::Hooks,
        Some((&READY, _)) => Report::Ready,
        Some((&ANNOUNCE, _)) => Report::Announced,
        Some((&FAILED, rest)) => Report::Failed(serde_json::from_slice(rest).map_err(|_| bad())?),
        Some(_) => return Err(bad()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_any_length_arrives_as_one() {
        for text in ["short", &"long ".repeat(40_000), &"\"\u{1}é".repeat(40_000)] {
            let (ours, theirs) = socket::message_pair().unwrap();
            let failure = Failure {
                message: text.to_owned(),
                errno: Some(ENOENT),
            };
            send(theirs.as_fd(), &Report::Failed(failure)).unwrap();
            let Report::Failed(heard) = receive(ours.as_fd()).unwrap() else {
                panic!("no failure");
            };
            assert_eq!(heard.errno, Some(ENOENT));
            assert!(text.starts_with(&heard.message) && heard.message.len() > 4);
        }
    }
}
