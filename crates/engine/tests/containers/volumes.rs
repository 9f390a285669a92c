//! Volumes of a real engine: dockerd's answers, filling from images (evil ones too), who uses what, and a
//! daemon killed at each durable step.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use crate::common::{self, Root, create, request};
use api::container::CreateRequest;
use api::filters::Filters;
use api::options::{CreateOptions, RemoveOptions, VolumeListOptions, WaitCondition};
use api::volume;
use engine::{Class, Config, Engine};
use sha2::{Digest as _, Sha256};

pub(crate) mod killed;
mod seeds;

const WITH_VOLUMES: RemoveOptions = RemoveOptions {
    force: true,
    volumes: true,
    link: false,
};

/// An image that only a copy is made of: `/data` with one of each kind, ways out of the root, `VOLUME /anon`.
fn seeded_archive() -> Vec<u8> {
    let layer = seeded_layer();
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let diff_id = format!("sha256:{}", hex(&Sha256::digest(&layer)));
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["sh"],"Volumes":{{"/anon":{{}}}}}},"rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
    );
    let manifest =
        r#"[{"Config":"config.json","RepoTags":["seeded:latest"],"Layers":["layer.tar"]}]"#;
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len().try_into().unwrap());
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes).unwrap();
    };
    add("config.json", config.as_bytes());
    add("layer.tar", &layer);
    add("manifest.json", manifest.as_bytes());
    archive.into_inner().unwrap()
}

fn header(kind: tar::EntryType, mode: u32, owner: (u64, u64)) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner.0);
    header.set_gid(owner.1);
    header.set_mtime(981_173_106);
    header.set_size(0);
    header
}

fn seeded_layer() -> Vec<u8> {
    use tar::EntryType::{Char, Directory, Fifo, Link, Regular, Symlink};
    let mut layer = tar::Builder::new(Vec::new());
    let none = std::io::empty;
    for (name, mode, owner) in [
        ("data/", 0o2775, (12, 34)),
        ("data/sub/", 0o700, (5, 6)),
        ("etc/", 0o755, (0, 0)),
        ("anon/", 0o750, (7, 8)),
    ] {
        let mut header = header(Directory, mode, owner);
        layer.append_data(&mut header, name, none()).unwrap();
    }
    for (name, mode, content) in [
        ("data/f", 0o4755, "hello"),
        ("data/sub/y", 0o600, "deep"),
        ("etc/marker", 0o644, "of the image"),
        ("anon/kept", 0o644, "kept"),
        ("file", 0o644, "no directory"),
    ] {
        let mut header = header(Regular, mode, (5, 6));
        header.set_size(content.len().try_into().unwrap());
        layer
            .append_data(&mut header, name, content.as_bytes())
            .unwrap();
    }
    for (name, target) in [
        ("data/link", "/etc/shadow"),
        ("evil", "../../../../../../etc"),
        ("absolute", "/etc"),
        ("loop", "loop"),
    ] {
        let mut header = header(Symlink, 0o777, (5, 6));
        layer.append_link(&mut header, name, target).unwrap();
    }
    layer
        .append_link(&mut header(Link, 0o4755, (5, 6)), "data/hard", "data/f")
        .unwrap();
    let mut null = header(Char, 0o666, (0, 0));
    null.set_device_major(1).unwrap();
    null.set_device_minor(3).unwrap();
    layer.append_data(&mut null, "data/null", none()).unwrap();
    layer
        .append_data(&mut header(Fifo, 0o640, (5, 6)), "data/fifo", none())
        .unwrap();
    layer.into_inner().unwrap()
}

async fn seeded(root: &Root) -> Engine {
    let engine = root.engine().await;
    let images = engine.images().clone();
    tokio::task::spawn_blocking(move || {
        images
            .load(&mut Cursor::new(seeded_archive()), &mut |_| {})
            .unwrap();
    })
    .await
    .unwrap();
    engine
}

fn seeded_request(binds: &[&str]) -> CreateRequest {
    let mut request = request(&["sh"]);
    request.config.image = "seeded".to_owned();
    request.host_config.binds = Some(binds.iter().map(|bind| (*bind).to_owned()).collect());
    request
}

async fn refused(engine: &Engine, request: CreateRequest) -> (Class, String) {
    let options = CreateOptions {
        name: "refused".to_owned(),
        platform: None,
    };
    let error = engine.create(options, request).await.unwrap_err();
    (error.class, error.message)
}

fn data(root: &Root, name: &str) -> PathBuf {
    root.config.volumes_dir().join(name).join("_data")
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn map(pairs: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Some(pairs.iter().map(owned).collect())
}

async fn listed(engine: &Engine, filters: &str) -> Result<Vec<String>, (Class, String)> {
    let filters = Filters::parse(filters).unwrap();
    match engine.volumes_list(&VolumeListOptions { filters }).await {
        Ok(list) => Ok(list.volumes.into_iter().map(|volume| volume.name).collect()),
        Err(error) => Err((error.class, error.message)),
    }
}

/// A refused create: name, driver, options, and what it is refused with.
type Refused = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    Class,
    &'static str,
);

