//! What lies in an image archive: its files as ingested blobs, and which images they make up.
//!
//! docker-archive (`manifest.json`, also with the links between layers that old versions wrote) is preferred;
//! else OCI layout (`index.json`). No path of the archive touches the file system: they are keys.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::sync::Arc;

use serde::Deserialize;

use crate::config::ImageConfig;
use crate::content::Finished;
use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{
    CONFIG_BYTES_MAX, Descriptor, Document, INDEX_DEPTH_MAX, Index, MANIFEST_BYTES_MAX, Manifest,
    Platform,
};
use crate::reference::Reference;
use crate::store::Store;
use crate::unpack::NEVER;
use crate::unpack::extract::components;
use crate::unpack::pipeline::Pipeline;
use crate::unpack::reader::{EntryKind, Tar, TarError};

/// The most files of one archive.
const FILES_MAX: usize = 100_000;
/// The most links one path may lead over.
const LINKS_MAX: usize = 8;
/// The most images of one archive.
const IMAGES_MAX: usize = 1024;

/// The files of an archive.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    files: HashMap<String, Finished>,
    links: HashMap<String, String>,
    /// Digest and size, also of files that were taken.
    known: HashMap<String, (Digest, u64)>,
}

/// One image of the archive.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) id: Digest,
    pub(crate) config: Arc<ImageConfig>,
    pub(crate) manifest: Option<Digest>,
    pub(crate) parent: Option<Digest>,
    pub(crate) layers: Vec<PlannedLayer>,
    pub(crate) names: Vec<Reference>,
    /// Where its configuration and manifest lie in the archive.
    documents: Vec<String>,
}

/// A layer's blob.
#[derive(Debug)]
pub(crate) struct PlannedLayer {
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
    path: String,
}

impl Plan {
    /// The files it needs.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        let layers = self.layers.iter().map(|layer| layer.path.as_str());
        self.documents.iter().map(String::as_str).chain(layers)
    }

    /// The blobs it needs.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Digest> {
        let layers = self.layers.iter().map(|layer| &layer.digest);
        std::iter::once(&self.id)
            .chain(&self.manifest)
            .chain(layers)
    }
}

impl Archive {
    /// Reads the whole archive, compressed or not, into ingest files.
    pub(crate) fn read(store: &Store, input: &mut (dyn Read + Send)) -> Result<Self, Error> {
        std::thread::scope(|scope| {
            let mut tar = Tar::new(Pipeline::start(scope, Box::new(input), None, &NEVER));
            let mut archive = Self::default();
            while let Some(entry) = tar.next().map_err(read_error)? {
                let count = archive.files.len() + archive.links.len();
                if count >= FILES_MAX {
                    let text = format!("the archive has more than {FILES_MAX} files");
                    return Err(Error::Invalid(text));
                }
                let path = key(&entry.path)?;
                match entry.kind {
                    EntryKind::Regular if entry.fragments.is_none() => {
                        let blob = ingest(store, &mut tar)?;
                        let known = (blob.digest().clone(), blob.size_bytes());
                        archive.links.remove(&path);
                        archive.known.insert(path.clone(), known);
                        archive.files.insert(path, blob);
                    }
                    EntryKind::Symlink => {
                        let target = String::from_utf8_lossy(&entry.link).into_owned();
                        let base = path.rsplit_once('/').map_or("", |(base, _)| base);
                        let target = if target.starts_with('/') {
                            target
                        } else {
                            format!("{base}/{target}")
                        };
                        archive.links.insert(path, key(target.as_bytes())?);
                    }
                    EntryKind::HardLink => {
                        archive.links.insert(path, key(&entry.link)?);
                    }
                    EntryKind::Directory => {}
                    EntryKind::Regular
                    | EntryKind::Character
                    | EntryKind::Block
                    | EntryKind::Fifo => {
                        let text = format!("the archive holds {path:?}, which is no plain file");
                        return Err(Error::Invalid(text));
                    }
                }
            }
            tar.finish().map_err(read_error)?;
            Ok(archive)
        })
    }

    /// Takes a file out, to be stored; `None` when it was taken before.
    pub(crate) fn take(&mut self, path: &str) -> Option<Finished> {
        self.files.remove(path)
    }

    /// Follows the archive's own links to a file.
    fn resolve(&self, path: &str) -> Result<String, Error> {
        let missing = || Error::Invalid(format!("open {path}: no such file or directory"));
        let mut current = key(path.as_bytes())?;
        for _ in 0..LINKS_MAX {
            if self.known.contains_key(&current) {
                return Ok(current);
            }
            current = self.links.get(&current).ok_or_else(missing)?.clone();
        }
        Err(missing())
    }

