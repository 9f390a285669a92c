//! What a pull tells while it goes on, in Docker's phases and words. How it looks on the wire is the server's.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

/// At most ten updates a second and layer, as Docker.
const UPDATE_EVERY: Duration = Duration::from_millis(100);

/// One message of the progress stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A line about the whole pull, with the tag or digest it is about, if any.
    Status {
        /// The tag, or the reference with a digest, in `Pulling from …`.
        id: Option<String>,
        /// The words.
        status: String,
    },
    /// What one layer is at.
    Layer {
        /// Twelve hex digits of the blob's digest.
        id: String,
        /// The phase.
        phase: Phase,
    },
}

/// The phases of a layer; clients match the words literally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// In the store already.
    AlreadyExists,
    /// It will be fetched.
    PullingFsLayer,
    /// Other layers are being fetched.
    Waiting,
    /// Bytes come.
    Downloading {
        /// So far.
        current_bytes: u64,
        /// In all.
        total_bytes: u64,
    },
    /// The next try begins after this many seconds.
    Retrying {
        /// The countdown.
        seconds: u64,
    },
    /// The digest is compared.
    VerifyingChecksum,
    /// The blob is here.
    DownloadComplete,
    /// It is being unpacked.
    Extracting {
        /// So far, of the compressed bytes.
        current_bytes: u64,
        /// In all.
        total_bytes: u64,
    },
    /// The layer is in the store.
    PullComplete,
}

impl Phase {
    /// Docker's words.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Self::AlreadyExists => "Already exists".to_owned(),
            Self::PullingFsLayer => "Pulling fs layer".to_owned(),
            Self::Waiting => "Waiting".to_owned(),
            Self::Downloading { .. } => "Downloading".to_owned(),
            Self::Retrying { seconds: 1 } => "Retrying in 1 second".to_owned(),
            Self::Retrying { seconds } => format!("Retrying in {seconds} seconds"),
            Self::VerifyingChecksum => "Verifying Checksum".to_owned(),
            Self::DownloadComplete => "Download complete".to_owned(),
            Self::Extracting { .. } => "Extracting".to_owned(),
            Self::PullComplete => "Pull complete".to_owned(),
        }
    }
}

/// Why there is nobody to tell any more: the client left, and the pull stops.
#[derive(Debug, thiserror::Error)]
#[error("the client left")]
pub struct Gone;

/// Tells about one layer.
#[derive(Clone, Debug)]
pub(crate) struct Teller {
    id: String,
    to: Sender<Progress>,
}

impl Teller {
    pub(crate) fn new(id: &str, to: Sender<Progress>) -> Self {
        Self {
            id: id.to_owned(),
            to,
        }
    }

    fn message(&self, phase: Phase) -> Progress {
        Progress::Layer {
            id: self.id.clone(),
            phase,
        }
    }

    /// Waits until the client has room: a phase is never lost.
    pub(crate) async fn tell(&self, phase: Phase) -> Result<(), Gone> {
        self.to.send(self.message(phase)).await.map_err(|_| Gone)
    }

    /// As [`Teller::tell`], from a blocking thread.
    pub(crate) fn tell_blocking(&self, phase: Phase) -> Result<(), Gone> {
        self.to.blocking_send(self.message(phase)).map_err(|_| Gone)
    }

    /// Tells about bytes if the client has room right now: an update may be skipped.
    pub(crate) fn update(&self, phase: Phase) {
        // Full: the next update says more. Closed: the next phase notices.
        drop(self.to.try_send(self.message(phase)));
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.to.is_closed()
    }
}

/// Lets ten updates a second through.
#[derive(Debug, Default)]
pub(crate) struct Pace(Option<Instant>);

impl Pace {
    pub(crate) fn due(&mut self) -> bool {
        let now = Instant::now();
        let due = self
            .0
            .is_none_or(|last| now.duration_since(last) >= UPDATE_EVERY);
        if due {
            self.0 = Some(now);
        }
        due
    }
}
