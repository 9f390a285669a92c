//! Words, filters and order of the list, as recorded from dockerd 28.5.2.

use serde_json::json;

use super::*;
use crate::reference::{cases, defined};
use crate::{Facts, Status};

const SECOND_NS: i64 = 1_000_000_000;

#[test]
fn durations_of_go_units() {
    let hour = 3_600;
    let table = [
        (-5, "Less than a second"),
        (0, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (59 * 60 + 59, "59 minutes"),
        (hour, "About an hour"),
        (hour + 1_799, "About an hour"),
        (hour + 1_800, "2 hours"),
        (47 * hour, "47 hours"),
        (48 * hour, "2 days"),
        (335 * hour, "13 days"),
        (336 * hour, "2 weeks"),
        (1_439 * hour, "8 weeks"),
        (1_440 * hour, "2 months"),
        (17_519 * hour, "24 months"),
        (17_520 * hour, "2 years"),
    ];
    for (seconds, expected) in table {
        assert_eq!(human_duration(seconds), expected, "{seconds}");
    }
}

#[test]
fn commands_are_quoted_by_blanks_alone() {
    let words = |list: &[&str]| -> Vec<String> { list.iter().map(ToString::to_string).collect() };
    let table = [
        (
            words(&["sh", "-c", "sleep 1000 & sleep 100"]),
            "sh -c 'sleep 1000 & sleep 100'",
        ),
        (
            words(&["a b", "c\"d", "e'f", "$x", "-c", ""]),
            "a b c\"d e'f $x -c ",
        ),
        (words(&["/bin/sh", "-c", "ls", "-l"]), "/bin/sh -c ls -l"),
        (words(&["x y"]), "x y"),
        (words(&["a\nb"]), "a\nb"),
    ];
    for (list, expected) in table {
        assert_eq!(words::command(&list[0], &list[1..]), expected);
    }
}

fn view(number: i64, status: Status, exit_code: i32) -> View {
    static PLAIN: std::sync::LazyLock<serde_json::Value> = std::sync::LazyLock::new(|| {
        cases()
            .into_iter()
            .find(|(name, _)| name == "plain")
            .unwrap()
            .1
            .image
    });
    let request = json!({
        "Image": "busybox", "Cmd": ["true"], "ExposedPorts": {"80/tcp": {}},
        "Labels": {"a": "b", "number": number.to_string()},
        "HostConfig": {"Binds": ["data:/mnt"], "PortBindings": {"53/udp": [{"HostPort": "5353"}]}}
    });
    let (mut definition, _) = defined(&request, &PLAIN).unwrap();
    definition.id = format!("{number:064x}").parse().unwrap();
    definition.created_ns = number * SECOND_NS;
    let started_at_ns = if status == Status::Created {
        0
    } else {
        number * SECOND_NS
    };
    let networks = json!({"Networks": {"bridge": {"NetworkID": "feed00"}}});
    View {
        snapshot: Arc::new(Snapshot {
            generation: 1,
            definition: Arc::new(definition),
            name: format!("box-{number}").into(),
            status,
            facts: Facts {
                started_at_ns,
                finished_at_ns: (number + 1) * SECOND_NS,
                exit_code,
                ..Facts::default()
            },
            exits: 0,
            removed: false,
            removal_error: String::new(),
        }),
        network: serde_json::from_value(networks).unwrap(),
        health: None,
        sizes: None,
    }
}

#[test]
fn the_image_of_many_containers_is_looked_up_once() {
    let asked = std::cell::Cell::new(0);
    let lookups = Lookups {
        container: &|_| unreachable!("no filter asks"),
        image: &|_| {
            asked.set(asked.get() + 1);
            None
        },
        descends: &|_, _| unreachable!("no filter asks"),
    };
    let views = (1..=50).map(|number| view(number, Status::Created, 0));
    let options = ListOptions {
        all: true,
        ..ListOptions::default()
    };
    let lines = list(views.collect(), &options, &lookups, 0).unwrap();
    assert_eq!((lines.len(), asked.get()), (50, 1));
}

fn listed(options: &ListOptions) -> Result<Vec<String>, String> {
    let views = vec![
        view(3, Status::Exited, 7),
        view(1, Status::Running, 0),
        view(4, Status::Created, 0),
        view(2, Status::Paused, 0),
    ];
    let by_name = |name: &str| match name.strip_prefix("box-") {
        Some(number) => Ok(format!("{:064x}", number.parse::<i64>().unwrap())
            .parse()
            .unwrap()),
        None => Err(Error::not_found(format!("No such container: {name}"))),
    };
    let lookups = Lookups {
        container: &by_name,
        image: &|name| (name == "busybox" || name == "child").then(|| name.to_owned()),
        descends: &|_, ancestor| ancestor == "busybox",
    };
    let lines = list(views, options, &lookups, 100 * SECOND_NS).map_err(|error| error.message)?;
    Ok(lines
        .into_iter()
        .map(|line| line.names[0].clone())
        .collect())
}

/// Filters, the containers they leave (of all), or the text of the refusal.
const FILTERS: &[(&str, &str)] = &[
    ("{}", "4 3 2 1"),
    (r#"{"zz":["1"]}"#, "invalid filter 'zz'"),
    (
        r#"{"status":["zz"]}"#,
        "invalid filter 'status=zz': invalid value for state (zz): must be one of created, running, \
         paused, restarting, removing, exited, dead",
    ),
    (
        r#"{"exited":["x"]}"#,
        "invalid filter 'exited=x': strconv.Atoi: parsing \"x\": invalid syntax",
    ),
    (
        r#"{"health":["zz"]}"#,
        "invalid filter 'health=zz': invalid value for health (zz): must be one of none, starting, \
         healthy, unhealthy",
    ),
    (r#"{"is-task":["zz"]}"#, "invalid filter 'is-task=[zz]'"),
    (
        r#"{"is-task":["true","false"]}"#,
        "invalid filter 'is-task=[false true]'",
    ),
    (r#"{"is-task":["true"]}"#, ""),
    (r#"{"is-task":["false"]}"#, "4 3 2 1"),
    (r#"{"before":["nope"]}"#, "No such container: nope"),
    (r#"{"before":["box-3"]}"#, "2 1"),
    (r#"{"since":["box-2"]}"#, "4 3"),
    (r#"{"ancestor":["nope"]}"#, ""),
    (r#"{"ancestor":["busybox"]}"#, "4 3 2 1"),
    (r#"{"ancestor":["child"]}"#, ""),
    (
        r#"{"publish":["zz"]}"#,
        "error while looking up for publish zz: strconv.ParseUint: parsing \"zz\": invalid syntax",
    ),
    (r#"{"publish":["5353/udp"]}"#, "4 3 2 1"),
    (r#"{"publish":["5353"]}"#, ""),
    (r#"{"expose":["80"]}"#, "4 3 2 1"),
    (r#"{"expose":["70-90/tcp"]}"#, "4 3 2 1"),
    (r#"{"expose":["80/udp"]}"#, ""),
    (r#"{"volume":["/mnt"]}"#, "4 3 2 1"),
    (r#"{"volume":["data"]}"#, "4 3 2 1"),
    (r#"{"volume":["/x"]}"#, ""),
    (r#"{"network":["bridge"]}"#, "4 3 2 1"),
    (r#"{"network":["feed"]}"#, "4 3 2 1"),
    (r#"{"network":["nope"]}"#, ""),
    (r#"{"label":["a"]}"#, "4 3 2 1"),
    (r#"{"label":["a=b","number=2"]}"#, "2"),
    (r#"{"label":["a=x"]}"#, ""),
    (r#"{"name":["box"]}"#, "4 3 2 1"),
    (r#"{"name":["^/box-2$"]}"#, "2"),
    (r#"{"name":["["]}"#, ""),
    (r#"{"id":["0004"]}"#, "4"),
    (r#"{"status":["running"]}"#, "1"),
    (r#"{"status":["paused","exited"]}"#, "3 2"),
    (r#"{"exited":["7"]}"#, "3"),
    (r#"{"exited":["0"]}"#, ""),
    (r#"{"health":["none"]}"#, "4 3 2 1"),
    (r#"{"health":["healthy"]}"#, ""),
    (r#"{"isolation":["default"]}"#, "4 3 2 1"),
];

#[test]
fn filters_of_dockerd() {
    for (filters, expected) in FILTERS {
        let options = ListOptions {
            all: true,
            filters: Filters::parse(filters).unwrap(),
            ..ListOptions::default()
        };
        let found = match listed(&options) {
            Ok(names) => names.join(" ").replace("/box-", ""),
            Err(text) => text,
        };
        assert_eq!(found, *expected, "{filters}");
    }
}

#[test]
fn without_all_only_what_runs_and_a_limit_means_all() {
    let of = |options: &ListOptions| listed(options).unwrap().join(" ").replace("/box-", "");
    let options = ListOptions::default();
    assert_eq!(of(&options), "2 1");
    assert_eq!(
        of(&ListOptions {
            limit: 3,
            ..options.clone()
        }),
        "4 3 2"
    );
    assert_eq!(
        of(&ListOptions {
            limit: -1,
            ..options.clone()
        }),
        "2 1"
    );
    let filters = Filters::parse(r#"{"status":["exited"]}"#).unwrap();
    assert_eq!(of(&ListOptions { filters, ..options }), "3");
}

#[test]
fn status_words() {
    let text = |status, exit_code, health: Option<&str>, after: i64| {
        let view = view(10, status, exit_code);
        let health = health.map(|word| Health {
            status: word.to_owned(),
            ..Health::default()
        });
        status_text(&view.snapshot, health.as_ref(), (10 + after) * SECOND_NS)
    };
    assert_eq!(text(Status::Created, 0, None, 5), "Created");
    assert_eq!(text(Status::Running, 0, None, 8), "Up 8 seconds");
    assert_eq!(
        text(Status::Running, 0, Some("healthy"), 60),
        "Up About a minute (healthy)"
    );
    assert_eq!(
        text(Status::Running, 0, Some("starting"), 0),
        "Up Less than a second (health: starting)"
    );
    assert_eq!(
        text(Status::Paused, 0, None, 0),
        "Up Less than a second (Paused)"
    );
    assert_eq!(
        text(Status::Restarting, 1, None, 4),
        "Restarting (1) 3 seconds ago"
    );
    assert_eq!(
        text(Status::Exited, 137, None, 1),
        "Exited (137) Less than a second ago"
    );
    assert_eq!(text(Status::Removing, 0, None, 1), "Removal In Progress");
    assert_eq!(text(Status::Dead, 0, None, 1), "Dead");
}
