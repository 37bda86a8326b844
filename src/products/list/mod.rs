//! The product list: parsing of its query, and reading from the database.

mod changed_rows;
mod chunked;
mod cursor;
mod filter;
mod handler;
mod ids;
pub(crate) mod list_request;
mod load;
mod pagination_headers;
pub(crate) mod params;
pub(crate) mod query;
mod sample;
mod search;
mod sql;
mod strategy;
mod trigrams;

pub(crate) use handler::list;
