//! The host's own `ps`, for options that are not rendered here.

use api::container::TopResponse;

use super::columns::no_pid;
use crate::Error;
use crate::error::Class;

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
