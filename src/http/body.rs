//! The body of a response: empty, bytes in memory, frames that are produced while they are sent, or a stream that ends or
//! is live.

use std::{fmt, pin::Pin};

use bytes::{Buf, Bytes};
use futures_util::Stream;
use tokio::sync::mpsc;

use super::slices::Slices;

/// Size of the frames (bytes) that are produced while a body is sent. hyper holds one frame for a slow client.
pub(crate) const FRAME_BYTES: usize = 64 * 1024;
/// Size of the frames (bytes) of what is in memory anyway: as much as the kernel takes in one write. Smaller frames cost a
/// system call and a packet each.
pub(super) const MEMORY_FRAME_BYTES: usize = 256 * 1024;

/// An item that the producer of a streamed body sends to the connection.
#[derive(Debug)]
pub(crate) enum Chunk {
    Data(Bytes),
    /// The body is complete. If the producer is dropped without sending this, the connection is aborted, so a client
    /// never receives a truncated body that looks complete.
    End,
}

/// The producer of a body ended before the body did. hyper then aborts the connection.
#[derive(Debug, thiserror::Error)]
#[error("the response body is incomplete")]
pub(crate) struct IncompleteBody;

/// The frames of a body, produced when they are sent.
pub(crate) type Frames = Box<dyn Iterator<Item = Result<Bytes, IncompleteBody>> + Send>;

/// Bytes that are sent when there are any, for an unlimited time. The next ones are requested when the client has been
/// sent the ones before.
pub(crate) type LiveStream = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

#[derive(Default)]
pub(crate) enum Body {
    #[default]
    Empty,
    /// Bytes in memory, shared with the cache: a clone copies no bytes.
    Full(Bytes),
    /// Bytes in memory, in several parts.
    Slices(Slices),
    /// Bytes that are copied or computed frame by frame.
    Frames {
        frames: Frames,
        /// Bytes still to come.
        remaining: u64,
    },
    /// Bytes that are still being produced.
    Stream {
        /// A bounded channel: a slow client slows the producer down.
        chunks: mpsc::Receiver<Chunk>,
        /// Bytes still to come, if their number is known.
        remaining: Option<u64>,
    },
    Live(LiveStream),
    /// A body that the server sends without hyper (`http/live`).
    HandedOver,
}

impl Body {
    /// Returns the number of bytes, if it is known before they are sent.
    pub(crate) fn len(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Full(bytes) => Some(bytes.len() as u64),
            Self::Slices(slices) => Some(slices.remaining() as u64),
            Self::Frames { remaining, .. } => Some(*remaining),
            Self::Stream { remaining, .. } => *remaining,
            Self::Live(_) | Self::HandedOver => None,
        }
    }

    /// Returns a body of `bytes` bytes in frames.
    pub(crate) fn from_frames(frames: Frames, bytes: usize) -> Self {
        Self::Frames { frames, remaining: bytes as u64 }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Body").field("len", &self.len()).finish()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Full(bytes.into())
    }
}