/// Recorded from dockerd 28.5.2: `POST /v1.51/volumes/create` with these names and options.
#[rustfmt::skip]
const REFUSED: &[Refused] = &[
    ("a", "", &[], Class::InvalidParameter, "create a: volume name is too short, names should be at least two alphanumeric characters"),
    ("a/b", "", &[], Class::InvalidParameter, "create a/b: \"a/b\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"),
    ("-ab", "", &[], Class::InvalidParameter, "create -ab: \"-ab\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"),
    ("/ab", "", &[], Class::InvalidParameter, "create /ab: \"/ab\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"),
    ("..", "", &[], Class::InvalidParameter, "create ..: \"..\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"),
    ("rv2", "nope", &[], Class::NotFound, "create rv2: error looking up volume plugin nope: plugin \"nope\" not found"),
    ("rv3", "local", &[("type", "tmpfs")], Class::InvalidParameter, "create rv3: missing required option: \"device\""),
    ("rv3", "", &[("device", "tmpfs")], Class::InvalidParameter, "create rv3: missing required option: \"type\""),
    ("rv3", "", &[("o", "x")], Class::InvalidParameter, "create rv3: missing required option: \"device\""),
    ("rv3", "", &[("foo", "bar")], Class::InvalidParameter, "create rv3: invalid option: \"foo\""),
    ("rv3", "", &[("TYPE", "tmpfs"), ("device", "x")], Class::InvalidParameter, "create rv3: invalid option: \"TYPE\""),
    ("rv3", "", &[("size", "1m")], Class::InvalidParameter, "create rv3: quota size requested but no quota support"),
];

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_refused_as_by_dockerd() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    for (name, driver, options, class, message) in REFUSED {
        let request = volume::CreateRequest {
            name: (*name).to_owned(),
            driver: (*driver).to_owned(),
            driver_opts: map(options),
            labels: None,
        };
        let error = engine.volume_create(request).await.unwrap_err();
        assert_eq!(
            (error.class, error.message.as_str()),
            (*class, *message),
            "{name}"
        );
    }
    let long = volume::CreateRequest {
        name: "x".repeat(300),
        ..Default::default()
    };
    let error = engine.volume_create(long).await.unwrap_err();
    assert_eq!(error.class, Class::Internal);
    assert!(
        error.message.ends_with(": file name too long"),
        "{}",
        error.message
    );
    let nfs = volume::CreateRequest {
        name: "nfs".to_owned(),
        driver_opts: map(&[("type", "nfs"), ("device", ":/x"), ("o", "addr=192.0.2.1")]),
        ..Default::default()
    };
    assert_eq!(
        engine.volume_create(nfs).await.unwrap_err().class,
        Class::NotImplemented
    );
    assert_eq!(listed(&engine, "").await.unwrap(), Vec::<String>::new());
    assert_eq!(names(&root.config.volumes_dir()), Vec::<String>::new());
}

