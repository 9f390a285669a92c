//! Image references: what a user types for an image, by Docker's rules and with Docker's error texts.
//!
//! Owns the grammar and the normalisation (`busybox` is `docker.io/library/busybox`). Looks nothing up:
//! that is [`Store::resolve`](crate::Store::resolve).

use std::fmt;

use crate::digest::{Digest, DigestError};

/// The domain of a name without one.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// What Docker once called it.
const LEGACY_DOMAIN: &str = "index.docker.io";
/// The path prefix of a name of one word on the default domain.
const OFFICIAL: &str = "library/";
/// The longest path, in characters.
const PATH_LENGTH_MAX: usize = 255;
/// The longest tag, in characters.
const TAG_LENGTH_MAX: usize = 128;
/// The shortest hex part that the grammar takes for a digest; the digest's own rules come after.
const DIGEST_HEX_MIN: usize = 32;
/// The tag of a reference without tag and digest.
pub const DEFAULT_TAG: &str = "latest";

/// Why a string is no image reference; the texts are those of Docker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Not of the form `[domain/]path[:tag][@digest]`.
    #[error("invalid reference format")]
    Format,
    /// Upper case in the path.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    NotLowercase(String),
    /// Upper case somewhere else where it is not allowed.
    #[error("repository name must be lowercase")]
    Uppercase,
    /// 64 hex digits: that is an image id, never a name.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// The path is longer than 255 characters.
    #[error("repository name must not be more than 255 characters")]
    NameTooLong,
    /// A tag on its own is malformed.
    #[error("invalid tag format")]
    Tag,
    /// The digest part.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// A normalised image reference: domain and path always, tag and digest when given.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses and normalises what a user typed (`ParseNormalizedNamed` of Docker). Adds no default tag.
    ///
    /// # Errors
    /// [`ReferenceError`], with Docker's text.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if is_hex_id(text) {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (domain, remainder) = split_domain(text);
        let remote = remainder.split(':').next().unwrap_or(&remainder);
        if remote.chars().any(char::is_uppercase) {
            return Err(ReferenceError::NotLowercase(remote.to_owned()));
        }
        parse_parts(domain, &remainder)
    }

    /// The registry's host and port: `docker.io`, `localhost:5000`, `[::1]:5000`.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry: `library/busybox`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if one was given.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Domain and path: `docker.io/library/busybox`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The name as people write it: `busybox`, `someone/tool`, `localhost:5000/tool`.
    #[must_use]
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL) {
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The reference as people write it: `busybox:latest`, `busybox@sha256:…`.
    #[must_use]
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name();
        self.push_suffix(&mut text);
        text
    }

    /// The reference with `latest` when it has neither tag nor digest (`TagNameOnly` of Docker).
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same repository with `tag` and without digest.
    ///
    /// # Errors
    /// [`ReferenceError::Tag`].
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Tag);
        }
        Ok(Self {
            domain: self.domain.clone(),
            path: self.path.clone(),
            tag: Some(tag.to_owned()),
            digest: None,
        })
    }

    /// The same repository with `digest` and without tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            domain: self.domain.clone(),
            path: self.path.clone(),
            tag: None,
            digest: Some(digest),
        }
    }

    fn push_suffix(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
    }
}

impl fmt::Display for Reference {
    /// The canonical form, with domain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.name();
        self.push_suffix(&mut text);
        f.write_str(&text)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// 64 lower-case hex digits: the form of an image id, which no name may have.
pub(crate) fn is_hex_id(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

/// Splits off the domain as Docker does (`splitDockerDomain` of the distribution reference).
fn split_domain(text: &str) -> (&str, String) {
    let Some((first, rest)) = text.split_once('/') else {
        return (DEFAULT_DOMAIN, format!("{OFFICIAL}{text}"));
    };
    let (domain, remote) = if first == LEGACY_DOMAIN {
        (DEFAULT_DOMAIN, rest)
    } else if first == "localhost"
        || first.contains(['.', ':'])
        || first.chars().any(char::is_uppercase)
    {
        (first, rest)
    } else {
        (DEFAULT_DOMAIN, text)
    };
    if domain == DEFAULT_DOMAIN && !remote.contains('/') {
        return (domain, format!("{OFFICIAL}{remote}"));
    }
    (domain, remote.to_owned())
}

/// Matches `domain/remainder` with the reference grammar.
fn parse_parts(domain: &str, remainder: &str) -> Result<Reference, ReferenceError> {
    let (named, digest) = match remainder.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (remainder, None),
    };
    let (path, tag) = match named.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (named, None),
    };
    let well_formed = is_domain(domain)
        && path.split('/').all(is_path_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(looks_like_digest);
    if !well_formed {
        return Err(ReferenceError::Format);
    }
    if path.len() > PATH_LENGTH_MAX {
        return Err(ReferenceError::NameTooLong);
    }
    Ok(Reference {
        domain: domain.to_owned(),
        path: path.to_owned(),
        tag: tag.map(str::to_owned),
        digest: digest.map(Digest::parse).transpose()?,
    })
}

/// Host names, IPv4 addresses, bracketed IPv6 addresses; an optional port.
fn is_domain(domain: &str) -> bool {
    let (host, port) = if let Some(rest) = domain.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else {
            return false;
        };
        let address_fine =
            !address.is_empty() && address.bytes().all(|c| c.is_ascii_hexdigit() || c == b':');
        if !address_fine {
            return false;
        }
        if after.is_empty() {
            return true;
        }
        let Some(port) = after.strip_prefix(':') else {
            return false;
        };
        return is_port(port);
    } else {
        match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        }
    };
    host.split('.').all(is_domain_component) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit())
}

