//! Manifests and indexes, OCI and Docker schema 2: parsed strictly, bytes kept by the caller.
//!
//! One document has one meaning: what could be read as a manifest and as an index is refused, and so is a
//! key that stands twice (CVE-2021-41190). Sizes and counts are bounded before anything is allocated.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::digest::Digest;

/// The largest manifest or index, in bytes (containerd's limit, which registries honour).
pub const MANIFEST_BYTES_MAX: u64 = 4 * 1048 * 1048;
/// The largest image configuration, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// The most layers of one image: what overlayfs mounts within one page of options.
pub const LAYERS_MAX: usize = 128;
/// The most entries of one index.
const ENTRIES_MAX: usize = 1024;
/// How many indexes may lie within each other.
pub const INDEX_DEPTH_MAX: usize = 4;

/// Media types by name.
pub mod media_type {
    /// OCI manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// Docker manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker schema 1, signed: refused.
    pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
}

/// Why a document is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Larger than the limit for its kind.
    #[error("{what} of {found_bytes} bytes exceeds the limit of {limit_bytes} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        found_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// No JSON, or not of this shape.
    #[error("invalid manifest: {0}")]
    Json(#[source] serde_json::Error),
    /// Both a manifest and an index, or neither.
    #[error("invalid manifest: {0}")]
    Ambiguous(&'static str),
    /// Schema 1, which is dead.
    #[error(
        "manifest schema 1 is not supported: the image must be pushed again in a current format"
    )]
    Schema1,
    /// The media type is none of an image.
    #[error("unsupported manifest media type {0:?}")]
    MediaType(String),
    /// No entry for the wanted platform.
    #[error("no matching manifest for {wanted} in the manifest list entries: {entries}")]
    NoMatch {
        /// The wanted platform.
        wanted: Platform,
        /// What there is.
        entries: String,
    },
    /// More layers or entries than the limit.
    #[error("{what}: {found}, and at most {limit} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
}

/// A pointer to content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Its media type; old archives leave it out.
    #[serde(rename = "mediaType", default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where else it may be fetched from (foreign layers).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urls: Option<Vec<String>>,
    /// For which platform it is, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Key and value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// The annotation `key`.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether it is a build attestation, which is no image and fits no platform.
    #[must_use]
    pub fn is_attestation(&self) -> bool {
        self.annotation("vnd.docker.reference.type") == Some("attestation-manifest")
    }
}

/// Operating system and processor, in Go's terms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// `amd64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// `v8`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// `os.version` (Windows).
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", self.variant)
        }
    }
}

impl Platform {
    /// The platform of this machine.
    #[must_use]
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", "v8"),
            "x86" => ("386", ""),
            other => (other, ""),
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: variant.to_owned(),
            os_version: String::new(),
        }
    }

    /// Parses `os/architecture[/variant]`, or one of the two alone.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<String> = text.split('/').map(str::to_ascii_lowercase).collect();
        let word = |w: &String| {
            !w.is_empty()
                && w.bytes()
                    .all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
        };
        if words.len() > 3 || !words.iter().all(word) {
            return None;
        }
        let host = Self::host();
        let mut words = words.into_iter();
        let first = words.next()?;
        let platform = match words.next() {
            Some(architecture) => Self {
                os: first,
                architecture,
                variant: words.next().unwrap_or_default(),
                os_version: String::new(),
            },
            None if first == host.os => host,
            None => Self {
                os: host.os,
                architecture: first,
                ..Self::default()
            },
        };
        Some(platform.normalised())
    }

    /// Spells the architecture as Go does and leaves out what is the default.
    fn normalised(mut self) -> Self {
        let (architecture, variant) = match (&*self.architecture, &*self.variant) {
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", other) => ("amd64", other),
            ("i386" | "x86" | "i686", _) => ("386", ""),
            ("aarch64" | "arm64", "" | "8") => ("arm64", "v8"),
            ("aarch64", other) => ("arm64", other),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            (architecture, variant) => (architecture, variant),
        };
        let (architecture, variant) = (architecture.to_owned(), variant.to_owned());
        self.architecture = architecture;
        self.variant = variant;
        self
    }

    /// What a machine of this platform runs, best first: amd64 also 386, arm64 also 32-bit arm.
    fn runs(&self) -> Vec<Self> {
        let own = self.clone().normalised();
        let with = |architecture: &str, variant: &str| Self {
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            ..own.clone()
        };
        let mut list = vec![own.clone()];
        match (&*own.architecture, &*own.variant) {
            ("amd64", _) => list.push(with("386", "")),
            ("arm64", "v8") => list.extend(["v8", "v7", "v6", "v5"].map(|v| with("arm", v))),
            ("arm", variant) => list.extend(
                ["v7", "v6", "v5"]
                    .into_iter()
                    .filter(|v| *v < variant)
                    .map(|v| with("arm", v)),
            ),
            _ => {}
        }
        list
    }
}

