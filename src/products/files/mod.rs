//! The file formats of export and import: columns, typed cells, CSV and XLSX.

pub(crate) mod cells;
pub(crate) mod columns;
pub(crate) mod csv;
pub(crate) mod format;
pub(crate) mod serial;
pub mod xlsx;
