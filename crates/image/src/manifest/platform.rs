//! Platforms: how they are written, and which of an index's entries a machine can run.

use serde::{Deserialize, Serialize};

use super::{Descriptor, Index, ManifestError};

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
    use crate::manifest::Document;
    use crate::manifest::tests::descriptor;

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
