//! Names that climb, that are absolute, too long, too deep or hidden in another record.

use super::*;

#[test]
fn dot_dot_climbs_nowhere() {
    for name in [
        "..",
        "../x",
        "a/../../x",
        "./../x",
        "/../x",
        "a/b/../../../x",
        "a//..//..//x",
        ".././x",
    ] {
        refused("is outside of the layer", |_| {
            TarMaker::new().file(name, b"x")
        });
        refused("is outside of the layer", |_| {
            TarMaker::new().directory(name, 0o777)
        });
        refused("is outside of the layer", |_| {
            TarMaker::new().symlink(name, "x")
        });
    }
}

#[test]
fn dot_dot_that_stays_inside_is_resolved() {
    let stack = contained(|_| TarMaker::new().file("a/../b", b"x").file("/./c//d", b"y"));
    if let Some(stack) = stack {
        assert!(stack.path(0, "b").is_file() && stack.path(0, "c/d").is_file());
    }
}

#[test]
fn absolute_names_are_from_the_layers_root() {
    let stack = contained(|outside| TarMaker::new().file(&format!("{outside}/secret"), b"x"));
    if let Some(stack) = stack {
        let inside = stack
            .directory
            .path()
            .strip_prefix("/")
            .unwrap()
            .join("outside/secret");
        assert!(stack.path(0, inside.to_str().unwrap()).is_file());
    }
}

#[test]
fn the_root_itself_is_a_directory() {
    for name in ["", ".", "/", "./", "a/.."] {
        refused("invalid name", |_| TarMaker::new().file(name, b"x"));
        refused("invalid name", |_| TarMaker::new().symlink(name, "/etc"));
    }
}

#[test]
fn too_long_names() {
    let long = "d/".repeat(2100);
    refused("invalid name", |_| {
        TarMaker::new()
            .pax(&[("path", long.as_bytes())])
            .file("x", b"")
    });
    let component = "c".repeat(256);
    refused("unpack", |_| {
        TarMaker::new()
            .pax(&[("path", component.as_bytes())])
            .file("x", b"")
    });
}

#[test]
fn a_deep_tree_needs_few_descriptors() {
    let deep = "d/".repeat(1000);
    let stack = contained(|_| {
        TarMaker::new()
            .pax(&[("path", format!("{deep}f").as_bytes())])
            .file("x", b"1")
            .pax(&[("path", format!("{deep}g").as_bytes())])
            .file("x", b"2")
    });
    if let Some(stack) = stack {
        let layers = sys::file::open_directory(&stack.directory.path().join("layers")).unwrap();
        sys::file::remove_tree(std::os::fd::AsFd::as_fd(&layers), b"0").unwrap();
        assert!(!stack.path(0, "").exists());
    }
}

/// Links of the layer itself lead deeper than any path can: 8,000 levels overflowed a stack.
#[test]
fn a_tree_deeper_than_any_path_is_replaced() {
    let level = "a/".repeat(1000);
    contained(|_| {
        let mut maker = TarMaker::new()
            .pax(&[("path", format!("{level}f").as_bytes())])
            .file("x", b"1");
        let mut way = level.clone();
        for link in ["l1", "l2", "l3", "l4", "l5", "l6", "l7", "l8", "l9"] {
            let further = format!("{link}/{level}");
            maker = maker
                .pax(&[("linkpath", way.as_bytes())])
                .symlink(link, "x")
                .pax(&[("path", format!("{further}f").as_bytes())])
                .file("x", b"1");
            way = further;
        }
        maker.file("a", b"in its place")
    });
}

#[test]
fn names_that_would_fill_the_memory() {
    let value = vec![b'x'; 60_000];
    refused("take more than 67108864 bytes", |_| {
        (0..1200).fold(TarMaker::new(), |maker, number| {
            let attribute = "SCHILY.xattr.user.large";
            maker
                .pax(&[(attribute, value.as_slice())])
                .directory(&format!("d{number}"), 0o755)
        })
    });
}

#[test]
fn a_pax_path_that_climbs() {
    refused("is outside", |_| {
        TarMaker::new().pax(&[("path", b"../x")]).file("fine", b"x")
    });
    refused("PAX record", |_| {
        TarMaker::new().pax(&[("path", b"a\0b")]).file("fine", b"x")
    });
}

#[test]
fn a_gnu_long_name_that_climbs() {
    refused("is outside", |_| {
        let mut header = raw(EntryType::GNULongName, b"././@LongLink", b"");
        header.set_size(5);
        TarMaker::new().append(header, b"../x\0").file("fine", b"x")
    });
}

#[test]
fn a_sparse_name_that_climbs() {
    let records: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"0"),
        ("GNU.sparse.minor", b"1"),
        ("GNU.sparse.name", b"../x"),
        ("GNU.sparse.map", b"0,1"),
    ];
    refused("is outside", |_| {
        TarMaker::new().pax(&records).file("fine", b"x")
    });
}
