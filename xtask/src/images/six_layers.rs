//! The image of the pull benchmark: six layers of files as Debian's packages bring them.
//!
//! Packages are taken apart, not installed: no script runs, owners, modes and times are the packages' own, so
//! the same packages give the same bytes. Made once; a registry's directory in the cache holds the result.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::registry::Registry;
use crate::sh;

/// Repository and tag.
pub(crate) const REFERENCE: &str = "cooper-bench/six-layers:latest";

/// What each layer is made of, bottom first: DESIGN section 5 asks for six layers, 530 MB compressed, 1.5 GB
/// unpacked, 34,800 files. Few large files and many small ones, texts, programs and what is compressed already.
const LAYERS: [&[&str]; 6] = [
    &[
        "coreutils",
        "bash",
        "libc6",
        "perl-base",
        "libperl5.36",
        "perl-modules-5.36",
        "git",
        "git-man",
        "vim-runtime",
        "gcc-12",
        "libgcc-12-dev",
        "libstdc++-12-dev",
    ],
    &["libboost1.81-dev", "openjdk-17-jdk-headless"],
    &["golang-1.19-go"],
    &[
        "golang-1.19-src",
        "fonts-noto-core",
        "node-typescript",
        "libicu-dev",
    ],
    &["fonts-noto-cjk"],
    &[
        "openjdk-17-jre-headless",
        "libpython3.11-stdlib",
        "postgresql-15",
    ],
];

const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry that has the image, on a free port of 127.0.0.1. The first call on a machine makes the image:
/// some 400 MB of packages and a few minutes.
pub(super) fn serve(cache: &Path) -> Result<Registry> {
    let root = cache.join("six-layers");
    let finished = cache.join("six-layers.finished");
    if finished.exists() {
        return Registry::start_anywhere(&root);
    }
    println!("{REFERENCE}: packages of Debian in six layers, a few minutes, once");
    if root.exists() {
        std::fs::remove_dir_all(&root)?;
    }
    std::fs::create_dir_all(&root)?;
    let registry = Registry::start_anywhere(&root)?;
    let layout = tempfile::Builder::new()
        .prefix("six-layers-")
        .tempdir_in(cache)?;
    make(layout.path()).with_context(|| format!("make {REFERENCE}"))?;
    registry.push(
        &format!("oci:{}:latest", layout.path().display()),
        REFERENCE,
    )?;
    std::fs::write(&finished, "")?;
    Ok(registry)
}

/// Writes the image as an OCI layout into the empty directory `layout`.
fn make(layout: &Path) -> Result<()> {
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let mut layers = Vec::new();
    let mut diff_ids = Vec::new();
    for packages in LAYERS {
        let work = tempfile::tempdir_in(layout)?;
        let archive = archive(work.path(), packages)?;
        diff_ids.push(format!("sha256:{}", sha256(&archive)?));
        sh::run(sh::command("gzip").arg("-n").arg(&archive))?;
        layers.push(store(
            &blobs,
            &archive.with_extension("tar.gz"),
            LAYER_TYPE,
        )?);
    }
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = store_document(&blobs, &config, CONFIG_TYPE)?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers,
    });
    let mut manifest = store_document(&blobs, &manifest, MANIFEST_TYPE)?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(layout.join("index.json"), serde_json::to_vec(&index)?)?;
    std::fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    Ok(())
}

/// Downloads the packages, takes them apart in one tree and answers its archive.
fn archive(work: &Path, packages: &[&str]) -> Result<std::path::PathBuf> {
    let (downloads, tree) = (work.join("packages"), work.join("tree"));
    std::fs::create_dir(&downloads)?;
    std::fs::create_dir(&tree)?;
    let mut download = sh::command("apt-get");
    // Its own user could not write here.
    download.args(["-qq", "-o", "APT::Sandbox::User=root", "download"]);
    sh::run(download.args(packages).current_dir(&downloads))?;
    let mut files: Vec<_> = std::fs::read_dir(&downloads)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    ensure!(files.len() == packages.len(), "apt-get brought {files:?}");
    for file in &files {
        let mut unpack = sh::command("dpkg-deb");
        sh::run(unpack.arg("-x").arg(file).arg(&tree).stdout(Stdio::null()))?;
    }
    let archive = work.join("layer.tar");
    let mut tar = super::recipe::tar_of(&tree);
    sh::run(tar.arg("-f").arg(&archive))?;
    Ok(archive)
}

fn sha256(file: &Path) -> Result<String> {
    let line = sh::read(sh::command("sha256sum").arg(file))?;
    let digest = line.split(' ').next().unwrap_or_default();
    ensure!(digest.len() == 64, "sha256sum says {line:?}");
    Ok(digest.to_owned())
}

/// Moves `file` to where its digest says and answers its descriptor.
fn store(blobs: &Path, file: &Path, media_type: &str) -> Result<Value> {
    let digest = sha256(file)?;
    let size = std::fs::metadata(file)?.len();
    std::fs::rename(file, blobs.join(&digest))?;
    Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size }))
}

fn store_document(blobs: &Path, document: &Value, media_type: &str) -> Result<Value> {
    let file = blobs.join("document");
    std::fs::write(&file, serde_json::to_vec(document)?)?;
    store(blobs, &file, media_type)
}
