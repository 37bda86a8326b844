//! The body of a response: empty, bytes in memory, or a stream.

use bytes::Bytes;
use tokio::sync::mpsc;

/// Large bodies are sent in frames of this size (bytes), so that hyper never buffers megabytes for a slow client.
pub(crate) const FRAME_BYTES: usize = 64 * 1024;

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

/// The parts of a body, produced when they are sent.
pub(crate) type Parts = Box<dyn Iterator<Item = Result<Bytes, IncompleteBody>> + Send>;

#[derive(Debug, Default)]
pub(crate) enum Body {
    #[default]
    Empty,
    /// Bytes in memory, shared with the cache: a clone copies no bytes.
    Full(Bytes),
    /// Bytes that are still being produced.
    Stream {
        /// A bounded channel: a slow client slows the producer down.
        chunks: mpsc::Receiver<Chunk>,
        /// Bytes still to come, if their number is known.
        remaining: Option<u64>,
    },
}

impl Body {
    /// Returns the number of bytes, if it is known before they are sent.
    pub(crate) fn len(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Full(bytes) => Some(bytes.len() as u64),
            Self::Stream { remaining, .. } => *remaining,
        }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Full(bytes.into())
    }
}
