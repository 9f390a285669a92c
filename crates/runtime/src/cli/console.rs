//! Terminals at the command line: handing the master to a caller's socket, or standing between it and ours.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use sys::process;

/// Sends the master of a terminal to who listens at `socket` (the contract of runc's `--console-socket`).
pub(super) fn hand_over(socket: &Path, master: OwnedFd) -> io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    sys::socket::send_with_fds(stream.as_fd(), b"/dev/ptmx", &[master.as_fd()])?;
    Ok(())
}

/// Copies between our own standard streams and a terminal until its other side is closed and `process` has ended.
pub(super) fn relay(master: OwnedFd, child: &OwnedFd) -> io::Result<i32> {
    let stdin = io::stdin();
    let ours = sys::pty::size(stdin.as_fd()).ok();
    if let Some(size) = ours {
        sys::pty::resize(master.as_fd(), size)?;
    }
    let before = sys::pty::make_raw(stdin.as_fd()).ok();
    let result = copy(master, child);
    if let Some(before) = before {
        before.restore(stdin.as_fd())?;
    }
    result
}

fn copy(master: OwnedFd, child: &OwnedFd) -> io::Result<i32> {
    let mut terminal = std::fs::File::from(master);
    let mut open = true;
    let mut input = true;
    let mut buffer = [0u8; 16 * 1024];
    loop {
        let mut fds = vec![child.as_fd()];
        if open {
            fds.push(terminal.as_fd());
        }
        let stdin = io::stdin();
        if open && input {
            fds.push(stdin.as_fd());
        }
        let ready = process::wait_readable(&fds, None)?;
        if ready.get(1) == Some(&true) {
            match terminal.read(&mut buffer) {
                Ok(0) => open = false,
                Ok(length) => {
                    io::stdout().write_all(&buffer[..length])?;
                    io::stdout().flush()?;
                }
                // EIO: no process has the other side open any more.
                Err(error) if error.raw_os_error() == Some(EIO) => open = false,
                Err(error) => return Err(error),
            }
            continue;
        }
        if ready.get(2) == Some(&true) {
            match stdin.lock().read(&mut buffer)? {
                0 => input = false,
                length => terminal.write_all(&buffer[..length])?,
            }
        }
        if ready.first() == Some(&true) {
            return Ok(process::wait(child.as_fd())?.code);
        }
    }
}

const EIO: i32 = 5;
