//! Help for this crate's tests: stores in temporary directories, tars and archives made by hand.

use std::io::Write;
use std::path::PathBuf;

use db::Db;
use tar::{Builder, EntryType, Header};

use crate::digest::Digest;
use crate::load::LoadProgress;
use crate::store::Store;
use crate::{Error, Loaded};

/// A store in a directory that goes when this does.
pub(crate) struct TestStore {
    pub(crate) store: Store,
    pub(crate) root: PathBuf,
    _directory: tempfile::TempDir,
}

impl TestStore {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        Self {
            store: open(&root).unwrap(),
            root,
            _directory: directory,
        }
    }

    pub(crate) fn load(&self, archive: &[u8]) -> Result<Vec<Loaded>, Error> {
        load(&self.store, archive).map(|(loaded, _)| loaded)
    }

    /// Everything below the data root that is not the database or an empty directory, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        for part in [
            "content/sha256",
            "content/sha512",
            "content/ingest",
            "layers",
        ] {
            for entry in std::fs::read_dir(self.root.join(part)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if (part, name.as_str()) != ("layers", "0") {
                    found.push(format!("{part}/{name}"));
                }
            }
        }
        found.sort();
        found
    }

    /// The directory of the only layer of the only image.
    pub(crate) fn layer(&self, image: &str, position: usize) -> PathBuf {
        let image = self.store.resolve(image).unwrap();
        self.root
            .join("layers")
            .join(image.layers[position].number.to_string())
    }
}

pub(crate) fn open(root: &std::path::Path) -> Result<Store, Error> {
    let db = Db::open(&root.join("cooper.db")).unwrap();
    Store::open(root, db, crate::store::Strays::Remove)
}

pub(crate) fn load(
    store: &Store,
    mut archive: &[u8],
) -> Result<(Vec<Loaded>, Vec<LoadProgress>), Error> {
    let mut events = Vec::new();
    let loaded = store.load(&mut archive, &mut |event| events.push(event))?;
    Ok((loaded, events))
}

/// A tar made entry by entry, with names nobody checks.
pub(crate) struct TarMaker(Builder<Vec<u8>>);

impl TarMaker {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(self, kind: EntryType, name: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_000_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(u64::try_from(data.len()).unwrap());
        let field = |field: &mut [u8], text: &str| {
            assert!(text.len() <= field.len(), "{text}");
            field[..text.len()].copy_from_slice(text.as_bytes());
        };
        field(&mut header.as_gnu_mut().unwrap().name, name);
        field(&mut header.as_gnu_mut().unwrap().linkname, link);
        self.append(header, data)
    }

    pub(crate) fn append(mut self, mut header: Header, data: &[u8]) -> Self {
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    pub(crate) fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, "", 0o644, data)
    }

    pub(crate) fn file_mode(self, name: &str, mode: u32, data: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, "", mode, data)
    }

    pub(crate) fn directory(self, name: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, name, "", mode, b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, 0o777, b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target, 0o644, b"")
    }

    pub(crate) fn special(self, kind: EntryType, name: &str) -> Self {
        self.entry(kind, name, "", 0o644, b"")
    }

    /// PAX records for the next entry.
    pub(crate) fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0
            .append_pax_extensions(records.iter().copied())
            .unwrap();
        self
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// An image archive as `docker save` made them for years.
pub(crate) fn docker_archive(tags: &[&str], layers: &[Vec<u8>]) -> Vec<u8> {
    docker_archive_with(tags, layers, r#""config":{"Cmd":["sh"]},"#)
}

pub(crate) fn docker_archive_with(tags: &[&str], layers: &[Vec<u8>], extra: &str) -> Vec<u8> {
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| format!("{:?}", Digest::of(layer).as_str()))
        .collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","created":"2024-01-02T03:04:05Z",{extra}"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    );
    archive_of(tags, layers, &config)
}

/// An archive with this configuration, whatever it says.
pub(crate) fn archive_of(tags: &[&str], layers: &[Vec<u8>], config: &str) -> Vec<u8> {
    let mut tar = TarMaker::new().file("config.json", config.as_bytes());
    for (position, layer) in layers.iter().enumerate() {
        tar = tar.file(&format!("{position}/layer.tar"), layer);
    }
    let paths: Vec<String> = (0..layers.len())
        .map(|position| format!("\"{position}/layer.tar\""))
        .collect();
    let manifest = format!(
        r#"[{{"Config":"config.json","RepoTags":{},"Layers":[{}]}}]"#,
        serde_json::to_string(tags).unwrap(),
        paths.join(",")
    );
    tar.file("manifest.json", manifest.as_bytes()).done()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
