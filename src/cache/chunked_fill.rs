//! Builds a chunked list from rows as they arrive from the database, within the memory of a fill.

use std::{collections::VecDeque, sync::Arc};

use tokio::task::JoinHandle;

use super::{
    chunks::{Chunk, ChunkedList, MAX_ROWS_BYTES, Rows, build_chunk, drop_json},
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
    /// Whether the JSON of `chunks` is kept: up to the limit of an entry.
    keeps_json: bool,
    /// The memory of `chunks` without their JSON.
    compressed_bytes: usize,
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
            keeps_json: true,
            compressed_bytes: 0,
        }
    }

    /// Returns the size of the JSON of all rows.
    pub(crate) fn json_bytes(&self) -> usize {
        self.json_bytes + self.rows.json_bytes()
    }

    /// Appends a row, which `write_json` writes. Returns whether the list is within the limits.
    pub(crate) async fn push(&mut self, id: i64, write_json: impl FnOnce(&mut Vec<u8>)) -> Result<bool> {
        self.rows.push(id, write_json);
        if self.permit.is_none() {
            self.permit = self.limit.acquire(self.json_bytes()).await?;
        }
        if self.rows.is_complete() {
            self.finish_chunk().await?;
        }
        Ok(self.compressed_bytes <= self.limit.max_chunked_bytes() && self.rows.json_bytes() <= MAX_ROWS_BYTES)
    }

    /// Returns the list, and the permit of a large one.
    pub(crate) async fn finish(mut self) -> Result<(ChunkedList, Option<FillPermit>)> {
        if !self.rows.is_empty() {
            self.finish_chunk().await?;
        }
        while let Some(chunk) = self.compressing.pop_front() {
            self.keep(chunk.await.map_err(Error::internal)?);
        }
        Ok((ChunkedList::new(self.chunks, self.limit.max_bytes()), self.permit))
    }

    async fn finish_chunk(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        self.json_bytes += rows.json_bytes();
        if self.keeps_json && self.json_bytes > self.limit.max_bytes() {
            self.keeps_json = false;
            self.chunks.iter_mut().for_each(drop_json);
        }
        if self.compressing.len() >= MAX_COMPRESSING
            && let Some(chunk) = self.compressing.pop_front()
        {
            self.keep(chunk.await.map_err(Error::internal)?);
        }
        if rows.json_bytes() < BLOCKING_BYTES && self.compressing.is_empty() {
            self.keep(build_compressed(rows, self.previous.as_deref()));
        } else {
            let previous = self.previous.clone();
            let build = move || build_compressed(rows, previous.as_deref());
            self.compressing.push_back(tokio::task::spawn_blocking(build));
        }
        Ok(())
    }

    fn keep(&mut self, mut chunk: Arc<Chunk>) {
        if !self.keeps_json {
            drop_json(&mut chunk);
        }
        self.compressed_bytes += chunk.compressed_bytes();
        self.chunks.push(chunk);
    }
}

/// Returns the chunk of these rows. It is compressed now, while further rows arrive: with many chunks, the first client
/// that accepts gzip would wait for all of them.
fn build_compressed(rows: Rows, previous: Option<&ChunkedList>) -> Arc<Chunk> {
    let chunk = build_chunk(rows, previous);
    chunk.deflated();
    chunk
}
