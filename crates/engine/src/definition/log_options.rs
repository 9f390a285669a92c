//! Log drivers and their options: which exist, which options they take (moby `daemon/logger`).

use std::collections::BTreeMap;

use api::container::host_config::LogConfig;

use crate::error::Class;
use crate::{Defaults, Error};

/// Options every driver takes.
const COMMON: &[&str] = &["mode", "max-buffer-size"];

/// Options of json-file.
const JSON_FILE: &[&str] = &[
    "max-file",
    "max-size",
    "compress",
    "labels",
    "labels-regex",
    "env",
    "env-regex",
    "tag",
];

/// Options of local.
const LOCAL: &[&str] = &["max-file", "max-size", "compress"];

/// The driver that stands in for one that is not there (DESIGN decision 11: every log is a local file first).
pub(crate) const STAND_IN: &str = "json-file";

/// Drivers of dockerd that send logs elsewhere.
const REMOTE: &[&str] = &[
    "awslogs", "fluentd", "gcplogs", "gelf", "journald", "splunk", "syslog",
];

/// Whether a driver is there.
pub(crate) fn is_there(driver: &str) -> bool {
    matches!(driver, "none" | "json-file" | "local")
}

/// Whether the driver that stands in for others takes an option.
pub(crate) fn stand_in_takes(option: &str) -> bool {
    JSON_FILE.contains(&option) || COMMON.contains(&option)
}

/// What is said of an option that is taken and not done.
pub(crate) const NOT_COMPRESSED: &str =
    "log option compress=true has no effect: rotated log files are not compressed yet";

/// Whether the options ask for compression (Go's `strconv.ParseBool`; other values fail at the start).
pub(crate) fn wants_compression(options: &BTreeMap<String, String>) -> bool {
    let value = options.get("compress").map(String::as_str);
    matches!(value, Some("1" | "t" | "T" | "true" | "True" | "TRUE"))
}

/// Checks the driver and its options, and fills in the daemon's where the request names no driver; gives a warning of
/// what the request asks for and does not get.
pub(super) fn check(log: &mut LogConfig, defaults: &Defaults) -> Result<Option<String>, Error> {
    let warns = log.config.as_ref().is_some_and(wants_compression);
    if log.r#type.is_empty() {
        log.r#type.clone_from(&defaults.log_driver);
    }
    if log.r#type == defaults.log_driver {
        let options = log.config.get_or_insert_default();
        for (key, value) in &defaults.log_options {
            options.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    check_options(&log.r#type, log.config.get_or_insert_default())?;
    Ok(warns.then(|| NOT_COMPRESSED.to_owned()))
}

/// Checks options for a driver.
pub(crate) fn check_options(driver: &str, options: &BTreeMap<String, String>) -> Result<(), Error> {
    let known = match driver {
        "none" => return Ok(()),
        "json-file" => JSON_FILE,
        "local" => LOCAL,
        other if REMOTE.contains(&other) => {
            return Err(Error::new(
                Class::NotImplemented,
                format!("log driver {other} is not there yet: use json-file, local or none"),
            ));
        }
        other => {
            return Err(Error::invalid(format!(
                "error looking up logging plugin {other}: plugin \"{other}\" not found"
            )));
        }
    };
    match options.get("mode").map_or("", String::as_str) {
        "" | "blocking" if options.contains_key("max-buffer-size") => {
            return Err(Error::invalid(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
            ));
        }
        "" | "blocking" | "non-blocking" => {
            if let Some(size) = options.get("max-buffer-size") {
                crate::log_file::human_size(size).map_err(|why| {
                    Error::invalid(format!("error parsing option max-buffer-size: {why}"))
                })?;
            }
        }
        other => {
            return Err(Error::invalid(format!(
                "logger: logging mode not supported: {other}"
            )));
        }
    }
    let unknown = options
        .keys()
        .find(|key| !known.contains(&key.as_str()) && !COMMON.contains(&key.as_str()));
    match unknown {
        Some(key) if driver == "local" => Err(Error::invalid(format!(
            "unknown log opt '{key}' for log driver local"
        ))),
        Some(key) => Err(Error::invalid(format!(
            "unknown log opt '{key}' for {driver} log driver"
        ))),
        None => Ok(()),
    }
}
