//! Building of chunks row by row.

use std::sync::Arc;

use super::{
    chunk::Chunk,
    list::{ChunkedList, RowChange, drop_json},
    rows::Rows,
};

impl ChunkedList {
    /// Returns the list after `changes`, which are ordered by id and name each row once. Chunks with the same rows are
    /// shared.
    pub(crate) fn with_changes(&self, mut changes: &[RowChange], max_json_bytes: usize) -> Self {
        let mut new =
            Builder { previous: self, chunks: Vec::with_capacity(self.chunks().len() + 1), rows: Rows::default() };
        for chunk in self.chunks() {
            let count = changes.partition_point(|change| change.id <= chunk.last_id());
            let (of_chunk, rest) = changes.split_at(count);
            changes = rest;
            // the last chunk may continue with rows after it
            let has_same_end = chunk.is_complete() || rest.is_empty();
            if of_chunk.is_empty() && has_same_end && new.rows.is_empty() {
                new.chunks.push(Arc::clone(chunk));
            } else {
                new.push_changed(chunk, of_chunk);
            }
        }
        changes.iter().for_each(|change| new.push_change(change));
        new.finish(max_json_bytes)
    }

    /// Returns the chunk of these rows if the list has it.
    fn find(&self, rows: &Rows) -> Option<&Arc<Chunk>> {
        let last_id = rows.last_id();
        let index = self.chunks().binary_search_by_key(&last_id, |chunk| chunk.last_id()).ok()?;
        Some(&self.chunks()[index]).filter(|chunk| chunk.has_rows(rows))
    }
}

/// Returns a chunk of `rows`, which must not be empty. If `previous` has a chunk with the same rows, returns that one.
pub(crate) fn build_chunk(rows: Rows, previous: Option<&ChunkedList>) -> Arc<Chunk> {
    let shared = previous.and_then(|list| list.find(&rows)).cloned();
    shared.unwrap_or_else(|| Arc::new(Chunk::new(rows)))
}

/// A changed list that is being built.
struct Builder<'a> {
    previous: &'a ChunkedList,
    chunks: Vec<Arc<Chunk>>,
    /// The rows after the last chunk.
    rows: Rows,
}

impl Builder<'_> {
    /// Appends the rows of a chunk after changes to rows up to its last one.
    fn push_changed(&mut self, chunk: &Chunk, mut changes: &[RowChange]) {
        let json = chunk.to_json();
        for (id, row) in chunk.rows() {
            while let Some((change, rest)) = changes.split_first()
                && change.id < id
            {
                self.push_change(change);
                changes = rest;
            }
            match changes.split_first() {
                Some((change, rest)) if change.id == id => {
                    self.push_change(change);
                    changes = rest;
                }
                _ => self.push(id, &json[row]),
            }
        }
    }

    fn push_change(&mut self, change: &RowChange) {
        if let Some(json) = &change.json {
            self.push(change.id, json);
        }
    }

    fn push(&mut self, id: i64, json: &[u8]) {
        self.rows.push(id, |buffer| buffer.extend_from_slice(json));
        if self.rows.is_complete() {
            self.finish_chunk();
        }
    }

    fn finish_chunk(&mut self) {
        let mut chunk = build_chunk(std::mem::take(&mut self.rows), Some(self.previous));
        if !self.previous.has_json() {
            // now and not at the end: changes everywhere would take the memory of the complete JSON
            drop_json(&mut chunk);
        }
        self.chunks.push(chunk);
    }

    fn finish(mut self, max_json_bytes: usize) -> ChunkedList {
        if !self.rows.is_empty() {
            self.finish_chunk();
        }
        ChunkedList::new(self.chunks, max_json_bytes)
    }
}
