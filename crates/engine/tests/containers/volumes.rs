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

/// Every crash point of volumes; a test compares the list with the sources.
pub(crate) const POINTS: &[&str] = &[
    "volume.claimed",
    "volume.deleted",
    "volume.directory",
    "volume.files",
    "volume.fill.attributes",
    "volume.fill.begun",
    "volume.fill.copied",
    "volume.fill.finished",
    "volume.fill.moved",
    "volume.fill.whole",
    "volume.ready",
    "volume.released",
    "volume.removing",
    "volume.tree_removed",
    "volume.used",
];

/// What the image has in `/data`.
const WHOLE: [&str; 6] = ["f", "fifo", "hard", "link", "null", "sub"];

const WITH_VOLUMES: RemoveOptions = RemoveOptions {
    force: true,
    volumes: true,
    link: false,
};

/// Tells the re-executed test binary which root to work on.
const ROOT: &str = "COOPER_TEST_ROOT";

/// Tells it the cgroup of that root.
const CGROUP: &str = "COOPER_TEST_CGROUP";

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
    if !common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = root.engine().await;
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
    if !common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = root.engine().await;
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
async fn a_new_volume_gets_the_images_directory_as_it_is() {
    if !common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = seeded(&root).await;
    let id = create(
        &engine,
        "copy",
        seeded_request(&["full:/data", "none:/data/sub:nocopy"]),
    )
    .await;
    let full = data(&root, "full");
    assert_eq!(names(&full), ["f", "fifo", "hard", "link", "null", "sub"]);
    let meta = |name: &str| std::fs::symlink_metadata(full.join(name)).unwrap();
    let look = |name: &str| {
        let meta = meta(name);
        (
            meta.permissions().mode() & 0o7777,
            meta.uid(),
            meta.gid(),
            meta.mtime(),
        )
    };
    let then = 981_173_106;
    assert_eq!(look(""), (0o2775, 12, 34, then));
    assert_eq!(look("sub"), (0o700, 5, 6, then));
    assert_eq!(look("f"), (0o4755, 5, 6, then));
    assert_eq!(look("sub/y"), (0o600, 5, 6, then));
    assert_eq!(look("link").3, then);
    assert_eq!(look("null").0, 0o666);
    assert!(meta("null").file_type().is_char_device() && meta("null").rdev() == 0x103);
    assert!(meta("fifo").file_type().is_fifo());
    assert_eq!(meta("hard").ino(), meta("f").ino(), "a hard link stays one");
    assert_eq!(
        std::fs::read_link(full.join("link")).unwrap(),
        Path::new("/etc/shadow")
    );
    assert_eq!(names(&data(&root, "none")), Vec::<String>::new());
    assert_eq!(names(full.parent().unwrap()), ["_data", "volume.json"]);

    // The anonymous one of the image: filled, shown, and removed with its container.
    let mounts = engine
        .container(&id)
        .unwrap()
        .snapshot()
        .definition
        .mounts
        .clone();
    let anonymous = mounts
        .iter()
        .find(|point| point.destination == "/anon")
        .unwrap();
    assert_eq!(
        anonymous.source,
        data(&root, &anonymous.name).to_str().unwrap()
    );
    assert_eq!(names(&data(&root, &anonymous.name)), ["kept"]);
    // What a volume has is never touched.
    std::fs::write(data(&root, "none").join("mine"), "mine").unwrap();
    create(&engine, "again", seeded_request(&["none:/data"])).await;
    assert_eq!(names(&data(&root, "none")), ["mine"]);
    for name in ["copy", "again"] {
        engine.remove(name, &WITH_VOLUMES).await.unwrap();
    }
    assert_eq!(listed(&engine, "").await.unwrap(), ["full", "none"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_image_leads_a_copy_out_of_itself() {
    if !common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = seeded(&root).await;
    for (name, destination) in [
        ("evil", "/evil"),
        ("absolute", "/absolute"),
        ("dots", "/data/../../../etc"),
        ("twice", "/evil/../absolute"),
    ] {
        let bind = format!("{name}:{destination}");
        create(&engine, name, seeded_request(&[&bind])).await;
        assert_eq!(names(&data(&root, name)), ["marker"], "{name}");
        engine.remove(name, &WITH_VOLUMES).await.unwrap();
    }
    // A link in the content stays a link.
    create(&engine, "link", seeded_request(&["content:/data"])).await;
    engine.remove("link", &WITH_VOLUMES).await.unwrap();
    // Files and loops are refused, and nothing is left of the container.
    let (class, message) = refused(&engine, seeded_request(&["other:/file"])).await;
    assert_eq!(class, Class::Internal);
    assert!(
        message.starts_with("source /") && message.ends_with("/merged/file is not directory"),
        "{message}"
    );
    let mut declared = seeded_request(&[]);
    declared.config.volumes = serde_json::from_str(r#"{"/data/f":{}}"#).unwrap();
    let (_, message) = refused(&engine, declared).await;
    let text = "cannot mount volume over existing file, file exists /";
    assert!(
        message.starts_with(text) && message.ends_with("/merged/data/f"),
        "{message}"
    );
    assert_eq!(
        refused(&engine, seeded_request(&["other:/loop"])).await.0,
        Class::Internal
    );
    root.assert_clean();
    let left = listed(&engine, r#"{"label":["com.docker.volume.anonymous"]}"#).await;
    assert_eq!(left.unwrap(), Vec::<String>::new());
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
    if !common::can_run() {
        return;
    }
    let root = Root::new();
    let engine = root.engine().await;
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

#[test]
fn the_list_of_crash_points_is_whole() {
    let mut found = Vec::new();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/volumes");
    for entry in std::fs::read_dir(sources).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for part in text.split("fault!(\"").skip(1) {
            found.push(part.split('"').next().unwrap().to_owned());
        }
    }
    found.sort();
    assert_eq!(found, POINTS);
}

/// The victim: makes, fills and removes volumes on the root of its parent. Runs only as a child.
#[test]
fn victim() {
    let Ok(root) = std::env::var(ROOT) else {
        return;
    };
    let root = PathBuf::from(root);
    let mut config = Config::new(&root.join("data"), &root.join("exec"), &common::cooper());
    // Engines of tests that run beside each other must not meet on one bridge.
    config.bridge.name = None;
    config.cgroup_parent = std::env::var(CGROUP).unwrap();
    config.pool_size = 0;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let engine = Engine::open(config)
            .await
            .unwrap_or_else(|e| panic!("{}", e.message));
        let acknowledge = |what: &str| std::fs::write(root.join(what), "").unwrap();
        let named = volume::CreateRequest {
            name: "named".to_owned(),
            ..Default::default()
        };
        engine.volume_create(named).await.unwrap();
        acknowledge("made");
        create(&engine, "victim", seeded_request(&["named:/data"])).await;
        acknowledge("created");
        engine.remove("victim", &WITH_VOLUMES).await.unwrap();
        acknowledge("removed");
        engine.volume_remove("named", false).await.unwrap();
        acknowledge("gone");
    });
}

async fn kill_at(root: &Root, point: &str) {
    #[expect(
        clippy::disallowed_methods,
        reason = "sys::command has no way to set the environment"
    )]
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "volumes::victim", "--nocapture"])
        .env(ROOT, root.directory.path())
        .env(CGROUP, &root.config.cgroup_parent)
        .env(sys::fault::VARIABLE, point)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let give_up = Instant::now() + common::PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > give_up {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{point}: the victim neither ended nor was killed");
        }
        tokio::time::sleep(common::LOOK_EVERY).await;
    };
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    assert_eq!(signal, Some(9), "{point}: {status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_at_any_step_leaves_volumes_empty_or_whole() {
    if !common::can_run() {
        return;
    }
    // The anonymous volume is filled first, then the named one, which has more to move.
    let passages = POINTS.iter().flat_map(|point| match *point {
        "volume.fill.moved" => vec![
            format!("{point}:1"),
            format!("{point}:2"),
            format!("{point}:4"),
        ],
        _ if point.starts_with("volume.fill") => vec![format!("{point}:1"), format!("{point}:2")],
        _ => vec![(*point).to_owned()],
    });
    for point in &passages.collect::<Vec<_>>() {
        let root = Root::new();
        let engine = seeded(&root).await;
        engine.shutdown().await.unwrap();
        drop(engine);

        kill_at(&root, point).await;
        let engine = root.reopen().await;
        let acknowledged = |what: &str| root.directory.path().join(what).exists();
        let container = engine.container("victim").is_ok();
        assert!(!container || !acknowledged("removed"), "{point}");
        let volumes = listed(&engine, "").await.unwrap();
        let has_named = volumes.iter().any(|name| name == "named");
        assert!(
            has_named || !acknowledged("made") || acknowledged("removed"),
            "{point}"
        );
        if has_named {
            let found = names(&data(&root, "named"));
            assert!(found.is_empty() || found == WHOLE, "{point}: {found:?}");
            assert_eq!(
                names(&root.config.volumes_dir().join("named")),
                ["_data", "volume.json"],
                "{point}"
            );
            if acknowledged("created") {
                assert_eq!(found, WHOLE, "{point}");
            }
        }
        check_next(&root, &engine, point).await;
        root.assert_clean();
    }
}

