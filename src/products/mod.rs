//! The catalogue's products: the list that is never stale and what can be asked of it, one product, writes, the export.

pub mod csv_table;
mod cursor;
pub mod export;
mod fill;
mod idempotency;
mod input;
mod links;
mod list;
mod one;
mod parameters;
pub mod product;
pub mod seed;
mod select;
pub mod selection;
pub mod snapshot;
mod stream;
pub mod workbook;
mod write;

pub use export::export;
pub use list::list;
pub use one::one;
pub use write::{change, create, delete, replace};
