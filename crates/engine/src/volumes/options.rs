//! Options of the driver `local`: `type`, `o` and `device` name a file system (moby `volume/local`).
//!
//! dockerd mounts it over `_data` in the host's mount table; here the container's own runtime mounts it, so
//! that nothing of ours stands there.

use std::collections::BTreeMap;

use crate::{Class, Error};

/// Every option there is.
const KNOWN: [&str; 4] = ["type", "o", "device", "size"];

/// File systems on a block device: however often one is mounted, the kernel has it once.
const ON_DEVICES: [&str; 10] = [
    "btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "iso9660", "squashfs", "vfat", "xfs",
];

/// What stands behind a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// Its own directory `_data`.
    Directory,
    /// A directory of the host.
    Bind {
        /// Its path.
        device: String,
        /// `bind` or `rbind`, and the flags.
        flags: Vec<String>,
    },
    /// A file system that is mounted for each run.
    Filesystem {
        /// Its type.
        kind: String,
        /// What is mounted.
        device: String,
        /// Mount options.
        options: Vec<String>,
    },
}

type Options = BTreeMap<String, String>;

fn value<'a>(options: &'a Options, key: &str) -> &'a str {
    options.get(key).map_or("", String::as_str)
}

/// What a volume with these options is. They were [`check`]ed when it was made.
pub(crate) fn backing(options: Option<&Options>) -> Backing {
    let none = Options::new();
    let options = options.unwrap_or(&none);
    if options.is_empty() {
        return Backing::Directory;
    }
    let words: Vec<String> = value(options, "o")
        .split(',')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    let device = value(options, "device").to_owned();
    if words.iter().any(|word| word == "bind" || word == "rbind") {
        return Backing::Bind {
            device,
            flags: words,
        };
    }
    Backing::Filesystem {
        kind: value(options, "type").to_owned(),
        device,
        options: words,
    }
}

/// Checks the options of a new volume.
///
/// # Errors
/// InvalidParameter with dockerd's text; NotImplemented for file systems that need more than a mount.
pub(crate) fn check(name: &str, options: Option<&Options>) -> Result<(), Error> {
    let Some(options) = options.filter(|options| !options.is_empty()) else {
        return Ok(());
    };
    let invalid = |text: String| Err(Error::invalid(format!("create {name}: {text}")));
    if let Some(unknown) = options.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return invalid(format!("invalid option: {unknown:?}"));
    }
    if options.contains_key("size") {
        return invalid("quota size requested but no quota support".to_owned());
    }
    for needed in ["device", "type"] {
        if value(options, needed).is_empty() {
            return invalid(format!("missing required option: {needed:?}"));
        }
    }
    match backing(Some(options)) {
        Backing::Directory => Ok(()),
        Backing::Bind { device, .. } if device.starts_with('/') => Ok(()),
        Backing::Bind { device, .. } => invalid(format!(
            "invalid device {device:?}: a directory to be bound needs an absolute path"
        )),
        Backing::Filesystem { kind, .. }
            if kind == "tmpfs" || ON_DEVICES.contains(&kind.as_str()) =>
        {
            Ok(())
        }
        Backing::Filesystem { kind, .. } => Err(Error::new(
            Class::NotImplemented,
            format!(
                "create {name}: volumes of type {kind:?} are not supported: mount it on the host and use \
                 the options type=none, o=bind and device=<path>"
            ),
        )),
    }
}
