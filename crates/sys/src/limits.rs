//! How many files this process may hold open: the daemon takes all it may have, its children what it was given.

use std::io;
use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// What this process was started with.
static GIVEN: OnceLock<Rlimit> = OnceLock::new();

/// Raises the soft limit of open files to the hard one, as Go's runtime does for dockerd.
///
/// # Errors
/// The errno of `setrlimit(2)`.
pub fn raise_open_files() -> io::Result<()> {
    let given = *GIVEN.get_or_init(|| getrlimit(Resource::Nofile));
    let raised = Rlimit {
        current: given.maximum,
        maximum: given.maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// Gives a child of this process the limit back that this process was started with: a program that uses
/// `select(2)` counts on it. Nothing to do when this process has not raised its own.
///
/// # Errors
/// The errno of `prlimit(2)`.
pub fn give_back_open_files(child: u32) -> io::Result<()> {
    let Some(given) = GIVEN.get() else {
        return Ok(());
    };
    let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    prlimit(Some(pid), Resource::Nofile, *given)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_has_all_it_may_and_its_child_what_it_was_given() {
        let before = getrlimit(Resource::Nofile);
        let low = Rlimit {
            current: Some(256),
            maximum: before.maximum,
        };
        setrlimit(Resource::Nofile, low).unwrap();
        raise_open_files().unwrap();
        let raised = getrlimit(Resource::Nofile);
        let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut child = crate::command::Command::new("/bin/cat")
            .stdin(theirs.into())
            .spawn()
            .unwrap();
        give_back_open_files(child.id()).unwrap();
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        setrlimit(Resource::Nofile, before).unwrap();
        assert_eq!(raised.current, before.maximum);
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let soft = line.and_then(|line| line.split_whitespace().nth(3));
        assert_eq!(soft, Some("256"), "{limits}");
    }
}
