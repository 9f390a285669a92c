//! The nouns of a container's life: its state, what can happen to it, what follows, and why a request is refused.
//!
//! Data only: what leads from one state to the next is in the modules beside.

use std::sync::Arc;
use std::time::Duration;

use crate::state::{Attached, Facts, Status};

/// Names a request until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

/// How long a killed container may take to die before whoever asked is told that it did not (moby waits 10 s).
pub(crate) const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How long a shim may take to kill its container: the daemon then does it itself.
pub(crate) const SHIM_PATIENCE: Duration = Duration::from_secs(5);

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
    pub(crate) stage: Stage,
}

/// What was done before the timer of a stop or kill was set; the later, the stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The stop signal was sent.
    Asked,
    /// The shim was told to send SIGKILL.
    Killed,
    /// The cgroup was killed without the shim: what elapses is the patience.
    Forced,
}

/// Whether the cgroup is frozen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Freeze {
    #[default]
    Thawed,
    Freezing(Vec<Ticket>),
    /// A freeze failed, or was not answered and may still come.
    Doubtful,
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
        result: Result<(), Refusal>,
    },
    /// The cgroup of this run was frozen, or could not be.
    Frozen {
        run: u64,
        result: Result<(), Refusal>,
    },
    /// The cgroup of this run was thawed, or could not be.
    Thawed {
        run: u64,
        result: Result<(), Refusal>,
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
    Launch { run: u64, cause: Cause },
    /// Makes the launch of this run fail soon.
    Abort { run: u64 },
    /// Sends a signal to the init and then thaws the cgroup if asked; comes back as `Signalled` (and `Thawed`).
    Signal {
        run: u64,
        signal: i32,
        thaw: bool,
        ticket: Option<Ticket>,
    },
    /// Kills the cgroup without the shim, thawed, and the shim too if that does not answer: the exit is told then.
    Force { run: u64 },
    /// Comes back as `Frozen`.
    Freeze { run: u64 },
    /// Comes back as `Thawed`; `doubtful`: it may not be frozen at all.
    Thaw { run: u64, doubtful: bool },
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
    /// The engine stops: nobody decides any more.
    Stopping,
    StartFailed(Failure),
    RemovalFailed(String),
    SignalFailed(String),
    FreezeFailed(String),
    ThawFailed(String),
    /// It did not die of SIGKILL within [`KILL_PATIENCE`].
    Unkillable,
    /// The change could not be saved, so it was not made.
    NotSaved(String),
    /// The engine failed at the turn.
    Panicked,
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
    /// A launch failed: its volumes and its network were taken for it and given back.
    pub(crate) undone: bool,
    pub(crate) effects: Vec<Effect>,
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
                Freeze::Frozen => Status::Paused,
                Freeze::Thawing(_) if self.facts.paused => Status::Paused,
                Freeze::Thawed | Freeze::Freezing(_) | Freeze::Doubtful | Freeze::Thawing(_) => {
                    Status::Running
                }
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
