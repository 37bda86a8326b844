//! Serves a list from the cache, within the response budget.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};
use tokio::sync::mpsc;

use super::{snapshot::ReadSources, source::ListSource, stream::stream};
use crate::{
    app::App,
    auth::User,
    cache::{Entry, Key, Layer, List, Outcome, cache_status},
    error::{Error, Result},
    http::{
        Body, Representation, Request, Response,
        body::{Chunk, FRAME_BYTES},
        response::{self, CACHE_STATUS},
    },
    limits::{Client, PERMIT_TIMEOUT, Permit},
};

/// Serves `list` under the catalogue version that was read from the database after the request arrived. `source` is
/// called when memory does not have the list.
pub(crate) async fn serve<S: ListSource>(
    app: &App,
    request: Request,
    user: User,
    list: List,
    source: impl FnOnce() -> S,
) -> Result<Response> {
    let representation = if request.accepts_gzip() { Representation::Gzip } else { Representation::Identity };
    let key = Key { version: user.versions.versions().catalogue, list, representation };
    if let Some(entry) = app.cache.get_from_memory(&key) {
        return respond_cached(app, &request, &user, &key.list, &entry, Layer::Memory);
    }
    // boxed, so that the future of a hit does not contain the larger state of a miss
    Box::pin(load_and_respond(app, request, user, key, source())).await
}

async fn load_and_respond<S: ListSource>(
    app: &App,
    request: Request,
    user: User,
    key: Key,
    source: S,
) -> Result<Response> {
    let (version, list) = (key.version, key.list.clone());
    let permit = fill_permit(app, &request, &user, &list).await?;
    let (sources, limit, fill_source) = (ReadSources::new(app), app.cache.fill_limit(&list), source.clone());
    let fill = move || {
        let loading = fill_source.clone().load(sources.clone(), version, limit.clone());
        let permit = permit.clone();
        Box::pin(async move {
            let _permit = permit;
            loading.await
        }) as _
    };
    match app.cache.get_or_fill(key, fill).await? {
        (Outcome::Entry(entry), layer) => respond_cached(app, &request, &user, &list, &entry, layer),
        (Outcome::TooLarge, _) => stream(app, &request, &user, &source, list).await,
    }
}

/// Acquires the permit for a fill that only this user may need and that may take seconds. A complete list, which all
/// users share, needs none.
async fn fill_permit(app: &App, request: &Request, user: &User, list: &List) -> Result<Option<Arc<Permit>>> {
    if list.is_complete() {
        return Ok(None);
    }
    let permit = app.fill_permits.acquire(app.client(user, request), PERMIT_TIMEOUT).await;
    permit.map(|permit| Some(Arc::new(permit))).ok_or_else(|| Error::unavailable("too many concurrent list fills"))
}

fn respond_cached(
    app: &App,
    request: &Request,
    user: &User,
    list: &List,
    entry: &Arc<Entry>,
    layer: Layer,
) -> Result<Response> {
    let is_not_modified = response::is_not_modified(request, &entry.etag);
    let body = if is_not_modified { Body::Empty } else { entry_body(app, app.client(user, request), list, entry)? };
    let mut response = response::conditional(request, entry.etag.clone(), || {
        let mut response = response::json_bytes(StatusCode::OK, body);
        if entry.representation == Representation::Gzip {
            response.headers_mut().insert(header::CONTENT_ENCODING, const { HeaderValue::from_static("gzip") });
        }
        response
    });
    entry.headers.insert_into(response.headers_mut());
    response.headers_mut().insert(CACHE_STATUS, HeaderValue::from_static(cache_status(layer, &user.versions)));
    Ok(response)
}

/// Returns the bytes of an entry as a body.
///
/// If the response budget is exhausted, the body takes only the memory of a download: it is streamed while the cache
/// holds the entry, and aborted when the cache drops it.
fn entry_body(app: &App, client: Client, list: &List, entry: &Arc<Entry>) -> Result<Body> {
    if let Some(bytes) = app.response_budget.reserve(client, entry) {
        return Ok(Body::Full(bytes));
    }
    let permit = if app.cache.can_store(list, entry) { app.download_permits.try_acquire(client) } else { None };
    let permit = permit.ok_or_else(|| Error::unavailable("response budget exhausted"))?;
    let (chunks, body) = mpsc::channel(1);
    let entry_in_cache = Arc::downgrade(entry);
    tokio::spawn(async move {
        let _permit = permit;
        stream_while_cached(entry_in_cache, chunks).await;
    });
    Ok(Body::Stream { chunks: body, remaining: Some(entry.bytes.len() as u64) })
}

/// Sends the frames of an entry. Ends without [`Chunk::End`] when the entry has been dropped.
async fn stream_while_cached(entry: Weak<Entry>, chunks: mpsc::Sender<Chunk>) {
    for index in 0.. {
        // a copy: a slice would keep the whole entry alive
        let copy_frame = |entry: Arc<Entry>| entry.bytes.chunks(FRAME_BYTES).nth(index).map(Bytes::copy_from_slice);
        let Some(frame) = entry.upgrade().map(copy_frame) else { return };
        let Some(frame) = frame else { break };
        if chunks.send(Chunk::Data(frame)).await.is_err() {
            return;
        }
    }
    let _ = chunks.send(Chunk::End).await;
}
