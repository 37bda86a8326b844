//! Reads the rows of a workbook (ECMA-376, part 1: SpreadsheetML).
//!
//! Uses no workbook library, because such libraries allocate what a file declares to contain: a file of one kilobyte
//! can exhaust the memory.

mod package;
mod part;
mod relationships;
mod select;
mod sheet;
mod sheets;
mod text;
mod workbook;

use self::{package::Package, select::select_sheets, sheets::Sheets};
use super::{
    budget::MemoryBudget,
    cancel::CancellationToken,
    file_range::FileRange,
    table::{Abort, Table},
};

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
            Ok::<_, Abort>(sheet.finish()?)
        })?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for a progress bar")]
fn as_f64(sheets: usize) -> f64 {
    sheets as f64
}
