//! Challenges, credentials and tokens: what a registry asks before it answers.
//!
//! Pure parts only: reading `WWW-Authenticate` (RFC 9110 section 11.6.1), forming the token request of the
//! distribution token specification, and reading its answer. Where a secret may be sent is decided in one
//! place, [`may_send_secret`]. No secret ever shows in `Debug` output.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::endpoint::Scheme;

/// A token without `expires_in` is good for this long (distribution token specification).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// A token is not used in its last moments: the request that carries it takes time to arrive.
const EXPIRY_MARGIN: Duration = Duration::from_secs(5);

/// A challenge header longer than this is not worth reading.
const CHALLENGE_BYTES_MAX: usize = 8 << 10;

/// Who a user is to one registry (`X-Registry-Auth`).
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// Login name.
    pub username: String,
    /// Password, or a personal token in its place.
    pub password: String,
    /// A refresh token that the registry's token server gave at login.
    #[serde(rename = "identitytoken")]
    pub identity_token: String,
    /// A bearer token to be sent as it is.
    #[serde(rename = "registrytoken")]
    pub registry_token: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Whether there is nothing in them.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        *self == Self::default()
    }
}

/// One challenge of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token from `realm`.
    Bearer {
        /// The token server's URL.
        realm: String,
        /// What the token is for.
        service: Option<String>,
        /// What the registry says is needed; what we need is asked for instead.
        scope: Option<String>,
    },
}

/// Reads the challenges of one `WWW-Authenticate` value; unknown schemes and what cannot be read are passed over.
#[must_use]
pub fn challenges(header: &str) -> Vec<Challenge> {
    if header.len() > CHALLENGE_BYTES_MAX {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let (scheme, after) = split_token(rest);
        if scheme.is_empty() {
            break;
        }
        let (parameters, after) = parameters(after);
        let value = |name: &str| {
            parameters
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            found.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = value("realm")
        {
            found.push(Challenge::Bearer {
                realm,
                service: value("service"),
                scope: value("scope"),
            });
        }
        rest = after.trim_start_matches([',', ' ', '\t']);
    }
    found
}

/// Reads `name=value` pairs up to the next scheme or the end.
fn parameters(text: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    loop {
        let candidate = rest.trim_start_matches([',', ' ', '\t']);
        let (name, after) = split_token(candidate);
        let Some(after) = after.trim_start().strip_prefix('=') else {
            return (found, rest);
        };
        if name.is_empty() {
            return (found, rest);
        }
        let (value, after) = value(after.trim_start());
        found.push((name.to_owned(), value));
        rest = after;
    }
}

fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = split_token(text);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

fn split_token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_graphic() || matches!(c, '=' | ',' | '"'))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Whether a secret meant for the registry `registry_host` may go to a token server at `realm_scheme://realm_host`:
/// never from TLS to plain text, and in plain text only to the registry itself (attack class 11: a realm
/// chosen by the registry must not collect passwords on the way).
#[must_use]
pub fn may_send_secret(registry: (Scheme, &str), realm: (Scheme, &str)) -> bool {
    match (registry.0, realm.0) {
        (_, Scheme::Https) => true,
        (Scheme::Https, Scheme::Http) => false,
        (Scheme::Http, Scheme::Http) => registry.1 == realm.1,
    }
}

/// The scope to ask for: `repository:<path>:pull[,push]`.
#[must_use]
pub fn scope(path: &str, push: bool) -> String {
    format!(
        "repository:{path}:{}",
        if push { "pull,push" } else { "pull" }
    )
}

/// A token and how long it may be used.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What goes behind `Bearer `.
    pub text: String,
    /// From now on.
    pub usable: Duration,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("usable", &self.usable)
            .finish_non_exhaustive()
    }
}

/// The token server's answer as it stands on the wire.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u32>,
}

/// Reads a token server's answer; `None` when there is no token in it.
#[must_use]
pub fn token(body: &[u8]) -> Option<Token> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let text = answer
        .token
        .or(answer.access_token)
        .filter(|text| !text.is_empty())?;
    // A token must not be able to add a header.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let lifetime = answer.expires_in.map_or(DEFAULT_LIFETIME, |seconds| {
        Duration::from_secs(seconds.into())
    });
    Some(Token {
        text,
        usable: lifetime.max(DEFAULT_LIFETIME).saturating_sub(EXPIRY_MARGIN),
    })
}

/// Percent-encodes a query or form value (RFC 3986 unreserved characters stay).
#[must_use]
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/a:pull""#;
        assert_eq!(
            challenges(hub),
            [bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:library/a:pull")
            )]
        );
        assert_eq!(
            challenges(r#"Basic realm="Registry Realm""#),
            [Challenge::Basic]
        );
        assert_eq!(
            challenges(
                r#"Negotiate, BASIC realm=x , bearer Realm = "https://a/\"q\"" , service=s"#
            ),
            [Challenge::Basic, bearer("https://a/\"q\"", Some("s"), None)]
        );
        for nothing in [
            "",
            "Bearer",
            "Bearer service=x",
            "=,=",
            "\"",
            "Digest qop=\"auth\"",
        ] {
            assert_eq!(challenges(nothing), [], "{nothing}");
        }
        assert_eq!(
            challenges(&"Basic,".repeat(4000)),
            [],
            "an oversized header is not read"
        );
    }

    #[test]
    fn a_secret_never_leaves_tls_and_in_plain_text_only_to_the_registry_itself() {
        let cases = [
            ((Scheme::Https, "r"), (Scheme::Https, "auth"), true),
            ((Scheme::Https, "r"), (Scheme::Http, "r"), false),
            ((Scheme::Http, "r:5000"), (Scheme::Http, "r:5000"), true),
            ((Scheme::Http, "r:5000"), (Scheme::Http, "evil"), false),
            ((Scheme::Http, "r:5000"), (Scheme::Https, "auth"), true),
        ];
        for (registry, realm, expected) in cases {
            assert_eq!(
                may_send_secret(registry, realm),
                expected,
                "{registry:?} {realm:?}"
            );
        }
    }

    #[test]
    fn tokens_are_read_in_both_spellings_and_refused_when_they_could_add_a_header() {
        let usable =
            |body: &str| token(body.as_bytes()).map(|token| (token.text, token.usable.as_secs()));
        assert_eq!(
            usable(r#"{"token":"t","expires_in":300}"#),
            Some(("t".into(), 295))
        );
        assert_eq!(usable(r#"{"access_token":"a"}"#), Some(("a".into(), 55)));
        assert_eq!(
            usable(r#"{"token":"t","expires_in":1}"#),
            Some(("t".into(), 55)),
            "the specified minimum"
        );
        for bad in [
            r#"{}"#,
            r#"{"token":""}"#,
            r#"{"token":"a\r\nX: y"}"#,
            "nonsense",
        ] {
            assert_eq!(usable(bad), None, "{bad}");
        }
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let credentials = Credentials {
            username: "u".into(),
            password: "p4ss".into(),
            identity_token: "id3ntity".into(),
            registry_token: "r3gistry".into(),
        };
        let token = Token {
            text: "t0ken".into(),
            usable: DEFAULT_LIFETIME,
        };
        let shown = format!("{credentials:?} {token:?}");
        for secret in ["p4ss", "id3ntity", "r3gistry", "t0ken"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
