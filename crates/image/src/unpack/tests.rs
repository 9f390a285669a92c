//! What the files of a layer look like after unpacking, in the form overlayfs reads.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use sys::file;
use tar::EntryType;

use super::extract::OPAQUE;
use super::*;
use crate::testing::{TarMaker, gzip};

mod ends;
mod sparse;

/// Layers unpacked above each other in a directory of their own, beside a host tree they must not touch.
pub(crate) struct Stack {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) sizes: Vec<u64>,
}

impl Stack {
    pub(crate) fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("layers")).unwrap();
        Self {
            directory,
            sizes: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, layer: &[u8]) -> Result<(), String> {
        let layers = self.directory.path().join("layers");
        let path = layers.join(self.sizes.len().to_string());
        fs::create_dir(&path).unwrap();
        let diff_id = Digest::of(layer);
        let source = Source {
            input: Box::new(layer),
            diff_id: &diff_id,
            verified: false,
            stop: &NEVER,
        };
        let root = file::open_directory(&path).unwrap();
        let extracted = first_pass(root, source).map_err(|error| error.to_string())?;
        let lowers: Vec<OwnedFd> = (0..self.sizes.len())
            .rev()
            .map(|number| file::open_directory(&layers.join(number.to_string())).unwrap())
            .collect();
        let size = second_pass::finish(extracted, &lowers.iter().collect::<Vec<_>>(), &NEVER)
            .map_err(|error| error.to_string())?;
        self.sizes.push(size);
        Ok(())
    }

    pub(crate) fn path(&self, layer: usize, name: &str) -> PathBuf {
        self.directory
            .path()
            .join("layers")
            .join(layer.to_string())
            .join(name)
    }
}

