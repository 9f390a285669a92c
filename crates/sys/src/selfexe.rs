//! Our own binary through a read-only overlay, so that no container can write to it by `/proc/<pid>/exe`.
//!
//! A read-only bind would not do: its flag can be cleared by who has the file. An overlay without an
//! upper directory has nothing to write to (the CVE-2019-5736 class).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::file::{self, Filesystem};
use crate::path::{self, OpenFlags};

/// Overlay wants two layers when it has no upper directory. Any directory does whose names do not hide ours: the
/// binary's directory is on top.
const SECOND_LAYER: &str = "/dev";

/// Opens our own binary on a detached read-only overlay without an upper directory.
///
/// # Errors
/// The errno of the mount calls.
pub fn seal() -> io::Result<OwnedFd> {
    seal_binary(&std::fs::read_link("/proc/self/exe")?)
}

/// As [`seal`], for a binary by its path. Made once by the daemon, which spawns each shim from it (as
/// [`path_of`]): everything forked by such a shim shows the sealed file.
///
/// # Errors
/// The errno of the mount calls.
pub fn seal_binary(binary: &Path) -> io::Result<OwnedFd> {
    let binary = std::fs::canonicalize(binary)?;
    let (Some(directory), Some(name)) = (binary.parent(), binary.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let second = Path::new(SECOND_LAYER);
    let mount = crate::overlay::sealed(directory, second)?;
    path::open_in_root(mount.as_fd(), name.as_ref(), OpenFlags::PATH)
}

/// What to execute for a sealed binary, by this process or one that it forks.
#[must_use]
pub fn path_of(binary: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", binary.as_raw_fd()))
}

/// Runs this process again from the sealed `binary`: same arguments, and the environment with `marker` set.
/// Returns only if that failed.
pub fn execute(binary: &OwnedFd, marker: &str) -> io::Error {
    use std::os::unix::process::CommandExt;
    let mut words = std::env::args_os();
    #[expect(
        clippy::disallowed_methods,
        reason = "it replaces this process, no child is made"
    )]
    let mut command = std::process::Command::new(path_of(binary));
    command.arg0(words.next().unwrap_or_default()).args(words);
    command.env(marker, "1").exec()
}

/// Whether this process runs from a sealed binary.
#[must_use]
pub fn is_sealed() -> bool {
    let sealed = || -> io::Result<bool> {
        let binary = path::open(Path::new("/proc/self/exe"), OpenFlags::PATH)?;
        Ok(file::filesystem(binary)? == (Filesystem::Overlay, true))
    };
    sealed().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sealed_binary_reads_like_ours_and_cannot_be_opened_for_writing() {
        if !testkit::is_root() {
            return;
        }
        let sealed = seal().unwrap();
        let theirs = file::stat(&sealed).unwrap();
        let ours = std::fs::metadata("/proc/self/exe").unwrap();
        assert_eq!(theirs.size_bytes, ours.len());
        let error = path::reopen(sealed.as_fd(), OpenFlags::WRONLY).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
        assert_eq!(
            file::filesystem(&sealed).unwrap(),
            (Filesystem::Overlay, true)
        );
    }
}
