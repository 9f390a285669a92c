//! Execs and attached clients, on a real engine with network none.

use crate::common::FORCE;
use crate::common::{self, Root, create, eventually, finish, request, running};
use api::exec::{ExecConfig, ExecStart};
use api::options::{AttachOptions, StopOptions, WaitCondition};
use engine::{Class, Engine};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn exec(words: &[&str]) -> ExecConfig {
    ExecConfig {
        cmd: Some(words.iter().map(|word| (*word).to_owned()).collect()),
        attach_stdout: true,
        attach_stderr: true,
        ..ExecConfig::default()
    }
}

/// The payload of Docker's framed stream, by stream.
fn unframe(mut bytes: &[u8]) -> (String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
        let length = usize::try_from(u32::from_be_bytes(head[4..].try_into().unwrap())).unwrap();
        let to = if head[0] == 1 {
            &mut stdout
        } else {
            &mut stderr
        };
        to.extend_from_slice(&rest[..length]);
        bytes = &rest[length..];
    }
    (
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

async fn output(engine: &Engine, config: ExecConfig) -> (String, String, i64) {
    let id = engine
        .exec_create("box", config)
        .await
        .unwrap_or_else(|e| panic!("{}", e.message));
    let started = engine
        .exec_start(&id, &ExecStart::default())
        .await
        .unwrap_or_else(|e| panic!("{}", e.message));
    let mut bytes = Vec::new();
    started
        .stream
        .unwrap()
        .read_to_end(&mut bytes)
        .await
        .unwrap();
    let inspect = || engine.exec_inspect(&id).unwrap();
    eventually("it has an exit code", || inspect().exit_code.is_some()).await;
    let (stdout, stderr) = unframe(&bytes);
    (stdout, stderr, inspect().exit_code.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn execs_run_beside_the_program() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let id = create(&engine, "box", request(&["sleep", "1000"])).await;
    let refused = engine
        .exec_create("box", exec(&["true"]))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.class, refused.message),
        (Class::Conflict, format!("container {id} is not running"))
    );
    engine.start("box").await.unwrap();
    assert_eq!(
        engine
            .exec_create("box", exec(&[]))
            .await
            .unwrap_err()
            .message,
        "No exec command specified"
    );
    assert_eq!(
        output(
            &engine,
            exec(&["sh", "-c", "echo out; echo err >&2; exit 3"])
        )
        .await,
        ("out\n".to_owned(), "err\n".to_owned(), 3)
    );
    let mut config = exec(&["sh", "-c", "echo $NAME $PATH; id -u"]);
    config.env = Some(vec!["NAME=value".to_owned()]);
    assert_eq!(output(&engine, config).await.0, "value /bin:/usr/bin\n0\n");

    let mut config = exec(&["cat"]);
    config.attach_stdin = true;
    let cat = engine.exec_create("box", config).await.unwrap();
    let mut stream = engine
        .exec_start(&cat, &ExecStart::default())
        .await
        .unwrap()
        .stream
        .unwrap();
    stream.write_all(b"through\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(unframe(&bytes).0, "through\n");
    let again = engine
        .exec_start(&cat, &ExecStart::default())
        .await
        .unwrap_err();
    assert_eq!(again.class, Class::Conflict);

    finish(&root, &engine, "box").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn execs_that_cannot_run_say_why() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    running(&engine, "box").await;
    let nope = engine.exec_create("box", exec(&["nope"])).await.unwrap();
    let failed = engine
        .exec_start(&nope, &ExecStart::default())
        .await
        .unwrap_err();
    assert!(
        failed
            .message
            .contains("exec: \"nope\": executable file not found in $PATH"),
        "{}",
        failed.message
    );
    assert_eq!(engine.exec_inspect(&nope).unwrap().exit_code, Some(127));

    engine.pause("box").await.unwrap();
    assert_eq!(
        engine
            .exec_create("box", exec(&["true"]))
            .await
            .unwrap_err()
            .message,
        "Container box is paused, unpause the container before exec"
    );
    engine.remove("box", &FORCE).await.unwrap();
    assert_eq!(
        engine.exec_inspect("no-such").unwrap_err().message,
        "No such exec instance: no-such"
    );
    root.assert_clean();
    engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_attached_before_the_start_misses_nothing() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    let mut interactive = request(&["sh", "-c", "echo first; cat"]);
    interactive.config.open_stdin = true;
    interactive.config.stdin_once = true;
    create(&engine, "box", interactive).await;
    let options = AttachOptions {
        stream: true,
        stdin: true,
        stdout: true,
        stderr: true,
        ..AttachOptions::default()
    };
    let attachment = engine.attach("box", &options).await.unwrap();
    let waiting = engine.wait("box", WaitCondition::NextExit).unwrap();
    let stream = tokio::spawn(attachment.stream());
    engine.start("box").await.unwrap();
    let mut stream = stream.await.unwrap().unwrap();
    stream.write_all(b"second\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(unframe(&bytes).0, "first\nsecond\n");
    assert_eq!(waiting.done().await.status_code, 0);

    let attachment = engine.attach("box", &options).await.unwrap();
    engine.remove("box", &FORCE).await.unwrap();
    assert!(
        attachment.stream().await.is_none(),
        "it will never be launched"
    );

    create(&engine, "box", request(&["nope"])).await;
    let attachment = engine.attach("box", &options).await.unwrap();
    assert!(engine.start("box").await.is_err());
    assert!(attachment.stream().await.is_none(), "its launch failed");
    let none = StopOptions::default();
    assert_eq!(
        engine.stop("box", &none).await.unwrap_err().class,
        Class::NotModified
    );
    finish(&root, &engine, "box").await;
}

/// Execs that somebody made and never started do not fill the daemon.
#[tokio::test(flavor = "multi_thread")]
async fn execs_that_wait_for_their_start_are_limited_and_the_oldest_goes() {
    let Some((root, engine)) = common::ready().await else {
        return;
    };
    running(&engine, "box").await;
    let started = engine.exec_create("box", exec(&["true"])).await.unwrap();
    let oldest = engine.exec_create("box", exec(&["true"])).await.unwrap();
    engine
        .exec_start(&started, &ExecStart::default())
        .await
        .unwrap();
    for _ in 0..1023 {
        engine.exec_create("box", exec(&["true"])).await.unwrap();
    }
    engine.exec_inspect(&oldest).unwrap();
    let newest = engine.exec_create("box", exec(&["true"])).await.unwrap();
    let gone = engine.exec_inspect(&oldest).unwrap_err();
    assert_eq!(gone.class, Class::NotFound, "{}", gone.message);
    // Neither the new one nor the one that was started.
    engine.exec_inspect(&newest).unwrap();
    engine.exec_inspect(&started).unwrap();
    finish(&root, &engine, "box").await;
}

/// A limit that is reached is said to be that, and not that the container does not run.
#[tokio::test(flavor = "multi_thread")]
async fn more_execs_than_a_shim_has_room_for_are_refused_with_its_words() {
    if !crate::common::can_run() {
        return;
    }
    const DETACHED: ExecStart = ExecStart {
        detach: true,
        tty: false,
        console_size: None,
    };
    let root = Root::new();
    let engine = root.engine().await;
    running(&engine, "box").await;
    for _ in 0..128 {
        let id = engine
            .exec_create("box", exec(&["sleep", "1000"]))
            .await
            .unwrap();
        engine.exec_start(&id, &DETACHED).await.unwrap();
    }
    let one_more = engine
        .exec_create("box", exec(&["sleep", "1000"]))
        .await
        .unwrap();
    let refused = engine.exec_start(&one_more, &DETACHED).await.unwrap_err();
    assert_eq!(
        (refused.class, refused.message.as_str()),
        (
            Class::Conflict,
            "the container has 128 exec processes already"
        )
    );
    finish(&root, &engine, "box").await;
}
