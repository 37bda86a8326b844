//! Assembles cells to rows, and rows to batches.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    budget::{MemoryBudget, Reservation},
    error::import_error,
};
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
    /// The memory of the rows.
    _memory: Reservation,
    /// The fraction of the file that has been read, from 0 to 1.
    pub(crate) progress: f64,
}

/// A batch is complete with this number of rows or bytes.
const BATCH_ROWS: usize = 1000;
const BATCH_BYTES: usize = 1024 * 1024;
/// Rows and cells of a file, empty cells included: 16 times what an Excel sheet can hold of an export.
const MAX_ROWS: u64 = 1 << 24;
const MAX_CELLS: u64 = 1 << 27;
/// Bytes of all texts in the rows of a file. Cells can share a text, so the file itself may be much smaller.
const MAX_TEXT_BYTES: usize = 2 << 30;
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
    /// The memory of `rows` and `row`.
    memory: Reservation,
    /// The fraction of the file that has been read.
    progress: f64,
    row_count: u64,
    cell_count: u64,
    text_bytes: usize,
    /// Days to add to date numbers.
    date_offset: f64,
}

impl Table {
    pub(crate) fn new(batches: mpsc::Sender<Batch>, budget: &MemoryBudget) -> Self {
        Self {
            batches,
            sheet: None,
            header: None,
            has_header: false,
            row: None,
            rows: Vec::new(),
            memory: budget.reservation("rows"),
            progress: 0.0,
            row_count: 0,
            cell_count: 0,
            text_bytes: 0,
            date_offset: 0.0,
        }
    }

    /// Sets the number of days to add to date numbers, for files that count days from another epoch.
    pub(crate) fn set_date_offset(&mut self, days: f64) {
        self.date_offset = days;
    }

    /// Starts a sheet with its own header. `name` is `None` for the first sheet.
    pub(crate) fn start_sheet(&mut self, name: Option<&str>) -> Result<(), Abort> {
        self.finish_row()?;
        self.header = None;
        self.sheet = name.map(Arc::from);
        Ok(())
    }

    /// Sets the fraction of the file that has been read, from 0 to 1.
    pub(crate) fn set_progress(&mut self, progress: f64) {
        self.progress = progress;
    }

    /// Adds the cell in row `number` (from 1) and `column` (from 0) of the file. Empty cells are ignored.
    pub(crate) fn push_cell(&mut self, number: u32, column: u32, cell: Cell<'static>) -> Result<(), Abort> {
        self.cell_count += 1;
        if self.cell_count > MAX_CELLS {
            return Err(import_error(format!("The file has more than {MAX_CELLS} cells")).into());
        }
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
            self.finish_row()?;
        }
        if self.row.is_none() {
            self.start_row(number, columns)?;
        }
        let Some(row) = &mut self.row else { return Ok(()) };
        match columns.iter().position(|mapped| *mapped == Some(column)) {
            Some(index) => {
                // a cell that occurs twice counts twice
                self.memory.grow(cell.text_bytes())?;
                self.text_bytes = self.text_bytes.saturating_add(cell.text_bytes());
                if self.text_bytes > MAX_TEXT_BYTES {
                    return Err(import_error("The texts of all cells are larger than 2 GiB").into());
                }
                row.cells[index] = Some(match cell {
                    Cell::Number(days) if index == CREATED_AT => Cell::Date(days + self.date_offset),
                    other => other,
                });
            }
            None => row.has_unmapped_cell = true,
        }
        Ok(())
    }

    fn start_row(&mut self, number: u32, columns: [Option<u32>; HEADER.len()]) -> Result<()> {
        self.row_count += 1;
        if self.row_count > MAX_ROWS {
            return Err(import_error(format!("The file has more than {MAX_ROWS} rows")));
        }
        self.memory.grow(size_of::<Row>())?;
        let cells = columns.map(|column| column.map(|_| Cell::text("")));
        self.row = Some(Row { sheet: self.sheet.clone(), number, cells, has_unmapped_cell: false });
        Ok(())
    }

    /// Sends the last batch. Fails if the file has no header.
    pub(crate) fn finish(&mut self) -> Result<(), Abort> {
        if !self.has_header {
            return Err(import_error("The file has no header row").into());
        }
        self.finish_row()?;
        self.progress = 1.0;
        self.flush()
    }

    /// Adds the current row to the batch, and sends the batch if it is full.
    fn finish_row(&mut self) -> Result<(), Abort> {
        self.rows.extend(self.row.take());
        if self.rows.len() >= BATCH_ROWS || self.memory.bytes() >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Abort> {
        let (rows, progress) = (std::mem::take(&mut self.rows), self.progress);
        let batch = Batch { rows, progress, _memory: self.memory.take() };
        self.batches.blocking_send(batch).map_err(|_| Abort::Cancelled)
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
