//! Namespaces: sets of kinds, leaving, joining.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A set of namespace kinds, the `CLONE_NEW*` bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(u64);

impl Set {
    /// Mounts.
    pub const MOUNT: Self = Self(0x0002_0000);
    /// Cgroup roots.
    pub const CGROUP: Self = Self(0x0200_0000);
    /// Host and domain name.
    pub const UTS: Self = Self(0x0400_0000);
    /// System V IPC and POSIX queues.
    pub const IPC: Self = Self(0x0800_0000);
    /// Users.
    pub const USER: Self = Self(0x1000_0000);
    /// Process ids.
    pub const PID: Self = Self(0x2000_0000);
    /// Network.
    pub const NET: Self = Self(0x4000_0000);
    /// Clocks.
    pub const TIME: Self = Self(0x80);

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// A set from bits; unknown ones are dropped.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & 0x7e02_0080)
    }

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the other's members.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether every member of `other` is in it.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether it has no member.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Moves this thread into new namespaces. User and pid namespaces ask for a process with one thread; with a mount
/// namespace of its own a thread gets a current directory and root of its own too.
///
/// # Errors
/// The errno of `unshare(2)`.
pub fn unshare(kinds: Set) -> io::Result<()> {
    // SAFETY: the bits are namespace kinds only, so no memory and no descriptor table is unshared.
    let result = unsafe { libc::syscall(libc::SYS_unshare, kinds.0) };
    crate::error::check(result).map(drop)
}

/// Joins the namespaces behind `fd`: a namespace's own descriptor (one kind) or a pidfd (any set).
///
/// # Errors
/// The errno of `setns(2)`.
pub fn join(fd: BorrowedFd<'_>, kinds: Set) -> io::Result<()> {
    // SAFETY: `fd` is open for the call, and the kernel takes no pointer.
    let result = unsafe { libc::syscall(libc::SYS_setns, fd.as_raw_fd(), kinds.0) };
    crate::error::check(result).map(drop)
}

/// Sets the host name of this UTS namespace.
///
/// # Errors
/// The errno of `sethostname(2)`.
pub fn set_hostname(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}

/// Sets the NIS domain name of this UTS namespace.
///
/// # Errors
/// The errno of `setdomainname(2)`.
pub fn set_domainname(name: &str) -> io::Result<()> {
    Ok(rustix::system::setdomainname(name.as_bytes())?)
}
