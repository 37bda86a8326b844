//! The rows of a chunk while it is being built.

use std::ops::Range;

use super::boundary::is_last_row;

/// The caller gives up on a list with a chunk of more bytes.
pub(crate) const MAX_ROWS_BYTES: usize = u32::MAX as usize;

/// A run of rows: their JSON, each after a comma, and their ids in ascending order.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(super) json: Vec<u8>,
    pub(super) index: RowIndex,
}

/// The ids of rows, and the offsets at which their JSON ends.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct RowIndex {
    pub(super) ids: Vec<i64>,
    ends: Vec<u32>,
}

impl Rows {
    /// Appends a row. Its id is greater than those of the rows before; `write_json` appends its JSON.
    pub(crate) fn push(&mut self, id: i64, write_json: impl FnOnce(&mut Vec<u8>)) {
        debug_assert!(self.index.ids.last().is_none_or(|last| *last < id));
        self.json.push(b',');
        write_json(&mut self.json);
        debug_assert!(self.json.len() <= MAX_ROWS_BYTES);
        self.index.ends.push(u32::try_from(self.json.len()).unwrap_or(u32::MAX));
        self.index.ids.push(id);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.index.ids.is_empty()
    }

    /// Returns the size of the JSON.
    pub(crate) fn json_bytes(&self) -> usize {
        self.json.len()
    }

    pub(super) fn last_id(&self) -> i64 {
        self.index.last_id()
    }

    /// Whether the chunk ends after the last of these rows, whatever follows.
    pub(crate) fn is_complete(&self) -> bool {
        self.index.is_complete()
    }
}

impl RowIndex {
    /// Whether the chunk ends after the last row, whatever follows.
    pub(super) fn is_complete(&self) -> bool {
        let Some((last, id)) = self.ids.iter().enumerate().next_back() else { return false };
        let range = self.range(last);
        is_last_row(*id, range.len(), range.end)
    }

    /// Returns the id of the last row; there is one.
    pub(super) fn last_id(&self) -> i64 {
        self.ids.last().copied().unwrap_or(i64::MIN)
    }

    /// Returns the range of a row in the JSON, with the comma before it.
    pub(super) fn range(&self, row: usize) -> Range<usize> {
        let start = row.checked_sub(1).map_or(0, |previous| self.ends[previous]);
        start as usize..self.ends[row] as usize
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.ids.capacity() * size_of::<i64>() + self.ends.capacity() * size_of::<u32>()
    }

    /// Releases unused capacity: the index lives as long as its chunk.
    pub(super) fn shrink(&mut self) {
        self.ids.shrink_to_fit();
        self.ends.shrink_to_fit();
    }
}
