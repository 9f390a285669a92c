//! Who a shim is: the process behind a connected socket, never a number from a file.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use shim::protocol::SOCKET_NAME;

/// SIGKILL.
const KILL: i32 = 9;

/// Connects to the shim of a run directory; `None` when there is none.
pub(crate) fn connect(run_dir: &Path) -> io::Result<Option<UnixStream>> {
    let connected = std::fs::File::open(run_dir)
        .and_then(|directory| sys::socket::connect_at(directory.as_fd(), SOCKET_NAME.as_ref()));
    match connected {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a failed connect means that nobody is there.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory
    )
}

/// Whether a request failed because its shim ended meanwhile.
pub(crate) fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// The process at the other end of a connection that a shim listens on.
pub(crate) fn process(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    if let Some(pidfd) = sys::socket::peer_pidfd(socket)? {
        return Ok(pidfd);
    }
    // Before Linux 6.5 there is only the number. It is the shim's as long as the shim lives, and a shim that
    // lives still holds its end after the pidfd was opened.
    let pidfd = pidfd(sys::socket::peer(socket)?.pid)?;
    let mut byte = [0];
    let socket = UnixStream::from(socket.try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    match io::Read::read(&mut &socket, &mut byte) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(pidfd),
        Ok(_) => Err(io::ErrorKind::NotConnected.into()),
        Err(error) => Err(error),
    }
}

/// Opens a pidfd of a process that cannot have been reaped.
pub(crate) fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    sys::process::open_pidfd(pid)
}

/// Kills a process; one that has ended is fine.
pub(crate) fn kill(process: &OwnedFd) -> io::Result<()> {
    match sys::process::send_signal(process.as_fd(), KILL) {
        Err(error) if error.raw_os_error() == Some(ESRCH) => Ok(()),
        other => other,
    }
}

/// `ESRCH`: no such process.
const ESRCH: i32 = 3;

/// Waits until a process has ended; false when it has not by then. Blocks.
pub(crate) fn ends_by(process: &OwnedFd, give_up: Instant) -> io::Result<bool> {
    let left = give_up.saturating_duration_since(Instant::now());
    Ok(sys::process::wait_readable(&[process.as_fd()], Some(left))?.contains(&true))
}
