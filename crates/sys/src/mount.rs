//! The mount API on descriptors (fsopen, open_tree, move_mount, mount_setattr), and the few old calls it does not replace.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount as rm;

/// Longest string `fsconfig(2)` takes, without its NUL. Bytes; from the kernel's `strndup_user(…, 256)`.
pub const FSCONFIG_STRING_MAX: usize = 255;

/// Attributes of one mount, the `MOUNT_ATTR_*` bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub u64);

impl Attributes {
    /// Read-only.
    pub const RDONLY: Self = Self(0x1);
    /// Set-user-id bits do nothing.
    pub const NOSUID: Self = Self(0x2);
    /// Device files cannot be opened.
    pub const NODEV: Self = Self(0x4);
    /// Nothing can be executed.
    pub const NOEXEC: Self = Self(0x8);
    /// The two bits that say how access times are kept (0 is relatime).
    pub const ATIME: Self = Self(0x70);
    /// Access times are not kept.
    pub const NOATIME: Self = Self(0x10);
    /// Access times are always kept.
    pub const STRICTATIME: Self = Self(0x20);
    /// Access times of directories are not kept.
    pub const NODIRATIME: Self = Self(0x80);
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: Self = Self(0x0020_0000);

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all bits of `other` are in it.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// How a mount event travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Both ways.
    Shared,
    /// Inwards only.
    Slave,
    /// Not at all.
    Private,
    /// Not at all, and it cannot be bound.
    Unbindable,
}

impl Propagation {
    const fn bits(self) -> u64 {
        match self {
            Self::Shared => libc::MS_SHARED,
            Self::Slave => libc::MS_SLAVE,
            Self::Private => libc::MS_PRIVATE,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// Whether an operation reaches the mounts below too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// This mount alone.
    One,
    /// Everything below it as well.
    Recursive,
}

/// A file system being configured.
#[derive(Debug)]
pub struct FsContext(OwnedFd);

impl FsContext {
    /// Begins a new instance of a file system type.
    ///
    /// # Errors
    /// The errno of `fsopen(2)`; `ENODEV` when the kernel has no such type.
    pub fn open(kind: &str) -> io::Result<Self> {
        Ok(Self(rm::fsopen(kind, rm::FsOpenFlags::FSOPEN_CLOEXEC)?))
    }

    /// Sets `key=value`.
    ///
    /// # Errors
    /// The errno of `fsconfig(2)`, with the kernel's own explanation when it gave one.
    pub fn set(&self, key: &str, value: &[u8]) -> io::Result<()> {
        self.explained(rm::fsconfig_set_string(self.0.as_fd(), key, value))
    }

    /// Sets a key without a value.
    ///
    /// # Errors
    /// As [`FsContext::set`].
    pub fn flag(&self, key: &str) -> io::Result<()> {
        self.explained(rm::fsconfig_set_flag(self.0.as_fd(), key))
    }

    /// Makes the file system and a detached mount of it.
    ///
    /// # Errors
    /// As [`FsContext::set`].
    pub fn mount(self, attributes: Attributes) -> io::Result<OwnedFd> {
        self.explained(rm::fsconfig_create(self.0.as_fd()))?;
        let bits = u32::try_from(attributes.0).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.explained(rm::fsmount(
            self.0.as_fd(),
            rm::FsMountFlags::FSMOUNT_CLOEXEC,
            rm::MountAttrFlags::from_bits_retain(bits),
        ))
    }

    fn explained<T>(&self, result: rustix::io::Result<T>) -> io::Result<T> {
        result.map_err(|errno| {
            let mut text = [0u8; 512];
            match rustix::io::read(&self.0, &mut text[..]) {
                Ok(length) if length > 2 => {
                    let said = String::from_utf8_lossy(&text[2..length]);
                    crate::error::explained(errno.raw_os_error(), said.trim())
                }
                Ok(_) | Err(_) => errno.into(),
            }
        })
    }
}

/// Opens a mount that is attached nowhere: a copy of what is at `path` (below `at` when relative).
///
/// # Errors
/// The errno of `open_tree(2)`.
pub fn clone_tree(at: BorrowedFd<'_>, path: &Path, depth: Depth) -> io::Result<OwnedFd> {
    let mut flags = rm::OpenTreeFlags::OPEN_TREE_CLOEXEC
        | rm::OpenTreeFlags::OPEN_TREE_CLONE
        | rm::OpenTreeFlags::AT_EMPTY_PATH;
    if depth == Depth::Recursive {
        flags |= rm::OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rm::open_tree(at, path, flags)?)
}

/// Attaches the detached mount `mount` over the object `target` is open on.
///
/// # Errors
/// The errno of `move_mount(2)`.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rm::move_mount(
        mount,
        "",
        target,
        "",
        rm::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | rm::MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )?)
}

