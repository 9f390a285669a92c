//! What each image is made of.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::archive;

use crate::{install, sh};

/// One image.
pub(super) struct Recipe {
    /// Repository and tag.
    pub(super) reference: &'static str,
    /// For the person who waits.
    pub(super) what: &'static str,
    contents: Contents,
}

enum Contents {
    /// Debian's static busybox with its applets.
    Busybox,
    /// One static program that greets.
    Hello,
    /// A minimal Debian.
    Debian,
    /// Packages on top of the minimal Debian, files written into it, and how it runs.
    Server(Server),
}

struct Server {
    packages: &'static str,
    files: &'static [(&'static str, &'static str)],
    config: fn() -> Value,
}

/// Every image, bases first.
pub(super) const RECIPES: &[Recipe] = &[
    Recipe {
        reference: "busybox:latest",
        what: "a static busybox",
        contents: Contents::Busybox,
    },
    Recipe {
        reference: "hello-world:latest",
        what: "one static program",
        contents: Contents::Hello,
    },
    Recipe {
        reference: "debian:bookworm-slim",
        what: "a minimal Debian, about a minute",
        contents: Contents::Debian,
    },
    Recipe {
        reference: "tomcat:9.0",
        what: "Debian's Tomcat and Java, two minutes",
        contents: Contents::Server(Server {
            packages: "tomcat10 openjdk-17-jre-headless",
            files: &[],
            config: tomcat,
        }),
    },
    Recipe {
        reference: "postgres:9.3",
        what: "Debian's PostgreSQL, a minute",
        contents: Contents::Server(Server {
            packages: "postgresql postgresql-client",
            files: &[("usr/local/bin/docker-entrypoint.sh", POSTGRES_ENTRYPOINT)],
            config: postgres,
        }),
    },
];

const HELLO: &str = r#"
#include <stdio.h>
int main(void) {
    puts("\nHello from Docker!\nThis container was made by the engine that you are talking to.\n");
    return 0;
}
"#;

