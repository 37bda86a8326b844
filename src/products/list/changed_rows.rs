//! Changes a chunked list row by row, as the rows arrive from the database.

use std::{mem, sync::Arc};

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
    /// The changed rows, in order.
    ids: Vec<i64>,
    /// The number of ids before those whose rows are awaited.
    position: usize,
    /// Changes that are not in the list yet.
    batch: Vec<RowChange>,
    /// The size of their JSON.
    batch_bytes: usize,
    limit: FillLimit,
    permit: Option<FillPermit>,
}

impl ChangedRows {
    /// Returns the list before its changes. The ids are ordered.
    pub(super) fn new(list: Arc<ChunkedList>, ids: Vec<i64>, limit: FillLimit) -> Self {
        Self { list, ids, position: 0, batch: Vec::new(), batch_bytes: 0, limit, permit: None }
    }

    /// Returns the ids of the rows that have changed.
    pub(super) fn ids(&self) -> &[i64] {
        &self.ids
    }

    /// Adds the next row, which `write_json` writes. Rows with smaller ids that have not been added are deleted.
    pub(super) async fn push(&mut self, id: i64, write_json: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        self.delete_until(|deleted| deleted < id);
        self.position += 1;
        let mut json = Vec::new();
        write_json(&mut json);
        self.batch_bytes += json.len();
        self.batch.push(RowChange { id, json: Some(json.into()) });
        if self.batch_bytes > BATCH_BYTES { self.apply().await } else { Ok(()) }
    }

    /// Adds the end: rows that have not been added are deleted.
    pub(super) async fn apply_rest(&mut self) -> Result<()> {
        self.delete_until(|_| true);
        if self.batch.is_empty() { Ok(()) } else { self.apply().await }
    }

    /// Returns the changed list, and the permit of large changes.
    pub(super) fn finish(self) -> (FillContent, Option<FillPermit>) {
        (FillContent::chunked(self.list, &self.limit), self.permit)
    }

    fn delete_until(&mut self, is_deleted: impl Fn(i64) -> bool) {
        let ids = self.ids[self.position..].iter().take_while(|id| is_deleted(**id));
        let deleted = self.batch.len();
        self.batch.extend(ids.map(|id| RowChange { id: *id, json: None }));
        self.position += self.batch.len() - deleted;
    }

    async fn apply(&mut self) -> Result<()> {
        if self.permit.is_none() {
            self.permit = self.limit.acquire(self.batch_bytes.max(self.ids.len() * ROW_BYTES)).await?;
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
