//! What a new daemon knows of an earlier one's execs, names and cgroups.

use api::exec::{ExecConfig, ExecStart};
use api::options::{StopOptions, WaitCondition};
use engine::Engine;

use crate::common::{self, create, eventually, request, running};

const DETACHED: ExecStart = ExecStart {
    detach: true,
    tty: false,
    console_size: None,
};

fn exec(words: &[&str]) -> ExecConfig {
    ExecConfig {
        cmd: Some(words.iter().map(|word| (*word).to_owned()).collect()),
        ..ExecConfig::default()
    }
}

/// Makes and starts an exec.
async fn begin(engine: &Engine, words: &[&str]) -> String {
    let id = engine.exec_create("box", exec(words)).await.unwrap();
    engine.exec_start(&id, &DETACHED).await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn execs_are_known_after_a_restart_and_their_codes_with_them() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let box_id = running(&engine, "box").await;
    let made = engine.exec_create("box", exec(&["true"])).await.unwrap();
    let before = begin(&engine, &["sh", "-c", "exit 3"]).await;
    let missing = engine.exec_create("box", exec(&["/nope"])).await.unwrap();
    engine.exec_start(&missing, &DETACHED).await.unwrap_err();
    let meanwhile = begin(
        &engine,
        &[
            "sh",
            "-c",
            "trap 'exit 5' TERM; while :; do sleep 0.01; done",
        ],
    )
    .await;
    let stays = begin(&engine, &["sleep", "1000"]).await;
    eventually("the short one has ended", || {
        engine.exec_inspect(&before).unwrap().exit_code == Some(3)
    })
    .await;
    let pids = [&meanwhile, &stays].map(|id| engine.exec_inspect(id).unwrap().pid);
    eventually("its trap is set", || catches(pids[0], 15)).await;
    engine.shutdown().await.unwrap();
    drop(engine);
    sys::process::kill(u32::try_from(pids[0]).unwrap(), 15).unwrap();
    let record = root
        .config
        .run_dirs()
        .join(&box_id)
        .join(format!("exec-{meanwhile}.json"));
    eventually("its end is recorded", || record.exists()).await;

    let engine = root.reopen().await;
    eventually("the end that nobody saw is told", || {
        engine.exec_inspect(&meanwhile).unwrap().exit_code == Some(5)
    })
    .await;
    let known = |id: &str| {
        let inspected = engine.exec_inspect(id).unwrap();
        (inspected.running, inspected.exit_code)
    };
    assert_eq!(known(&before), (false, Some(3)));
    assert_eq!(known(&missing), (false, Some(127)));
    assert_eq!(known(&made), (false, None));
    assert_eq!(known(&stays), (true, None));
    assert_eq!(engine.exec_inspect(&stays).unwrap().pid, pids[1]);
    let words = engine.exec_inspect(&stays).unwrap().process_config;
    assert_eq!(
        (words.entrypoint.as_str(), words.arguments),
        ("sleep", vec!["1000".to_owned()])
    );
    check_starts(&engine, &before, &made).await;
    let now = StopOptions {
        signal: None,
        timeout_seconds: Some(0),
    };
    engine.stop("box", &now).await.unwrap();
    eventually("an exec ends with its container", || {
        known(&stays) == (false, Some(137))
    })
    .await;
    engine.remove("box", &crate::common::FORCE).await.unwrap();
    root.assert_clean();
    engine.shutdown().await.unwrap();
}

/// An exec that has run does not run again, and one that was only made does.
async fn check_starts(engine: &Engine, before: &str, made: &str) {
    engine.exec_start(before, &DETACHED).await.unwrap_err();
    engine.exec_start(made, &DETACHED).await.unwrap();
    eventually("the one that waited ran", || {
        engine.exec_inspect(made).unwrap().exit_code == Some(0)
    })
    .await;
}

