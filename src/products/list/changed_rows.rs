//! Changes a chunked list row by row, as the rows arrive from the database.

use std::{mem, sync::Arc};

use bytes::Bytes;

use crate::{
    cache::{ChunkedList, FillContent, FillLimit, FillPermit, RowChange},
    error::{Error, Result},
};

/// Rows of more bytes are applied before further ones are read. As the rows are ordered, two batches have at most one
/// chunk in common.
const BATCH_BYTES: usize = 1 << 20;
/// A changed row counts as these bytes of a fill, because its chunk is built again. More than 16 rows need the permit of
/// large lists.
const ROW_BYTES: usize = 16 << 10;
/// A smaller list is changed at once: a thread would take as long to start.
const BLOCKING_BYTES: usize = 64 << 10;

/// A list whose changed rows are being replaced.
pub(super) struct ChangedRows {
    list: Arc<ChunkedList>,
    /// Changes that are not in the list yet.
    batch: Vec<RowChange>,
    /// The size of their JSON.
    batch_bytes: usize,
    limit: FillLimit,
    permit: Option<FillPermit>,
}

impl ChangedRows {
    /// Returns the list before its changes.
    pub(super) fn new(list: Arc<ChunkedList>, limit: FillLimit) -> Self {
        Self { list, batch: Vec::new(), batch_bytes: 0, limit, permit: None }
    }

    /// Adds the change of the next row, in the order of the ids.
    pub(super) async fn push(&mut self, change: RowChange) -> Result<()> {
        self.batch_bytes += change.json.as_ref().map_or(0, Bytes::len);
        self.batch.push(change);
        if self.batch_bytes > BATCH_BYTES { self.apply().await } else { Ok(()) }
    }

    /// Returns the changed list, and the permit of large changes.
    pub(super) async fn finish(mut self) -> Result<(FillContent, Option<FillPermit>)> {
        if !self.batch.is_empty() {
            self.apply().await?;
        }
        Ok((FillContent::chunked(self.list, &self.limit), self.permit))
    }

    async fn apply(&mut self) -> Result<()> {
        if self.permit.is_none() {
            self.permit = self.limit.acquire(self.batch_bytes.max(self.batch.len() * ROW_BYTES)).await?;
        }
        let (list, batch) = (Arc::clone(&self.list), mem::take(&mut self.batch));
        let max_json_bytes = self.limit.max_bytes();
        let is_small = list.json_bytes() + mem::take(&mut self.batch_bytes) < BLOCKING_BYTES;
        let apply = move || Arc::new(list.with_changes(&batch, max_json_bytes));
        self.list =
            if is_small { apply() } else { tokio::task::spawn_blocking(apply).await.map_err(Error::internal)? };
        Ok(())
    }
}
