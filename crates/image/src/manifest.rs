//! Manifests and indexes, OCI and Docker schema 2: parsed strictly, bytes kept by the caller.
//!
//! One document has one meaning: what could be read as a manifest and as an index is refused, and so is a
//! key that stands twice (CVE-2021-41190). Sizes and counts are bounded before anything is allocated.

mod platform;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use self::platform::Platform;
use crate::digest::Digest;

/// The largest manifest or index, in bytes: what registries take (distribution's `maxManifestBodySize`).
pub const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;
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

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn descriptor(extra: &str) -> String {
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
        // distribution refuses a manifest above 4 << 20 bytes.
        let mut large = manifest("");
        large.push_str(&" ".repeat((4 << 20) - large.len()));
        Document::parse(large.as_bytes(), None).expect("as large as registries take");
        large.push(' ');
        check_error(&large, None, "exceeds the limit of 4194304 bytes");
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
}
