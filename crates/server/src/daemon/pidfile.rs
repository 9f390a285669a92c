//! The file that names the daemon's process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A pidfile of this process; removed when dropped.
#[derive(Debug)]
pub(super) struct Pidfile(PathBuf);

impl Pidfile {
    /// Writes it.
    ///
    /// # Errors
    /// In dockerd's words when the process of an older one lives, or when it cannot be written.
    pub(super) fn create(path: &Path) -> Result<Self, String> {
        let told = |error: &dyn std::fmt::Display| {
            format!(
                "failed to start daemon, ensure docker is not running or delete {}: {error}",
                path.display()
            )
        };
        if let Some(pid) = living(path).map_err(|error| told(&error))? {
            return Err(told(&format_args!(
                "process with PID {pid} is still running"
            )));
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| told(&error))?;
        }
        fs::write(path, std::process::id().to_string()).map_err(|error| told(&error))?;
        Ok(Self(path.to_owned()))
    }
}

/// The process that the file names, if it is another one that lives.
fn living(path: &Path) -> io::Result<Option<u32>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let pid = text.trim().parse::<u32>().ok();
    let lives =
        |pid: &u32| *pid != std::process::id() && Path::new("/proc").join(pid.to_string()).exists();
    Ok(pid.filter(lives))
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(%error, "the pidfile was gone already");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_keeps_its_file_and_a_dead_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/x.pid");
        let pidfile = Pidfile::create(&path).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            std::process::id().to_string()
        );
        drop(pidfile);
        assert!(!path.exists());
        fs::write(&path, "1\n").unwrap();
        let told = Pidfile::create(&path).unwrap_err();
        assert!(
            told.ends_with("process with PID 1 is still running"),
            "{told}"
        );
        fs::write(&path, "4194305").unwrap();
        Pidfile::create(&path).unwrap();
    }
}
