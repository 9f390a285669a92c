//! The steps that make a container's root: every path is resolved inside it, every mount goes to a descriptor.

mod cgroup_v1;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use sys::file::{self, Filesystem, Kind};
use sys::mount::{self, Attributes, Change, Depth, FsContext, Propagation};
use sys::path::{self, OpenFlags};

use super::{Context, Doing, NULL, Stop};
use crate::message::Failure;
use crate::plan::{Bind, Device, MountKind, MountStep, Step};

const READ_ONLY: Change = Change {
    set: Attributes::RDONLY,
    clear: Attributes(0),
    propagation: None,
};

impl Context<'_> {
    pub(super) fn root_step(&mut self, step: &Step) -> Result<(), Stop> {
        match step {
            Step::IsolateMounts => {
                mount::set_propagation(Path::new("/"), Depth::Recursive, Propagation::Slave)
                    .doing(|| "make / a slave".to_owned())?;
            }
            Step::AttachRoot(slot) => {
                let root = self.take(*slot)?;
                path::open_directory(Path::new("/"))
                    .and_then(|slash| mount::attach(root.as_fd(), slash.as_fd()))
                    .doing(|| "attach the root file system".to_owned())?;
                // A copy of a directory of the host is in the host's peer group where / is shared, as systemd makes it:
                // pivot_root refuses such a mount, and what is mounted on it would appear on the host. By the old call,
                // since mount_setattr is not in Linux 5.10.
                sys::process::change_directory_to(root.as_fd())
                    .and_then(|()| {
                        mount::set_propagation(Path::new("."), Depth::Recursive, Propagation::Slave)
                    })
                    .doing(|| "make the root file system a slave".to_owned())?;
                self.root = Some(root);
            }
            Step::Mount(step) => self.mount(step)?,
            Step::Device(device) => self.device(device)?,
            Step::DeviceLinks => self.device_links()?,
            Step::Pivot => self.pivot()?,
            Step::RootPropagation(spread) => {
                let change = Change {
                    propagation: Some(spread.propagation()),
                    ..Change::default()
                };
                self.change(spread.depth(), change)
                    .doing(|| "set the propagation of the root".to_owned())?;
            }
            Step::MakeDirectory(directory) => {
                path::make_directory(self.root()?, directory, 0o755)
                    .doing(|| format!("mkdir {}", directory.display()))?;
            }
            Step::ReadonlyPath(target) => self.readonly_path(target)?,
            Step::MaskPath(target) => self.mask_path(target)?,
            Step::ReadonlyRoot => self
                .change(Depth::One, READ_ONLY)
                .doing(|| "remount the root read-only".to_owned())?,
            _ => {}
        }
        Ok(())
    }

    fn pivot(&mut self) -> Result<(), Failure> {
        let old = path::open_directory(Path::new("/")).doing(|| "open /".to_owned())?;
        sys::process::change_directory_to(self.root()?).doing(|| "chdir to the root".to_owned())?;
        mount::pivot_here(old.as_fd()).doing(|| "pivot_root".to_owned())?;
        self.root = Some(path::open_directory(Path::new("/")).doing(|| "open /".to_owned())?);
        Ok(())
    }

    fn mount(&mut self, step: &MountStep) -> Result<(), Failure> {
        let result = match &step.kind {
            MountKind::Bind(bind) => self.bind(step, bind),
            MountKind::New {
                filesystem,
                options,
            } => self.new_filesystem(step, filesystem, options),
            MountKind::CgroupV1 { namespace } => self.cgroup_v1(step, *namespace),
        };
        result.doing(|| {
            format!(
                "error mounting {:?} to rootfs at {:?}",
                step.source,
                step.destination.display().to_string()
            )
        })
    }

    fn root_io(&self) -> io::Result<BorrowedFd<'_>> {
        self.root
            .as_ref()
            .map(AsFd::as_fd)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Changes a detached mount and attaches it; where the kernel cannot change a detached one, afterwards.
    fn attach(
        &self,
        mount: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        changes: &[(Depth, Change)],
    ) -> io::Result<()> {
        let mut later = changes.iter();
        for (depth, change) in changes {
            match mount::set_attributes(mount, *depth, *change) {
                Err(error) if is_missing(&error) => break,
                other => other?,
            }
            later.next();
        }
        mount::attach(mount, target)?;
        for (depth, change) in later {
            mount::remount(self.proc_io()?, mount, *depth, *change)?;
        }
        Ok(())
    }

    /// Changes the root, which is attached.
    fn change(&self, depth: Depth, change: Change) -> io::Result<()> {
        let root = self.root_io()?;
        match mount::set_attributes(root, depth, change) {
            Err(error) if is_missing(&error) => {
                mount::remount(self.proc_io()?, root, depth, change)
            }
            other => other,
        }
    }

    fn proc_io(&self) -> io::Result<BorrowedFd<'_>> {
        self.host_proc()
            .map_err(|failure| io::Error::other(failure.message))
    }

    fn bind(&mut self, step: &MountStep, bind: &Bind) -> io::Result<()> {
        let tree = self
            .take(bind.slot)
            .map_err(|failure| io::Error::other(failure.message))?;
        let root = self.root_io()?;
        let target = if is_directory(&tree)? {
            path::make_directory(root, &step.destination, 0o755)?
        } else {
            path::make_file(root, &step.destination, 0o755)?
        };
        refuse_procfs(&target, step, root)?;
        self.attach(tree.as_fd(), target.as_fd(), &changes(step))
    }

    fn new_filesystem(
        &self,
        step: &MountStep,
        filesystem: &str,
        options: &[(String, Option<String>)],
    ) -> io::Result<()> {
        let root = self.root_io()?;
        let covers = path::open_in_root(root, &step.destination, OpenFlags::PATH).is_ok();
        let target = if matches!(filesystem, "proc" | "sysfs") {
            plain_directory(root, &step.destination)?
        } else {
            path::make_directory(root, &step.destination, 0o755)?
        };
        let context = FsContext::open(filesystem)?;
        context.set("source", step.source.as_bytes())?;
        let mut mode_given = false;
        for (key, value) in options {
            mode_given |= key == "mode";
            match value {
                Some(value) => context.set(key, value.as_bytes())?,
                None => context.flag(key)?,
            }
        }
        if filesystem == "tmpfs" && !mode_given && covers {
            // A tmpfs takes over the mode of the directory it covers, as runc's does; over none it is open to all.
            let mode = file::stat(&target)?.mode;
            context.set("mode", format!("{mode:o}").as_bytes())?;
        }
        let made = match context.mount(Attributes(step.attributes.0)) {
            // A user namespace without a cgroup namespace of its own may not mount it: the host's is bound (as runc).
            Err(error) if filesystem == "cgroup2" && is_refused(&error) => {
                let at = path::open_directory(Path::new("/"))?;
                mount::clone_tree(at.as_fd(), Path::new(CGROUP2), Depth::One)?
            }
            made => made?,
        };
        self.attach(made.as_fd(), target.as_fd(), &changes(step))
    }

    fn device(&self, device: &Device) -> Result<(), Failure> {
        self.try_device(device)
            .doing(|| format!("error creating device {}", device.path.display()))
    }

    fn try_device(&self, device: &Device) -> io::Result<()> {
        let root = self.root_io()?;
        let parent = device.path.parent().unwrap_or(Path::new("/"));
        let name = device
            .path
            .file_name()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        if device.bind {
            return bind_device(root, device);
        }
        let directory = path::make_directory(root, parent, 0o755)?;
        let kind = Kind::of_mode(device.mode, device.number);
        match file::make_node_at(directory.as_fd(), name.as_bytes(), kind, device.mode) {
            // Not allowed to make devices (a runtime that is itself confined): the host's is bound.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return bind_device(root, device);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            other => other?,
        }
        if device.owner != (0, 0) {
            let look = path::open_strictly(
                directory.as_fd(),
                Path::new(name),
                OpenFlags::PATH | OpenFlags::NOFOLLOW,
            )?;
            file::chown_at(look.as_fd(), b"", device.owner.0, device.owner.1)?;
        }
        Ok(())
    }

    fn device_links(&self) -> Result<(), Failure> {
        let mut links = vec![
            ("/proc/self/fd", "fd"),
            ("/proc/self/fd/0", "stdin"),
            ("/proc/self/fd/1", "stdout"),
            ("/proc/self/fd/2", "stderr"),
        ];
        if std::fs::metadata("/proc/kcore").is_ok() {
            links.push(("/proc/kcore", "core"));
        }
        let make = || -> io::Result<()> {
            let dev = path::make_directory(self.root_io()?, Path::new("dev"), 0o755)?;
            for (target, name) in links {
                link(target, dev.as_fd(), name)?;
            }
            // Whatever the image has there: terminals come from this container's devpts.
            match file::unlink_at(dev.as_fd(), b"ptmx") {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            link("pts/ptmx", dev.as_fd(), "ptmx")
        };
        make().doing(|| "error creating the links in /dev".to_owned())
    }

    fn readonly_path(&self, target: &Path) -> Result<(), Failure> {
        let make = || -> io::Result<()> {
            let Some(place) = present(self.root_io()?, target)? else {
                return Ok(());
            };
            let copy = mount::clone_tree(place.as_fd(), Path::new(""), Depth::Recursive)?;
            self.attach(copy.as_fd(), place.as_fd(), &[(Depth::One, READ_ONLY)])?;
            // Looked up once more: what the container will see is what was made read-only.
            let seen = path::open_in_root(self.root_io()?, target, OpenFlags::PATH)?;
            if file::filesystem(&seen)?.1 {
                Ok(())
            } else {
                Err(io::Error::other("it is still writable"))
            }
        };
        make().doing(|| format!("readonly path {}", target.display()))
    }

    fn mask_path(&self, target: &Path) -> Result<(), Failure> {
        let make = || -> io::Result<()> {
            let root = self.root_io()?;
            let Some(place) = present(root, target)? else {
                return Ok(());
            };
            let cover = if is_directory(&place)? {
                let context = FsContext::open("tmpfs")?;
                context.set("source", b"tmpfs")?;
                context.set("nr_blocks", b"1")?;
                context.set("nr_inodes", b"1")?;
                context.mount(Attributes::RDONLY)?
            } else {
                null_cover(root)?
            };
            mount::attach(cover.as_fd(), place.as_fd())
        };
        make().doing(|| format!("can't mask path {:?}", target.display().to_string()))
    }
}

