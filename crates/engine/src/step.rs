//! The life of one container as a pure function: no clock, no I/O, no lock, no async.
//!
//! ```text
//!              start            launched
//!   ┌──▶ Idle ─────────▶ Starting ─────────▶ Running ──┐ pause / unpause
//!   │     │ ▲              │  ▲  ▲             │  ▲     │ (Freeze: Thawed, Freezing, Frozen, Thawing)
//!   │     │ └──────────────┘  │  │ due         │  └─────┘
//!   │     │   launch failed   │  └── Waiting ◀─┤ exit, and the restart policy says again
//!   │     │                   └────────────────┤ exit, and a restart asked for it
//!   │     │ remove                        exit │
//!   │     ▼            exit, auto-remove       ▼
//!   │  Removing ◀──────────────────────────────●──▶ Idle
//!   │     │  └──▶ Dead (it could not be removed; remove tries again)
//!   │     ▼ destroyed
//!   └── Gone is the end: nothing leads out of it
//! ```
//!
//! `step(&State, now, Input)` answers a [`Step`]: the next state, what must be saved before anybody may see
//! it (the row and the events, one transaction), and the effects that then run *beside* the container's task
//! and come back as inputs. A request carries a [`Ticket`]; it is answered by exactly one
//! [`Effect::Answer`], now or (parked in the state's data) later. A stop is a signal and a timer, so a kill,
//! a forced removal or a second stop that comes meanwhile is decided at once.
//!
//! Every run has a number and every timer too: news of an older one changes nothing.

mod running;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::state::{Attached, Facts, Status};

/// Names a request until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

/// SIGKILL: the one signal that Docker waits for.
pub(crate) const SIGKILL: i32 = 9;

/// How long a killed container may take to die before whoever asked is told that it did not (moby waits 10 s).
pub(crate) const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// The first pause before the restart policy starts a container again (moby `restartmanager`).
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// The longest pause before the restart policy starts a container again.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// A run at least this long makes the pause the first one again.
pub(crate) const BACKOFF_RESET: Duration = Duration::from_secs(10);

/// When the restart policy starts a container again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// After every exit that no person asked for, and at boot.
    Always,
    /// As always, but not at boot after a person stopped it.
    UnlessStopped,
    /// After an exit code other than 0, at most `max` times (0: no limit).
    OnFailure {
        /// How often.
        max: u32,
    },
}

/// What of the definition decides the container's life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) restart: RestartPolicy,
    pub(crate) auto_remove: bool,
    pub(crate) stop_signal: i32,
    /// How long a stop waits before SIGKILL; `None`: for ever.
    pub(crate) stop_timeout: Option<Duration>,
}

/// One container: what it is allowed, what is known, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) rules: Rules,
    pub(crate) name: Arc<str>,
    pub(crate) facts: Facts,
    pub(crate) life: Life,
    /// Exits since this daemon knows the container.
    pub(crate) exits: u64,
    /// The last pause of the restart policy; zero: none since the last long run.
    pub(crate) backoff: Duration,
    /// The number of the last timer that was set.
    pub(crate) timers: u64,
}

/// Where a container stands; each variant owns what is only true there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It does not run: created, or exited.
    Idle,
    /// A launch is under way. Requests that must wait for its end are replayed then, in order.
    Starting {
        cause: Cause,
        /// Who waits for the start.
        tickets: Vec<Ticket>,
        queued: Vec<(Ticket, Request)>,
        /// Whether the launch was told to give up.
        aborted: bool,
    },
    /// The init runs, or is frozen.
    Running(Running),
    /// It has exited; a timer starts it again.
    Waiting { timer: u64 },
    /// The intent to remove it is saved; its parts are being destroyed.
    Removing(Removing),
    /// Destroying it failed; a remove tries again.
    Dead { reason: String },
    /// Nothing is left of it.
    Gone,
}

/// Why a container is being started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A start request.
    Start,
    /// A restart request: one more event when it runs.
    Restart,
    /// Its restart policy, after an exit.
    Policy,
    /// Its restart policy, at the daemon's start.
    Boot,
}

