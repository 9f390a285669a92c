//! Making processes with `clone3(2)`, following them by pidfd, and changing what the calling process is.
//!
//! [`clone`] copies the caller without a thread library's knowledge: the caller is single-threaded by contract, so
//! the child may allocate. It must never return from the closure's frame, so it always ends in `_exit` or a new program.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::process as rp;

use crate::error::check;
use crate::namespace::Set;

/// How a child is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneRequest<'a> {
    /// Namespaces it begins.
    pub namespaces: Set,
    /// The cgroup (v2 directory) it is born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether its parent is the caller's parent.
    pub sibling: bool,
}

/// A child that was made.
#[derive(Debug)]
pub struct Child {
    /// Its pid in the caller's pid namespace.
    pub pid: u32,
    /// A pidfd of it.
    pub pidfd: OwnedFd,
}

/// Copies this process; the copy runs `child` and ends with what it returns, also when it panics (then 255).
///
/// # Errors
/// The errno of `clone3(2)`, or of `clone(2)` where that is not to be had.
pub fn clone(request: CloneRequest<'_>, child: impl FnOnce() -> i32) -> io::Result<Child> {
    let mut pidfd: libc::c_int = -1;
    let mut flags = request.namespaces.bits() | CLONE_PIDFD;
    if request.sibling {
        flags |= CLONE_PARENT;
    }
    if request.cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    let arguments = CloneArgs {
        flags,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal: if request.sibling { 0 } else { SIGCHLD },
        cgroup: request
            .cgroup
            .map_or(0, |fd| u64::try_from(fd.as_raw_fd()).unwrap_or(0)),
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM and with stack 0 the child continues here on its own copy of this stack, as after fork;
    // `arguments` and `pidfd` are alive in both. The caller has one thread (module contract), so no lock is held.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<CloneArgs>(),
        )
    };
    let result = match check(result) {
        // Docker's seccomp policy hides clone3, since a filter cannot see its flags; below `--init` we are under it.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) && request.cgroup.is_none() => {
            // SAFETY: as above; with CLONE_PIDFD the third argument is where the descriptor goes, and flags and
            // exit signal share the first. The other two pointers are unused and null.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_clone,
                    flags | arguments.exit_signal,
                    0_u64,
                    &raw mut pidfd,
                    0_u64,
                    0_u64,
                )
            };
            check(result)?
        }
        other => other?,
    };
    if result == 0 {
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(255);
        exit(code);
    }
    // SAFETY: the kernel stored a new descriptor there, and nobody else knows of it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child {
        pid: u32::try_from(result).map_err(|_| io::ErrorKind::InvalidData)?,
        pidfd,
    })
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const SIGCHLD: u64 = 17;

/// `struct clone_args`, version 2 (Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Ends this process at once: no destructor, no buffer is written.
pub fn exit(code: i32) -> ! {
    // SAFETY: `_exit` takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}

/// How a process ended: its code, or 128 and the signal that killed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit code, or 128 + signal.
    pub code: i32,
}

/// Waits until the child behind `pidfd` ends, and reaps it.
///
/// # Errors
/// The errno of `waitid(2)`; `ECHILD` when it is no child of ours.
pub fn wait(pidfd: BorrowedFd<'_>) -> io::Result<Ended> {
    loop {
        if let Some(ended) = wait_how(pidfd, rp::WaitIdOptions::EXITED)? {
            return Ok(ended);
        }
    }
}

/// Reaps the child behind `pidfd` if it has ended.
///
/// # Errors
/// As [`wait`].
pub fn try_wait(pidfd: BorrowedFd<'_>) -> io::Result<Option<Ended>> {
    wait_how(pidfd, rp::WaitIdOptions::EXITED | rp::WaitIdOptions::NOHANG)
}

fn wait_how(pidfd: BorrowedFd<'_>, options: rp::WaitIdOptions) -> io::Result<Option<Ended>> {
    // A sibling made with CLONE_PARENT sends no signal at its end, and only __WALL waits for such.
    let options = options | rp::WaitIdOptions::from_bits_retain(WALL);
    let status = rustix::io::retry_on_intr(|| rp::waitid(rp::WaitId::PidFd(pidfd), options))?;
    Ok(status.map(|status| Ended {
        code: status
            .exit_status()
            .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
            .unwrap_or(255),
    }))
}

