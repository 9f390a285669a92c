//! One cell: a column of a process as `ps` writes it.

use std::fs;

use super::columns::Column;
use super::columns::Column::{
    CommandLine, CpuInteger, CpuPercent, Elapsed, MemoryPercent, Name, Nice, ParentPid, Pid,
    ResidentKib, Start, StartSeconds, State, Terminal, TimeHours, TimeMinutes, Uid, User,
    VirtualKib,
};
use super::process::{Clock, Process, TICKS};

/// The width to which `ps` keeps user names; longer ones are cut with a `+`.
const USER_WIDTH: usize = 8;

/// User names of the host, by id.
pub(super) fn users() -> Vec<(u32, String)> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
    };
    passwd.lines().filter_map(line).collect()
}

pub(super) fn cell(
    column: Column,
    process: &Process,
    clock: &Clock,
    users: &[(u32, String)],
) -> String {
    match column {
        User => user(process.uid, users),
        Uid => process.uid.to_string(),
        Pid => process.pid.to_string(),
        ParentPid => process.parent.to_string(),
        CpuInteger => (process.cpu_permille(clock) / 10).min(99).to_string(),
        CpuPercent => permille(process.cpu_permille(clock)),
        MemoryPercent => permille((process.resident_kib * 1000 / clock.memory_kib).min(999)),
        VirtualKib => process.virtual_kib.to_string(),
        ResidentKib => process.resident_kib.to_string(),
        Terminal => terminal(process.terminal),
        State => state(process),
        Start => start(process, clock, false),
        StartSeconds => start(process, clock, true),
        TimeHours => {
            let seconds = process.ticks / TICKS;
            let days = seconds / 86_400;
            let prefix = if days > 0 {
                format!("{days}-")
            } else {
                String::new()
            };
            format!(
                "{prefix}{:02}:{:02}:{:02}",
                seconds / 3600 % 24,
                seconds / 60 % 60,
                seconds % 60
            )
        }
        TimeMinutes => format!(
            "{}:{:02}",
            process.ticks / TICKS / 60,
            process.ticks / TICKS % 60
        ),
        Elapsed => elapsed(process.lived_ticks(clock) / TICKS),
        Nice => process.nice.to_string(),
        Name => process.name.clone(),
        CommandLine => process.command_line.clone(),
    }
}

fn user(uid: u32, users: &[(u32, String)]) -> String {
    match users.iter().find(|(known, _)| *known == uid) {
        Some((_, name)) if name.len() > USER_WIDTH => {
            format!("{}+", name.chars().take(USER_WIDTH - 1).collect::<String>())
        }
        Some((_, name)) => name.clone(),
        None => uid.to_string(),
    }
}

fn permille(value: u64) -> String {
    if value >= 1000 {
        (value / 10).to_string()
    } else {
        format!("{}.{}", value / 10, value % 10)
    }
}

/// The name of a terminal by its device number.
fn terminal(device: u64) -> String {
    let (major, minor) = (
        device >> 8 & 0xfff,
        device & 0xff | device >> 12 & 0xfff_ff00,
    );
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 if minor >= 64 => format!("ttyS{}", minor - 64),
        4 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

/// The letter and marks of BSD.
fn state(process: &Process) -> String {
    let marks = [
        (process.nice < 0, '<'),
        (process.nice > 0, 'N'),
        (process.locked, 'L'),
        (i64::from(process.pid) == process.session, 's'),
        (process.threads > 1, 'l'),
        (
            process.foreground >= 0 && process.foreground == process.group,
            '+',
        ),
    ];
    let mut text = process.state.to_string();
    text.extend(marks.iter().filter(|(set, _)| *set).map(|(_, mark)| mark));
    text
}

/// When it started, in UTC: the host's time zone is a file that only glibc reads.
fn start(process: &Process, clock: &Clock, seconds: bool) -> String {
    let started = clock
        .now_s
        .saturating_sub(process.lived_ticks(clock) / TICKS);
    let utc = |at_s: u64| {
        let at_s = i64::try_from(at_s).unwrap_or(i64::MAX);
        jiff::Timestamp::from_second(at_s)
            .unwrap_or_default()
            .to_zoned(jiff::tz::TimeZone::UTC)
            .datetime()
    };
    let (at, now) = (utc(started), utc(clock.now_s));
    let day = || jiff::fmt::strtime::format("%b%d", at).unwrap_or_default();
    if seconds {
        return if clock.now_s.saturating_sub(started) < 86_400 {
            format!("{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second())
        } else {
            jiff::fmt::strtime::format("%b %d", at).unwrap_or_default()
        };
    }
    if at.date() == now.date() {
        format!("{:02}:{:02}", at.hour(), at.minute())
    } else if at.year() == now.year() {
        day()
    } else {
        at.year().to_string()
    }
}

fn elapsed(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let minutes = format!("{:02}:{:02}", seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) => minutes,
        (0, hours) => format!("{hours:02}:{minutes}"),
        (days, hours) => format!("{days}-{hours:02}:{minutes}"),
    }
}
