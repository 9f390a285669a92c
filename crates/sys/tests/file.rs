//! Marks on files, as other programs see them.

use std::fs::File;

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
