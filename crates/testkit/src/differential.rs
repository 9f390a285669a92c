//! The differential harness: one request to Cooper and to dockerd, compared field by field.
//!
//! A scenario is a list of steps. Each engine runs all of them; `{name}` in a path or body stands for a
//! value taken from an earlier answer of the same engine. Ids, times and the like are normalised by
//! [`normalise`]; any other difference must be in the scenario's list with the design decision behind it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::client::{Client, Response};

/// One request, and what to keep of its answer.
#[derive(Clone, Debug)]
pub struct Step {
    /// The HTTP method.
    pub method: &'static str,
    /// The path with query; `{name}` is replaced.
    pub path: String,
    /// The body: a JSON value is sent as application/json, null sends none; `{name}` in strings is replaced.
    pub body: Value,
    /// Keeps the string at this JSON pointer of the answer under a name.
    pub keep: Option<(&'static str, &'static str)>,
}

/// A difference that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The number of the step, from 0.
    pub step: usize,
    /// The prefix of the place: `status`, `header name`, or a JSON pointer such as `/HostConfig/LogConfig`.
    pub place: &'static str,
    /// The decision of DESIGN that demands it.
    pub because: &'static str,
}

/// A GET.
pub fn get(path: &str) -> Step {
    Step {
        method: "GET",
        path: path.into(),
        body: Value::Null,
        keep: None,
    }
}

/// A POST; null sends no body.
pub fn post(path: &str, body: Value) -> Step {
    Step {
        method: "POST",
        path: path.into(),
        body,
        keep: None,
    }
}

/// A DELETE.
pub fn delete(path: &str) -> Step {
    Step {
        method: "DELETE",
        path: path.into(),
        body: Value::Null,
        keep: None,
    }
}

impl Step {
    /// Keeps the string at `pointer` of the answer as `{name}`.
    #[must_use]
    pub fn keep(mut self, name: &'static str, pointer: &'static str) -> Self {
        self.keep = Some((name, pointer));
        self
    }
}

/// Headers that clients look at; dates, lengths and connection handling are not compared.
const HEADERS: &[&str] = &[
    "content-type",
    "api-version",
    "docker-experimental",
    "ostype",
    "swarm",
    "builder-version",
    "cache-control",
    "pragma",
];

/// Runs `steps` on both engines and fails the test with every difference that is not wanted.
pub fn compare(cooper: &Client, reference: &Client, steps: &[Step], wanted: &[Wanted]) {
    let mut ours = BTreeMap::new();
    let mut theirs = BTreeMap::new();
    let mut differences = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let mine = run(cooper, step, &mut ours);
        let reference = run(reference, step, &mut theirs);
        let mut found = Vec::new();
        if mine.status != reference.status {
            found.push((
                "status".to_owned(),
                reference.status.to_string(),
                format!("{} {}", mine.status, mine.text()),
            ));
        }
        for name in HEADERS {
            let (a, b) = (reference.header(name), mine.header(name));
            if a != b {
                found.push((format!("header {name}"), format!("{a:?}"), format!("{b:?}")));
            }
        }
        compare_values(
            "",
            &normalised(&reference, &theirs),
            &normalised(&mine, &ours),
            &mut found,
        );
        for (place, expected, actual) in found {
            if !wanted
                .iter()
                .any(|w| w.step == number && place.starts_with(w.place))
            {
                differences.push(format!(
                    "step {number} {} {}: {place}\n    dockerd: {expected}\n    cooper:  {actual}",
                    step.method, step.path
                ));
            }
        }
    }
    assert!(
        differences.is_empty(),
        "{} differences\n{}",
        differences.len(),
        differences.join("\n")
    );
}