/// What [`set_attributes`] changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// Bits to set.
    pub set: Attributes,
    /// Bits to clear.
    pub clear: Attributes,
    /// Propagation to give.
    pub propagation: Option<Propagation>,
}

/// Changes attributes and propagation of the mount `mount` is open on.
///
/// # Errors
/// The errno of `mount_setattr(2)` (Linux 5.12; before, `ENOSYS`).
pub fn set_attributes(mount: BorrowedFd<'_>, depth: Depth, change: Change) -> io::Result<()> {
    let mut clear = change.clear.0;
    if change.set.0 & Attributes::ATIME.0 != 0 {
        clear |= Attributes::ATIME.0; // the kernel wants the whole field cleared when it is set
    }
    let attributes = libc::mount_attr {
        attr_set: change.set.0,
        attr_clr: clear,
        propagation: change.propagation.map_or(0, Propagation::bits),
        userns_fd: 0,
    };
    let mut flags = libc::AT_EMPTY_PATH;
    if depth == Depth::Recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the path is a static C string, and `attributes` outlives the call and is as large as is said.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    crate::error::check(result).map(drop)
}

/// Changes the propagation of the mount at `path` the old way (Linux before 5.12 has no other).
///
/// # Errors
/// The errno of `mount(2)`.
pub fn set_propagation(path: &Path, depth: Depth, propagation: Propagation) -> io::Result<()> {
    let mut flags = match propagation {
        Propagation::Shared => rm::MountPropagationFlags::SHARED,
        Propagation::Slave => rm::MountPropagationFlags::DOWNSTREAM,
        Propagation::Private => rm::MountPropagationFlags::PRIVATE,
        Propagation::Unbindable => rm::MountPropagationFlags::UNBINDABLE,
    };
    if depth == Depth::Recursive {
        flags |= rm::MountPropagationFlags::REC;
    }
    Ok(rm::mount_change(path, flags)?)
}

/// Mounts with the old call: data as one string of at most a page, `target` a path.
///
/// # Errors
/// The errno of `mount(2)`.
pub fn mount_legacy(kind: &str, target: &Path, data: &[u8]) -> io::Result<()> {
    let data = CString::new(data).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(rm::mount(
        kind,
        target,
        kind,
        rm::MountFlags::empty(),
        Some(data.as_c_str()),
    )?)
}

/// Makes the current directory, which is the root of a mount, the root of this mount namespace and lets go of the old one.
///
/// Both are stacked on one place: `pivot_root(".", ".")` puts the old root over the new one, and the
/// top is then unmounted lazily (runc and lxc do the same).
///
/// # Errors
/// The errno of `pivot_root(2)`, `mount(2)` or `umount2(2)`.
pub fn pivot_here(old_root: BorrowedFd<'_>) -> io::Result<()> {
    let new_root = rustix::fs::open(
        ".",
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    rustix::process::pivot_root(".", ".")?;
    rustix::process::fchdir(old_root)?;
    // Nothing we unmount may be unmounted on the host.
    rm::mount_change(
        ".",
        rm::MountPropagationFlags::DOWNSTREAM | rm::MountPropagationFlags::REC,
    )?;
    rm::unmount(".", rm::UnmountFlags::DETACH)?;
    rustix::process::fchdir(&new_root)?;
    Ok(rustix::process::chdir("/")?)
}

/// Unmounts what is at `path`, at once and even when it is in use.
///
/// # Errors
/// The errno of `umount2(2)`.
pub fn unmount_detached(path: &Path) -> io::Result<()> {
    Ok(rm::unmount(path, rm::UnmountFlags::DETACH)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_of_mount_attr_is_the_kernels() {
        assert_eq!(size_of::<libc::mount_attr>(), 32);
    }

    #[test]
    fn unknown_file_system_is_enodev() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let error = FsContext::open("no-such-fs").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
