//! Small images as docker-archive tars: a static busybox with its applets, and whatever a test adds.

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Debian's static busybox, from the package busybox-static.
pub const BUSYBOX: &str = "/bin/busybox";

/// One file of a layer.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Path without a leading slash.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub kind: Kind,
}

/// What an [`Entry`] is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A regular file with these bytes.
    File(Vec<u8>),
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(String),
}

impl Entry {
    /// A regular file.
    pub fn file(path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            mode,
            kind: Kind::File(content.into()),
        }
    }

    /// A directory.
    pub fn directory(path: &str, mode: u32) -> Self {
        Self {
            path: path.into(),
            mode,
            kind: Kind::Directory,
        }
    }

    /// A symbolic link.
    pub fn symlink(path: &str, target: &str) -> Self {
        Self {
            path: path.into(),
            mode: 0o777,
            kind: Kind::Symlink(target.into()),
        }
    }
}

/// The files of a busybox image: the binary, a link for each applet, passwd, group and the usual directories.
pub fn busybox() -> Vec<Entry> {
    let binary = std::fs::read(BUSYBOX)
        .unwrap_or_else(|error| panic!("{BUSYBOX}: {error}: apt-get install busybox-static"));
    let listed = sys::command::Command::new(BUSYBOX)
        .arg("--list")
        .output()
        .expect("busybox --list");
    let mut entries = vec![
        Entry::directory("bin", 0o755),
        Entry::directory("dev", 0o755),
        Entry::directory("etc", 0o755),
        Entry::directory("home", 0o755),
        Entry::directory("proc", 0o755),
        Entry::directory("root", 0o700),
        Entry::directory("sys", 0o755),
        Entry::directory("tmp", 0o1777),
        Entry::directory("usr", 0o755),
        Entry::directory("var", 0o755),
        Entry::file("bin/busybox", 0o755, binary),
        Entry::file(
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
             bin:x:2:2:bin:/bin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\n\
             nobody:x:65534:65534:nobody:/home:/bin/false\n",
        ),
        Entry::file(
            "etc/group",
            0o644,
            "root:x:0:\ndaemon:x:1:\nbin:x:2:\nadm:x:4:\ntty:x:5:\nusers:x:100:\nwww-data:x:33:\nnobody:x:65534:\n",
        ),
    ];
    for applet in String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter(|name| *name != "busybox")
    {
        entries.push(Entry::symlink(&format!("bin/{applet}"), "busybox"));
    }
    entries
}

/// The `config` object of an image that runs `command`.
pub fn config(command: &[&str]) -> Value {
    json!({
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Cmd": command,
    })
}

/// A layer as an uncompressed tar.
pub fn layer(entries: &[Entry]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(entry.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        match &entry.kind {
            Kind::File(content) => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, &entry.path, content.as_slice())
            }
            Kind::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                builder.append_data(&mut header, format!("{}/", entry.path), std::io::empty())
            }
            Kind::Symlink(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, &entry.path, target)
            }
        }
        .expect("a tar in memory");
    }
    builder.into_inner().expect("a tar in memory")
}

/// The digest of these bytes, without its algorithm.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The configuration document of an image, whose digest is the image's id.
fn document(layers: &[Vec<u8>], config: &Value) -> Vec<u8> {
    let document = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-02T03:04:05.678Z",
        "config": config,
        "rootfs": {
            "type": "layers",
            "diff_ids": layers.iter().map(|bytes| format!("sha256:{}", digest(bytes))).collect::<Vec<_>>(),
        },
        "history": layers.iter().map(|_| json!({
            "created": "2026-01-02T03:04:05.678Z", "created_by": "a test",
        })).collect::<Vec<_>>(),
    });
    serde_json::to_vec(&document).expect("a value is JSON")
}

/// A docker-archive (as `docker load` reads it) of one image tagged `reference`.
pub fn docker_archive(reference: &str, layers: &[Vec<u8>], config: &Value) -> Vec<u8> {
    let document = document(layers, config);
    let config_name = format!("{}.json", digest(&document));
    let layer_names: Vec<String> = layers
        .iter()
        .map(|bytes| format!("{}/layer.tar", digest(bytes)))
        .collect();
    let manifest =
        json!([{ "Config": config_name, "RepoTags": [reference], "Layers": layer_names }]);
    let mut files = vec![Entry::file(&config_name, 0o644, document)];
    for (name, bytes) in layer_names.iter().zip(layers) {
        if !files.iter().any(|file| &file.path == name) {
            files.push(Entry::file(name, 0o644, bytes.clone()));
        }
    }
    files.push(Entry::file(
        "manifest.json",
        0o644,
        serde_json::to_vec(&manifest).expect("a value is JSON"),
    ));
    layer(&files)
}

/// busybox:latest as a docker-archive.
pub fn busybox_archive() -> Vec<u8> {
    docker_archive("busybox:latest", &[layer(&busybox())], &config(&["sh"]))
}

/// A name for our busybox that no reference engine has for an image of its own.
pub const SHARED_IMAGE: &str = "cooper-test/busybox:latest";

/// The very image of [`busybox_archive`] as [`SHARED_IMAGE`], and its id.
pub fn shared_archive() -> (Vec<u8>, String) {
    let (layers, config) = ([layer(&busybox())], config(&["sh"]));
    let id = format!("sha256:{}", digest(&document(&layers, &config)));
    (docker_archive(SHARED_IMAGE, &layers, &config), id)
}

/// Writes `archive` to `path` for `docker load -i`.
pub fn write(path: &Path, archive: &[u8]) {
    std::fs::write(path, archive)
        .unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}
