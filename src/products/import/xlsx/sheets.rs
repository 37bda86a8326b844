//! Access to the sheets of a workbook.

use super::{
    package::Package,
    sheet::Sheet,
    workbook::{SheetEntry, Workbook},
};
use crate::{
    error::{Error, Result},
    products::import::{budget::MemoryBudget, cancel::Limit, error::import_error, place::sheet_name},
};

/// Applies to the sum of all sheets.
const SHEETS_LIMIT: Limit = Limit { bytes: 2 << 30, exceeded: "The sheets of the file are larger than 2 GiB" };

/// The sheets of a workbook, which are read one after the other within [`SHEETS_LIMIT`].
pub(super) struct Sheets {
    package: Package,
    pub(super) workbook: Workbook,
    /// The unpacked bytes that may still be read.
    remaining: u64,
}

impl Sheets {
    pub(super) fn read(mut package: Package, budget: &MemoryBudget) -> Result<Self> {
        let workbook = Workbook::read(&mut package, budget)?;
        Ok(Self { package, workbook, remaining: SHEETS_LIMIT.bytes })
    }

    /// Calls `read` with the sheet of this number, from 0.
    pub(super) fn with_sheet<T, E: From<Error>>(
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