/// An image manifest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Manifest {
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
}

/// An index of manifests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Index {
    /// Its entries.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
}

/// A document that is exactly one of the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Images for several platforms.
    Index(Index),
}

/// The keys that decide what a document is; serde refuses one that stands twice.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Keys<'a> {
    schema_version: Option<u32>,
    media_type: Option<String>,
    #[serde(borrow)]
    config: Option<&'a RawValue>,
    #[serde(borrow)]
    layers: Option<&'a RawValue>,
    #[serde(borrow)]
    manifests: Option<&'a RawValue>,
    #[serde(borrow)]
    fs_layers: Option<&'a RawValue>,
}

impl Document {
    /// Parses `bytes`; `served_as` is the media type it came with (`None`: a file), which must agree.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn parse(bytes: &[u8], served_as: Option<&str>) -> Result<Self, ManifestError> {
        let found_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if found_bytes > MANIFEST_BYTES_MAX {
            let what = "manifest";
            return Err(ManifestError::TooLarge {
                what,
                found_bytes,
                limit_bytes: MANIFEST_BYTES_MAX,
            });
        }
        let keys: Keys<'_> = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
        if keys.fs_layers.is_some() || keys.schema_version == Some(1) {
            return Err(ManifestError::Schema1);
        }
        if keys.manifests.is_some() && (keys.config.is_some() || keys.layers.is_some()) {
            return Err(ManifestError::Ambiguous(
                "it is both a manifest and an index",
            ));
        }
        let is_index = keys.manifests.is_some();
        for name in [served_as, keys.media_type.as_deref()]
            .into_iter()
            .flatten()
        {
            match kind_of(name)? {
                Some(kind) if kind != is_index => {
                    return Err(ManifestError::Ambiguous(
                        "its content is not of its media type",
                    ));
                }
                _ => {}
            }
        }
        if is_index {
            let index: Index = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
            within("index entries", index.manifests.len(), ENTRIES_MAX)?;
            Ok(Self::Index(index))
        } else {
            if keys.config.is_none() || keys.layers.is_none() {
                return Err(ManifestError::Ambiguous(
                    "it is neither a manifest nor an index",
                ));
            }
            let manifest: Manifest = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
            within("layers", manifest.layers.len(), LAYERS_MAX)?;
            Ok(Self::Manifest(manifest))
        }
    }
}

/// Whether the media type names an index (`Some(true)`), a manifest, or leaves it open.
fn kind_of(name: &str) -> Result<Option<bool>, ManifestError> {
    match name.split(';').next().unwrap_or(name).trim() {
        media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => Ok(Some(false)),
        media_type::OCI_INDEX | media_type::DOCKER_LIST => Ok(Some(true)),
        media_type::DOCKER_SCHEMA1 | "application/vnd.docker.distribution.manifest.v1+json" => {
            Err(ManifestError::Schema1)
        }
        "" | "application/json" | "application/octet-stream" | "text/plain" => Ok(None),
        other => Err(ManifestError::MediaType(other.to_owned())),
    }
}

pub(crate) fn within(what: &'static str, found: usize, limit: usize) -> Result<(), ManifestError> {
    if found > limit {
        Err(ManifestError::TooMany { what, found, limit })
    } else {
        Ok(())
    }
}

