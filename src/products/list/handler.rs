//! `GET /api/products/`: all products, or those that the query selects.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};
use tokio::sync::mpsc;

use super::{
    load::load,
    query::ListQuery,
    snapshot::{ListRequest, ReadSources},
    stream::stream,
};
use crate::{
    app::App,
    auth::{User, UserAllowStale},
    cache::{Entry, Key, Layer, Outcome, cache_status},
    error::{Error, Result},
    http::{
        Body, Representation, Request, Response,
        body::{Chunk, FRAME_BYTES},
        response::{self, CACHE_STATUS},
    },
    limits::{PERMIT_TIMEOUT, Permit},
};

/// Serves the list under the catalogue version that was read from the database after the request arrived.
pub(crate) async fn list(app: &App, request: Request, UserAllowStale(user): UserAllowStale) -> Result<Response> {
    let query = ListQuery::parse(&request, &[])?;
    let representation = if request.accepts_gzip() { Representation::Gzip } else { Representation::Identity };
    let version = user.versions.versions().catalogue;
    let query_key: Arc<str> = if query.is_unfiltered() { Arc::default() } else { query.key().into() };
    let key = Key { version, query: query_key, representation };
    if let Some(entry) = app.cache.get_from_memory(&key) {
        return respond_cached(app, &request, &user, &key.query, &entry, Layer::Memory);
    }
    // boxed, so that the future of a hit does not contain the larger state of a miss
    Box::pin(load_and_respond(app, request, user, query, key)).await
}

async fn load_and_respond(app: &App, request: Request, user: User, query: ListQuery, key: Key) -> Result<Response> {
    let (version, query_key) = (key.version, Arc::clone(&key.query));
    let permit = fill_permit(app, &user, &query).await?;
    let list_request = ListRequest { query: Arc::new(query), count_cache: Arc::clone(&app.count_cache) };
    let (sources, max_bytes, fill_request) = (ReadSources::new(app), app.cache.entry_limit(), list_request.clone());
    let fill = move || {
        let (permit, loading) = (permit.clone(), load(sources.clone(), version, fill_request.clone(), max_bytes));
        Box::pin(async move {
            let _permit = permit;
            loading.await
        }) as _
    };
    match app.cache.get_or_fill(key, fill).await? {
        (Outcome::Entry(entry), layer) => respond_cached(app, &request, &user, &query_key, &entry, layer),
        (Outcome::TooLarge, _) => stream(app, &request, &user, list_request, query_key).await,
    }
}

/// Acquires the permit for a fill that only this user may need and that may take seconds. The full list, which all
/// users share, needs none.
async fn fill_permit(app: &App, user: &User, query: &ListQuery) -> Result<Option<Arc<Permit>>> {
    if query.is_unfiltered() {
        return Ok(None);
    }
    let permit = app.fill_permits.acquire(user.id, PERMIT_TIMEOUT).await;
    permit.map(|permit| Some(Arc::new(permit))).ok_or_else(|| Error::unavailable("too many concurrent list fills"))
}

fn respond_cached(
    app: &App,
    request: &Request,
    user: &User,
    query_key: &str,
    entry: &Arc<Entry>,
    layer: Layer,
) -> Result<Response> {
    let is_not_modified = response::is_not_modified(request, &entry.etag);
    let body = if is_not_modified { Body::Empty } else { entry_body(app, user, query_key, entry)? };
    let mut response = response::conditional(request, entry.etag.clone(), || {
        let mut response = response::json_bytes(StatusCode::OK, body);
        if entry.representation == Representation::Gzip {
            response.headers_mut().insert(header::CONTENT_ENCODING, const { HeaderValue::from_static("gzip") });
        }
        response
    });
    for (name, value) in entry.headers.iter() {
        response.headers_mut().insert(name.clone(), value.clone());
    }
    response.headers_mut().insert(CACHE_STATUS, HeaderValue::from_static(cache_status(layer, &user.versions)));
    Ok(response)
}

/// Returns the bytes of an entry as a body.
///
/// If the response budget is exhausted, the body takes no memory of its own: it is streamed while the cache holds the
/// entry, and aborted when the cache drops it.
fn entry_body(app: &App, user: &User, query_key: &str, entry: &Arc<Entry>) -> Result<Body> {
    if let Some(bytes) = app.response_budget.reserve(user.id, entry) {
        return Ok(Body::Full(bytes));
    }
    if !app.cache.can_store(query_key, entry) {
        return Err(Error::unavailable("response budget exhausted"));
    }
    let (chunks, body) = mpsc::channel(1);
    tokio::spawn(stream_while_cached(Arc::downgrade(entry), chunks));
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
