//! What of an exec outlives the daemon: two files in the container's run directory. Blocks.
//!
//! ```text
//! <exec root>/containers/<id>/exec-<exec>.config.json   what was asked for: the daemon's, when the exec is made
//!                             exec-<exec>.json          how it ended: the shim's, before it tells anyone
//! ```
//! Both stay until the exec is forgotten, or go with the run directory at the end of the run.

use std::path::Path;

use api::exec::ExecConfig;
use shim::protocol::{self, ExitRecord, ProcessId};
use sys::clock::now_ns;

use crate::{ContainerId, Error, files};

const PREFIX: &str = "exec-";
const SUFFIX: &str = ".config.json";

fn config_name(exec: &str) -> String {
    format!("{PREFIX}{exec}{SUFFIX}")
}

/// Saves what was asked for.
pub(crate) fn write_config(run_dir: &Path, exec: &str, config: &ExecConfig) -> Result<(), Error> {
    let bytes = serde_json::to_vec(config)
        .map_err(|source| Error::internal("write an exec's configuration", source))?;
    files::write_private(run_dir, &config_name(exec), &bytes)
}

/// Saves the code of an exec that the shim never had, and so has no record of.
pub(crate) fn write_exit(
    run_dir: &Path,
    container: &ContainerId,
    exec: &str,
    code: i32,
) -> Result<(), Error> {
    let record = ExitRecord {
        id: container.to_string(),
        process: ProcessId::Exec(exec.to_owned()),
        exit: protocol::Exit {
            code,
            oom_killed: false,
            at_ns: now_ns(),
        },
    };
    let bytes = serde_json::to_vec(&record)
        .map_err(|source| Error::internal("write an exec's exit record", source))?;
    files::write_private(run_dir, &protocol::exec_record_name(exec), &bytes)
}

/// How an exec ended, if its record is there and this container's.
pub(crate) fn read_exit(run_dir: &Path, container: &ContainerId, exec: &str) -> Option<i32> {
    let bytes = std::fs::read(run_dir.join(protocol::exec_record_name(exec))).ok()?;
    let record: ExitRecord = serde_json::from_slice(&bytes).ok()?;
    let process = ProcessId::Exec(exec.to_owned());
    (record.id == container.as_str() && record.process == process).then_some(record.exit.code)
}

/// The execs whose files are in a run directory.
pub(crate) fn all(run_dir: &Path) -> Vec<(String, ExecConfig)> {
    let names = std::fs::read_dir(run_dir).into_iter().flatten();
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter_map(|name| {
            let exec = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.to_owned();
            let bytes = std::fs::read(run_dir.join(&name)).ok()?;
            match serde_json::from_slice(&bytes) {
                Ok(config) => Some((exec, config)),
                Err(error) => {
                    tracing::warn!(exec, %error, "an exec's configuration cannot be read");
                    None
                }
            }
        })
        .collect()
}

/// Removes the files of an exec; missing ones are fine.
pub(crate) fn remove(run_dir: &Path, exec: &str) -> Result<(), Error> {
    let config = files::remove_file(&run_dir.join(config_name(exec)));
    files::remove_file(&run_dir.join(protocol::exec_record_name(exec))).and(config)
}
