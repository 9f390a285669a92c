//! The mounts, devices, masked and read-only paths of a spec as steps.

use std::path::PathBuf;

use sys::mount::{Attributes, Depth, Propagation};

use super::{Device, Options, Plan, Slot, Source, Step};
use crate::{Error, cgroup, oci};

/// A propagation, and how deep it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    /// `s`hared, s`l`ave, `p`rivate, `u`nbindable.
    kind: char,
    /// Mounts below too.
    recursive: bool,
}

impl Spread {
    pub(crate) fn named(name: &str) -> Option<Self> {
        let (kind, recursive) = match name {
            "shared" => ('s', false),
            "rshared" => ('s', true),
            "slave" => ('l', false),
            "rslave" => ('l', true),
            "private" => ('p', false),
            "rprivate" => ('p', true),
            "unbindable" => ('u', false),
            "runbindable" => ('u', true),
            _ => return None,
        };
        Some(Self { kind, recursive })
    }

    pub(crate) fn propagation(self) -> Propagation {
        match self.kind {
            's' => Propagation::Shared,
            'l' => Propagation::Slave,
            'u' => Propagation::Unbindable,
            _ => Propagation::Private,
        }
    }

    pub(crate) fn depth(self) -> Depth {
        if self.recursive {
            Depth::Recursive
        } else {
            Depth::One
        }
    }
}

/// What is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    /// The detached copy.
    pub(crate) slot: Slot,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MountKind {
    /// A part of the host.
    Bind(Bind),
    /// A new file system.
    New {
        /// Its type.
        filesystem: String,
        /// Options for it, with and without a value.
        options: Vec<(String, Option<String>)>,
    },
    /// The v1 hierarchies below one tmpfs; each from a cgroup namespace of the container's, or bound.
    CgroupV1 {
        /// Whether there is such a namespace.
        namespace: bool,
    },
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountStep {
    /// Path in the container.
    pub(crate) destination: PathBuf,
    /// What the spec calls the source.
    pub(crate) source: String,
    /// What is mounted.
    pub(crate) kind: MountKind,
    /// `MOUNT_ATTR_*` bits to set and to clear on the mount itself.
    pub(crate) attributes: (u64, u64),
    /// The same, on everything below as well.
    pub(crate) recursive: (u64, u64),
    /// Propagations, in order.
    pub(crate) spread: Vec<Spread>,
}

/// Options that change a bit of the mount: name, bits, whether they are set.
const ATTRIBUTES: [(&str, Attributes, bool); 16] = [
    ("ro", Attributes::RDONLY, true),
    ("rw", Attributes::RDONLY, false),
    ("nosuid", Attributes::NOSUID, true),
    ("suid", Attributes::NOSUID, false),
    ("nodev", Attributes::NODEV, true),
    ("dev", Attributes::NODEV, false),
    ("noexec", Attributes::NOEXEC, true),
    ("exec", Attributes::NOEXEC, false),
    ("noatime", Attributes::NOATIME, true),
    ("atime", Attributes::NOATIME, false),
    ("strictatime", Attributes::STRICTATIME, true),
    ("nostrictatime", Attributes::STRICTATIME, false),
    ("nodiratime", Attributes::NODIRATIME, true),
    ("diratime", Attributes::NODIRATIME, false),
    ("nosymfollow", Attributes::NOSYMFOLLOW, true),
    ("symfollow", Attributes::NOSYMFOLLOW, false),
];

/// File systems that take no SELinux label for all that is in them (runc's list).
const UNLABELLED: [&str; 5] = ["proc", "sysfs", "mqueue", "cgroup", "cgroup2"];

/// Options that say nothing the kernel needs to hear.
const SILENT: [&str; 12] = [
    "defaults",
    "async",
    "auto",
    "noauto",
    "nouser",
    "user",
    "loud",
    "silent",
    "nomand",
    "norelatime",
    "noiversion",
    "nolazytime",
];

#[derive(Debug, Default)]
struct Parsed {
    bind: Option<Depth>,
    attributes: (u64, u64),
    recursive: (u64, u64),
    spread: Vec<Spread>,
    data: Vec<(String, Option<String>)>,
}

fn apply(name: &str, bits: &mut (u64, u64)) -> bool {
    if name == "relatime" {
        bits.0 &= !Attributes::ATIME.0;
        bits.1 |= Attributes::ATIME.0;
        return true;
    }
    let Some((_, attribute, set)) = ATTRIBUTES.iter().find(|(known, ..)| *known == name) else {
        return false;
    };
    if *set {
        bits.0 |= attribute.0;
        bits.1 &= !attribute.0;
    } else {
        bits.0 &= !attribute.0;
        bits.1 |= attribute.0;
    }
    true
}

fn parse(options: &[String]) -> Result<Parsed, Error> {
    let mut parsed = Parsed::default();
    for option in options {
        let name = option.as_str();
        if apply(name, &mut parsed.attributes)
            || name
                .strip_prefix('r')
                .is_some_and(|rest| rest != "w" && apply(rest, &mut parsed.recursive))
            || SILENT.contains(&name)
        {
            continue;
        }
        match name {
            "bind" => parsed.bind = parsed.bind.or(Some(Depth::One)),
            "rbind" => parsed.bind = Some(Depth::Recursive),
            "remount" => {}
            "idmap" | "ridmap" | "tmpcopyup" => {
                return Err(Error::Spec(format!("mount option {name} is not supported")));
            }
            other => {
                if let Some(spread) = Spread::named(other) {
                    parsed.spread.push(spread);
                } else if let Some((key, value)) = other.split_once('=') {
                    parsed.data.push((key.to_owned(), Some(value.to_owned())));
                } else if !other.is_empty() {
                    parsed.data.push((other.to_owned(), None));
                }
            }
        }
    }
    Ok(parsed)
}

/// The steps from the attached root up to just before pivot_root.
pub(super) fn steps(
    spec: &oci::Spec,
    options: &Options,
    user_namespace: bool,
    plan: &mut Plan,
    steps: &mut Vec<Step>,
) -> Result<(), Error> {
    let mut own_dev = true;
    for mount in spec.mounts().iter().flatten() {
        let step = one(spec, mount, options, plan)?;
        if matches!(step.kind, MountKind::Bind(_)) && clean(mount.destination()) == "/dev" {
            own_dev = false; // the host's devices were bound: nothing is made there (runc's needsSetupDev)
        }
        steps.push(Step::Mount(Box::new(step)));
    }
    if own_dev {
        for device in devices(spec, user_namespace)? {
            steps.push(Step::Device(device));
        }
        steps.push(Step::DeviceLinks);
    }
    Ok(())
}

fn clean(path: &std::path::Path) -> String {
    let text = path.to_string_lossy();
    let trimmed = text.trim_end_matches('/');
    format!("/{}", trimmed.trim_start_matches('/'))
}

fn one(
    spec: &oci::Spec,
    mount: &oci::Mount,
    options: &Options,
    plan: &mut Plan,
) -> Result<MountStep, Error> {
    let parsed = parse(mount.options().as_deref().unwrap_or_default())?;
    let filesystem = mount.typ().as_deref().unwrap_or_default();
    let source = mount.source().as_ref().map_or_else(
        || filesystem.to_owned(),
        |path| path.to_string_lossy().into_owned(),
    );
    let bind = match (parsed.bind, filesystem) {
        (Some(depth), _) => Some(depth),
        (None, "bind") => Some(Depth::One),
        (None, _) => None,
    };
    let mut spread = parsed.spread;
    let kind = if let Some(depth) = bind {
        if spread.is_empty() {
            // What a bind gets in runc: the child's mounts are slaves of the host's.
            spread.extend(Spread::named("rslave"));
        }
        MountKind::Bind(Bind {
            slot: plan.slot(Source::Tree {
                path: PathBuf::from(&source),
                recursive: depth == Depth::Recursive,
            }),
        })
    } else if filesystem == "cgroup" && options.cgroups == cgroup::Version::V1 {
        MountKind::CgroupV1 {
            namespace: super::namespaces::listed(spec)
                .iter()
                .any(|namespace| namespace.typ() == oci::LinuxNamespaceType::Cgroup),
        }
    } else {
        let mut data = parsed.data;
        let label = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.mount_label().as_ref());
        if let Some(label) = label.filter(|label| !label.is_empty())
            && !UNLABELLED.contains(&filesystem)
        {
            data.push(("context".to_owned(), Some(label.clone())));
        }
        MountKind::New {
            filesystem: match filesystem {
                "cgroup" => "cgroup2".to_owned(),
                other => other.to_owned(),
            },
            options: data,
        }
    };
    Ok(MountStep {
        destination: mount.destination().clone(),
        source,
        kind,
        attributes: parsed.attributes,
        recursive: parsed.recursive,
        spread,
    })
}

