//! The product list: parsing of its query, reading from the database, and responses.

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
