//! Taking over what runs: at the daemon's start, and from then on following each run to its end.
//!
//! A container is re-adopted through its shim's socket, never by a pid from a file: whoever answers there
//! with the container's id is its shim. An exit that nobody saw is in the exit record, which the shim wrote
//! before it told anyone and which stays until the exit is saved here.
//!
//! Only a socket that nobody listens on means a dead shim, and only then its container is killed. A shim that
//! cannot be asked (it is slow, this daemon has no descriptor left) is asked again until it answers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shim::protocol::{
    self, EXIT_RECORD_NAME, ExitRecord, Notice, Phase as ShimPhase, ProcessId, Reply, Request,
};
use sys::clock::now_ns;
use tokio::task::JoinSet;

use crate::container::Container;
use crate::create::rules_of;
use crate::error::Chain;
use crate::launch::Shim;
use crate::open::Inner;
use crate::rows::{self, Phase, Row};
use crate::shim_client::{Connection, ShimError};
use crate::step::{Exit, Freeze, Input, Life, Removing, Running, State};
use crate::task::Task;
use crate::volumes::Anonymous;
use crate::{Error, effects, exec, files, launch, peer};

/// How long a shim may take to say who it is before it is asked again.
const ADOPTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The first pause before a shim that could not be asked is asked again; each further one is twice as long.
const ASK_AGAIN_FIRST: Duration = Duration::from_millis(100);

/// The longest such pause.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(10);

/// What a look for a container's shim finds.
enum Found {
    /// Its shim, and what that says of it.
    Shim(Connection, Box<protocol::State>),
    /// Nobody, or somebody who does not know the container.
    Nobody,
    /// Somebody is there, or may be; this is why nothing is known of him.
    Unclear(Error),
}

/// The exit code of a run whose end nobody saw, and of one whose processes were killed with its shim.
const EXIT_UNKNOWN: i32 = 137;

/// Makes every saved container known again. Containers in the making were never acknowledged: they go.
/// Answers the ids of those whose row cannot be read; nothing of theirs may be touched.
pub(crate) async fn restore(engine: &Arc<Inner>) -> Result<Vec<String>, Error> {
    let reading = engine.clone();
    let rows = engine.blocking(move || reading.db.read(rows::all)).await?;
    let mut adopting = JoinSet::new();
    let mut unread = Vec::new();
    for row in rows {
        let row = match row {
            Ok(row) => row,
            Err(rows::Unreadable { id, error }) => {
                engine.finding(format!("container {id} is left alone: {}", Chain(&error)));
                unread.push(id);
                continue;
            }
        };
        if row.phase == Phase::Creating {
            forget(engine, row).await?;
        } else {
            engine.index.claim(&row.name, &row.definition.id)?;
            adopting.spawn(adopt(engine.clone(), row));
        }
    }
    while let Some(adopted) = adopting.join_next().await {
        adopted.map_err(|source| Error::internal("adopt a container", source))?;
    }
    Ok(unread)
}

/// Tells every container that the daemon has started: restart policies decide.
pub(crate) async fn boot(engine: &Arc<Inner>) {
    for container in engine.index.all() {
        container.tell(Input::Boot).await;
    }
}

async fn forget(engine: &Arc<Inner>, row: Row) -> Result<(), Error> {
    let forgetting = engine.clone();
    engine
        .blocking(move || {
            let id = &row.definition.id;
            files::destroy(&forgetting, id, Anonymous::Remove)?;
            forgetting
                .db
                .write(|transaction| rows::delete(transaction, id))
        })
        .await
}