/// What is only true while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) freeze: Freeze,
    /// Who waits for the exit because of a stop: one `stop` event is due.
    pub(crate) stops: Vec<Ticket>,
    /// Who waits for the exit because of SIGKILL.
    pub(crate) kills: Vec<Ticket>,
    /// Who waits for the exit to have it started again.
    pub(crate) restarts: Vec<Ticket>,
    /// Who waits for the exit to have it removed.
    pub(crate) removes: Vec<Ticket>,
    /// Whether the removal takes the anonymous volumes too.
    pub(crate) volumes: bool,
    /// When the running stop turns to SIGKILL, or gives up after it.
    pub(crate) deadline: Option<Deadline>,
}

/// The timer of a stop or kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) timer: u64,
    pub(crate) at_ns: i64,
    /// SIGKILL was sent: what elapses is the patience.
    pub(crate) killed: bool,
}

/// Whether the cgroup is frozen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Freeze {
    #[default]
    Thawed,
    Freezing(Vec<Ticket>),
    Frozen,
    Thawing(Vec<Ticket>),
}

/// What is only true while it is being removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removing {
    pub(crate) removes: Vec<Ticket>,
    /// Starts that failed and whose container removes itself: they hear of it when it is gone.
    pub(crate) failed: Vec<(Ticket, Failure)>,
    pub(crate) volumes: bool,
}

/// What a client asks of a container's task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Start,
    Stop(Stop),
    Restart(Stop),
    Kill { signal: i32 },
    Pause,
    Unpause,
    Remove { force: bool, volumes: bool },
    Rename { name: Arc<str> },
}

/// How to stop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stop {
    /// Absent: the container's own.
    pub(crate) signal: Option<i32>,
    /// Absent: the container's own.
    pub(crate) timeout: Option<Timeout>,
}

/// How long a stop waits before SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timeout {
    Never,
    After(Duration),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    pub(crate) oom_killed: bool,
    pub(crate) at_ns: i64,
}

/// Why a start failed: Docker's exit code (125 to 128), text and class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit_code: i32,
    pub(crate) class: crate::Class,
    pub(crate) message: String,
}

/// Everything that can happen to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A client asks.
    Request(Ticket, Request),
    /// The daemon has started: the restart policy may want it to run.
    Boot,
    /// The launch of this run succeeded.
    Launched {
        run: u64,
        pid: u32,
        at_ns: i64,
        network: Option<Box<Attached>>,
    },
    /// The launch of this run failed and was undone.
    LaunchFailed { run: u64, failure: Failure },
    /// The init of this run has exited.
    Exited { run: u64, exit: Exit },
    /// The kernel killed a process of this run for memory.
    OutOfMemory { run: u64 },
    /// A signal was sent, or could not be.
    Signalled {
        run: u64,
        ticket: Option<Ticket>,
        result: Result<(), String>,
    },
    /// The cgroup of this run was frozen, or could not be.
    Frozen {
        run: u64,
        result: Result<(), String>,
    },
    /// The cgroup of this run was thawed, or could not be.
    Thawed {
        run: u64,
        result: Result<(), String>,
    },
    /// A timer is over.
    Elapsed { timer: u64 },
    /// Everything but the row is destroyed, or something could not be.
    Destroyed { result: Result<(), String> },
}

/// What runs beside the task, after the step's record is saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Answers a request.
    Answer(Ticket, Result<(), Refusal>),
    /// Starts a run; comes back as `Launched` or `LaunchFailed`.
    Launch { run: u64 },
    /// Makes the launch of this run fail soon.
    Abort { run: u64 },
    /// Sends a signal to the init and then thaws the cgroup if asked; comes back as `Signalled` (and `Thawed`).
    Signal {
        run: u64,
        signal: i32,
        thaw: bool,
        ticket: Option<Ticket>,
    },
    /// Comes back as `Frozen`.
    Freeze { run: u64 },
    /// Comes back as `Thawed`.
    Thaw { run: u64 },
    /// Comes back as `Elapsed`.
    Timer { timer: u64, after: Duration },
    /// The exit is saved: lets the shim go and removes what belonged to the run.
    Retire { run: u64 },
    /// Destroys everything but the row; comes back as `Destroyed`.
    Destroy { volumes: bool },
    /// Gives this name of the container back.
    ReleaseName(Arc<str>),
}

