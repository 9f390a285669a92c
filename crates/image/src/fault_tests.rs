//! kill -9 after each durable step, a full disk, and a boot that ended in a power cut.
//!
//! The dangerous part runs in a child: this test binary again, told by the environment to play a part.

#![expect(
    clippy::disallowed_methods,
    reason = "the children are this test binary and unshare(1)"
)]

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use db::Db;

use crate::testing::*;
use crate::*;

/// Names the data root for the child; unset in the parent.
const ROOT: &str = "COOPER_TEST_ROOT";

fn layers() -> [Vec<u8>; 2] {
    let lower = TarMaker::new()
        .directory("tmp", 0o1777)
        .file("tmp/a", &[1; 10_000])
        .done();
    let upper = TarMaker::new()
        .file("tmp/b", &[2; 10_000])
        .file(".wh.x", b"")
        .done();
    [lower, upper]
}

fn child(part: &str, root: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", part, "--nocapture"])
        .env(ROOT, root);
    command
}

fn child_root() -> Option<std::path::PathBuf> {
    std::env::var_os(ROOT).map(Into::into)
}

/// Marks every layer as written before a power cut.
fn pretend_power_cut(root: &Path) {
    let db = Db::open(&root.join("cooper.db")).unwrap();
    db.write::<_, db::Error>(|tx| {
        Ok(tx.execute("UPDATE layers SET synced = 0, boot_id = 'another'", [])?)
    })
    .unwrap();
}

/// Everything that is durable, once.
#[test]
fn part_of_a_life() {
    let Some(root) = child_root() else { return };
    let store = open(&root).unwrap();
    load(&store, &docker_archive(&["a:1"], &layers())).unwrap();
    store.sync_layers().unwrap();
    pretend_power_cut(&root);
    drop(store);
    let store = open(&root).unwrap();
    let id = store.resolve("a:1").unwrap().id;
    store.tag(&id, &Reference::parse("b:1").unwrap()).unwrap();
    store.hold(&id, "holder").unwrap();
    let options = RemoveOptions {
        force: true,
        prune: true,
        is_running: &|_| false,
    };
    store.remove(id.as_str(), options).unwrap();
    store.release("holder").unwrap();
}

/// Every image can be mounted, every directory has a row, every blob an image.
fn check_sound(root: &Path) {
    let store = open(root).unwrap();
    let mut blobs = 0;
    let mut directories = std::collections::BTreeSet::new();
    for image in store.list().unwrap() {
        blobs += 1 + image.layers.len();
        for layer in &image.layers {
            assert!(root.join("layers").join(layer.number.to_string()).is_dir());
            directories.insert(layer.number.to_string());
        }
        let tmp = root
            .join("layers")
            .join(image.layers[1].number.to_string())
            .join("tmp");
        assert_eq!(
            tmp.metadata().unwrap().mode() & 0o7777,
            0o1777,
            "the second pass was done"
        );
        assert_eq!(std::fs::read(tmp.join("b")).unwrap(), [2; 10_000]);
    }
    if let Some(held) = store.held("holder").unwrap() {
        directories.extend(held.lower);
    }
    let count = |part: &str| std::fs::read_dir(root.join(part)).unwrap().count();
    assert_eq!(count("content/sha256"), blobs);
    assert_eq!(count("content/ingest"), 0);
    assert_eq!(count("layers"), directories.len() + 1);
    load(&store, &docker_archive(&["a:1"], &layers())).unwrap();
    assert_eq!(store.resolve("a:1").unwrap().layers.len(), 2);
}

#[test]
fn killed_after_any_durable_step_the_store_opens_clean() {
    if !testkit::is_root() || child_root().is_some() {
        return;
    }
    for point in [
        "image.blob-stored",
        "image.blob-stored:3",
        "image.blobs-synced",
        "image.layer-extracted",
        "image.layer-extracted:2",
        "image.layer-row",
        "image.layer-row:2",
        "image.committed",
        "image.layers-synced",
        "image.layer-removed-for-repair",
        "image.layer-repaired",
        "image.tagged",
        "image.held",
        "image.removed",
        "image.layer-rows-removed:4",
        "image.released",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let output = child("fault_tests::part_of_a_life", directory.path())
            .env(sys::fault::VARIABLE, point)
            .output()
            .unwrap();
        assert_eq!(
            output.status.signal(),
            Some(9),
            "{point} was never passed: {output:?}"
        );
        check_sound(directory.path());
    }
}