    fn document(&self, path: &str, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        let path = self.resolve(path)?;
        let (_, size) = self.known[&path];
        if size > limit_bytes {
            return Err(Error::Invalid(format!(
                "{path} of {size} bytes exceeds the limit of {limit_bytes} bytes"
            )));
        }
        self.files[&path].read(limit_bytes)
    }

    /// A blob of an OCI layout; its bytes have the digest, or the archive lies.
    fn blob(&self, descriptor: &Descriptor) -> Result<String, Error> {
        let digest = &descriptor.digest;
        let path = self.resolve(&format!(
            "blobs/{}/{}",
            digest.algorithm().name(),
            digest.hex()
        ))?;
        let (found, size) = &self.known[&path];
        if found != digest {
            return Err(Error::DigestMismatch {
                what: path,
                expected: digest.clone(),
                found: found.clone(),
            });
        }
        if *size != descriptor.size {
            return Err(Error::Invalid(format!(
                "{path} has {size} bytes, its descriptor says {}",
                descriptor.size
            )));
        }
        Ok(path)
    }
}

fn ingest(store: &Store, tar: &mut Tar<Pipeline>) -> Result<Finished, Error> {
    let mut writer = store.blob_writer(None)?;
    loop {
        let content = tar.content().map_err(|error| read_error(error.into()))?;
        if content.is_empty() {
            return writer.finish();
        }
        let length = writer.write(content).map_err(|source| Error::Io {
            operation: "store a file of the archive in",
            path: store.inner().content.path().to_owned(),
            source,
        })?;
        tar.consume(length);
    }
}

fn read_error(error: TarError) -> Error {
    match error {
        TarError::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Error::Invalid("unexpected EOF".to_owned())
        }
        TarError::Read(error) => Error::Read(error),
        TarError::Header(detail) => {
            tracing::debug!(detail, "the archive to load is malformed");
            Error::Invalid("archive/tar: invalid tar header".to_owned())
        }
        error @ (TarError::Type(_) | TarError::Limit { .. }) => Error::Invalid(error.to_string()),
    }
}

/// A path of the archive in one spelling.
fn key(path: &[u8]) -> Result<String, Error> {
    let parts = components(path).map_err(|error| Error::Invalid(error.to_string()))?;
    Ok(String::from_utf8_lossy(&parts.join(&b'/')).into_owned())
}

/// An entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
    #[serde(default)]
    parent: Option<String>,
}

/// Works out which images the archive holds.
pub(crate) fn plan(archive: &mut Archive) -> Result<Vec<Plan>, Error> {
    if archive.known.contains_key("manifest.json") {
        return docker_archive(archive);
    }
    if archive.known.contains_key("index.json") {
        return oci_layout(archive);
    }
    Err(Error::Invalid(
        "invalid archive: does not contain a manifest.json".to_owned(),
    ))
}

fn json_error(error: &serde_json::Error) -> Error {
    if error.is_eof() {
        return Error::Invalid("unexpected EOF".to_owned());
    }
    Error::Invalid(error.to_string())
}

fn docker_archive(archive: &Archive) -> Result<Vec<Plan>, Error> {
    let bytes = archive.document("manifest.json", MANIFEST_BYTES_MAX)?;
    // Go finds out that the text is cut before it looks at what is in it.
    serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).map_err(|e| json_error(&e))?;
    let images: Vec<DockerImage> = serde_json::from_slice(&bytes).map_err(|e| json_error(&e))?;
    bounded(images.len())?;
    images
        .iter()
        .map(|image| docker_image(archive, image))
        .collect()
}

fn bounded(images: usize) -> Result<(), Error> {
    if images > IMAGES_MAX {
        return Err(Error::Invalid(format!(
            "the archive has more than {IMAGES_MAX} images"
        )));
    }
    Ok(())
}

fn docker_image(archive: &Archive, image: &DockerImage) -> Result<Plan, Error> {
    let config_path = archive.resolve(&image.config)?;
    let config = read_config(archive, &config_path)?;
    let paths = image.layers.as_deref().unwrap_or_default();
    let (expected, found) = (paths.len(), config.rootfs.diff_ids.len());
    if expected != found {
        return Err(Error::Invalid(format!(
            "invalid manifest, layers length mismatch: expected {expected}, got {found}"
        )));
    }
    let mut layers = Vec::with_capacity(paths.len());
    for path in paths {
        layers.push(planned_layer(archive, archive.resolve(path)?));
    }
    let mut names = Vec::new();
    for tag in image.repo_tags.iter().flatten() {
        let reference = Reference::parse(tag)?;
        if reference.tag().is_none() || reference.digest().is_some() {
            return Err(Error::Invalid(format!("invalid tag {tag:?}")));
        }
        names.push(reference);
    }
    let parent = image.parent.as_deref().filter(|parent| !parent.is_empty());
    let parent = parent.map(Digest::parse).transpose();
    let parent = parent.map_err(|error| Error::Invalid(error.to_string()))?;
    Ok(Plan {
        id: archive.known[&config_path].0.clone(),
        config: Arc::new(config),
        manifest: None,
        parent,
        layers,
        names,
        documents: vec![config_path],
    })
}

