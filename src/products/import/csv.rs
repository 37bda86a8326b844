//! Reads the rows of a CSV file.

use std::{fs::File, io::BufReader, os::unix::fs::FileExt, sync::Arc};

use csv::{ByteRecord, ReaderBuilder};

use super::{
    cancel::{Cancel, CancellableFile, Limited},
    error::malformed,
    table::{Abort, Table},
};
use crate::{error::Error, products::files::cells::Cell};

/// Bytes of a row of CSV.
const RECORD_BYTES: u64 = 8 << 20;

#[expect(clippy::cast_precision_loss, reason = "for eyes")]
pub(crate) fn read(file: &Arc<File>, cancel: &Cancel, table: &mut Table) -> Result<(), Abort> {
    let length = file.metadata().map_err(Error::unavailable)?.len().max(1) as f64;
    let source = BufReader::new(CancellableFile::new(file, cancel));
    let mut reader =
        ReaderBuilder::new().has_headers(false).flexible(true).from_reader(Limited::new(source, RECORD_BYTES));
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
