//! Binds, mounts and volumes of a request (moby `volume/mounts/linux_parser.go`, `daemon/volumes.go`).

use std::collections::BTreeMap;

use api::container::config::Config;
use api::container::host_config::HostConfig;
use api::container::mount::{Mount, MountPoint};

use super::{Host, api_path};
use crate::Error;
use crate::error::Class;

/// How mounts travel between a bind's source and its target when the request does not say.
const PROPAGATION: &str = "rprivate";

const PROPAGATIONS: &[&str] = &[
    "shared", "rshared", "slave", "rslave", "private", "rprivate",
];

/// Options of `HostConfig.Tmpfs` that take no value.
const TMPFS_FLAGS: &[&str] = &[
    "async",
    "atime",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "private",
    "rbind",
    "relatime",
    "remount",
    "ro",
    "rprivate",
    "rshared",
    "rslave",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "sync",
    "unbindable",
    "defaults",
    "bind",
];

/// Options of `HostConfig.Tmpfs` that take a value.
const TMPFS_VALUES: &[&str] = &[
    "mode",
    "uid",
    "gid",
    "nr_inodes",
    "nr_blocks",
    "mpol",
    "size",
];

/// Whether an option of `HostConfig.Tmpfs` is one (checked at start, as by dockerd).
pub(crate) fn is_tmpfs_option(option: &str) -> bool {
    match option.split_once('=') {
        Some((key, _)) => TMPFS_VALUES.contains(&key),
        None => TMPFS_FLAGS.contains(&option),
    }
}

/// The reason why one mount is refused.
#[derive(Debug)]
struct Refused<'a> {
    kind: &'a str,
    why: String,
}

impl std::fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "invalid mount config for type \"{}\": {}",
            self.kind, self.why
        )
    }
}

/// Checks `HostConfig.Mounts`, the propagations and the sources on the host.
pub(super) fn check(
    host_config: &HostConfig,
    warnings: &mut Vec<String>,
    host: &Host<'_>,
) -> Result<(), Error> {
    for mount in host_config.mounts.iter().flatten() {
        check_exclusive(mount)?;
        check_mount(mount).map_err(|refused| Error::invalid(refused.to_string()))?;
        let create = mount
            .bind_options
            .as_ref()
            .is_some_and(|bind| bind.create_mountpoint);
        if mount.r#type == "bind" && !create && !(host.exists)(&mount.source) {
            let why = format!("bind source path does not exist: {}", mount.source);
            return Err(Error::invalid(Refused { kind: "bind", why }.to_string()));
        }
        if mount.r#type == "image" {
            warnings.push("Image mount is an experimental feature".to_owned());
        }
    }
    Ok(())
}

/// Since API 1.42 options of another type are refused.
fn check_exclusive(mount: &Mount) -> Result<(), Error> {
    let options = [
        ("BindOptions", mount.bind_options.is_some(), "bind"),
        ("VolumeOptions", mount.volume_options.is_some(), "volume"),
        ("ImageOptions", mount.image_options.is_some(), "image"),
        ("TmpfsOptions", mount.tmpfs_options.is_some(), "tmpfs"),
        ("ClusterOptions", mount.cluster_options.is_some(), "cluster"),
    ];
    match options
        .iter()
        .find(|(_, given, kind)| *given && *kind != mount.r#type)
    {
        Some((name, ..)) => Err(Error::invalid(format!(
            "{name} must not be specified on mount type \"{}\"",
            mount.r#type
        ))),
        None => Ok(()),
    }
}

fn check_mount(mount: &Mount) -> Result<(), Refused<'_>> {
    let refuse = |why: &str| {
        Err(Refused {
            kind: &mount.r#type,
            why: why.to_owned(),
        })
    };
    if mount.target.is_empty() {
        return refuse("field Target must not be empty");
    }
    if let Err(why) = check_target(&mount.target) {
        return refuse(&why);
    }
    match mount.r#type.as_str() {
        "bind" => {
            if mount.source.is_empty() {
                return refuse("field Source must not be empty");
            }
            let bind = mount.bind_options.as_ref();
            let propagation = bind.map_or("", |bind| bind.propagation.as_str());
            if !propagation.is_empty() && !PROPAGATIONS.contains(&propagation) {
                return refuse(&format!("invalid propagation mode: {propagation}"));
            }
            if mount.volume_options.is_some() {
                return refuse("field VolumeOptions must not be specified");
            }
            if !mount.source.starts_with('/') {
                return refuse(&format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    mount.source
                ));
            }
            Ok(())
        }
        "volume" => {
            if mount.bind_options.is_some() {
                return refuse("field BindOptions must not be specified");
            }
            let volume = mount.volume_options.as_ref();
            let subpath = volume.map_or("", |volume| volume.subpath.as_str());
            if !subpath.is_empty() && mount.source.is_empty() {
                return refuse("must not set Subpath when using anonymous volumes");
            }
            if !subpath.is_empty() && !is_local(subpath) {
                return refuse("subpath must be a relative path within the volume");
            }
            if mount.read_only && mount.source.is_empty() {
                return refuse("must not set ReadOnly mode when using anonymous volumes");
            }
            Ok(())
        }
        "tmpfs" if !mount.source.is_empty() => refuse("field Source must not be specified"),
        "image" if mount.source.is_empty() => refuse("field Source must not be empty"),
        "tmpfs" | "image" => Ok(()),
        _ => refuse("mount type unknown"),
    }
}

