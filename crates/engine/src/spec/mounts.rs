//! What is mounted in a container, in the order of mounting.

use std::path::{Path, PathBuf};

use api::container::mount::{Mount, MountPoint, TmpfsOptions};
use runtime::oci;

use super::security::SecurityOptions;
use super::{Place, failed, joined};
use crate::Error;
use crate::definition::Definition;
use crate::definition::mounts::is_tmpfs_option;
use crate::volumes::MountSource;

/// Options of a tmpfs for a container, unless the request says the opposite.
const TMPFS_OPTIONS: &[&str] = &["noexec", "nosuid", "nodev"];

fn mount(destination: &str, typ: &str, source: &Path, options: &[&str]) -> oci::Mount {
    let mut mount = oci::Mount::default();
    mount
        .set_destination(PathBuf::from(destination))
        .set_typ(Some(typ.to_owned()))
        .set_source(Some(source.to_owned()))
        .set_options(Some(options.iter().map(ToString::to_string).collect()));
    mount
}

/// The file systems of every container, then the files of the network, volumes, binds and tmpfs, those
/// with fewer components in their path first.
pub(super) fn mounts(
    definition: &Definition,
    place: &Place<'_>,
    security: &SecurityOptions,
) -> Result<Vec<oci::Mount>, Error> {
    let own: Vec<oci::Mount> = requested(definition, place)?;
    let taken = |mount: &oci::Mount| {
        own.iter()
            .any(|own| own.destination() == mount.destination())
    };
    let mut all = system(definition, place, security)?;
    all.retain(|mount| !taken(mount));
    // /dev and what lies in it come from the request as a whole.
    if own.iter().any(|own| own.destination() == Path::new("/dev")) {
        all.retain(|mount| !mount.destination().starts_with("/dev/"));
    }
    let mut rest = own;
    for file in network_files(definition, place) {
        if rest
            .iter()
            .all(|own| own.destination() != file.destination())
        {
            rest.push(file);
        }
    }
    rest.sort_by_key(|mount| mount.destination().components().count());
    all.extend(rest);
    Ok(all)
}

fn system(
    definition: &Definition,
    place: &Place<'_>,
    security: &SecurityOptions,
) -> Result<Vec<oci::Mount>, Error> {
    let host_config = &definition.host_config;
    let guarded = ["nosuid", "noexec", "nodev"];
    let read_only = |writable: bool, options: &mut Vec<&'static str>, at: usize| {
        if !writable {
            options.insert(at, "ro");
        }
    };
    let mut sys = guarded.to_vec();
    read_only(host_config.privileged, &mut sys, 3);
    let mut cgroup = guarded.to_vec();
    read_only(
        host_config.privileged || security.writable_cgroups,
        &mut cgroup,
        0,
    );
    let dev = ["nosuid", "strictatime", "mode=755", "size=65536k"];
    let pts = [
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
        "gid=5",
    ];
    let named = |name: &'static str| Path::new(name);
    let mut all = vec![
        mount("/proc", "proc", named("proc"), &guarded),
        mount("/dev", "tmpfs", named("tmpfs"), &dev),
        mount("/dev/pts", "devpts", named("devpts"), &pts),
        mount("/sys", "sysfs", named("sysfs"), &sys),
        mount("/sys/fs/cgroup", "cgroup", named("cgroup"), &cgroup),
        mount("/dev/mqueue", "mqueue", named("mqueue"), &guarded),
    ];
    let shm = "/dev/shm";
    let bind = ["rbind", "rprivate"];
    match (
        host_config.ipc_mode.as_str(),
        joined(&host_config.ipc_mode, place),
    ) {
        ("none", _) => {}
        ("host", _) => all.push(mount(shm, "bind", named(shm), &bind)),
        // Through the other's root: nothing of ours stands in the host's mount table.
        (_, Some(Some(peer))) => {
            let theirs = PathBuf::from(format!("/proc/{}/root/dev/shm", peer.pid));
            all.push(mount(shm, "bind", &theirs, &bind));
        }
        (mode, Some(None)) => {
            let id = mode.trim_start_matches("container:");
            return Err(failed(format!(
                "failed to join IPC namespace: container {id} is not running"
            )));
        }
        _ => {
            let size = format!("size={}", host_config.shm_size);
            let options = ["nosuid", "noexec", "nodev", "mode=1777", &size];
            all.push(mount(shm, "tmpfs", named("shm"), &options));
        }
    }
    Ok(all)
}

/// hosts, hostname and resolv.conf: of this container, or of the one whose network it joins.
fn network_files(definition: &Definition, place: &Place<'_>) -> Vec<oci::Mount> {
    let directory = match joined(&definition.host_config.network_mode, place) {
        Some(Some(peer)) => peer.directory.as_path(),
        _ => place.directory,
    };
    let mut options = vec!["rbind", "rprivate"];
    if definition.host_config.readonly_rootfs {
        options.insert(1, "rro");
    }
    ["resolv.conf", "hostname", "hosts"]
        .iter()
        .map(|name| {
            mount(
                &format!("/etc/{name}"),
                "bind",
                &directory.join(name),
                &options,
            )
        })
        .collect()
}

