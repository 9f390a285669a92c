//! A cloud kernel of Debian's: fetched as a package, unpacked into the cache, its modules sorted out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::archive::Archive;
use crate::{install, sh};

/// Modules taken along, by the start of their path below `kernel/`; what they need comes with them.
const MODULES: &[&str] = &[
    "block/bfq.",
    "drivers/block/virtio_blk.",
    "drivers/char/hw_random/virtio-rng.",
    "drivers/net/dummy.",
    "drivers/net/ipvlan/",
    "drivers/net/macvlan.",
    "drivers/net/tun.",
    "drivers/net/veth.",
    "drivers/net/vxlan/",
    "drivers/virtio/virtio_pci.",
    "fs/autofs",
    "fs/fuse/",
    "fs/overlayfs/",
    "lib/libcrc32c.",
    "net/bridge/",
    "net/ipv4/netfilter/",
    "net/ipv6/netfilter/",
    "net/netfilter/",
    "net/sched/cls_cgroup.",
];

/// Which of Debian's kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Release {
    /// Debian 12's 6.1.
    #[default]
    Bookworm,
    /// Debian 11's 5.10, the oldest that Cooper runs on.
    Bullseye,
}

impl Release {
    /// How its packages' names begin.
    fn prefix(self) -> &'static str {
        match self {
            Self::Bookworm => "linux-image-6.1.0-",
            Self::Bullseye => "linux-image-5.10.0-",
        }
    }
}

/// An unpacked kernel.
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    name: String,
    modules: PathBuf,
}

impl Kernel {
    /// The newest cloud kernel that Debian has in this release, from the cache or from its archive.
    pub(super) fn fetch(cache: &Path, release: Release) -> Result<Self> {
        if let Some(kernel) = Self::cached(cache, release)? {
            return Ok(kernel);
        }
        install::debian(&["dpkg"])?;
        let apt = Apt::of(cache, release)?;
        let package = match newest_package(&apt, release)? {
            Some(package) => package,
            None => {
                println!("the package lists are missing or old: updating them");
                sh::run(apt.command("apt-get").args(["update", "-qq"]))?;
                newest_package(&apt, release)?
                    .with_context(|| format!("apt knows no {}*-cloud-amd64", release.prefix()))?
            }
        };
        println!("fetching Debian's kernel {package}, once");
        let directory = cache.join(&package);
        let part = cache.join(format!("{package}.part"));
        if part.exists() {
            fs::remove_dir_all(&part).with_context(|| format!("remove {}", part.display()))?;
        }
        fs::create_dir_all(&part).with_context(|| format!("create {}", part.display()))?;
        sh::run(
            apt.command("apt-get")
                .args(["download", "-qq", &package])
                .current_dir(&part),
        )?;
        let file = fs::read_dir(&part)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get download left no package in {}", part.display()))?;
        sh::run(sh::command("dpkg-deb").arg("-x").arg(&file).arg(&part))?;
        fs::remove_file(&file)?;
        fs::rename(&part, &directory)?;
        Self::cached(cache, release)?.with_context(|| format!("{package} has no kernel"))
    }

