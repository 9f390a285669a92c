//! How fast bytes pass, printed for whoever compares.

use super::*;

/// Megabytes that the throughput test moves; `COOPER_SHIM_BENCH_MB` asks for more in a release build.
const THROUGHPUT_MB: usize = 30;

#[test]
fn throughput_is_printed() {
    let megabytes = std::env::var("COOPER_SHIM_BENCH_MB")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(THROUGHPUT_MB);
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("lines");
    std::fs::write(&source, ("x".repeat(99) + "\n").repeat(10_000)).unwrap();
    let script = format!(
        "read go; exec cat $(i=0; while [ $i -lt {megabytes} ]; do echo {}; i=$((i+1)); done)",
        source.display()
    );
    for log in [false, true] {
        for attached in [true, false] {
            let setup = Setup {
                stdin: true,
                stdin_once: true,
                log,
            };
            let fixture = Fixture::new(&script, setup);
            let reader = attached.then(|| fixture.attach(ProcessId::Init, Streams::OUTPUT));
            let mut feeder = fixture.attach(
                ProcessId::Init,
                Streams {
                    stdin: true,
                    stdout: false,
                    stderr: false,
                },
            );
            let begin = Instant::now();
            feeder.write_all(b"go\n").unwrap();
            let mut total = 0;
            if let Some(mut stream) = reader {
                let mut buffer = vec![0; 256 << 10];
                loop {
                    let count = stream.read(&mut buffer).unwrap();
                    if count == 0 {
                        break;
                    }
                    total += count;
                }
            }
            drop(feeder);
            assert_eq!(fixture.exit(), 0);
            let taken = begin.elapsed();
            let rate = f64::from(u32::try_from(megabytes).unwrap()) / taken.as_secs_f64();
            println!(
                "log {log}, attached {attached}: {megabytes} MB in {taken:?}: {rate:.0} MB/s, {total} bytes"
            );
            fixture.finish();
        }
    }
}
