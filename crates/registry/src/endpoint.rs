//! Which hosts are asked for a repository, in which order, and how safely.
//!
//! Docker's rules: mirrors serve docker.io alone and come before it; a registry on loopback or on the list
//! of insecure ones may have an unknown certificate or none; every other registry speaks TLS with a known
//! one (moby `registry/config.go`).

use std::net::IpAddr;

use ipnet::IpNet;

/// The host that serves `docker.io`.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// What the daemon was told about registries (`--registry-mirror`, `--insecure-registry`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Mirrors of docker.io, tried in order.
    pub mirrors: Vec<Mirror>,
    /// Registries that need not prove who they are.
    pub insecure: Vec<Insecure>,
}

/// Why a setting is refused; the texts are dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// Not a URL at all.
    #[error(
        "invalid mirror: no scheme specified for {0:?}: must use either 'https://' or 'http://'"
    )]
    NoScheme(String),
    /// Not an http or https URL.
    #[error(
        "invalid mirror: unsupported scheme {scheme:?} in {url:?}: must use either 'https://' or 'http://'"
    )]
    Scheme {
        /// What stands before `://`.
        scheme: String,
        /// The whole mirror.
        url: String,
    },
    /// A mirror is a scheme and a host, perhaps with a path.
    #[error("invalid mirror: query or fragment at end of the URI {0:?}")]
    QueryOrFragment(String),
    /// A name and password in the URL would be written to logs.
    #[error("invalid mirror: username/password not allowed in URI {0:?}")]
    UserInfo(String),
    /// No host.
    #[error("invalid mirror: {0:?} is not a valid URI")]
    NoHost(String),
    /// An insecure registry is a host or a network, not a URL.
    #[error("insecure registry {0} should not contain '://'")]
    InsecureUrl(String),
    /// An insecure registry's host cannot be one.
    #[error("insecure registry {0} is not valid: invalid host {0:?}")]
    InsecureHost(String),
}

/// A mirror: scheme, host with port, path without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    scheme: Scheme,
    host: String,
    path: String,
}

impl Mirror {
    /// Reads `http[s]://host[:port][/path]`.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn parse(url: &str) -> Result<Self, SettingError> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(SettingError::NoScheme(url.to_owned()));
        };
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => {
                return Err(SettingError::Scheme {
                    scheme: other.to_owned(),
                    url: url.to_owned(),
                });
            }
        };
        if rest.contains(['?', '#']) {
            return Err(SettingError::QueryOrFragment(url.to_owned()));
        }
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if let Some((user, host)) = host.rsplit_once('@') {
            let user = user.split_once(':').map_or(user, |(user, _)| user);
            let (scheme, end) = (scheme.as_str(), &rest[rest.len() - path.len()..]);
            let slash = if end.is_empty() { "" } else { "/" };
            return Err(SettingError::UserInfo(format!(
                "{scheme}://{user}:xxxxx@{host}{slash}{end}"
            )));
        }
        if !is_host(host) {
            return Err(SettingError::NoHost(url.to_owned()));
        }
        let path = path.trim_end_matches('/');
        let path = if path.is_empty() {
            String::new()
        } else {
            format!("/{path}")
        };
        Ok(Self {
            scheme,
            host: host.to_owned(),
            path,
        })
    }
}

/// A registry or a network of registries that need not prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Insecure {
    /// A host, with its port if it is not the usual one.
    Host(String),
    /// Every address of a network.
    Network(IpNet),
}

impl Insecure {
    /// Reads `host[:port]` or `address/prefix`.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn parse(text: &str) -> Result<Self, SettingError> {
        // As dockerd: these two are people's habit, and there is no doubt what they mean.
        let text = text
            .strip_prefix("http://")
            .or_else(|| text.strip_prefix("https://"))
            .unwrap_or(text);
        if text.contains("://") {
            return Err(SettingError::InsecureUrl(text.to_owned()));
        }
        if let Ok(network) = text.parse() {
            return Ok(Self::Network(network));
        }
        if !is_host(text) {
            return Err(SettingError::InsecureHost(text.to_owned()));
        }
        Ok(Self::Host(text.to_ascii_lowercase()))
    }

    fn covers(&self, host: &str, addresses: &[IpAddr]) -> bool {
        match self {
            Self::Host(known) => known == host,
            Self::Network(network) => all(addresses, |address| network.contains(address)),
        }
    }
}

