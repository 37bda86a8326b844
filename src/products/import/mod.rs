//! The import: creates and updates products from a file that has the columns of the export.
//!
//! `handler` spools the upload to disk, and `content` recognizes its format by its bytes; `form` finds it in a form.
//! `reader` parses the file on a blocking thread (`csv`, `xlsx`), `table` assembles its cells to batches of rows,
//! `batches` and `diff` compare each row with the stored product, and `transaction` stages the changes in a temporary
//! table and merges them in one statement; `run` repeats it when it conflicts with other transactions. All of it is
//! one transaction: an import that fails or is cancelled changes nothing. `budget` limits the memory of all of it.
//!
//! A cell that holds what the export writes for the stored product is no change, even where the value is truncated or
//! would be rejected today. So the export of any catalogue is imported as unchanged.

mod batches;
mod budget;
mod cancel;
mod categories;
mod content;
mod created_at;
mod csv;
mod decode;
mod diff;
mod error;
mod file_range;
mod form;
mod handler;
mod header;
mod numbers;
mod options;
mod place;
mod reader;
mod report;
mod row;
mod run;
mod seen_ids;
mod table;
mod transaction;
mod upload;
mod upload_type;
mod xlsx;

pub(crate) use content::Content;
pub(crate) use file_range::FileRange;
pub(crate) use handler::import;
pub(crate) use options::{ImportOptions, UnknownColumns};
pub(crate) use report::Report;
pub(crate) use run::{Outcome, run};
pub(crate) use upload::Upload;
pub(crate) use upload_type::charset_of_label;
