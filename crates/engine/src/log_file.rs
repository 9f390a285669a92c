//! What the log options of a container mean for its log file (moby `daemon/logger/jsonfilelog`, `local`). Pure.
//!
//! Names of options are checked when the container is created, their values when it starts: as dockerd does.

use std::collections::BTreeMap;
use std::num::IntErrorKind;
use std::path::Path;

use shim::protocol::{LOG_FILES_DEFAULT, LOG_SIZE_DEFAULT_BYTES, Log};

use crate::Definition;

/// The log file in `directory`; the `none` driver has none. What remote drivers send is read from the same file.
///
/// # Errors
/// In dockerd's words for a value that cannot be used.
pub(crate) fn settings(
    definition: &Definition,
    name: &str,
    directory: &Path,
) -> Result<Option<Log>, String> {
    let settings = &definition.host_config.log_config;
    if settings.r#type == "none" {
        return Ok(None);
    }
    let none = BTreeMap::new();
    let options = settings.config.as_ref().unwrap_or(&none);
    let (max_size_bytes, max_files) = limits(&settings.r#type, options)?;
    Ok(Some(Log {
        path: directory.join(format!("{}-json.log", definition.id)),
        max_size_bytes,
        max_files,
        attributes: log_attributes(options, definition, name)?,
    }))
}

/// Size of a file and number of files.
fn limits(driver: &str, options: &BTreeMap<String, String>) -> Result<(Option<u64>, u32), String> {
    let option = |name| options.get(name).map(String::as_str);
    let max_size_bytes = match option("max-size") {
        None => Some(LOG_SIZE_DEFAULT_BYTES),
        // The way to have none of decision 11's default.
        Some("-1") => None,
        Some(text) => match human_size(text) {
            Ok(0) => return Err("max-size must be a positive number".to_owned()),
            Ok(size) => Some(size),
            Err(why) if driver == "local" => {
                return Err(format!("invalid value for max-size: {text}: {why}"));
            }
            Err(why) => return Err(why),
        },
    };
    let max_files = match option("max-file") {
        // dockerd's default once a size is given.
        None if options.contains_key("max-size") => 1,
        None => LOG_FILES_DEFAULT,
        Some(text) => match text.parse::<i64>() {
            Ok(count) if count < 1 => return Err("max-file cannot be less than 1".to_owned()),
            Ok(count) => u32::try_from(count).unwrap_or(u32::MAX),
            Err(error) => {
                let why = match error.kind() {
                    IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                    _ => "invalid syntax",
                };
                return Err(format!("strconv.Atoi: parsing {text:?}: {why}"));
            }
        },
    };
    match option("compress") {
        None | Some("0" | "f" | "F" | "false" | "False" | "FALSE") => {}
        Some("1" | "t" | "T" | "true" | "True" | "TRUE") => {
            if max_files < 2 || !options.contains_key("max-size") {
                return Err(
                    "compress cannot be true when max-file is less than 2 or max-size is not set"
                        .to_owned(),
                );
            }
        }
        Some(text) => {
            let why = format!("strconv.ParseBool: parsing {text:?}: invalid syntax");
            return Err(match driver {
                "local" => format!("error reading compress log option: {why}"),
                _ => why,
            });
        }
    }
    Ok((max_size_bytes, max_files))
}

/// The attributes that `labels` and `env` select (moby `loggerutils`, `ExtraAttributes`).
fn log_attributes(
    options: &BTreeMap<String, String>,
    definition: &Definition,
    name: &str,
) -> Result<BTreeMap<String, String>, String> {
    let mut attributes = BTreeMap::new();
    let config = &definition.config;
    let names = |option| options.get(option).map(String::as_str).unwrap_or_default();
    for label in names("labels").split(',') {
        let value = config.labels.as_ref().and_then(|labels| labels.get(label));
        if let Some(value) = value {
            attributes.insert(label.to_owned(), value.clone());
        }
    }
    for wanted in names("env").split(',') {
        let mut variables = config.env.iter().flatten();
        let value = variables.find_map(|variable| {
            let (name, value) = variable.split_once('=')?;
            (name == wanted).then_some(value)
        });
        if let Some(value) = value {
            attributes.insert(wanted.to_owned(), value.to_owned());
        }
    }
    let pairs = config.env.iter().flatten();
    let pairs = pairs.filter_map(|variable| variable.split_once('='));
    for (name, value) in select(options.get("env-regex"), pairs)? {
        attributes.insert(name, value);
    }
    let labels = config.labels.iter().flatten();
    let labels = labels.map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in select(options.get("labels-regex"), labels)? {
        attributes.insert(name, value);
    }
    if let Some(template) = options.get("tag").filter(|tag| !tag.is_empty()) {
        attributes.insert("tag".to_owned(), tag(template, definition, name)?);
    }
    Ok(attributes)
}

