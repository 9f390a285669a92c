//! Every developer command of Cooper: `cargo xtask <command>`. Each installs what it needs and says so.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line talks to a person"
)]

mod bench;
mod check;
mod images;
mod install;
mod run;
mod sh;
mod test;
mod tidy;
mod vm;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask <command>

  check            format, lints, house rules (tidy), licences and sources of dependencies
  tidy             the house rules alone
  test [filter]    every test: unit, contract, and end to end as root
       --unit      only what needs no root and no packages
       --long      the longer suites as well
  run              builds Cooper and brings an engine up, ready for curl and the docker command line
       --once      stops after the first container
  images           test images from Debian packages, kept in .cache/images
       serve [port]  and a registry on loopback that serves them
  bench [row]      the budget table, side by side with a dockerd
       --peer HOST compare with the dockerd on unix://…
  vm [suite…]      the same binaries on Debian 12's 6.1 kernel with cgroup v2, in a small virtual machine
       --help      its suites; -- program [args]; --shell
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let outcome = match command.as_str() {
        "bench" => bench::run(&rest),
        "check" => check::run(),
        "tidy" => tidy::run(),
        "images" => images::run(&rest),
        "run" => run::run(&rest),
        "test" => test::run(&rest),
        "vm" => vm::run(&rest),
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