/// How a host is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// TLS.
    Https,
    /// Plain text.
    Http,
}

impl Scheme {
    /// As in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }
}

/// One way to reach a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// TLS or plain text.
    pub scheme: Scheme,
    /// Host and port.
    pub host: String,
    /// What stands before `/v2/`.
    pub path: String,
    /// Whether the certificate must be known.
    pub verify: bool,
    /// Whether this is a mirror: asked with `?ns=`, given no credentials of the registry itself.
    pub mirror: bool,
}

impl Endpoint {
    /// The URL of `rest` of the API: `https://host/path/v2/rest`.
    #[must_use]
    pub fn url(&self, rest: &str) -> String {
        format!(
            "{}://{}{}/v2/{rest}",
            self.scheme.as_str(),
            self.host,
            self.path
        )
    }

    /// The token server that this registry names. It may be any host, so an unknown certificate, which the user
    /// allowed for this registry, is accepted from the same host only, or on loopback.
    #[must_use]
    pub fn token_server(&self, scheme: Scheme, host: String) -> Self {
        let name = host_name(&host);
        let same = name == host_name(&self.host);
        let local = is_insecure(&host, &[], &Settings::default());
        Self {
            scheme,
            path: String::new(),
            verify: !local && (self.verify || !same),
            mirror: false,
            host,
        }
    }
}

/// The endpoints for the registry `domain` in the order to ask them. `addresses` are what its host name
/// resolves to, when that is known: they decide whether it is on loopback.
#[must_use]
pub fn endpoints(domain: &str, addresses: &[IpAddr], settings: &Settings) -> Vec<Endpoint> {
    let mut all = Vec::new();
    if domain == image::DEFAULT_DOMAIN {
        for mirror in &settings.mirrors {
            let known = settings
                .insecure
                .iter()
                .any(|insecure| insecure.covers(&mirror.host, &[]));
            all.push(Endpoint {
                scheme: mirror.scheme,
                host: mirror.host.clone(),
                path: mirror.path.clone(),
                verify: !known,
                mirror: true,
            });
        }
        all.push(endpoint(DOCKER_HUB, Scheme::Https, true));
        return all;
    }
    if is_insecure(domain, addresses, settings) {
        all.push(endpoint(domain, Scheme::Https, false));
        all.push(endpoint(domain, Scheme::Http, false));
    } else {
        all.push(endpoint(domain, Scheme::Https, true));
    }
    all
}

/// Whether there are addresses and each is fine: one in a forged answer must not speak for the others, since
/// any of them may be connected to.
fn all(addresses: &[IpAddr], fine: impl Fn(&IpAddr) -> bool) -> bool {
    !addresses.is_empty() && addresses.iter().all(fine)
}

fn endpoint(host: &str, scheme: Scheme, verify: bool) -> Endpoint {
    Endpoint {
        scheme,
        host: host.to_owned(),
        path: String::new(),
        verify,
        mirror: false,
    }
}

fn is_insecure(domain: &str, addresses: &[IpAddr], settings: &Settings) -> bool {
    let name = host_name(domain);
    let literal = name.parse::<IpAddr>().ok();
    let addresses: Vec<IpAddr> = addresses.iter().copied().chain(literal).collect();
    let loopback = name == "localhost" || all(&addresses, IpAddr::is_loopback);
    let domain = domain.to_ascii_lowercase();
    loopback
        || settings
            .insecure
            .iter()
            .any(|insecure| insecure.covers(&domain, &addresses))
}

/// The host without its port and brackets.
#[must_use]
pub fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(name, _)| name);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