async fn adopt(engine: Arc<Inner>, row: Row) {
    let Row {
        name,
        definition,
        phase,
        facts,
    } = row;
    let id = definition.id.clone();
    let run = facts.run;
    let anonymous = effects::anonymous(facts.remove_volumes);
    let mut state = State::idle(rules_of(&definition), name, facts);
    let mut found = Found::Nobody;
    match phase {
        Phase::Creating | Phase::Ready => {}
        Phase::Removing => state.life = Life::Removing(Removing::default()),
        Phase::Running => {
            let mut running = Running::default();
            let look = identify(&engine, &id).await;
            let frozen = match &look {
                Found::Shim(_, answer) => answer.phase == ShimPhase::Paused,
                Found::Nobody => false,
                Found::Unclear(_) => state.facts.paused,
            };
            if frozen {
                running.freeze = Freeze::Frozen;
            }
            state.facts.paused = frozen;
            state.life = Life::Running(running);
            found = look;
        }
    }
    let (mut task, messages) = Task::new(&engine, definition, state);
    let container = task.container().clone();
    match (phase, found) {
        (Phase::Running, Found::Shim(connection, answer)) => {
            exec::ends::adopt(&engine, &container, &answer.execs).await;
            task.effects().adopt(run, Some(adopted(connection)));
        }
        (Phase::Running, Found::Unclear(error)) => {
            tell_unclear(&container, &error);
            task.effects().adopt(run, None);
        }
        (Phase::Running, Found::Nobody) => {
            exec::ends::adopt(&engine, &container, &[]).await;
            let (engine, container) = (engine.clone(), container.clone());
            engine
                .clone()
                .spawn(async move { lost(&engine, &container, run).await });
        }
        (Phase::Removing, _) => task.effects().destroy(anonymous),
        (Phase::Creating | Phase::Ready, _) => {}
    }
    engine.index.insert(container);
    engine.spawn(task.run(messages));
}

/// A shim that another daemon started.
fn adopted(connection: Connection) -> Shim {
    Shim {
        connection,
        child: None,
        parked: None,
    }
}

fn tell_unclear(container: &Container, error: &Error) {
    tracing::warn!(container = %container.id().short(), %error, "its shim is asked again");
}

/// Connects to a container's shim and makes sure that it is this container's and has begun.
async fn identify(engine: &Arc<Inner>, id: &crate::ContainerId) -> Found {
    let mut connection = match launch::address(engine, id).connect().await {
        Ok(connection) => connection,
        Err(ShimError::Io(error)) if peer::is_absence(&error) => return Found::Nobody,
        Err(error) => return Found::Unclear(error.into_error("connect to a shim")),
    };
    let asked = tokio::time::timeout(ADOPTION_TIMEOUT, connection.call(&Request::State)).await;
    match asked.unwrap_or(Err(ShimError::Timeout)) {
        Ok(Reply::State(state)) if state.id == id.as_str() => match state.phase {
            ShimPhase::Running | ShimPhase::Paused | ShimPhase::Exited => {
                Found::Shim(connection, state)
            }
            ShimPhase::Idle | ShimPhase::Created => Found::Nobody,
        },
        Ok(Reply::State(state)) => {
            tracing::warn!(container = %id.short(), ?state, "whoever listens there is not its shim");
            Found::Nobody
        }
        Ok(other) => Found::Unclear(ShimError::unexpected(&other).into_error("ask a shim")),
        Err(error) => Found::Unclear(error.into_error("ask a shim")),
    }
}

/// A run whose shim is looked after: once nobody does, however that came, its process is let go.
struct Watched<'a> {
    container: &'a Container,
    run: u64,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.container.forget_shim_process(self.run);
    }
}

