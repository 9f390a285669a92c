//! The columns that a client asks for by `ps_args`.

use std::collections::BTreeSet;

use crate::Error;
use crate::error::Class;

/// What is shown when the client does not say.
pub const DEFAULT_ARGS: &str = "-ef";

/// A column that we can render.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    User,
    Uid,
    Pid,
    ParentPid,
    CpuInteger,
    CpuPercent,
    MemoryPercent,
    VirtualKib,
    ResidentKib,
    Terminal,
    State,
    Start,
    StartSeconds,
    TimeHours,
    TimeMinutes,
    Elapsed,
    Nice,
    Name,
    CommandLine,
}

use Column::{
    CommandLine, CpuInteger, CpuPercent, Elapsed, MemoryPercent, Name, Nice, ParentPid, Pid,
    ResidentKib, Start, StartSeconds, State, Terminal, TimeHours, TimeMinutes, Uid, User,
    VirtualKib,
};

/// Columns by the names that `-o` takes: name, title, column.
const BY_NAME: &[(&str, &str, Column)] = &[
    ("user", "USER", User),
    ("euser", "EUSER", User),
    ("uname", "USER", User),
    ("uid", "UID", Uid),
    ("euid", "EUID", Uid),
    ("pid", "PID", Pid),
    ("tgid", "TGID", Pid),
    ("ppid", "PPID", ParentPid),
    ("c", "C", CpuInteger),
    ("pcpu", "%CPU", CpuPercent),
    ("%cpu", "%CPU", CpuPercent),
    ("pmem", "%MEM", MemoryPercent),
    ("%mem", "%MEM", MemoryPercent),
    ("vsz", "VSZ", VirtualKib),
    ("vsize", "VSZ", VirtualKib),
    ("rss", "RSS", ResidentKib),
    ("rssize", "RSS", ResidentKib),
    ("tty", "TT", Terminal),
    ("tt", "TT", Terminal),
    ("tname", "TTY", Terminal),
    ("stat", "STAT", State),
    ("stime", "STIME", Start),
    ("start_time", "START", Start),
    ("start", "STARTED", StartSeconds),
    ("time", "TIME", TimeHours),
    ("cputime", "TIME", TimeHours),
    ("bsdtime", "TIME", TimeMinutes),
    ("etime", "ELAPSED", Elapsed),
    ("nice", "NI", Nice),
    ("ni", "NI", Nice),
    ("comm", "COMMAND", Name),
    ("ucmd", "CMD", Name),
    ("args", "COMMAND", CommandLine),
    ("command", "COMMAND", CommandLine),
    ("cmd", "CMD", CommandLine),
];

const FULL: &[(&str, Column)] = &[
    ("UID", User),
    ("PID", Pid),
    ("PPID", ParentPid),
    ("C", CpuInteger),
    ("STIME", Start),
    ("TTY", Terminal),
    ("TIME", TimeHours),
    ("CMD", CommandLine),
];

const AUX: &[(&str, Column)] = &[
    ("USER", User),
    ("PID", Pid),
    ("%CPU", CpuPercent),
    ("%MEM", MemoryPercent),
    ("VSZ", VirtualKib),
    ("RSS", ResidentKib),
    ("TTY", Terminal),
    ("STAT", State),
    ("START", Start),
    ("TIME", TimeMinutes),
    ("COMMAND", CommandLine),
];

/// The columns that a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns(pub(super) Vec<(String, Column)>);

/// Reads `ps_args`; `None` for what we do not render.
///
/// # Errors
/// Internal, with dockerd's text, when the columns do not include the process id.
pub fn parse(args: &str) -> Result<Option<Columns>, Error> {
    let table = |columns: &[(&str, Column)]| {
        Columns(
            columns
                .iter()
                .map(|(title, column)| ((*title).to_owned(), *column))
                .collect(),
        )
    };
    let args = if args.trim().is_empty() {
        DEFAULT_ARGS
    } else {
        args
    };
    let mut words = args.split_ascii_whitespace();
    let first = words.next().unwrap_or_default();
    let letters: BTreeSet<char> = first.trim_start_matches('-').chars().collect();
    let only = |allowed: &str| letters.iter().all(|letter| allowed.contains(*letter));
    let is_unix = first.starts_with('-');
    if let Some(list) = names(args) {
        return columns(&list);
    }
    if words.next().is_some() {
        return Ok(None);
    }
    Ok(if is_unix && letters.contains(&'f') && only("efA") {
        Some(table(FULL))
    } else if !is_unix && letters.contains(&'u') && only("aux") {
        Some(table(AUX))
    } else {
        None
    })
}

/// The list behind `-o`, `-eo`, `axo` or `-o` written together with it; `None` for another form.
fn names(args: &str) -> Option<String> {
    let mut words = args.split_ascii_whitespace();
    let first = words.next()?;
    let (flags, glued) = first.split_once('o')?;
    let known = flags
        .trim_start_matches('-')
        .chars()
        .all(|flag| "eaxA".contains(flag));
    let mut list: Vec<&str> = words.collect();
    if !glued.is_empty() {
        list.insert(0, glued);
    }
    (known && !list.is_empty()).then(|| list.join(","))
}

fn columns(list: &str) -> Result<Option<Columns>, Error> {
    let mut columns = Vec::new();
    for name in list.split(',').filter(|name| !name.is_empty()) {
        let (name, own_title) = match name.split_once('=') {
            Some((name, title)) => (name, Some(title)),
            None => (name, None),
        };
        let Some((_, title, column)) = BY_NAME.iter().find(|(known, ..)| *known == name) else {
            return Ok(None);
        };
        columns.push((own_title.unwrap_or(title).to_owned(), *column));
    }
    if columns.iter().any(|(title, _)| title == "PID") {
        Ok(Some(Columns(columns)))
    } else {
        Err(no_pid())
    }
}

pub(super) fn no_pid() -> Error {
    Error::new(Class::Internal, "Couldn't find PID field in ps output")
}