fn run(client: &Client, step: &Step, kept: &mut BTreeMap<String, String>) -> Response {
    let fill = |text: &str| {
        kept.iter().fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{name}}}"), value)
        })
    };
    let path = fill(&step.path);
    let answer = if step.body.is_null() {
        client.request(step.method, &path, &[], Vec::new())
    } else {
        let body = fill(&step.body.to_string()).into_bytes();
        client.request(
            step.method,
            &path,
            &[("content-type", "application/json")],
            body,
        )
    };
    if let Some((name, pointer)) = step.keep {
        let value = answer
            .json()
            .pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned);
        kept.insert(
            name.into(),
            value.unwrap_or_else(|| panic!("no {pointer} in {}", answer.text())),
        );
    }
    answer
}

fn normalised(answer: &Response, kept: &BTreeMap<String, String>) -> Value {
    let mut text = answer.text();
    for (name, value) in kept {
        text = text.replace(value, &format!("<{name}>"));
        if value.len() == 64 {
            text = text.replace(&value[..12], &format!("<short {name}>"));
        }
    }
    let mut value = match serde_json::from_str(&text) {
        Ok(value) => value,
        Err(_) => Value::String(text),
    };
    normalise(&mut value);
    value
}

/// Replaces what must differ between two engines: times, process ids, random ids and host paths.
pub fn normalise(value: &mut Value) {
    match value {
        Value::String(text) => {
            if is_time(text) {
                *text = "<time>".into();
            } else if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                *text = "<id>".into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalise),
        Value::Object(fields) => {
            for (key, field) in fields.iter_mut() {
                match (key.as_str(), &field) {
                    ("Pid" | "Created" | "time" | "timeNano", Value::Number(_)) => {
                        *field = "<number>".into()
                    }
                    (
                        "ResolvConfPath" | "HostnamePath" | "HostsPath" | "LogPath",
                        Value::String(path),
                    ) if !path.is_empty() => {
                        *field = "<path>".into();
                    }
                    _ => normalise(field),
                }
            }
        }
        _ => {}
    }
}

fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 20
        && bytes[4] == b'-'
        && bytes[10] == b'T'
        && text.ends_with('Z')
        && !text.starts_with("0001-")
}

/// Collects (place, in `a`, in `b`) wherever two values differ: missing keys, types, values, order of keys.
pub fn compare_values(
    place: &str,
    a: &Value,
    b: &Value,
    found: &mut Vec<(String, String, String)>,
) {
    match (a, b) {
        (Value::Object(left), Value::Object(right)) => {
            for (key, value) in left {
                let place = format!("{place}/{key}");
                match right.get(key) {
                    Some(other) => compare_values(&place, value, other, found),
                    None => found.push((place, value.to_string(), "<absent>".into())),
                }
            }
            for (key, value) in right {
                if !left.contains_key(key) {
                    found.push((
                        format!("{place}/{key}"),
                        "<absent>".into(),
                        value.to_string(),
                    ));
                }
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (value, other)) in left.iter().zip(right).enumerate() {
                compare_values(&format!("{place}/{index}"), value, other, found);
            }
        }
        _ if a == b => {}
        _ => found.push((place.to_owned(), a.to_string(), b.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn differences(a: &Value, b: &Value) -> Vec<String> {
        let mut found = Vec::new();
        compare_values("", a, b, &mut found);
        found.into_iter().map(|(place, ..)| place).collect()
    }

    #[test]
    fn null_empty_and_absent_are_three_things() {
        let reference = json!({"a": null, "b": [], "c": {}});
        assert_eq!(
            differences(&reference, &json!({"a": [], "b": null})),
            ["/a", "/b", "/c"]
        );
        assert_eq!(differences(&reference, &reference), Vec::<String>::new());
    }

    #[test]
    fn times_and_ids_are_normalised_but_the_zero_time_is_not() {
        let mut value = json!({
            "At": "2026-01-02T03:04:05.6Z", "Never": "0001-01-01T00:00:00Z", "Id": "a".repeat(64), "Pid": 12, "N": 12,
        });
        normalise(&mut value);
        assert_eq!(
            value,
            json!({"At": "<time>", "Never": "0001-01-01T00:00:00Z", "Id": "<id>", "Pid": "<number>", "N": 12})
        );
    }
}
