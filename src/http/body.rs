//! The body of a reply: nothing, bytes in memory, or a stream that either ends well or breaks off.

use bytes::Bytes;
use tokio::sync::mpsc;

/// Large bodies leave in frames of this size, so that one slow reader never makes hyper copy megabytes.
pub(crate) const FRAME_BYTES: usize = 64 * 1024;

/// What travels from the producer of a stream to its connection.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// Some bytes of the body.
    Data(Bytes),
    /// The body is whole. A stream whose producer vanishes without saying so breaks the connection off: a client
    /// never gets something that looks whole and is not.
    End,
}

/// The body of a reply.
#[derive(Debug, Default)]
pub(crate) enum Body {
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
