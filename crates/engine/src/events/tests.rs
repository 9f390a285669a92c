//! Tests of the journal: order, restarts, slow subscribers, the cap, and dockerd's filters.

use std::collections::BTreeMap;

use api::filters::Filters;
use api::options::EventsOptions;
use api::time::Time;

use super::*;

struct Fixture {
    _directory: tempfile::TempDir,
    db: Db,
    journal: Journal,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let db = Db::open(&directory.path().join("cooper.db")).unwrap();
    let journal = Journal::open(&db).unwrap();
    Fixture {
        _directory: directory,
        db,
        journal,
    }
}

fn numbered(number: i64) -> EventMessage {
    let mut made = event("container", &format!("a{number}"), "c", BTreeMap::new());
    made.time_nano = number;
    made
}

fn since(number: i64) -> EventsOptions {
    EventsOptions {
        since: Some(Time::from_unix_nanos(number)),
        ..EventsOptions::default()
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

async fn actions(stream: &mut Stream, count: usize) -> Vec<String> {
    let mut actions = Vec::new();
    for _ in 0..count {
        actions.push(stream.next().await.unwrap().unwrap().action.clone());
    }
    actions
}

#[test]
fn past_and_present_come_once_and_in_order_even_after_a_restart() {
    let fixture = fixture();
    fixture
        .journal
        .append((0..600).map(numbered).collect())
        .unwrap();
    let again = Journal::open(&fixture.db).unwrap();
    run(async {
        let mut stream = again.subscribe(since(300)).unwrap();
        again.append(vec![numbered(600)]).unwrap();
        let expected: Vec<String> = (300..=600).map(|number| format!("a{number}")).collect();
        assert_eq!(actions(&mut stream, 301).await, expected);
    });
}

#[test]
fn a_subscriber_that_falls_behind_the_ring_reads_the_journal() {
    let fixture = fixture();
    run(async {
        let mut stream = fixture.journal.subscribe(EventsOptions::default()).unwrap();
        let count = RING_EVENTS * 3;
        for number in 0..count {
            fixture
                .journal
                .append(vec![numbered(number as i64)])
                .unwrap();
        }
        let expected: Vec<String> = (0..count).map(|number| format!("a{number}")).collect();
        assert_eq!(actions(&mut stream, count).await, expected);
    });
}

#[test]
fn entries_published_in_another_order_are_told_in_order() {
    let fixture = fixture();
    run(async {
        let mut stream = fixture.journal.subscribe(EventsOptions::default()).unwrap();
        let events = |number| vec![numbered(number)];
        let first = fixture
            .db
            .write(|transaction| record(transaction, events(1)))
            .unwrap();
        let second = fixture
            .db
            .write(|transaction| record(transaction, events(2)))
            .unwrap();
        fixture.journal.publish(second);
        fixture.journal.publish(first);
        fixture.journal.append(events(3)).unwrap();
        assert_eq!(actions(&mut stream, 3).await, ["a1", "a2", "a3"]);
    });
}

#[test]
fn a_failed_change_leaves_no_event() {
    let fixture = fixture();
    run(async {
        let mut stream = fixture.journal.subscribe(since(0)).unwrap();
        let failed = fixture.journal.write(&fixture.db, vec![numbered(1)], |_| {
            Err(Error::conflict("no"))
        });
        assert!(failed.is_err());
        fixture.journal.append(vec![numbered(2)]).unwrap();
        assert_eq!(actions(&mut stream, 1).await, ["a2"]);
    });
}

#[test]
fn what_the_journal_forgets_is_told() {
    let fixture = fixture();
    fixture
        .journal
        .append((1..=10).map(numbered).collect())
        .unwrap();
    fixture
        .db
        .write::<_, Error>(|transaction| trim(transaction, 1))
        .unwrap();
    run(async {
        let mut stream = fixture.journal.subscribe(since(0)).unwrap();
        let marker = stream.next().await.unwrap().unwrap();
        assert_eq!(
            (marker.r#type.as_str(), marker.action.as_str()),
            ("daemon", "gap")
        );
        assert_eq!(marker.actor.attributes["forgotten"], "1");
        assert_eq!(actions(&mut stream, 2).await, ["a2", "a3"]);
        let mut later = fixture.journal.subscribe(since(5)).unwrap();
        assert_eq!(actions(&mut later, 1).await, ["a5"]);
    });
    let counted: i64 = fixture
        .db
        .read::<_, Error>(|connection| {
            Ok(connection.query_row(
                "SELECT bytes - (SELECT sum(length(body)) FROM event) FROM event_journal",
                [],
                |row| row.get(0),
            )?)
        })
        .unwrap();
    assert_eq!(counted, 0);
}

#[test]
fn until_ends_the_stream_and_must_not_be_before_since() {
    let fixture = fixture();
    fixture
        .journal
        .append((1..=5).map(numbered).collect())
        .unwrap();
    let until = |number: i64| EventsOptions {
        until: Some(Time::from_unix_nanos(number)),
        ..since(2)
    };
    run(async {
        let mut stream = fixture.journal.subscribe(until(4)).unwrap();
        assert_eq!(actions(&mut stream, 3).await, ["a2", "a3", "a4"]);
        assert!(stream.next().await.is_none());
    });
    let wrong = EventsOptions {
        since: Some(Time::from_unix_nanos(5_000_000_000)),
        until: Some(Time::from_unix_nanos(2_000_000_000)),
        ..EventsOptions::default()
    };
    let refused = fixture.journal.subscribe(wrong).err().unwrap();
    assert_eq!(
        refused.message,
        "`since` time (5) cannot be after `until` time (2)"
    );
}

#[test]
fn filters_of_dockerd() {
    let attributes = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    let container = attributes(&[
        ("image", "busybox:latest"),
        ("name", "web-1"),
        ("tier", "front"),
    ]);
    let exec = event(
        "container",
        "exec_start: sh -c true",
        "abcdef",
        container.clone(),
    );
    let die = event("container", "die", "abcdef", container);
    let pull = event(
        "image",
        "pull",
        "busybox:latest",
        attributes(&[("name", "busybox")]),
    );
    let connect = event(
        "network",
        "connect",
        "fff",
        attributes(&[("container", "abcdef"), ("name", "bridge")]),
    );
    let table: &[(&str, [bool; 4])] = &[
        ("{}", [true, true, true, true]),
        (r#"{"type":["container"]}"#, [true, true, false, false]),
        (r#"{"event":["die"]}"#, [false, true, false, false]),
        (r#"{"event":["exec_start"]}"#, [true, false, false, false]),
        (r#"{"event":["exec"]}"#, [false, false, false, false]),
        (r#"{"container":["abc"]}"#, [true, true, false, false]),
        (r#"{"container":["web"]}"#, [true, true, false, false]),
        (r#"{"container":["eb-1"]}"#, [false, false, false, false]),
        (r#"{"image":["busybox"]}"#, [true, true, true, false]),
        (r#"{"image":["busybox:latest"]}"#, [true, true, true, false]),
        (r#"{"image":["busy"]}"#, [false, false, false, false]),
        (r#"{"network":["bri"]}"#, [false, false, false, true]),
        (r#"{"label":["tier"]}"#, [true, true, false, false]),
        (r#"{"label":["tier=back"]}"#, [false, false, false, false]),
        (r#"{"scope":{"swarm":true}}"#, [false, false, false, false]),
        (
            r#"{"type":["image","network"]}"#,
            [false, false, true, true],
        ),
        (r#"{"zz":["a"]}"#, [true, true, true, true]),
    ];
    for (filters, expected) in table {
        let parsed = Filters::parse(filters).unwrap();
        let found = [&exec, &die, &pull, &connect].map(|event| filter::includes(&parsed, event));
        assert_eq!(found, *expected, "{filters}");
    }
}
