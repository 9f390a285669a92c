//! Words for what the step function refuses: dockerd's exact texts and classes.

use crate::container::Container;
use crate::error::Chain;
use crate::shim_client::ShimError;
use crate::state::Status;
use crate::step::Refusal;
use crate::{Class, Error};

/// What the client asked for, as far as the wording depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Start,
    Stop,
    Restart,
    Kill,
    Pause,
    Unpause,
    Remove,
    Rename,
}

/// The error for a request about the container that the client called `name`.
pub(crate) fn into_error(refusal: Refusal, verb: Verb, name: &str, container: &Container) -> Error {
    let error = plain(refusal, name, container);
    let context = match verb {
        Verb::Kill => "cannot kill container",
        Verb::Stop => "cannot stop container",
        Verb::Restart => {
            let mut error = error.wrap(&format!("Cannot restart container {name}"));
            // dockerd formats this one into a plain error, which loses the class.
            error.class = Class::Internal;
            return error;
        }
        Verb::Start | Verb::Pause | Verb::Unpause | Verb::Remove | Verb::Rename => return error,
    };
    match error.class {
        Class::NotModified => error,
        Class::NotFound
        | Class::InvalidParameter
        | Class::Conflict
        | Class::Unauthorized
        | Class::Forbidden
        | Class::TooManyRequests
        | Class::Unavailable
        | Class::NotImplemented
        | Class::Internal => error.wrap(&format!("{context}: {name}")),
    }
}

fn plain(refusal: Refusal, name: &str, container: &Container) -> Error {
    let id = container.id();
    match refusal {
        Refusal::AlreadyStarted => {
            Error::not_modified(format!("container {id} is already running"))
        }
        Refusal::AlreadyStopped => Error::not_modified("container is already stopped"),
        Refusal::NotRunning => not_running(container),
        Refusal::Paused => Error::conflict("cannot start a paused container, try unpause instead"),
        Refusal::AlreadyPaused => Error::conflict(format!("Container {id} is already paused")),
        Refusal::NotPaused => Error::new(Class::Internal, format!("Container {id} is not paused")),
        Refusal::Restarting => restarting(container),
        Refusal::MarkedForRemoval => {
            Error::conflict("container is marked for removal and cannot be started")
        }
        Refusal::RemovalInProgress => Error::conflict(format!(
            "removal of container {name} is already in progress"
        )),
        Refusal::StillRunning(Status::Paused) => Error::conflict(format!(
            "cannot remove container {name:?}: container is paused and must be unpaused first"
        )),
        Refusal::StillRunning(status) => Error::conflict(format!(
            "cannot remove container {name:?}: container is {}: \
             stop the container before removing or force remove",
            status.as_str()
        )),
        Refusal::Stopping => Error::new(
            Class::Unavailable,
            format!("the engine is stopping: container {name} stays as it is, ask again"),
        ),
        Refusal::Gone => Error::not_found(format!("No such container: {name}")),
        Refusal::StartFailed(failure) => Error::new(failure.class, failure.message),
        Refusal::RemovalFailed(reason) => Error::new(
            Class::Internal,
            format!("cannot remove container {name:?}: {reason}"),
        ),
        Refusal::SignalFailed(reason) => Error::new(Class::Internal, reason),
        Refusal::FreezeFailed(reason) => Error::new(
            Class::Internal,
            format!("Cannot pause container {id}: {reason}"),
        ),
        Refusal::ThawFailed(reason) => Error::new(
            Class::Internal,
            format!("Cannot unpause container {id}: {reason}"),
        ),
        Refusal::Unkillable => Error::new(
            Class::Internal,
            "tried to kill container, but did not receive an exit event",
        ),
        Refusal::NotSaved(reason) => Error::new(Class::Internal, reason),
        Refusal::Panicked => Error::new(
            Class::Internal,
            format!("the engine failed at this request for container {name}: its log says why"),
        ),
    }
}

/// The refusal for what a shim did not do: a run that is over cannot be asked, and that is no failure of anybody.
pub(crate) fn of_shim(error: &ShimError, failed: impl FnOnce(String) -> Refusal) -> Refusal {
    match error.is_over() {
        true => Refusal::NotRunning,
        false => failed(Chain(error).to_string()),
    }
}

/// As [`of_shim`], for what does not go through the container's task; `doing` is what failed otherwise.
pub(crate) fn shim_error(error: ShimError, container: &Container, doing: &str) -> Error {
    match error.is_over() {
        true => not_running(container),
        false => error.into_error(doing),
    }
}

/// The refusal of whatever needs a process that there is not, or not any more.
pub(crate) fn not_running(container: &Container) -> Error {
    Error::conflict(format!("container {} is not running", container.id()))
}

/// The refusal of whatever needs the process of a container that waits for its restart.
pub(crate) fn restarting(container: &Container) -> Error {
    Error::conflict(format!(
        "Container {} is restarting, wait until the container is running",
        container.id()
    ))
}

#[cfg(test)]
mod tests {
    use std::io::{Error as Io, ErrorKind};

    use shim::protocol::FailureKind;

    use super::*;

    fn refused(kind: FailureKind) -> ShimError {
        let message = "the shim's words".to_owned();
        ShimError::Refused { kind, message }
    }

    #[test]
    fn each_fault_of_a_shim_that_has_ended_means_that_the_run_is_over() {
        let ended = [
            // No run directory, nobody at the socket, and the three ways in which a connection breaks.
            ShimError::from(Io::from(ErrorKind::NotFound)),
            ShimError::from(Io::from(ErrorKind::ConnectionRefused)),
            ShimError::from(Io::from(ErrorKind::BrokenPipe)),
            ShimError::from(Io::from(ErrorKind::ConnectionReset)),
            ShimError::from(Io::from(ErrorKind::UnexpectedEof)),
            refused(FailureKind::NotRunning),
        ];
        for error in ended {
            let told = of_shim(&error, Refusal::SignalFailed);
            assert_eq!(told, Refusal::NotRunning, "{error:?}");
        }
        let failed = [
            (refused(FailureKind::Other), "the shim's words"),
            (refused(FailureKind::Busy), "the shim's words"),
            (
                // EMFILE: this daemon's own trouble.
                ShimError::from(Io::from_raw_os_error(24)),
                "connection to the container's shim: Too many open files (os error 24)",
            ),
            (
                ShimError::Timeout,
                "the container's shim did not answer within 10 s: \
                 docker rm -f and docker kill end the container without it",
            ),
        ];
        for (error, words) in failed {
            let told = of_shim(&error, Refusal::FreezeFailed);
            assert_eq!(told, Refusal::FreezeFailed(words.to_owned()), "{error:?}");
        }
    }
}
