//! The same two rules for legacy iptables, whose tables only its own program can change.

use std::fs;
use std::io;
use std::path::Path;

use sys::command::Command;

/// Lists the tables of legacy iptables that are in use in this network namespace.
const TABLES: &str = "/proc/thread-self/net/ip_tables_names";
/// `iptables` may be either flavour and is asked.
const PROGRAMS: [&str; 6] = [
    "/usr/sbin/iptables-legacy",
    "/sbin/iptables-legacy",
    "/usr/bin/iptables-legacy",
    "/usr/sbin/iptables",
    "/sbin/iptables",
    "/usr/bin/iptables",
];
const USER_CHAIN: &str = "DOCKER-USER";

/// What became of the legacy tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// They are not in use, or drop nothing.
    Unneeded,
    /// Our rules stand at the head.
    Asserted,
    /// Rules are needed and there is no program to write them.
    NoProgram,
}

/// Whether legacy tables filter here at all.
pub(crate) fn in_use() -> bool {
    fs::read_to_string(TABLES).is_ok_and(|tables| tables.lines().any(|table| table == "filter"))
}

/// Puts the two rules at the head of legacy FORWARD (or DOCKER-USER) if it can drop.
pub(crate) fn assert(bridge: &str) -> io::Result<Outcome> {
    if !in_use() {
        return Ok(Outcome::Unneeded);
    }
    let Some(program) = program() else {
        return Ok(Outcome::NoProgram);
    };
    let rules = run(program, &["-S"])?;
    let Some(chain) = head(&rules) else {
        return Ok(Outcome::Unneeded);
    };
    let ours = ours(bridge);
    if in_place(&rules, chain, &ours) {
        return Ok(Outcome::Asserted);
    }
    remove(program, &rules, &ours)?;
    for [direction, name] in ours.iter().rev() {
        run(program, &["-I", chain, direction, name, "-j", "ACCEPT"])?;
    }
    Ok(Outcome::Asserted)
}

/// Takes our rules away.
pub(crate) fn retract(bridge: &str) -> io::Result<()> {
    let Some(program) = program().filter(|_| in_use()) else {
        return Ok(());
    };
    let rules = run(program, &["-S"])?;
    remove(program, &rules, &ours(bridge))
}

fn ours(bridge: &str) -> [[&str; 2]; 2] {
    [["-i", bridge], ["-o", bridge]]
}

fn line(chain: &str, [direction, name]: [&str; 2]) -> String {
    format!("-A {chain} {direction} {name} -j ACCEPT")
}

fn remove(program: &str, rules: &str, ours: &[[&str; 2]; 2]) -> io::Result<()> {
    for chain in ["FORWARD", USER_CHAIN] {
        for our in ours {
            let times = rules
                .lines()
                .filter(|rule| *rule == line(chain, *our))
                .count();
            for _ in 0..times {
                run(program, &["-D", chain, our[0], our[1], "-j", "ACCEPT"])?;
            }
        }
    }
    Ok(())
}

/// The chain that needs our rules, if FORWARD or anything beside it can drop.
fn head(rules: &str) -> Option<&'static str> {
    let drops = rules.lines().any(|rule| {
        rule == "-P FORWARD DROP"
            || (rule.starts_with("-A ")
                && !rule.starts_with("-A INPUT ")
                && !rule.starts_with("-A OUTPUT ")
                && ["DROP", "REJECT"]
                    .iter()
                    .any(|target| rule.contains(&format!("-j {target}"))))
    });
    let user = rules
        .lines()
        .any(|rule| rule == format!("-A FORWARD -j {USER_CHAIN}"));
    drops.then_some(if user { USER_CHAIN } else { "FORWARD" })
}

fn in_place(rules: &str, chain: &str, ours: &[[&str; 2]; 2]) -> bool {
    let prefix = format!("-A {chain} ");
    let mut first = rules.lines().filter(|rule| rule.starts_with(&prefix));
    ours.iter()
        .all(|our| first.next() == Some(&line(chain, *our)))
        && !first.any(|rule| ours.iter().any(|our| rule == line(chain, *our)))
}

fn program() -> Option<&'static str> {
    PROGRAMS.into_iter().find(|path| {
        Path::new(path).exists()
            && (path.ends_with("-legacy")
                || run(path, &["--version"]).is_ok_and(|text| !text.contains("nf_tables")))
    })
}

fn run(program: &str, arguments: &[&str]) -> io::Result<String> {
    let mut command = Command::new(program).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    if arguments != ["--version"] {
        command = command.arg("-w");
    }
    for argument in arguments {
        command = command.arg(argument);
    }
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{program} {}: {}",
        arguments.join(" "),
        said.trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_that_drops_is_found() {
        let open = "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-A INPUT -s 10.0.0.1/32 -j DROP\n";
        assert_eq!(head(open), None);
        assert_eq!(head("-P FORWARD DROP\n"), Some("FORWARD"));
        let rejects =
            "-P FORWARD ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-port-unreachable\n";
        assert_eq!(head(rejects), Some("FORWARD"));
        let docker = "-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n";
        assert_eq!(head(docker), Some("DOCKER-USER"));
    }

    #[test]
    fn rules_count_only_at_the_head_and_only_once() {
        let ours = ours("c0");
        let right = "-P FORWARD DROP\n-A FORWARD -i c0 -j ACCEPT\n-A FORWARD -o c0 -j ACCEPT\n";
        assert!(in_place(right, "FORWARD", &ours));
        let below = "-A FORWARD -j DROP\n-A FORWARD -i c0 -j ACCEPT\n-A FORWARD -o c0 -j ACCEPT\n";
        assert!(!in_place(below, "FORWARD", &ours));
        let twice = format!("{right}-A FORWARD -i c0 -j ACCEPT\n");
        assert!(!in_place(&twice, "FORWARD", &ours));
    }
}
