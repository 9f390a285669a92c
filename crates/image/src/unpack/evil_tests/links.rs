//! Links that lead out, round and round, or at themselves.

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