fn check_target(target: &str) -> Result<(), String> {
    if api_path(target) == "/" {
        return Err("invalid specification: destination can't be '/'".to_owned());
    }
    if !target.starts_with('/') {
        return Err(format!(
            "invalid mount path: '{target}' mount path must be absolute"
        ));
    }
    Ok(())
}

/// Whether a path stays where it begins (Go's `filepath.IsLocal`).
fn is_local(path: &str) -> bool {
    let cleaned = api_path(path);
    !path.starts_with('/') && cleaned != ".." && !cleaned.starts_with("../")
}

/// One bind of `HostConfig.Binds`, taken apart: a mount as of `HostConfig.Mounts`, and its mode.
struct Bind {
    mount: Mount,
    mode: String,
}

/// Reads `[source:]target[:mode]`.
fn parse_bind(raw: &str, volume_driver: &str) -> Result<Bind, Error> {
    let internal = |text: String| Error::new(Class::Internal, text);
    let invalid = || internal(format!("invalid volume specification: '{raw}'"));
    let parts: Vec<&str> = raw.split(':').collect();
    let (source, target, mode) = match parts.as_slice() {
        ["", ..] => return Err(invalid()),
        [target] => ("", *target, ""),
        [_, mode] if !mode.is_empty() && is_mode(mode) => return Err(invalid()),
        [source, target] => (*source, *target, ""),
        [source, target, mode] => (*source, *target, *mode),
        _ => return Err(invalid()),
    };
    if !is_mode(mode) {
        return Err(internal(format!("invalid mode: {mode}")));
    }
    let words: Vec<&str> = mode.split(',').collect();
    let mut mount = Mount {
        r#type: if source.starts_with('/') {
            "bind"
        } else {
            "volume"
        }
        .to_owned(),
        source: source.to_owned(),
        target: target.to_owned(),
        read_only: words.contains(&"ro"),
        ..Mount::default()
    };
    if words.contains(&"nocopy") {
        mount.volume_options.get_or_insert_default().no_copy = true;
    }
    if !volume_driver.is_empty() && mount.r#type == "volume" {
        let options = mount.volume_options.get_or_insert_default();
        options.driver_config.get_or_insert_default().name = volume_driver.to_owned();
    }
    if let Some(propagation) = words.iter().find(|word| PROPAGATIONS.contains(word)) {
        mount.bind_options.get_or_insert_default().propagation = (*propagation).to_owned();
    }
    if let Err(refused) = check_mount(&mount) {
        return Err(internal(format!(
            "invalid volume specification: '{raw}': {refused}"
        )));
    }
    Ok(Bind {
        mount,
        mode: mode.to_owned(),
    })
}

/// A mode is words of different kinds: access, label, propagation, copy, consistency.
fn is_mode(mode: &str) -> bool {
    if mode.is_empty() {
        return true;
    }
    let mut seen = [false; 5];
    mode.split(',').all(|word| {
        let kind = match word {
            "ro" | "rw" => 0,
            "z" | "Z" => 1,
            "nocopy" => 2,
            "consistent" | "cached" | "delegated" => 3,
            other if PROPAGATIONS.contains(&other) => 4,
            _ => return false,
        };
        !std::mem::replace(&mut seen[kind], true)
    })
}

