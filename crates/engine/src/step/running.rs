//! What happens to a container that runs: signals, deadlines, freezing, and its exit.

use std::time::Duration;

use sys::signal::SIGKILL;

use super::{
    BACKOFF_FIRST, BACKOFF_MAX, BACKOFF_RESET, Cause, Deadline, Effect, Exit, Freeze,
    KILL_PATIENCE, Life, Refusal, Request, RestartPolicy, Running, SHIM_PATIENCE, Save, Stage,
    Step, Stop, Ticket, Timeout,
};
use crate::state::Status;

impl Step {
    /// The running state, if `run` is the one that runs.
    fn running(&mut self, run: u64) -> Option<&mut Running> {
        match &mut self.state.life {
            Life::Running(running) if self.state.facts.run == run => Some(running),
            Life::Running(_)
            | Life::Idle
            | Life::Starting { .. }
            | Life::Waiting { .. }
            | Life::Removing(_)
            | Life::Dead { .. }
            | Life::Gone => None,
        }
    }

    fn now_running(&mut self) -> &mut Running {
        let run = self.state.facts.run;
        self.running(run).expect("the caller found it running")
    }

    pub(super) fn request_running(&mut self, now_ns: i64, ticket: Ticket, request: Request) {
        match request {
            Request::Start => {
                let refusal = match self.state.status() {
                    Status::Paused => Refusal::Paused,
                    Status::Created
                    | Status::Running
                    | Status::Restarting
                    | Status::Removing
                    | Status::Exited
                    | Status::Dead => Refusal::AlreadyStarted,
                };
                self.answer(ticket, Err(refusal));
            }
            Request::Stop(stop) => {
                self.now_running().stops.push(ticket);
                self.stop(now_ns, &stop);
            }
            Request::Restart(stop) => {
                self.now_running().restarts.push(ticket);
                self.stop(now_ns, &stop);
            }
            Request::Kill { signal: SIGKILL } => {
                self.now_running().kills.push(ticket);
                self.kill(now_ns);
            }
            Request::Kill { signal } => self.signal(signal, Some(ticket)),
            Request::Pause => self.pause(ticket),
            Request::Unpause => self.unpause(ticket),
            Request::Remove { force: false, .. } => {
                let status = self.state.status();
                self.answer(ticket, Err(Refusal::StillRunning(status)));
            }
            Request::Remove {
                force: true,
                volumes,
            } => {
                let running = self.now_running();
                running.removes.push(ticket);
                running.volumes |= volumes;
                self.kill(now_ns);
            }
            Request::Rename { .. } => unreachable!("decided before"),
        }
    }

    /// Sends the stop signal and sets the deadline, unless an earlier one is set already.
    fn stop(&mut self, now_ns: i64, stop: &Stop) {
        let signal = stop.signal.unwrap_or(self.state.rules.stop_signal);
        let timeout = match stop.timeout {
            Some(Timeout::Never) => None,
            Some(Timeout::After(time)) => Some(time),
            None => self.state.rules.stop_timeout,
        };
        if signal == SIGKILL {
            return self.kill(now_ns);
        }
        self.signal(signal, None);
        if let Some(timeout) = timeout {
            self.deadline(now_ns, timeout, Stage::Asked);
        }
    }

    fn kill(&mut self, now_ns: i64) {
        self.signal(SIGKILL, None);
        self.deadline(now_ns, SHIM_PATIENCE, Stage::Killed);
    }

    /// Whatever of the two deadlines is stricter stays: SIGKILL beats a stop, the earlier beats the later.
    fn deadline(&mut self, now_ns: i64, after: Duration, stage: Stage) {
        let at_ns = now_ns.saturating_add(i64::try_from(after.as_nanos()).unwrap_or(i64::MAX));
        let stays = self
            .now_running()
            .deadline
            .is_some_and(|old| (old.stage, -old.at_ns) >= (stage, -at_ns));
        if !stays {
            let timer = self.timer(after);
            self.now_running().deadline = Some(Deadline {
                timer,
                at_ns,
                stage,
            });
        }
    }

