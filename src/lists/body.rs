//! The bodies of cached lists, within the response budget.
//!
//! If the budget is exhausted, a body takes only the memory of a download: it is sent while its bytes are in memory for
//! another reason, and aborted when the cache drops them.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::{
    app::App,
    cache::{ChunkedEntry, Entry, List},
    error::{Error, Result},
    http::{
        Body, Representation,
        body::{FRAME_BYTES, IncompleteBody},
    },
    limits::{Client, Permit},
};

/// Returns the body of an entry.
pub(super) fn entry_body(app: &App, client: Client, list: &List, entry: &Arc<Entry>) -> Result<Body> {
    if let Some(bytes) = app.response_budget.reserve(client, &entry.bytes) {
        return Ok(Body::Full(bytes));
    }
    if !app.cache.can_store(list, entry) {
        return Err(budget_exhausted());
    }
    let permit = download_permit(app, client)?;
    let frames = frames_while_cached(Arc::downgrade(entry), permit);
    Ok(Body::from_frames(Box::new(frames), entry.bytes.len()))
}

/// Returns the body of a list in chunks. The chunks that another response reads cost nothing.
pub(super) fn chunked_body(
    app: &App,
    client: Client,
    entry: &ChunkedEntry,
    representation: Representation,
) -> Result<Body> {
    let list = &entry.list;
    let bytes = list.body_bytes(representation);
    if let Some(chunks) = app.response_budget.reserve_parts(client, &list.body_chunks(representation)) {
        let parts = list.body(representation, chunks);
        return if list.is_inflated(representation) {
            Ok(Body::from_frames(parts, bytes))
        } else {
            parts.collect::<Result<_, _>>().map(Body::Slices).map_err(Error::internal)
        };
    }
    if !app.cache.is_latest(entry) {
        return Err(budget_exhausted());
    }
    let permit = download_permit(app, client)?;
    let mut frames = list.weak_body(representation);
    let frames = std::iter::from_fn(move || {
        let _held = &permit;
        frames.next()
    });
    Ok(Body::from_frames(Box::new(frames), bytes))
}

fn budget_exhausted() -> Error {
    Error::unavailable("response budget exhausted")
}

fn download_permit(app: &App, client: Client) -> Result<Permit> {
    app.download_permits.try_acquire(client).ok_or_else(budget_exhausted)
}

/// Returns the frames of an entry, and an error once the entry has been dropped.
fn frames_while_cached(entry: Weak<Entry>, permit: Permit) -> impl Iterator<Item = Result<Bytes, IncompleteBody>> {
    (0..).map_while(move |index| {
        let _held = &permit;
        // a copy: a slice would keep the whole entry in memory
        let copy_frame = |entry: Arc<Entry>| entry.bytes.chunks(FRAME_BYTES).nth(index).map(Bytes::copy_from_slice);
        entry.upgrade().map_or(Some(Err(IncompleteBody)), |entry| copy_frame(entry).map(Ok))
    })
}
