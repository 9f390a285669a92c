//! What a container's task sets off: each effect runs beside it and comes back as an input.
//!
//! Effects that touch what a run consists of (launch, retire, destroy) follow one another in the order they
//! were decided; signals, freezing and timers wait for nobody.

use std::sync::Arc;
use std::time::Duration;

use shim::protocol::{ProcessId, Request};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::container::Container;
use crate::launch::{self, Launched};
use crate::open::Inner;
use crate::step::{Cause, Effect, Input, Refusal, Ticket};
use crate::volumes::Anonymous;
use crate::{adopt, files, refusal};

/// Sets off the effects of one container.
pub(crate) struct Effects {
    engine: Arc<Inner>,
    container: Arc<Container>,
    /// Resolves when the last effect on the run's parts is over.
    previous: Option<oneshot::Receiver<()>>,
    /// Ends the launch under way.
    abort: CancellationToken,
    /// Resolves when the last launch and what was watched of it, or what was adopted, is over.
    launched: Option<oneshot::Receiver<()>>,
}

impl Effects {
    pub(crate) fn new(engine: &Arc<Inner>, container: &Arc<Container>) -> Self {
        Self {
            engine: engine.clone(),
            container: container.clone(),
            previous: None,
            abort: CancellationToken::new(),
            launched: None,
        }
    }

    /// Sets one effect off. `Answer` and `ReleaseName` are the task's own and do nothing here.
    pub(crate) fn run(&mut self, effect: Effect) {
        match effect {
            Effect::Launch { run, cause } => self.launch(run, cause),
            Effect::Abort { .. } => self.abort(),
            Effect::Signal {
                run,
                signal,
                thaw,
                ticket,
            } => self.signal(run, signal, thaw, ticket),
            Effect::Force { run } => self.force(run),
            Effect::Freeze { run } => {
                let (container, began_ns) = (self.container.clone(), self.began_ns());
                self.engine.spawn(async move {
                    let failed = Refusal::FreezeFailed;
                    let result = ask(&container, began_ns, &Request::Pause, failed).await;
                    container.tell(Input::Frozen { run, result }).await;
                });
            }
            Effect::Thaw { run, doubtful } => self.thaw(run, doubtful),
            Effect::Timer { timer, after } => self.again(Input::Elapsed { timer }, after),
            Effect::Retire { .. } => self.retire(),
            Effect::Destroy { volumes } => self.destroy(anonymous(volumes)),
            Effect::Answer(..) | Effect::ReleaseName(_) => {}
        }
    }

    /// Hands `input` to the task after a time.
    pub(crate) fn again(&self, input: Input, after: Duration) {
        let container = self.container.clone();
        self.engine.spawn(async move {
            tokio::time::sleep(after).await;
            container.tell(input).await;
        });
    }

    /// Waits for the end of the effect before, and makes the next one wait for the returned sender.
    fn in_order(&mut self) -> (impl Future<Output = ()> + Send + use<>, oneshot::Sender<()>) {
        let (done, over) = oneshot::channel();
        let previous = self.previous.replace(over);
        let turn = async move {
            if let Some(previous) = previous {
                // An effect that panicked is over too.
                previous.await.unwrap_or(());
            }
        };
        (turn, done)
    }

    fn launch(&mut self, run: u64, cause: Cause) {
        let (turn, done) = self.in_order();
        let (engine, container) = (self.engine.clone(), self.container.clone());
        self.abort = CancellationToken::new();
        let abort = self.abort.clone();
        let (over, launched) = oneshot::channel::<()>();
        let last = self.launched.replace(launched);
        self.engine.spawn(async move {
            // Dropped at the end, whatever that is.
            let _over = over;
            turn.await;
            let launching = launch::launch(&engine, &container, last, &abort);
            let launched = match cause {
                Cause::Boot => in_turn(&engine.boot_launches, &abort, launching).await,
                Cause::Start | Cause::Restart | Cause::Policy => launching.await,
            };
            drop(done);
            match launched {
                Ok(Launched {
                    pid,
                    at_ns,
                    shim,
                    network,
                }) => {
                    let launched = Input::Launched {
                        run,
                        pid,
                        at_ns,
                        network,
                    };
                    container.tell(launched).await;
                    tokio::select! {
                        () = adopt::watch(&engine, &container, run, Some(shim)) => {}
                        () = abort.cancelled() => {
                            launch::undo(&engine, container.id()).await;
                            // The task may have seen the launch before it thought of the abort.
                            adopt::tell_lost(&container, run).await;
                        }
                    }
                }
                Err(failure) => {
                    container.attaching.end();
                    container.tell(Input::LaunchFailed { run, failure }).await;
                }
            }
        });
    }

    /// Ends the launch under way, or the run that it has become. What comes next on the run's parts waits until
    /// nothing is left of it.
    fn abort(&mut self) {
        self.abort.cancel();
        if let Some(launched) = self.launched.take() {
            let (turn, done) = self.in_order();
            self.engine.spawn(async move {
                turn.await;
                launched.await.unwrap_or(());
                drop(done);
            });
        }
    }