/// What is to be mounted, sorted by destination: volumes of other containers, binds, mounts, then the
/// anonymous volumes of the configuration.
pub(super) fn plan(
    config: &Config,
    host_config: &HostConfig,
    host: &Host<'_>,
) -> Result<Vec<MountPoint>, Error> {
    let mut points: BTreeMap<String, MountPoint> = BTreeMap::new();
    for spec in host_config.volumes_from.iter().flatten() {
        inherit(spec, &mut points, host)?;
    }
    let mut tmpfs = Vec::new();
    for target in host_config.tmpfs.iter().flat_map(BTreeMap::keys) {
        check_target(target).map_err(Error::invalid)?;
        tmpfs.push(api_path(target));
    }
    let mut own: Vec<String> = Vec::new();
    let mut add = |point: MountPoint, points: &mut BTreeMap<_, _>| {
        let destination = point.destination.clone();
        if own.contains(&destination) || tmpfs.contains(&destination) {
            return Err(Error::invalid(format!(
                "Duplicate mount point: {destination}"
            )));
        }
        own.push(destination.clone());
        points.insert(destination, point);
        Ok(())
    };
    for raw in host_config.binds.iter().flatten() {
        let bind = parse_bind(raw, &host_config.volume_driver)?;
        add(point(&bind.mount, &bind.mode)?, &mut points)?;
    }
    for mount in host_config.mounts.iter().flatten() {
        add(point(mount, "")?, &mut points)?;
    }
    for target in config.volumes.iter().flat_map(BTreeMap::keys) {
        let destination = api_path(&format!("/{target}"));
        if points.contains_key(&destination) || tmpfs.contains(&destination) {
            continue;
        }
        let point = MountPoint {
            r#type: "volume".to_owned(),
            destination: destination.clone(),
            driver: volume_driver(&host_config.volume_driver),
            rw: true,
            ..MountPoint::default()
        };
        points.insert(destination, point);
    }
    Ok(points.into_values().collect())
}

fn volume_driver(name: &str) -> String {
    if name.is_empty() { "local" } else { name }.to_owned()
}

fn point(mount: &Mount, mode: &str) -> Result<MountPoint, Error> {
    let mut point = MountPoint {
        r#type: mount.r#type.clone(),
        destination: api_path(&mount.target),
        mode: mode.to_owned(),
        rw: !mount.read_only,
        ..MountPoint::default()
    };
    match mount.r#type.as_str() {
        "bind" => {
            point.source = api_path(&mount.source);
            let bind = mount.bind_options.as_ref();
            let propagation = bind.map_or("", |bind| bind.propagation.as_str());
            point.propagation = if propagation.is_empty() {
                PROPAGATION.to_owned()
            } else {
                propagation.to_owned()
            };
        }
        "image" => point.name.clone_from(&mount.source),
        "volume" => {
            if !mount.source.is_empty() {
                check_volume_name(&mount.source)?;
            }
            point.name.clone_from(&mount.source);
            let options = mount.volume_options.as_ref();
            let driver = options.and_then(|options| options.driver_config.as_ref());
            point.driver = volume_driver(driver.map_or("", |driver| driver.name.as_str()));
            if point.mode.is_empty() {
                "z".clone_into(&mut point.mode);
            }
        }
        _ => {}
    }
    Ok(point)
}

/// Checks the name of a volume of the driver `local`.
///
/// # Errors
/// InvalidParameter with Docker's text.
pub(crate) fn check_volume_name(name: &str) -> Result<(), Error> {
    if name.len() == 1 {
        return Err(Error::invalid(format!(
            "create {name}: volume name is too short, names should be at least two alphanumeric \
             characters"
        )));
    }
    if api::name::container_name(name).is_err() || name.starts_with('/') {
        return Err(Error::invalid(format!(
            "create {name}: \"{name}\" includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, \
             use absolute path"
        )));
    }
    Ok(())
}

/// `container[:mode]` of `HostConfig.VolumesFrom`.
fn inherit(
    spec: &str,
    points: &mut BTreeMap<String, MountPoint>,
    host: &Host<'_>,
) -> Result<(), Error> {
    if spec.is_empty() {
        return Err(Error::invalid(
            "volumes-from specification cannot be an empty string",
        ));
    }
    let (name, mode) = spec.split_once(':').unwrap_or((spec, ""));
    let words: Vec<&str> = mode.split(',').collect();
    if !is_mode(mode)
        || words
            .iter()
            .any(|word| PROPAGATIONS.contains(word) || *word == "nocopy")
    {
        return Err(Error::invalid(format!("invalid mode: {mode}")));
    }
    let id = (host.find)(name).map_err(|error| match error.class {
        // dockerd answers that the request is wrong.
        Class::NotFound => Error::invalid(error.message),
        _ => error,
    })?;
    for mut point in (host.mounts_of)(&id) {
        // A tmpfs of `Mounts` is its container's own.
        if point.r#type == "tmpfs" {
            continue;
        }
        point.mode.clear();
        point.rw &= !words.contains(&"ro");
        points.insert(point.destination.clone(), point);
    }
    Ok(())
}
