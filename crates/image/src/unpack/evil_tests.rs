//! Archives that try to get out, or to make the host work for ever. Whatever they answer, the tree beside the
//! layer is the same afterwards, byte for byte and attribute for attribute.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tar::{EntryType, Header};

use super::tests::Stack;
use super::{NEVER, Source, first_pass};
use crate::digest::Digest;
use crate::testing::{TarMaker, gzip};

mod attributes;
mod bombs;
mod devices;
mod links;
mod names;
mod whiteouts;

/// What a file outside looks like: path, mode, owner, time, links, content.
type Seen = (String, u32, u32, u32, i64, u64, Vec<u8>);

fn look(path: &Path, found: &mut Vec<Seen>) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let content = if metadata.is_file() {
        fs::read(path).unwrap()
    } else {
        Vec::new()
    };
    if path.ends_with("layers") {
        return;
    }
    found.push((
        path.display().to_string(),
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        if metadata.is_file() {
            metadata.nlink()
        } else {
            0
        },
        content,
    ));
    if metadata.is_dir() {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        names.sort();
        names.iter().for_each(|name| look(name, found));
    }
}

/// Files and directories in turn at one name, each replacing the other, beside `links` that wait for a lower layer.
fn time_of_replacements(links: u32) -> std::time::Duration {
    let mut tar = TarMaker::new();
    for number in 0..links {
        tar = tar.hard_link(&format!("d/{number}"), "below/x");
    }
    for _ in 0..4_000 {
        tar = tar.file("f", b"").directory("f", 0o755);
    }
    let layer = tar.done();
    // In memory: a disk takes much longer for a file than what is measured here.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let source = Source {
        input: Box::new(&layer[..]),
        diff_id: &Digest::of(&layer),
        verified: true,
        stop: &NEVER,
    };
    let root = sys::file::open_directory(directory.path()).unwrap();
    let begin = std::time::Instant::now();
    first_pass(root, source).unwrap();
    begin.elapsed()
}

#[test]
fn what_replaces_something_does_not_look_at_everything_else() {
    if !testkit::is_root() {
        return;
    }
    let alone = time_of_replacements(0);
    let beside = time_of_replacements(10_000);
    assert!(beside < 3 * alone, "{alone:?} and {beside:?}");
}

/// Unpacks layers made for the absolute path of a directory outside; answers the last result.
fn attack(layers: impl Fn(&str) -> Vec<Vec<u8>>) -> (Stack, Result<(), String>) {
    let mut stack = Stack::empty();
    let outside = stack.directory.path().join("outside");
    fs::create_dir_all(outside.join("sub")).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    fs::write(outside.join("sub/file"), "file").unwrap();
    let mut before = Vec::new();
    look(stack.directory.path(), &mut before);
    let mut result = Ok(());
    for layer in layers(outside.to_str().unwrap()) {
        result = stack.push(&layer);
        if result.is_err() {
            break;
        }
    }
    let mut after = Vec::new();
    look(stack.directory.path(), &mut after);
    assert_eq!(before, after);
    (stack, result)
}

/// The attack is refused with this text.
fn refused(part: &str, layer: impl Fn(&str) -> TarMaker) {
    if !testkit::is_root() {
        return;
    }
    let (_, result) = attack(|outside| vec![layer(outside).done()]);
    let error = result.expect_err(part);
    assert!(error.contains(part), "{error}");
}

/// The attack is unpacked, and stays inside.
fn contained(layer: impl Fn(&str) -> TarMaker) -> Option<Stack> {
    if !testkit::is_root() {
        return None;
    }
    let (stack, result) = attack(|outside| vec![layer(outside).done()]);
    result.unwrap();
    Some(stack)
}

fn raw(kind: EntryType, name: &[u8], link: &[u8]) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
    header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link);
    header
}
