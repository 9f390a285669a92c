//! Overlays of 128 layers, in each way the kernel can be told about them. Needs root.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sys::namespace::{Set, unshare};
use sys::overlay::{Method, Request, mount};

/// Docker's limit on the layers of an image, and ours.
const LAYERS: usize = 128;

/// `(major, minor)` of the running kernel.
fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(['.', '-'])
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Layers with a file of their own each, and one that all have.
fn layers(directory: &Path) -> Vec<String> {
    let names: Vec<String> = (1..=LAYERS).map(|number| number.to_string()).collect();
    for name in &names {
        let layer = directory.join("layers").join(name);
        fs::create_dir_all(&layer).unwrap();
        fs::write(layer.join(format!("file-{name}")), name).unwrap();
        fs::write(layer.join("all"), name).unwrap();
    }
    names.into_iter().rev().collect()
}

/// Mounts in a child with a mount namespace of its own and looks at the files; what went wrong, or nothing.
fn mount_and_look(directory: &Path, forced: Option<Method>) -> io::Result<()> {
    let lower = layers(directory);
    let (upper, work) = (directory.join("upper"), directory.join("work"));
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    let request = Request {
        layers: &directory.join("layers"),
        lower: &lower,
        upper: Some((&upper, &work)),
    };
    unshare(Set::MOUNT)?;
    let root = mount(&request, forced)?;
    let read = |name: &str| -> io::Result<String> {
        let mut text = String::new();
        let path = format!(
            "/proc/self/fd/{}/{name}",
            std::os::fd::AsRawFd::as_raw_fd(&root.as_fd())
        );
        fs::File::open(path)?.read_to_string(&mut text)?;
        Ok(text)
    };
    assert_eq!(read("all")?, LAYERS.to_string(), "the topmost layer wins");
    for name in &lower {
        assert_eq!(read(&format!("file-{name}"))?, *name);
    }
    let new = format!(
        "/proc/self/fd/{}/new",
        std::os::fd::AsRawFd::as_raw_fd(&root.as_fd())
    );
    fs::write(new, "written")?;
    assert_eq!(fs::read_to_string(upper.join("new"))?, "written");
    Ok(())
}

fn try_method(forced: Option<Method>) -> io::Result<()> {
    // On a real file system: a layer store lies on one.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    // The thread that unshares its mounts ends with the test.
    std::thread::spawn(move || mount_and_look(&path, forced))
        .join()
        .unwrap()
}

#[test]
fn the_kernel_takes_128_layers_by_itself() {
    if testkit::is_root() {
        try_method(None).unwrap();
    }
}

#[test]
fn mount_takes_128_layers_in_one_page() {
    if testkit::is_root() {
        try_method(Some(Method::Legacy)).unwrap();
    }
}

#[test]
fn layers_are_added_one_by_one_from_6_5_on() {
    if !testkit::is_root() {
        return;
    }
    let added = try_method(Some(Method::LowerPlus));
    match (kernel() >= (6, 5), added) {
        (true, added) => added.unwrap(),
        // EINVAL: what tells `mount` to go another way.
        (false, added) => assert_eq!(sys::error::errno(&added.unwrap_err()), Some(22)),
    }
}

/// What the daemon does where the kernel has no `lowerdir+`: many threads, each with requests of its own, and one
/// current directory that belongs to all of them.
#[test]
fn threads_mount_at_once_and_the_current_directory_stays() {
    if !testkit::is_root() {
        return;
    }
    const THREADS: usize = 4;
    const ROUNDS: usize = 25;
    let before = std::env::current_dir().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mounted = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            let layers = directory.path().join(number.to_string());
            for name in ["1", "2"] {
                fs::create_dir_all(layers.join(name)).unwrap();
                fs::write(layers.join(name).join("whose"), format!("{number}/{name}")).unwrap();
            }
            let mounted = &mounted;
            scope.spawn(move || {
                let request = Request {
                    layers: &layers,
                    lower: &["2".to_owned(), "1".to_owned()],
                    upper: None,
                };
                for method in [Method::LowerString, Method::Legacy].repeat(ROUNDS) {
                    let root = mount(&request, Some(method)).unwrap();
                    let whose = sys::path::read_bounded(root.as_fd(), Path::new("whose"), 100);
                    let whose = String::from_utf8(whose.unwrap()).unwrap();
                    assert_eq!(whose, format!("{number}/2"), "{method:?}");
                }
                mounted.store(true, Ordering::Relaxed);
            });
        }
        while !mounted.load(Ordering::Relaxed) {
            assert_eq!(std::env::current_dir().unwrap(), before);
        }
    });
    assert_eq!(std::env::current_dir().unwrap(), before);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(directory.path().to_str().unwrap()));
}
