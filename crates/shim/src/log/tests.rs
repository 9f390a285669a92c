//! The log against files that dockerd 28.5.2 wrote, and against a disk that is full.

use std::collections::BTreeMap;
use std::path::Path;

use sys::clock::Stamp;

use super::*;
use crate::protocol::Log;

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/dockerd-28.5.2");

fn recorded(name: &str) -> String {
    std::fs::read_to_string(Path::new(RECORDED).join(name)).unwrap()
}

fn log(path: &Path) -> Log {
    Log {
        path: path.to_owned(),
        max_size_bytes: None,
        max_files: 1,
        attributes: BTreeMap::new(),
    }
}

/// The time of a recorded line, as the writer would get it.
fn stamp_of(line: &str) -> Stamp {
    let time = line.split("\"time\":\"").nth(1).unwrap();
    let nanoseconds = time[20..].split('Z').next().unwrap();
    let nanoseconds: u32 = format!("{nanoseconds:0<9}").parse().unwrap();
    let clock: Vec<u64> = time[11..19]
        .split(':')
        .map(|n| n.parse().unwrap())
        .collect();
    // 2026-11-22T00:00:00Z, by date(1).
    let seconds = 1_795_305_600 + clock[0] * 3600 + clock[1] * 60 + clock[2];
    Stamp::new(seconds, nanoseconds)
}

/// Writes `input` in chunks of `chunk` bytes, and returns the log. Each message gets the time of the recorded
/// line at its place, so that the files can be compared whole.
fn written(input: &[u8], chunk: usize, expected: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut writer = Writer::open(&log(&path)).unwrap();
    let mut splitter = Splitter::default();
    let mut stamps = expected.lines().map(stamp_of);
    let now = Stamp::now();
    let mut append = |piece: Piece<'_>| {
        let stamp = stamps.next().unwrap_or(now);
        let stamp = &stamp;
        writer.append("stdout", Piece { stamp, ..piece });
    };
    for part in input.chunks(chunk) {
        splitter.push(part, &now, &mut append);
    }
    splitter.finish(&now, &mut append);
    writer.flush();
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn escapes_as_dockerd() {
    let input = b"plain\ntab\there \"quoted\" back\\slash <a href=x>&amp;</a> \x01\x1b[0m\x7f \r\n\
        unicode \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \xe2\x80\xa8 \xe2\x80\xa9 end\n\
        bad \xff\xfe \xc3 \xe0\xa4 \xf0\x9f\x98 \xed\xa0\x80 \xc0\x80 \xf4\x90\x80\x80 end\n\
        \n\xe2\x82\xacsplit\n";
    let expected = recorded("escapes.log");
    for chunk in [1, 3, 7, input.len()] {
        assert_eq!(written(input, chunk, &expected), expected, "chunk {chunk}");
    }
}

#[test]
fn splits_long_lines_as_dockerd() {
    let mut expected = recorded("long-lines.log");
    while let Some((before, rest)) = expected.split_once('<') {
        let (run, after) = rest.split_once('>').unwrap();
        let (letter, count) = run.split_once('*').unwrap();
        let run = letter.repeat(count.parse().unwrap());
        expected = format!("{before}{run}{after}");
    }
    let line = |letter: &str, count| letter.repeat(count) + "\n";
    let input = [
        line("a", 16383),
        line("b", 16384),
        line("c", 16385),
        line("d", 40000),
        "e".repeat(16383) + "éxyz\n",
        "tail without newline".to_owned(),
    ]
    .concat();
    for chunk in [1, 1000, 16384, 65536, input.len()] {
        let result = written(input.as_bytes(), chunk, &expected);
        assert!(result == expected, "chunk {chunk}");
    }
}

#[test]
fn pieces_of_a_line_have_the_time_of_the_first() {
    let mut splitter = Splitter::default();
    let mut times = Vec::new();
    for second in 0..4 {
        let content = if second == 3 {
            "x\ny\n"
        } else {
            &"x".repeat(9000)
        };
        splitter.push(content.as_bytes(), &Stamp::new(second, 0), |piece| {
            let time = String::from_utf8_lossy(piece.stamp.as_bytes()).into_owned();
            times.push((piece.content.len(), piece.newline, time));
        });
    }
    let at = |second| format!("1970-01-01T00:00:0{second}Z");
    let expected = [
        (16384, false, at(1)),
        (10617, true, at(1)),
        (1, true, at(3)),
    ];
    assert_eq!(times, expected);
}

fn write_numbered_lines(mut log: Log, labels: &[(&str, &str)]) {
    log.attributes = labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let mut writer = Writer::open(&log).unwrap();
    let mut splitter = Splitter::default();
    for number in 0..60 {
        // Nine digits, as nearly all of the recorded ones: file lengths decide.
        let stamp = Stamp::new(1_795_350_777, 800_000_001);
        let line = format!("line number {number}\n");
        splitter.push(line.as_bytes(), &stamp, |piece| {
            writer.append("stdout", piece);
        });
    }
    writer.flush();
}

