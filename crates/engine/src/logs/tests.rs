//! Tests of reading logs: what dockerd answered, tails against a plain count, rotation under a follower.

use std::fs::OpenOptions;
use std::io::Write as _;

use super::*;

fn all() -> LogsOptions {
    LogsOptions {
        stdout: true,
        stderr: true,
        ..LogsOptions::default()
    }
}

/// What dockerd 28.5.2 wrote for `echo one; echo two >&2; echo "a<b>&…"; printf tail`.
const WRITTEN: &str = r#"{"log":"two\n","stream":"stderr","time":"2026-11-22T12:34:56.568422171Z"}
{"log":"one\n","stream":"stdout","time":"2026-11-22T12:34:56.568483776Z"}
{"log":"a\u003cb\u003e\u0026\u2028\ufffd\n","stream":"stdout","time":"2026-11-22T12:34:56.57Z"}
{"log":"tail","stream":"stdout","time":"2026-11-22T12:34:56.628223495Z"}
"#;

struct Log {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

fn log(written: &str) -> Log {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c-json.log");
    std::fs::write(&path, written).unwrap();
    Log {
        _directory: directory,
        path,
    }
}

impl Log {
    fn append(&self, text: &str) {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rotate(&self, kept: usize) {
        let name = |number: usize| {
            if number == 0 {
                self.path.clone()
            } else {
                self.path.with_extension(format!("log.{number}"))
            }
        };
        for number in (0..kept).rev() {
            if name(number).exists() {
                std::fs::rename(name(number), name(number + 1)).unwrap();
            }
        }
    }

    fn read(&self, options: &LogsOptions, form: Form) -> Vec<u8> {
        runtime().block_on(async {
            let mut logs = Logs::open(&self.path, options, form, Box::pin(async {})).unwrap();
            let mut all = Vec::new();
            while let Some(block) = logs.next().await {
                all.extend_from_slice(&block.unwrap());
            }
            all
        })
    }

    fn text(&self, options: &LogsOptions) -> String {
        String::from_utf8(self.read(options, Form::Raw)).unwrap()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn line(number: usize) -> String {
    let stream = if number.is_multiple_of(3) {
        "stderr"
    } else {
        "stdout"
    };
    format!(
        "{{\"log\":\"line {number}\\n\",\"stream\":\"{stream}\",\"time\":\"1970-01-01T00:{:02}:{:02}.5Z\"}}\n",
        number / 60,
        number % 60
    )
}

#[test]
fn frames_as_dockerd_sends_them() {
    let log = log(WRITTEN);
    let framed = LogsOptions {
        timestamps: true,
        ..all()
    };
    let expected: &[u8] = b"\x02\0\0\0\0\0\0\x232026-11-22T12:34:56.568422171Z two\n\
        \x01\0\0\0\0\0\0\x232026-11-22T12:34:56.568483776Z one\n\
        \x01\0\0\0\0\0\0\x2b2026-11-22T12:34:56.570000000Z a<b>&\xe2\x80\xa8\xef\xbf\xbd\n\
        \x01\0\0\0\0\0\0\x232026-11-22T12:34:56.628223495Z tail";
    let read = log.read(&framed, Form::Frames);
    assert_eq!(
        String::from_utf8_lossy(&read),
        String::from_utf8_lossy(expected)
    );
}

#[test]
fn selections_of_dockerd() {
    let log = log(WRITTEN);
    let stderr = LogsOptions {
        stdout: false,
        ..all()
    };
    let table = [
        (all(), "two\none\na<b>&\u{2028}\u{fffd}\ntail"),
        (stderr.clone(), "two\n"),
        // The tail counts lines of either stream.
        (
            LogsOptions {
                tail: Some(2),
                ..stderr.clone()
            },
            "",
        ),
        (
            LogsOptions {
                tail: Some(0),
                ..all()
            },
            "",
        ),
        (
            LogsOptions {
                tail: Some(1),
                ..all()
            },
            "tail",
        ),
        (
            LogsOptions {
                tail: Some(9),
                ..all()
            },
            "two\none\na<b>&\u{2028}\u{fffd}\ntail",
        ),
        // Without attributes the details are still a blank.
        (
            LogsOptions {
                tail: Some(1),
                details: true,
                ..all()
            },
            " tail",
        ),
    ];
    for (options, expected) in table {
        assert_eq!(log.text(&options), expected, "{options:?}");
    }
}

#[test]
fn times_of_dockerd() {
    let log = log(WRITTEN);
    let at = |ns| Some(Time::from_unix_nanos(ns));
    let table = [
        (
            LogsOptions {
                since: at(1_795_350_896_570_000_001),
                ..all()
            },
            "tail",
        ),
        (
            LogsOptions {
                until: at(1_795_350_896_568_422_171),
                ..all()
            },
            "two\n",
        ),
        (
            LogsOptions {
                since: at(i64::MAX),
                ..all()
            },
            "",
        ),
        (
            LogsOptions {
                until: at(1),
                ..all()
            },
            "",
        ),
    ];
    for (options, expected) in table {
        assert_eq!(log.text(&options), expected, "{options:?}");
    }
}

#[test]
fn attributes_are_escaped_like_a_query() {
    let log = log(concat!(
        r#"{"log":"x\n","stream":"stdout","attrs":{"b":"1 ü","a":"=,"},"time":"2026-11-22T12:34:56Z"}"#,
        "\n"
    ));
    let options = LogsOptions {
        details: true,
        timestamps: true,
        ..all()
    };
    assert_eq!(
        log.text(&options),
        "2026-11-22T12:34:56.000000000Z a=%3D%2C,b=1+%C3%BC x\n"
    );
}

#[test]
fn tails_over_rotated_files_equal_a_plain_count() {
    let log = log("");
    for number in 0..40 {
        log.append(&line(number));
        if number % 11 == 10 {
            log.rotate(5);
        }
    }
    for tail in 0..45 {
        let expected: String = (0..40_usize)
            .skip(40_usize.saturating_sub(tail))
            .map(|number| format!("line {number}\n"))
            .collect();
        let options = LogsOptions {
            tail: Some(tail as u64),
            ..all()
        };
        assert_eq!(log.text(&options), expected, "tail {tail}");
    }
}

#[test]
fn a_tail_spans_blocks_read_backwards() {
    let written: String = (0..5_000).map(line).collect();
    assert!(written.len() > 3 * 64 * 1024);
    let log = log(&written);
    let read = log.text(&LogsOptions {
        tail: Some(4_321),
        ..all()
    });
    assert_eq!(read.lines().count(), 4_321);
    assert!(read.starts_with("line 679\n") && read.ends_with("line 4999\n"));
}

#[test]
fn a_line_longer_than_a_block_is_whole_and_an_endless_one_is_skipped() {
    let long = "x".repeat(BLOCK_BYTES + 7);
    let endless = "y".repeat(LINE_BYTES_MAX + BLOCK_BYTES);
    let entry = |text: &str| {
        format!(
            "{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:00Z\"}}\n"
        )
    };
    let log = log(&(entry(&long) + &entry(&endless) + &entry("after")));
    assert_eq!(log.text(&all()), format!("{long}\nafter\n"));
}

#[test]
fn torn_lines_are_left_out_and_a_missing_log_is_empty() {
    let torn = log(&(line(1) + "{\"log\":\"half" + "\n" + &line(2) + "{\"log\":\"ha"));
    assert_eq!(torn.text(&all()), "line 1\nline 2\n");
    assert_eq!(
        torn.text(&LogsOptions {
            tail: Some(1),
            ..all()
        }),
        "line 2\n"
    );
    let none = log("");
    std::fs::remove_file(&none.path).unwrap();
    assert_eq!(none.text(&all()), "");
}

/// A writer that rotates under a follower: every line comes once and in order, and the follow ends with
/// the container.
#[test]
fn a_follower_loses_nothing_to_rotation() {
    for unwatched in [false, true] {
        let log = log("");
        log.append(&line(0));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let followed = runtime().block_on(async {
            let ended = Box::pin(async { drop(stopped.await) });
            let options = LogsOptions {
                follow: true,
                ..all()
            };
            let mut logs = Logs::open(&log.path, &options, Form::Raw, ended).unwrap();
            if unwatched {
                logs.follow.as_mut().unwrap().growth = Growth::Unwatched;
            }
            assert_eq!(logs.next().await.unwrap().unwrap(), "line 0\n");
            let path = log.path.clone();
            let writer = std::thread::spawn(move || {
                let log = Log {
                    _directory: tempfile::tempdir().unwrap(),
                    path,
                };
                for number in 1..2_000 {
                    if number % 100 == 0 {
                        log.rotate(1_000);
                    }
                    log.append(&line(number));
                }
                drop(stop);
            });
            let mut all = String::new();
            while let Some(block) = logs.next().await {
                all.push_str(std::str::from_utf8(&block.unwrap()).unwrap());
            }
            writer.join().unwrap();
            all
        });
        let expected: String = (1..2_000)
            .map(|number| format!("line {number}\n"))
            .collect();
        assert!(
            followed == expected,
            "{} of {} bytes",
            followed.len(),
            expected.len()
        );
    }
}

#[test]
fn a_follower_goes_on_in_a_file_that_was_emptied() {
    let log = log(&(line(1) + &line(2)));
    runtime().block_on(async {
        let options = LogsOptions {
            follow: true,
            ..all()
        };
        let ended = Box::pin(std::future::pending());
        let mut logs = Logs::open(&log.path, &options, Form::Raw, ended).unwrap();
        assert_eq!(logs.next().await.unwrap().unwrap(), "line 1\nline 2\n");
        std::fs::write(&log.path, line(3)).unwrap();
        let next = tokio::time::timeout(std::time::Duration::from_secs(10), logs.next());
        assert_eq!(next.await.expect("in time").unwrap().unwrap(), "line 3\n");
    });
}
