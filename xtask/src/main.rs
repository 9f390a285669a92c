//! Every developer command of Cooper: `cargo xtask <command>`. Each installs what it needs and says so.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line talks to a person"
)]

mod check;
mod install;
mod sh;
mod test;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask <command>

  check            format, lints, house rules (tidy), licences and sources of dependencies
  tidy             the house rules alone
  test [filter]    every test: unit, contract, and end to end as root
       --unit      only what needs no root and no packages
       --long      the longer suites as well
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let outcome = match command.as_str() {
        "check" => check::run(),
        "tidy" => tidy::run(),
        "test" => test::run(&rest),
        "" | "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(anyhow::anyhow!("unknown command {other}\n\n{HELP}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
