//! The one binary: picks its role from argv[0] and the first word. Wiring only.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();
    if Path::new(&program)
        .file_name()
        .is_some_and(|name| name == "dockerd")
    {
        return server::daemon::main(std::iter::once(program).chain(words).collect());
    }
    match words.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("daemon") => server::daemon::main(std::iter::once(program).chain(words).collect()),
        Some("runtime") => runtime::cli::main(std::iter::once(program).chain(words)),
        Some("shim") => shim::main(),
        Some(_) | None => ExitCode::FAILURE,
    }
}