/// Whether a process has a handler for a signal.
fn catches(pid: i64, signal: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_was_never_saved_ends_in_whatever_cgroup_it_is() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let parent = format!("{}-own", root.config.cgroup_parent);
    let mut own = request(&["sleep", "1000"]);
    own.host_config.cgroup_parent = parent.clone();
    let id = create(&engine, "own", own).await;
    engine.start("own").await.unwrap();
    assert_eq!(runtime::cgroup::list(&parent), std::slice::from_ref(&id));
    let init = engine
        .container("own")
        .unwrap()
        .snapshot()
        .facts
        .pid
        .unwrap();
    engine.shutdown().await.unwrap();
    drop(engine);
    let db = db::Db::open(&root.config.data_root.join("cooper.db")).unwrap();
    let unsaved = "UPDATE container_states SET phase = 'ready' WHERE phase = 'running'";
    let rows = db.write::<_, db::Error>(|transaction| Ok(transaction.execute(unsaved, [])?));
    assert_eq!(rows.unwrap(), 1);
    drop(db);
    let engine = root.reopen().await;
    assert_eq!(runtime::cgroup::list(&parent), Vec::<String>::new());
    assert!(!std::path::Path::new(&format!("/proc/{init}/root/bin")).exists());
    engine.remove("own", &crate::common::FORCE).await.unwrap();
    root.assert_clean();
    engine.shutdown().await.unwrap();
    crate::common::remove_parent(&parent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_its_name_beside_its_data_too() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let id = create(&engine, "one", request(&["true"])).await;
    create(&engine, "other", request(&["true"])).await;
    let name = || crate::common::saved_name(&root, &id);
    assert_eq!(name(), "one");
    engine.rename("one", "two").await.unwrap();
    assert_eq!(name(), "two");
    engine.rename("two", "other").await.unwrap_err();
    assert_eq!(name(), "two");
    let renames = (0..8).map(|number| {
        let (engine, id) = (engine.clone(), id.clone());
        tokio::spawn(async move { engine.rename(&id, &format!("name{number}")).await })
    });
    for rename in renames.collect::<Vec<_>>() {
        rename.await.unwrap().unwrap();
    }
    assert_eq!(*engine.container(&id).unwrap().snapshot().name, *name());
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_tells_of_its_volumes_and_its_network_as_dockerd_does() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let mut absent = request(&["/nope"]);
    absent.host_config.binds = Some(vec!["keep:/k".to_owned()]);
    let id = create(&engine, "absent", absent).await;
    engine.start("absent").await.unwrap_err();
    let mut removes_itself = request(&["/nope"]);
    removes_itself.host_config.auto_remove = true;
    removes_itself.host_config.binds = Some(vec!["keep:/k".to_owned()]);
    create(&engine, "gone", removes_itself).await;
    let waiting = engine.wait("gone", WaitCondition::Removed).unwrap();
    engine.start("gone").await.unwrap_err();
    waiting.done().await;
    let told = crate::common::events(&root);
    let told: Vec<String> = told
        .iter()
        .filter(|event| event["Type"] != "image")
        .map(|event| {
            format!(
                "{} {}",
                event["Type"].as_str().unwrap(),
                event["Action"].as_str().unwrap()
            )
        })
        .collect();
    let failed = ["volume mount", "network disconnect", "volume unmount"];
    let mut expected = vec!["volume create", "container create"];
    expected.extend(failed);
    expected.push("container create");
    expected.extend(failed);
    expected.push("container destroy");
    // As recorded from dockerd 28.5.2.
    assert_eq!(told, expected);
    engine.remove(&id, &crate::common::FORCE).await.unwrap();
    root.assert_clean();
    engine.shutdown().await.unwrap();
}

/// How a trigger keeps a row from being deleted, as a disk without room would.
const KEEP_ROWS: &str = "CREATE TRIGGER keep_rows BEFORE DELETE ON containers \
                         BEGIN SELECT RAISE(FAIL, 'no room'); END";

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_cannot_be_undone_is_undone_later_and_does_not_keep_its_name() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let db = db::Db::open(&root.config.data_root.join("cooper.db")).unwrap();
    let execute = |sql: &str| {
        db.write::<_, db::Error>(|transaction| Ok(transaction.execute_batch(sql)?))
            .unwrap();
    };
    let rows = || {
        db.read::<_, db::Error>(|connection| {
            Ok(
                connection.query_row("SELECT count(*) FROM containers", [], |row| {
                    row.get::<_, i64>(0)
                })?,
            )
        })
        .unwrap()
    };
    let mut broken = request(&["true"]);
    broken.config.volumes = serde_json::from_str(r#"{"/etc/plain":{}}"#).unwrap();
    let fail = async |broken| {
        let options = api::options::CreateOptions {
            name: "again".to_owned(),
            platform: None,
        };
        let error = engine.create(options, broken).await.unwrap_err();
        assert!(
            error
                .message
                .contains("cannot mount volume over existing file"),
            "{}",
            error.message
        );
    };
    // Nobody asks for it again.
    execute(KEEP_ROWS);
    fail(broken.clone()).await;
    assert_eq!(rows(), 1, "the row of a create that failed is stuck");
    execute("DROP TRIGGER keep_rows");
    eventually("it is undone later", || rows() == 0).await;
    // Somebody asks for the name at once.
    execute(KEEP_ROWS);
    fail(broken).await;
    execute("DROP TRIGGER keep_rows");
    create(&engine, "again", request(&["true"])).await;
    assert_eq!(rows(), 1);
    engine.remove("again", &crate::common::FORCE).await.unwrap();
    root.assert_clean();
    engine.shutdown().await.unwrap();
}
