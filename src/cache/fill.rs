//! Fills: what loads a list that no layer of the cache has.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;

use super::{chunks::ChunkedList, entry::Headers, fill_budget::FillPermit, latest_list::ChunkedEntry};
use crate::{
    error::{Error, Result},
    versions::Version,
};

/// Larger responses are hashed and compressed on a blocking thread, because they would delay other requests of the same
/// worker thread.
const BLOCKING_BYTES: usize = 256 * 1024;

/// The result of a fill.
#[derive(Debug)]
pub(crate) struct FillResult {
    /// The version, read in the same snapshot as the rows.
    pub(crate) version: Version,
    pub(crate) content: FillContent,
    pub(crate) headers: Headers,
    /// Whether the snapshot was opened on the primary after the fill had begun.
    pub(crate) is_current: bool,
    /// The permit of a large list.
    pub(crate) permit: Option<FillPermit>,
}

impl FillResult {
    pub(crate) fn new(version: Version, content: FillContent) -> Self {
        Self { version, content, headers: Headers::default(), is_current: false, permit: None }
    }
}

/// What a fill has read.
#[derive(Debug)]
pub(crate) enum FillContent {
    /// The body.
    Json(Bytes),
    Chunked(Arc<ChunkedList>),
    /// The list exceeds the limit.
    TooLarge,
}

/// The latest version of a chunked list, if there is one.
pub(crate) type Previous = Option<Arc<ChunkedEntry>>;

/// A fill. It owns its state, so a client that disconnects does not cancel it for others.
pub(crate) type FillFuture = Pin<Box<dyn Future<Output = Result<FillResult>> + Send>>;

/// Runs `work` on `bytes` bytes, from [`BLOCKING_BYTES`] on in the blocking thread pool.
pub(super) async fn blocking_if_large<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    if bytes < BLOCKING_BYTES {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)
}