/// Why a request was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    AlreadyStarted,
    AlreadyStopped,
    NotRunning,
    Paused,
    AlreadyPaused,
    NotPaused,
    Restarting,
    /// It cannot be started because it is being removed.
    MarkedForRemoval,
    RemovalInProgress,
    /// It runs (or is paused, or restarting) and the removal has no force.
    StillRunning(Status),
    Gone,
    StartFailed(Failure),
    RemovalFailed(String),
    SignalFailed(String),
    FreezeFailed(String),
    ThawFailed(String),
    /// It did not die of SIGKILL within [`KILL_PATIENCE`].
    Unkillable,
    /// The change could not be saved, so it was not made.
    NotSaved(String),
}

/// One event for the journal, without what every event of the container has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Happening {
    pub(crate) action: &'static str,
    pub(crate) attributes: Vec<(&'static str, String)>,
}

/// What must be saved before the new state may be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Save {
    /// Nothing about the row.
    #[default]
    Nothing,
    /// The row, from the new state.
    Row,
    /// That the row is deleted.
    Delete,
}

/// The outcome of one input.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Step {
    pub(crate) state: State,
    pub(crate) save: Save,
    pub(crate) events: Vec<Happening>,
    pub(crate) effects: Vec<Effect>,
}

/// What a launch that succeeded has to tell.
struct Begun {
    pid: u32,
    at_ns: i64,
    network: Option<Box<Attached>>,
}

impl State {
    /// A container that does not run.
    pub(crate) fn idle(rules: Rules, name: Arc<str>, facts: Facts) -> Self {
        Self {
            rules,
            name,
            facts,
            life: Life::Idle,
            exits: 0,
            backoff: Duration::ZERO,
            timers: 0,
        }
    }

    /// What clients are told it does.
    pub(crate) fn status(&self) -> Status {
        match &self.life {
            Life::Idle | Life::Starting { .. } if self.facts.started_at_ns == 0 => Status::Created,
            Life::Idle => Status::Exited,
            Life::Starting { cause, .. } => match cause {
                Cause::Policy => Status::Restarting,
                Cause::Start | Cause::Restart | Cause::Boot => Status::Exited,
            },
            Life::Running(running) => match running.freeze {
                Freeze::Frozen | Freeze::Thawing(_) => Status::Paused,
                Freeze::Thawed | Freeze::Freezing(_) => Status::Running,
            },
            Life::Waiting { .. } => Status::Restarting,
            Life::Removing(_) => Status::Removing,
            Life::Dead { .. } => Status::Dead,
            Life::Gone => Status::Removing,
        }
    }

    /// Why removing it failed; empty otherwise.
    pub(crate) fn removal_error(&self) -> &str {
        match &self.life {
            Life::Dead { reason } => reason,
            Life::Idle
            | Life::Starting { .. }
            | Life::Running(_)
            | Life::Waiting { .. }
            | Life::Removing(_)
            | Life::Gone => "",
        }
    }
}

/// What `input` makes of `state` at `now_ns` (Unix nanoseconds).
pub(crate) fn step(state: &State, now_ns: i64, input: Input) -> Step {
    let mut step = Step {
        state: state.clone(),
        save: Save::Nothing,
        events: Vec::new(),
        effects: Vec::new(),
    };
    step.take(now_ns, input);
    step
}

