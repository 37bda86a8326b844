//! The catalogue's products: the list that is never stale and what can be asked of it, one product, writes, export and
//! import.

mod cell;
pub mod csv_table;
mod cursor;
pub mod export;
mod fill;
pub mod format;
mod idempotency;
pub mod import;
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
pub use import::import;
pub use list::list;
pub use one::one;
pub use write::{change, create, delete, replace};
