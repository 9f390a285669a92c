//! The OCI runtime command line: `cooper runtime create|start|state|kill|delete|run|exec`.
//!
//! Parses arguments and says errors the way runc's callers read them (a last line of JSON in `--log`). The state
//! directory belongs to [`state`]; everything about processes to the library.

mod console;
mod container;
mod exec;
mod lifecycle;
mod state;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// Where the state of containers is kept unless `--root` says otherwise.
const DEFAULT_ROOT: &str = "/run/cooper/runtime";

/// What ends a command without success.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The library's.
    #[error(transparent)]
    Runtime(#[from] crate::Error),
    /// The cgroup's.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::Error),
    /// A file's or system call's.
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
    /// The request cannot be met; the text is runc's.
    #[error("{0}")]
    Refused(String),
}

/// Names what was done when a system call failed.
fn at<T>(operation: impl Into<String>, result: std::io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::Io(operation.into(), error))
}

#[derive(Debug, Parser)]
#[command(
    name = "cooper runtime",
    version,
    about = "The OCI runtime command line"
)]
struct Arguments {
    /// Directory for the state of containers
    #[arg(long, default_value = DEFAULT_ROOT, value_name = "DIRECTORY")]
    root: PathBuf,
    /// File that errors are appended to
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Format of that file
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Accepted for other runtimes' callers; there is nothing more to say
    #[arg(long)]
    debug: bool,
    /// Refused: cgroups are made by the runtime itself (cgroupfs)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    systemd_cgroup: Option<bool>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a container that waits for its start
    Create(container::CreateArguments),
    /// Make a container, start it, and wait for its end
    Run(container::RunArguments),
    /// Start a container that was created
    Start(lifecycle::StartArguments),
    /// Print the state of a container
    State(lifecycle::StateArguments),
    /// Send a signal to a container's first process
    Kill(lifecycle::KillArguments),
    /// Remove what a stopped container left
    Delete(lifecycle::DeleteArguments),
    /// Run one more process in a container
    Exec(exec::ExecArguments),
}

/// What a verb ends with: the code, or why not.
type Outcome = Result<u8, Failure>;

/// Runs the command line; `args` begins with the program's name.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            return match error.print() {
                Ok(()) if !error.use_stderr() => ExitCode::SUCCESS,
                Ok(()) | Err(_) => ExitCode::FAILURE,
            };
        }
    };
    if let Err(failure) = without_systemd(&arguments).and_then(|()| sealed(&arguments.verb)) {
        report(&arguments, &failure);
        return ExitCode::FAILURE;
    }
    let store = state::Store::new(arguments.root.clone());
    let (outcome, refused) = match &arguments.verb {
        Verb::Create(verb) => (container::create(&store, verb), 1),
        Verb::Run(verb) => (container::run(&store, verb), 1),
        Verb::Start(verb) => (lifecycle::start(&store, verb), 1),
        Verb::State(verb) => (lifecycle::state(&store, verb), 1),
        Verb::Kill(verb) => (lifecycle::kill(&store, verb), 1),
        Verb::Delete(verb) => (lifecycle::delete(&store, verb), 1),
        Verb::Exec(verb) => (exec::exec(&store, verb), 255),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            report(&arguments, &failure);
            ExitCode::from(refused)
        }
    }
}

/// A caller that wants a scope of systemd's counts on its limits, and finds no such group later (runc's words where there
/// is no systemd).
fn without_systemd(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.systemd_cgroup.unwrap_or(false) {
        let text =
            "systemd cgroup flag passed, but systemd support for managing cgroups is not available";
        return Err(Failure::Refused(text.to_owned()));
    }
    Ok(())
}

/// Tells a process that was just executed from the sealed binary, which must not try again.
const SEALED: &str = "COOPER_RUNTIME_SEALED";

/// What a container may see of us must not be writable through `/proc/<pid>/exe`: those verbs run from a sealed binary.
fn sealed(verb: &Verb) -> Result<(), Failure> {
    if !matches!(verb, Verb::Create(_) | Verb::Run(_) | Verb::Exec(_)) || sys::selfexe::is_sealed()
    {
        return Ok(());
    }
    if std::env::var_os(SEALED).is_some() {
        return Err(Failure::Refused(
            "the runtime's own binary could not be sealed".to_owned(),
        ));
    }
    let binary = at("seal the runtime's own binary", sys::selfexe::seal())?;
    let error = sys::selfexe::execute(&binary, SEALED);
    Err(Failure::Io("run the sealed binary".to_owned(), error))
}

fn report(arguments: &Arguments, failure: &Failure) {
    let prefix = match arguments.verb {
        Verb::Create(_) => "cooper create failed: ",
        Verb::Run(_) => "cooper run failed: ",
        Verb::Exec(_) => "exec failed: ",
        _ => "",
    };
    let message = format!("{prefix}{failure}");
    let line = match arguments.log_format {
        LogFormat::Text => format!("level=error msg={message:?}\n"),
        LogFormat::Json => format!(
            "{}\n",
            serde_json::json!({"level": "error", "msg": message, "time": sys::clock::Stamp::now().to_string()})
        ),
    };
    let logged = arguments.log.as_ref().map(|path| {
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
    });
    match logged {
        Some(Ok(())) | None => {}
        Some(Err(error)) => say(&format!("cannot write the log: {error}")),
    }
    say(&message);
}

/// Writes a line for a person; when that fails there is nobody to tell.
fn say(text: &str) {
    match writeln!(std::io::stderr(), "{text}") {
        Ok(()) | Err(_) => {}
    }
}
