//! Archives that are small and unpack large.

use super::*;

#[test]
fn huge_extended_headers_are_not_read() {
    for kind in [
        EntryType::XHeader,
        EntryType::GNULongName,
        EntryType::XGlobalHeader,
    ] {
        refused("exceeds the limit", |_| {
            let mut header = raw(kind, b"x", b"");
            header.set_size(1 << 40);
            TarMaker::new().append(header, b"")
        });
    }
}

#[test]
fn endless_extended_headers() {
    refused("too many extended headers", |_| {
        (0..100).fold(TarMaker::new(), |tar, _| tar.pax(&[("path", b"x")]))
    });
}

#[test]
fn an_extended_header_without_an_entry() {
    refused("ends after", |_| TarMaker::new().pax(&[("path", b"x")]));
}

#[test]
fn sizes_that_overflow() {
    for size in [u64::MAX >> 1, (1 << 62) + 511] {
        refused("", |_| {
            let mut header = raw(EntryType::Regular, b"x", b"");
            header.set_size(size);
            TarMaker::new().append(header, b"abc")
        });
    }
    refused("size overflow", |_| {
        TarMaker::new()
            .pax(&[("size", u64::MAX.to_string().as_bytes())])
            .file("x", b"")
    });
}

#[test]
fn a_sparse_map_that_contradicts_itself() {
    for map in [
        "0,1,0,1",
        "5,1,0,1",
        "0,99",
        "0,18446744073709551615,18446744073709551615,2",
        "1",
        "0,1,x,1",
        "-1,1",
        "1048577,1",
    ] {
        refused("sparse map", |_| {
            TarMaker::new()
                .pax(&[
                    ("GNU.sparse.major", b"0"),
                    ("GNU.sparse.minor", b"1"),
                    ("GNU.sparse.size", b"1048576"),
                    ("GNU.sparse.map", map.as_bytes()),
                ])
                .file("x", b"x")
        });
    }
    refused("sparse map", |_| {
        TarMaker::new()
            .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")])
            .file("x", &[b'9'; 1024])
    });
}

#[test]
fn a_sparse_giant_takes_no_space() {
    let stack = contained(|_| {
        TarMaker::new()
            .pax(&[
                ("GNU.sparse.major", b"0"),
                ("GNU.sparse.minor", b"1"),
                ("GNU.sparse.size", b"1099511627776"),
                ("GNU.sparse.map", b"0,1"),
            ])
            .file("giant", b"x")
    });
    if let Some(stack) = stack {
        assert!(fs::metadata(stack.path(0, "giant")).unwrap().blocks() < 64);
    }
}

#[test]
fn garbage_after_the_archive_is_bounded() {
    if !testkit::is_root() {
        return;
    }
    let mut tar = TarMaker::new().file("x", b"").done();
    tar.resize(tar.len() + (65 << 20), 0);
    let bomb = gzip(&tar);
    assert!(bomb.len() < 1 << 20);
    let (_, result) = attack(|_| vec![bomb.clone()]);
    let error = result.unwrap_err();
    assert!(error.contains("exceeds the limit"), "{error}");
}

#[test]
fn headers_nobody_writes() {
    refused("unhandled tar header type 'M'", |_| {
        TarMaker::new().append(raw(EntryType::new(b'M'), b"x", b""), b"")
    });
    if !testkit::is_root() {
        return;
    }
    let mut tar = TarMaker::new().file("x", b"").done();
    tar[0] = b'y';
    let (_, result) = attack(|_| vec![tar.clone()]);
    assert!(result.unwrap_err().contains("checksum"));
    let two = [vec![0; 512], TarMaker::new().file("x", b"").done()].concat();
    let (_, result) = attack(|_| vec![two.clone()]);
    assert!(result.unwrap_err().contains("block of zeros"));
}
