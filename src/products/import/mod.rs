//! The import: creates and updates products from a file that has the columns of the export.
//!
//! `handler` spools the upload to disk. `reader` parses the file on a blocking thread (`csv`, `xlsx`), `table`
//! assembles its cells to batches of rows, `batches` and `diff` compare each row with the stored product, and
//! `transaction` stages the changes in a temporary table and merges them in one statement; `run` repeats it when it
//! conflicts with other transactions. All of it is one transaction: an import that fails or is cancelled changes
//! nothing. `budget` limits the memory of all of it.
//!
//! A cell that holds what the export writes for the stored product is no change, even where the value is truncated or
//! would be rejected today. So the export of any catalogue is imported as unchanged.

mod batches;
mod budget;
mod cancel;
mod categories;
mod created_at;
mod csv;
mod diff;
mod error;
mod handler;
mod options;
mod reader;
mod report;
mod run;
mod seen_ids;
mod table;
mod transaction;
mod xlsx;

pub(crate) use handler::import;
pub(crate) use options::ImportOptions;
pub(crate) use report::Report;
pub(crate) use run::{Outcome, Upload, run};