#[test]
fn without_a_fault_the_life_ends_with_nothing_left() {
    if !testkit::is_root() || child_root().is_some() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = child("fault_tests::part_of_a_life", directory.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let count = |part: &str| {
        std::fs::read_dir(directory.path().join(part))
            .unwrap()
            .count()
    };
    assert_eq!((count("content/sha256"), count("layers")), (0, 1));
}

#[test]
fn layers_of_an_unclean_boot_are_unpacked_again() {
    if !testkit::is_root() {
        return;
    }
    let test = TestStore::new();
    test.load(&docker_archive(&["a:1"], &layers())).unwrap();
    let image = test.store.resolve("a:1").unwrap();
    let held = test.store.hold(&image.id, "container").unwrap();
    test.store.sync_layers().unwrap();
    // What a power cut leaves: files without content, a directory that never reached the disk.
    std::fs::write(test.layer("a:1", 1).join("tmp/b"), b"").unwrap();
    std::fs::remove_dir_all(test.layer("a:1", 0)).unwrap();
    pretend_power_cut(&test.root);
    let store = open(&test.root).unwrap();
    assert_eq!(
        store.held("container").unwrap(),
        Some(held),
        "under the same names"
    );
    assert_eq!(
        std::fs::read(test.layer("a:1", 1).join("tmp/b")).unwrap(),
        [2; 10_000]
    );
    assert_eq!(
        std::fs::read(test.layer("a:1", 0).join("tmp/a")).unwrap(),
        [1; 10_000]
    );
    drop(store);
    check_sound(&test.root);
}

/// A store after a power cut that took a layer of `a:1` and what `spoil` does to that layer's blob; `b:1` is whole.
fn after_a_power_cut(position: usize, spoil: impl Fn(&Path)) -> (TestStore, Image, Vec<u8>) {
    let test = TestStore::new();
    let archive = docker_archive(&["a:1"], &layers());
    test.load(&archive).unwrap();
    let other = TarMaker::new().file("other", b"whole").done();
    test.load(&docker_archive(&["b:1"], &[other])).unwrap();
    let image = test.store.resolve("a:1").unwrap();
    test.store.hold(&image.id, "container").unwrap();
    test.store.sync_layers().unwrap();
    std::fs::remove_dir_all(test.layer("a:1", position)).unwrap();
    spoil(
        &test
            .root
            .join("content/sha256")
            .join(image.layers[position].diff_id.hex()),
    );
    pretend_power_cut(&test.root);
    (test, image, archive)
}

#[test]
fn one_bad_or_missing_blob_after_a_power_cut_costs_its_image_alone() {
    if !testkit::is_root() {
        return;
    }
    let flip = |blob: &Path| {
        let mut bytes = std::fs::read(blob).unwrap();
        bytes[700] ^= 1;
        std::fs::write(blob, bytes).unwrap();
    };
    let remove = |blob: &Path| std::fs::remove_file(blob).unwrap();
    let spoils = [
        ("flipped, at the top", 1, flip as fn(&Path)),
        ("missing, at the top", 1, remove),
        ("missing, at the bottom", 0, remove),
    ];
    for (what, position, spoil) in spoils {
        let (test, image, archive) = after_a_power_cut(position, spoil);
        let store = open(&test.root).unwrap();
        let whole = store.resolve("b:1").unwrap();
        store.hold(&whole.id, "other").unwrap();
        assert_eq!(store.list().unwrap().len(), 2, "{what}");
        // It says so wherever it is to be mounted, and stays to be looked at.
        let layer = &image.layers[position].diff_id;
        for refused in [
            store.hold(&image.id, "new").unwrap_err(),
            store.mountable("container").unwrap_err(),
        ] {
            let text = refused.to_string();
            assert!(text.contains(layer.as_str()), "{what}: {text}");
            assert!(
                text.contains("pull or load the image again"),
                "{what}: {text}"
            );
        }
        // The next start tries again, and is as good; then the image comes once more.
        drop(store);
        let store = open(&test.root).unwrap();
        load(&store, &archive).unwrap();
        let held = store.mountable("container").unwrap().unwrap();
        assert_eq!(
            held,
            store.hold(&image.id, "new").unwrap(),
            "{what}: under the same names"
        );
        store.sync_layers().unwrap();
        drop(store);
        let store = open(&test.root).unwrap();
        store.release("new").unwrap();
        store.release("container").unwrap();
        store.release("other").unwrap();
        let options = RemoveOptions {
            force: true,
            prune: true,
            is_running: &|_| false,
        };
        store.remove("b:1", options).unwrap();
        drop(store);
        check_sound(&test.root);
    }
}

#[test]
fn an_image_without_its_configuration_hides_no_other_and_comes_back() {
    if !testkit::is_root() {
        return;
    }
    let (test, image, archive) = after_a_power_cut(1, |_| {});
    std::fs::write(test.root.join("content/sha256").join(image.id.hex()), b"{}").unwrap();
    let store = open(&test.root).unwrap();
    let names: Vec<String> = store
        .list()
        .unwrap()
        .iter()
        .map(|image| image.references[0].familiar())
        .collect();
    assert_eq!(names, ["b:1"]);
    let text = store.resolve("a:1").unwrap_err().to_string();
    assert!(text.contains("pull or load the image again"), "{text}");
    load(&store, &archive).unwrap();
    assert_eq!(store.resolve("a:1").unwrap().id, image.id);
}

/// Loads more than fits, then something that fits.
#[test]
fn part_of_a_full_disk() {
    let Some(root) = child_root() else { return };
    let store = open(&root).unwrap();
    let count = |part: &str| std::fs::read_dir(root.join(part)).unwrap().count();
    let mut state = 1_u64;
    let mut noise = |length: usize| -> Vec<u8> {
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_le_bytes()[7]
        };
        (0..length).map(|_| next()).collect()
    };
    // The blob does not fit; then the blob fits and its unpacked files do not.
    for length in [9 << 20, 4 << 20] {
        let layer = TarMaker::new().file("noise", &noise(length)).done();
        let error = load(&store, &docker_archive(&["full:1"], &[layer])).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("No space left on device"), "{text}");
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(store.list().unwrap().is_empty());
        assert_eq!(
            (
                count("content/sha256"),
                count("content/ingest"),
                count("layers")
            ),
            (0, 0, 1)
        );
    }
    load(&store, &docker_archive(&["fits:1"], &layers())).unwrap();
    store.resolve("fits:1").unwrap();
}

