//! Exit records: how a process ended, on disk before anyone is told.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use sys::file::Durability;

use crate::protocol::{EXIT_RECORD_NAME, ExitRecord, ProcessId, exec_record_name};

/// Mode of a record: for the daemon alone.
const MODE: u32 = 0o600;

/// Writes a process's record into the run directory: whole or not at all. No sync: the run directory does
/// not survive a power cut, and neither does the container.
///
/// # Errors
/// The errno of open, write or rename.
pub(crate) fn write(run_dir: &Path, record: &ExitRecord) -> io::Result<()> {
    let name = match &record.process {
        ProcessId::Init => EXIT_RECORD_NAME.to_owned(),
        ProcessId::Exec(id) => exec_record_name(id),
    };
    let bytes = serde_json::to_vec(record).map_err(io::Error::other)?;
    let dir = sys::file::open_directory(run_dir)?;
    sys::file::write_atomic(
        dir.as_fd(),
        OsStr::new(&name),
        &bytes,
        MODE,
        Durability::None,
    )
}