/// Devices every container has, as runc and the OCI spec list them.
const DEFAULT_DEVICES: [(&str, (u32, u32)); 6] = [
    ("/dev/null", (1, 3)),
    ("/dev/random", (1, 8)),
    ("/dev/full", (1, 7)),
    ("/dev/tty", (5, 0)),
    ("/dev/zero", (1, 5)),
    ("/dev/urandom", (1, 9)),
];

const CHARACTER: u32 = 0o020_000;
const BLOCK: u32 = 0o060_000;
const FIFO: u32 = 0o010_000;

fn devices(spec: &oci::Spec, bind: bool) -> Result<Vec<Device>, Error> {
    let wanted = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.devices().as_deref())
        .unwrap_or_default();
    let mut all = Vec::new();
    for (path, number) in DEFAULT_DEVICES {
        if wanted.iter().any(|device| clean(device.path()) == path) {
            continue;
        }
        all.push(Device {
            path: PathBuf::from(path),
            mode: CHARACTER | 0o666,
            number,
            owner: (0, 0),
            bind,
        });
    }
    for device in wanted {
        let kind = match device.typ() {
            oci::LinuxDeviceType::B => BLOCK,
            oci::LinuxDeviceType::P => FIFO,
            oci::LinuxDeviceType::C | oci::LinuxDeviceType::U | oci::LinuxDeviceType::A => {
                CHARACTER
            }
        };
        let number = |value: i64| {
            u32::try_from(value)
                .map_err(|_| Error::Spec(format!("device number {value} is out of range")))
        };
        all.push(Device {
            path: device.path().clone(),
            mode: kind | (device.file_mode().unwrap_or(0o666) & 0o7777),
            number: (number(device.major())?, number(device.minor())?),
            owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
            bind,
        });
    }
    Ok(all)
}

/// Read-only and hidden paths, and the read-only root: last, since nothing can be made after them.
pub(super) fn final_steps(spec: &oci::Spec, steps: &mut Vec<Step>) {
    if let Some(linux) = spec.linux() {
        for path in linux.readonly_paths().iter().flatten() {
            steps.push(Step::ReadonlyPath(PathBuf::from(path)));
        }
        for path in linux.masked_paths().iter().flatten() {
            steps.push(Step::MaskPath(PathBuf::from(path)));
        }
    }
    let read_only = spec
        .root()
        .as_ref()
        .is_some_and(|root| root.readonly().unwrap_or(false));
    if read_only {
        steps.push(Step::ReadonlyRoot);
    }
}