/// Loads a small archive of many large files, and looks how full the disk becomes meanwhile.
#[test]
fn part_of_a_bomb() {
    let Some(root) = child_root() else { return };
    let store = open(&root).unwrap();
    let free = || {
        sys::file::room(std::fs::File::open(&root).unwrap())
            .unwrap()
            .free_bytes
    };
    let before = free();
    let bomb = (0..64).fold(TarMaker::new(), |tar, number| {
        tar.file(&number.to_string(), &[0; 3 << 20])
    });
    let archive = gzip(&docker_archive(&["bomb:1"], &[gzip(&bomb.done())]));
    let done = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    let (error, least) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut least = u64::MAX;
            while !done.load(order) {
                least = least.min(free());
            }
            least
        });
        let error = load(&store, &archive).unwrap_err();
        done.store(true, order);
        (error, watch.join().unwrap())
    });
    let text = error.to_string();
    assert!(
        text.contains("No space left on device") && text.contains("stay reserved"),
        "{text}"
    );
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(least < before / 2, "it went far: {least} of {before} bytes");
    assert!(
        least > 1 << 20,
        "others had {least} bytes at the worst moment"
    );
    assert!(free() > before - (1 << 20), "everything is given back");
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn a_bomb_leaves_the_reserve_alone() {
    if !testkit::is_root() || child_root().is_some() {
        return;
    }
    passes(in_a_small_file_system("fault_tests::part_of_a_bomb", 64));
}

fn in_a_small_file_system(part: &str, mebibytes: u32) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o size={mebibytes}m none {root} && exec \"$0\" --exact {part} --nocapture",
        root = directory.path().display()
    );
    Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(ROOT, directory.path())
        .output()
        .unwrap()
}

#[test]
fn a_full_disk_is_an_error_and_gets_its_space_back() {
    if !testkit::is_root() || child_root().is_some() {
        return;
    }
    passes(in_a_small_file_system(
        "fault_tests::part_of_a_full_disk",
        6,
    ));
}

fn passes(output: Output) {
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