fn planned_layer(archive: &Archive, path: String) -> PlannedLayer {
    let (digest, size_bytes) = archive.known[&path].clone();
    PlannedLayer {
        digest,
        size_bytes,
        path,
    }
}

fn read_config(archive: &Archive, path: &str) -> Result<ImageConfig, Error> {
    let config = ImageConfig::parse(&archive.document(path, CONFIG_BYTES_MAX)?)?;
    let os = config.operating_system();
    if os != "linux" {
        return Err(Error::Invalid(format!("cannot load {os} image on linux")));
    }
    Ok(config)
}

fn oci_layout(archive: &Archive) -> Result<Vec<Plan>, Error> {
    let bytes = archive.document("index.json", MANIFEST_BYTES_MAX)?;
    let Document::Index(index) = Document::parse(&bytes, None)? else {
        return Err(Error::Invalid("index.json is not an index".to_owned()));
    };
    bounded(index.manifests.len())?;
    // Several names of one image are several entries.
    let mut plans: Vec<Plan> = Vec::new();
    let mut positions: BTreeMap<Digest, usize> = BTreeMap::new();
    for entry in index
        .manifests
        .iter()
        .filter(|entry| !entry.is_attestation())
    {
        let name = oci_name(entry)?;
        let plan = oci_image(archive, entry)?;
        let position = *positions.entry(plan.id.clone()).or_insert(plans.len());
        if position == plans.len() {
            plans.push(plan);
        }
        plans[position].names.extend(name);
    }
    Ok(plans)
}

/// containerd's annotation has the whole name; the OCI one often only the tag, which is no name.
fn oci_name(entry: &Descriptor) -> Result<Option<Reference>, Error> {
    let full = entry.annotation("io.containerd.image.name");
    let short = entry.annotation("org.opencontainers.image.ref.name");
    let Some(name) = full.or(short.filter(|name| name.contains([':', '/']))) else {
        return Ok(None);
    };
    let reference = Reference::parse(name)?;
    if reference.digest().is_some() {
        return Err(Error::Invalid(format!("invalid tag {name:?}")));
    }
    Ok(Some(reference.or_latest()))
}

fn oci_image(archive: &Archive, entry: &Descriptor) -> Result<Plan, Error> {
    let (manifest_path, manifest) = choose(archive, entry, INDEX_DEPTH_MAX)?;
    let config_path = archive.blob(&manifest.config)?;
    let config = read_config(archive, &config_path)?;
    let (expected, found) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if expected != found {
        return Err(Error::Invalid(format!(
            "invalid manifest, layers length mismatch: expected {expected}, got {found}"
        )));
    }
    let mut layers = Vec::with_capacity(manifest.layers.len());
    for layer in &manifest.layers {
        layers.push(planned_layer(archive, archive.blob(layer)?));
    }
    Ok(Plan {
        id: manifest.config.digest.clone(),
        config: Arc::new(config),
        manifest: Some(archive.known[&manifest_path].0.clone()),
        parent: None,
        layers,
        names: Vec::new(),
        documents: vec![config_path, manifest_path],
    })
}

/// Descends through indexes to the best manifest for this machine that the archive holds.
fn choose(
    archive: &Archive,
    entry: &Descriptor,
    depth: usize,
) -> Result<(String, Manifest), Error> {
    let path = archive.blob(entry)?;
    let served_as = Some(entry.media_type.as_str());
    match Document::parse(&archive.document(&path, MANIFEST_BYTES_MAX)?, served_as)? {
        Document::Manifest(manifest) => Ok((path, manifest)),
        Document::Index(index) => {
            if depth == 0 {
                return Err(Error::Invalid(
                    "indexes lie too deep within each other".to_owned(),
                ));
            }
            let mut failed = None;
            for candidate in candidates(&index)? {
                match choose(archive, candidate, depth - 1) {
                    Ok(found) => return Ok(found),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            Err(failed.unwrap_or_else(|| Error::Invalid("the index has no entry".to_owned())))
        }
    }
}

/// An index without platforms has one image in it.
fn candidates(index: &Index) -> Result<Vec<&Descriptor>, Error> {
    if index.manifests.iter().all(|entry| entry.platform.is_none()) {
        return Ok(index
            .manifests
            .iter()
            .filter(|entry| !entry.is_attestation())
            .collect());
    }
    Ok(index.choose(&Platform::host())?)
}
