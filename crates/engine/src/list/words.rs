//! Docker's words for durations, states and commands (go-units, moby `container/state.go`).

use api::container::inspect::Health;

use crate::{Snapshot, Status};

const MINUTE_S: i64 = 60;
const HOUR_S: i64 = 60 * MINUTE_S;

/// A duration as `docker ps` words it.
pub fn human_duration(seconds: i64) -> String {
    let minutes = seconds / MINUTE_S;
    let hours = (seconds + HOUR_S / 2) / HOUR_S;
    match (seconds, minutes, hours) {
        (..1, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (..MINUTE_S, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".to_owned(),
        (_, _, ..48) => format!("{hours} hours"),
        (_, _, ..336) => format!("{} days", hours / 24),
        (_, _, ..1440) => format!("{} weeks", hours / 24 / 7),
        (_, _, ..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / HOUR_S / 24 / 365),
    }
}

/// The STATUS column.
pub fn status_text(snapshot: &Snapshot, health: Option<&Health>, now_ns: i64) -> String {
    let facts = &snapshot.facts;
    let since = |at_ns: i64| human_duration((now_ns - at_ns) / 1_000_000_000);
    match snapshot.status {
        Status::Running => {
            let up = since(facts.started_at_ns);
            match health.map(|health| health.status.as_str()) {
                None | Some("" | "none") => format!("Up {up}"),
                Some("starting") => format!("Up {up} (health: starting)"),
                Some(word) => format!("Up {up} ({word})"),
            }
        }
        Status::Paused => format!("Up {} (Paused)", since(facts.started_at_ns)),
        Status::Restarting => {
            format!(
                "Restarting ({}) {} ago",
                facts.exit_code,
                since(facts.finished_at_ns)
            )
        }
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Created => "Created".to_owned(),
        Status::Exited => format!(
            "Exited ({}) {} ago",
            facts.exit_code,
            since(facts.finished_at_ns)
        ),
    }
}

/// The COMMAND column before the client cuts it: only arguments with a blank are quoted.
pub(super) fn command(path: &str, args: &[String]) -> String {
    let mut words = vec![path.to_owned()];
    words.extend(args.iter().map(|arg| {
        if arg.contains(' ') {
            format!("'{arg}'")
        } else {
            arg.clone()
        }
    }));
    words.join(" ")
}
