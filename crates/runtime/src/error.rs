//! What can go wrong between a spec and a running process, in the words Docker's clients know.

use crate::{cgroup, seccomp, user};

/// Which of Docker's exit codes a failure stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum FailureClass {
    /// The program is not there: 127.
    NotFound,
    /// The program is there and cannot be run: 126.
    NotExecutable,
    /// Anything else: 128.
    Other,
}

/// Why a container or a process in it did not come to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spec asks for what cannot be, or contradicts itself.
    #[error("invalid spec: {0}")]
    Spec(String),
    /// The runtime's own side failed.
    #[error("{operation}: {source}")]
    Host {
        /// What was done, with its values.
        operation: String,
        /// The errno.
        #[source]
        source: std::io::Error,
    },
    /// The cgroup could not be made, joined or limited.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The seccomp policy cannot be compiled.
    #[error(transparent)]
    Seccomp(#[from] seccomp::Error),
    /// There is no such user or group in the container.
    #[error(transparent)]
    User(#[from] user::Error),
    /// The child failed while it set up the container; `message` is what Docker's users know.
    #[error("{message}")]
    Child {
        /// The whole text, such as `exec: "nope": executable file not found in $PATH`.
        message: String,
        /// Which exit code it stands for.
        class: FailureClass,
        /// The errno behind it, if one was.
        errno: Option<i32>,
    },
    /// The child ended without a word (it was killed, most often for want of memory).
    #[error("the container's first process died during its set-up")]
    Died,
}

impl Error {
    /// Docker's rule: 127 for a program that is not there, 126 for one that cannot be run, else 128.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self.class() {
            FailureClass::NotFound => 127,
            FailureClass::NotExecutable => 126,
            FailureClass::Other => 128,
        }
    }

    /// The class behind [`Error::exit_code`].
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Child { class, .. } => *class,
            Self::Spec(_)
            | Self::Host { .. }
            | Self::Cgroup(_)
            | Self::Seccomp(_)
            | Self::User(_)
            | Self::Died => FailureClass::Other,
        }
    }
}
