//! The life of one container as a pure function: no clock, no I/O, no lock, no async.
//!
//! ```text
//!              start            launched
//!   ┌──▶ Idle ─────────▶ Starting ─────────▶ Running ──┐ pause / unpause
//!   │     │ ▲              │  ▲  ▲             │  ▲     │ (Freeze: Thawed, Freezing, Doubtful, Frozen, …)
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

mod model;
mod removing;
mod running;
mod starting;
#[cfg(test)]
mod tests;

pub(crate) use model::{
    BACKOFF_FIRST, BACKOFF_MAX, BACKOFF_RESET, Cause, Deadline, Effect, Exit, Failure, Freeze,
    Happening, Input, KILL_PATIENCE, Life, Refusal, Removing, Request, RestartPolicy, Rules,
    Running, SHIM_PATIENCE, Save, Stage, State, Step, Stop, Ticket, Timeout,
};

use std::sync::Arc;
use std::time::Duration;

use starting::Begun;

use crate::state::Status;

/// What `input` makes of `state` at `now_ns` (Unix nanoseconds).
pub(crate) fn step(state: &State, now_ns: i64, input: Input) -> Step {
    let mut step = Step {
        state: state.clone(),
        save: Save::Nothing,
        events: Vec::new(),
        undone: false,
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
