//! Assembles cells to rows, and rows to batches.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::error::import_error;
use crate::{
    error::{Error, Result},
    products::files::{
        cells::Cell,
        columns::{CREATED_AT, HEADER},
    },
};

pub(crate) struct Row {
    /// `None` for the first sheet.
    pub(crate) sheet: Option<Arc<str>>,
    /// The number that a spreadsheet shows: the first row is 1.
    pub(crate) number: u32,
    /// In the order of [`HEADER`]; `None` for a column that the file does not have.
    pub(crate) cells: [Option<Cell<'static>>; HEADER.len()],
    /// Whether a value is in a column without a title.
    pub(crate) has_unmapped_cell: bool,
}

pub(crate) struct Batch {
    pub(crate) rows: Vec<Row>,
    /// The fraction of the file that has been read, from 0 to 1.
    pub(crate) progress: f64,
}

/// A batch is complete with this number of rows or bytes of text.
const BATCH_ROWS: usize = 1000;
const BATCH_BYTES: usize = 1024 * 1024;
const MAX_TITLE_CHARACTERS: usize = 100;

/// Why reading ends early.
pub(crate) enum Abort {
    /// The receiver of the batches was dropped.
    Cancelled,
    Invalid(Error),
}

impl From<Error> for Abort {
    fn from(error: Error) -> Self {
        Self::Invalid(error)
    }
}

/// Receives the cells of a file, row by row, and sends batches of rows.
pub(crate) struct Table {
    batches: mpsc::Sender<Batch>,
    sheet: Option<Arc<str>>,
    /// The header of the current sheet: its first row that is not empty.
    header: Option<Header>,
    /// Whether any sheet has a header.
    has_header: bool,
    row: Option<Row>,
    rows: Vec<Row>,
    /// Bytes of text in `rows` and `row`.
    bytes: usize,
    /// Days to add to date numbers.
    date_offset: f64,
}

impl Table {
    pub(crate) fn new(batches: mpsc::Sender<Batch>) -> Self {
        Self {
            batches,
            sheet: None,
            header: None,
            has_header: false,
            row: None,
            rows: Vec::new(),
            bytes: 0,
            date_offset: 0.0,
        }
    }

    /// Sets the number of days to add to date numbers, for files that count days from another epoch.
    pub(crate) fn set_date_offset(&mut self, days: f64) {
        self.date_offset = days;
    }

    /// Starts a sheet with its own header. `name` is `None` for the first sheet.
    pub(crate) fn start_sheet(&mut self, name: Option<&str>) {
        self.finish_row();
        self.header = None;
        self.sheet = name.map(Arc::from);
    }

    /// Adds the cell in row `number` (from 1) and `column` (from 0) of the file. Empty cells are ignored.
    pub(crate) fn push_cell(&mut self, number: u32, column: u32, cell: Cell<'static>) -> Result<(), Abort> {
        if cell.is_empty() {
            return Ok(());
        }
        self.has_header = true;
        let header = self.header.get_or_insert(Header { row: number, columns: [None; HEADER.len()] });
        if header.row == number {
            return Ok(header.map_column(column, &cell)?);
        }
        let columns = header.columns;
        if self.row.as_ref().is_some_and(|row| row.number != number) {
            self.finish_row();
        }
        let row = self.row.get_or_insert_with(|| Row {
            sheet: self.sheet.clone(),
            number,
            cells: columns.map(|column| column.map(|_| Cell::text(""))),
            has_unmapped_cell: false,
        });
        match columns.iter().position(|mapped| *mapped == Some(column)) {
            Some(index) => {
                self.bytes += cell.text_bytes();
                row.cells[index] = Some(match cell {
                    Cell::Number(days) if index == CREATED_AT => Cell::Date(days + self.date_offset),
                    other => other,
                });
            }
            None => row.has_unmapped_cell = true,
        }
        Ok(())
    }

    /// Sends the batch if it is full. `progress` is the fraction of the file that has been read.
    pub(crate) fn flush_if_full(&mut self, progress: f64) -> Result<(), Abort> {
        if self.rows.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES { self.flush(progress) } else { Ok(()) }
    }

    /// Sends the last batch. Fails if the file has no header.
    pub(crate) fn finish(&mut self) -> Result<(), Abort> {
        if !self.has_header {
            return Err(import_error("The file has no header row").into());
        }
        self.finish_row();
        self.flush(1.0)
    }

    fn finish_row(&mut self) {
        self.rows.extend(self.row.take());
    }

    fn flush(&mut self, progress: f64) -> Result<(), Abort> {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        self.batches.blocking_send(Batch { rows, progress }).map_err(|_| Abort::Cancelled)
    }
}

/// The header row of a sheet.
struct Header {
    row: u32,
    /// The column of the file for each column of [`HEADER`].
    columns: [Option<u32>; HEADER.len()],
}

impl Header {
    /// Maps the column of the file to the one with the title in `cell`.
    fn map_column(&mut self, column: u32, cell: &Cell<'_>) -> Result<()> {
        let title = if let Cell::Text(text) = cell { text.trim() } else { "" };
        let Some(index) = HEADER.iter().position(|known| known.eq_ignore_ascii_case(title)) else {
            let title: String = title.chars().take(MAX_TITLE_CHARACTERS).collect();
            let known = HEADER.join(", ");
            return Err(import_error(format!("The title \"{title}\" is unknown. The known titles are {known}")));
        };
        if self.columns[index].replace(column).is_some() {
            return Err(import_error(format!("The column \"{}\" occurs twice", HEADER[index])));
        }
        Ok(())
    }
}
