//! The OCI command line alone, for the runtime suite: what `cooper runtime` runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime::cli::main(std::env::args_os())
}
