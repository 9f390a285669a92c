//! The daemon's settings: flags and file, checked and in their final types.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use engine::{Bridge, Config, Defaults};

use super::flags::{Value, Values};
use super::hosts::{self, Host};
use crate::gate::Gate;

mod bridge;

/// Where state lies unless told otherwise.
const DATA_ROOT: &str = "/var/lib/cooper";
/// Where sockets lie unless told otherwise.
const EXEC_ROOT: &str = "/run/cooper";
/// Group of the socket unless told otherwise; it need not exist then.
const GROUP: &str = "docker";

/// Everything that was decided before the daemon starts.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) data_root: PathBuf,
    pub(super) exec_root: PathBuf,
    pub(super) pidfile: PathBuf,
    /// The group, and whether it was asked for.
    pub(super) group: (String, bool),
    /// Empty: none was asked for.
    pub(super) hosts: Vec<Host>,
    pub(super) level: tracing::Level,
    pub(super) gate: Gate,
    pub(super) defaults: Defaults,
    pub(super) bridge: Bridge,
    /// Absolute, if it was asked for.
    pub(super) cgroup_parent: Option<String>,
    /// What was asked for and is done otherwise.
    pub(super) warnings: Vec<String>,
}

struct Source<'a>(&'a Values);

impl Source<'_> {
    fn text(&self, name: &str) -> Option<String> {
        match self.0.get(name) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    fn switch(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some(Value::Switch(true)))
    }

    fn list(&self, name: &str) -> Vec<String> {
        match self.0.get(name) {
            Some(Value::List(list)) => list.clone(),
            _ => Vec::new(),
        }
    }

    fn map(&self, name: &str) -> BTreeMap<String, String> {
        match self.0.get(name) {
            Some(Value::Map(map)) => map.clone(),
            _ => BTreeMap::new(),
        }
    }

    fn path(&self, name: &str, default: impl AsRef<Path>) -> PathBuf {
        self.text(name)
            .map_or_else(|| default.as_ref().to_owned(), PathBuf::from)
    }
}

impl Settings {
    /// Checks values and gives them their types.
    ///
    /// # Errors
    /// In dockerd's words.
    pub(super) fn new(values: &Values) -> Result<Self, String> {
        let from = Source(values);
        check(&from)?;
        let exec_root = from.path("exec-root", EXEC_ROOT);
        let hosts = from
            .list("host")
            .iter()
            .map(|host| hosts::parse(host))
            .collect::<Result<_, _>>()?;
        let group = from.text("group");
        let mut defaults = defaults(&from)?;
        let driver = from.text("log-driver").filter(|text| !text.is_empty());
        let driver = driver.unwrap_or_else(|| defaults.log_driver.clone());
        let warnings = defaults.set_log(&driver, from.map("log-opt"))?;
        Ok(Self {
            data_root: from.path("data-root", DATA_ROOT),
            pidfile: from.path("pidfile", exec_root.join("cooper.pid")),
            group: (
                group.clone().unwrap_or_else(|| GROUP.to_owned()),
                group.is_some(),
            ),
            hosts,
            level: level(&from)?,
            gate: gate(&from)?,
            defaults,
            bridge: bridge::settings(&from)?,
            cgroup_parent: from.text("cgroup-parent"),
            exec_root,
            warnings: warnings.into_iter().collect(),
        })
    }

    /// The engine's part.
    pub(super) fn engine(&self, program: &Path) -> Config {
        let mut config = Config::new(&self.data_root, &self.exec_root, program);
        config.defaults = self.defaults.clone();
        config.bridge = self.bridge.clone();
        if let Some(parent) = &self.cgroup_parent {
            config.cgroup_parent.clone_from(parent);
        }
        config
    }
}

/// What dockerd refuses though nothing here would fail over it.
fn check(from: &Source<'_>) -> Result<(), String> {
    for label in from.list("label") {
        if !label.contains('=') {
            return Err(format!("bad attribute format: {label}"));
        }
    }
    if let Some(parent) = from.text("cgroup-parent") {
        let mut steps = parent.split('/').filter(|step| !matches!(*step, "" | "."));
        let first = steps.next();
        if first.is_none() || first.into_iter().chain(steps).any(|step| step == "..") {
            return Err(format!(
                "invalid cgroup-parent {parent:?}: it must name a group below the top one, such as /cooper"
            ));
        }
    }
    let one_of = |name: &str, known: [&str; 2]| {
        from.text(name)
            .filter(|text| !text.is_empty() && !known.contains(&text.as_str()))
    };
    if let Some(mode) = one_of("default-ipc-mode", ["shareable", "private"]) {
        return Err(format!(
            "default IPC mode setting ({mode}) is invalid; use \"shareable\" or \"private\""
        ));
    }
    if let Some(mode) = one_of("default-cgroupns-mode", ["host", "private"]) {
        return Err(format!(
            "invalid default cgroup namespace ({mode}): use \"host\" or \"private\""
        ));
    }
    for (name, what) in [
        ("max-concurrent-downloads", "max concurrent downloads"),
        ("max-concurrent-uploads", "max concurrent uploads"),
        ("max-download-attempts", "max download attempts"),
    ] {
        if let Some(Value::Number(number @ ..0)) = from.0.get(name) {
            return Err(format!("invalid {what}: {number}"));
        }
    }
    if let Some(bad) = from
        .list("dns")
        .iter()
        .find(|text| text.parse::<IpAddr>().is_err())
    {
        return Err(format!("invalid IP address: {bad}"));
    }
    let is_domain = |text: &String| {
        let label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        text == "." || text.trim_end_matches('.').split('.').all(label)
    };
    match from.list("dns-search").iter().find(|text| !is_domain(text)) {
        Some(bad) => Err(format!("{bad} is not a valid domain")),
        None => Ok(()),
    }
}

