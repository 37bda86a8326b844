//! The response body as hyper reads it, which reports the end of the response to the connection's state.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use hyper::body::{Frame, SizeHint};

use super::{
    body::{Body, Chunk, IncompleteBody, LiveStream, MEMORY_FRAME_BYTES},
    connection::ConnectionState,
    slices::Slices,
};

/// A body that records on its connection when hyper has read it completely or dropped it.
#[derive(Debug)]
pub(crate) struct TrackedBody {
    body: Body,
    connection: Arc<ConnectionState>,
}

impl TrackedBody {
    pub(crate) fn new(body: Body, connection: Arc<ConnectionState>) -> Self {
        Self { body, connection }
    }

    /// Takes a live body out, so that hyper writes only the head of the response.
    pub(super) fn hand_over(&mut self) -> Option<LiveStream> {
        match std::mem::replace(&mut self.body, Body::HandedOver) {
            Body::Live(stream) => Some(stream),
            other => {
                self.body = other;
                None
            }
        }
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.connection.response_finished();
    }
}

impl hyper::body::Body for TrackedBody {
    type Data = Slices;
    type Error = IncompleteBody;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Slices>, IncompleteBody>>> {
        match &mut self.body {
            Body::Empty => Poll::Ready(None),
            Body::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Body::Full(bytes) => {
                let frame = bytes.split_to(bytes.len().min(MEMORY_FRAME_BYTES));
                Poll::Ready(Some(Ok(Frame::data(frame.into()))))
            }
            Body::Slices(slices) if !slices.has_remaining() => Poll::Ready(None),
            Body::Slices(slices) => Poll::Ready(Some(Ok(Frame::data(slices.split_to(MEMORY_FRAME_BYTES))))),
            Body::Frames { frames, remaining } => Poll::Ready(frames.next().map(|frame| {
                let frame = frame?;
                *remaining = remaining.saturating_sub(frame.len() as u64);
                Ok(Frame::data(frame.into()))
            })),
            Body::Stream { chunks, remaining } => Poll::Ready(match ready!(chunks.poll_recv(cx)) {
                Some(Chunk::Data(bytes)) => {
                    if let Some(remaining) = remaining {
                        *remaining = remaining.saturating_sub(bytes.len() as u64);
                    }
                    Some(Ok(Frame::data(bytes.into())))
                }
                Some(Chunk::End) => None,
                None => Some(Err(IncompleteBody)),
            }),
            Body::Live(stream) => {
                Poll::Ready(ready!(stream.as_mut().poll_next(cx)).map(|bytes| Ok(Frame::data(bytes.into()))))
            }
            // the connection's task drops the body when hyper has written the head
            Body::HandedOver => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Body::Empty => true,
            Body::Full(bytes) => bytes.is_empty(),
            Body::Slices(slices) => !slices.has_remaining(),
            Body::Frames { remaining, .. } => *remaining == 0,
            Body::Stream { .. } | Body::Live(_) | Body::HandedOver => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.body.len().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
