//! Bodies: pieces of a blob and whole documents, with limits on how long one waits for them.
//!
//! A limit on each wait alone is none: a registry that sends a byte every few seconds would hold a download, its place
//! and its lease for years.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::Error;

/// A body that brings less than [`RATE_BYTES`] while we wait this long has stalled.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What must come within [`STALL_TIMEOUT`], in bytes: a tenth of what a modem brought in that time.
const RATE_BYTES: u64 = 16 << 10;

/// A document that is not complete after this is given up: the largest there are, over a slow line.
pub(super) const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(120);

/// Documents (manifests, tokens, error bodies) larger than this are refused: moby's limit for a manifest.
pub const DOCUMENT_BYTES_MAX: usize = 4 << 20;

/// The body of an answer, read piece by piece.
#[derive(Debug)]
pub struct Body {
    incoming: Incoming,
    rate: Rate,
}

impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Self {
        Self {
            incoming,
            rate: Rate::default(),
        }
    }
}

impl Body {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Stalled`] and [`Error::Body`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            // Only the waiting counts: what takes the pieces may be slow itself.
            let begin = Instant::now();
            let frame = tokio::time::timeout(self.rate.patience(), self.incoming.frame()).await;
            self.rate.waited(begin.elapsed());
            match frame {
                Err(_) => return Err(Error::Stalled),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(Error::Body(error)),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.rate.came(data.len() as u64);
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// How long was waited for how little.
#[derive(Debug, Default)]
struct Rate {
    waited: Duration,
    bytes: u64,
}

impl Rate {
    /// How long may still be waited.
    fn patience(&self) -> Duration {
        STALL_TIMEOUT.saturating_sub(self.waited)
    }

    fn waited(&mut self, time: Duration) {
        self.waited += time;
    }

    /// Enough came: the clock begins anew.
    fn came(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.bytes >= RATE_BYTES {
            *self = Self::default();
        }
    }
}

/// A whole document.
///
/// # Errors
/// As [`Body::chunk`], [`Error::TooLarge`] and [`Error::Slow`].
pub async fn document(body: impl Into<Body>) -> Result<Vec<u8>, Error> {
    let whole = whole(body.into());
    let read = tokio::time::timeout(DOCUMENT_TIMEOUT, whole).await;
    read.unwrap_or(Err(Error::Slow))
}

async fn whole(mut body: Body) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.chunk().await? {
        if bytes.len() + piece.len() > DOCUMENT_BYTES_MAX {
            return Err(Error::TooLarge);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much comes until the body counts as stalled, when `bytes` come every `pause`; at most 100 MB.
    fn until_it_stalls(bytes: u64, pause: Duration) -> u64 {
        let mut rate = Rate::default();
        let mut total = 0;
        while rate.patience() > pause && total < 100_000_000 {
            rate.waited(pause);
            rate.came(bytes);
            total += bytes;
        }
        total
    }

    #[test]
    fn a_body_that_drips_has_stalled_and_a_slow_one_has_not() {
        let second = Duration::from_secs(1);
        assert_eq!(until_it_stalls(1, 29 * second), 1);
        assert_eq!(until_it_stalls(100, second), 2_900);
        // 4 KB in a second, and a whole piece after each long pause.
        assert_eq!(until_it_stalls(4_000, second), 100_000_000);
        assert_eq!(until_it_stalls(20_000, 29 * second), 100_000_000);
    }
}
