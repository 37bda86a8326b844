//! Serves a list from the cache, within the response budget.

use std::{sync::Arc, time::Duration};

use hyper::header::HeaderValue;
use tokio::time::timeout;

use super::{
    body::{chunked_body, entry_body},
    snapshot::ReadSources,
    source::ListSource,
    stream::stream,
};
use crate::{
    app::App,
    auth::User,
    cache::{ChunkedEntry, Entry, Key, Layer, List, Outcome, cache_status},
    error::{Error, Result},
    http::{
        Body, Representation, Request, Response,
        response::{self, CACHE_STATUS},
    },
    limits::{PERMIT_TIMEOUT, Permit},
    versions::X_SYNC_TOKEN,
};

/// A request that has waited this long for the list of all products gets it as it is read from the database. The fill
/// goes on.
const FILL_TIMEOUT: Duration = Duration::from_secs(5);

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
    if let Some(entry) = app.cache.get_chunked(&key) {
        return respond_chunked(app, &request, &user, &entry, representation, Layer::Memory);
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
    let representation = key.representation;
    let fill = move |previous| {
        let loading = fill_source.clone().load(sources.clone(), version, limit.clone(), previous);
        let permit = permit.clone();
        Box::pin(async move {
            let _permit = permit;
            loading.await
        }) as _
    };
    let filling = app.cache.get_or_fill(key, fill);
    let filled = if list.is_chunked() { timeout(FILL_TIMEOUT, filling).await } else { Ok(filling.await) };
    let Ok(filled) = filled else {
        return stream(app, &request, &user, &source, list).await;
    };
    match filled? {
        (Outcome::Entry(entry), layer) => respond_cached(app, &request, &user, &list, &entry, layer),
        (Outcome::Chunked(entry), layer) => respond_chunked(app, &request, &user, &entry, representation, layer),
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
    let mut response = respond(request, &entry.etag, entry.representation, body, cache_status(layer, &user.versions));
    entry.headers.insert_into(response.headers_mut());
    if list.is_chunked() {
        response.headers_mut().insert(X_SYNC_TOKEN, entry.sync_token().clone());
    }
    Ok(response)
}

fn respond_chunked(
    app: &App,
    request: &Request,
    user: &User,
    entry: &ChunkedEntry,
    representation: Representation,
    layer: Layer,
) -> Result<Response> {
    let etag = entry.etag(representation);
    let is_not_modified = response::is_not_modified(request, etag);
    let body = if is_not_modified {
        Body::Empty
    } else {
        chunked_body(app, app.client(user, request), entry, representation)?
    };
    let mut response = respond(request, etag, representation, body, cache_status(layer, &user.versions));
    response.headers_mut().insert(X_SYNC_TOKEN, entry.sync_token.clone());
    Ok(response)
}

/// Returns the list, or a 304.
fn respond(
    request: &Request,
    etag: &HeaderValue,
    representation: Representation,
    body: Body,
    cache_status: &'static str,
) -> Response {
    let mut response = response::conditional_json(request, etag, representation, body);
    response.headers_mut().insert(CACHE_STATUS, HeaderValue::from_static(cache_status));
    response
}