impl Step {
    fn take(&mut self, now_ns: i64, input: Input) {
        match input {
            Input::Request(ticket, request) => self.request(now_ns, ticket, request),
            Input::Boot => self.boot(),
            Input::Launched {
                run,
                pid,
                at_ns,
                network,
            } => {
                let begun = Begun {
                    pid,
                    at_ns,
                    network,
                };
                self.launched(now_ns, run, begun);
            }
            Input::LaunchFailed { run, failure } => self.launch_failed(now_ns, run, &failure),
            Input::Exited { run, exit } => self.exited(run, exit),
            Input::OutOfMemory { run } => self.out_of_memory(run),
            Input::Signalled {
                run,
                ticket,
                result,
            } => self.signalled(run, ticket, result),
            Input::Frozen { run, result } => self.frozen(run, result),
            Input::Thawed { run, result } => self.thawed(run, result),
            Input::Elapsed { timer } => self.elapsed(now_ns, timer),
            Input::Destroyed { result } => self.destroyed(result),
        }
    }

    fn request(&mut self, now_ns: i64, ticket: Ticket, request: Request) {
        if let Request::Rename { name } = request {
            return self.rename(ticket, name);
        }
        match &mut self.state.life {
            Life::Idle => self.request_idle(ticket, request),
            Life::Starting { .. } => self.request_starting(ticket, request),
            Life::Running(_) => self.request_running(now_ns, ticket, request),
            Life::Waiting { .. } => self.request_waiting(ticket, request),
            Life::Removing(_) => self.refuse_doomed(ticket, &request, Refusal::RemovalInProgress),
            Life::Dead { .. } => match request {
                Request::Remove { volumes, .. } => self.remove(vec![ticket], Vec::new(), volumes),
                Request::Start
                | Request::Stop(_)
                | Request::Restart(_)
                | Request::Kill { .. }
                | Request::Pause
                | Request::Unpause
                | Request::Rename { .. } => {
                    self.refuse_doomed(ticket, &request, Refusal::RemovalInProgress);
                }
            },
            Life::Gone => self.answer(ticket, Err(Refusal::Gone)),
        }
    }

    fn request_idle(&mut self, ticket: Ticket, request: Request) {
        match request {
            Request::Start => self.launch(Cause::Start, vec![ticket]),
            Request::Restart(_) => self.launch(Cause::Restart, vec![ticket]),
            Request::Stop(_) => self.answer(ticket, Err(Refusal::AlreadyStopped)),
            Request::Kill { .. } | Request::Pause => self.answer(ticket, Err(Refusal::NotRunning)),
            Request::Unpause => self.answer(ticket, Err(Refusal::NotPaused)),
            Request::Remove { volumes, .. } => self.remove(vec![ticket], Vec::new(), volumes),
            Request::Rename { .. } => unreachable!("decided before"),
        }
    }

    fn request_starting(&mut self, ticket: Ticket, request: Request) {
        let run = self.state.facts.run;
        let Life::Starting {
            queued, aborted, ..
        } = &mut self.state.life
        else {
            unreachable!("the caller looked")
        };
        let abort = match request {
            Request::Kill { signal } => signal == SIGKILL,
            Request::Remove { force, .. } => force,
            Request::Start
            | Request::Stop(_)
            | Request::Restart(_)
            | Request::Pause
            | Request::Unpause
            | Request::Rename { .. } => false,
        };
        queued.push((ticket, request));
        if abort && !*aborted {
            *aborted = true;
            self.effects.push(Effect::Abort { run });
        }
    }

    fn request_waiting(&mut self, ticket: Ticket, request: Request) {
        match request {
            Request::Start => self.answer(ticket, Err(Refusal::AlreadyStarted)),
            Request::Restart(_) => self.launch(Cause::Restart, vec![ticket]),
            Request::Stop(_) => {
                self.stop_waiting();
                self.event("stop", Vec::new());
                self.answer(ticket, Ok(()));
            }
            Request::Kill { .. } => {
                self.stop_waiting();
                self.answer(ticket, Ok(()));
            }
            Request::Pause => self.answer(ticket, Err(Refusal::Restarting)),
            Request::Unpause => self.answer(ticket, Err(Refusal::NotPaused)),
            Request::Remove {
                force: true,
                volumes,
            } => self.remove(vec![ticket], Vec::new(), volumes),
            Request::Remove { force: false, .. } => {
                self.answer(ticket, Err(Refusal::StillRunning(Status::Restarting)));
            }
            Request::Rename { .. } => unreachable!("decided before"),
        }
    }