/// The pairs whose name matches; none without a pattern.
fn select<'a>(
    pattern: Option<&String>,
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<(String, String)>, String> {
    let Some(pattern) = pattern.filter(|pattern| !pattern.is_empty()) else {
        return Ok(Vec::new());
    };
    let regex = regex_lite::Regex::new(pattern)
        .map_err(|error| format!("error parsing regexp: {error}: `{pattern}`"))?;
    let matching = pairs.filter(|(name, _)| regex.is_match(name));
    Ok(matching
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

/// Digits of a short id.
const SHORT_ID: usize = 12;

/// Fills `{{.Field}}` in a tag (moby `daemon/logger/loggerutils`, `ParseLogTag`). Of Go's templates that is what tags
/// are made of.
fn tag(template: &str, definition: &Definition, name: &str) -> Result<String, String> {
    let refused = |why: String| Err(format!("template: log-tag:1{why}"));
    let config = &definition.config;
    let short = |id: &str| {
        id.trim_start_matches("sha256:")
            .chars()
            .take(SHORT_ID)
            .collect()
    };
    let mut tag = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        tag.push_str(before);
        let Some((action, after)) = after.split_once("}}") else {
            return refused(": unclosed action".to_owned());
        };
        let id = definition.id.as_str();
        let value: String = match action.trim() {
            ".ID" => short(id),
            ".FullID" | ".ContainerID" => id.to_owned(),
            ".Name" => name.to_owned(),
            ".ContainerName" => format!("/{name}"),
            ".ImageID" => short(&definition.image),
            ".ImageFullID" | ".ContainerImageID" => definition.image.clone(),
            ".ImageName" | ".ContainerImageName" => config.image.clone(),
            ".DaemonName" => "docker".to_owned(),
            ".Command" => std::iter::once(definition.path.as_str())
                .chain(definition.args.iter().map(String::as_str))
                .collect::<Vec<_>>()
                .join(" "),
            field if field.starts_with('.') => {
                let name = &field[1..];
                return refused(format!(
                    ":{}: executing \"log-tag\" at <{field}>: can't evaluate field {name} in type *logger.Info",
                    template.len() - rest.len() + before.len() + 2
                ));
            }
            other => {
                return refused(format!(
                    ": {other:?} is not one of the fields that a tag can have"
                ));
            }
        };
        tag.push_str(&value);
        rest = after;
    }
    tag.push_str(rest);
    Ok(tag)
}

/// Reads `10m`, `1.5GB`, `500`: decimal units, as go-units' `FromHumanSize`.
///
/// # Errors
/// In its words.
pub(crate) fn human_size(text: &str) -> Result<u64, String> {
    let is_unit = |c: char| c.is_ascii_alphabetic();
    let unit = text.trim_start_matches(|c: char| !is_unit(c));
    let number = text[..text.len() - unit.len()].trim_end();
    let is_number =
        number.bytes().all(|b| b.is_ascii_digit() || b == b'.') && number.parse::<f64>().is_ok();
    if !is_number {
        return Err(format!("invalid size: '{text}'"));
    }
    bytes(text).ok_or_else(|| format!("invalid suffix: '{}'", unit.to_ascii_lowercase()))
}

fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let text = text
        .strip_suffix("ib")
        .or(text.strip_suffix('b'))
        .unwrap_or(&text);
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let factor: u64 = match &text[digits.len()..] {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        "t" => 1_000_000_000_000,
        _ => return None,
    };
    let digits = digits.trim_end();
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    if fraction.is_empty() {
        return Some(whole);
    }
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = fraction.parse::<u64>().ok()?.checked_mul(factor)? / scale;
    whole.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal() {
        for (text, wanted) in [
            ("500", Ok(500)),
            ("10m", Ok(10_000_000)),
            ("10MB", Ok(10_000_000)),
            ("10MiB", Ok(10_000_000)),
            ("1.5g", Ok(1_500_000_000)),
            ("2k", Ok(2_000)),
            ("", Err("invalid size: ''")),
            ("m", Err("invalid size: 'm'")),
            ("-1", Err("invalid size: '-1'")),
            ("1x", Err("invalid suffix: 'x'")),
        ] {
            assert_eq!(human_size(text), wanted.map_err(str::to_owned), "{text}");
        }
    }

    /// The texts are dockerd 28.5.2's.
    #[test]
    fn values_are_refused_in_dockerds_words() {
        let both = "compress cannot be true when max-file is less than 2 or max-size is not set";
        for (options, wanted) in [
            (
                &[][..],
                Ok((Some(LOG_SIZE_DEFAULT_BYTES), LOG_FILES_DEFAULT)),
            ),
            (&[("max-size", "1m")][..], Ok((Some(1_000_000), 1))),
            (&[("max-size", "-1")][..], Ok((None, 1))),
            (
                &[("max-size", "0")][..],
                Err("max-size must be a positive number"),
            ),
            (
                &[("max-file", "0")][..],
                Err("max-file cannot be less than 1"),
            ),
            (
                &[("max-file", "abc")][..],
                Err("strconv.Atoi: parsing \"abc\": invalid syntax"),
            ),
            (
                &[("max-file", "40000000000000000000")][..],
                Err("strconv.Atoi: parsing \"40000000000000000000\": value out of range"),
            ),
            (&[("compress", "true")][..], Err(both)),
            (
                &[("compress", "maybe")][..],
                Err("strconv.ParseBool: parsing \"maybe\": invalid syntax"),
            ),
        ] {
            let options = options
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let found = limits("json-file", &options.collect());
            assert_eq!(found, wanted.map_err(str::to_owned));
        }
    }
}
