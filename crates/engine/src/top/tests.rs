//! Titles, cells, and the text of the host's `ps`.

use super::cells::cell;
use super::process::{Clock, Process};
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
