//! What happens to a container until it runs: boot, the launch and its end, and the requests that wait for it.

use std::time::Duration;

use sys::signal::SIGKILL;

use super::{
    Cause, Effect, Failure, Life, Refusal, Request, RestartPolicy, Running, Save, Step, Ticket,
};
use crate::state::Attached;

/// What a launch that succeeded has to tell.
pub(super) struct Begun {
    pub(super) pid: u32,
    pub(super) at_ns: i64,
    pub(super) network: Option<Box<Attached>>,
}

impl Step {
    /// Whether the policy starts an idle container at boot: it must have run before, and `always` does not
    /// ask who stopped it.
    pub(super) fn boot(&mut self) {
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

    pub(super) fn request_starting(&mut self, ticket: Ticket, request: Request) {
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

    pub(super) fn launch(&mut self, cause: Cause, tickets: Vec<Ticket>) {
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
            cause,
        });
    }

    pub(super) fn launched(&mut self, now_ns: i64, run: u64, begun: Begun) {
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

    pub(super) fn launch_failed(&mut self, now_ns: i64, run: u64, failure: &Failure) {
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
        self.undone = true;
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
}
