//! Assembles cells to rows, and rows to batches.
//!
//! The title row of a file or sheet is its first row that is not blank. Rows of blanks are not part of the table.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    budget::{MemoryBudget, Reservation},
    error::import_error,
    header::{Columns, TitleRow},
    numbers::normalize_price,
    options::UnknownColumns,
    row::{Batch, Row},
};
use crate::{
    error::{Error, Result},
    products::files::{
        cells::Cell,
        columns::{CREATED_AT, ID, PRICE},
    },
};

/// A batch is complete with this number of rows or bytes.
const BATCH_ROWS: usize = 1000;
const BATCH_BYTES: usize = 1024 * 1024;
/// Rows and cells of a file, empty cells included: 16 times what an Excel sheet can hold of an export.
const MAX_ROWS: u64 = 1 << 24;
const MAX_CELLS: u64 = 1 << 27;
/// Bytes of all texts in the rows of a file. Cells can share a text, so the file itself may be much smaller.
const MAX_TEXT_BYTES: usize = 2 << 30;

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

/// The titles of the current sheet.
enum Titles {
    /// The title row is not complete.
    Reading(TitleRow),
    Known(Columns),
}

/// Receives the cells of a file, row by row, and sends batches of rows.
pub(crate) struct Table {
    batches: mpsc::Sender<Batch>,
    unknown_columns: UnknownColumns,
    /// The name of the current sheet; `None` in a CSV file.
    sheet: Option<Arc<str>>,
    /// Whether rows name their sheet.
    names_sheet: bool,
    titles: Titles,
    /// Whether any sheet has titles.
    has_titles: bool,
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
    has_decimal_comma: bool,
}

impl Table {
    pub(crate) fn new(batches: mpsc::Sender<Batch>, budget: &MemoryBudget, unknown_columns: UnknownColumns) -> Self {
        Self {
            batches,
            unknown_columns,
            sheet: None,
            names_sheet: false,
            titles: Titles::Reading(TitleRow::default()),
            has_titles: false,
            row: None,
            rows: Vec::new(),
            memory: budget.reservation("rows"),
            progress: 0.0,
            row_count: 0,
            cell_count: 0,
            text_bytes: 0,
            date_offset: 0.0,
            has_decimal_comma: false,
        }
    }

    /// Sets the number of days to add to date numbers, for files that count days from another epoch.
    pub(crate) fn set_date_offset(&mut self, days: f64) {
        self.date_offset = days;
    }

    /// Sets whether the comma in a price may be a decimal point.
    pub(crate) fn set_decimal_comma(&mut self, has_decimal_comma: bool) {
        self.has_decimal_comma = has_decimal_comma;
    }

    /// Starts a sheet with its own titles. `names_sheet` is whether the errors of its rows name it.
    pub(crate) fn start_sheet(&mut self, name: &str, names_sheet: bool) -> Result<(), Abort> {
        self.finish_row()?;
        self.titles = Titles::Reading(TitleRow::default());
        (self.sheet, self.names_sheet) = (Some(Arc::from(name)), names_sheet);
        Ok(())
    }

    /// Sets the fraction of the file that has been read, from 0 to 1.
    pub(crate) fn set_progress(&mut self, progress: f64) {
        self.progress = progress;
    }

    /// Adds the cell in row `number` (from 1) and `column` (from 0) of the file. Empty cells are ignored. The number of
    /// a row must be larger than that of the row before it.
    pub(crate) fn push_cell(&mut self, number: u32, column: u32, cell: Cell<'static>) -> Result<(), Abort> {
        self.cell_count += 1;
        if self.cell_count > MAX_CELLS {
            return Err(import_error(format!("The file has more than {MAX_CELLS} cells")).into());
        }
        if cell.is_empty() {
            return Ok(());
        }
        if let Titles::Reading(titles) = &mut self.titles {
            if titles.row == 0 || titles.row == number {
                if !cell.is_blank() {
                    titles.add(number, column, &cell);
                    self.has_titles = true;
                }
                return Ok(());
            }
            self.finish_titles()?;
        }
        if self.row.as_ref().is_some_and(|row| row.number != number) {
            self.finish_row()?;
        }
        Ok(self.add_cell(number, column, cell)?)
    }