/// Follows a run to its end and tells the container's task what happens. When the connection breaks, or there
/// is none yet, its shim is looked for; a shim that has ended before its container is a lost one, and the
/// container is killed.
pub(crate) async fn watch(
    engine: &Arc<Inner>,
    container: &Arc<Container>,
    run: u64,
    mut shim: Option<Shim>,
) {
    let _watched = Watched { container, run };
    // Reaped when this is over.
    let mut child = None;
    let mut pause = ASK_AGAIN_FIRST;
    loop {
        if let Some(mut followed) = shim.take() {
            match followed.process() {
                Ok(process) => container.set_shim_process(run, process),
                // It has just ended, and that is seen below.
                Err(error) => {
                    tracing::debug!(container = %container.id().short(), %error, "the process of its shim")
                }
            }
            child = followed.child.take().or(child);
            if follow(engine, container, run, &mut followed.connection).await {
                followed.child = child;
                launch::end(followed).await;
                // What outlived the init and its shim (one in the host's process namespace can) is gone from sight.
                return exec::ends::all_lost(engine, container, EXIT_UNKNOWN).await;
            }
        }
        match identify(engine, container.id()).await {
            Found::Nobody => break,
            Found::Shim(connection, answer) => {
                exec::ends::adopt(engine, container, &answer.execs).await;
                shim = Some(adopted(connection));
            }
            Found::Unclear(error) => tell_unclear(container, &error),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(ASK_AGAIN_MAX);
    }
    tracing::error!(container = %container.id().short(), "its shim is gone: it is killed");
    lost(engine, container, run).await;
}

/// True when the exit was told.
async fn follow(
    engine: &Arc<Inner>,
    container: &Arc<Container>,
    run: u64,
    connection: &mut Connection,
) -> bool {
    let mut exited = false;
    match connection.call(&Request::Watch).await {
        Ok(Reply::State(state)) => {
            for ended in state.execs {
                if let Some(exit) = ended.exit {
                    exec::ends::exited(engine, container, &ended.id, exit.code).await;
                }
            }
            if let Some(exit) = state.exit {
                exited = true;
                tell_exit(container, run, exit).await;
            }
        }
        Ok(other) => {
            tracing::error!(container = %container.id().short(), ?other, "unexpected answer of its shim");
            return false;
        }
        Err(error) => {
            tracing::debug!(container = %container.id().short(), %error, "watch its shim");
            return false;
        }
    }
    loop {
        match connection.notice().await {
            Ok(Some(Notice::Exited { process, exit })) => match process {
                ProcessId::Init => {
                    exited = true;
                    tell_exit(container, run, exit).await;
                }
                ProcessId::Exec(id) => exec::ends::exited(engine, container, &id, exit.code).await,
            },
            Ok(Some(Notice::RecordFailed { message })) => {
                tracing::warn!(container = %container.id().short(), message, "an exit is not recorded");
            }
            Ok(Some(Notice::OutOfMemory)) => container.tell(Input::OutOfMemory { run }).await,
            Ok(Some(Notice::LogFailed { message })) => {
                tracing::warn!(container = %container.id().short(), message, "its log cannot be written");
            }
            Ok(None) => return exited,
            Err(error) => {
                tracing::debug!(container = %container.id().short(), %error, "watch its shim");
                return exited;
            }
        }
    }
}

async fn tell_exit(container: &Container, run: u64, exit: protocol::Exit) {
    let exit = Exit {
        code: exit.code,
        oom_killed: exit.oom_killed,
        at_ns: exit.at_ns,
    };
    container.tell(Input::Exited { run, exit }).await;
}

/// Ends a run that has no shim any more, and tells how it ended as far as anybody knows, as soon as nothing of it runs:
/// what is left of it then goes with the run. As long as it cannot be killed it counts as running: what is started over
/// it would have its files twice.
async fn lost(engine: &Arc<Inner>, container: &Arc<Container>, run: u64) {
    // Their clients have seen the end of the output, and ask for the code next.
    let execs = exec::ends::all_lost(engine, container, EXIT_UNKNOWN);
    match tokio::join!(execs, killed(engine, container)).1 {
        Some(exit) => tell_exit(container, run, exit).await,
        None => tell_lost(container, run).await,
    }
}

/// Kills every process of a container, until there is none; its exit, if that was recorded.
async fn killed(engine: &Arc<Inner>, container: &Arc<Container>) -> Option<protocol::Exit> {
    let mut pause = ASK_AGAIN_FIRST;
    loop {
        let parent = engine.cgroup_parent_of(container.id());
        let run_dir = container.shim().run_dir().to_owned();
        let id = container.id().clone();
        let killing = engine.blocking(move || {
            launch::empty_cgroup(&parent, id.as_str())?;
            Ok(read_record(&run_dir, id.as_str()))
        });
        match killing.await {
            Ok(recorded) => return recorded,
            Err(error) => {
                tracing::error!(container = %container.id().short(), error = %error.message, "kill a container without a shim");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(ASK_AGAIN_MAX);
    }
}

/// Tells that a run is over whose end nobody saw.
pub(crate) async fn tell_lost(container: &Container, run: u64) {
    let exit = protocol::Exit {
        code: EXIT_UNKNOWN,
        oom_killed: false,
        at_ns: now_ns(),
    };
    tell_exit(container, run, exit).await;
}

/// The exit record of a run directory, if it is there and this container's.
fn read_record(run_dir: &Path, id: &str) -> Option<protocol::Exit> {
    let bytes = std::fs::read(run_dir.join(EXIT_RECORD_NAME)).ok()?;
    let record: ExitRecord = serde_json::from_slice(&bytes).ok()?;
    (record.id == id && record.process == ProcessId::Init).then_some(record.exit)
}
