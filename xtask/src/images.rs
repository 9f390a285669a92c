//! `cargo xtask images`: test images from Debian packages, and a registry on loopback that serves them.
//!
//! Every image is made once and kept in `.cache/images` as a docker-archive. Real images cannot be had
//! without the public registries, so real servers from Debian stand in under the names people type.

mod recipe;
mod registry;
mod six_layers;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{install, sh};
use recipe::{RECIPES, Recipe};
pub(crate) use registry::Registry;
pub(crate) use six_layers::REFERENCE as SIX_LAYERS;

/// What making images needs on the host.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "debootstrap",
    "docker-registry",
    "curl",
    "skopeo",
];

/// Where Debian's docker-registry listens unless told otherwise.
const REGISTRY_PORT: u16 = 5055;

/// Makes every image that is not there yet; `serve [port]` then pushes them to a registry on loopback.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if !install::is_root() {
        bail!("debootstrap makes device nodes and changes owners: run this as root");
    }
    install::debian(PACKAGES)?;
    let cache = prepare()?;
    let _lock = lock(&cache)?;
    for recipe in RECIPES {
        make(recipe, &cache)?;
    }
    match arguments.first().map(String::as_str) {
        None => Ok(()),
        Some("serve") => {
            let port = arguments
                .get(1)
                .map_or(Ok(REGISTRY_PORT), |port| port.parse())?;
            serve(port, &cache)
        }
        Some(other) => bail!("unknown word {other}: images takes nothing or `serve [port]`"),
    }
}

/// The tree of a minimal Debian, which nobody may change; made when it is not there yet.
pub(crate) fn debian() -> Result<PathBuf> {
    if !install::is_root() {
        bail!("debootstrap makes device nodes and changes owners: run this as root");
    }
    install::debian(&["debootstrap"])?;
    let cache = directory();
    std::fs::create_dir_all(&cache)?;
    let lock = File::create(cache.join("lock"))?;
    lock.lock()?;
    recipe::debian(&cache)
}

/// Where the archives lie.
pub(crate) fn directory() -> PathBuf {
    sh::root().join(".cache/images")
}

fn prepare() -> Result<PathBuf> {
    let cache = directory();
    std::fs::create_dir_all(&cache)?;
    Ok(cache)
}

/// Two runs beside each other must not make the same image twice.
fn lock(cache: &Path) -> Result<File> {
    let lock = File::create(cache.join("lock"))?;
    lock.lock()?;
    Ok(lock)
}

fn make(recipe: &Recipe, cache: &Path) -> Result<()> {
    let archive = cache.join(recipe.file());
    if archive.exists() {
        println!("{}: there already", recipe.reference);
        return Ok(());
    }
    println!("{}: {}", recipe.reference, recipe.what);
    let layers = recipe
        .layers(cache)
        .with_context(|| format!("make {}", recipe.reference))?;
    let bytes = testkit::archive::docker_archive(recipe.reference, &layers, &recipe.config());
    // Whole or not at all: the next run takes what lies here for finished.
    let unfinished = archive.with_extension("part");
    std::fs::write(&unfinished, bytes)?;
    std::fs::rename(&unfinished, &archive)?;
    Ok(())
}

/// Serves the images from Debian's docker-registry on 127.0.0.1 until it is ended.
fn serve(port: u16, cache: &Path) -> Result<()> {
    let registry = Registry::start(port, &cache.join("registry"))?;
    for recipe in RECIPES {
        let source = format!("docker-archive:{}", cache.join(recipe.file()).display());
        registry.push(&source, recipe.reference)?;
    }
    println!("serving on {} until Ctrl-C", registry.address());
    registry.wait()
}

/// A registry on loopback that has [`SIX_LAYERS`], the image of the pull benchmark.
pub(crate) fn six_layers() -> Result<Registry> {
    install::debian(&["docker-registry", "curl", "skopeo"])?;
    let cache = prepare()?;
    let _lock = lock(&cache)?;
    six_layers::serve(&cache)
}
