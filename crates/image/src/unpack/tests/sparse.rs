//! Files with holes, in the formats of GNU tar.

use super::*;

/// The file both sparse tests expect: 1 MiB with a few bytes in it.
fn check_sparse(stack: &Stack, name: &str) {
    let bytes = fs::read(stack.path(0, name)).unwrap();
    assert_eq!(bytes.len(), 1 << 20);
    assert_eq!(&bytes[4096..4099], b"abc");
    assert_eq!(&bytes[(1 << 20) - 512..(1 << 20) - 509], b"xyz");
    assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 6);
    let blocks = fs::metadata(stack.path(0, name)).unwrap().blocks();
    assert!(
        blocks <= 32,
        "{blocks} blocks of 512 bytes for a file that is nearly all hole"
    );
}

#[expect(clippy::disallowed_methods, reason = "tests compare with GNU tar")]
fn gnu_tar(arguments: &[&str], directory: &Path) -> Vec<u8> {
    let output = std::process::Command::new("tar")
        .args(arguments)
        .args(["--sparse", "-cf", "-", "sparse"])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn sparse_files_in_all_four_formats_of_gnu_tar() {
    if !testkit::is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = File::create(directory.path().join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"abc", 4096).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"xyz", (1 << 20) - 512).unwrap();
    file.set_len(1 << 20).unwrap();
    for arguments in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let layer = gnu_tar(arguments, directory.path());
        let stack = unpacked(std::slice::from_ref(&layer));
        check_sparse(&stack, "sparse");
        assert_eq!(stack.sizes, [1 << 20], "{arguments:?}");
    }
}

#[test]
fn many_fragments_in_the_old_gnu_format() {
    if !testkit::is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = File::create(directory.path().join("sparse")).unwrap();
    for number in 0..100_u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, b"x", number * 65536).unwrap();
    }
    let expected = fs::read(directory.path().join("sparse")).unwrap();
    let stack = unpacked(&[gnu_tar(&["--format=gnu"], directory.path())]);
    assert_eq!(fs::read(stack.path(0, "sparse")).unwrap(), expected);
}
