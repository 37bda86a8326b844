//! The product list: what can be asked of it, how it is read, and how it is sent.

mod cursor;
mod filter;
mod handler;
mod load;
mod pagination_headers;
pub(crate) mod params;
pub(crate) mod query;
pub(crate) mod snapshot;
mod sql;
mod stream;

pub(crate) use handler::list;