fn messages(file: &str) -> Vec<String> {
    let without_time = |line: &str| line.split(",\"time\"").next().unwrap().to_owned();
    file.lines().map(without_time).collect()
}

#[test]
fn rotates_as_dockerd() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rotated.log");
    let mut log = log(&path);
    (log.max_size_bytes, log.max_files) = (Some(1024), 3);
    write_numbered_lines(log, &[("zeta", "z"), ("alpha", "a<1>")]);
    for name in ["rotated.log", "rotated.log.1", "rotated.log.2"] {
        let ours = std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(messages(&ours), messages(&recorded(name)), "{name}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
}

#[test]
fn one_file_is_replaced_instead_of_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one-file.log");
    let mut log = log(&path);
    log.max_size_bytes = Some(1024);
    write_numbered_lines(log, &[]);
    // Where the file was emptied depends on the lengths of the times, and those of dockerd's lines are gone.
    let ours = messages(&std::fs::read_to_string(&path).unwrap());
    let recorded = messages(&recorded("one-file.log"));
    let common = ours.len().min(recorded.len());
    assert!((8..=13).contains(&common), "{ours:?}");
    assert_eq!(
        ours[ours.len() - common..],
        recorded[recorded.len() - common..]
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_reader_follows_through_rotations_without_losing_a_line() {
    follow_through_rotations(5);
    follow_through_rotations(1);
}

fn follow_through_rotations(max_files: u32) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = log(&path);
    (log.max_size_bytes, log.max_files) = (Some(1024), max_files);
    let mut writer = Writer::open(&log).unwrap();
    let mut held = std::fs::File::open(&path).unwrap();
    let mut seen = String::new();
    for number in 0..50 {
        let stamp = Stamp::new(0, 0);
        let content = format!("line {number}");
        let piece = Piece {
            content: content.as_bytes(),
            newline: true,
            stamp: &stamp,
        };
        writer.append("stderr", piece);
        writer.flush();
        // As a follower: the old file to its end, then the new one.
        loop {
            std::io::Read::read_to_string(&mut held, &mut seen).unwrap();
            let current = std::fs::File::open(&path).unwrap();
            if same_file(&held, &current) {
                break;
            }
            held = current;
        }
    }
    let numbers = seen.lines().enumerate();
    for (number, line) in numbers {
        assert!(line.starts_with(&format!("{{\"log\":\"line {number}\\n\"")));
    }
    assert_eq!(seen.lines().count(), 50);
}

fn same_file(a: &std::fs::File, b: &std::fs::File) -> bool {
    use std::os::unix::fs::MetadataExt;
    a.metadata().unwrap().ino() == b.metadata().unwrap().ino()
}

#[test]
fn a_torn_line_is_cut_when_the_file_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(&path, "{\"log\":\"whole\\n\"}\n{\"log\":\"to").unwrap();
    drop(Writer::open(&log(&path)).unwrap());
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, "{\"log\":\"whole\\n\"}\n");
}

#[test]
fn a_failing_file_drops_and_counts_and_is_reported_once() {
    // Every write to /dev/full fails with ENOSPC; `tests/disk_full.rs` does it on a real, small file system.
    let mut writer = Writer::open(&log(Path::new("/dev/full"))).unwrap();
    let stamp = Stamp::new(0, 0);
    let piece = Piece {
        content: b"lost",
        newline: true,
        stamp: &stamp,
    };
    for _ in 0..3 {
        writer.append("stdout", piece);
        writer.append("stdout", piece);
        writer.flush();
    }
    assert_eq!(writer.lines_dropped(), 6);
    let failure = writer.take_failure().unwrap();
    assert!(failure.contains("No space left"), "{failure}");
    assert_eq!(writer.take_failure(), None);
}

/// dockerd takes any number of files: the ones that are not there cost nothing.
#[test]
fn a_huge_number_of_files_is_no_work() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut writer = Writer::open(&Log {
        max_size_bytes: Some(1),
        max_files: 4_000_000_000,
        ..log(&path)
    })
    .unwrap();
    for number in 0..4 {
        let text = number.to_string();
        let piece = Piece {
            content: text.as_bytes(),
            newline: true,
            stamp: &Stamp::now(),
        };
        writer.append("stdout", piece);
        writer.flush();
    }
    for (file, number) in [("log", 3), ("log.1", 2), ("log.2", 1), ("log.3", 0)] {
        let text = std::fs::read_to_string(dir.path().join(file)).unwrap();
        assert!(
            text.contains(&format!(r#""log":"{number}"#)),
            "{file} {text}"
        );
    }
}
