//! The same two rules for legacy iptables, whose tables only its own program can change.
//!
//! Other engines do the same: rules that let through may stand before ours, or each would push the other down for
//! ever. A change is one transaction of `iptables-restore`, so there is no moment without our rules.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Output;

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
/// Where the programs look for theirs.
const SEARCH_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

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
    let mut changes = removals(&rules, &ours);
    for [direction, name] in ours.iter().rev() {
        changes.push(format!("-I {chain} {direction} {name} -j ACCEPT"));
    }
    commit(program, &changes)?;
    Ok(Outcome::Asserted)
}

/// Takes our rules away.
pub(crate) fn retract(bridge: &str) -> io::Result<()> {
    let Some(program) = program().filter(|_| in_use()) else {
        return Ok(());
    };
    let rules = run(program, &["-S"])?;
    match removals(&rules, &ours(bridge)) {
        none if none.is_empty() => Ok(()),
        removals => commit(program, &removals),
    }
}

fn ours(bridge: &str) -> [[&str; 2]; 2] {
    [["-i", bridge], ["-o", bridge]]
}

fn line(chain: &str, [direction, name]: [&str; 2]) -> String {
    format!("-A {chain} {direction} {name} -j ACCEPT")
}

/// What takes away every copy of our rules.
fn removals(rules: &str, ours: &[[&str; 2]; 2]) -> Vec<String> {
    let is_ours = |rule: &&str| {
        let mut lines = ["FORWARD", USER_CHAIN]
            .iter()
            .flat_map(|chain| ours.map(|our| line(chain, our)));
        lines.any(|line| line == *rule)
    };
    let found = rules.lines().filter(is_ours);
    found.map(|rule| rule.replacen("-A", "-D", 1)).collect()
}

/// Makes the changes at once, or none of them.
fn commit(program: &str, changes: &[String]) -> io::Result<()> {
    let (read, mut write) = io::pipe()?;
    // A pipe takes this many bytes without a reader, and the rules of one bridge are few.
    write.write_all(format!("*filter\n{}\nCOMMIT\n", changes.join("\n")).as_bytes())?;
    drop(write);
    let restore = format!("{program}-restore");
    let command = Command::new(&restore)
        .env("PATH", SEARCH_PATH)
        .stdin(read.into());
    told(
        command.arg("--noflush").arg("-w").output()?,
        &format!("{restore} --noflush"),
    )
    .map(drop)
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

/// Each of our rules stands once, behind nothing but rules that let through.
fn in_place(rules: &str, chain: &str, ours: &[[&str; 2]; 2]) -> bool {
    let prefix = format!("-A {chain} ");
    let chain_rules: Vec<&str> = rules
        .lines()
        .filter(|rule| rule.starts_with(&prefix))
        .collect();
    let head = chain_rules
        .iter()
        .take_while(|rule| rule.ends_with(" -j ACCEPT"))
        .count();
    ours.iter().all(|our| {
        let line = line(chain, *our);
        let mut found = chain_rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| **rule == line);
        found.next().is_some_and(|(at, _)| at < head) && found.next().is_none()
    })
}

fn program() -> Option<&'static str> {
    PROGRAMS.into_iter().find(|path| {
        Path::new(path).exists()
            && (path.ends_with("-legacy")
                || run(path, &["--version"]).is_ok_and(|text| !text.contains("nf_tables")))
    })
}

fn run(program: &str, arguments: &[&str]) -> io::Result<String> {
    let mut command = Command::new(program).env("PATH", SEARCH_PATH);
    if arguments != ["--version"] {
        command = command.arg("-w");
    }
    for argument in arguments {
        command = command.arg(argument);
    }
    told(
        command.output()?,
        &format!("{program} {}", arguments.join(" ")),
    )
}

/// What a program wrote, or what it said when it failed.
fn told(output: Output, called: &str) -> io::Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{called}: {}", said.trim())))
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
    fn rules_count_only_before_what_may_drop_and_only_once() {
        let ours = ours("c0");
        let right = "-P FORWARD DROP\n-A FORWARD -i c0 -j ACCEPT\n-A FORWARD -o c0 -j ACCEPT\n";
        assert!(in_place(right, "FORWARD", &ours));
        let below = "-A FORWARD -j DROP\n-A FORWARD -i c0 -j ACCEPT\n-A FORWARD -o c0 -j ACCEPT\n";
        assert!(!in_place(below, "FORWARD", &ours));
        let others = format!("-A FORWARD -i c9 -j ACCEPT\n-A FORWARD -o c9 -j ACCEPT\n{right}");
        assert!(in_place(&others, "FORWARD", &ours));
        let between = "-A FORWARD -i c0 -j ACCEPT\n-A FORWARD -j ufw\n-A FORWARD -o c0 -j ACCEPT\n";
        assert!(!in_place(between, "FORWARD", &ours));
        assert!(!in_place("-A FORWARD -i c0 -j ACCEPT\n", "FORWARD", &ours));
        let twice = format!("{right}-A FORWARD -i c0 -j ACCEPT\n");
        assert!(!in_place(&twice, "FORWARD", &ours));
    }
}
