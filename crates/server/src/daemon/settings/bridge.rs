//! The default bridge's settings.

use std::net::IpAddr;

use engine::{Bridge, Ipv4Net, Pool};

use super::Source;
use crate::daemon::flags::Value;

/// What Linux takes as an interface's name, in bytes.
const NAME_BYTES_MAX: usize = 15;
/// The smallest MTU that IPv4 allows.
const MTU_BYTES_MIN: u32 = 68;

/// Checks the flags of the bridge.
///
/// # Errors
/// In dockerd's words where it has some.
pub(super) fn settings(from: &Source<'_>) -> Result<Bridge, String> {
    let usual = Bridge::default();
    let name = match from.text("bridge").filter(|name| !name.is_empty()) {
        None => usual.name,
        Some(none) if none == "none" => None,
        Some(name) if is_interface(&name) => Some(name),
        Some(name) => return Err(format!("invalid bridge name: {name}")),
    };
    let address = match from.text("bip").filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(bridge_address(&text)?),
    };
    let pools = from.list("default-address-pool");
    let pools = pools.iter().map(|text| pool(text));
    let yes = |name: &str| from.0.get(name) != Some(&Value::Switch(false));
    Ok(Bridge {
        name,
        address,
        pools: pools.collect::<Result<_, _>>()?,
        mtu_bytes: mtu(from)?,
        icc: yes("icc"),
        masquerade: yes("ip-masq"),
        forward: yes("ip-forward"),
        host_ip: host_ip(from)?,
    })
}

fn is_interface(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    name.len() <= NAME_BYTES_MAX && !matches!(name, "." | "..") && name.bytes().all(plain)
}

fn bridge_address(text: &str) -> Result<Ipv4Net, String> {
    let net: Ipv4Net = text
        .parse()
        .map_err(|_| format!("invalid CIDR address: {text}"))?;
    let is_host = net.addr() != net.network() && net.addr() != net.broadcast();
    if !is_host {
        return Err(format!(
            "failed to allocate gateway ({}): Address already in use",
            net.addr()
        ));
    }
    Ok(net)
}

fn mtu(from: &Source<'_>) -> Result<Option<u32>, String> {
    match from.0.get("mtu") {
        None | Some(Value::Number(0)) => Ok(None),
        Some(Value::Number(bytes)) => match u32::try_from(*bytes) {
            Ok(bytes) if bytes >= MTU_BYTES_MIN => Ok(Some(bytes)),
            _ => Err(format!("invalid default MTU: {bytes}")),
        },
        Some(other) => Err(format!("invalid default MTU: {other}")),
    }
}

/// Docker's default, 0.0.0.0, means every address of both families.
fn host_ip(from: &Source<'_>) -> Result<Option<IpAddr>, String> {
    match from.text("ip").as_deref() {
        None | Some("" | "0.0.0.0") => Ok(None),
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|_| format!("ip address is not correctly formatted: {text:?}")),
    }
}

/// `base=10.0.0.0/8,size=24` of the command line, `{"base":"10.0.0.0/8","size":24}` of the file.
fn pool(text: &str) -> Result<Pool, String> {
    let invalid = || format!("invalid default address pool: {text}");
    let (base, size) = if text.starts_with('{') {
        let object: serde_json::Value = serde_json::from_str(text).map_err(|_| invalid())?;
        let base = object["base"].as_str().ok_or_else(invalid)?.to_owned();
        (base, object["size"].as_u64().ok_or_else(invalid)?)
    } else {
        let mut base = None;
        let mut size = None;
        for part in text.split(',') {
            match part.split_once('=').ok_or_else(invalid)? {
                ("base", value) => base = Some(value.to_owned()),
                ("size", value) => size = value.parse().ok(),
                _ => return Err(invalid()),
            }
        }
        (base.ok_or_else(invalid)?, size.ok_or_else(invalid)?)
    };
    let base: Ipv4Net = base.parse().map_err(|_| invalid())?;
    let size = u8::try_from(size).map_err(|_| invalid())?;
    // One address for the bridge and one for a container, at least.
    if size < base.prefix_len() || size > 30 {
        return Err(invalid());
    }
    Ok(Pool {
        base: base.trunc(),
        size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::flags::Values;

    fn with(values: &[(&'static str, Value)]) -> Result<Bridge, String> {
        let values: Values = values.iter().cloned().collect();
        settings(&Source(&values))
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn docker_s_defaults_on_a_bridge_of_our_own() {
        let bridge = with(&[]).unwrap();
        assert_eq!(bridge.name.as_deref(), Some("cooper0"));
        assert!(bridge.icc && bridge.masquerade && bridge.forward);
        assert_eq!(bridge.instance(), "cooper");
        let bridge = with(&[("bridge", text("none")), ("icc", Value::Switch(false))]).unwrap();
        assert_eq!((bridge.name, bridge.icc), (None, false));
        assert_eq!(
            with(&[("bridge", text("b1"))]).unwrap().instance(),
            "cooper-b1"
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (flag, value) in [
            ("bridge", text("a-name-of-sixteen")),
            ("bridge", text("a/b")),
            ("bip", text("10.0.0.0/24")),
            ("bip", text("10.0.0.1")),
            ("ip", text("localhost")),
            ("mtu", Value::Number(-1)),
            (
                "default-address-pool",
                Value::List(vec!["base=10.0.0.0/8".into()]),
            ),
            (
                "default-address-pool",
                Value::List(vec!["base=10.0.0.0/8,size=4".into()]),
            ),
        ] {
            assert!(with(&[(flag, value.clone())]).is_err(), "{flag} {value}");
        }
    }

    #[test]
    fn pools_of_line_and_file() {
        for text in [
            "base=10.9.0.0/16,size=24",
            r#"{"base":"10.9.0.0/16","size":24}"#,
        ] {
            let pool = pool(text).unwrap();
            assert_eq!(
                (pool.base.to_string(), pool.size),
                ("10.9.0.0/16".to_owned(), 24)
            );
        }
    }
}