fn requested(definition: &Definition, place: &Place<'_>) -> Result<Vec<oci::Mount>, Error> {
    let mut all = Vec::new();
    for point in &definition.mounts {
        let options = definition.mount_options(&point.destination);
        match point.r#type.as_str() {
            "tmpfs" => all.push(tmpfs_mount(point, options)),
            _ => match place.sources.get(&point.destination) {
                Some(MountSource::Filesystem {
                    kind,
                    device,
                    options,
                }) => all.push(filesystem(point, kind, device, options)),
                Some(MountSource::Path { path, flags }) => {
                    let mut mount = bind_mount(point, options);
                    mount.set_source(Some(PathBuf::from(path)));
                    if let Some(words) = mount.options_mut() {
                        words.extend(flags.iter().cloned());
                    }
                    all.push(mount);
                }
                None => all.push(bind_mount(point, options)),
            },
        }
    }
    for (target, options) in definition.host_config.tmpfs.iter().flatten() {
        all.push(tmpfs(target, options)?);
    }
    Ok(all)
}

fn bind_mount(point: &MountPoint, options: Option<&Mount>) -> oci::Mount {
    let bind = options.and_then(|mount| mount.bind_options.as_ref());
    let is_flat = bind.is_some_and(|bind| bind.non_recursive);
    let mut words = vec![if is_flat { "bind" } else { "rbind" }];
    if !point.rw {
        let shallow = is_flat || bind.is_some_and(|bind| bind.read_only_non_recursive);
        words.push(if shallow { "ro" } else { "rro" });
    }
    if !point.propagation.is_empty() {
        words.push(&point.propagation);
    }
    mount(&point.destination, "bind", Path::new(&point.source), &words)
}

/// The file system that a volume's options name.
fn filesystem(point: &MountPoint, kind: &str, device: &str, options: &[String]) -> oci::Mount {
    let mut words: Vec<&str> = options.iter().map(String::as_str).collect();
    if !point.rw {
        words.push("ro");
    }
    mount(&point.destination, kind, Path::new(device), &words)
}

/// A tmpfs of `HostConfig.Mounts`.
fn tmpfs_mount(point: &MountPoint, options: Option<&Mount>) -> oci::Mount {
    let none = TmpfsOptions::default();
    let tmpfs = options
        .and_then(|mount| mount.tmpfs_options.as_ref())
        .unwrap_or(&none);
    let mut words: Vec<String> = Vec::new();
    if !point.rw {
        words.push("ro".to_owned());
    }
    if tmpfs.mode != 0 {
        words.push(format!("mode={:o}", tmpfs.mode));
    }
    if tmpfs.size_bytes > 0 {
        words.push(format!("size={}", short_size(tmpfs.size_bytes)));
    }
    for option in tmpfs.options.iter().flatten() {
        words.push(option.join("="));
    }
    merged_tmpfs(&point.destination, &words)
}

/// A size as moby writes it for the kernel: in the largest unit that divides it.
fn short_size(bytes: i64) -> String {
    for (unit, letter) in [(1 << 30, "g"), (1 << 20, "m"), (1 << 10, "k")] {
        if bytes % unit == 0 {
            return format!("{}{letter}", bytes / unit);
        }
    }
    bytes.to_string()
}

/// A tmpfs of `HostConfig.Tmpfs`.
fn tmpfs(target: &str, options: &str) -> Result<oci::Mount, Error> {
    let words: Vec<String> = options
        .split(',')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    if let Some(word) = words.iter().find(|word| !is_tmpfs_option(word)) {
        let name = word.split('=').next().unwrap_or_default();
        return Err(failed(format!("invalid tmpfs option \"{name}\"")));
    }
    Ok(merged_tmpfs(&crate::definition::api_path(target), &words))
}

/// Defaults that the request does not speak of, then the request's words.
fn merged_tmpfs(target: &str, words: &[String]) -> oci::Mount {
    let speaks_of = |option: &&&str| {
        let positive = option.trim_start_matches("no");
        words
            .iter()
            .any(|word| word == **option || word == positive)
    };
    let mut options: Vec<&str> = TMPFS_OPTIONS
        .iter()
        .filter(|option| !speaks_of(option))
        .copied()
        .collect();
    options.push("rprivate");
    options.extend(words.iter().map(String::as_str));
    mount(target, "tmpfs", Path::new("tmpfs"), &options)
}

/// Shared and slave binds need a root that lets mounts through.
pub(super) fn rootfs_propagation(definition: &Definition) -> Option<String> {
    let has = |words: [&str; 2]| {
        definition
            .mounts
            .iter()
            .any(|point| words.contains(&point.propagation.as_str()))
    };
    if has(["shared", "rshared"]) {
        Some("shared".to_owned())
    } else if has(["slave", "rslave"]) {
        Some("rslave".to_owned())
    } else {
        None
    }
}
