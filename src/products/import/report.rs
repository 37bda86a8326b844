//! The result of an import.

use std::sync::Arc;

use serde::Serialize;

use super::{options::ImportOptions, row::Row};
use crate::error::FieldErrors;

/// Invalid rows that the report lists; further ones are only counted.
const MAX_REPORTED: usize = 1000;
/// Bytes of the messages that the report lists, as JSON.
const MAX_REPORTED_BYTES: usize = 1 << 20;

/// Counts each row of the file in exactly one of `created`, `updated`, `unchanged` and `skipped`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) created: u64,
    pub(crate) updated: u64,
    pub(crate) unchanged: u64,
    pub(crate) skipped: u64,
    /// Categories that the created and updated products needed.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) categories_created: u64,
    /// In the order of the file.
    pub(crate) errors: Vec<RowErrors>,
    #[serde(skip)]
    reported_bytes: usize,
    /// Invalid rows that `errors` does not list.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) errors_omitted: u64,
}

/// The validation errors of one row.
#[derive(Debug, Serialize)]
pub(crate) struct RowErrors {
    /// `None` for the first sheet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sheet: Option<Arc<str>>,
    /// The number that a spreadsheet shows: the first row is 1.
    pub(crate) row: u32,
    #[serde(flatten)]
    pub(crate) errors: FieldErrors,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Report {
    pub(crate) fn add_errors(&mut self, row: &Row, errors: FieldErrors) {
        self.skipped += 1;
        if self.errors.len() < MAX_REPORTED && self.reported_bytes < MAX_REPORTED_BYTES {
            self.reported_bytes += serde_json::to_vec(&errors).map_or(0, |json| json.len());
            self.errors.push(RowErrors { sheet: row.sheet.clone(), row: row.number, errors });
        } else {
            self.errors_omitted += 1;
        }
    }

    /// Returns whether an invalid row rejects the whole file.
    pub(crate) fn is_rejected(&self, options: ImportOptions) -> bool {
        !self.errors.is_empty() && !options.skip_invalid
    }

    /// Counts all rows as skipped, because the import is rolled back.
    pub(crate) fn mark_rolled_back(&mut self) {
        self.skipped += self.created + self.updated + self.unchanged;
        (self.created, self.updated, self.unchanged, self.categories_created) = (0, 0, 0, 0);
    }
}
