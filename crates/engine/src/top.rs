//! `docker top`: the processes of a container as the host's `ps` would show them, without running it.
//!
//! Reads /proc of the host for the process ids that the container's cgroup holds. Known forms of `ps_args` are
//! `-ef` and its like, `aux`, and `-o` with a list of known columns; for others [`parse`] answers `None`, and
//! the caller may run the host's own `ps` and hand its text to [`from_ps`] (moby `daemon/top_unix.go`).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use api::container::TopResponse;

use crate::Error;
use crate::error::Class;

/// What is shown when the client does not say.
pub const DEFAULT_ARGS: &str = "-ef";

/// The kernel's clock ticks a second, as seen by programs: 100 on every architecture we have.
const TICKS: u64 = 100;

/// A page of memory, in KiB.
const PAGE_KIB: u64 = 4;

/// The width to which `ps` keeps user names; longer ones are cut with a `+`.
const USER_WIDTH: usize = 8;

/// A column that we can render.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
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
pub struct Columns(Vec<(String, Column)>);

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

fn no_pid() -> Error {
    Error::new(Class::Internal, "Couldn't find PID field in ps output")
}

/// What /proc says of one process.
#[derive(Clone, Debug, Default, PartialEq)]
struct Process {
    pid: u32,
    parent: u32,
    session: i64,
    uid: u32,
    name: String,
    command_line: String,
    state: char,
    terminal: u64,
    foreground: i64,
    group: i64,
    ticks: u64,
    nice: i64,
    threads: u64,
    started_ticks: u64,
    virtual_kib: u64,
    resident_kib: u64,
    locked: bool,
}

/// What the times of a process are relative to.
#[derive(Clone, Copy, Debug)]
struct Clock {
    now_s: u64,
    uptime_ticks: u64,
    memory_kib: u64,
}

/// Renders the processes `pids`; one that ended in the meantime is left out. Blocks.
///
/// # Errors
/// Internal when /proc cannot be read.
pub fn top(columns: &Columns, pids: &[u32]) -> Result<TopResponse, Error> {
    let failed = |error| Error::internal("read /proc", error);
    let clock = Clock::now().map_err(failed)?;
    let users = users();
    let mut pids = pids.to_vec();
    pids.sort_unstable();
    let mut lines = Vec::new();
    for pid in pids {
        let Some(process) = Process::read(pid).map_err(failed)? else {
            continue;
        };
        let cells = columns
            .0
            .iter()
            .map(|(_, column)| cell(*column, &process, &clock, &users));
        lines.push(cells.collect());
    }
    Ok(TopResponse {
        titles: Some(columns.0.iter().map(|(title, _)| title.clone()).collect()),
        processes: Some(lines),
    })
}

