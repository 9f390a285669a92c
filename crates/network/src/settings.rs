//! The kernel settings below /proc/sys that containers' traffic needs.

use std::fs;
use std::io;

use crate::error::Error;

/// Neighbours (containers on all bridges) the host can know before it forgets the oldest; the kernel's
/// default of 1,024 breaks at about as many containers.
const NEIGHBOURS: [(&str, u32); 3] = [
    ("net/ipv4/neigh/default/gc_thresh1", 1024),
    ("net/ipv4/neigh/default/gc_thresh2", 8192),
    ("net/ipv4/neigh/default/gc_thresh3", 16384),
];

const FORWARD: &str = "net/ipv4/ip_forward";

/// Sets one; writes only what is different.
pub(crate) fn set(path: &str, value: &str) -> Result<(), Error> {
    let file = format!("/proc/sys/{path}");
    let write = || -> io::Result<()> {
        if fs::read_to_string(&file)?.trim() != value {
            fs::write(&file, value)?;
        }
        Ok(())
    };
    write().map_err(|source| Error::Setting {
        path: path.to_owned(),
        source,
    })
}

/// As [`set`], for one that a kernel may not have.
pub(crate) fn set_if_there(path: &str, value: &str) -> Result<(), Error> {
    match set(path, value) {
        Err(Error::Setting { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        answer => answer,
    }
}

/// Turns forwarding on; true if it was off.
pub(crate) fn enable_forwarding() -> Result<bool, Error> {
    let on = fs::read_to_string(format!("/proc/sys/{FORWARD}"));
    if on.is_ok_and(|text| text.trim() == "1") {
        return Ok(false);
    }
    set(FORWARD, "1")?;
    Ok(true)
}

/// Makes room for the neighbours of many containers; only ever upwards, and only where this network
/// namespace may.
pub(crate) fn make_room_for_neighbours() {
    for (path, wanted) in NEIGHBOURS {
        let file = format!("/proc/sys/{path}");
        let found = fs::read_to_string(&file)
            .ok()
            .and_then(|text| text.trim().parse::<u32>().ok());
        if found.is_some_and(|found| found < wanted)
            && let Err(error) = fs::write(&file, wanted.to_string())
        {
            tracing::debug!(path, %error, "leave the neighbour table as it is");
        }
    }
}

/// `route_localnet` of the bridge: whether 127.0.0.0/8 may be routed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteLocalnet {
    Allowed,
    Refused,
}

pub(crate) fn route_localnet(bridge: &str, state: RouteLocalnet) -> Result<(), Error> {
    let value = match state {
        RouteLocalnet::Allowed => "1",
        RouteLocalnet::Refused => "0",
    };
    set(&format!("net/ipv4/conf/{bridge}/route_localnet"), value)
}

/// This boot of the host.
pub(crate) fn boot_id() -> Result<String, Error> {
    let path = "kernel/random/boot_id";
    fs::read_to_string(format!("/proc/sys/{path}"))
        .map(|text| text.trim().to_owned())
        .map_err(|source| Error::Setting {
            path: path.to_owned(),
            source,
        })
}