    fn signal(&mut self, signal: i32, ticket: Option<Ticket>) {
        let ends = signal == SIGKILL || signal == self.state.rules.stop_signal || ticket.is_none();
        let running = self.now_running();
        // SIGKILL waits in a frozen process, and what is known of the freezer may be wrong.
        let thaw = signal == SIGKILL
            || ends && matches!(running.freeze, Freeze::Frozen | Freeze::Doubtful);
        if thaw && running.freeze == Freeze::Frozen {
            running.freeze = Freeze::Thawing(Vec::new());
        }
        if ends && !self.state.facts.manually_stopped {
            self.state.facts.manually_stopped = true;
            self.save = Save::Row;
        }
        self.event("kill", vec![("signal", signal.to_string())]);
        self.effects.push(Effect::Signal {
            run: self.state.facts.run,
            signal,
            thaw,
            ticket,
        });
    }

    pub(super) fn signalled(
        &mut self,
        run: u64,
        ticket: Option<Ticket>,
        result: Result<(), Refusal>,
    ) {
        let stale = self.running(run).is_none();
        if let Some(ticket) = ticket {
            let answer = match result {
                Ok(()) => Ok(()),
                Err(_) if stale => Err(Refusal::NotRunning),
                Err(refusal) => Err(refusal),
            };
            self.answer(ticket, answer);
        }
    }

    pub(super) fn elapsed_running(&mut self, now_ns: i64, timer: u64) {
        let running = self.now_running();
        let Some(deadline) = running.deadline.filter(|deadline| deadline.timer == timer) else {
            return;
        };
        running.deadline = None;
        match deadline.stage {
            Stage::Asked => return self.kill(now_ns),
            Stage::Killed => {
                let run = self.state.facts.run;
                self.effects.push(Effect::Force { run });
                let left = KILL_PATIENCE.saturating_sub(SHIM_PATIENCE);
                return self.deadline(now_ns, left, Stage::Forced);
            }
            Stage::Forced => {}
        }
        let mut tickets = std::mem::take(&mut running.stops);
        tickets.append(&mut running.kills);
        tickets.append(&mut running.restarts);
        tickets.append(&mut running.removes);
        self.answer_all(tickets, &Err(Refusal::Unkillable));
    }

    fn pause(&mut self, ticket: Ticket) {
        match &mut self.now_running().freeze {
            freeze @ (Freeze::Thawed | Freeze::Doubtful) => {
                *freeze = Freeze::Freezing(vec![ticket]);
                let run = self.state.facts.run;
                self.effects.push(Effect::Freeze { run });
            }
            Freeze::Freezing(tickets) => tickets.push(ticket),
            Freeze::Frozen | Freeze::Thawing(_) => self.answer(ticket, Err(Refusal::AlreadyPaused)),
        }
    }

    fn unpause(&mut self, ticket: Ticket) {
        match &mut self.now_running().freeze {
            freeze @ (Freeze::Frozen | Freeze::Doubtful) => {
                let doubtful = *freeze == Freeze::Doubtful;
                *freeze = Freeze::Thawing(vec![ticket]);
                let run = self.state.facts.run;
                self.effects.push(Effect::Thaw { run, doubtful });
            }
            Freeze::Thawing(tickets) => tickets.push(ticket),
            Freeze::Thawed | Freeze::Freezing(_) => self.answer(ticket, Err(Refusal::NotPaused)),
        }
    }

    pub(super) fn frozen(&mut self, run: u64, result: Result<(), Refusal>) {
        let Some(running) = self.running(run) else {
            return;
        };
        // A stop may have no deadline; whoever waits for the exit waits for a thawed container.
        let dying = running.deadline.is_some()
            || [
                &running.stops,
                &running.kills,
                &running.restarts,
                &running.removes,
            ]
            .iter()
            .any(|waiting| !waiting.is_empty());
        let Freeze::Freezing(tickets) = &mut running.freeze else {
            return;
        };
        let tickets = std::mem::take(tickets);
        match result {
            Ok(()) => {
                running.freeze = Freeze::Frozen;
                self.state.facts.paused = true;
                self.save = Save::Row;
                self.event("pause", Vec::new());
                self.answer_all(tickets, &Ok(()));
                if dying {
                    self.now_running().freeze = Freeze::Thawing(Vec::new());
                    self.effects.push(Effect::Thaw {
                        run,
                        doubtful: false,
                    });
                }
            }
            Err(refusal) => {
                running.freeze = Freeze::Doubtful;
                self.answer_all(tickets, &Err(refusal));
            }
        }
    }

