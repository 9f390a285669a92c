//! Making processes with `clone3(2)`, following them by pidfd, and changing what the calling process is.
//!
//! [`clone`] copies the caller without a thread library's knowledge, and refuses where the caller has a second thread:
//! a lock that another thread holds (that of the allocator, say) would stay locked in the copy. So the child may
//! allocate. It must never return from the closure's frame, so it always ends in `_exit` or a new program.

mod errand;
mod files;
mod own;

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process as rp;

use crate::error::check;
use crate::namespace::Set;

pub use errand::errand;
pub use files::{
    CloseHow, borrow_number, close_all_but, close_range, duplicate_above, duplicate_to,
    memory_file, move_to, pipe, wait_readable,
};
pub use own::{
    change_directory, change_directory_to, current_directory, is_root, join_session_keyring,
    kill_me_with_parent, new_group, new_session, set_command_line, set_group, set_groups,
    set_limit, set_name, set_no_new_privileges, set_not_dumpable, set_umask, set_user,
    use_all_processors,
};

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

/// How long [`clone`] waits for threads that have been joined: the kernel counts one for some microseconds more.
const THREADS_LEAVE: Duration = Duration::from_millis(100);

/// Whether this process is a copy made by [`clone`], which begins with one thread and makes no other. It may be in a
/// container's root, where `/proc` is not to be asked.
static IS_COPY: AtomicBool = AtomicBool::new(false);

/// Whether the calling thread is the only one of its process.
///
/// # Errors
/// The errno of the look into `/proc`.
pub fn is_single_threaded() -> io::Result<bool> {
    if IS_COPY.load(Ordering::Relaxed) {
        return Ok(true);
    }
    // A directory for each thread; each counts as a link, beside the two of any directory.
    let links = rustix::fs::stat("/proc/self/task")?.st_nlink;
    Ok(links <= 3)
}

fn refuse_threads() -> io::Result<()> {
    let patience = Instant::now() + THREADS_LEAVE;
    while !is_single_threaded()? {
        if Instant::now() > patience {
            return Err(io::Error::other(
                "a process with several threads cannot be copied",
            ));
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// Copies this process; the copy runs `child` and ends with what it returns, also when it panics (then 255).
///
/// # Errors
/// The errno of `clone3(2)`, or of `clone(2)` where that is not to be had; without one when the caller has a second
/// thread.
pub fn clone(request: CloneRequest<'_>, child: impl FnOnce() -> i32) -> io::Result<Child> {
    refuse_threads()?;
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
    // `arguments` and `pidfd` are alive in both. The caller has one thread (just refused otherwise, and only that
    // thread could have made another), so no lock is held by somebody who is not copied.
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
        IS_COPY.store(true, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_of_clone_args_is_the_kernels() {
        assert_eq!(size_of::<CloneArgs>(), 88); // CLONE_ARGS_SIZE_VER2
    }

    /// A test runs beside the thread that waits for it. What a copy does is tested by the runtime's `library` suite,
    /// which has one thread.
    #[test]
    fn a_process_with_threads_is_not_copied() {
        let error = clone(CloneRequest::default(), || 7).unwrap_err();
        assert!(error.to_string().contains("several threads"), "{error}");
    }

    #[test]
    fn the_current_directory_is_absolute() {
        assert!(current_directory().unwrap().is_absolute());
    }
}