fn is_host(text: &str) -> bool {
    let name = host_name(text);
    let port = text.strip_prefix('[').map_or_else(
        || text.rsplit_once(':').map(|(_, port)| port),
        |rest| rest.split_once("]:").map(|(_, port)| port),
    );
    let name_is_fine = name.parse::<IpAddr>().is_ok()
        || (!name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')));
    name_is_fine && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(domain: &str, settings: &Settings) -> Vec<String> {
        endpoints(domain, &[], settings)
            .iter()
            .map(|e| format!("{} verify={}", e.url(""), e.verify))
            .collect()
    }

    #[test]
    fn mirrors_come_first_and_only_for_docker_io() {
        let settings = Settings {
            mirrors: vec![Mirror::parse("http://127.0.0.1:5000/cache/").unwrap()],
            insecure: Vec::new(),
        };
        assert_eq!(
            urls(image::DEFAULT_DOMAIN, &settings),
            [
                "http://127.0.0.1:5000/cache/v2/ verify=true",
                "https://registry-1.docker.io/v2/ verify=true"
            ]
        );
        assert_eq!(
            urls("quay.io", &settings),
            ["https://quay.io/v2/ verify=true"]
        );
    }

    #[test]
    fn loopback_and_listed_registries_may_speak_plain_text() {
        let settings = Settings {
            mirrors: Vec::new(),
            insecure: vec![
                Insecure::parse("10.1.0.0/16").unwrap(),
                Insecure::parse("Reg.local:80").unwrap(),
            ],
        };
        let both = |host: &str| {
            vec![
                format!("https://{host}/v2/ verify=false"),
                format!("http://{host}/v2/ verify=false"),
            ]
        };
        for insecure in [
            "localhost:5000",
            "127.1.2.3:5000",
            "[::1]:5000",
            "10.1.2.3",
            "reg.local:80",
        ] {
            assert_eq!(urls(insecure, &settings), both(insecure), "{insecure}");
        }
        for secure in [
            "10.2.0.1",
            "reg.local",
            "reg.local:81",
            "localhost.example.com",
        ] {
            assert_eq!(
                urls(secure, &settings),
                [format!("https://{secure}/v2/ verify=true")],
                "{secure}"
            );
        }
        let named = endpoints("r.test", &["127.0.0.1".parse().unwrap()], &settings);
        assert_eq!(
            named.len(),
            2,
            "a name that resolves to loopback is on loopback"
        );
        for (domain, addresses) in [
            ("r.test", ["127.0.0.1", "192.0.2.7"]),
            ("r.test", ["10.1.0.1", "192.0.2.7"]),
        ] {
            let addresses = addresses.map(|address| address.parse().unwrap());
            assert_eq!(
                endpoints(domain, &addresses, &settings).len(),
                1,
                "one address must not speak for the other: {addresses:?}"
            );
        }
    }

    #[test]
    fn an_unknown_certificate_is_accepted_from_the_registrys_own_host_and_loopback_only() {
        let registry = endpoint("r.test:5000", Scheme::Https, false);
        for (host, verify) in [
            ("r.test:5001", false),
            ("auth.test", true),
            ("127.0.0.1:5001", false),
        ] {
            let server = registry.token_server(Scheme::Https, host.to_owned());
            assert_eq!(server.verify, verify, "{host}");
        }
        let careful = endpoint("r.test", Scheme::Https, true);
        assert!(
            careful
                .token_server(Scheme::Https, "r.test".to_owned())
                .verify
        );
    }

    #[test]
    fn bad_settings_are_refused() {
        for bad in [
            "ftp://host",
            "host",
            "http://",
            "http://h/?q",
            "http://h/#f",
            "http://u:p@h",
            "http://h:99999",
        ] {
            assert!(Mirror::parse(bad).is_err(), "{bad}");
        }
        let leaked = Mirror::parse("http://user:secret@h")
            .unwrap_err()
            .to_string();
        assert!(!leaked.contains("secret"), "{leaked}");
        // Texts of dockerd 28.5.2.
        for (mirror, text) in [
            (
                "ftp://x",
                "unsupported scheme \"ftp\" in \"ftp://x\": must use either 'https://' or 'http://'",
            ),
            (
                "x",
                "no scheme specified for \"x\": must use either 'https://' or 'http://'",
            ),
            (
                "http://h/?q=1",
                "query or fragment at end of the URI \"http://h/?q=1\"",
            ),
            (
                "http://u:p@h",
                "username/password not allowed in URI \"http://u:xxxxx@h\"",
            ),
        ] {
            let error = Mirror::parse(mirror).unwrap_err().to_string();
            assert_eq!(error, format!("invalid mirror: {text}"));
        }
        let insecure = Insecure::parse("http://R.test:5000").unwrap();
        assert_eq!(insecure, Insecure::Host("r.test:5000".to_owned()));
        for bad in ["ftp://h", "a b", "", "10.0.0.0/33", "h:port"] {
            assert!(Insecure::parse(bad).is_err(), "{bad}");
        }
    }
}