/// `__WALL`: wait for children whatever signal they send at their end.
const WALL: u32 = 0x4000_0000;

/// Reaps any ended child; for an init. `None` when none has ended.
///
/// # Errors
/// `ECHILD` when there is no child at all.
pub fn reap_any() -> io::Result<Option<(u32, Ended)>> {
    let options = rp::WaitOptions::NOHANG | rp::WaitOptions::from_bits_retain(WALL);
    let Some((pid, status)) = rp::wait(options)? else {
        return Ok(None);
    };
    let code = status
        .exit_status()
        .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
        .unwrap_or(255);
    let pid = u32::try_from(pid.as_raw_nonzero().get()).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Some((pid, Ended { code })))
}

fn pid_of(pid: u32) -> io::Result<rp::Pid> {
    i32::try_from(pid)
        .ok()
        .and_then(rp::Pid::from_raw)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

/// Opens a pidfd.
///
/// # Errors
/// The errno of `pidfd_open(2)`.
pub fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    Ok(rp::pidfd_open(pid_of(pid)?, rp::PidfdFlags::empty())?)
}

/// The pid, in our pid namespace, of the process behind a pidfd.
///
/// # Errors
/// `ESRCH` when it has been reaped.
pub fn number_of(pidfd: BorrowedFd<'_>) -> io::Result<u32> {
    use std::os::fd::AsRawFd;
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
        .filter(|pid| *pid != 0)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

/// Sends a signal by number.
///
/// # Errors
/// The errno of `pidfd_send_signal(2)`; `ESRCH` when the process has ended, `EINVAL` for an unknown number.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no pointer is passed but the null that asks for default information.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(result).map(drop)
}

/// Copies descriptor `number` of another process.
///
/// # Errors
/// The errno of `pidfd_getfd(2)`; the caller must be allowed to trace it.
pub fn take_fd(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    let fd = i32::try_from(check(result)?).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What becomes of the descriptors in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseHow {
    /// They are closed.
    Now,
    /// They are closed by the next successful execve.
    OnExec,
}

/// Closes every descriptor from `first` to `last`, or marks it.
///
/// Descriptors owned by values in this process dangle afterwards: only a child that is about to
/// become another program, and forgets those values, calls this.
///
/// # Errors
/// The errno of `close_range(2)` (Linux 5.9; the flag 5.11, emulated on 5.10).
pub fn close_range(first: u32, last: u32, how: CloseHow) -> io::Result<()> {
    let flags = match how {
        CloseHow::Now => 0,
        CloseHow::OnExec => libc::CLOSE_RANGE_CLOEXEC,
    };
    // SAFETY: closing descriptors touches no memory; who owned them does not run on (contract above).
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    match check(result) {
        Err(error) if how == CloseHow::OnExec && error.raw_os_error() == Some(libc::EINVAL) => {
            close_on_exec_each(first)
        }
        other => other.map(drop),
    }
}

fn close_on_exec_each(first: u32) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if i64::from(number) >= i64::from(first) {
            // SAFETY: F_SETFD on a number takes no pointer; EBADF for the listing's own descriptor is harmless.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Makes `target` a copy of `fd` that survives execve (also when both are the same number).
///
/// # Errors
/// The errno of `dup2(2)`.
pub fn duplicate_to(fd: BorrowedFd<'_>, target: i32) -> io::Result<()> {
    if fd.as_raw_fd() == target {
        // SAFETY: F_SETFD takes no pointer.
        let result = unsafe { libc::fcntl(target, libc::F_SETFD, 0) };
        return check(result.into()).map(drop);
    }
    // SAFETY: dup2 takes no pointer; `target` is a standard stream or a number the caller reserved in this child.
    let result = unsafe { libc::dup2(fd.as_raw_fd(), target) };
    check(result.into()).map(drop)
}

/// Moves `fd` to exactly `target`, close-on-exec, replacing what was there.
///
/// # Errors
/// The errno of `dup3(2)`.
pub fn move_to(fd: OwnedFd, target: i32) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() == target {
        return Ok(fd);
    }
    // SAFETY: dup3 takes no pointer; the caller, a child about to close everything else, reserved `target`.
    let result = unsafe { libc::dup3(fd.as_raw_fd(), target, libc::O_CLOEXEC) };
    check(result.into())?;
    // SAFETY: `target` is now a descriptor made by us.
    Ok(unsafe { OwnedFd::from_raw_fd(target) })
}

/// A copy of `fd` with a number not below `minimum`, close-on-exec.
///
/// # Errors
/// The errno of `fcntl(2)`.
pub fn duplicate_above(fd: BorrowedFd<'_>, minimum: i32) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, minimum)?)
}

/// Borrows one of the standard streams, or another number that is known to be open.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn borrow_number(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes no pointer and fails for a number that is not open.
    let result = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) };
    check(result.into())?;
    // SAFETY: the kernel just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// Strings for execve.
