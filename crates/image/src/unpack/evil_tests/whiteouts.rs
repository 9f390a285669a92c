//! Whiteouts of what is outside, of the root, of themselves.

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
