//! Pseudo terminals made in a container's own devpts.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::pty;
use rustix::termios;

use crate::file::{self, Filesystem, Kind};
use crate::path;

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// Every `ptmx`.
const PTMX: Kind = Kind::Character { major: 5, minor: 2 };

/// Opens a new terminal from the `ptmx` below `root`; says `(master, slave)`.
///
/// The container may own that directory, so what was opened must be a devpts ptmx; the other
/// end is then asked of the kernel, not looked up by name.
///
/// # Errors
/// The errno of the calls; `ENODEV` when what is there is no ptmx of a devpts.
pub fn open_in_root(root: BorrowedFd<'_>) -> io::Result<(OwnedFd, OwnedFd)> {
    let look = path::open_in_root(root, "dev/pts/ptmx".as_ref(), OFlags::PATH)?;
    let genuine =
        file::stat(&look)?.kind == PTMX && file::filesystem(&look)?.0 == Filesystem::Devpts;
    if !genuine {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    // What was looked at is what is opened: the name may be another device's by now.
    let master = path::reopen(look.as_fd(), OFlags::RDWR | OFlags::NOCTTY)?;
    pty::unlockpt(&master)?;
    let slave = pty::ioctl_tiocgptpeer(
        &master,
        pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY | pty::OpenptFlags::CLOEXEC,
    )?;
    Ok((master, slave))
}

/// Sets the size of a terminal; the foreground process group gets SIGWINCH.
///
/// # Errors
/// The errno of `ioctl(TIOCSWINSZ)`.
pub fn resize(terminal: BorrowedFd<'_>, size: WindowSize) -> io::Result<()> {
    let size = termios::Winsize {
        ws_row: size.height,
        ws_col: size.width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(termios::tcsetwinsize(terminal, size)?)
}

/// The size of a terminal.
///
/// # Errors
/// The errno of `ioctl(TIOCGWINSZ)`; `ENOTTY` when it is none.
pub fn size(terminal: BorrowedFd<'_>) -> io::Result<WindowSize> {
    let size = termios::tcgetwinsize(terminal)?;
    Ok(WindowSize {
        height: size.ws_row,
        width: size.ws_col,
    })
}

/// Makes `slave` the controlling terminal of this session, which has none.
///
/// # Errors
/// The errno of `ioctl(TIOCSCTTY)`.
pub fn take_control(slave: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(slave)?)
}

/// Makes this process's group the foreground one of its controlling terminal; nothing happens without one.
///
/// # Errors
/// The errno of `tcsetpgrp(3)` but `ENOTTY`.
pub fn take_foreground(terminal: BorrowedFd<'_>) -> io::Result<()> {
    match termios::tcsetpgrp(terminal, rustix::process::getpgrp()) {
        Ok(()) | Err(rustix::io::Errno::NOTTY | rustix::io::Errno::NXIO) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Puts a terminal into raw mode and says what it was before.
///
/// # Errors
/// The errno of `tcgetattr(3)`; `ENOTTY` when it is none.
pub fn make_raw(terminal: BorrowedFd<'_>) -> io::Result<Mode> {
    let before = termios::tcgetattr(terminal)?;
    let mut raw = before.clone();
    raw.make_raw();
    termios::tcsetattr(terminal, termios::OptionalActions::Now, &raw)?;
    Ok(Mode(before))
}

/// Settings of a terminal to come back to.
#[derive(Debug)]
pub struct Mode(termios::Termios);

impl Mode {
    /// Gives the settings back to `terminal`.
    ///
    /// # Errors
    /// The errno of `tcsetattr(3)`.
    pub fn restore(&self, terminal: BorrowedFd<'_>) -> io::Result<()> {
        Ok(termios::tcsetattr(
            terminal,
            termios::OptionalActions::Now,
            &self.0,
        )?)
    }
}
