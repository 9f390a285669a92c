//! The daemon is killed at each step of a volume; the next one finds it empty or whole.

use super::*;

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

/// Tells the re-executed test binary which root to work on.
const ROOT: &str = "COOPER_TEST_ROOT";

/// Tells it the cgroup of that root.
const CGROUP: &str = "COOPER_TEST_CGROUP";

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
        .args(["--exact", "volumes::killed::victim", "--nocapture"])
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
