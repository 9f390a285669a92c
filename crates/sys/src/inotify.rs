//! Being told when files of a directory change: inotify(7).

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// Answers a non-blocking descriptor that is readable after a file of `directory` (not of deeper ones)
/// was written, created, renamed or deleted, until the events are read from it.
///
/// # Errors
/// EMFILE when the user has no more instances (`fs.inotify.max_user_instances`), ENOSPC without watches,
/// and what opening the directory answers.
pub fn watch(directory: &Path) -> io::Result<OwnedFd> {
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let changes = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVE | WatchFlags::DELETE;
    inotify::add_watch(&fd, directory, changes | WatchFlags::ONLYDIR)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn tells_of_a_write_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = std::fs::File::create(directory.path().join("log")).unwrap();
        let mut events = std::fs::File::from(watch(directory.path()).unwrap());
        let mut buffer = [0; 512];
        let quiet = |result: io::Result<usize>| {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        };
        quiet(events.read(&mut buffer));
        file.write_all(b"line\n").unwrap();
        assert!(events.read(&mut buffer).unwrap() > 0);
        quiet(events.read(&mut buffer));
    }
}
