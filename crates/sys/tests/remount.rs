//! Attributes of mounts without `mount_setattr`, as on Linux before 5.12. Needs root.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use sys::mount::{self, Attributes, Change, Depth, FsContext, Propagation, remount};
use sys::namespace::{Set, unshare};
use sys::path::{OpenFlags, open_directory, open_in_root};

/// A tmpfs at `place` below `root`, as the descriptor it was made with.
fn tmpfs(root: &OwnedFd, place: &str) -> OwnedFd {
    let context = FsContext::open("tmpfs").unwrap();
    context.set("source", b"remount").unwrap();
    let made = context.mount(Attributes::NOSUID).unwrap();
    let target = open_in_root(root.as_fd(), Path::new(place), OpenFlags::PATH).unwrap();
    mount::attach(made.as_fd(), target.as_fd()).unwrap();
    made
}

/// The per-mount options of mountinfo and what follows them up to the dash (propagation), by mount point.
fn options(place: &Path) -> (String, String) {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let place = place.to_str().unwrap().replace(' ', "\\040");
    let line = table
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some(&place))
        .unwrap();
    let fields: Vec<&str> = line.split(" - ").next().unwrap().split(' ').collect();
    (fields[5].to_owned(), fields[6..].join(" "))
}

/// Runs `action` on a directory in a thread with mounts of its own, which end with it.
fn privately(action: impl FnOnce(&Path) + Send + 'static) {
    if !testkit::is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let thread = std::thread::spawn(move || {
        unshare(Set::MOUNT).unwrap();
        mount::set_propagation(Path::new("/"), Depth::Recursive, Propagation::Private).unwrap();
        action(&path);
    });
    thread.join().unwrap();
}

#[test]
fn every_mount_below_is_changed_and_keeps_its_other_attributes() {
    privately(changed_below);
}

fn changed_below(directory: &Path) {
    let proc = open_directory(Path::new("/proc")).unwrap();
    let base = open_directory(directory).unwrap();
    let top = directory.join("top");
    fs::create_dir(&top).unwrap();
    let made = tmpfs(&base, "top");
    fs::create_dir_all(top.join("a b/c")).unwrap();
    let below = tmpfs(&made, "a b");
    fs::create_dir(top.join("a b/c")).unwrap();
    tmpfs(&below, "c");
    let here = std::env::current_dir().unwrap();

    let change = Change {
        set: Attributes::RDONLY.with(Attributes::NOATIME),
        ..Change::default()
    };
    remount(proc.as_fd(), made.as_fd(), Depth::Recursive, change).unwrap();
    for place in ["", "a b", "a b/c"] {
        let place = top.join(place);
        let place = Path::new(place.to_str().unwrap().trim_end_matches('/'));
        assert_eq!(options(place).0, "ro,nosuid,noatime", "{}", place.display());
        let refused = fs::write(place.join("x"), "").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }

    let change = Change {
        clear: Attributes::RDONLY.with(Attributes::ATIME),
        set: Attributes::NODEV,
        propagation: Some(Propagation::Shared),
    };
    remount(proc.as_fd(), below.as_fd(), Depth::One, change).unwrap();
    let (flags, spread) = options(&top.join("a b"));
    assert_eq!(flags, "rw,nosuid,nodev,relatime");
    assert!(spread.starts_with("shared:"), "{spread}");
    fs::write(top.join("a b/x"), "").unwrap();
    assert_eq!(options(&top).0, "ro,nosuid,noatime");
    assert_eq!(options(&top.join("a b/c")).0, "ro,nosuid,noatime");
    assert_eq!(std::env::current_dir().unwrap(), here);
}

#[test]
fn a_bound_file_is_changed_and_a_detached_mount_is_not() {
    privately(bound_file);
}

fn bound_file(directory: &Path) {
    let proc = open_directory(Path::new("/proc")).unwrap();
    let base = open_directory(directory).unwrap();
    let file = directory.join("file");
    fs::write(&file, "before").unwrap();
    let copy = mount::clone_tree(base.as_fd(), Path::new("file"), Depth::One).unwrap();
    let change = Change {
        set: Attributes::RDONLY,
        ..Change::default()
    };
    let refused = remount(proc.as_fd(), copy.as_fd(), Depth::One, change).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    let target = open_in_root(base.as_fd(), Path::new("file"), OpenFlags::PATH).unwrap();
    mount::attach(copy.as_fd(), target.as_fd()).unwrap();
    remount(proc.as_fd(), copy.as_fd(), Depth::One, change).unwrap();
    let refused = fs::write(&file, "after").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}
