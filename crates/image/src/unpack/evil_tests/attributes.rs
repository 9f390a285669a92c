//! Attributes, owners and times that do not fit.

use super::*;

#[test]
fn owners_beyond_32_bits_or_the_magic_one() {
    for id in [u64::from(u32::MAX), 1 << 32, 1 << 40] {
        refused("invalid owner", |_| {
            let mut header = raw(EntryType::Regular, b"x", b"");
            header.set_uid(id);
            TarMaker::new().append(header, b"")
        });
        refused("invalid owner", |_| {
            TarMaker::new()
                .pax(&[("gid", id.to_string().as_bytes())])
                .file("x", b"")
        });
    }
    refused("number", |_| {
        TarMaker::new().pax(&[("uid", b"-1")]).file("x", b"")
    });
}

#[test]
fn redirects_and_origins_of_overlayfs_are_left_out() {
    let stack = contained(|outside| {
        TarMaker::new()
            .pax(&[
                ("SCHILY.xattr.trusted.overlay.redirect", outside.as_bytes()),
                ("SCHILY.xattr.trusted.overlay.metacopy", b""),
                ("LIBARCHIVE.xattr.trusted.overlay.redirect", b"L2V0Yw"),
                ("LIBARCHIVE.xattr.trusted%2eoverlay%2eredirect", b"L2V0Yw"),
            ])
            .file("x", b"")
    });
    if let Some(stack) = stack {
        let file = fs::File::open(stack.path(0, "x")).unwrap();
        assert_eq!(sys::file::xattr_names(file).unwrap(), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn times_out_of_range() {
    refused("time", |_| {
        TarMaker::new()
            .pax(&[("mtime", b"99999999999999999999")])
            .file("x", b"")
    });
    refused("time", |_| {
        TarMaker::new().pax(&[("mtime", b"1e9")]).file("x", b"")
    });
    contained(|_| TarMaker::new().pax(&[("mtime", b"-1.5")]).file("x", b""));
}