fn unpacked(layers: &[Vec<u8>]) -> Stack {
    let mut stack = Stack::empty();
    for layer in layers {
        stack.push(layer).unwrap();
    }
    stack
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn is_whiteout(path: &Path) -> bool {
    let metadata = fs::symlink_metadata(path).unwrap();
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn is_opaque(path: &Path) -> bool {
    file::xattr(File::open(path).unwrap(), OPAQUE)
        .unwrap()
        .as_deref()
        == Some(b"y")
}

#[test]
fn files_keep_mode_owner_time_and_content() {
    if !testkit::is_root() {
        return;
    }
    let mut header = tar::Header::new_gnu();
    header.set_path("suid").unwrap();
    header.set_size(2);
    header.set_mode(0o6755);
    header.set_uid(12);
    header.set_gid(34);
    header.set_mtime(7);
    let layer = TarMaker::new()
        .directory("sticky", 0o1777)
        .file_mode("sticky/group-writable", 0o666, b"x")
        .append(header, b"ok")
        .done();
    let stack = unpacked(&[layer]);
    let metadata = fs::metadata(stack.path(0, "suid")).unwrap();
    assert_eq!(
        (metadata.uid(), metadata.gid(), metadata.mtime()),
        (12, 34, 7)
    );
    assert_eq!(
        mode(&stack.path(0, "suid")),
        0o6755,
        "chown comes before the setuid bit"
    );
    assert_eq!(fs::read(stack.path(0, "suid")).unwrap(), b"ok");
    assert_eq!(mode(&stack.path(0, "sticky")), 0o1777);
    assert_eq!(
        mode(&stack.path(0, "sticky/group-writable")),
        0o666,
        "the umask does not count"
    );
    let sticky = fs::metadata(stack.path(0, "sticky")).unwrap();
    assert_eq!(
        sticky.mtime(),
        1_000_000_000,
        "set after the directory was filled"
    );
}

#[test]
fn a_setgid_directory_gives_its_group_to_nobody() {
    if !testkit::is_root() {
        return;
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::Directory);
    header.set_path("shared/").unwrap();
    header.set_size(0);
    header.set_mode(0o2775);
    header.set_uid(0);
    header.set_gid(50);
    let layer = TarMaker::new()
        .append(header, b"")
        .file("shared/file", b"")
        .done();
    let stack = unpacked(&[layer]);
    assert_eq!(mode(&stack.path(0, "shared")), 0o2775);
    assert_eq!(fs::metadata(stack.path(0, "shared/file")).unwrap().gid(), 0);
}

#[test]
fn whiteouts_become_devices_and_opaque_directories() {
    if !testkit::is_root() {
        return;
    }
    let lower = TarMaker::new()
        .file("gone", b"1")
        .file("replaced/old", b"1")
        .file("opaque/old", b"1")
        .file("back", b"1")
        .directory("implied", 0o750)
        .file("implied/old", b"1")
        .done();
    let upper = TarMaker::new()
        .file(".wh.gone", b"")
        .file(".wh.replaced", b"")
        .file("replaced/new", b"2")
        .directory("opaque", 0o755)
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"2")
        .file("back", b"2")
        .file(".wh.back", b"")
        .file(".wh.never-there", b"")
        .file(".wh..wh.plnk/55.66", b"aufs")
        .file(".wh..wh.aufs", b"")
        .directory("implied", 0o700)
        .file(".wh.implied", b"")
        .done();
    let stack = unpacked(&[lower, upper]);
    assert!(is_whiteout(&stack.path(1, "gone")));
    assert!(
        is_opaque(&stack.path(1, "replaced")),
        "whiteout, then a directory of that name"
    );
    assert!(
        is_opaque(&stack.path(1, "implied")),
        "a directory, then its whiteout"
    );
    assert!(is_opaque(&stack.path(1, "opaque")));
    assert_eq!(
        fs::read(stack.path(1, "back")).unwrap(),
        b"2",
        "a file of its own stays"
    );
    for name in [
        "never-there",
        ".wh..wh.plnk",
        ".wh..wh.aufs",
        "opaque/.wh..wh..opq",
    ] {
        assert!(fs::symlink_metadata(stack.path(1, name)).is_err(), "{name}");
    }
}

#[test]
fn an_opaque_root_hides_each_name_below() {
    if !testkit::is_root() {
        return;
    }
    let lower = TarMaker::new().file("a", b"").file("d/x", b"").done();
    let upper = TarMaker::new()
        .file(".wh..wh..opq", b"")
        .file("d/y", b"")
        .done();
    let stack = unpacked(&[lower, upper]);
    assert!(is_whiteout(&stack.path(1, "a")));
    assert!(is_opaque(&stack.path(1, "d")));
}

#[test]
fn implied_directories_look_like_the_ones_below() {
    if !testkit::is_root() {
        return;
    }
    let bottom = TarMaker::new()
        .directory("./", 0o751)
        .directory("tmp", 0o1777)
        .done();
    let middle = TarMaker::new().file("tmp/a/b", b"").done();
    let removed = TarMaker::new().file(".wh.tmp", b"").done();
    let top = TarMaker::new().file("tmp/c", b"").done();
    let stack = unpacked(&[bottom, middle, removed, top]);
    assert_eq!(mode(&stack.path(1, "tmp")), 0o1777);
    assert_eq!(
        mode(&stack.path(1, "tmp/a")),
        0o755,
        "below it there is none"
    );
    assert_eq!(mode(&stack.path(1, "")), 0o751, "the root too");
    assert_eq!(
        fs::metadata(stack.path(1, "tmp")).unwrap().mtime(),
        1_000_000_000
    );
    assert_eq!(
        mode(&stack.path(3, "tmp")),
        0o755,
        "a removed directory gives nothing on"
    );
}

#[test]
fn hard_links_reach_files_of_lower_layers() {
    if !testkit::is_root() {
        return;
    }
    let lower = TarMaker::new()
        .file_mode("bin/tool", 0o4755, b"tool")
        .file("gone", b"")
        .done();
    let upper = TarMaker::new()
        .hard_link("bin/first", "second")
        .hard_link("other/name", "/bin/tool")
        .file("second", b"2")
        .file("bin/own", b"own")
        .hard_link("bin/own2", "bin/own")
        .done();
    let stack = unpacked(&[lower, upper]);
    let inode = |layer, name| fs::metadata(stack.path(layer, name)).unwrap().ino();
    assert_eq!(inode(0, "bin/tool"), inode(1, "other/name"));
    assert_eq!(
        inode(1, "bin/first"),
        inode(1, "second"),
        "a link before its target"
    );
    assert_eq!(inode(1, "bin/own"), inode(1, "bin/own2"));
    let mut stack = unpacked(&[
        TarMaker::new().file("gone", b"").done(),
        TarMaker::new().file(".wh.gone", b"").done(),
    ]);
    let error = stack
        .push(&TarMaker::new().hard_link("new", "gone").done())
        .unwrap_err();
    assert!(error.contains("invalid hardlink"), "{error}");
}

#[test]
fn special_files_and_long_names() {
    if !testkit::is_root() {
        return;
    }
    let mut device = tar::Header::new_gnu();
    device.set_entry_type(EntryType::Char);
    device.set_path("null").unwrap();
    device.set_mode(0o666);
    device.set_size(0);
    device.set_uid(0);
    device.set_gid(0);
    device.set_device_major(1).unwrap();
    device.set_device_minor(3).unwrap();
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o600);
    header.set_uid(u64::from(u32::MAX) - 1);
    header.set_gid(3_000_000_000);
    builder.append_data(&mut header, &long, &b"x"[..]).unwrap();
    let long_tar = builder.into_inner().unwrap();
    let layer = TarMaker::new()
        .append(device, b"")
        .special(EntryType::Fifo, "pipe")
        .special(EntryType::Continuous, "contiguous")
        .special(EntryType::XGlobalHeader, "global")
        .done();
    let stack = unpacked(&[layer, long_tar]);
    let null = fs::symlink_metadata(stack.path(0, "null")).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!(
        (null.rdev(), null.permissions().mode() & 0o777),
        (0x103, 0o666)
    );
    assert!(
        fs::symlink_metadata(stack.path(0, "pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert!(stack.path(0, "contiguous").is_file());
    assert!(!stack.path(0, "global").exists());
    let metadata = fs::metadata(stack.path(1, &long)).unwrap();
    assert_eq!(
        (metadata.uid(), metadata.gid()),
        (u32::MAX - 1, 3_000_000_000)
    );
}

#[test]
fn extended_attributes_of_an_image_are_the_harmless_ones() {
    if !testkit::is_root() {
        return;
    }
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = TarMaker::new()
        .pax(&[
            ("SCHILY.xattr.user.note", b"hello"),
            ("SCHILY.xattr.security.capability", &capability),
            ("LIBARCHIVE.xattr.user.other", b"d29ybGQ"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.security.selinux", b"x"),
        ])
        .file("file", b"")
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.d", b"1"),
        ])
        .directory("directory", 0o755)
        .done();
    let stack = unpacked(&[layer]);
    let names = |name| {
        let mut names = file::xattr_names(File::open(stack.path(0, name)).unwrap()).unwrap();
        names.sort();
        names
    };
    let expected = [&b"security.capability"[..], b"user.note", b"user.other"];
    assert_eq!(names("file"), expected);
    assert_eq!(names("directory"), [b"user.d"]);
    let file = File::open(stack.path(0, "file")).unwrap();
    assert_eq!(
        file::xattr(&file, b"user.other").unwrap().unwrap(),
        b"world"
    );
    assert_eq!(
        file::xattr(&file, b"security.capability").unwrap().unwrap(),
        capability,
        "chown would have cleared it"
    );
}

#[test]
fn later_entries_replace_earlier_ones() {
    if !testkit::is_root() {
        return;
    }
    let layer = TarMaker::new()
        .file("a", b"first")
        .file("a", b"2nd")
        .file("d/x/y", b"123")
        .symlink("d", "elsewhere")
        .symlink("s", "a")
        .directory("s", 0o755)
        .file("s/inside", b"")
        .done();
    let stack = unpacked(&[layer]);
    assert_eq!(fs::read(stack.path(0, "a")).unwrap(), b"2nd");
    assert_eq!(
        fs::read_link(stack.path(0, "d")).unwrap(),
        Path::new("elsewhere")
    );
    assert!(stack.path(0, "s/inside").is_file());
    assert_eq!(stack.sizes, [3 + 9], "what was replaced counts for nothing");
}