    /// Adds a cell below the titles.
    fn add_cell(&mut self, number: u32, column: u32, cell: Cell<'static>) -> Result<()> {
        if self.row.is_none() {
            self.start_row(number)?;
        }
        let (Some(row), Titles::Known(columns)) = (&mut self.row, &self.titles) else { return Ok(()) };
        let Some(index) = columns.index(column) else {
            if row.untitled_column.is_none() && !columns.is_ignored(column) && !cell.is_blank() {
                row.untitled_column = Some(column);
            }
            return Ok(());
        };
        // a cell that occurs twice counts twice
        self.memory.grow(cell.text_bytes())?;
        self.text_bytes = self.text_bytes.saturating_add(cell.text_bytes());
        if self.text_bytes > MAX_TEXT_BYTES {
            return Err(import_error("The texts of all cells are larger than 2 GiB"));
        }
        let is_first = row.cells[index].as_ref().is_none_or(Cell::is_empty);
        row.cells[index] = Some(match cell {
            _ if !is_first => Cell::Unreadable("The row has two cells in this column."),
            Cell::Number(days) if index == CREATED_AT => Cell::Date(days + self.date_offset),
            Cell::Text(text) if index == PRICE => match normalize_price(&text, self.has_decimal_comma) {
                Ok(Some(price)) => Cell::text(price),
                Ok(None) => Cell::Text(text),
                Err(message) => Cell::Unreadable(message),
            },
            Cell::Text(text) if index == ID && self.has_decimal_comma => Cell::text(text.replace(',', ".")),
            other => other,
        });
        Ok(())
    }

    fn start_row(&mut self, number: u32) -> Result<()> {
        self.row_count += 1;
        if self.row_count > MAX_ROWS {
            return Err(import_error(format!("The file has more than {MAX_ROWS} rows")));
        }
        let Titles::Known(Columns { columns, .. }) = &self.titles else { return Ok(()) };
        self.memory.grow(size_of::<Row>())?;
        let cells = columns.map(|column| column.map(|_| Cell::text("")));
        let sheet = if self.names_sheet { self.sheet.clone() } else { None };
        self.row = Some(Row { sheet, number, cells, untitled_column: None });
        Ok(())
    }

    /// Sends the last batch. Fails if the file has no titles.
    pub(crate) fn finish(&mut self) -> Result<(), Abort> {
        if !self.has_titles {
            return Err(import_error("The file has no header row: it is empty").into());
        }
        self.finish_row()?;
        self.progress = 1.0;
        self.flush()
    }

    fn finish_titles(&mut self) -> Result<()> {
        if let Titles::Reading(titles) = &mut self.titles {
            let columns = std::mem::take(titles).finish(self.sheet.as_deref(), self.unknown_columns)?;
            self.titles = Titles::Known(columns);
        }
        Ok(())
    }

    /// Adds the current row to the batch, and sends the batch if it is full.
    fn finish_row(&mut self) -> Result<(), Abort> {
        self.finish_titles()?;
        if let Some(row) = self.row.take() {
            if row.is_blank() {
                self.memory.shrink(size_of::<Row>() + row.text_bytes());
            } else {
                self.rows.push(row);
            }
        }
        if self.rows.len() >= BATCH_ROWS || self.memory.bytes() >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Abort> {
        let (rows, progress) = (std::mem::take(&mut self.rows), self.progress);
        let batch = Batch { rows, progress, _memory: self.memory.take() };
        self.batches.blocking_send(batch).map_err(|_| Abort::Cancelled)
    }
}