    pub(super) fn thawed(&mut self, run: u64, result: Result<(), Refusal>) {
        let paused = self.state.facts.paused;
        let Some(running) = self.running(run) else {
            return;
        };
        let Freeze::Thawing(tickets) = &mut running.freeze else {
            return;
        };
        let tickets = std::mem::take(tickets);
        match result {
            Ok(()) => {
                running.freeze = Freeze::Thawed;
                self.state.facts.paused = false;
                self.save = Save::Row;
                self.event("unpause", Vec::new());
                self.answer_all(tickets, &Ok(()));
            }
            Err(refusal) => {
                running.freeze = match paused {
                    true => Freeze::Frozen,
                    false => Freeze::Doubtful,
                };
                self.answer_all(tickets, &Err(refusal));
            }
        }
    }

    pub(super) fn out_of_memory(&mut self, run: u64) {
        if self.running(run).is_some() {
            self.state.facts.oom_killed = true;
            self.save = Save::Row;
            self.event("oom", Vec::new());
        }
    }

    pub(super) fn exited(&mut self, run: u64, exit: Exit) {
        let Some(running) = self.running(run) else {
            return;
        };
        let running = std::mem::take(running);
        let facts = &mut self.state.facts;
        facts.pid = None;
        facts.network = None;
        facts.finished_at_ns = exit.at_ns;
        facts.exit_code = exit.code;
        facts.oom_killed |= exit.oom_killed;
        facts.paused = false;
        let lasted = Duration::from_nanos(
            u64::try_from(exit.at_ns.saturating_sub(facts.started_at_ns)).unwrap_or(0),
        );
        self.state.exits += 1;
        self.save = Save::Row;
        if !running.stops.is_empty() || !running.restarts.is_empty() {
            self.event("stop", Vec::new());
        }
        self.event(
            "die",
            vec![
                ("execDuration", lasted.as_secs().to_string()),
                ("exitCode", exit.code.to_string()),
            ],
        );
        self.effects.push(Effect::Retire { run });
        self.after_exit(running, exit.code, lasted);
    }

    fn after_exit(&mut self, running: Running, code: i32, lasted: Duration) {
        let doomed = !running.removes.is_empty();
        if doomed {
            self.remove(running.removes, Vec::new(), running.volumes);
            self.answer_all(running.restarts, &Err(Refusal::MarkedForRemoval));
        } else if !running.restarts.is_empty() {
            self.launch(Cause::Restart, running.restarts);
        } else if self.policy_restarts(code, lasted) {
            let timer = self.timer(self.state.backoff);
            self.state.life = Life::Waiting { timer };
        } else if self.state.rules.auto_remove {
            self.remove(Vec::new(), Vec::new(), true);
        } else {
            self.state.life = Life::Idle;
        }
        self.answer_all(running.stops, &Ok(()));
        self.answer_all(running.kills, &Ok(()));
        match running.freeze {
            Freeze::Freezing(tickets) | Freeze::Thawing(tickets) => {
                self.answer_all(tickets, &Err(Refusal::NotRunning));
            }
            Freeze::Thawed | Freeze::Doubtful | Freeze::Frozen => {}
        }
    }

    /// Decides as moby's `restartmanager` does, and counts.
    fn policy_restarts(&mut self, code: i32, lasted: Duration) -> bool {
        let facts = &mut self.state.facts;
        if facts.manually_stopped {
            return false;
        }
        let again = match self.state.rules.restart {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure { max } => {
                code != 0 && (max == 0 || facts.restart_count < max)
            }
        };
        if again {
            facts.restart_count += 1;
            let last = if lasted >= BACKOFF_RESET {
                Duration::ZERO
            } else {
                self.state.backoff
            };
            self.state.backoff = (last * 2).clamp(BACKOFF_FIRST, BACKOFF_MAX);
        }
        again
    }
}
