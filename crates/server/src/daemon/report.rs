//! The report that SIGUSR1 asks for, where dockerd writes its stacks: `<exec root>/daemon-report-<time>.log`.

use std::fmt::Write as _;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use engine::Engine;
use sys::file::{self, Durability};

/// Mode of the file: names of containers are nobody else's business.
const MODE: u32 = 0o600;

/// Writes it and says where it is.
pub(super) fn write(engine: &Engine) {
    let text = format!("{}{}{}", runtime(), threads(), engine.report());
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let name = format!("daemon-report-{}.log", now.unwrap_or_default().as_millis());
    let directory = &engine.config().exec_root;
    let written = file::open_directory(directory).and_then(|opened| {
        let (name, bytes) = (name.as_ref(), text.as_bytes());
        file::write_atomic(opened.as_fd(), name, bytes, MODE, Durability::None)
    });
    match written {
        Ok(()) => tracing::info!("a report was written to {}", directory.join(name).display()),
        Err(error) => tracing::error!(%error, "the report could not be written"),
    }
}

/// What tokio tells of itself.
fn runtime() -> String {
    let metrics = tokio::runtime::Handle::current().metrics();
    format!(
        "runtime: {} workers, {} tasks alive, {} waiting in the queue\n",
        metrics.num_workers(),
        metrics.num_alive_tasks(),
        metrics.global_queue_depth()
    )
}

/// Each thread, what it waits for in the kernel, and the kernel's stack where it may be read.
fn threads() -> String {
    let mut text = String::new();
    let tasks = Path::new("/proc/self/task");
    let Ok(entries) = fs::read_dir(tasks) else {
        return text;
    };
    for entry in entries.flatten() {
        let read = |name| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let id = entry.file_name();
        writeln!(
            text,
            "thread {} {}: {}",
            id.display(),
            read("comm").trim(),
            read("wchan").trim()
        )
        .expect("writing to a string");
        for line in read("stack").lines() {
            writeln!(text, "    {line}").expect("writing to a string");
        }
    }
    text
}
