//! What the calling process is: its session, limits, user and groups, current directory and names.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::process as rp;

use crate::error::check;

/// Becomes the leader of a new session.
///
/// # Errors
/// The errno of `setsid(2)`.
pub fn new_session() -> io::Result<()> {
    Ok(rp::setsid().map(drop)?)
}

/// Becomes the leader of a new process group.
///
/// # Errors
/// The errno of `setpgid(2)`.
pub fn new_group() -> io::Result<()> {
    Ok(rp::setpgid(None, None)?)
}

/// Joins a new session keyring of this name; a kernel or policy without keyrings is no error.
///
/// # Errors
/// The errno of `keyctl(2)`.
pub fn join_session_keyring(name: &str) -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `name` is a C string that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
    match check(result) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => other.map(drop),
    }
}

/// Makes this process untraceable for processes without CAP_SYS_PTRACE over it, its `/proc` files root's.
///
/// # Errors
/// The errno of `prctl(2)`.
pub fn set_not_dumpable() -> io::Result<()> {
    Ok(rp::set_dumpable_behavior(
        rp::DumpableBehavior::NotDumpable,
    )?)
}

/// Asks for `signal` at the death of the parent.
///
/// # Errors
/// The errno of `prctl(2)`.
pub fn kill_me_with_parent() -> io::Result<()> {
    Ok(rp::set_parent_process_death_signal(Some(rp::Signal::KILL))?)
}

/// Forbids for good that execve grants privileges.
///
/// # Errors
/// The errno of `prctl(2)`.
pub fn set_no_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Sets one limit by number (`RLIMIT_*`); `u64::MAX` is no limit.
///
/// # Errors
/// The errno of `prlimit(2)`.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: `limit` outlives the call, and the old value is not asked for.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            &raw const limit,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    };
    check(result).map(drop)
}

/// Sets the file mode creation mask.
pub fn set_umask(mask: u32) {
    rp::umask(rustix::fs::Mode::from_raw_mode(mask & 0o777));
}

/// Changes the current directory.
///
/// # Errors
/// The errno of `chdir(2)`.
pub fn change_directory(path: &Path) -> io::Result<()> {
    Ok(rp::chdir(path)?)
}

/// Changes the current directory to what `fd` is open on.
///
/// # Errors
/// The errno of `fchdir(2)`.
pub fn change_directory_to(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rp::fchdir(fd)?)
}

/// The current directory as the kernel says it: one outside of the root does not begin with a slash.
///
/// # Errors
/// The errno of `getcwd(2)`; `ENOENT` for one that was removed.
pub fn current_directory() -> io::Result<PathBuf> {
    let mut buffer = vec![0u8; PATH_MAX];
    // SAFETY: the buffer is as long as is said. The raw call, since glibc's wrapper hides "(unreachable)".
    let result = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    let length = usize::try_from(check(result)?).unwrap_or(0);
    let text = buffer.get(..length.saturating_sub(1)).unwrap_or_default();
    Ok(PathBuf::from(OsStr::from_bytes(text)))
}

/// The longest path the kernel takes or tells. Bytes, with the NUL.
const PATH_MAX: usize = 4096;

/// Sets the supplementary groups of this thread, the process's only one.
///
/// # Errors
/// The errno of `setgroups(2)`.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    let groups: Vec<_> = groups
        .iter()
        .map(|&gid| rustix::fs::Gid::from_raw(gid))
        .collect();
    Ok(rustix::thread::set_thread_groups(&groups)?)
}

/// Sets real, effective and saved group id.
///
/// # Errors
/// The errno of `setresgid(2)`.
pub fn set_group(gid: u32) -> io::Result<()> {
    let gid = rustix::fs::Gid::from_raw(gid);
    Ok(rustix::thread::set_thread_res_gid(gid, gid, gid)?)
}

/// Sets real, effective and saved user id.
///
/// # Errors
/// The errno of `setresuid(2)`.
pub fn set_user(uid: u32) -> io::Result<()> {
    let uid = rustix::fs::Uid::from_raw(uid);
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

/// Whether the caller is uid 0.
#[must_use]
pub fn is_root() -> bool {
    rp::geteuid().is_root()
}

/// Shows `line` (strings joined by NUL) as this process's command line in `ps`. Needs CAP_SYS_RESOURCE; cosmetic.
///
/// # Errors
/// The errno of `prctl(2)`.
pub fn set_command_line(line: Vec<u8>) -> io::Result<()> {
    const PR_SET_MM: libc::c_int = 35;
    const ARG_START: libc::c_ulong = 8;
    const ARG_END: libc::c_ulong = 9;
    let line: &'static mut [u8] = line.leak();
    let range = line.as_ptr_range();
    // The heap lies below the stack, where the old line ends: start first, so that start never is above end.
    for (what, address) in [(ARG_START, range.start), (ARG_END, range.end)] {
        // SAFETY: the addresses are those of a leaked buffer, which stays mapped until this process ends.
        let result = unsafe { libc::prctl(PR_SET_MM, what, address, 0, 0) };
        check(result.into())?;
    }
    Ok(())
}

/// Lets this process run on every processor that its cgroup allows (of the first 1024, as many as the kernel's own
/// structure has).
///
/// # Errors
/// The errno of `sched_setaffinity(2)`.
pub fn use_all_processors() -> io::Result<()> {
    use rustix::thread::{CpuSet, sched_setaffinity};
    let mut all = CpuSet::new();
    for number in 0..CpuSet::MAX_CPU {
        all.set(number);
    }
    Ok(sched_setaffinity(None, &all)?)
}

/// Sets the short name of this process.
///
/// # Errors
/// The errno of `prctl(2)`.
pub fn set_name(name: &CStr) -> io::Result<()> {
    Ok(rustix::thread::set_name(name)?)
}
