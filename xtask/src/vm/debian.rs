//! The machine's root: a Debian 12 with systemd on a disk image, made once.
//!
//! Nothing writes to the image: a machine keeps its changes to itself, and they end with it.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::{images, install, sh};

/// What is in it besides what every Debian has: the service manager, what the tutorials type, and what the tests run.
const PACKAGES: &str = "systemd systemd-sysv curl procps iproute2 nftables iptables kmod busybox-static \
                        docker-registry skopeo psmisc runc python3-docker";

/// Whose command line is taken alone: its engine would be in the way.
const DOCKER_CLI: &str = "docker.io";

/// Installs `$2` into the tree `$1`. Runs in a mount namespace of its own, so that no mount is left whatever happens.
const INSTALL: &str = r#"
set -e
mount -t proc proc "$1/proc"
cp /etc/resolv.conf "$1/etc/resolv.conf"
printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"; chmod 755 "$1/usr/sbin/policy-rc.d"
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
chroot "$1" apt-get update -qq
chroot "$1" apt-get install -y -qq --no-install-recommends $2
chroot "$1" sh -ec 'cd /tmp; apt-get download -qq "$0"; dpkg-deb -x "$0"_*.deb cli; mv cli/usr/bin/docker /usr/local/bin/; rm -r cli "$0"_*.deb' "$3"
chroot "$1" apt-get clean
umount "$1/proc"
rm -rf "$1/var/lib/apt/lists" "$1/usr/share/doc" "$1/usr/share/man" "$1/usr/sbin/policy-rc.d"
"#;

/// Size of the disk (a sparse file), in bytes: images, layers and volumes of all tests of a boot have room.
const DISK_BYTES: &str = "8G";

/// The image from the cache, or made now.
pub(super) fn disk(cache: &Path) -> Result<PathBuf> {
    let mut recipe = DefaultHasher::new();
    (PACKAGES, DOCKER_CLI, DISK_BYTES).hash(&mut recipe);
    let disk = cache.join(format!("debian-{:016x}.ext4", recipe.finish()));
    if disk.exists() {
        return Ok(disk);
    }
    println!("making the machine's Debian: two minutes, once");
    install::debian(&["e2fsprogs"])?;
    let tree = cache.join("debian.tree");
    remove(&tree)?;
    let base = images::debian()?;
    sh::run(sh::command("cp").arg("-a").args([&base, &tree]))?;
    let mut install = sh::command("unshare");
    install
        .args(["-m", "--propagation", "private", "sh", "-c", INSTALL])
        .arg("install")
        .arg(&tree)
        .args([PACKAGES, DOCKER_CLI]);
    sh::run(install.stdout(Stdio::null()))?;
    let part = cache.join("debian.part");
    sh::run(
        sh::command("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d"])
            .args([&tree, &part])
            .arg(DISK_BYTES),
    )?;
    fs::rename(&part, &disk)?;
    remove(&tree)?;
    Ok(disk)
}

fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display()))?;
    }
    Ok(())
}
