//! Reads the rows of a file, whatever its format, and hands them on in batches.

use std::{fs::File, io::BufReader, os::unix::fs::FileExt, sync::Arc};

use csv::{ByteRecord, ReaderBuilder};
use tokio::sync::mpsc;

use super::{
    package::{Allowed, Cancel, Source},
    sheets,
};
use crate::{
    error::{Error, Result},
    products::{
        cell::Cell,
        format::{Format, HEADER, column::CREATED_AT},
    },
};

/// A row of a table.
pub(super) struct Row {
    /// The sheet, unless it is the first.
    pub(super) sheet: Option<Arc<str>>,
    /// As a spreadsheet numbers it, from 1.
    pub(super) number: u32,
    /// By the columns of [`HEADER`]; `None`: the table has no such column.
    pub(super) cells: [Option<Cell<'static>>; HEADER.len()],
    /// Whether something stands under no title.
    pub(super) stray: bool,
}

/// Some rows.
pub(super) struct Batch {
    pub(super) rows: Vec<Row>,
    /// Which part of the file has been read, from 0 to 1.
    pub(super) read: f64,
}

/// A batch ends after so many rows, or when their texts have so many bytes.
const BATCH_ROWS: usize = 1000;
const BATCH_BYTES: usize = 1024 * 1024;
/// Bytes of a row of CSV.
const RECORD_BYTES: u64 = 8 << 20;
/// Letters that are told of why a file is none, and of a title that nobody knows.
const MAX_WORDS: usize = 300;
const MAX_TITLE: usize = 100;

/// What the client is told of a file that is none.
pub(super) fn malformed(words: impl std::fmt::Display) -> Error {
    let words: String = words.to_string().chars().take(MAX_WORDS).collect();
    Error::Malformed(format!("Import error - {words}."))
}

/// Reads all rows. Ends early, and well, when nobody takes them any more.
pub(super) fn read(file: &Arc<File>, format: Format, batches: mpsc::Sender<Batch>, cancel: &Cancel) -> Result<()> {
    let mut table = Table {
        batches,
        sheet: None,
        titles: None,
        is_titled: false,
        row: None,
        rows: Vec::new(),
        bytes: 0,
        date_shift: 0.0,
    };
    let read = match format {
        Format::Xlsx => sheets::read(file, cancel, &mut table),
        Format::Csv => read_csv(file, cancel, &mut table),
    };
    match read.and_then(|()| table.finish()) {
        Ok(()) | Err(Stop::Left) => Ok(()),
        Err(Stop::Fault(error)) => Err(error),
    }
}

/// Why reading ends before the end.
pub(super) enum Stop {
    /// Nobody takes rows any more.
    Left,
    /// The file is broken.
    Fault(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Fault(error)
    }
}

#[expect(clippy::cast_precision_loss, reason = "for eyes")]
fn read_csv(file: &Arc<File>, cancel: &Cancel, table: &mut Table) -> Result<(), Stop> {
    let length = file.metadata().map_err(Error::unavailable)?.len().max(1) as f64;
    let source = BufReader::new(Source::new(file, cancel));
    let mut reader =
        ReaderBuilder::new().has_headers(false).flexible(true).from_reader(Allowed::new(source, RECORD_BYTES));
    let (mut record, mut breaks) = (ByteRecord::new(), 0);
    loop {
        reader.get_mut().left = RECORD_BYTES;
        if !reader.read_byte_record(&mut record).map_err(malformed)? {
            return Ok(());
        }
        // as a spreadsheet counts: empty lines are rows too, line breaks within a cell are none
        breaks += record.iter().flatten().filter(|byte| **byte == b'\n').count() as u64;
        let mut last = [0];
        file.read_at(&mut last, reader.position().byte().saturating_sub(1)).map_err(Error::unavailable)?;
        // of a line that ends with CR LF, or with the file, the end was not counted yet
        let lines = reader.position().line() - u64::from(last == [b'\n']);
        let number = u32::try_from(lines - breaks).unwrap_or(u32::MAX);
        for (column, bytes) in (0..).zip(&record) {
            let text = std::str::from_utf8(bytes).map_err(|_| malformed(format!("row {number} is not UTF-8")))?;
            table.cell(number, column, Cell::text(text.to_owned()))?;
        }
        table.hand_on_if_full(reader.position().byte() as f64 / length)?;
    }
}

/// Puts cells together to rows. Cells come row by row; the first row of a sheet that holds anything has the titles.
pub(super) struct Table {
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
    /// Dates are counted from another day.
    pub(super) fn shift_dates(&mut self, days: f64) {
        self.date_shift = days;
    }

    /// From here on cells are of another sheet, with titles of its own.
    pub(super) fn begin_sheet(&mut self, name: Option<&str>) {
        self.end_row();
        self.titles = None;
        self.sheet = name.map(Arc::from);
    }

    /// One more cell.
    pub(super) fn cell(&mut self, number: u32, column: u32, cell: Cell<'static>) -> Result<(), Stop> {
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
    pub(super) fn hand_on_if_full(&mut self, read: f64) -> Result<(), Stop> {
        if self.rows.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES { self.hand_on(read) } else { Ok(()) }
    }

    fn end_row(&mut self) {
        self.rows.extend(self.row.take());
    }

    fn hand_on(&mut self, read: f64) -> Result<(), Stop> {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        self.batches.blocking_send(Batch { rows, read }).map_err(|_| Stop::Left)
    }

    fn finish(&mut self) -> Result<(), Stop> {
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
