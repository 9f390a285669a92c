//! The file that names the daemon's process.
//!
//! The lock on it says whether that process lives, not the number in it: after a crash the number may be anybody's.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::listen::make_above;

/// A pidfile of this process; removed when dropped.
#[derive(Debug)]
pub(super) struct Pidfile {
    path: PathBuf,
    /// Locked.
    _file: File,
}

impl Pidfile {
    /// Writes it.
    ///
    /// # Errors
    /// In dockerd's words when the process of an older one lives, or when it cannot be written.
    pub(super) fn create(path: &Path) -> Result<Self, String> {
        Self::create_within(path, sys::file::LOCK_PATIENCE)
    }

    fn create_within(path: &Path, patience: Duration) -> Result<Self, String> {
        let told = |error: &dyn std::fmt::Display| {
            format!(
                "failed to start daemon, ensure docker is not running or delete {}: {error}",
                path.display()
            )
        };
        let lives = |pid: &str| told(&format_args!("process with PID {pid} is still running"));
        make_above(path).map_err(|error| told(&error))?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path);
        let mut file = file.map_err(|error| told(&error))?;
        let text = fs::read_to_string(path).map_err(|error| told(&error))?;
        let pid = text.trim();
        if !sys::file::lock_within(&file, patience).map_err(|error| told(&error))? {
            return Err(lives(pid));
        }
        if is_foreign_daemon(pid) {
            return Err(lives(pid));
        }
        file.set_len(0)
            .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()))
            .map_err(|error| told(&error))?;
        Ok(Self {
            path: path.to_owned(),
            _file: file,
        })
    }
}

/// Docker's own daemon takes no lock.
fn is_foreign_daemon(pid: &str) -> bool {
    let name = pid
        .parse::<u32>()
        .ok()
        .filter(|pid| *pid != std::process::id())
        .and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    name.is_some_and(|name| name.trim_end() == "dockerd")
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the pidfile was gone already");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_decides_and_not_the_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/x.pid");
        let pidfile = Pidfile::create(&path).unwrap();
        let own = std::process::id().to_string();
        assert_eq!(fs::read_to_string(&path).unwrap(), own);
        let told = Pidfile::create_within(&path, Duration::ZERO).unwrap_err();
        assert!(
            told.ends_with(&format!("process with PID {own} is still running")),
            "{told}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), own);
        drop(pidfile);
        assert!(!path.exists());
        // A process of that number lives, but it is not the one that wrote the file.
        for stale in ["1\n", "4194305", "", "x"] {
            fs::write(&path, stale).unwrap();
            drop(Pidfile::create(&path).unwrap());
        }
    }
}
