//! What the host's /proc says of a process, and of the clock its times are relative to.

use std::fs;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// The kernel's clock ticks a second, as seen by programs: 100 on every architecture we have.
pub(super) const TICKS: u64 = 100;

/// A page of memory, in KiB.
const PAGE_KIB: u64 = 4;

/// What /proc says of one process.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) session: i64,
    pub(super) uid: u32,
    pub(super) name: String,
    pub(super) command_line: String,
    pub(super) state: char,
    pub(super) terminal: u64,
    pub(super) foreground: i64,
    pub(super) group: i64,
    pub(super) ticks: u64,
    pub(super) nice: i64,
    pub(super) threads: u64,
    pub(super) started_ticks: u64,
    pub(super) virtual_kib: u64,
    pub(super) resident_kib: u64,
    pub(super) locked: bool,
}

/// What the times of a process are relative to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) now_s: u64,
    pub(super) uptime_ticks: u64,
    pub(super) memory_kib: u64,
}

impl Clock {
    pub(super) fn now() -> io::Result<Self> {
        let uptime = fs::read_to_string("/proc/uptime")?;
        let (seconds, hundredths) = uptime
            .split(' ')
            .next()
            .and_then(|first| first.split_once('.'))
            .unwrap_or(("0", "0"));
        let number = |text: &str| text.parse::<u64>().unwrap_or(0);
        let memory = fs::read_to_string("/proc/meminfo")?;
        let total = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"));
        let total = total
            .and_then(|rest| rest.split_ascii_whitespace().next())
            .map_or(1, number);
        let now_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        Ok(Self {
            now_s,
            uptime_ticks: number(seconds) * TICKS + number(hundredths),
            memory_kib: total.max(1),
        })
    }
}

impl Process {
    pub(super) fn read(pid: u32) -> io::Result<Option<Self>> {
        let file = |name: &str| match fs::read(format!("/proc/{pid}/{name}")) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            // ESRCH: it ended between open and read.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(3) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        };
        let (Some(stat), Some(status), Some(arguments)) =
            (file("stat")?, file("status")?, file("cmdline")?)
        else {
            return Ok(None);
        };
        Ok(Self::parse(pid, &stat, &status, &arguments))
    }

    pub(super) fn parse(pid: u32, stat: &str, status: &str, arguments: &str) -> Option<Self> {
        let (open, close) = (stat.find('(')?, stat.rfind(')')?);
        let name = &stat[open + 1..close];
        let fields: Vec<&str> = stat[close + 1..].split_ascii_whitespace().collect();
        let signed = |at: usize| fields.get(at).and_then(|field| field.parse::<i64>().ok());
        let number = |at: usize| {
            signed(at)
                .and_then(|value| u64::try_from(value).ok())
                .unwrap_or(0)
        };
        let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
        let uid = line("Uid:").and_then(|ids| ids.split_ascii_whitespace().nth(1)?.parse().ok());
        let kib = |key: &str| {
            line(key)
                .and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok())
                .unwrap_or(0)
        };
        let arguments = arguments.trim_end_matches('\0').replace('\0', " ");
        let command_line = if arguments.is_empty() {
            format!("[{name}]")
        } else {
            arguments
        };
        Some(Self {
            pid,
            parent: u32::try_from(number(1)).ok()?,
            group: signed(2)?,
            session: signed(3)?,
            terminal: number(4),
            foreground: signed(5)?,
            ticks: number(11) + number(12),
            nice: signed(16)?,
            threads: number(17),
            started_ticks: number(19),
            virtual_kib: number(20) / 1024,
            resident_kib: number(21) * PAGE_KIB,
            locked: kib("VmLck:") > 0_u64,
            uid: uid?,
            name: name.to_owned(),
            command_line: command_line.replace('\n', "?"),
            state: fields.first()?.chars().next()?,
        })
    }

    pub(super) fn lived_ticks(&self, clock: &Clock) -> u64 {
        clock.uptime_ticks.saturating_sub(self.started_ticks)
    }

    /// CPU time against lifetime, in tenths of a percent.
    pub(super) fn cpu_permille(&self, clock: &Clock) -> u64 {
        // In its first second, a process is as if it had lived for one.
        let lived_s = (self.lived_ticks(clock) / TICKS).max(1);
        self.ticks * 1000 / TICKS / lived_s
    }
}
