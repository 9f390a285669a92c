//! The one binary: picks its role from argv[0] and the first word. Wiring only.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

mod starter;

/// The words, for whoever types another one or none.
const USAGE: &str = "\
Usage: cooper WORD [ARGUMENTS]

A container engine that speaks the Docker Engine API.

  daemon     serve the API (cooper daemon --help; also the name `dockerd` for this program)
  runtime    the OCI runtime's command line (cooper runtime --help)
  shim       what the daemon starts beside each container; not for people
  starter    what the image of `cargo xtask run` does

  -h, --help      print this
  -v, --version   print the version

Containers are driven by any Docker client: docker, compose, an SDK, curl.
";

/// Exit status of a wrong command line, as Docker's and the shell's.
const WRONG_USAGE: u8 = 125;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();
    let name = Path::new(&program).file_name().unwrap_or_default();
    if name == "dockerd" {
        return server::daemon::main(std::iter::once(program).chain(words).collect());
    }
    let word = words.next();
    let word = word.as_deref().and_then(std::ffi::OsStr::to_str);
    // `docker daemon` is what dockerd was called before.
    if name == "docker" && word != Some("daemon") {
        return wrong(
            "Cooper's own docker command line is not there yet: install Docker's (package docker-cli), \
             which works with this engine unchanged\n",
        );
    }
    match word {
        Some("daemon") => server::daemon::main(std::iter::once(program).chain(words).collect()),
        Some("runtime") => runtime::cli::main(std::iter::once(program).chain(words)),
        Some("shim") => shim::main(),
        Some("starter") => starter::main(words),
        Some("--help" | "-h" | "help") => told(USAGE),
        Some("--version" | "-v") => told(concat!("cooper ", env!("CARGO_PKG_VERSION"), "\n")),
        Some(word) => wrong(&format!("cooper: {word:?} is no word of it\n\n{USAGE}")),
        None => wrong(USAGE),
    }
}

fn told(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn wrong(text: &str) -> ExitCode {
    // Without standard error there is nobody to tell.
    drop(std::io::stderr().write_all(text.as_bytes()));
    ExitCode::from(WRONG_USAGE)
}