fn level(from: &Source<'_>) -> Result<tracing::Level, String> {
    let text = from.text("log-level").unwrap_or_else(|| "info".to_owned());
    let level = match text.as_str() {
        "trace" => tracing::Level::TRACE,
        "debug" => tracing::Level::DEBUG,
        "info" => tracing::Level::INFO,
        "warn" | "warning" => tracing::Level::WARN,
        "error" | "fatal" | "panic" => tracing::Level::ERROR,
        _ => return Err(format!("invalid logging level: {text}")),
    };
    Ok(if from.switch("debug") {
        level.max(tracing::Level::DEBUG)
    } else {
        level
    })
}

fn gate(from: &Source<'_>) -> Result<Gate, String> {
    let plaintext = from.list("allow-plaintext");
    Ok(Gate {
        plaintext: plaintext
            .iter()
            .map(|network| network.parse())
            .collect::<Result<_, _>>()?,
        names: from
            .list("host-name")
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect(),
        origins: from
            .list("allow-origin")
            .iter()
            .map(|origin| origin.to_ascii_lowercase())
            .collect(),
    })
}

fn defaults(from: &Source<'_>) -> Result<Defaults, String> {
    let usual = Defaults::default();
    let shm_size_bytes = match from.text("default-shm-size") {
        Some(text) => size(&text).ok_or_else(|| format!("invalid size: '{text}'"))?,
        None => usual.shm_size_bytes,
    };
    let ulimits = from.map("default-ulimit");
    Ok(Defaults {
        debug: from.switch("debug"),
        shm_size_bytes,
        ipc_mode: from
            .text("default-ipc-mode")
            .unwrap_or_else(|| usual.ipc_mode.clone()),
        cgroupns_mode: from.text("default-cgroupns-mode"),
        ulimits: ulimits
            .iter()
            .map(|(name, text)| ulimit(name, text))
            .collect::<Result<_, _>>()?,
        init: from.switch("init"),
        dns: from.list("dns"),
        dns_options: from.list("dns-opt"),
        dns_search: from.list("dns-search"),
        labels: from.list("label"),
        registries: engine::config::Registries::parse(
            &from.list("registry-mirror"),
            &from.list("insecure-registry"),
        )
        .map_err(|error| error.to_string())?,
        ..usual
    })
}

/// `soft[:hard]` of the command line, or `{"Name":…,"Hard":…,"Soft":…}` of the file.
fn ulimit(name: &str, text: &str) -> Result<(String, i64, i64), String> {
    if text.starts_with('{') {
        let limit: api::container::host_config::Ulimit = api::go::decode(text.as_bytes())
            .map_err(|error| format!("invalid ulimit {name}: {error}"))?;
        return Ok((name.to_owned(), limit.soft, limit.hard));
    }
    let invalid = || format!("invalid ulimit argument: {name}={text}");
    let (soft, hard) = text.split_once(':').unwrap_or((text, text));
    let number = |text: &str| text.parse().map_err(|_| invalid());
    Ok((name.to_owned(), number(soft)?, number(hard)?))
}

/// Bytes with an optional binary unit (`64m`, `1GiB`).
fn size(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        for (text, bytes) in [
            ("64", Some(64)),
            ("64m", Some(64 << 20)),
            ("1GiB", Some(1 << 30)),
            ("2kb", Some(2048)),
            ("x", None),
            ("1y", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn ulimits_of_line_and_file() {
        assert_eq!(ulimit("nofile", "1:2"), Ok(("nofile".to_owned(), 1, 2)));
        assert_eq!(ulimit("nofile", "7"), Ok(("nofile".to_owned(), 7, 7)));
        assert_eq!(
            ulimit("n", r#"{"Name":"n","Hard":4,"Soft":3}"#),
            Ok(("n".to_owned(), 3, 4))
        );
        assert!(ulimit("n", "x").is_err());
    }
}