/// A copy of the container's `/dev/null`, only if it is one: the container may share its `/dev` with an attacker.
fn null_cover(root: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let null = path::open_in_root(root, Path::new("dev/null"), OpenFlags::PATH)?;
    let copy = mount::clone_tree(null.as_fd(), Path::new(""), Depth::One)?;
    if file::stat(&copy)?.kind == NULL {
        Ok(copy)
    } else {
        Err(io::Error::other(
            "/dev/null in the container is not the null device",
        ))
    }
}

/// Makes a symbolic link; whatever has the name already stays as it is.
fn link(target: &str, at: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    match file::symlink_at(at, name.as_bytes(), target.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn is_directory(file: &OwnedFd) -> io::Result<bool> {
    Ok(file::stat(file)?.kind == Kind::Directory)
}

/// Opens a path of the spec's; one that is not there has nothing to protect.
fn present(root: BorrowedFd<'_>, target: &Path) -> io::Result<Option<OwnedFd>> {
    match path::open_in_root(root, target, OpenFlags::PATH) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// proc and sysfs go onto a directory that is named without any symbolic link, or the path would lead a
/// later write elsewhere (CVE-2019-19921 and its kin).
fn plain_directory(root: BorrowedFd<'_>, destination: &Path) -> io::Result<OwnedFd> {
    let made = path::make_directory(root, destination, 0o755)?;
    let below = destination.strip_prefix("/").unwrap_or(destination);
    match path::open_without_links(root, below) {
        Ok(plain) if file::stat(&plain)?.is_same_file(&file::stat(&made)?) => Ok(plain),
        Ok(_) | Err(_) => Err(io::Error::other(format!(
            "{} must be mounted on ordinary directory",
            destination.display()
        ))),
    }
}

/// Nothing is bound over `/proc` or most of what is in it (runc's checkProcMount).
fn refuse_procfs(target: &OwnedFd, step: &MountStep, root: BorrowedFd<'_>) -> io::Result<()> {
    const ALLOWED: [&str; 13] = [
        "/proc/cpuinfo",
        "/proc/diskstats",
        "/proc/meminfo",
        "/proc/stat",
        "/proc/swaps",
        "/proc/uptime",
        "/proc/loadavg",
        "/proc/slabinfo",
        "/proc/net/dev",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/crypto/fips_enabled",
        "/proc/pressure",
        "/proc/mounts",
    ];
    let inside = file::filesystem(target)?.0 == Filesystem::Proc
        && file::filesystem(root)?.0 != Filesystem::Proc;
    let named = step.destination.to_string_lossy();
    let named = named.trim_end_matches('/');
    if inside && named != "/proc" && !ALLOWED.contains(&named) {
        return Err(io::Error::other(format!(
            "{:?} cannot be mounted because it is inside /proc",
            step.destination.display().to_string()
        )));
    }
    Ok(())
}

/// Where every host has cgroup v2.
const CGROUP2: &str = "/sys/fs/cgroup";

fn is_refused(error: &io::Error) -> bool {
    // EBUSY: the hierarchy is mounted with options that this namespace may not change.
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ResourceBusy
    ) || matches!(sys::error::errno(error), Some(1 | 16))
}

/// What the spec's options change of a mount, in order.
fn changes(step: &MountStep) -> Vec<(Depth, Change)> {
    let attributes = [
        (Depth::Recursive, step.recursive),
        (Depth::One, step.attributes),
    ];
    let attributes = attributes
        .into_iter()
        .filter(|(_, bits)| *bits != (0, 0))
        .map(|(depth, bits)| (depth, change(bits)));
    let spread = step.spread.iter().map(|spread| {
        let propagation = Some(spread.propagation());
        let change = Change {
            propagation,
            ..Change::default()
        };
        (spread.depth(), change)
    });
    attributes.chain(spread).collect()
}

fn change((set, clear): (u64, u64)) -> Change {
    // A bit of the access-time field cannot be cleared alone: the field is, and gets what is set.
    let clear = if clear & Attributes::ATIME.0 == 0 {
        clear
    } else {
        clear | Attributes::ATIME.0
    };
    Change {
        set: Attributes(set),
        clear: Attributes(clear),
        propagation: None,
    }
}

/// Linux before 5.12 has no mount_setattr.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

fn bind_device(root: BorrowedFd<'_>, device: &Device) -> io::Result<()> {
    let source = std::fs::symlink_metadata(&device.path)?;
    let kind = source.file_type();
    if !(kind.is_char_device() || kind.is_block_device() || kind.is_fifo()) {
        return Err(io::Error::other("the host has no such device"));
    }
    let at = path::open_directory(Path::new("/"))?;
    let copy = mount::clone_tree(at.as_fd(), &device.path, Depth::One)?;
    let target = path::make_file(root, &device.path, 0o000)?;
    mount::attach(copy.as_fd(), target.as_fd())
}
