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

mod names {
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
}

mod links {
    use super::*;

    #[test]
    fn writing_through_an_absolute_symlink() {
        let stack = contained(|outside| {
            let target = &outside[1..];
            TarMaker::new()
                .symlink("link", outside)
                .directory(target, 0o755)
                .file("link/secret", b"changed")
        });
        drop(stack);
        refused("unpack", |outside| {
            TarMaker::new()
                .symlink("link", outside)
                .file("link/secret", b"changed")
        });
    }

    #[test]
    fn writing_through_a_climbing_symlink() {
        refused("unpack", |_| {
            TarMaker::new()
                .symlink("link", "../../outside")
                .file("link/secret", b"changed")
        });
        refused("unpack", |_| {
            TarMaker::new()
                .symlink("a", "..")
                .symlink("b", "a/../../outside")
                .file("b/secret", b"changed")
        });
    }

    #[test]
    fn a_file_replaces_a_symlink_and_does_not_follow_it() {
        let stack = contained(|outside| {
            TarMaker::new()
                .symlink("link", &format!("{outside}/secret"))
                .file("link", b"changed")
        });
        if let Some(stack) = stack {
            assert!(
                fs::symlink_metadata(stack.path(0, "link"))
                    .unwrap()
                    .is_file()
            );
        }
    }

    #[test]
    fn attributes_do_not_follow_a_symlink() {
        contained(|outside| {
            TarMaker::new()
                .directory("d", 0o777)
                .symlink("d", outside)
                .symlink("s", &format!("{outside}/secret"))
        });
    }

    #[test]
    fn a_directory_entry_replaces_a_symlink() {
        let stack = contained(|outside| {
            TarMaker::new()
                .symlink("d", outside)
                .directory("d", 0o700)
                .file("d/secret", b"mine")
        });
        if let Some(stack) = stack {
            assert!(stack.path(0, "d/secret").is_file());
        }
    }

    #[test]
    fn a_directory_whose_parent_became_a_symlink_gets_no_attributes_outside() {
        contained(|outside| {
            TarMaker::new()
                .directory("a/sub", 0o777)
                .symlink("a", outside)
        });
    }

    #[test]
    fn symlink_loops_end() {
        refused("unpack", |_| {
            TarMaker::new()
                .symlink("a", "b")
                .symlink("b", "a")
                .file("a/x", b"")
        });
        refused("unpack", |_| {
            TarMaker::new().symlink("a", "a").file("a/x", b"")
        });
    }

    #[test]
    fn a_hard_link_to_outside() {
        refused("is outside", |_| {
            TarMaker::new().hard_link("x", "../../outside/secret")
        });
        refused("invalid hardlink", |outside| {
            TarMaker::new().hard_link("x", &format!("{outside}/secret"))
        });
        refused("invalid hardlink", |_| {
            TarMaker::new().hard_link("x", "/etc/passwd")
        });
        refused("is outside", |_| {
            TarMaker::new()
                .pax(&[("linkpath", b"../../outside/secret")])
                .hard_link("x", "y")
        });
    }

    #[test]
    fn a_hard_link_through_a_symlink_to_outside() {
        refused("invalid hardlink", |outside| {
            TarMaker::new()
                .symlink("out", outside)
                .hard_link("x", "out/secret")
        });
        refused("invalid hardlink", |_| {
            TarMaker::new()
                .symlink("out", "../../outside")
                .hard_link("x", "out/secret")
        });
    }

    #[test]
    fn a_hard_link_to_a_symlink_is_the_symlink_and_writing_replaces_it() {
        let stack = contained(|outside| {
            TarMaker::new()
                .symlink("s", &format!("{outside}/secret"))
                .hard_link("h", "s")
                .file("h", b"changed")
        });
        if let Some(stack) = stack {
            assert!(fs::symlink_metadata(stack.path(0, "h")).unwrap().is_file());
        }
    }

    #[test]
    fn a_hard_link_to_a_directory_or_to_the_root() {
        refused("unpack", |_| {
            TarMaker::new().directory("d", 0o755).hard_link("x", "d")
        });
        refused("is outside", |_| TarMaker::new().hard_link("x", "/"));
        refused("is outside", |_| TarMaker::new().hard_link("x", "."));
    }

    #[test]
    fn a_hard_link_to_itself_and_rings_of_links() {
        contained(|_| TarMaker::new().file("a", b"").hard_link("a", "a"));
        refused("invalid hardlink", |_| {
            TarMaker::new().hard_link("a", "b").hard_link("b", "a")
        });
    }

    #[test]
    fn a_hard_link_to_a_whiteout() {
        refused("invalid name", |_| {
            TarMaker::new()
                .file(".wh.gone", b"")
                .hard_link("x", ".wh.gone")
        });
        refused("invalid hardlink", |_| {
            TarMaker::new().file(".wh.gone", b"").hard_link("x", "gone")
        });
    }

    #[test]
    fn a_hard_link_over_the_directory_of_its_target() {
        refused("invalid hardlink", |_| {
            TarMaker::new()
                .file("d/target", b"")
                .hard_link("d", "d/target")
        });
    }

    #[test]
    fn a_symlink_with_any_target_is_only_text() {
        let stack = contained(|_| {
            TarMaker::new()
                .symlink("a", "../../../../../../etc/passwd")
                .symlink("b", "/proc/self/root")
                .symlink("c", "/dev/null")
        });
        if let Some(stack) = stack {
            let target = fs::read_link(stack.path(0, "b")).unwrap();
            assert_eq!(target, Path::new("/proc/self/root"));
        }
    }

    #[test]
    fn a_symlink_of_a_lower_layer_is_not_followed() {
        if !testkit::is_root() {
            return;
        }
        let (stack, result) = attack(|outside| {
            vec![
                TarMaker::new().symlink("etc", outside).done(),
                TarMaker::new().file("etc/secret", b"changed").done(),
                TarMaker::new()
                    .hard_link("stolen", "etc/secret")
                    .file(".wh.etc", b"")
                    .done(),
            ]
        });
        result.unwrap();
        assert_eq!(
            fs::read(stack.path(2, "stolen")).unwrap(),
            b"changed",
            "of the second layer"
        );
    }
}

mod whiteouts {
    use super::*;

    #[test]
    fn a_whiteout_of_dot_dot() {
        for name in [".wh...", ".wh..", ".wh.", "a/.wh...", "a/.wh.."] {
            refused("invalid name", |_| TarMaker::new().file(name, b""));
        }
    }

    #[test]
    fn a_whiteout_through_a_symlink() {
        refused("unpack", |_| {
            TarMaker::new()
                .symlink("out", "../../outside")
                .file("out/.wh.secret", b"")
        });
        refused("unpack", |_| {
            TarMaker::new()
                .symlink("out", "../../outside")
                .file("out/.wh..wh..opq", b"")
        });
    }

    #[test]
    fn a_whiteout_as_a_directory_on_the_way() {
        refused("invalid name", |_| TarMaker::new().file(".wh.d/file", b""));
        refused("invalid name", |_| {
            TarMaker::new().directory(".wh.d/e/", 0o755)
        });
    }

    #[test]
    fn a_whiteout_of_any_type_makes_only_a_whiteout() {
        contained(|outside| {
            TarMaker::new()
                .symlink(".wh.a", outside)
                .hard_link(".wh.b", "../../outside/secret")
                .directory(".wh.c", 0o777)
        });
    }
}

mod devices {
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
}

mod attributes {
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
}

mod bombs {
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
}
