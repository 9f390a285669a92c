//! Log drivers and their options: which exist, which options they take (moby `daemon/logger`).

use api::container::host_config::LogConfig;

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

/// Checks the driver and its options, and fills in the daemon's where the request names no driver.
pub(super) fn check(log: &mut LogConfig, defaults: &Defaults) -> Result<(), Error> {
    if log.r#type.is_empty() {
        log.r#type.clone_from(&defaults.log_driver);
    }
    if log.r#type == defaults.log_driver {
        let options = log.config.get_or_insert_default();
        for (key, value) in &defaults.log_options {
            options.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    let options = log.config.get_or_insert_default();
    let known = match log.r#type.as_str() {
        "none" => return Ok(()),
        "json-file" => JSON_FILE,
        "local" => LOCAL,
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
        Some(key) if log.r#type == "local" => Err(Error::invalid(format!(
            "unknown log opt '{key}' for log driver local"
        ))),
        Some(key) => Err(Error::invalid(format!(
            "unknown log opt '{key}' for {} log driver",
            log.r#type
        ))),
        None => Ok(()),
    }
}