#[derive(Debug)]
pub struct Strings(Vec<CString>);

impl Strings {
    /// Converts; a string with a NUL is refused.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn new(strings: &[String]) -> io::Result<Self> {
        let all = strings
            .iter()
            .map(|text| CString::new(text.as_str()))
            .collect::<Result<_, _>>()
            .map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(Self(all))
    }

    fn pointers(&self) -> Vec<*const libc::c_char> {
        self.0
            .iter()
            .map(|text| text.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    }
}

/// Becomes another program; returns only if that failed.
pub fn execute(program: &CStr, arguments: &Strings, environment: &Strings) -> io::Error {
    let arguments = arguments.pointers();
    let environment = environment.pointers();
    // SAFETY: all three are C strings and null-terminated arrays of such, alive over the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Restores the default action of every signal and blocks none, as a program expects to be started.
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is a valid action for every number; where it cannot be set the call just fails.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: all zeroes is a valid (empty) signal set on Linux.
    let none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `none` outlives the call, and the old set is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

/// Blocks every signal, so that [`next_signal`] can take them one by one.
pub fn block_signals() {
    // SAFETY: `sigfillset` initialises the whole set.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `all` is a valid place for a signal set.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: `all` outlives the call, and the old set is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()) };
}

/// Waits for the next of the blocked signals and says its number.
///
/// # Errors
/// The errno of `sigwaitinfo(2)`, `EINTR` among them.
pub fn next_signal() -> io::Result<i32> {
    // SAFETY: `sigfillset` initialises the whole set.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `all` is a valid place for a signal set.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: `all` outlives the call, and no information is asked for.
    let signal = unsafe { libc::sigwaitinfo(&raw const all, std::ptr::null_mut()) };
    check(signal.into())?;
    Ok(signal)
}

/// Sends a signal to one process of our pid namespace.
///
/// # Errors
/// The errno of `kill(2)`.
pub fn kill(pid: u32, signal: i32) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    if pid <= 0 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: kill takes no pointer.
    let result = unsafe { libc::kill(pid, signal) };
    check(result.into()).map(drop)
}

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

/// A file in memory with these bytes, to be handed to another process.
///
/// # Errors
/// The errno of `memfd_create(2)` or the write.
pub fn memory_file(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::io::{Seek, Write};
    let fd = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

/// Makes a pipe: `(read end, write end)`, both close-on-exec.
///
/// # Errors
/// The errno of `pipe2(2)`.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Waits until one of the descriptors can be read or has ended; says which. `None` after the time given.
///
/// # Errors
/// The errno of `poll(2)`.
pub fn wait_readable(
    fds: &[BorrowedFd<'_>],
    timeout: Option<std::time::Duration>,
) -> io::Result<Vec<bool>> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::new(fd, PollFlags::IN))
        .collect();
    let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
    rustix::io::retry_on_intr(|| poll(&mut polled, timeout.as_ref()))?;
    Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn layout_of_clone_args_is_the_kernels() {
        assert_eq!(size_of::<CloneArgs>(), 88); // CLONE_ARGS_SIZE_VER2
    }

    #[test]
    fn a_child_ends_with_the_code_of_its_closure() {
        let child = clone(CloneRequest::default(), || 7).unwrap();
        assert_eq!(wait(child.pidfd.as_fd()).unwrap(), Ended { code: 7 });
    }

    #[test]
    fn a_killed_child_is_128_and_the_signal() {
        let child = clone(CloneRequest::default(), || {
            loop {
                std::thread::park();
            }
        })
        .unwrap();
        send_signal(child.pidfd.as_fd(), 9).unwrap();
        assert_eq!(wait(child.pidfd.as_fd()).unwrap(), Ended { code: 137 });
    }

    #[test]
    fn the_current_directory_is_absolute() {
        assert!(current_directory().unwrap().is_absolute());
    }
}
