//! Who may do what, decided on the typed request: after routing and version conversion, before the engine.
//!
//! Decisions on raw bytes were the cause of three of Docker's CVEs. Every peer that passes the gate is the machine's
//! own administrator today, so there is no rule yet and nothing is ever refused here: this writes a trace of the two
//! operations below. Other requests that give power over the host (volumes with `o=bind`, load, start) do not come by.

use api::container::CreateRequest;
use api::exec::ExecConfig;

use crate::failure::Failure;

/// A request that can give its sender power over the host.
pub(crate) enum Operation<'a> {
    /// A container with whatever it mounts and may.
    Create(&'a CreateRequest),
    /// A process in a container.
    Exec(&'a ExecConfig),
}

/// Leaves a trace of one request.
///
/// # Errors
/// None yet: every peer may do everything.
pub(crate) fn check(operation: &Operation<'_>) -> Result<(), Failure> {
    match operation {
        Operation::Create(request) => {
            let (image, privileged) = (&request.config.image, request.host_config.privileged);
            tracing::debug!(%image, privileged, "allowed to create a container");
        }
        Operation::Exec(config) => {
            tracing::debug!(
                privileged = config.privileged,
                "allowed to run a process in a container"
            );
        }
    }
    Ok(())
}
