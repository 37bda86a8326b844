//! The import: the catalogue from a file as the export writes it.

mod cancel;
mod csv;
mod diff;
mod error;
mod handler;
mod options;
mod reader;
mod report;
mod table;
mod transaction;
mod xlsx;
mod zip;

pub(crate) use handler::import;
pub(crate) use options::ImportOptions;
pub(crate) use report::Report;
pub(crate) use transaction::run;