#[rustfmt::skip]
async fn check_lists(engine: &Engine, anonymous: &str) {
    let some = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
    let wrong = |text: &str| Err((Class::InvalidParameter, text.to_owned()));
    let all = some(&[anonymous, "rv1", "rv4"]);
    for (filters, expected) in [
        ("", all.clone()),
        (r#"{"driver":["local"]}"#, all),
        (r#"{"driver":["loc"]}"#, some(&[])),
        (
            r#"{"dangling":["1"]}"#,
            some(&[anonymous, "rv4"]),
        ),
        (r#"{"dangling":["false"]}"#, some(&["rv1"])),
        (
            r#"{"dangling":["x"]}"#,
            wrong("invalid filter 'dangling=[x]'"),
        ),
        (
            r#"{"dangling":["true","false"]}"#,
            wrong("invalid filter 'dangling=[false true]'"),
        ),
        (r#"{"foo":["x"]}"#, wrong("invalid filter 'foo'")),
        (r#"{"label!":["a"]}"#, wrong("invalid filter 'label!'")),
        (r#"{"name":["v4"]}"#, some(&["rv4"])),
        (r#"{"name":["^rv4$","rv1"]}"#, some(&["rv1", "rv4"])),
        (r#"{"label":["a","c"]}"#, some(&["rv4"])),
        (r#"{"label":["a=x"]}"#, some(&[])),
    ] {
        assert_eq!(listed(engine, filters).await, expected, "{filters}");
    }
}

/// Recorded from dockerd 28.5.2, as above.
#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_shown_listed_and_removed_as_by_dockerd() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let made = |name: &str, labels| volume::CreateRequest {
        name: name.to_owned(),
        labels,
        ..Default::default()
    };
    let plain = engine.volume_create(made("rv1", None)).await.unwrap();
    let mut shown = serde_json::to_value(&plain).unwrap();
    assert!(shown["CreatedAt"].as_str().unwrap().len() == "2026-11-22T13:28:55Z".len());
    shown["CreatedAt"] = serde_json::Value::Null;
    let expected = serde_json::json!({
        "CreatedAt": null, "Driver": "local", "Labels": null, "Mountpoint": data(&root, "rv1"),
        "Name": "rv1", "Options": null, "Scope": "local",
    });
    assert_eq!(shown, expected);
    let again = engine
        .volume_create(made("rv1", map(&[("a", "b")])))
        .await
        .unwrap();
    assert_eq!(again, plain, "the one that is there is answered as it is");
    let anonymous = engine.volume_create(made("", None)).await.unwrap();
    assert_eq!(
        anonymous.labels,
        map(&[("com.docker.volume.anonymous", "")])
    );
    engine
        .volume_create(made("rv4", map(&[("a", "b"), ("c", "")])))
        .await
        .unwrap();
    let id = create(&engine, "user", {
        let mut request = request(&["true"]);
        request.host_config.binds = Some(vec!["rv1:/x".to_owned(), "rv1:/y:ro".to_owned()]);
        request
    })
    .await;
    check_lists(&engine, &anonymous.name).await;
    let error = engine.volume_remove("rv1", true).await.unwrap_err();
    let text = format!("remove rv1: volume is in use - [{id}]");
    assert_eq!((error.class, error.message), (Class::Conflict, text));
    engine.remove("user", &WITH_VOLUMES).await.unwrap();
    engine.volume_remove("rv1", false).await.unwrap();
    let error = engine.volume_remove("rv1", false).await.unwrap_err();
    let text = "get rv1: no such volume".to_owned();
    assert_eq!((error.class, error.message), (Class::NotFound, text));
    engine.volume_remove("rv1", true).await.unwrap();
    assert_eq!(
        engine.volume_inspect("rv1").await.unwrap_err().class,
        Class::NotFound
    );
    assert_eq!(
        names(&root.config.volumes_dir()),
        [anonymous.name.as_str(), "rv4"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_of_other_containers_go_with_their_last_user() {
    if !common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = seeded(&root).await;
    let mut first = seeded_request(&["named:/data:ro"]);
    first.host_config.tmpfs = map(&[("/t", "size=1m")]);
    create(&engine, "first", first).await;
    let mut second = seeded_request(&[]);
    second.host_config.volumes_from = Some(vec!["first".to_owned()]);
    create(&engine, "second", second).await;
    let mounts = |name: &str| {
        let snapshot = engine.container(name).unwrap().snapshot();
        let mounts = snapshot.definition.mounts.iter();
        mounts
            .map(|point| {
                (
                    point.destination.clone(),
                    point.name.clone(),
                    point.mode.clone(),
                    point.rw,
                )
            })
            .collect::<Vec<_>>()
    };
    let theirs = mounts("first");
    let ours = mounts("second");
    let anonymous = theirs[0].1.clone();
    assert_eq!(
        ours[0],
        ("/anon".to_owned(), anonymous.clone(), String::new(), true)
    );
    assert_eq!(
        ours[1],
        ("/data".to_owned(), "named".to_owned(), String::new(), false)
    );
    engine.remove("first", &WITH_VOLUMES).await.unwrap();
    assert_eq!(
        names(&data(&root, &anonymous)),
        ["kept"],
        "the second still uses it"
    );
    engine.remove("second", &WITH_VOLUMES).await.unwrap();
    assert_eq!(listed(&engine, "").await.unwrap(), ["named"]);

    let mut nobody = seeded_request(&[]);
    nobody.host_config.volumes_from = Some(vec!["nope".to_owned()]);
    let text = "No such container: nope".to_owned();
    assert_eq!(
        refused(&engine, nobody).await,
        (Class::InvalidParameter, text)
    );
}

/// Recorded from dockerd 28.5.2: the order of events around `docker run --rm -v keep:/k`.
#[tokio::test(flavor = "multi_thread")]
async fn volumes_tell_what_happens_to_them() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let mut short = request(&["true"]);
    short.host_config.auto_remove = true;
    short.host_config.binds = Some(vec!["keep:/k:ro".to_owned()]);
    short.config.volumes = serde_json::from_str(r#"{"/anon":{}}"#).unwrap();
    let id = create(&engine, "short", short).await;
    let waiting = engine.wait("short", WaitCondition::Removed).unwrap();
    engine.start("short").await.unwrap();
    waiting.done().await;
    let events = common::events(&root);
    let told: Vec<String> = events
        .iter()
        .filter(|event| event["Type"] != "image" && event["Type"] != "network")
        .map(|event| {
            let whose = match event["Actor"]["ID"].as_str().unwrap() {
                "keep" => "keep",
                other if other == id => "it",
                _ => "anonymous",
            };
            format!("{} {}", event["Action"].as_str().unwrap(), whose)
        })
        .collect();
    let expected = [
        "create anonymous",
        "create keep",
        "create it",
        "mount anonymous",
        "mount keep",
        "start it",
        "unmount anonymous",
        "unmount keep",
        "die it",
        "destroy anonymous",
        "destroy it",
    ];
    assert_eq!(told, expected);
    let mount = events
        .iter()
        .find(|event| event["Action"] == "mount" && event["Actor"]["ID"] == "keep");
    let expected = serde_json::json!({
        "container": id, "destination": "/k", "driver": "local", "propagation": "", "read/write": "false",
    });
    assert_eq!(mount.unwrap()["Actor"]["Attributes"], expected);
}