const POSTGRES_ENTRYPOINT: &str = r#"#!/bin/sh
# Makes the database at the first start, then becomes the server, as user postgres.
set -e
bin=$(echo /usr/lib/postgresql/*/bin)
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /run/postgresql
    chown postgres:postgres "$PGDATA" /run/postgresql
    chmod 700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
[ -s "$PGDATA/PG_VERSION" ] || "$bin/initdb" --auth=trust --no-sync >/dev/null
exec "$bin/$1" -D "$PGDATA" -c listen_addresses='*'
"#;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn tomcat() -> Value {
    json!({
        "Env": [PATH, "CATALINA_HOME=/usr/share/tomcat10", "CATALINA_BASE=/var/lib/tomcat10"],
        "Cmd": ["/usr/share/tomcat10/bin/catalina.sh", "run"],
        "ExposedPorts": {"8080/tcp": {}},
        "WorkingDir": "/usr/share/tomcat10",
    })
}

fn postgres() -> Value {
    json!({
        "Env": [PATH, "PGDATA=/var/lib/postgresql/data"],
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["postgres"],
        "ExposedPorts": {"5432/tcp": {}},
        "Volumes": {"/var/lib/postgresql/data": {}},
        "StopSignal": "SIGINT",
    })
}

/// Installs `$3` on top of the tree `$1` and leaves what that changed in `$2`, with files deleted from the tree as
/// `.wh.` entries. Runs in a mount namespace of its own, so that no mount is left whatever happens.
const INSTALL: &str = r#"
set -e
mkdir -p "$2/upper" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work,redirect_dir=off,index=off,metacopy=off" "$2/root"
mount -t proc proc "$2/root/proc"
cp /etc/resolv.conf "$2/root/etc/resolv.conf"
printf '#!/bin/sh\nexit 101\n' >"$2/root/usr/sbin/policy-rc.d"; chmod 755 "$2/root/usr/sbin/policy-rc.d"
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
chroot "$2/root" apt-get update -qq
chroot "$2/root" apt-get install -y -qq --no-install-recommends $3
chroot "$2/root" apt-get clean
umount "$2/root/proc"
rm -rf "$2/root/var/lib/apt/lists" "$2/root/usr/share/doc" "$2/root/usr/share/man" "$2/root/usr/sbin/policy-rc.d"
umount "$2/root"
find "$2/upper" -type c | while read -r gone; do rm "$gone"; : >"$(dirname "$gone")/.wh.$(basename "$gone")"; done
"#;

impl Recipe {
    /// The archive's file name.
    pub(super) fn file(&self) -> String {
        format!("{}.tar", self.reference.replace([':', '/'], "_"))
    }

    /// The `config` object of the image.
    pub(super) fn config(&self) -> Value {
        match &self.contents {
            Contents::Busybox => archive::config(&["sh"]),
            Contents::Hello => archive::config(&["/hello"]),
            Contents::Debian => archive::config(&["bash"]),
            Contents::Server(server) => (server.config)(),
        }
    }

    /// The layers as uncompressed tars, lowest first.
    pub(super) fn layers(&self, cache: &Path) -> Result<Vec<Vec<u8>>> {
        match &self.contents {
            Contents::Busybox => Ok(vec![archive::layer(&archive::busybox())]),
            Contents::Hello => Ok(vec![hello(cache)?]),
            Contents::Debian => Ok(vec![tar(&debian(cache)?)?]),
            Contents::Server(server) => Ok(vec![tar(&debian(cache)?)?, server.layer(cache)?]),
        }
    }
}

fn hello(cache: &Path) -> Result<Vec<u8>> {
    let (source, program) = (cache.join("hello.c"), cache.join("hello"));
    std::fs::write(&source, HELLO)?;
    sh::run(
        sh::command("gcc")
            .args(["-static", "-Os", "-s", "-o"])
            .args([&program, &source]),
    )?;
    Ok(archive::layer(&[archive::Entry::file(
        "hello",
        0o755,
        std::fs::read(program)?,
    )]))
}

/// The tree of a minimal Debian, made once.
pub(super) fn debian(cache: &Path) -> Result<std::path::PathBuf> {
    let tree = cache.join("debian");
    let finished = cache.join("debian.finished");
    if !finished.exists() {
        // Most often it is not there.
        drop(std::fs::remove_dir_all(&tree));
        let mut debootstrap = sh::command("debootstrap");
        debootstrap
            .args(["--variant=minbase", "bookworm"])
            .arg(&tree);
        if let Some(mirror) = install::mirror() {
            debootstrap.arg(mirror);
        }
        sh::run(debootstrap.stdout(Stdio::null()))?;
        for spare in [
            "var/cache/apt/archives",
            "var/lib/apt/lists",
            "usr/share/doc",
            "usr/share/man",
        ] {
            // Only space is lost.
            drop(std::fs::remove_dir_all(tree.join(spare)));
        }
        std::fs::write(&finished, "")?;
    }
    Ok(tree)
}

/// A command that archives a directory, the same bytes each time; to standard output unless told otherwise.
pub(super) fn tar_of(tree: &Path) -> Command {
    let mut command = sh::command("tar");
    command.arg("-C").arg(tree);
    command.args([
        "--sort=name",
        "--numeric-owner",
        "--xattrs",
        "--format=posix",
    ]);
    command.args(["--pax-option=delete=atime,delete=ctime", "-c", "."]);
    command
}

/// A directory as an uncompressed tar.
fn tar(tree: &Path) -> Result<Vec<u8>> {
    let output = tar_of(tree)
        .stderr(Stdio::inherit())
        .output()
        .context("run tar")?;
    ensure!(
        output.status.success(),
        "tar {}: {}",
        tree.display(),
        output.status
    );
    Ok(output.stdout)
}

impl Server {
    fn layer(&self, cache: &Path) -> Result<Vec<u8>> {
        let base = debian(cache)?;
        let work = tempfile::Builder::new()
            .prefix("image-")
            .tempdir_in(cache)?;
        let mut install = sh::command("unshare");
        install.args([
            "-m",
            "--propagation",
            "private",
            "sh",
            "-c",
            INSTALL,
            "install",
        ]);
        sh::run(
            install
                .arg(&base)
                .arg(work.path())
                .arg(self.packages)
                .stdout(Stdio::null()),
        )?;
        let upper = work.path().join("upper");
        for (path, content) in self.files {
            let path = upper.join(path);
            std::fs::create_dir_all(path.parent().context("a path with a parent")?)?;
            std::fs::write(&path, content)?;
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        }
        tar(&upper)
    }
}
