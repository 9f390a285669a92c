//! `docker top`: the processes of a container as the host's `ps` would show them, without running it.
//!
//! Reads /proc of the host for the process ids that the container's cgroup holds. Known forms of `ps_args` are
//! `-ef` and its like, `aux`, and `-o` with a list of known columns; for others [`parse`] answers `None`, and
//! the caller may run the host's own `ps` and hand its text to [`from_ps`] (moby `daemon/top_unix.go`).

mod cells;
mod columns;
mod process;
mod ps;
#[cfg(test)]
mod tests;

pub use columns::{Columns, DEFAULT_ARGS, parse};
pub use ps::{from_ps, host_ps};

use api::container::TopResponse;

use crate::Error;
use cells::{cell, users};
use process::{Clock, Process};

/// Renders the processes `pids`; one that ended in the meantime is left out. Blocks.
///
/// # Errors
/// Internal when /proc cannot be read.
pub fn top(columns: &Columns, pids: &[u32]) -> Result<TopResponse, Error> {
    let failed = |error| Error::internal("read /proc", error);
    let clock = Clock::now().map_err(failed)?;
    let users = users();
    let mut pids = pids.to_vec();
    pids.sort_unstable();
    let mut lines = Vec::new();
    for pid in pids {
        let Some(process) = Process::read(pid).map_err(failed)? else {
            continue;
        };
        let cells = columns
            .0
            .iter()
            .map(|(_, column)| cell(*column, &process, &clock, &users));
        lines.push(cells.collect());
    }
    Ok(TopResponse {
        titles: Some(columns.0.iter().map(|(title, _)| title.clone()).collect()),
        processes: Some(lines),
    })
}
