//! How unpacking ends: by compression told from the bytes, by an error, by somebody who no longer wants it.

use super::*;

#[test]
fn compression_is_told_by_the_bytes() {
    if !testkit::is_root() {
        return;
    }
    let plain = TarMaker::new().file("a", &[7; 100_000]).done();
    let (first, second) = plain.split_at(10_000);
    let members = [gzip(first), gzip(second)].concat();
    let zstd = zstd::stream::encode_all(&plain[..], 3).unwrap();
    let diff_id = Digest::of(&plain);
    for blob in [plain.clone(), gzip(&plain), members, zstd] {
        let directory = tempfile::tempdir().unwrap();
        let root = file::open_directory(directory.path()).unwrap();
        let source = Source {
            input: Box::new(&blob[..]),
            diff_id: &diff_id,
            verified: false,
            stop: &NEVER,
        };
        first_pass(root, source).unwrap();
        assert_eq!(fs::read(directory.path().join("a")).unwrap(), [7; 100_000]);
    }
}

#[test]
fn a_wrong_or_cut_archive_is_an_error() {
    if !testkit::is_root() {
        return;
    }
    let plain = TarMaker::new().file("a", &[7; 100_000]).done();
    let packed = gzip(&plain);
    let check = |blob: &[u8], diff_id: &Digest, part: &str| {
        let directory = tempfile::tempdir().unwrap();
        let root = file::open_directory(directory.path()).unwrap();
        let source = Source {
            input: Box::new(blob),
            diff_id,
            verified: false,
            stop: &NEVER,
        };
        let error = first_pass(root, source).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    check(&plain, &Digest::of(b""), "expected \"sha256:e3b0");
    check(
        &packed[..packed.len() / 2],
        &Digest::of(&plain),
        "read the archive",
    );
    check(
        &plain[..50_000],
        &Digest::of(&plain),
        "unexpected end of file",
    );
    let mut trailing = plain.clone();
    trailing.extend_from_slice(b"more");
    check(&trailing, &Digest::of(&plain), "expected");
}

/// Sets a mark when somebody reads.
struct Marks<'a>(&'a [u8], &'a AtomicBool);

impl Read for Marks<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.1.store(true, Ordering::Relaxed);
        self.0.read(into)
    }
}

#[test]
fn both_passes_end_when_nobody_wants_the_layer() {
    if !testkit::is_root() {
        return;
    }
    let long = 256 << 20;
    let plain = TarMaker::new().file("long", &vec![0; long]).done();
    let packed = zstd::stream::encode_all(&plain[..], 3).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let source = Source {
        input: Box::new(Marks(&packed, &stop)),
        diff_id: &Digest::of(&plain),
        verified: false,
        stop: &stop,
    };
    let root = file::open_directory(directory.path()).unwrap();
    let error = first_pass(root, source).unwrap_err().to_string();
    assert!(error.contains("given up"), "{error}");
    let written = fs::metadata(directory.path().join("long")).map_or(0, |file| file.len());
    assert!(written < 16 << 20, "{written} bytes were still unpacked");

    let plain = TarMaker::new().directory("d", 0o755).done();
    let source = Source {
        input: Box::new(&plain[..]),
        diff_id: &Digest::of(&plain),
        verified: false,
        stop: &NEVER,
    };
    let root = file::open_directory(directory.path()).unwrap();
    let extracted = first_pass(root, source).unwrap();
    let error = second_pass::finish(extracted, &[], &stop).unwrap_err();
    assert!(matches!(error, ExtractError::Stopped), "{error:?}");
}

#[test]
fn a_file_that_cannot_fit_is_refused_before_it_is_written() {
    if !testkit::is_root() {
        return;
    }
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..4].copy_from_slice(b"huge");
    header.set_size(1 << 60);
    let layer = TarMaker::new().append(header, b"").done();
    let mut layers = Stack::empty();
    let error = layers.push(&layer).unwrap_err();
    assert!(error.contains("No space left on device"), "{error}");
    assert!(error.contains("more are needed"), "{error}");
    assert!(!layers.path(0, "huge").exists());
}
