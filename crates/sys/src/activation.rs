//! Sockets that a service manager opened for this process (sd_listen_fds(3)).

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};

/// First descriptor that systemd passes.
const FIRST: RawFd = 3;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes the listening sockets that `LISTEN_PID` and `LISTEN_FDS` announce; none when they are not meant for this
/// process or were taken before. They are closed on exec from here on.
///
/// # Errors
/// The errno when an announced descriptor is not open.
pub fn listen_fds() -> io::Result<Vec<OwnedFd>> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u32>().ok())
    };
    let (Some(pid), Some(count)) = (number("LISTEN_PID"), number("LISTEN_FDS")) else {
        return Ok(Vec::new());
    };
    if pid != std::process::id() || TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let count = RawFd::try_from(count).map_err(io::Error::other)?;
    (FIRST..FIRST.saturating_add(count))
        .map(|fd| {
            // SAFETY: the service manager opened this descriptor for us to own, and TAKEN gives it out once.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
            Ok(fd)
        })
        .collect()
}