    fn refuse_doomed(&mut self, ticket: Ticket, request: &Request, remove: Refusal) {
        let refusal = match request {
            Request::Start | Request::Restart(_) => Refusal::MarkedForRemoval,
            Request::Stop(_) => Refusal::AlreadyStopped,
            Request::Kill { .. } | Request::Pause => Refusal::NotRunning,
            Request::Unpause => Refusal::NotPaused,
            Request::Remove { .. } | Request::Rename { .. } => remove,
        };
        self.answer(ticket, Err(refusal));
    }

    fn rename(&mut self, ticket: Ticket, name: Arc<str>) {
        match self.state.life {
            Life::Idle | Life::Starting { .. } | Life::Running(_) | Life::Waiting { .. } => {
                let old = std::mem::replace(&mut self.state.name, name);
                self.save = Save::Row;
                self.event("rename", vec![("oldName", format!("/{old}"))]);
                self.effects.push(Effect::ReleaseName(old));
                self.answer(ticket, Ok(()));
            }
            Life::Removing(_) | Life::Dead { .. } => {
                self.effects.push(Effect::ReleaseName(name));
                self.answer(ticket, Err(Refusal::MarkedForRemoval));
            }
            Life::Gone => {
                self.effects.push(Effect::ReleaseName(name));
                self.answer(ticket, Err(Refusal::Gone));
            }
        }
    }

    /// Whether the policy starts an idle container at boot: it must have run before, and `always` does not
    /// ask who stopped it.
    fn boot(&mut self) {
        let facts = &self.state.facts;
        if self.state.life != Life::Idle || facts.started_at_ns == 0 {
            return;
        }
        let starts = match self.state.rules.restart {
            RestartPolicy::No => false,
            RestartPolicy::Always => true,
            RestartPolicy::UnlessStopped => !facts.manually_stopped,
            RestartPolicy::OnFailure { max } => {
                !facts.manually_stopped
                    && facts.exit_code != 0
                    && (max == 0 || facts.restart_count < max)
            }
        };
        if starts {
            self.launch(Cause::Boot, Vec::new());
        } else if self.state.rules.auto_remove {
            self.remove(Vec::new(), Vec::new(), true);
        }
    }

    fn launch(&mut self, cause: Cause, tickets: Vec<Ticket>) {
        self.state.facts.run += 1;
        match cause {
            Cause::Start | Cause::Restart => {
                self.state.facts.restart_count = 0;
                self.state.facts.manually_stopped = false;
                self.state.backoff = Duration::ZERO;
            }
            Cause::Boot => self.state.facts.manually_stopped = false,
            Cause::Policy => {}
        }
        self.state.life = Life::Starting {
            cause,
            tickets,
            queued: Vec::new(),
            aborted: false,
        };
        self.effects.push(Effect::Launch {
            run: self.state.facts.run,
        });
    }

    fn launched(&mut self, now_ns: i64, run: u64, begun: Begun) {
        if run != self.state.facts.run {
            return;
        }
        let Life::Starting {
            cause,
            tickets,
            queued,
            ..
        } = &mut self.state.life
        else {
            return;
        };
        let (cause, tickets) = (*cause, std::mem::take(tickets));
        let queued = std::mem::take(queued);
        let facts = &mut self.state.facts;
        facts.pid = Some(begun.pid);
        facts.started_at_ns = begun.at_ns;
        facts.network = begun.network;
        facts.exit_code = 0;
        facts.error = String::new();
        facts.oom_killed = false;
        facts.paused = false;
        self.state.life = Life::Running(Running::default());
        self.save = Save::Row;
        self.event("start", Vec::new());
        if cause == Cause::Restart {
            self.event("restart", Vec::new());
        }
        for ticket in tickets {
            self.answer(ticket, Ok(()));
        }
        self.replay(now_ns, queued);
    }

