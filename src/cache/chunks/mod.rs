//! A complete list as a sequence of chunks, so that a change costs the chunks that it concerns and not the list.
//!
//! A chunk is an immutable run of rows: their JSON, the same compressed, and a digest. The list after a change shares
//! all other chunks with the list before it. Where a chunk ends follows from its rows alone, so equal lists have equal
//! chunks, entity tags and compressed bytes, on every instance and whatever changes led to them.

mod body;
mod boundary;
mod builder;
mod chunk;
mod gzip;
mod list;
mod rows;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    builder::build_chunk,
    chunk::Chunk,
    gzip::{GZIP_LEVEL, compress_array},
    list::{ChunkedList, RowChange, drop_json},
    rows::{MAX_ROWS_BYTES, Rows},
};
