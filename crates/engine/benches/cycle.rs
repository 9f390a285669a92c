//! The start path without HTTP: create, start, wait, remove of `true` with network none, one after another.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench fails loudly and prints its figures"
)]

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/containers/common.rs"]
mod common;

use std::time::{Duration, Instant};

use api::options::{RemoveOptions, WaitCondition};

/// Cycles that are measured, after a tenth of as many that are not.
const CYCLES: usize = 200;

fn main() {
    if !common::can_run() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(cycles());
}

async fn cycles() {
    let mut root = common::Root::new();
    root.config.pool_size = 4;
    let engine = root.engine().await;
    let mut times: [Vec<Duration>; 5] = Default::default();
    for cycle in 0..CYCLES + CYCLES / 10 {
        let mut laps = vec![Instant::now()];
        common::create(&engine, "cycle", common::request(&["true"])).await;
        laps.push(Instant::now());
        engine.start("cycle").await.unwrap();
        laps.push(Instant::now());
        engine
            .wait("cycle", WaitCondition::NotRunning)
            .unwrap()
            .done()
            .await;
        laps.push(Instant::now());
        engine
            .remove("cycle", &RemoveOptions::default())
            .await
            .unwrap();
        laps.push(Instant::now());
        if cycle >= CYCLES / 10 {
            for (lap, pair) in times.iter_mut().zip(laps.windows(2)) {
                lap.push(pair[1] - pair[0]);
            }
            times[4].push(laps[4] - laps[0]);
        }
    }
    for (what, mut laps) in ["create", "start", "wait", "remove", "cycle"]
        .iter()
        .zip(times)
    {
        laps.sort();
        println!(
            "{what:>6}: median {:6.2} ms, 90th percentile {:6.2} ms",
            laps[laps.len() / 2].as_secs_f64() * 1e3,
            laps[laps.len() * 9 / 10].as_secs_f64() * 1e3
        );
    }
    engine.shutdown().await.unwrap();
}
