//! Reads the rows of a CSV file.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt,
    sync::Arc,
};

use csv::{ByteRecord, Position, ReaderBuilder};

use super::{
    cancel::{CancellableFile, CancellationToken, Limit, Limited},
    error::{import_error, read_error},
    table::{Abort, Table},
};
use crate::{
    error::{Error, Result},
    products::files::cells::Cell,
};

/// The longest description takes half of it.
const ROW_LIMIT: Limit = Limit { bytes: 2 << 20, exceeded: "The file contains a row larger than 2 MiB" };
/// Delimiters of a row, those in quotes included. The longest description has fewer. The reader takes up to 24 bytes of
/// memory for each.
const MAX_DELIMITERS: usize = 320 << 10;

/// Fails when a row has too many delimiters.
struct DelimiterLimited<R> {
    inner: R,
    remaining: usize,
}

impl<R> DelimiterLimited<R> {
    fn new(inner: R) -> Self {
        Self { inner, remaining: MAX_DELIMITERS }
    }

    /// Starts counting from zero again.
    fn reset(&mut self) {
        self.remaining = MAX_DELIMITERS;
    }
}

impl<R: Read> Read for DelimiterLimited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let delimiters: usize = buffer[..read].iter().map(|byte| usize::from(*byte == b',')).sum();
        let message = "The file contains a row with too many columns";
        self.remaining = self
            .remaining
            .checked_sub(delimiters)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, message))?;
        Ok(read)
    }
}

#[expect(clippy::cast_precision_loss, reason = "for a progress bar")]
pub(crate) fn read(file: &Arc<File>, token: &CancellationToken, table: &mut Table) -> Result<(), Abort> {
    let length = file.metadata().map_err(Error::unavailable)?.len().max(1) as f64;
    let limited = Limited::new(BufReader::new(CancellableFile::new(file, token)), ROW_LIMIT);
    let source = DelimiterLimited::new(limited);
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(source);
    let (mut record, mut line_breaks_in_cells) = (ByteRecord::new(), 0);
    loop {
        reader.get_mut().reset();
        reader.get_mut().inner.reset();
        if !reader.read_byte_record(&mut record).map_err(csv_error)? {
            return Ok(());
        }
        line_breaks_in_cells += record.iter().flatten().filter(|byte| **byte == b'\n').count() as u64;
        let row = last_line(file, reader.position())? - line_breaks_in_cells;
        let row = u32::try_from(row).unwrap_or(u32::MAX);
        for (column, bytes) in (0..).zip(&record) {
            let text = std::str::from_utf8(bytes).map_err(|_| import_error(format!("Row {row} is not valid UTF-8")))?;
            table.push_cell(row, column, Cell::text(text.to_owned()))?;
        }
        table.set_progress(reader.position().byte() as f64 / length);
    }
}

/// Returns the number of the last line of a record that ends at `end`. Empty lines count, as they do in a spreadsheet.
fn last_line(file: &File, end: &Position) -> Result<u64> {
    let mut last_byte = [0];
    file.read_at(&mut last_byte, end.byte().saturating_sub(1)).map_err(Error::unavailable)?;
    // the reader stops after a line feed, but before the line feed of a CRLF and at the end of the file
    Ok(end.line() - u64::from(last_byte == [b'\n']))
}

fn csv_error(error: csv::Error) -> Error {
    match error.kind() {
        csv::ErrorKind::Io(error) => read_error(error),
        _ => import_error(error),
    }
}
