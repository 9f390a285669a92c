//! Waiting for a container: reads snapshots only, so no lifecycle operation is ever in the way.

use std::sync::Arc;

use api::container::{WaitExitError, WaitResponse};
use api::options::WaitCondition;
use tokio::sync::watch;

use crate::container::Container;
use crate::state::Snapshot;
use crate::{Engine, Error};

/// A wait whose condition counts from the moment it was made.
#[derive(Debug)]
pub struct Waiting {
    container: Arc<Container>,
    changes: watch::Receiver<u64>,
    condition: WaitCondition,
    exits_before: u64,
}

impl Engine {
    /// Begins to wait (`POST /containers/{id}/wait`). When this returns, the server sends the headers: the
    /// client may rely on every later exit being seen.
    ///
    /// # Errors
    /// NotFound, InvalidParameter for an ambiguous prefix.
    pub fn wait(&self, name: &str, condition: WaitCondition) -> Result<Waiting, Error> {
        let container = self.container(name)?;
        // Subscribed before the count is read, so that no exit falls between the two.
        let changes = container.changes();
        let exits_before = container.snapshot().exits;
        Ok(Waiting {
            container,
            changes,
            condition,
            exits_before,
        })
    }
}

impl Waiting {
    /// Waits until the condition holds, and answers the exit code. Cancel-safe: dropping it forgets the wait.
    pub async fn done(mut self) -> WaitResponse {
        loop {
            let snapshot = self.container.snapshot();
            if let Some(response) = self.response(&snapshot) {
                return response;
            }
            if self.changes.changed().await.is_err() {
                // The engine is shutting down; the container lives on, and the client must ask again.
                std::future::pending::<()>().await;
            }
        }
    }

    fn response(&self, snapshot: &Snapshot) -> Option<WaitResponse> {
        let failed_removal = !snapshot.removal_error.is_empty();
        let done = match self.condition {
            WaitCondition::NotRunning => !snapshot.status.is_running(),
            WaitCondition::NextExit => snapshot.exits > self.exits_before || snapshot.removed,
            WaitCondition::Removed => snapshot.removed || failed_removal,
        };
        done.then(|| WaitResponse {
            status_code: snapshot.facts.exit_code.into(),
            error: (self.condition == WaitCondition::Removed && failed_removal).then(|| {
                WaitExitError {
                    message: snapshot.removal_error.clone(),
                }
            }),
        })
    }
}
