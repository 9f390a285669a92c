//! Which capabilities a container gets (moby `oci/caps`).

use runtime::{capabilities::DOCKER_DEFAULT, oci};
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::StrDeserializer;
use sys::cap;

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
            if cap::NAMES.contains(&full.as_str()) {
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
            .zip(&cap::NAMES)
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
        DOCKER_DEFAULT
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
