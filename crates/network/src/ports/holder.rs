//! Who holds a port: a container by our rows, else a process by the kernel's socket tables.

use std::fs;
use std::net::IpAddr;

use crate::attachment::Protocol;
use crate::config::Config;
use crate::error::Holder;
use crate::rows;

/// Processes looked at before giving up: an error message is not worth more.
const PROCESSES_MAX: usize = 20_000;

/// The state column of a listening TCP socket.
const LISTEN: &str = "0A";

/// Finds who has `port`, as far as that can be told.
pub(crate) fn find(
    config: &Config,
    protocol: Protocol,
    host_ip: Option<IpAddr>,
    port: u16,
) -> Option<Holder> {
    container(config, protocol, host_ip, port).or_else(|| process(protocol, port))
}

fn container(
    config: &Config,
    protocol: Protocol,
    host_ip: Option<IpAddr>,
    port: u16,
) -> Option<Holder> {
    let rows = rows::endpoints(&config.db, &config.bridge).ok()?;
    let row = rows.into_iter().find(|row| {
        row.ports
            .iter()
            .any(|p| (p.protocol, p.host_port) == (protocol, port) && meet(host_ip, p.host_ip))
    })?;
    let name = (config.names.0)(&row.container);
    let short = || row.container.chars().take(12).collect();
    Some(Holder::Container(name.unwrap_or_else(short)))
}

/// Whether two bindings exclude each other.
fn meet(wanted: Option<IpAddr>, held: IpAddr) -> bool {
    wanted.is_none_or(|wanted| {
        wanted == held
            || (wanted.is_ipv4() == held.is_ipv4()
                && (wanted.is_unspecified() || held.is_unspecified()))
    })
}

fn process(protocol: Protocol, port: u16) -> Option<Holder> {
    let inodes: Vec<String> = ["", "6"]
        .into_iter()
        .filter_map(|family| {
            fs::read_to_string(format!("/proc/thread-self/net/{protocol}{family}")).ok()
        })
        .flat_map(|table| sockets(&table, protocol, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let pids = fs::read_dir("/proc").ok()?.flatten().take(PROCESSES_MAX);
    let pid = pids
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| holds(*pid, &inodes))?;
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(Holder::Process {
        pid,
        command: command.trim_end().to_owned(),
    })
}

fn holds(pid: u32, inodes: &[String]) -> bool {
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    fds.flatten().any(|fd| {
        fs::read_link(fd.path()).is_ok_and(|target| {
            inodes
                .iter()
                .any(|inode| target.as_os_str() == inode.as_str())
        })
    })
}

/// Inodes of the sockets bound to `port` in a table of `/proc/net`.
fn sockets(table: &str, protocol: Protocol, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let bound = columns.get(1)?.ends_with(&suffix);
            let holding = protocol == Protocol::Udp || *columns.get(3)? == LISTEN;
            (bound && holding).then(|| columns.get(9).map(|inode| (*inode).to_owned()))?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_meet_by_family_and_address() {
        let check = |wanted: Option<&str>, held: &str, expected: bool| {
            let wanted = wanted.map(|ip| ip.parse().unwrap());
            assert_eq!(
                meet(wanted, held.parse().unwrap()),
                expected,
                "{wanted:?} {held}"
            );
        };
        check(None, "127.0.0.1", true);
        check(Some("0.0.0.0"), "127.0.0.1", true);
        check(Some("0.0.0.0"), "::1", false);
        check(Some("127.0.0.1"), "127.0.0.2", false);
        check(Some("::1"), "::", true);
    }

    #[test]
    fn only_listeners_hold_a_tcp_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 111 1\n\
            1: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000 0 0 222 1\n\
            2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 333 1\n";
        assert_eq!(sockets(table, Protocol::Tcp, 8080), ["111"]);
    }
}