impl Index {
    /// The entries that `wanted` can run, best first; attestations never.
    ///
    /// # Errors
    /// [`ManifestError::NoMatch`] when there is none.
    pub fn choose(&self, wanted: &Platform) -> Result<Vec<&Descriptor>, ManifestError> {
        let runs = wanted.runs();
        let rank = |entry: &Descriptor| {
            let platform = entry.platform.clone()?.normalised();
            runs.iter().position(|candidate| {
                candidate.os == platform.os
                    && candidate.architecture == platform.architecture
                    && candidate.variant == platform.variant
            })
        };
        let mut ranked: Vec<(usize, &Descriptor)> = self
            .manifests
            .iter()
            .filter(|entry| !entry.is_attestation())
            .filter_map(|entry| Some((rank(entry)?, entry)))
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        if ranked.is_empty() {
            let platforms = self
                .manifests
                .iter()
                .filter(|entry| !entry.is_attestation());
            let names = platforms.map(|entry| match &entry.platform {
                Some(platform) => platform.to_string(),
                None => "unknown".to_owned(),
            });
            return Err(ManifestError::NoMatch {
                wanted: wanted.clone(),
                entries: names.collect::<Vec<_>>().join(", "),
            });
        }
        Ok(ranked.into_iter().map(|(_, entry)| entry).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(extra: &str) -> String {
        format!(r#"{{"digest":"{}","size":2{extra}}}"#, Digest::of(b"{}"))
    }

    fn manifest(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]{extra}}}"#,
            descriptor(""),
            descriptor("")
        )
    }

    fn check_error(text: &str, served_as: Option<&str>, part: &str) {
        let error = Document::parse(text.as_bytes(), served_as)
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn a_document_has_one_meaning() {
        let good = manifest("");
        for served_as in [
            None,
            Some(media_type::OCI_MANIFEST),
            Some("application/json"),
        ] {
            let parsed = Document::parse(good.as_bytes(), served_as).unwrap();
            assert!(matches!(parsed, Document::Manifest(_)));
        }
        check_error(&good, Some(media_type::OCI_INDEX), "not of its media type");
        check_error(
            &manifest(r#","manifests":[]"#),
            None,
            "both a manifest and an index",
        );
        check_error(&manifest(r#","layers":[]"#), None, "duplicate field");
        check_error(
            &manifest(r#","mediaType":"x/y""#),
            None,
            "unsupported manifest media type",
        );
        let wrong = format!(r#","mediaType":"{}""#, media_type::DOCKER_LIST);
        check_error(&manifest(&wrong), None, "not of its media type");
        check_error("{}", None, "neither");
        check_error(r#"{"schemaVersion":1,"fsLayers":[]}"#, None, "schema 1");
        check_error(&good, Some(media_type::DOCKER_SCHEMA1), "schema 1");
    }

    #[test]
    fn sizes_and_depths_are_bounded() {
        let large = " ".repeat(usize::try_from(MANIFEST_BYTES_MAX).unwrap() + 1);
        check_error(&large, None, "exceeds the limit");
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        check_error(
            &format!(r#"{{"config":{deep},"layers":[]}}"#),
            None,
            "invalid",
        );
        let ignored = manifest(&format!(r#","x":{deep}"#));
        Document::parse(ignored.as_bytes(), None).expect("skipped without recursion");
        let layers = vec![descriptor(""); LAYERS_MAX + 1].join(",");
        let many = format!(r#"{{"config":{},"layers":[{layers}]}}"#, descriptor(""));
        check_error(&many, None, "at most 128");
        check_error(
            &manifest("").replace(r#""size":2"#, r#""size":-1"#),
            None,
            "invalid",
        );
        check_error(
            &manifest("").replace("sha256:", "sha256:/"),
            None,
            "checksum digest",
        );
    }

    fn chosen(wanted: &str, platforms: &[&str]) -> Result<Vec<usize>, String> {
        let entries = platforms.iter().enumerate().map(|(number, platform)| {
            let platform = Platform::parse(platform).unwrap();
            let json = serde_json::to_string(&platform).unwrap();
            descriptor(&format!(
                r#","platform":{json},"annotations":{{"n":"{number}"}}"#
            ))
        });
        let text = format!(
            r#"{{"manifests":[{}]}}"#,
            entries.collect::<Vec<_>>().join(",")
        );
        let Document::Index(index) = Document::parse(text.as_bytes(), None).unwrap() else {
            panic!("an index")
        };
        let wanted = Platform::parse(wanted).unwrap();
        let list = index.choose(&wanted).map_err(|error| error.to_string())?;
        Ok(list
            .iter()
            .map(|entry| entry.annotation("n").unwrap().parse().unwrap())
            .collect())
    }

    #[test]
    fn the_best_platform_comes_first() {
        assert_eq!(
            chosen("linux/amd64", &["linux/386", "linux/arm64", "linux/amd64"]),
            Ok(vec![2, 0])
        );
        assert_eq!(
            chosen(
                "linux/arm64",
                &["linux/arm/v5", "linux/arm/v7", "linux/arm64/v8"]
            ),
            Ok(vec![2, 1, 0])
        );
        assert_eq!(
            chosen("linux/arm/v6", &["linux/arm/v7", "linux/arm/v5"]),
            Ok(vec![1])
        );
        assert_eq!(
            chosen("linux/amd64", &["windows/amd64", "linux/s390x"]),
            Err(
                "no matching manifest for linux/amd64 in the manifest list entries: \
                 windows/amd64, linux/s390x"
                    .to_owned()
            )
        );
    }

    #[test]
    fn an_attestation_fits_no_platform() {
        let entry = descriptor(
            r#","platform":{"os":"linux","architecture":"amd64"},"annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#,
        );
        let text = format!(r#"{{"manifests":[{entry}]}}"#);
        let Ok(Document::Index(index)) = Document::parse(text.as_bytes(), None) else {
            panic!("an index")
        };
        assert!(
            index
                .choose(&Platform::parse("linux/amd64").unwrap())
                .is_err()
        );
    }
}
