//! Freezing, thawing and killing what is in a cgroup.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use sys::cgroupfs;

use super::group::{self, Directory};
use super::{Cgroup, Error, Version};

/// How long a group may take to freeze. A task in an uninterruptible sleep holds it up; a pause that does not come in
/// this time is undone and reported, before whoever asked for it gives up (10 s).
const FREEZE_TIMEOUT: Duration = Duration::from_secs(8);

/// How long a kill waits for the freeze that keeps the group from forking: what does not freeze is killed unfrozen,
/// and the next round finds what it forked.
const KILL_FREEZE_TIMEOUT: Duration = Duration::from_millis(100);

/// Rounds of freezing and killing: a frozen group cannot fork, so the second normally finds nothing new.
const KILL_ROUNDS_MAX: usize = 10;

/// First pause between two looks at the state of the v1 freezer, which has no event; doubles up to the last.
const FREEZE_PAUSE_FIRST: Duration = Duration::from_micros(20);
const FREEZE_PAUSE_LAST: Duration = Duration::from_millis(5);

/// Pauses between two looks at a group whose last process has ended and is not out of it yet, which has no event on v1;
/// doubles up to the last.
const EMPTY_PAUSE_FIRST: Duration = Duration::from_micros(50);
const EMPTY_PAUSE_LAST: Duration = Duration::from_millis(5);

impl Cgroup {
    /// Freezes every process in the group and below, and waits until they are frozen (bounded).
    ///
    /// # Errors
    /// [`Error::Unsupported`] without a freezer, [`Error::Io`] with `ETIMEDOUT` when it did not freeze; it is thawed then.
    pub fn freeze(&self) -> Result<(), Error> {
        let frozen = self.try_freeze(FREEZE_TIMEOUT);
        if frozen.is_err() {
            // The refusal to freeze is what the caller must hear of.
            drop(self.thaw());
        }
        frozen
    }

    /// Undoes [`Cgroup::freeze`].
    ///
    /// # Errors
    /// [`Error::Unsupported`] without a freezer, else [`Error::Io`].
    pub fn thaw(&self) -> Result<(), Error> {
        match self.version() {
            Version::V1 => self.write_to(self.freezer()?, "freezer.state", "THAWED"),
            Version::V2 => self.write_to(self.freezer()?, "cgroup.freeze", "0"),
        }
    }

    /// Whether the group is frozen.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without a freezer, else [`Error::Io`].
    pub fn is_frozen(&self) -> Result<bool, Error> {
        let directory = self.freezer()?;
        match self.version() {
            Version::V1 => Ok(self.read_from(directory, "freezer.state")?.trim() == "FROZEN"),
            Version::V2 => {
                Ok(event(&self.read_from(directory, "cgroup.events")?, "frozen") == Some(1))
            }
        }
    }

