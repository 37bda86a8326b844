//! The body of a reply: nothing, bytes in memory, or a stream that either ends well or breaks off.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;

use super::connection::ConnectionState;

/// Large bodies leave in frames of this size, so that one slow reader never makes hyper copy megabytes.
pub const FRAME_BYTES: usize = 64 * 1024;

/// What travels from the producer of a stream to its connection.
#[derive(Debug)]
pub enum Chunk {
    /// Some bytes of the body.
    Data(Bytes),
    /// The body is whole. A stream whose producer vanishes without saying so breaks the connection off: a client
    /// never gets something that looks whole and is not.
    End,
}

/// The body of a reply.
#[derive(Debug, Default)]
pub enum Body {
    /// No body.
    #[default]
    Empty,
    /// Bytes in memory, shared with the cache: a clone is a counter, not a copy.
    Full(Bytes),
    /// Bytes that are still being made, with their number where it is known.
    Stream {
        /// Where they come from; bounded, so a slow client slows the producer down.
        chunks: mpsc::Receiver<Chunk>,
        /// Bytes still to come, if that is known.
        remaining: Option<u64>,
    },
}

impl Body {
    /// The number of bytes, if it is known before they are sent.
    pub fn len(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Full(bytes) => Some(bytes.len() as u64),
            Self::Stream { remaining, .. } => *remaining,
        }
    }

    /// Whether it is known to be empty.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Full(bytes.into())
    }
}

/// A body that tells its connection when it has been handed over entirely, or dropped.
#[derive(Debug)]
pub struct TrackedBody {
    body: Body,
    connection: Arc<ConnectionState>,
}

impl TrackedBody {
    pub(super) fn new(body: Body, connection: Arc<ConnectionState>) -> Self {
        Self { body, connection }
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.connection.reply_ended();
    }
}

/// The producer of a stream went away before the end: the connection must not look as if all had been sent.
#[derive(Debug, thiserror::Error)]
#[error("the body broke off before its end")]
pub struct BrokenOff;

impl hyper::body::Body for TrackedBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match &mut self.body {
            Body::Empty => Poll::Ready(None),
            Body::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Body::Full(bytes) => {
                let frame = bytes.split_to(bytes.len().min(FRAME_BYTES));
                Poll::Ready(Some(Ok(Frame::data(frame))))
            }
            Body::Stream { chunks, remaining } => Poll::Ready(match ready!(chunks.poll_recv(cx)) {
                Some(Chunk::Data(bytes)) => {
                    if let Some(remaining) = remaining {
                        *remaining = remaining.saturating_sub(bytes.len() as u64);
                    }
                    Some(Ok(Frame::data(bytes)))
                }
                Some(Chunk::End) => None,
                None => Some(Err(BrokenOff)),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Body::Empty => true,
            Body::Full(bytes) => bytes.is_empty(),
            Body::Stream { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.body.len().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
