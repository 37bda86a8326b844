//! Rows, as the readers send them.

use std::sync::Arc;

use super::budget::Reservation;
use crate::products::files::{cells::Cell, columns::HEADER};

pub(crate) struct Row {
    /// `None` for the first sheet.
    pub(crate) sheet: Option<Arc<str>>,
    /// The number that a spreadsheet shows: the first row is 1.
    pub(crate) number: u32,
    /// In the order of [`HEADER`]; `None` for a column that the file does not have.
    pub(crate) cells: [Option<Cell<'static>>; HEADER.len()],
    /// A column, from 0, that has no title but a value in this row.
    pub(crate) untitled_column: Option<u32>,
}

impl Row {
    /// Returns whether no cell has a value: such a row is not part of the table.
    pub(crate) fn is_blank(&self) -> bool {
        self.untitled_column.is_none() && self.cells.iter().flatten().all(Cell::is_blank)
    }

    /// Returns the length of all texts in bytes.
    pub(crate) fn text_bytes(&self) -> usize {
        self.cells.iter().flatten().map(Cell::text_bytes).sum()
    }
}

pub(crate) struct Batch {
    pub(crate) rows: Vec<Row>,
    /// The memory of the rows.
    pub(crate) _memory: Reservation,
    /// The fraction of the file that has been read, from 0 to 1.
    pub(crate) progress: f64,
}
