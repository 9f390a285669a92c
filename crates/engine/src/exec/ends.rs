//! The ends of execs, told by the shim or found by a daemon that adopts their container.

use std::sync::Arc;
use std::time::Instant;

use shim::protocol::{self, ProcessId, Request};
use tokio::sync::watch;

use super::{Exec, Phase, files, lock};
use crate::container::Container;
use crate::open::Inner;

/// Makes the execs of a container known that an earlier daemon made, and no others; `running` are those that the shim
/// has and whose end nobody was told. Their ends are told by the watch of the shim.
pub(crate) async fn adopt(
    engine: &Arc<Inner>,
    container: &Arc<Container>,
    running: &[protocol::ExecState],
) {
    let (reading, id) = (container.clone(), container.id().clone());
    let found = engine.blocking(move || {
        let run_dir = reading.shim().run_dir();
        let found = files::all(run_dir).into_iter();
        let with_exit = found.map(|(exec, config)| {
            let exit = files::read_exit(run_dir, &id, &exec);
            (exec, config, exit)
        });
        Ok(with_exit.collect::<Vec<_>>())
    });
    for (id, config, exit) in found.await.unwrap_or_default() {
        if engine.execs.find(&id).is_some() {
            continue;
        }
        let phase = match (running.iter().find(|known| known.id == id), exit) {
            (Some(known), _) => Phase::Running { pid: known.pid },
            (None, Some(code)) => Phase::Exited {
                code,
                pid: 0,
                at: Instant::now(),
            },
            (None, None) => Phase::Created,
        };
        let exec = Arc::new(Exec {
            id,
            container: container.clone(),
            config,
            made: Instant::now(),
            phase: watch::Sender::new(phase),
        });
        engine.execs.insert(&exec);
        if exit.is_some() && !matches!(phase, Phase::Running { .. }) {
            lock(&container.execs.0).remove(&exec.id);
        }
    }
}

/// An exec of this container has ended; its record stays as long as the exec is remembered.
pub(crate) async fn exited(
    engine: &Arc<Inner>,
    container: &Arc<Container>,
    exec_id: &str,
    code: i32,
) {
    if let Some(exec) = engine.execs.find(exec_id) {
        ended(engine, &exec, code);
        // Its client is told before its shim is thanked.
        tokio::task::yield_now().await;
    }
    let acknowledge = Request::Acknowledge {
        process: ProcessId::Exec(exec_id.to_owned()),
    };
    if let Err(error) = container.shim().call(&acknowledge).await {
        tracing::debug!(exec_id, %error, "acknowledge an exec's exit");
    }
}

/// The shim of this container is gone, and its execs with it; `code` is for those that left no record.
pub(crate) async fn all_lost(engine: &Arc<Inner>, container: &Arc<Container>, code: i32) {
    for id in container.execs.ids() {
        let Some(exec) = engine.execs.find(&id) else {
            continue;
        };
        if *exec.phase.borrow() == Phase::Created {
            continue;
        }
        let reading = exec.clone();
        let recorded = engine.blocking(move || {
            let container = reading.container.id();
            Ok(files::read_exit(reading.run_dir(), container, &reading.id))
        });
        let recorded = recorded.await.unwrap_or_default();
        ended(engine, &exec, recorded.unwrap_or(code));
    }
}

fn ended(engine: &Arc<Inner>, exec: &Exec, code: i32) {
    exec.end(code);
    let attributes = [("execID", exec.id.clone()), ("exitCode", code.to_string())];
    engine.journal_container(&exec.container, "exec_die", &attributes);
}