    /// Sends SIGKILL to every process in the group and below; a frozen group is thawed so that they die.
    /// Does not wait until they are gone: [`Cgroup::remove`] does.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn kill(&self) -> Result<(), Error> {
        if self.version() == Version::V2 {
            let directory = self.freezer()?;
            match cgroupfs::write(directory.dir.as_fd(), "cgroup.kill", "1") {
                Ok(()) => return self.thaw_for_the_dying(),
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(directory.error(self.path(), "kill", "cgroup.kill", error));
                }
                // Before Linux 5.14, or the group is gone: the loop below finds out.
                Err(_) => {}
            }
        }
        self.kill_one_by_one()
    }

    /// Kills round by round, and thaws at the end, whatever came: SIGKILL waits in a frozen process until then.
    fn kill_one_by_one(&self) -> Result<(), Error> {
        let killed = self.kill_in_rounds();
        self.thaw_for_the_dying().and(killed)
    }

    /// Freezes and kills until a round meets nobody new. While the group is frozen no id in it can be freed and taken
    /// by a stranger.
    fn kill_in_rounds(&self) -> Result<(), Error> {
        let mut killed = BTreeSet::new();
        for _ in 0..KILL_ROUNDS_MAX {
            if self.pids()?.iter().all(|pid| killed.contains(pid)) {
                break;
            }
            // Without a freezer, or when it hangs, the rounds alone do it.
            drop(self.try_freeze(KILL_FREEZE_TIMEOUT));
            for pid in self.pids()? {
                cgroupfs::kill(pid).map_err(|source| Error::Io {
                    operation: format!("kill process {pid} of"),
                    file: self.path().to_string(),
                    source,
                })?;
                killed.insert(pid);
            }
        }
        Ok(())
    }

    /// Thaws; a group that is gone or cannot freeze needs none.
    fn thaw_for_the_dying(&self) -> Result<(), Error> {
        match self.thaw() {
            Err(Error::Unsupported { .. }) => Ok(()),
            Err(Error::Io { source, .. }) if group::is_gone(&source) => Ok(()),
            thawed => thawed,
        }
    }

    /// The processes in the group and below it, as seen from our pid namespace.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn pids(&self) -> Result<Vec<u32>, Error> {
        group::all_members(self)
    }

    /// Whether a process is in the group or below it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn is_populated(&self) -> Result<bool, Error> {
        match self.version() {
            Version::V1 => Ok(!self.pids()?.is_empty()),
            Version::V2 => {
                let directory = self.freezer()?;
                match cgroupfs::read(directory.dir.as_fd(), "cgroup.events") {
                    Ok(events) => Ok(event(&events, "populated") == Some(1)),
                    Err(error) if group::is_gone(&error) => Ok(false),
                    Err(error) => Err(directory.error(self.path(), "read", "cgroup.events", error)),
                }
            }
        }
    }

    /// Waits until no process is in the group and below it, for `limit` at most; whether that is so.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn wait_empty(&self, limit: Duration) -> Result<bool, Error> {
        let deadline = Instant::now() + limit;
        let (mut pause, mut ended) = (EMPTY_PAUSE_FIRST, None);
        loop {
            let Some(&pid) = self.pids()?.first() else {
                return Ok(true);
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            if ended == Some(pid) {
                std::thread::sleep(pause);
                pause = (pause * 2).min(EMPTY_PAUSE_LAST);
            }
            // What cannot be waited for is looked at again.
            drop(cgroupfs::wait_exit(pid, left));
            ended = Some(pid);
        }
    }

    fn try_freeze(&self, timeout: Duration) -> Result<(), Error> {
        let directory = self.freezer()?;
        let deadline = Instant::now() + timeout;
        match self.version() {
            Version::V1 => self.freeze_v1(directory, deadline),
            Version::V2 => self.freeze_v2(directory, deadline),
        }
    }

    fn freeze_v1(&self, directory: &Directory, deadline: Instant) -> Result<(), Error> {
        let mut pause = FREEZE_PAUSE_FIRST;
        loop {
            // Written again at each look: a task that arrived in the meantime is frozen by that (as runc does).
            self.write_to(directory, "freezer.state", "FROZEN")?;
            if self.is_frozen()? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.not_frozen(directory, "freezer.state"));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(FREEZE_PAUSE_LAST);
        }
    }

    fn freeze_v2(&self, directory: &Directory, deadline: Instant) -> Result<(), Error> {
        let wrap = |operation: &'static str| {
            move |source| directory.error(self.path(), operation, "cgroup.events", source)
        };
        let events = cgroupfs::open_events(directory.dir.as_fd()).map_err(wrap("open"))?;
        self.write_to(directory, "cgroup.freeze", "1")?;
        loop {
            let text = cgroupfs::read_open(events.as_fd()).map_err(wrap("read"))?;
            if event(&text, "frozen") == Some(1) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.not_frozen(directory, "cgroup.freeze"));
            }
            cgroupfs::wait_for_event(events.as_fd(), left).map_err(wrap("wait for"))?;
        }
    }

    fn not_frozen(&self, directory: &Directory, file: &str) -> Error {
        directory.error(
            self.path(),
            "freeze",
            file,
            io::Error::from(io::ErrorKind::TimedOut),
        )
    }

    /// Where freezing is done: v1's freezer; on v2 it is in the core.
    fn freezer(&self) -> Result<&Directory, Error> {
        let directory = match self.version() {
            Version::V1 => self.directory("freezer"),
            Version::V2 => self.directories().first(),
        };
        directory.ok_or_else(|| Error::Unsupported {
            what: "freezer".to_owned(),
        })
    }
}

/// One value of `cgroup.events`.
fn event(text: &str, key: &str) -> Option<u64> {
    super::stats::keyed(text, key)
}
