//! The one task of each container: the only place that changes it.
//!
//! A turn: take an input, ask [`step`], save what must be saved, show the new snapshot, set the effects off.
//! The turn awaits nothing: saving is one transaction without an fsync, effects run beside.
//!
//! What cannot be saved is not done: a request is refused with the reason; an exit or another fact that
//! nobody can refuse is tried again after a pause, and until then the shim keeps its record of it. A turn that panics
//! is treated alike.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use sys::clock::now_ns;
use tokio::sync::{mpsc, oneshot};

use crate::container::{Container, Message};
use crate::definition::Definition;
use crate::effects::Effects;
use crate::open::Inner;
use crate::rows::{self, Phase};
use crate::state::{Snapshot, Status};
use crate::step::{
    Effect, Failure, Input, Life, Refusal, Request, Save, State, Step, Ticket, step,
};
use crate::{Class, Error, volumes};

/// How long a fact that could not be saved waits before it is tried again.
const SAVE_RETRY: Duration = Duration::from_secs(1);

/// A container's task.
pub(crate) struct Task {
    engine: Arc<Inner>,
    container: Arc<Container>,
    definition: Arc<Definition>,
    state: State,
    effects: Effects,
    answers: HashMap<Ticket, oneshot::Sender<Result<(), Refusal>>>,
    tickets: u64,
    generation: u64,
}

/// The snapshot that shows a state.
pub(crate) fn snapshot(definition: &Arc<Definition>, state: &State, generation: u64) -> Snapshot {
    Snapshot {
        generation,
        definition: definition.clone(),
        name: state.name.clone(),
        status: state.status(),
        facts: state.facts.clone(),
        exits: state.exits,
        removed: state.life == Life::Gone,
        removal_error: state.removal_error().to_owned(),
    }
}

impl Task {
    /// Makes a container known: its handle, and its task, which is not running yet.
    pub(crate) fn new(
        engine: &Arc<Inner>,
        definition: Definition,
        state: State,
    ) -> (Self, mpsc::Receiver<Message>) {
        let definition = Arc::new(definition);
        let address = crate::shim_client::Address::new(engine.config.run_dir(&definition.id));
        let (container, messages) = Container::new(snapshot(&definition, &state, 0), address);
        let task = Self {
            engine: engine.clone(),
            effects: Effects::new(engine, &container),
            container,
            definition,
            state,
            answers: HashMap::new(),
            tickets: 0,
            generation: 0,
        };
        (task, messages)
    }

    /// The handle.
    pub(crate) fn container(&self) -> &Arc<Container> {
        &self.container
    }

    /// The effects, for what adoption sets up before the task runs.
    pub(crate) fn effects(&mut self) -> &mut Effects {
        &mut self.effects
    }

