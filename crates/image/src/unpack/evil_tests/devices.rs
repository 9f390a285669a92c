//! Devices and other files that are more than bytes.

use super::*;

#[test]
fn a_device_is_made_and_never_opened() {
    // Writing to "a" after it became a device would reach the disk.
    let stack = contained(|_| {
        let mut disk = raw(EntryType::Block, b"a", b"");
        disk.set_device_major(8).unwrap();
        disk.set_device_minor(0).unwrap();
        TarMaker::new()
            .append(disk, b"")
            .file("a", b"would be the boot sector")
            .special(EntryType::Fifo, "p")
            .file("p", b"would block for ever")
    });
    if let Some(stack) = stack {
        assert!(fs::symlink_metadata(stack.path(0, "a")).unwrap().is_file());
        assert!(fs::symlink_metadata(stack.path(0, "p")).unwrap().is_file());
    }
}

#[test]
fn a_device_is_no_directory() {
    refused("unpack", |_| {
        let mut disk = raw(EntryType::Block, b"a", b"");
        disk.set_device_major(8).unwrap();
        disk.set_device_minor(0).unwrap();
        TarMaker::new().append(disk, b"").file("a/b", b"")
    });
}

#[test]
fn a_device_with_content_does_not_shift_the_next_header() {
    // As Go reads it: what is no file has no content, so the "content" is the next header.
    let stack = contained(|_| {
        let mut link = raw(EntryType::Symlink, b"s", b"t");
        link.set_size(512);
        TarMaker::new().append(link, b"").file("next", b"x")
    });
    if let Some(stack) = stack {
        assert!(stack.path(0, "next").is_file());
    }
}
