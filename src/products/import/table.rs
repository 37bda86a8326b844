//! Cells assembled to rows, and rows to batches.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::error::malformed;
use crate::{
    error::{Error, Result},
    products::files::{
        cells::Cell,
        columns::{CREATED_AT, HEADER},
    },
};

/// A row of a table.
pub(crate) struct Row {
    /// The sheet, unless it is the first.
    pub(crate) sheet: Option<Arc<str>>,
    /// As a spreadsheet numbers it, from 1.
    pub(crate) number: u32,
    /// By the columns of [`HEADER`]; `None`: the table has no such column.
    pub(crate) cells: [Option<Cell<'static>>; HEADER.len()],
    /// Whether something stands under no title.
    pub(crate) stray: bool,
}

/// Some rows.
pub(crate) struct Batch {
    pub(crate) rows: Vec<Row>,
    /// Which part of the file has been read, from 0 to 1.
    pub(crate) read: f64,
}

/// A batch ends after so many rows, or when their texts have so many bytes.
const BATCH_ROWS: usize = 1000;
const BATCH_BYTES: usize = 1024 * 1024;
const MAX_TITLE: usize = 100;

/// Why reading ends before the end.
pub(crate) enum Abort {
    /// Nobody takes rows any more.
    Left,
    /// The file is broken.
    Fault(Error),
}

impl From<Error> for Abort {
    fn from(error: Error) -> Self {
        Self::Fault(error)
    }
}

/// Puts cells together to rows. Cells come row by row; the first row of a sheet that holds anything has the titles.
pub(crate) struct Table {
    batches: mpsc::Sender<Batch>,
    sheet: Option<Arc<str>>,
    /// The row of the titles, and which column of the file each of ours is.
    titles: Option<(u32, [Option<u32>; HEADER.len()])>,
    is_titled: bool,
    row: Option<Row>,
    rows: Vec<Row>,
    bytes: usize,
    /// Days that dates are to be moved by.
    date_shift: f64,
}

impl Table {
    pub(crate) fn new(batches: mpsc::Sender<Batch>) -> Self {
        Self {
            batches,
            sheet: None,
            titles: None,
            is_titled: false,
            row: None,
            rows: Vec::new(),
            bytes: 0,
            date_shift: 0.0,
        }
    }

    /// Dates are counted from another day.
    pub(crate) fn shift_dates(&mut self, days: f64) {
        self.date_shift = days;
    }

    /// From here on cells are of another sheet, with titles of its own.
    pub(crate) fn begin_sheet(&mut self, name: Option<&str>) {
        self.end_row();
        self.titles = None;
        self.sheet = name.map(Arc::from);
    }

    /// One more cell.
    pub(crate) fn cell(&mut self, number: u32, column: u32, cell: Cell<'static>) -> Result<(), Abort> {
        if cell.is_empty() {
            return Ok(());
        }
        self.is_titled = true;
        let (title_row, titles) = self.titles.get_or_insert((number, [None; HEADER.len()]));
        if *title_row == number {
            return Ok(title(titles, column, &cell)?);
        }
        let titles = *titles;
        if self.row.as_ref().is_some_and(|row| row.number != number) {
            self.end_row();
        }
        let row = self.row.get_or_insert_with(|| Row {
            sheet: self.sheet.clone(),
            number,
            cells: titles.map(|column| column.map(|_| Cell::text(""))),
            stray: false,
        });
        match titles.iter().position(|title| *title == Some(column)) {
            Some(place) => {
                row.cells[place] = Some(match cell {
                    Cell::Number(days) if place == CREATED_AT => Cell::Date(days + self.date_shift),
                    other => other,
                });
                self.bytes += row.cells[place].as_ref().map_or(0, Cell::bytes);
            }
            None => row.stray = true,
        }
        Ok(())
    }

    /// Hands rows on when there are enough. `read` tells which part of the file has been read.
    pub(crate) fn hand_on_if_full(&mut self, read: f64) -> Result<(), Abort> {
        if self.rows.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES { self.hand_on(read) } else { Ok(()) }
    }

    fn end_row(&mut self) {
        self.rows.extend(self.row.take());
    }

    fn hand_on(&mut self, read: f64) -> Result<(), Abort> {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        self.batches.blocking_send(Batch { rows, read }).map_err(|_| Abort::Left)
    }

    pub(crate) fn finish(&mut self) -> Result<(), Abort> {
        if !self.is_titled {
            return Err(malformed("there is no row of titles").into());
        }
        self.end_row();
        self.hand_on(1.0)
    }
}

fn title(titles: &mut [Option<u32>; HEADER.len()], column: u32, cell: &Cell<'_>) -> Result<()> {
    let text = if let Cell::Text(text) = cell { text.trim() } else { "" };
    let Some(place) = HEADER.iter().position(|title| title.eq_ignore_ascii_case(text)) else {
        let (text, known): (String, _) = (text.chars().take(MAX_TITLE).collect(), HEADER.join(", "));
        return Err(malformed(format!("\"{text}\" is the title of no column; there are {known}")));
    };
    if titles[place].replace(column).is_some() {
        return Err(malformed(format!("the column \"{}\" stands there twice", HEADER[place])));
    }
    Ok(())
}
