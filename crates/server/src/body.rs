//! Bodies of answers: whole, or a stream that the handler feeds.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

/// Messages that wait for a slow client before its producer waits too.
const STREAM_MESSAGES: usize = 16;

/// The body of an answer.
pub(crate) enum Body {
    /// Known at once; `None` once it is out.
    Whole(Option<Bytes>),
    /// One HTTP chunk for each message. It ends when the sender is dropped.
    Stream(mpsc::Receiver<Bytes>),
}

impl Body {
    /// No byte at all.
    pub(crate) fn empty() -> Self {
        Self::Whole(None)
    }

    /// A stream and what feeds it. Sending fails once the client is gone.
    pub(crate) fn stream() -> (mpsc::Sender<Bytes>, Self) {
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
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(messages) => messages
                .poll_recv(context)
                .map(|message| message.map(|bytes| Ok(Frame::data(bytes)))),
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
