//! Which capabilities a container gets (moby `oci/caps`).

use runtime::oci;
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::StrDeserializer;

/// All capabilities, in the order of the kernel's numbers.
pub(crate) const ALL: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What a container has when nobody says anything.
pub(crate) const DEFAULT: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const EVERYTHING: &str = "ALL";

/// A name that no capability has.
#[derive(Debug, thiserror::Error)]
#[error("unknown capability: \"{0}\"")]
pub(crate) struct Unknown(String);

/// Names as the kernel's headers write them, or `ALL`.
pub(crate) fn normalize(names: Option<&[String]>) -> Result<Vec<String>, Unknown> {
    names
        .unwrap_or_default()
        .iter()
        .map(|name| {
            let upper = name.to_ascii_uppercase();
            if upper == EVERYTHING {
                return Ok(upper);
            }
            let full = if upper.starts_with("CAP_") {
                upper
            } else {
                format!("CAP_{upper}")
            };
            if ALL.contains(&full.as_str()) {
                Ok(full)
            } else {
                Err(Unknown(full))
            }
        })
        .collect()
}

/// The container's capabilities by name: the defaults, less what is dropped, and what is added. Where all
/// are meant, it is all that the daemon has itself: `bounding` is a mask of the kernel's numbers.
pub(crate) fn names(
    add: Option<&[String]>,
    drop: Option<&[String]>,
    privileged: bool,
    bounding: u64,
) -> Result<Vec<String>, Unknown> {
    let held = || {
        (0..)
            .zip(ALL)
            .filter(|(bit, _)| bounding >> bit & 1 == 1)
            .map(|(_, name)| name)
    };
    let (add, drop) = (normalize(add)?, normalize(drop)?);
    let has = |list: &[String], name: &str| list.iter().any(|known| known == name);
    let owned = |name: &&str| (*name).to_owned();
    if privileged {
        return Ok(held().map(owned).collect());
    }
    if has(&add, EVERYTHING) {
        return Ok(held().filter(|name| !has(&drop, name)).map(owned).collect());
    }
    let mut names: Vec<String> = if has(&drop, EVERYTHING) {
        Vec::new()
    } else {
        DEFAULT
            .iter()
            .filter(|name| !has(&drop, name))
            .map(owned)
            .collect()
    };
    for name in add {
        if !has(&names, &name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// The same as the set that the OCI types hold.
pub(crate) fn set(names: &[String]) -> oci::Capabilities {
    names
        .iter()
        .map(|name| {
            let name: StrDeserializer<'_, serde::de::value::Error> =
                name.as_str().into_deserializer();
            oci::Capability::deserialize(name).expect("the OCI types know every name of the table")
        })
        .collect()
}
