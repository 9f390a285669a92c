//! What `-H` takes: `unix://`, `tcp://`, `fd://`.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;

/// Port of plain TCP when none is given.
const DEFAULT_PORT: u16 = 2375;

/// One place to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    /// A unix socket; `None` means the default one.
    Unix(Option<PathBuf>),
    /// TCP addresses; a name has several.
    Tcp(Vec<SocketAddr>),
    /// All sockets that systemd opened.
    Activated,
}

/// Reads one `-H`.
///
/// # Errors
/// In dockerd's words.
pub(super) fn parse(text: &str) -> Result<Host, String> {
    let text = text.trim();
    let (protocol, rest) = text.split_once("://").unwrap_or(("tcp", text));
    match protocol {
        "unix" if rest.is_empty() => Ok(Host::Unix(None)),
        "unix" => Ok(Host::Unix(Some(rest.into()))),
        "tcp" => tcp(text, rest.trim_end_matches('/')),
        "fd" => Ok(Host::Activated),
        other => Err(format!(
            "invalid bind address ({text}): unsupported proto '{other}'"
        )),
    }
}

fn tcp(text: &str, address: &str) -> Result<Host, String> {
    let invalid = |why: &dyn std::fmt::Display| format!("invalid bind address ({text}): {why}");
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (
            host,
            port.parse()
                .map_err(|_| invalid(&"should not contain a path, and a port is a number"))?,
        ),
        _ => (address, DEFAULT_PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // As dockerd: no host before a port means every address, nothing at all means this machine.
    let host = match (host, address) {
        ("", "") => "127.0.0.1",
        ("", _) => "0.0.0.0",
        (host, _) => host,
    };
    let addresses: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|error| invalid(&error))?
        .collect();
    Ok(Host::Tcp(addresses))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let tcp = |text: &str| Host::Tcp(vec![text.parse().unwrap()]);
        for (text, wanted) in [
            ("unix://", Host::Unix(None)),
            ("unix:///run/x.sock", Host::Unix(Some("/run/x.sock".into()))),
            ("fd://", Host::Activated),
            ("fd://*", Host::Activated),
            ("tcp://0.0.0.0:2375", tcp("0.0.0.0:2375")),
            ("tcp://:5555", tcp("0.0.0.0:5555")),
            ("tcp://127.0.0.1", tcp("127.0.0.1:2375")),
            ("tcp://[::1]:99", tcp("[::1]:99")),
            ("tcp://[::1]", tcp("[::1]:2375")),
            ("tcp://", tcp("127.0.0.1:2375")),
            ("127.0.0.1:4243", tcp("127.0.0.1:4243")),
            (":4243", tcp("0.0.0.0:4243")),
        ] {
            assert_eq!(parse(text), Ok(wanted), "{text}");
        }
        assert_eq!(
            parse("foo://x").unwrap_err(),
            "invalid bind address (foo://x): unsupported proto 'foo'"
        );
        assert!(parse("tcp://127.0.0.1:x").is_err());
    }
}
