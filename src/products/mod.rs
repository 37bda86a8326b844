//! Products: the list, its changes, a single product, writes, export and import.

mod changed;
pub(crate) mod changes;
pub(crate) mod export;
pub mod fields;
pub mod files;
mod get;
mod idempotency;
pub(crate) mod import;
mod input;
pub(crate) mod list;
pub mod product;
pub(crate) mod seed;
mod write;

pub(crate) use changes::{MAX_WAIT, changes, events};
pub(crate) use export::export;
pub(crate) use get::get;
pub(crate) use import::import;
pub(crate) use list::list;
pub(crate) use write::{create, delete, partial_update, update};
