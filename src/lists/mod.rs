//! Lists that are served from the cache or, if they are too large for it, streamed from a snapshot of the database.
//!
//! A resource implements [`ListSource`] for its rows and calls [`serve`] in its handler.

mod body;
mod load;
mod serve;
pub(crate) mod snapshot;
mod source;
mod stream;

pub(crate) use self::{
    load::{REPLICA_TIMEOUT, RowList, WriteRow, load_from_any, load_on_primary},
    serve::serve,
    source::ListSource,
};
