//! The mount API on descriptors (fsopen, open_tree, move_mount, mount_setattr), and the few old calls it does not replace.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::mount as rm;

use crate::path;

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

/// Symbolic links are not followed, as `statfs(2)` says it and as `mount(2)` takes it (Linux 5.10; from linux/statfs.h and
/// linux/mount.h, since libc has neither).
const ST_NOSYMFOLLOW: u64 = 0x2000;
const MS_NOSYMFOLLOW: u32 = 0x100;

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

/// Whether `place` is where something is mounted: the root of its mount.
///
/// # Errors
/// The errno of `statx(2)`; `ENOSYS` before Linux 5.8, which does not say it.
pub fn is_mounted(place: BorrowedFd<'_>) -> io::Result<bool> {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
    let found = statx(place, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    if !found
        .stx_attributes_mask
        .contains(StatxAttributes::MOUNT_ROOT)
    {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
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

/// Changes attributes and propagation of the mount `mount` is open on as kernels before 5.12 do it: by `mount(2)`, one
/// mount after the other. It must be attached in this mount namespace; `proc` is a procfs that shows this process.
///
/// # Errors
/// The errno of `mount(2)`; `EINVAL` for a mount that is attached nowhere.
pub fn remount(
    proc: BorrowedFd<'_>,
    mount: BorrowedFd<'_>,
    depth: Depth,
    change: Change,
) -> io::Result<()> {
    let before = rustix::fs::open(
        ".",
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    // A file cannot be the current directory: every mount is named by its descriptor.
    rustix::process::fchdir(proc)?;
    let result = remount_all(proc, mount, depth, change);
    rustix::process::fchdir(&before)?;
    result
}

fn remount_all(
    proc: BorrowedFd<'_>,
    mount: BorrowedFd<'_>,
    depth: Depth,
    change: Change,
) -> io::Result<()> {
    if change.set != Attributes::default() || change.clear != Attributes::default() {
        remount_one(mount, change)?;
        if depth == Depth::Recursive {
            for below in mounts_below(proc, mount)? {
                remount_one(below.as_fd(), change)?;
            }
        }
    }
    match change.propagation {
        Some(propagation) => set_propagation(&named(mount), depth, propagation),
        None => Ok(()),
    }
}

/// The name of a descriptor, seen from a procfs.
fn named(fd: BorrowedFd<'_>) -> PathBuf {
    format!("thread-self/fd/{}", fd.as_raw_fd()).into()
}

fn remount_one(mount: BorrowedFd<'_>, change: Change) -> io::Result<()> {
    let current = rustix::fs::fstatvfs(mount)?.f_flag;
    let flags = rm::MountFlags::BIND | remounted(current, change);
    Ok(rm::mount_remount(named(mount), flags, "")?)
}

/// Flags of `mount(2)` for a mount that has `current`, after `change`.
fn remounted(current: rustix::fs::StatVfsMountFlags, change: Change) -> rm::MountFlags {
    use rustix::fs::StatVfsMountFlags as Stat;
    const BITS: [(Attributes, Stat, rm::MountFlags); 6] = [
        (Attributes::RDONLY, Stat::RDONLY, rm::MountFlags::RDONLY),
        (Attributes::NOSUID, Stat::NOSUID, rm::MountFlags::NOSUID),
        (Attributes::NODEV, Stat::NODEV, rm::MountFlags::NODEV),
        (Attributes::NOEXEC, Stat::NOEXEC, rm::MountFlags::NOEXEC),
        (
            Attributes::NODIRATIME,
            Stat::NODIRATIME,
            rm::MountFlags::NODIRATIME,
        ),
        (
            Attributes::NOSYMFOLLOW,
            Stat::from_bits_retain(ST_NOSYMFOLLOW),
            rm::MountFlags::from_bits_retain(MS_NOSYMFOLLOW),
        ),
    ];
    let mut flags = rm::MountFlags::empty();
    for (attribute, stat, flag) in BITS {
        let kept = current.contains(stat) && change.clear.0 & attribute.0 == 0;
        if kept || change.set.has(attribute) {
            flags |= flag;
        }
    }
    let named = (change.set.0 | change.clear.0) & Attributes::ATIME.0 != 0;
    let (noatime, relatime) = if named {
        let field = change.set.0 & Attributes::ATIME.0;
        (field == Attributes::NOATIME.0, field == 0)
    } else {
        (
            current.contains(Stat::NOATIME),
            current.contains(Stat::RELATIME),
        )
    };
    flags
        | match (noatime, relatime) {
            (true, _) => rm::MountFlags::NOATIME,
            (false, true) => rm::MountFlags::RELATIME,
            (false, false) => rm::MountFlags::STRICTATIME,
        }
}

/// The mounts below a mount that can be reached from it.
fn mounts_below(proc: BorrowedFd<'_>, mount: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let own = mount_id(proc, mount)?;
    let table = path::open_in_procfs(
        proc,
        Path::new("thread-self/mountinfo"),
        path::OpenFlags::RDONLY,
    )?;
    let table = io::read_to_string(std::fs::File::from(table))?;
    let mut found = Vec::new();
    for (id, below) in below(&table, own).ok_or(io::ErrorKind::NotFound)? {
        let flags = path::OpenFlags::PATH | path::OpenFlags::NOFOLLOW;
        match path::open_in_root(mount, &below, flags) {
            // What is covered by another mount is not what its path leads to; the container cannot reach it either.
            Ok(fd) if mount_id(proc, fd.as_fd())? == id => found.push(fd),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Number of the mount a descriptor is on, as in mountinfo.
fn mount_id(proc: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<u64> {
    let place = PathBuf::from(format!("thread-self/fdinfo/{}", fd.as_raw_fd()));
    let info = path::open_in_procfs(proc, &place, path::OpenFlags::RDONLY)?;
    let info = io::read_to_string(std::fs::File::from(info))?;
    info.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The mounts below mount `own` of a mountinfo, with their paths seen from there; nothing when it is not in the table.
fn below(table: &str, own: u64) -> Option<Vec<(u64, PathBuf)>> {
    let entry = |line: &str| -> Option<(u64, u64, PathBuf)> {
        let mut fields = line.split(' ');
        let (id, parent) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some((id, parent, unescaped(fields.nth(2)?)))
    };
    let all: Vec<(u64, u64, PathBuf)> = table.lines().filter_map(entry).collect();
    let (_, _, top) = all.iter().find(|(id, ..)| *id == own)?;
    let mut inside = vec![own];
    let mut next = 0;
    while let Some(parent) = inside.get(next).copied() {
        let children = all.iter().filter(|(_, above, _)| *above == parent);
        inside.extend(children.map(|(id, ..)| *id));
        next += 1;
    }
    let paths = inside.into_iter().skip(1).filter_map(|id| {
        let (_, _, path) = all.iter().find(|(known, ..)| *known == id)?;
        Some((id, path.strip_prefix(top).ok()?.to_owned()))
    });
    Some(paths.collect())
}

/// A path of mountinfo: blanks and their like are written as a backslash and three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| first == b'\\');
        let value = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(value.unwrap_or(first));
        rest = if value.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// The mount that something is on, and who hears of what is mounted there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Others hear of it (`shared:`).
    pub is_shared: bool,
    /// It hears of others (`master:`).
    pub is_slave: bool,
}

/// Finds the mount of this namespace that `path` is on; its symbolic links are followed.
///
/// # Errors
/// The errno of `open(2)`; `NotFound` when the mount is none of this namespace.
pub fn mount_of(path: &Path) -> io::Result<Mounted> {
    use rustix::fs::{Mode, OFlags};
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let id = mount_id(proc.as_fd(), place.as_fd())?;
    let table = path::open_in_procfs(
        proc.as_fd(),
        Path::new("thread-self/mountinfo"),
        path::OpenFlags::RDONLY,
    )?;
    let table = io::read_to_string(std::fs::File::from(table))?;
    let mut lines = table.lines();
    let found = lines.find_map(|line| mounted(line).filter(|(known, _)| *known == id));
    found
        .map(|(_, mounted)| mounted)
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Reads one line of mountinfo: the optional fields stand between the mount's options and a lone dash.
fn mounted(line: &str) -> Option<(u64, Mounted)> {
    let mut fields = line.split(' ');
    let id = fields.next()?.parse().ok()?;
    let point = unescaped(fields.nth(3)?);
    let optional: Vec<&str> = fields.skip(1).take_while(|field| *field != "-").collect();
    let has = |tag: &str| optional.iter().any(|field| field.starts_with(tag));
    let mounted = Mounted {
        point,
        is_shared: has("shared:"),
        is_slave: has("master:"),
    };
    Some((id, mounted))
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
    fn a_remount_keeps_what_is_not_changed() {
        use rm::MountFlags as Flags;
        use rustix::fs::StatVfsMountFlags as Stat;
        let current = Stat::NOSUID | Stat::RELATIME;
        let read_only = Change {
            set: Attributes::RDONLY,
            ..Change::default()
        };
        let expected = Flags::NOSUID | Flags::RDONLY | Flags::RELATIME;
        assert_eq!(remounted(current, read_only), expected);
        let other = Change {
            set: Attributes::STRICTATIME.with(Attributes::NOSYMFOLLOW),
            clear: Attributes::NOSUID.with(Attributes::ATIME),
            ..Change::default()
        };
        let expected = Flags::from_bits_retain(MS_NOSYMFOLLOW) | Flags::STRICTATIME;
        assert_eq!(remounted(current, other), expected);
        let relatime = Change {
            clear: Attributes::ATIME,
            ..Change::default()
        };
        assert_eq!(remounted(Stat::NOATIME, relatime), Flags::RELATIME);
        assert_eq!(
            remounted(Stat::empty(), Change::default()),
            Flags::STRICTATIME
        );
    }

    #[test]
    fn mounts_below_are_found_by_their_parents() {
        // proc_pid_mountinfo(5): id, parent, device, root, mount point, …
        let table = "1 0 8:1 / / rw - ext4 x rw\n7 1 8:1 /d /data rw - ext4 x rw\n\
                     8 7 0:5 / /data/a\\040b rw - tmpfs x rw\n9 8 0:6 / /data/a\\040b/c rw - tmpfs x rw\n\
                     10 1 0:7 / /data rw - tmpfs x rw\n11 10 0:8 / /data/x rw - tmpfs x rw\n";
        let found = [(8, PathBuf::from("a b")), (9, PathBuf::from("a b/c"))];
        assert_eq!(below(table, 7).unwrap(), found);
        assert_eq!(below(table, 11).unwrap(), []);
        assert_eq!(below(table, 99), None);
    }

    /// The lines are of proc_pid_mountinfo(5).
    #[test]
    fn a_line_of_mountinfo_says_who_hears_of_a_mount() {
        for (optional, is_shared, is_slave) in [
            ("", false, false),
            ("master:1 ", false, true),
            ("shared:12 ", true, false),
            ("shared:2 master:1 ", true, true),
            ("master:1 propagate_from:2 unbindable ", false, true),
        ] {
            let line =
                format!("36 35 98:0 /shared:9 /m\\040n rw,shared:1 {optional}- ext3 shared:3 rw");
            let point = PathBuf::from("/m n");
            let wanted = Mounted {
                point,
                is_shared,
                is_slave,
            };
            assert_eq!(mounted(&line), Some((36, wanted)), "{line}");
        }
        assert_eq!(mounted("36 35 98:0 /"), None);
    }

    #[test]
    fn unknown_file_system_is_enodev() {
        if !testkit::is_root() {
            return;
        }
        let error = FsContext::open("no-such-fs").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