fn is_domain_component(component: &str) -> bool {
    !component.is_empty()
        && !component.starts_with('-')
        && !component.ends_with('-')
        && component
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || c == b'-')
}

/// Lower-case letters and digits, with `.`, `_`, `__` or any number of `-` between.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !alphanumeric(*first) || !alphanumeric(*last) {
        return false;
    }
    bytes
        .split(|c| alphanumeric(*c))
        .filter(|separator| !separator.is_empty())
        .all(|separator| {
            matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|c| *c == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    tag.len() <= TAG_LENGTH_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|c| word(c) || c == b'.' || c == b'-')
}

fn looks_like_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else {
        return false;
    };
    let word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.bytes().all(|c| c.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(word)
        && hex.len() >= DIGEST_HEX_MIN
        && hex.bytes().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "37aacba5af141918d0887146cf16d2abce5381b545cf4b3f1c51b18e13e7d120";

    /// Canonical and familiar form, or the error's text.
    fn check(text: &str, canonical: &str, familiar: &str) {
        let reference = Reference::parse(text).unwrap();
        assert_eq!(reference.to_string(), canonical, "{text}");
        assert_eq!(reference.familiar(), familiar, "{text}");
        let again = Reference::parse(&reference.familiar()).unwrap();
        assert_eq!(
            again, reference,
            "the familiar form of {text} means the same"
        );
    }

    fn check_error(text: &str, message: &str) {
        assert_eq!(
            Reference::parse(text).unwrap_err().to_string(),
            message,
            "{text}"
        );
    }

    #[test]
    fn names_are_normalised() {
        check("busybox", "docker.io/library/busybox", "busybox");
        check(
            "busybox:1.36",
            "docker.io/library/busybox:1.36",
            "busybox:1.36",
        );
        check("docker.io/busybox", "docker.io/library/busybox", "busybox");
        check(
            "index.docker.io/busybox",
            "docker.io/library/busybox",
            "busybox",
        );
        check("library/busybox", "docker.io/library/busybox", "busybox");
        check("some/tool", "docker.io/some/tool", "some/tool");
        check(
            "docker.io/library/a/b",
            "docker.io/library/a/b",
            "library/a/b",
        );
        check("localhost/tool", "localhost/tool", "localhost/tool");
        check(
            "localhost:5000/a/b:c",
            "localhost:5000/a/b:c",
            "localhost:5000/a/b:c",
        );
        check("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a");
        check("[fd00:1::2]/a", "[fd00:1::2]/a", "[fd00:1::2]/a");
        check("Upper/tool", "Upper/tool", "Upper/tool");
        check("my.host/tool", "my.host/tool", "my.host/tool");
        check(
            "a__b.c_d---e",
            "docker.io/library/a__b.c_d---e",
            "a__b.c_d---e",
        );
        check("host:5000", "docker.io/library/host:5000", "host:5000");
        let digest = format!("sha256:{HEX}");
        check(
            &format!("a/b@{digest}"),
            &format!("docker.io/a/b@{digest}"),
            &format!("a/b@{digest}"),
        );
        check(
            &format!("a:t@{digest}"),
            &format!("docker.io/library/a:t@{digest}"),
            &format!("a:t@{digest}"),
        );
    }

    #[test]
    fn errors_have_dockers_texts() {
        let format = "invalid reference format";
        for text in [
            "",
            ":",
            "a:",
            "a//b",
            "/a",
            "a/",
            "a:b:c",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "a b",
            "a@",
            "a@b",
            "a:@",
            "../a",
            "a/../b",
            "a:../../b",
            "\u{e4}",
            "a\0",
            "http://a/b",
            "[::1/a",
            "[]/a",
            "x.-y/a",
            "a@sha256:abc",
            ":5000/a",
            "a:-b",
        ] {
            check_error(text, format);
        }
        check_error("a:".to_owned().as_str(), format);
        check_error(&format!("a:{}", "t".repeat(129)), format);
        check_error(
            "Foo",
            "invalid reference format: repository name (library/Foo) must be lowercase",
        );
        check_error(
            "x.y/Foo:t",
            "invalid reference format: repository name (Foo) must be lowercase",
        );
        check_error(
            HEX,
            &format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"),
        );
        check_error(
            &"a".repeat(256 - "library/".len()),
            "repository name must not be more than 255 characters",
        );
        check_error(
            &format!("a@md5:{}", &HEX[..32]),
            "unsupported digest algorithm",
        );
        check_error(
            &format!("a@sha256:{}", &HEX[..40]),
            "invalid checksum digest length",
        );
    }

    #[test]
    fn tags_and_digests_are_added_and_replaced() {
        let reference = Reference::parse("a").unwrap();
        assert_eq!(reference.clone().or_latest().familiar(), "a:latest");
        assert_eq!(reference.with_tag("b").unwrap().familiar(), "a:b");
        assert_eq!(reference.with_tag("/").unwrap_err(), ReferenceError::Tag);
        let digest = Digest::of(b"");
        let pinned = reference.with_tag("b").unwrap().with_digest(digest.clone());
        assert_eq!(pinned.familiar(), format!("a@{digest}"));
        assert_eq!(pinned.clone().or_latest(), pinned);
    }
}