    /// Watches a run that another daemon launched; without a shim, looks for it first.
    pub(crate) fn adopt(&mut self, run: u64, shim: Option<launch::Shim>) {
        let (engine, container) = (self.engine.clone(), self.container.clone());
        let (over, launched) = oneshot::channel::<()>();
        self.launched = Some(launched);
        self.engine.spawn(async move {
            let _over = over;
            adopt::watch(&engine, &container, run, shim).await;
        });
    }

    /// When the run began that the effects of this turn are for: its snapshot is shown already.
    fn began_ns(&self) -> i64 {
        self.container.snapshot().facts.started_at_ns
    }

    fn signal(&self, run: u64, signal: i32, thaw: bool, ticket: Option<Ticket>) {
        let (container, began_ns) = (self.container.clone(), self.began_ns());
        self.engine.spawn(async move {
            let kill = Request::Kill {
                process: ProcessId::Init,
                signal,
                all: false,
            };
            let result = ask(&container, began_ns, &kill, Refusal::SignalFailed).await;
            container
                .tell(Input::Signalled {
                    run,
                    ticket,
                    result,
                })
                .await;
            if thaw {
                let result = ask(&container, began_ns, &Request::Resume, Refusal::ThawFailed).await;
                container.tell(Input::Thawed { run, result }).await;
            }
        });
    }

    /// What a freeze that failed has left is seen in the cgroup: the shim may not know it, or not answer.
    fn thaw(&self, run: u64, doubtful: bool) {
        let (engine, container) = (self.engine.clone(), self.container.clone());
        let began_ns = self.began_ns();
        self.engine.spawn(async move {
            let result = match doubtful && !launch::is_frozen(&engine, &container).await {
                true => Err(Refusal::NotPaused),
                false => ask(&container, began_ns, &Request::Resume, Refusal::ThawFailed).await,
            };
            container.tell(Input::Thawed { run, result }).await;
        });
    }

    /// Without the shim: that may hang, and cannot be waited for. Its end is the end of the run.
    fn force(&self, run: u64) {
        let (engine, container) = (self.engine.clone(), self.container.clone());
        self.engine.spawn(async move {
            if let Err(error) = launch::force(&engine, &container, run).await {
                tracing::error!(container = %container.id().short(), error = %error.message, "kill a container without its shim");
            }
        });
    }

    fn retire(&mut self) {
        let (turn, done) = self.in_order();
        let (engine, container) = (self.engine.clone(), self.container.clone());
        self.engine.spawn(async move {
            turn.await;
            launch::retire(&engine, &container).await;
            drop(done);
        });
    }

    pub(crate) fn destroy(&mut self, anonymous: Anonymous) {
        let (turn, done) = self.in_order();
        let (engine, container) = (self.engine.clone(), self.container.clone());
        self.engine.spawn(async move {
            turn.await;
            let (destroying, of) = (engine.clone(), container.clone());
            let result = engine
                .blocking_then_drop(move || {
                    // A start that was given up may be making them; none begins to any more.
                    let _parts = of.parts();
                    let remains = files::destroy(&destroying, of.id(), anonymous)?;
                    Ok(((), remains))
                })
                .await
                .map_err(|error| error.message);
            container.attaching.end();
            drop(done);
            container.tell(Input::Destroyed { result }).await;
        });
    }
}

/// Launches when it has one of the turns: all containers of a machine want to start at once. One that is interrupted
/// does not wait.
async fn in_turn<T>(
    turns: &Semaphore,
    abort: &CancellationToken,
    launch: impl Future<Output = T>,
) -> T {
    let _turn = tokio::select! {
        turn = turns.acquire() => turn.ok(),
        () = abort.cancelled() => None,
    };
    launch.await
}

/// What becomes of the anonymous volumes of a container that is removed with this flag.
pub(crate) fn anonymous(volumes: bool) -> Anonymous {
    match volumes {
        true => Anonymous::Remove,
        false => Anonymous::Keep,
    }
}

/// Asks the shim of the run that began then: whatever waits for nobody may come late.
async fn ask(
    container: &Container,
    began_ns: i64,
    request: &Request,
    failed: impl FnOnce(String) -> Refusal,
) -> Result<(), Refusal> {
    match container.shim().call_run(began_ns, request).await {
        Ok(_) => Ok(()),
        Err(error) => Err(refusal::of_shim(&error, failed)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Under way now, and at most at once.
    #[derive(Default)]
    struct Counted {
        now: AtomicUsize,
        most: AtomicUsize,
    }

    impl Counted {
        async fn launch(&self) {
            let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(now, Ordering::Relaxed);
            tokio::task::yield_now().await;
            self.now.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_few_launch_at_a_time() {
        let (turns, counted) = (Arc::new(Semaphore::new(3)), Arc::new(Counted::default()));
        let mut launches = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (turns, counted) = (turns.clone(), counted.clone());
            launches.spawn(async move {
                in_turn(&turns, &CancellationToken::new(), counted.launch()).await;
            });
        }
        launches.join_all().await;
        assert_eq!(counted.most.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn an_interrupted_launch_waits_for_no_turn() {
        let turns = Semaphore::new(0);
        let abort = CancellationToken::new();
        abort.cancel();
        in_turn(&turns, &abort, async {}).await;
    }
}
