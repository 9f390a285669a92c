//! Devices of the host: what `HostConfig.Devices` and privileged containers get, and cgroup rules.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use runtime::oci;

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Where it lies, on the host or in the container.
    pub path: String,
    /// `c` or `b`.
    pub kind: DeviceKind,
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Character or block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A character device.
    Character,
    /// A block device.
    Block,
}

impl DeviceKind {
    fn oci(self) -> oci::LinuxDeviceType {
        match self {
            Self::Character => oci::LinuxDeviceType::C,
            Self::Block => oci::LinuxDeviceType::B,
        }
    }
}

/// Directories of /dev whose contents belong to the host alone (runc `libcontainer/devices`).
const SKIPPED: &[&str] = &[
    "pts",
    "shm",
    "fd",
    "mqueue",
    ".lxc",
    ".lxd-mounts",
    ".udev",
    "console",
];

/// How deep directories of /dev are followed.
const DEPTH_MAX: usize = 8;

/// The device at `path`, or all devices of the directory there; a symlink is followed.
///
/// # Errors
/// The errno of looking, and NotFound for what is neither device nor directory.
pub fn at(path: &Path) -> io::Result<Vec<Device>> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        let mut found = Vec::new();
        collect(path, DEPTH_MAX, &mut found)?;
        return Ok(found);
    }
    match device(path, &metadata) {
        Some(device) => Ok(vec![device]),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a device node",
        )),
    }
}

/// All devices of the host, for a privileged container.
///
/// # Errors
/// The errno of reading /dev.
pub fn all() -> io::Result<Vec<Device>> {
    at(Path::new("/dev"))
}

fn collect(directory: &Path, depth: usize, found: &mut Vec<Device>) -> io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(directory)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        if SKIPPED.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Devices come and go while we read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if metadata.is_dir() && depth > 0 {
            collect(&entry.path(), depth - 1, found)?;
        } else if let Some(device) = device(&entry.path(), &metadata) {
            found.push(device);
        }
    }
    Ok(())
}

fn device(path: &Path, metadata: &std::fs::Metadata) -> Option<Device> {
    let kind = if metadata.file_type().is_char_device() {
        DeviceKind::Character
    } else if metadata.file_type().is_block_device() {
        DeviceKind::Block
    } else {
        return None;
    };
    let (major, minor) = numbers(metadata.rdev());
    Some(Device {
        path: path.to_str()?.to_owned(),
        kind,
        major,
        minor,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

/// Takes a device number apart as glibc's `major` and `minor` do.
fn numbers(rdev: u64) -> (i64, i64) {
    let major = (rdev >> 8 & 0xfff) | (rdev >> 32 & 0xffff_f000);
    let minor = (rdev & 0xff) | (rdev >> 12 & 0xffff_ff00);
    let signed = |number: u64| i64::try_from(number).expect("at most 32 bits are set");
    (signed(major), signed(minor))
}

impl Device {
    /// As the node to make in the container.
    pub(super) fn node(&self) -> oci::LinuxDevice {
        oci::LinuxDeviceBuilder::default()
            .path(&self.path)
            .typ(self.kind.oci())
            .major(self.major)
            .minor(self.minor)
            .file_mode(self.mode)
            .uid(self.uid)
            .gid(self.gid)
            .build()
            .expect("path, type and numbers are set")
    }

    /// As the cgroup rule that allows it.
    pub(super) fn rule(&self, access: &str) -> oci::LinuxDeviceCgroup {
        rule(
            true,
            Some(self.kind.oci()),
            Some(self.major),
            Some(self.minor),
            access,
        )
    }
}

/// Makes one cgroup rule; absent numbers mean any.
pub(super) fn rule(
    allow: bool,
    kind: Option<oci::LinuxDeviceType>,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> oci::LinuxDeviceCgroup {
    let mut rule = oci::LinuxDeviceCgroup::default();
    rule.set_allow(allow)
        .set_typ(kind)
        .set_major(major)
        .set_minor(minor)
        .set_access(Some(access.to_owned()));
    rule
}

/// Reads `c 1:3 rwm` of `HostConfig.DeviceCgroupRules`; `*` is any number.
pub(super) fn parse_rule(text: &str) -> Option<oci::LinuxDeviceCgroup> {
    let mut words = text.split(' ');
    let kind = match words.next()? {
        "a" => oci::LinuxDeviceType::A,
        "b" => oci::LinuxDeviceType::B,
        "c" => oci::LinuxDeviceType::C,
        _ => return None,
    };
    let (major, minor) = words.next()?.split_once(':')?;
    let access = words.next()?;
    let known = access.bytes().all(|byte| b"rwm".contains(&byte));
    if words.next().is_some() || !known || !(1..=3).contains(&access.len()) {
        return None;
    }
    let number = |text: &str| {
        if text == "*" {
            Some(-1)
        } else {
            text.parse::<u32>().ok().map(i64::from)
        }
    };
    Some(rule(
        true,
        Some(kind),
        Some(number(major)?),
        Some(number(minor)?),
        access,
    ))
}

/// The nodes that every container has, as dockerd allows them: null, zero, full and the random ones are
/// the runtime's; /dev/fuse is denied by name.
pub(super) fn default_rules() -> Vec<oci::LinuxDeviceCgroup> {
    let character = Some(oci::LinuxDeviceType::C);
    let allowed = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];
    let mut rules = vec![rule(false, None, None, None, "rwm")];
    rules.extend(
        allowed.map(|(major, minor)| rule(true, character, Some(major), Some(minor), "rwm")),
    );
    rules.push(rule(false, character, Some(10), Some(229), "rwm"));
    rules
}
