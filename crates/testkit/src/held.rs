//! The descriptors of a daemon: what it has open at rest is what it had open when it began.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::{patience, wait_until};

/// What hangs on the last container is closed this long after it is gone.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);

/// Descriptors that come and go beside everything else: a commit, a look at a directory.
const MOMENTARY: usize = 2;

/// Shims that a daemon keeps ready, and network namespaces with them. It may have begun to when it answers first.
const READY: usize = 4;

/// Sockets of each: to the shim, and into the namespace.
const SOCKETS_OF_ONE: usize = 2;

/// Connections to registries that a pull leaves open for the next one: three downloads at a time, and a document.
const TO_REGISTRIES: usize = 4;

/// Descriptors of a process by what they are; those of the state database, which keeps connections for readers, are not
/// counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    sockets: usize,
    namespaces: usize,
    others: usize,
}

impl Held {
    /// Those of a process.
    pub(crate) fn by(pid: u32) -> Self {
        let mut held = Self::default();
        let entries = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"));
        for entry in entries.into_iter().flatten().flatten() {
            // One that was closed meanwhile.
            let Ok(file) = std::fs::read_link(entry.path()) else {
                continue;
            };
            let file = file.to_string_lossy();
            if file.starts_with("socket:") {
                held.sockets += 1;
            } else if file.starts_with("net:") {
                held.namespaces += 1;
            } else if !file.contains("/cooper.db") {
                held.others += 1;
            }
        }
        held
    }

    /// Fails the test when a process that is at rest has more open than this, the ones kept ready apart.
    pub(crate) fn assert_given_back(&self, pid: u32) {
        let deadline = Instant::now() + patience(CLOSED_WITHIN);
        let mut now = Self::default();
        let is_more = |now: &Self| {
            now.sockets > self.sockets + READY * SOCKETS_OF_ONE + TO_REGISTRIES + MOMENTARY
                || now.namespaces > READY
                || now.others > self.others + MOMENTARY
        };
        wait_until("descriptors to be closed", CLOSED_WITHIN * 2, || {
            now = Self::by(pid);
            (!is_more(&now) || Instant::now() > deadline).then_some(())
        });
        assert!(
            !is_more(&now),
            "the daemon has {now:?} open, at first {self:?}"
        );
    }
}