    /// Serves the container until it is gone or the engine shuts down.
    pub(crate) async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        while self.state.life != Life::Gone {
            let message = tokio::select! {
                message = messages.recv() => message,
                () = self.engine.stopping.cancelled() => None,
            };
            let Some(message) = message else { return };
            let input = match message {
                Message::Request(request, answer) => {
                    self.tickets += 1;
                    let ticket = Ticket(self.tickets);
                    self.answers.insert(ticket, answer);
                    Input::Request(ticket, request)
                }
                Message::Input(input) => input,
            };
            self.turn(input);
        }
    }

    /// A panic ends one turn, and not the task: without it the container could not even be stopped.
    fn turn(&mut self, input: Input) {
        let taken = input.clone();
        let turn = std::panic::catch_unwind(AssertUnwindSafe(|| self.decide(input)));
        // What it says was written where it happened.
        if turn.is_err() {
            tracing::error!(container = %self.container.id().short(), input = ?taken, "a turn panicked");
            self.not_taken(taken, Refusal::Panicked);
        }
    }

    fn decide(&mut self, input: Input) {
        let next = step(&self.state, now_ns(), input.clone());
        if let Err(error) = self.save(&next) {
            return self.not_saved(input, &error);
        }
        self.apply(next);
    }

    fn apply(&mut self, next: Step) {
        let changed = next.state != self.state;
        self.state = next.state;
        if self.state.life == Life::Gone {
            // Before anyone hears of it: its name must be free for whoever waited.
            self.engine.index.remove(self.container.id());
        }
        if changed {
            self.generation += 1;
            let snapshot = snapshot(&self.definition, &self.state, self.generation);
            self.container.publish(snapshot);
            self.attach_late();
        }
        for effect in next.effects {
            match effect {
                Effect::Answer(ticket, answer) => self.answer(ticket, answer),
                Effect::ReleaseName(name) => self.engine.index.release(&name, self.container.id()),
                Effect::Launch { .. }
                | Effect::Abort { .. }
                | Effect::Signal { .. }
                | Effect::Force { .. }
                | Effect::Freeze { .. }
                | Effect::Thaw { .. }
                | Effect::Timer { .. }
                | Effect::Retire { .. }
                | Effect::Destroy { .. } => self.effects.run(effect),
            }
        }
    }

    /// Connects those who asked to be attached when it had begun and was not yet seen to run.
    fn attach_late(&self) {
        let container = self.container.clone();
        if container.snapshot().status == Status::Running && !container.attaching.is_empty() {
            self.engine
                .spawn(async move { container.attaching.connect(container.shim()).await });
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Result<(), Refusal>) {
        // The client may have gone away meanwhile: then nobody wants to know.
        if let Some(Err(unheard)) = self.answers.remove(&ticket).map(|to| to.send(answer)) {
            tracing::debug!(container = %self.container.id().short(), ?unheard, "nobody waits for the answer");
        }
    }

    /// One transaction for the row and the events of a step.
    fn save(&self, next: &Step) -> Result<(), Error> {
        if next.save == Save::Nothing && next.events.is_empty() {
            return Ok(());
        }
        let id = &self.definition.id;
        let mut events = Vec::new();
        let networks = &self.engine.networks;
        if next.undone {
            // As dockerd: volumes come first and go last, and the network tells only that it was left.
            events.extend(volumes::around(&self.definition, "start"));
            events.extend(networks.event("disconnect", &self.definition));
            events.extend(volumes::around(&self.definition, "die"));
        }
        if next.events.iter().any(|event| event.action == "die") {
            // As dockerd: a container lets go of network and volumes before it is said to have stopped.
            events.extend(networks.event("disconnect", &self.definition));
            events.extend(volumes::around(&self.definition, "die"));
        }
        for event in &next.events {
            if event.action == "start" {
                events.extend(volumes::around(&self.definition, event.action));
                events.extend(networks.event("connect", &self.definition));
            }
            events.extend(self.engine.journal.container_events(
                &self.definition,
                &next.state.name,
                std::iter::once((event.action, event.attributes.as_slice())),
            ));
        }
        self.engine
            .journal
            .write(&self.engine.db, events, |transaction| {
                match next.save {
                    Save::Nothing => {}
                    Save::Row => {
                        rows::update(
                            transaction,
                            id,
                            Phase::of(&next.state.life),
                            &next.state.facts,
                        )?;
                        if next.state.name != self.state.name {
                            rows::rename(transaction, id, &next.state.name)?;
                        }
                    }
                    Save::Delete => rows::delete(transaction, id)?,
                }
                Ok(())
            })?;
        match next.state.name == self.state.name {
            true => fault_after(&next.state.life),
            false => sys::fault!("engine.container.renamed"),
        }
        Ok(())
    }

    /// Does what only sends a signal although it could not be saved.
    fn unsaved(&mut self, input: Input) {
        let next = step(&self.state, now_ns(), input);
        self.apply(next);
    }

    /// Ends a start that failed: whoever waits for it is told, also where the reason cannot be saved.
    fn launch_failed_unsaved(&mut self, failed: Input) {
        let next = step(&self.state, now_ns(), failed.clone());
        // If this cannot be saved either: what the row says is older and still true, the container does not run. But
        // an intent to remove it must be saved first.
        if next.state.life == Life::Idle || self.save(&next).is_ok() {
            self.apply(next);
        } else {
            self.effects.again(failed, SAVE_RETRY);
        }
    }

    fn not_saved(&mut self, input: Input, error: &Error) {
        tracing::error!(container = %self.container.id().short(), %error, "a change could not be saved");
        match input {
            // It ends what fills the disk: the exit is saved when there is room.
            Input::Request(_, Request::Stop(_) | Request::Kill { .. })
                if matches!(self.state.life, Life::Running(_)) =>
            {
                self.unsaved(input)
            }
            Input::Request(_, Request::Remove { force: true, .. })
                if matches!(self.state.life, Life::Running(_)) =>
            {
                self.unsaved(input);
            }
            Input::Elapsed { .. } if matches!(self.state.life, Life::Running(_)) => {
                self.unsaved(input)
            }
            request @ Input::Request(..) => {
                self.not_taken(request, Refusal::NotSaved(error.message.clone()));
            }
            Input::Launched { run, .. } => {
                self.effects.run(Effect::Abort { run });
                let failure = Failure {
                    exit_code: crate::launch::EXIT_NOT_STARTED,
                    class: Class::Internal,
                    message: error.message.clone(),
                };
                self.launch_failed_unsaved(Input::LaunchFailed { run, failure });
            }
            failed @ Input::LaunchFailed { .. } => self.launch_failed_unsaved(failed),
            other @ (Input::Boot
            | Input::Exited { .. }
            | Input::OutOfMemory { .. }
            | Input::Signalled { .. }
            | Input::Frozen { .. }
            | Input::Thawed { .. }
            | Input::Elapsed { .. }
            | Input::Destroyed { .. }) => {
                self.not_taken(other, Refusal::NotSaved(error.message.clone()));
            }
        }
    }

    /// Refuses a request; a fact, which nobody can refuse, is tried again.
    fn not_taken(&mut self, input: Input, refusal: Refusal) {
        match input {
            Input::Request(ticket, request) => {
                if let Request::Rename { name } = request {
                    self.engine.index.release(&name, self.container.id());
                }
                self.answer(ticket, Err(refusal));
            }
            fact @ (Input::Boot
            | Input::Launched { .. }
            | Input::LaunchFailed { .. }
            | Input::Exited { .. }
            | Input::OutOfMemory { .. }
            | Input::Signalled { .. }
            | Input::Frozen { .. }
            | Input::Thawed { .. }
            | Input::Elapsed { .. }
            | Input::Destroyed { .. }) => self.effects.again(fact, SAVE_RETRY),
        }
    }
}

/// The crash points after each durable step of a container's life.
fn fault_after(life: &Life) {
    match life {
        Life::Idle | Life::Starting { .. } | Life::Waiting { .. } => {
            sys::fault!("engine.container.exited");
        }
        Life::Running(_) => sys::fault!("engine.container.running"),
        // A death that is not saved changes nothing: its row says removing already.
        Life::Removing(_) | Life::Dead { .. } => sys::fault!("engine.container.removing"),
        Life::Gone => sys::fault!("engine.container.deleted"),
    }
}
