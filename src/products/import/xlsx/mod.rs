//! Reads the rows of a workbook (ECMA-376, part 1: SpreadsheetML).
//!
//! Uses no workbook library, because such libraries allocate what a file declares to contain: a file of one kilobyte
//! can exhaust the memory.

mod package;
mod sheet;
mod text;
mod workbook;

use std::{fs::File, sync::Arc};

use self::{package::Package, sheet::Sheet, workbook::Workbook};
use super::{
    budget::MemoryBudget,
    cancel::{CancellationToken, Limit},
    error::import_error,
    table::{Abort, Table},
};

/// Applies to the sum of all sheets.
const SHEETS_LIMIT: Limit = Limit { bytes: 2 << 30, exceeded: "The sheets of the file are larger than 2 GiB" };
/// Days from 1899-12-30 to 1904-01-01, the alternative epoch of date numbers.
const EPOCH_1904_OFFSET: f64 = 1462.0;

/// Reads the sheets `Products`, `Products 2`, ..., or the first visible sheet of a workbook without them.
pub(crate) fn read(
    file: &Arc<File>,
    budget: &MemoryBudget,
    token: &CancellationToken,
    table: &mut Table,
) -> Result<(), Abort> {
    let mut package = Package::open(file, token)?;
    let workbook = Workbook::read(&mut package, budget)?;
    if workbook.uses_1904_epoch {
        table.set_date_offset(EPOCH_1904_OFFSET);
    }
    let count = workbook.sheets.len();
    let mut remaining = SHEETS_LIMIT.bytes;
    for (index, (name, path)) in workbook.sheets.iter().enumerate() {
        table.start_sheet((index > 0).then_some(name))?;
        let part = package.part(path, Limit { bytes: remaining, ..SHEETS_LIMIT })?;
        let part = part.ok_or_else(|| import_error("A sheet of the workbook is missing"))?;
        let mut sheet = Sheet::new(part, &workbook.shared_strings);
        sheet.read(table, |progress| (as_f64(index) + progress) / as_f64(count))?;
        remaining = sheet.remaining();
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for a progress bar")]
fn as_f64(sheets: usize) -> f64 {
    sheets as f64
}
