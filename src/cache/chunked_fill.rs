//! Builds a chunked list from rows as they arrive from the database, within the memory of a fill.

use std::{collections::VecDeque, sync::Arc};

use tokio::task::JoinHandle;

use super::{
    chunks::{Chunk, ChunkedList, MAX_ROWS_BYTES, Rows, build_chunk},
    fill_budget::{FillLimit, FillPermit},
};
use crate::error::{Error, Result};

/// Chunks that are compressed at the same time, while further rows arrive.
const MAX_COMPRESSING: usize = 2;
/// Chunks of fewer bytes are compressed at once: a thread would take as long to start.
const BLOCKING_BYTES: usize = 64 << 10;

/// A chunked list that is being loaded.
#[derive(Debug)]
pub(crate) struct ChunkedFill {
    /// The list of an earlier version, whose equal chunks are shared.
    previous: Option<Arc<ChunkedList>>,
    limit: FillLimit,
    permit: Option<FillPermit>,
    chunks: Vec<Arc<Chunk>>,
    /// The chunks after these, being compressed in this order.
    compressing: VecDeque<JoinHandle<Arc<Chunk>>>,
    /// The rows after these chunks.
    rows: Rows,
    /// The size of the JSON of all rows before `rows`.
    json_bytes: usize,
}

impl ChunkedFill {
    pub(crate) fn new(limit: FillLimit, previous: Option<Arc<ChunkedList>>) -> Self {
        Self {
            previous,
            limit,
            permit: None,
            chunks: Vec::new(),
            compressing: VecDeque::new(),
            rows: Rows::default(),
            json_bytes: 0,
        }
    }

    /// Appends a row, which `write_json` writes. Returns whether the list is within the limit.
    pub(crate) async fn push(&mut self, id: i64, write_json: impl FnOnce(&mut Vec<u8>)) -> Result<bool> {
        self.rows.push(id, write_json);
        if self.permit.is_none() {
            self.permit = self.limit.acquire(self.json_bytes + self.rows.json_bytes()).await?;
        }
        if self.json_bytes + self.rows.json_bytes() > self.limit.max_bytes().min(MAX_ROWS_BYTES) {
            return Ok(false);
        }
        if self.rows.is_complete() {
            self.finish_chunk().await?;
        }
        Ok(true)
    }

    /// Returns the list, and the permit of a large one.
    pub(crate) async fn finish(mut self) -> Result<(ChunkedList, Option<FillPermit>)> {
        if !self.rows.is_empty() {
            self.finish_chunk().await?;
        }
        while let Some(chunk) = self.compressing.pop_front() {
            self.chunks.push(chunk.await.map_err(Error::internal)?);
        }
        Ok((ChunkedList::new(self.chunks, usize::MAX), self.permit))
    }

    async fn finish_chunk(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        self.json_bytes += rows.json_bytes();
        if self.compressing.len() >= MAX_COMPRESSING
            && let Some(chunk) = self.compressing.pop_front()
        {
            self.chunks.push(chunk.await.map_err(Error::internal)?);
        }
        if rows.json_bytes() < BLOCKING_BYTES && self.compressing.is_empty() {
            self.chunks.push(build_chunk(rows, self.previous.as_deref()));
        } else {
            let previous = self.previous.clone();
            self.compressing.push_back(tokio::task::spawn_blocking(move || build_chunk(rows, previous.as_deref())));
        }
        Ok(())
    }
}
