//! Bodies: of answers, whole or a stream that the handler feeds; of requests, read or thrown away.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// Messages that wait for a slow client before its producer waits too.
const STREAM_MESSAGES: usize = 16;

/// Why a body ends too early: what it tells could not be read on. The connection is cut before the last chunk, so that
/// the client does not take a part for the whole.
#[derive(Debug, thiserror::Error)]
#[error("the rest of the answer could not be read")]
pub(crate) struct CutShort;

/// One message of a stream.
pub(crate) type Chunk = Result<Bytes, CutShort>;

/// The body of an answer.
pub(crate) enum Body {
    /// Known at once; `None` once it is out.
    Whole(Option<Bytes>),
    /// One HTTP chunk for each message. It ends when the sender is dropped.
    Stream(mpsc::Receiver<Chunk>),
}

impl Body {
    /// No byte at all.
    pub(crate) fn empty() -> Self {
        Self::Whole(None)
    }

    /// A stream and what feeds it. Sending fails once the client is gone.
    pub(crate) fn stream() -> (mpsc::Sender<Chunk>, Self) {
        let (sender, receiver) = mpsc::channel(STREAM_MESSAGES);
        (sender, Self::Stream(receiver))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Whole(if bytes.is_empty() {
            None
        } else {
            Some(bytes.into())
        })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(messages) => messages
                .poll_recv(context)
                .map(|message| message.map(|chunk| chunk.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                let length = bytes.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(
                    u64::try_from(length).expect("a length in memory fits 64 bits"),
                )
            }
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// Bytes of a request's body that are read though nobody wants them, as Go's server does: a client that is still
/// writing when the connection closes sees a broken pipe instead of the answer.
const UNWANTED_BYTES: usize = 256 << 10;

/// How long the rest of an unwanted body may take to come.
const UNWANTED_WITHIN: Duration = Duration::from_secs(5);

/// The body of a request. One that no handler reads is thrown away, up to a limit, beside the answer.
pub(crate) struct Unread {
    body: Option<Incoming>,
    tasks: TaskTracker,
}

impl Unread {
    /// The body, and who looks after what is left of it.
    pub(crate) fn new(body: Incoming, tasks: TaskTracker) -> Self {
        Self {
            body: Some(body),
            tasks,
        }
    }

    /// Whether there is nothing to read.
    pub(crate) fn is_end(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn frame(&mut self) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        self.body.as_mut()?.frame().await
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        self.tasks.spawn(async move {
            let rest = throw_away(body);
            if tokio::time::timeout(UNWANTED_WITHIN, rest).await.is_err() {
                tracing::debug!("a body that nobody wanted did not end");
            }
        });
    }
}

async fn throw_away(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > UNWANTED_BYTES {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_that_is_cut_short_has_no_proper_end() {
        let (sender, mut body) = Body::stream();
        sender.send(Ok(Bytes::from("some"))).await.unwrap();
        sender.send(Err(CutShort)).await.unwrap();
        drop(sender);
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "some");
        assert!(body.frame().await.unwrap().is_err());
    }
}
