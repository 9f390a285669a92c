//! Who may speak to the engine at all (DESIGN decision 14). It looks at the peer's address and at headers, never
//! at a body.
//!
//! On a unix socket the file's permissions have decided. On TCP without TLS the machine itself is served, and
//! whoever `--allow-plaintext` names; everybody else gets 401. Browsers on that machine are the way in for foreign
//! pages, so on TCP `Host` must be a name that is ours (DNS rebinding) and a foreign `Origin` is refused for every
//! method (CSRF, WebSocket hijacking).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERER};
use hyper::http::request::Parts;
use hyper::{StatusCode, Version};
use ipnet::IpNet;

use crate::failure::Failure;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A unix socket.
    Unix,
    /// TCP without TLS, from this address.
    Plaintext(SocketAddr),
}

/// What the gate lets through on TCP beside the machine itself.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// Networks whose plaintext connections are served (`--allow-plaintext`).
    pub plaintext: Vec<Network>,
    /// Names by which this machine is reached, in lower case.
    pub names: BTreeSet<String>,
    /// Origins (`https://panel.example`) whose pages may call.
    pub origins: BTreeSet<String>,
}

/// A network in CIDR form; an address alone is the network of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether every address of a family is in it.
    #[must_use]
    pub fn is_everyone(self) -> bool {
        self.0.prefix_len() == 0
    }

    /// Whether `address` is in it. An IPv4 address counts as itself also when it comes mapped into IPv6.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = text
            .parse()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network
            .map(Self)
            .map_err(|_| format!("invalid CIDR {text:?}"))
    }
}

impl Gate {
    /// The origin of a page that was allowed by name, for the headers that let it read the answer.
    pub(crate) fn allowed_page(&self, peer: Peer, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN).filter(|_| peer != Peer::Unix)?;
        let text = origin.to_str().ok()?.to_ascii_lowercase();
        self.origins.contains(&text).then(|| origin.clone())
    }

    /// Whether a connection may be made at all, before a byte of it is read.
    pub(crate) fn admit(&self, peer: Peer) -> Result<(), Failure> {
        match peer {
            Peer::Unix => Ok(()),
            Peer::Plaintext(from) => self.check_address(from),
        }
    }

    /// Whether the request may go on.
    pub(crate) fn check(&self, peer: Peer, head: &Parts) -> Result<(), Failure> {
        let Peer::Plaintext(from) = peer else {
            return Ok(());
        };
        self.check_address(from)?;
        self.check_host(head)?;
        self.check_origin(&head.headers)
    }

    fn check_address(&self, from: SocketAddr) -> Result<(), Failure> {
        let address = from.ip().to_canonical();
        if address.is_loopback()
            || self
                .plaintext
                .iter()
                .any(|network| network.contains(address))
        {
            return Ok(());
        }
        Err(Failure::new(
            StatusCode::UNAUTHORIZED,
            format!(
                "plaintext connections are served to this machine only, not to {address}: \
                 use ssh://, or start the daemon with --allow-plaintext {address}"
            ),
        ))
    }

    /// Every name that the request gives for us must be ours: the header, and the authority of its target.
    fn check_host(&self, head: &Parts) -> Result<(), Failure> {
        let mut headers = head.headers.get_all(HOST).iter();
        let header = headers.next();
        if headers.next().is_some() {
            return Err(Failure::invalid("too many Host headers"));
        }
        if header.is_none() && head.version == Version::HTTP_11 {
            return Err(Failure::invalid("missing required Host header"));
        }
        let header = header.map(|value| value.to_str().unwrap_or("\u{fffd}"));
        for host in header
            .into_iter()
            .chain(head.uri.authority().map(|authority| authority.as_str()))
        {
            if !self.is_ours(host) {
                return Err(Failure::new(
                    StatusCode::FORBIDDEN,
                    format!("host {host:?} is no name of this engine: use an address or localhost"),
                ));
            }
        }
        Ok(())
    }

    /// An address, `localhost` or a configured name, with or without a port.
    fn is_ours(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let address = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .unwrap_or(&name);
        address.parse::<IpAddr>().is_ok() || name == "localhost" || self.names.contains(&name)
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let origins = headers.get_all(ORIGIN);
        for origin in &origins {
            if !self.is_own_origin(origin, headers) {
                return Err(foreign(origin));
            }
        }
        let known = origins.iter().next().is_some();
        // `none` is an address that a person typed; `same-origin` is a page of ours.
        for site in &headers.get_all(SEC_FETCH_SITE) {
            if !known && !matches!(site.as_bytes(), b"none" | b"same-origin") {
                return Err(foreign(site));
            }
        }
        // Old browsers send neither of the two with a form, but say which page it stands on.
        match headers.get(REFERER) {
            Some(page) if !known && !self.is_own_page(page, headers) => Err(foreign(page)),
            _ => Ok(()),
        }
    }

    /// Whether an origin is a page of this very address, or was allowed by name.
    fn is_own_origin(&self, origin: &HeaderValue, headers: &HeaderMap) -> bool {
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        let same = |host: &HeaderValue| {
            let ours = host.to_str().unwrap_or_default();
            origin
                .strip_prefix("http://")
                .is_some_and(|origin| origin.eq_ignore_ascii_case(ours))
        };
        headers.get(HOST).is_some_and(same) || self.origins.contains(&origin.to_ascii_lowercase())
    }

    fn is_own_page(&self, page: &HeaderValue, headers: &HeaderMap) -> bool {
        let text = page.to_str().unwrap_or_default();
        let Some((scheme, rest)) = text.split_once("://") else {
            return false;
        };
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        HeaderValue::from_str(&format!("{scheme}://{host}"))
            .is_ok_and(|origin| self.is_own_origin(&origin, headers))
    }
}

fn foreign(source: &HeaderValue) -> Failure {
    Failure::new(
        StatusCode::FORBIDDEN,
        format!("requests from pages of other origins are refused ({source:?})"),
    )
}

/// Takes `:port` off; brackets of an IPv6 address stay.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') =>
        {
            if name.contains(':') && !name.starts_with('[') {
                host
            } else {
                name
            }
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests;
