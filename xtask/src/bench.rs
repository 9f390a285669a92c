//! `cargo xtask bench`: Cooper beside a dockerd in one run, as the table of DESIGN section 5.
//!
//! Each row is measured on both engines in turn, interleaved round by round, so that a noisy machine hits
//! both; medians are compared and the ratio is what counts.

mod rows;
mod wire;

use std::path::Path;

use anyhow::{Context, Result, bail};
use testkit::{Client, TestDaemon};

use self::rows::Stage;
use crate::{install, sh};

/// The table goes here, between the two markers.
const REPORT: &str = "BENCHMARKS.md";
const BEGIN: &str = "<!-- begin: cargo xtask bench -->";
const END: &str = "<!-- end: cargo xtask bench -->";

/// Measures every row, or those whose name holds one of the filters. `--peer unix://…` names the dockerd to
/// compare with, otherwise the reference engine of `../shared/peers` is asked for.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if !install::is_root() {
        bail!("the benchmark starts containers: run it as root");
    }
    install::debian(&["busybox-static"])?;
    let mut peer = None;
    let mut filters = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--peer" => {
                let host = words.next().context("--peer takes unix://…")?;
                peer = Some(Client::new(
                    host.strip_prefix("unix://")
                        .context("--peer takes unix://…")?,
                ));
            }
            filter => filters.push(filter),
        }
    }
    let peer = peer.or_else(testkit::peers::dockerd);
    let daemon = TestDaemon::start(sh::build_cooper("dist")?);
    daemon.load_busybox();
    let mut table = String::from("| work | dockerd 28.5.2 | Cooper | ratio |\n|---|---|---|---|\n");
    let stage = Stage::new(peer, daemon);
    let mut failed = Vec::new();
    for row in rows::ROWS {
        if !filters.is_empty() && !filters.iter().any(|filter| row.name.contains(filter)) {
            continue;
        }
        let measured = rows::measure(row, &stage);
        rows::clean(&stage.daemon.client())?;
        if let Some(peer) = &stage.peer {
            rows::clean(peer)?;
        }
        match measured {
            Ok((theirs, ours)) => {
                let line = rows::line(row, theirs, ours);
                print!("{line}");
                table.push_str(&line);
            }
            // The other rows are worth having all the same.
            Err(error) => {
                eprintln!("{}: {error:#}", row.name);
                failed.push(row.name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("not measured: {}", failed.join("; "));
    }
    if filters.is_empty() {
        write_report(&sh::root().join(REPORT), &table)
    } else {
        Ok(())
    }
}

fn write_report(path: &Path, table: &str) -> Result<()> {
    let old = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let (head, rest) = old
        .split_once(BEGIN)
        .context("no begin marker in BENCHMARKS.md")?;
    let (_, tail) = rest
        .split_once(END)
        .context("no end marker in BENCHMARKS.md")?;
    std::fs::write(path, format!("{head}{BEGIN}\n{table}{END}{tail}"))?;
    println!("wrote {}", path.display());
    Ok(())
}
