//! Marks on files, as other programs see them.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;

/// chattr(1): `T` is the top of a hierarchy for ext4's placement of directories.
#[test]
fn a_directory_is_marked_as_the_top_of_unrelated_ones() {
    let directory = tempfile::tempdir().unwrap();
    let opened = File::open(directory.path()).unwrap();
    if let Err(error) = sys::file::spread_subdirectories(&opened) {
        println!("skipped: {error}: no such mark on this file system");
        return;
    }
    sys::file::spread_subdirectories(&opened).expect("marking it again changes nothing");
    let listed = sys::command::Command::new("/usr/bin/lsattr")
        .arg("-d")
        .arg(directory.path())
        .output()
        .expect("lsattr of e2fsprogs, which every Debian has");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let flags = text.split(' ').next().unwrap_or_default();
    assert!(flags.contains('T'), "{text}");
}

/// inotify(7): a watch is told of its end (`IN_IGNORED`) when the directory is deleted, which is when the last who holds
/// it lets go.
#[test]
fn what_was_removed_is_freed_with_its_remains() {
    let place = tempfile::tempdir().unwrap();
    let tree = place.path().join("tree");
    std::fs::create_dir_all(tree.join("inner")).unwrap();
    std::fs::write(tree.join("inner/file"), "text").unwrap();
    let mut events = File::from(sys::inotify::watch(&tree).unwrap());
    let parent = File::open(place.path()).unwrap();
    let remains = sys::file::remove_tree_held(parent.as_fd(), b"tree").unwrap();
    assert_eq!(remains.count(), 3);
    assert!(!tree.exists());
    let mut buffer = [0; 4096];
    assert!(events.read(&mut buffer).unwrap() > 0, "inner has gone");
    let nothing = events.read(&mut buffer).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    drop(remains);
    assert!(events.read(&mut buffer).unwrap() > 0, "the tree is freed");
}

/// Many files need no more file descriptors than few.
#[test]
fn remains_are_bounded() {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("tree")).unwrap();
    for number in 0..200 {
        std::fs::write(place.path().join(format!("tree/{number}")), "").unwrap();
    }
    let parent = File::open(place.path()).unwrap();
    let remains = sys::file::remove_tree_held(parent.as_fd(), b"tree").unwrap();
    assert_eq!(remains.count(), 64);
    assert!(!place.path().join("tree").exists());
}
