//! What became of the rows of an import.

use std::sync::Arc;

use serde::Serialize;

use super::{options::ImportOptions, table::Row};
use crate::error::FieldErrors;

/// How many faulty rows are told one by one.
const TOLD: usize = 1000;

/// Each row of the file is counted once.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// New products.
    pub(crate) created: u64,
    /// Products of which something changed.
    pub(crate) updated: u64,
    /// Products that are as the file says already.
    pub(crate) unchanged: u64,
    /// Rows that were not taken.
    pub(crate) skipped: u64,
    /// What is wrong with rows, by their place in the file.
    pub(crate) errors: Vec<Fault>,
    /// Faulty rows beyond those that are told.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) errors_omitted: u64,
}

/// What is wrong with one row.
#[derive(Debug, Serialize)]
pub(crate) struct Fault {
    /// The sheet, unless it is the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sheet: Option<Arc<str>>,
    /// The row, as a spreadsheet numbers it: the titles stand in row 1.
    pub(crate) row: u32,
    /// The messages by field.
    #[serde(flatten)]
    pub(crate) errors: FieldErrors,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's way of asking")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Report {
    /// One more faulty row.
    pub(crate) fn fault(&mut self, row: &Row, errors: FieldErrors) {
        self.skipped += 1;
        if self.errors.len() < TOLD {
            self.errors.push(Fault { sheet: row.sheet.clone(), row: row.number, errors });
        } else {
            self.errors_omitted += 1;
        }
    }

    /// Whether a faulty row has refused all.
    pub(crate) fn is_refused(&self, wish: ImportOptions) -> bool {
        !self.errors.is_empty() && !wish.skip_faulty
    }

    /// No row was taken after all.
    pub(crate) fn nothing_taken(&mut self) {
        self.skipped += self.created + self.updated + self.unchanged;
        (self.created, self.updated, self.unchanged) = (0, 0, 0);
    }
}
