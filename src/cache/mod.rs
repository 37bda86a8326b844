//! The cache: responses in memory and in Redis, keyed by the version of the catalogue that they show.
//!
//! An entry is immutable and stored under the version that the database returned in the same snapshot as the rows. A
//! request uses only entries under the version that the database returned after the request had arrived. Entries are
//! never invalidated, so no invalidation can be missed.

mod change_pages;
mod chunked_fill;
mod chunks;
mod codec;
mod count_cache;
mod counters;
mod entry;
mod export_files;
mod fill;
mod fill_budget;
mod latest_list;
mod list_cache;
mod memory;
mod redis_cache;
mod single_flight;
mod status;

pub use self::entry::Entry;
pub(crate) use self::{
    change_pages::{ChangePage, ChangePages, FoundPage},
    chunked_fill::ChunkedFill,
    chunks::{ChunkedList, RowChange},
    count_cache::CountCache,
    entry::{Collection, Headers, Key, Layer, List, PageHeaders},
    export_files::{ExportFileCache, File, NewFile},
    fill::{FillContent, FillResult, Previous, blocking_if_large},
    fill_budget::{FillLimit, FillPermit, ListBuffer, UNCOUNTED_FILL_BYTES, fill_memory_bytes},
    latest_list::ChunkedEntry,
    list_cache::{Cache, CacheMode, Outcome},
    redis_cache::RedisCache,
    status::cache_status,
};
