//! The catalogue's products: the list that is never stale, one product, writes, the export.

pub mod export;
mod input;
mod list;
mod one;
pub mod product;
pub mod seed;
pub mod snapshot;
pub mod workbook;
mod write;

pub use export::export;
pub use list::list;
pub use one::one;
pub use write::{change, create, delete, replace};