/// Whatever a crash left, the next container of the volume finds it whole, and then all can be removed.
async fn check_next(root: &Root, engine: &Engine, point: &str) {
    if engine.container("victim").is_ok()
        && let Err(error) = engine.remove("victim", &WITH_VOLUMES).await
    {
        // It was being removed already.
        assert!(
            matches!(error.class, Class::Conflict | Class::NotFound),
            "{point}: {}",
            error.message
        );
    }
    common::eventually("its container is gone", || {
        engine.container("victim").is_err()
    })
    .await;
    let volumes = listed(engine, "").await.unwrap();
    assert_eq!(
        names(&root.config.volumes_dir()),
        volumes,
        "{point}: rows and directories"
    );
    assert!(
        volumes.iter().all(|name| name == "named"),
        "{point}: {volumes:?}"
    );
    create(engine, "next", seeded_request(&["named:/data"])).await;
    let meta = std::fs::metadata(data(root, "named")).unwrap();
    assert_eq!(names(&data(root, "named")), WHOLE, "{point}");
    assert_eq!(
        (meta.mode() & 0o7777, meta.uid(), meta.gid()),
        (0o2775, 12, 34),
        "{point}"
    );
    engine.remove("next", &WITH_VOLUMES).await.unwrap();
    engine.volume_remove("named", false).await.unwrap();
    assert_eq!(
        listed(engine, "").await.unwrap(),
        Vec::<String>::new(),
        "{point}"
    );
    assert_eq!(
        names(&root.config.volumes_dir()),
        Vec::<String>::new(),
        "{point}"
    );
}