    fn launch_failed(&mut self, now_ns: i64, run: u64, failure: &Failure) {
        if run != self.state.facts.run {
            return;
        }
        let Life::Starting {
            tickets, queued, ..
        } = &mut self.state.life
        else {
            return;
        };
        let (tickets, queued) = (std::mem::take(tickets), std::mem::take(queued));
        self.state.facts.exit_code = failure.exit_code;
        self.state.facts.error.clone_from(&failure.message);
        self.state.life = Life::Idle;
        self.save = Save::Row;
        if self.state.rules.auto_remove {
            let failed = tickets
                .into_iter()
                .map(|ticket| (ticket, failure.clone()))
                .collect();
            self.remove(Vec::new(), failed, true);
        } else {
            for ticket in tickets {
                self.answer(ticket, Err(Refusal::StartFailed(failure.clone())));
            }
        }
        self.replay(now_ns, queued);
    }

    fn replay(&mut self, now_ns: i64, queued: Vec<(Ticket, Request)>) {
        for (ticket, request) in queued {
            // Who asked for SIGKILL while it was being started got what he wanted when the launch was aborted.
            let done = matches!(request, Request::Kill { signal: SIGKILL })
                && self.state.life == Life::Idle;
            if done {
                self.answer(ticket, Ok(()));
            } else {
                self.request(now_ns, ticket, request);
            }
        }
    }

    fn remove(&mut self, removes: Vec<Ticket>, failed: Vec<(Ticket, Failure)>, volumes: bool) {
        self.state.facts.remove_volumes |= volumes;
        let volumes = self.state.facts.remove_volumes;
        self.state.life = Life::Removing(Removing {
            removes,
            failed,
            volumes,
        });
        self.save = Save::Row;
        self.effects.push(Effect::Destroy { volumes });
    }

    fn destroyed(&mut self, result: Result<(), String>) {
        let Life::Removing(removing) = &mut self.state.life else {
            return;
        };
        let removing = std::mem::take(removing);
        match &result {
            Ok(()) => {
                self.state.life = Life::Gone;
                self.save = Save::Delete;
                self.event("destroy", Vec::new());
            }
            Err(reason) => {
                self.state.life = Life::Dead {
                    reason: reason.clone(),
                };
            }
        }
        for ticket in removing.removes {
            self.answer(ticket, result.clone().map_err(Refusal::RemovalFailed));
        }
        for (ticket, failure) in removing.failed {
            self.answer(ticket, Err(Refusal::StartFailed(failure)));
        }
    }

    fn stop_waiting(&mut self) {
        self.state.facts.manually_stopped = true;
        self.state.life = Life::Idle;
        self.save = Save::Row;
    }

    fn elapsed(&mut self, now_ns: i64, timer: u64) {
        match &self.state.life {
            Life::Waiting { timer: due } if *due == timer => self.launch(Cause::Policy, Vec::new()),
            Life::Running(_) => self.elapsed_running(now_ns, timer),
            Life::Waiting { .. }
            | Life::Idle
            | Life::Starting { .. }
            | Life::Removing(_)
            | Life::Dead { .. }
            | Life::Gone => {}
        }
    }

    fn timer(&mut self, after: Duration) -> u64 {
        self.state.timers += 1;
        let timer = self.state.timers;
        self.effects.push(Effect::Timer { timer, after });
        timer
    }

    fn event(&mut self, action: &'static str, attributes: Vec<(&'static str, String)>) {
        self.events.push(Happening { action, attributes });
    }

    fn answer(&mut self, ticket: Ticket, result: Result<(), Refusal>) {
        self.effects.push(Effect::Answer(ticket, result));
    }

    fn answer_all(&mut self, tickets: Vec<Ticket>, result: &Result<(), Refusal>) {
        for ticket in tickets {
            self.answer(ticket, result.clone());
        }
    }
}