impl Clock {
    fn now() -> io::Result<Self> {
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
    fn read(pid: u32) -> io::Result<Option<Self>> {
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

    fn parse(pid: u32, stat: &str, status: &str, arguments: &str) -> Option<Self> {
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

    fn lived_ticks(&self, clock: &Clock) -> u64 {
        clock.uptime_ticks.saturating_sub(self.started_ticks)
    }

    /// CPU time against lifetime, in tenths of a percent.
    fn cpu_permille(&self, clock: &Clock) -> u64 {
        // In its first second, a process is as if it had lived for one.
        let lived_s = (self.lived_ticks(clock) / TICKS).max(1);
        self.ticks * 1000 / TICKS / lived_s
    }
}

/// User names of the host, by id.
fn users() -> Vec<(u32, String)> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
    };
    passwd.lines().filter_map(line).collect()
}

fn cell(column: Column, process: &Process, clock: &Clock, users: &[(u32, String)]) -> String {
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

/// What the host's own `ps` says, for options that are not rendered here. Blocks.
///
/// # Errors
/// Internal, with dockerd's text: the first line of what `ps` complains about.
pub fn host_ps(args: &str, pids: &[u32]) -> Result<String, Error> {
    let list: Vec<String> = pids.iter().map(u32::to_string).collect();
    let only = format!("-q{}", list.join(","));
    let failed = |words: String| Error::new(Class::Internal, format!("ps: {words}"));
    let run = |only: Option<&str>| {
        let mut command = sys::command::Command::new("ps").env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        for word in args.split_ascii_whitespace().chain(only) {
            command = command.arg(word);
        }
        command.output().map_err(|error| failed(error.to_string()))
    };
    let mut output = run(Some(&only))?;
    if !output.status.success() {
        // Some options (f) do not go with a choice of processes.
        output = run(None)?;
    }
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let first = complaint.lines().next().filter(|line| !line.is_empty());
        let code = format!("exit status {}", output.status.code().unwrap_or(-1));
        return Err(failed(first.map_or(code, str::to_owned)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Takes the lines of the container's processes out of the text of the host's `ps`. Words behind the last
/// title belong to the last column.
///
/// # Errors
/// Internal, with dockerd's text, when there is no column PID or a number in it is none.
pub fn from_ps(text: &str, pids: &[u32]) -> Result<TopResponse, Error> {
    let mut lines = text.lines();
    let words =
        |line: &str| -> Vec<String> { line.split_ascii_whitespace().map(str::to_owned).collect() };
    let titles = words(lines.next().unwrap_or_default());
    let at = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(no_pid)?;
    let mut processes = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let mut cells = words(line);
        let pid = cells.get(at).map_or("", String::as_str);
        // Threads have a dash there.
        if pid == "-" {
            continue;
        }
        let pid: u32 = pid.parse().map_err(|_| {
            Error::new(
                Class::Internal,
                format!("Unexpected pid '{pid}': strconv.Atoi: parsing \"{pid}\": invalid syntax"),
            )
        })?;
        if !pids.contains(&pid) {
            continue;
        }
        let rest = cells.split_off(titles.len().min(cells.len()));
        if let (Some(last), false) = (cells.last_mut(), rest.is_empty()) {
            last.push(' ');
            last.push_str(&rest.join(" "));
        }
        processes.push(cells);
    }
    Ok(TopResponse {
        processes: Some(processes),
        titles: Some(titles),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Titles as dockerd 28.5.2 answered them.
    #[test]
    fn titles_of_dockerd() {
        let full = "UID PID PPID C STIME TTY TIME CMD";
        let aux = "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND";
        let long = "PID PPID %CPU %MEM VSZ RSS TT STAT STARTED TIME ELAPSED NI NI CMD";
        let table = [
            ("", Some(full)),
            ("-ef", Some(full)),
            ("-f", Some(full)),
            ("aux", Some(aux)),
            ("u", Some(aux)),
            ("-eo pid,comm", Some("PID COMMAND")),
            ("-o pid,user,args", Some("PID USER COMMAND")),
            ("axo user,pid", Some("USER PID")),
            (
                "-eo pid,ppid,pcpu,pmem,vsz,rss,tty,stat,start,time,etime,nice,ni,cmd",
                Some(long),
            ),
            ("-F", None),
            ("faux", None),
            ("-l", None),
            ("zz", None),
            ("-eo pid,wchan", None),
        ];
        for (args, titles) in table {
            let columns = parse(args).unwrap();
            let found = columns.map(|columns| {
                columns
                    .0
                    .into_iter()
                    .map(|(title, _)| title)
                    .collect::<Vec<_>>()
                    .join(" ")
            });
            assert_eq!(found.as_deref(), titles, "{args}");
        }
        let refused = parse("-o comm").unwrap_err();
        assert_eq!(refused.message, "Couldn't find PID field in ps output");
    }

    #[test]
    fn cells_of_a_process() {
        let stat = "3699 (a) b) S 3675 3699 3699 34816 3699 4194560 100 0 0 0 150 60 0 0 20 0 2 0 \
            360000 2392064 382 18446744073709551615";
        let status = "Name:\ta) b\nUid:\t0\t1000\t0\t0\nVmLck:\t       0 kB\n";
        let process = Process::parse(3699, stat, status, "sleep\x00100\0").unwrap();
        let clock = Clock {
            now_s: 1_795_351_270,
            uptime_ticks: 361_000,
            memory_kib: 24_684_096,
        };
        let users = vec![(1000, "averylongname".to_owned())];
        let cells = |args: &str| -> Vec<String> {
            let columns = parse(args).unwrap().unwrap();
            columns
                .0
                .iter()
                .map(|(_, column)| cell(*column, &process, &clock, &users))
                .collect()
        };
        assert_eq!(
            cells("-ef"),
            [
                "averylo+",
                "3699",
                "3675",
                "21",
                "12:41",
                "pts/0",
                "00:00:02",
                "sleep 100"
            ]
        );
        assert_eq!(
            cells("aux"),
            [
                "averylo+",
                "3699",
                "21.0",
                "0.0",
                "2336",
                "1528",
                "pts/0",
                "Ssl+",
                "12:41",
                "0:02",
                "sleep 100"
            ]
        );
        assert_eq!(
            cells("-o pid,uid,comm,start,etime,ni"),
            ["3699", "1000", "a) b", "12:41:00", "00:10", "0"]
        );
    }

    #[test]
    fn this_process_is_shown_and_an_ended_one_is_not() {
        let me = std::process::id();
        let columns = parse("-eo pid,comm").unwrap().unwrap();
        let shown = top(&columns, &[me, u32::MAX]).unwrap();
        let lines = shown.processes.unwrap();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0][0], me.to_string());
    }

    #[test]
    fn text_of_ps_is_cut_into_columns() {
        let text = "USER       PID COMMAND\nroot        12 sleep 1000\nroot        13 other\n";
        let shown = from_ps(text, &[12]).unwrap();
        assert_eq!(shown.titles.unwrap(), ["USER", "PID", "COMMAND"]);
        assert_eq!(shown.processes.unwrap(), [["root", "12", "sleep 1000"]]);
        assert_eq!(
            from_ps("COMMAND\nsleep\n", &[12]).unwrap_err().message,
            "Couldn't find PID field in ps output"
        );
    }
}
