//! What happens to a container that is being removed, or could not be.

use super::{Effect, Failure, Life, Refusal, Removing, Request, Save, Step, Ticket};

impl Step {
    pub(super) fn refuse_doomed(&mut self, ticket: Ticket, request: &Request, remove: Refusal) {
        let refusal = match request {
            Request::Start | Request::Restart(_) => Refusal::MarkedForRemoval,
            Request::Stop(_) => Refusal::AlreadyStopped,
            Request::Kill { .. } | Request::Pause => Refusal::NotRunning,
            Request::Unpause => Refusal::NotPaused,
            Request::Remove { .. } | Request::Rename { .. } => remove,
        };
        self.answer(ticket, Err(refusal));
    }

    pub(super) fn remove(
        &mut self,
        removes: Vec<Ticket>,
        failed: Vec<(Ticket, Failure)>,
        volumes: bool,
    ) {
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

    pub(super) fn destroyed(&mut self, result: Result<(), String>) {
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
}
