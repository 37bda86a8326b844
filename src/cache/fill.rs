//! Fills: what loads a list that no layer of the cache has.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;

use super::{
    chunks::ChunkedList,
    entry::Headers,
    fill_budget::{FillLimit, FillPermit},
    latest_list::ChunkedEntry,
};
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
    /// Whether only changes since the previous version were read.
    pub(crate) is_incremental: bool,
    /// The permit of a large list.
    pub(crate) permit: Option<FillPermit>,
}

impl FillResult {
    pub(crate) fn new(version: Version, content: FillContent) -> Self {
        let headers = Headers::default();
        Self { version, content, headers, is_current: false, is_incremental: false, permit: None }
    }
}

/// What a fill has read.
#[derive(Debug)]
pub(crate) enum FillContent {
    /// The body.
    Json(Bytes),
    Chunked(Arc<ChunkedList>),
    /// The list exceeds the limit. One whose JSON has at most these bytes is within it.
    TooLarge {
        fitting_bytes: usize,
    },
}

impl FillContent {
    /// Returns a chunked list, unless it exceeds the limit.
    pub(crate) fn chunked(list: Arc<ChunkedList>, limit: &FillLimit) -> Self {
        if list.compressed_bytes() > limit.max_chunked_bytes() {
            Self::too_large(list.json_bytes())
        } else {
            Self::Chunked(list)
        }
    }

    /// Returns the outcome for a chunked list that exceeds the limit from this size of its JSON on: one of half the
    /// size is within the limit, even if it compresses less well.
    pub(crate) fn too_large(json_bytes: usize) -> Self {
        Self::TooLarge { fitting_bytes: json_bytes / 2 }
    }
}

/// The latest version of a chunked list, if there is one.
pub(crate) type Previous = Option<Arc<ChunkedEntry>>;

/// A fill. It owns its state, so a client that disconnects does not cancel it for others.
pub(crate) type FillFuture = Pin<Box<dyn Future<Output = Result<FillResult>> + Send>>;

/// Runs `work` on `bytes` bytes, from [`BLOCKING_BYTES`] on in the blocking thread pool.
pub(crate) async fn blocking_if_large<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    if bytes < BLOCKING_BYTES {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)
}