    fn cached(cache: &Path, release: Release) -> Result<Option<Self>> {
        for entry in fs::read_dir(cache).with_context(|| format!("read {}", cache.display()))? {
            let root = entry?.path();
            let package = super::file_name(&root);
            if !package.starts_with(release.prefix()) || package.ends_with(".part") {
                continue;
            }
            for file in fs::read_dir(root.join("boot"))? {
                let image = file?.path();
                if let Some(name) = super::file_name(&image).strip_prefix("vmlinuz-") {
                    return Ok(Some(Self {
                        modules: root.join("lib/modules").join(name),
                        name: name.to_owned(),
                        image,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Its version, as `uname -r` says.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Puts the wanted modules into the archive, with the tables by which the kernel asks for them.
    pub(super) fn add_modules(&self, archive: &mut Archive) -> Result<()> {
        let all = Modules::read(&self.modules)?;
        let root = format!("lib/modules/{}", self.name);
        let (mut dependencies, mut aliases) = (String::new(), String::new());
        for name in all.wanted() {
            let module = &all.by_name[&name];
            let content = fs::read(self.modules.join(&module.path))?;
            archive.file(&format!("{root}/{}", module.path), 0o644, &content);
            let needs: Vec<&str> = all
                .needs(&name)
                .iter()
                .map(|need| all.by_name[need].path.as_str())
                .collect();
            dependencies.push_str(&format!("{}: {}\n", module.path, needs.join(" ")));
            for alias in &module.aliases {
                aliases.push_str(&format!("alias {alias} {name}\n"));
            }
        }
        archive.file(
            &format!("{root}/modules.dep"),
            0o644,
            dependencies.as_bytes(),
        );
        archive.file(&format!("{root}/modules.alias"), 0o644, aliases.as_bytes());
        archive.file(&format!("{root}/modules.symbols"), 0o644, b"");
        // What depmod in the machine wants beside the modules.
        for name in [
            "modules.builtin",
            "modules.builtin.modinfo",
            "modules.order",
        ] {
            let content = fs::read(self.modules.join(name))?;
            archive.file(&format!("{root}/{name}"), 0o644, &content);
        }
        Ok(())
    }
}

/// The apt that knows a release: this machine's, or one with lists of its own.
struct Apt(Vec<String>);

impl Apt {
    fn of(cache: &Path, release: Release) -> Result<Self> {
        if release == Release::Bookworm {
            return Ok(Self(Vec::new()));
        }
        let state = cache.join("apt-bullseye");
        for directory in ["lists/partial", "cache/archives/partial"] {
            let directory = state.join(directory);
            fs::create_dir_all(&directory)
                .with_context(|| format!("create {}", directory.display()))?;
        }
        let mirror = install::mirror().context("the place of Debian's archive")?;
        let sources = state.join("sources.list");
        fs::write(
            &sources,
            format!("deb [signed-by={KEYRING}] {mirror} bullseye main\n"),
        )?;
        let option = |name: &str, path: PathBuf| format!("-o{name}={}", path.display());
        Ok(Self(vec![
            option("Dir::Etc::SourceList", sources),
            "-oDir::Etc::SourceParts=-".to_owned(),
            option("Dir::State::Lists", state.join("lists")),
            option("Dir::Cache", state.join("cache")),
        ]))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = sh::command(program);
        command.args(&self.0);
        command
    }
}

/// Debian's keys.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// `linux-image-<version>-<n>-cloud-amd64` with the highest number.
fn newest_package(apt: &Apt, release: Release) -> Result<Option<String>> {
    let names = sh::read(
        apt.command("apt-cache")
            .args(["pkgnames", release.prefix()]),
    )?;
    let number = |name: &str| -> Option<u32> {
        name.strip_prefix(release.prefix())?
            .strip_suffix("-cloud-amd64")?
            .parse()
            .ok()
    };
    let newest = names
        .lines()
        .filter_map(|name| Some((number(name)?, name)))
        .max();
    Ok(newest.map(|(_, name)| name.to_owned()))
}

/// What a module says about itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Module {
    /// Below the modules' directory: `kernel/fs/…`.
    path: String,
    depends: Vec<String>,
    aliases: Vec<String>,
}

/// All modules of a kernel, by name.
struct Modules {
    by_name: BTreeMap<String, Module>,
}

impl Modules {
    fn read(root: &Path) -> Result<Self> {
        let mut by_name = BTreeMap::new();
        let mut pending = vec![root.join("kernel")];
        while let Some(directory) = pending.pop() {
            for entry in
                fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?
            {
                let path = entry?.path();
                if path.is_dir() {
                    pending.push(path);
                } else if path.extension().is_some_and(|extension| extension == "ko") {
                    let below = path.strip_prefix(root)?.to_string_lossy().into_owned();
                    let stem = path
                        .file_stem()
                        .unwrap_or_default()
                        .to_string_lossy()
                        .replace('-', "_");
                    by_name.insert(stem, parse(below, &fs::read(&path)?));
                }
            }
        }
        Ok(Self { by_name })
    }

    /// The wanted modules and everything they need, each after what it needs.
    fn wanted(&self) -> Vec<String> {
        let is_wanted = |module: &Module| {
            module
                .path
                .strip_prefix("kernel/")
                .is_some_and(|path| MODULES.iter().any(|start| path.starts_with(start)))
        };
        let mut list: Vec<String> = Vec::new();
        for (name, module) in &self.by_name {
            if is_wanted(module) {
                let needs = self.needs(name);
                list.extend(needs.into_iter().rev().chain([name.clone()]));
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        list.retain(|name| seen.insert(name.clone()));
        list
    }

    /// What a module needs, directly and indirectly; what must be there first comes last (as in `modules.dep`).
    fn needs(&self, name: &str) -> Vec<String> {
        let mut needs: Vec<String> = Vec::new();
        let mut pending: Vec<String> = self.by_name[name].depends.clone();
        while let Some(next) = pending.pop() {
            let Some(module) = self.by_name.get(&next) else {
                continue;
            };
            needs.retain(|need| *need != next);
            pending.extend(module.depends.iter().cloned());
            needs.push(next);
        }
        needs
    }
}

/// Reads the `.modinfo` strings, which lie in the file as `key=value` between zero bytes.
fn parse(path: String, content: &[u8]) -> Module {
    let mut module = Module {
        path,
        ..Module::default()
    };
    for field in content.split(|byte| *byte == 0) {
        let Ok(field) = std::str::from_utf8(field) else {
            continue;
        };
        if let Some(names) = field.strip_prefix("depends=") {
            let names = names.split(',').filter(|name| !name.is_empty());
            module.depends = names.map(|name| name.replace('-', "_")).collect();
        } else if let Some(alias) = field.strip_prefix("alias=") {
            module.aliases.push(alias.to_owned());
        }
    }
    module
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(list: &[(&str, &str, &[&str])]) -> Modules {
        let module = |path: &str, depends: &[&str]| Module {
            path: path.to_owned(),
            depends: depends.iter().map(|name| (*name).to_owned()).collect(),
            aliases: Vec::new(),
        };
        Modules {
            by_name: list
                .iter()
                .map(|(name, path, depends)| ((*name).to_owned(), module(path, depends)))
                .collect(),
        }
    }

    #[test]
    fn what_is_needed_comes_before() {
        let all = modules(&[
            ("bridge", "kernel/net/bridge/bridge.ko", &["stp", "llc"]),
            ("stp", "kernel/net/802/stp.ko", &["llc"]),
            ("llc", "kernel/net/llc/llc.ko", &[]),
            ("other", "kernel/fs/other.ko", &[]),
        ]);
        assert_eq!(all.wanted(), ["llc", "stp", "bridge"]);
        assert_eq!(all.needs("bridge"), ["stp", "llc"]);
    }

    #[test]
    fn modules_describe_themselves() {
        let module = parse(
            "x.ko".to_owned(),
            b"\x7fELF\0alias=fs-overlay\0depends=a-b,c\0name=x\0\xff\0",
        );
        assert_eq!(module.depends, ["a_b", "c"]);
        assert_eq!(module.aliases, ["fs-overlay"]);
    }
}
