//! Reads the rows of a workbook (ECMA-376, part 1: SpreadsheetML).
//!
//! Uses no workbook library, because such libraries allocate what a file declares to contain: a file of one kilobyte
//! can exhaust the memory.

mod package;
mod part;
mod relationships;
mod select;
mod sheet;
mod text;
mod workbook;

use self::{
    package::Package,
    select::select_sheets,
    sheet::Sheet,
    workbook::{SheetEntry, Workbook},
};
use super::{
    budget::MemoryBudget,
    cancel::{CancellationToken, Limit},
    error::import_error,
    file_range::FileRange,
    place::sheet_name,
    table::{Abort, Table},
};
use crate::error::Result;

/// Applies to the sum of all sheets.
const SHEETS_LIMIT: Limit = Limit { bytes: 2 << 30, exceeded: "The sheets of the file are larger than 2 GiB" };
/// Days from 1899-12-30 to 1904-01-01, the alternative epoch of date numbers.
const EPOCH_1904_OFFSET: f64 = 1462.0;

/// Reads the sheets that hold products.
pub(crate) fn read(
    file: &FileRange,
    budget: &MemoryBudget,
    token: &CancellationToken,
    table: &mut Table,
) -> Result<(), Abort> {
    let package = Package::open(file, token)?;
    let mut sheets = Sheets::read(package, budget)?;
    if sheets.workbook.uses_1904_epoch {
        table.set_date_offset(EPOCH_1904_OFFSET);
    }
    let selected = select_sheets(&mut sheets)?;
    let (count, has_others) = (selected.len(), sheets.workbook.sheets.len() > 1);
    for (index, number) in selected.into_iter().enumerate() {
        let entry = &sheets.workbook.sheets[number];
        table.start_sheet(&entry.name, index > 0 || has_others && !entry.is_products())?;
        sheets.with_sheet(number, |sheet| {
            while let Some((row, column, cell)) = sheet.next()? {
                table.set_progress((as_f64(index) + sheet.progress()) / as_f64(count));
                table.push_cell(row, column, cell)?;
            }
            Ok::<_, Abort>(())
        })?;
    }
    Ok(())
}

/// The sheets of a workbook, which are read one after the other within [`SHEETS_LIMIT`].
struct Sheets {
    package: Package,
    workbook: Workbook,
    /// The unpacked bytes that may still be read.
    remaining: u64,
}

impl Sheets {
    fn read(mut package: Package, budget: &MemoryBudget) -> Result<Self> {
        let workbook = Workbook::read(&mut package, budget)?;
        Ok(Self { package, workbook, remaining: SHEETS_LIMIT.bytes })
    }

    /// Calls `read` with the sheet of this number, from 0.
    fn with_sheet<T, E: From<crate::error::Error>>(
        &mut self,
        number: usize,
        read: impl FnOnce(&mut Sheet<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let SheetEntry { name, path, .. } = &self.workbook.sheets[number];
        let part = self.package.part(path, Limit { bytes: self.remaining, ..SHEETS_LIMIT })?;
        let part = part.ok_or_else(|| import_error(format!("{} is missing in the file", sheet_name(name))))?;
        let mut sheet = Sheet::new(name, part, &self.workbook.shared_strings);
        let result = read(&mut sheet)?;
        self.remaining = sheet.remaining();
        Ok(result)
    }
}

#[expect(clippy::cast_precision_loss, reason = "for a progress bar")]
fn as_f64(sheets: usize) -> f64 {
    sheets as f64
}
