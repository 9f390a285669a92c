//! Definitions against what dockerd 28.5.2 answered.

use serde_json::{Value, json};

use crate::error::Class;
use crate::reference::{answers, cases, defined, with_id};

/// Answers that Cooper gives otherwise, each with its reason.
const OTHERWISE: &[(&str, &str)] = &[
    ("name", "names are checked by lookup and api::name"),
    ("image ", "whether an image is there is the store's answer"),
    ("platform", "no rule here"),
    ("name taken", "the index's answer"),
    ("two endpoints old", "the version shim's answer"),
    ("mac", "the version shim's answer"),
    (
        "volume driver",
        "volume drivers are looked up when the volume is made",
    ),
    ("volumes from none", "covered below: the text is find's"),
    (
        "log syslog",
        "remote log drivers are tailers in the daemon (DESIGN decision 11), not there yet",
    ),
    (
        "log compress",
        "warned of, covered below: rotated files are not compressed yet",
    ),
    (
        "endpoint mac",
        "Config.MacAddress of an endpoint is filled in by inspect",
    ),
    (
        "kernel memory",
        "documented as removed; dropped silently like dockerd, which warns nowhere",
    ),
];

fn status(class: Class) -> u16 {
    match class {
        Class::NotFound => 404,
        Class::InvalidParameter => 400,
        Class::Conflict => 409,
        _ => 500,
    }
}

#[test]
fn requests_are_refused_and_warned_of_as_by_dockerd() {
    let image = &cases()
        .into_iter()
        .find(|(name, _)| name == "plain")
        .unwrap()
        .1
        .image;
    let mut wrong = Vec::new();
    let mut compared = 0;
    for answer in answers() {
        let label = answer.label.as_str();
        if OTHERWISE.iter().any(|(known, _)| label.starts_with(known))
            && label != "kernel memory tcp"
        {
            continue;
        }
        compared += 1;
        let ours = match defined(&answer.request, image) {
            Ok((_, warnings)) => (201, warnings.join("|")),
            Err(error) => (status(error.class), error.message),
        };
        let theirs = (
            answer.status,
            match answer.status {
                201 => answer.warnings.join("|"),
                _ => answer.message.clone(),
            },
        );
        if ours != theirs {
            wrong.push(format!("{label}\n  theirs {theirs:?}\n  ours   {ours:?}"));
        }
        assert!(answer.name.is_none());
    }
    assert!(
        wrong.is_empty(),
        "{} of {compared}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(compared > 250, "{compared}");
}

/// What a container's definition shows must be what dockerd shows.
#[test]
fn definitions_are_filled_in_as_by_dockerd() {
    let mut wrong = Vec::new();
    for (name, case) in cases() {
        let (definition, warnings) = defined(&case.request, &case.image).unwrap();
        assert_eq!(warnings, case.warnings, "{name}");
        let created = with_id(&case.created);
        let ours = [
            ("Config", serde_json::to_value(&definition.config).unwrap()),
            (
                "HostConfig",
                serde_json::to_value(&definition.host_config).unwrap(),
            ),
            ("Path", json!(definition.path)),
            ("Args", json!(definition.args)),
            ("Image", json!(definition.image)),
        ];
        for (key, ours) in ours {
            let theirs = &created[key];
            if ours != *theirs {
                wrong.push(format!("{name} {key}\n  theirs {theirs}\n  ours   {ours}"));
            }
        }
        let mut points = created["Mounts"].as_array().unwrap().clone();
        points.sort_by_key(|point| point["Destination"].to_string());
        let mut ours: Vec<Value> = definition
            .mounts
            .iter()
            .map(|point| serde_json::to_value(point).unwrap())
            .collect();
        // Source and name of a volume are the volume's, not the request's.
        for point in ours
            .iter_mut()
            .chain(&mut points)
            .filter(|point| point["Type"] == "volume")
        {
            point["Source"] = Value::Null;
            point["Name"] = Value::Null;
        }
        if points != ours {
            wrong.push(format!(
                "{name} Mounts\n  theirs {points:?}\n  ours   {ours:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// The fields of accepted odd requests, where they differ from those of a plain container.
#[test]
fn accepted_requests_are_stored_as_by_dockerd() {
    let image = &cases()
        .into_iter()
        .find(|(name, _)| name == "plain")
        .unwrap()
        .1
        .image;
    let mut wrong = Vec::new();
    for answer in answers() {
        let label = answer.label.as_str();
        if answer.status != 201 || OTHERWISE.iter().any(|(known, _)| label.starts_with(known)) {
            continue;
        }
        let Ok((definition, _)) = defined(&answer.request, image) else {
            wrong.push(format!("{label}: refused"));
            continue;
        };
        let ours = serde_json::to_value(&definition.host_config).unwrap();
        let config = serde_json::to_value(&definition.config).unwrap();
        for (fields, ours) in [(&answer.host_config, &ours), (&answer.config, &config)] {
            for (key, theirs) in fields {
                if ours[key] != *theirs {
                    wrong.push(format!(
                        "{label} {key}: theirs {theirs}, ours {}",
                        ours[key]
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn compression_of_logs_is_warned_of_where_it_is_asked_for() {
    let image = serde_json::json!({"Config": {}});
    let warned = |value: &str| {
        let options = json!({"Type": "json-file", "Config": {"compress": value, "max-size": "1m", "max-file": "2"}});
        let request = json!({"Image": "x", "Cmd": ["true"], "HostConfig": {"LogConfig": options}});
        defined(&request, &image).unwrap().1
    };
    assert_eq!(warned("false"), [""; 0]);
    let told = warned("true");
    assert!(
        told.len() == 1 && told[0].contains("compress=true has no effect"),
        "{told:?}"
    );
}

#[test]
fn paths_are_cleaned_like_go() {
    let table = [
        ("/a/../b/", "/b"),
        ("/", "/"),
        ("//a//./b", "/a/b"),
        ("/../a", "/a"),
        ("a/..", "."),
        ("../a", "../a"),
        ("", "."),
    ];
    for (path, expected) in table {
        assert_eq!(super::api_path(path), expected, "{path}");
    }
}
