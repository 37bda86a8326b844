//! The file formats that the catalogue is exported to and imported from.

pub(crate) mod cells;
pub(crate) mod columns;
pub(crate) mod csv;
pub(crate) mod format;
pub mod xlsx;
