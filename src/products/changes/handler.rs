//! `GET /api/products/changes/`: what has changed since the state that a token names.

use std::{sync::Arc, time::Duration};

use hyper::header::{HeaderName, HeaderValue};

use super::{
    page::{empty_page, read_page},
    params::{ChangesQuery, DEFAULT_LIMIT, preferred_wait},
    wait::Waiting,
};
use crate::{
    app::App,
    auth::User,
    cache::{ChangePage, Entry, FillPermit, Headers, blocking_if_large},
    error::{Error, Result},
    http::{Body, Request, Response, response},
    limits::Client,
    versions::{SyncToken, Version},
};

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// A page, with the permit of a large one.
type PermittedPage = (Arc<ChangePage>, Option<FillPermit>);

pub(crate) async fn changes(app: &App, request: Request, user: User) -> Result<Response> {
    let query = ChangesQuery::parse(&request)?;
    let wait = preferred_wait(&request);
    let client = app.client(&user, &request);
    let version = user.versions.versions().catalogue;
    // the route has a longer limit, for requests that wait
    let finding = find_page(app, client, &query, version);
    let found = tokio::time::timeout(app.config.http.request_timeout, finding).await;
    let mut found = found.map_err(|_| Error::unavailable("the changes were not read in time"))??;
    if let (Some((page, _)), Some(1..)) = (&found, wait)
        && page.is_empty
        && !page.has_more
    {
        let waiting = Waiting { app, user: &user, client, since: page.token, limit: query.limit };
        let wait = Duration::from_secs(wait.unwrap_or_default());
        // boxed, so that its state does not enlarge the future of a request that does not wait
        found = Box::pin(waiting.next_page(wait)).await?.map(|page| (page, None));
    }
    let Some((page, permit)) = found else {
        app.change_pages.counters.expired_tokens.inc();
        return Err(Error::SyncTokenExpired);
    };
    let mut response = respond(app, &request, client, version, &page).await?;
    if let Some(seconds) = wait {
        let applied = HeaderValue::try_from(format!("wait={seconds}")).map_err(Error::internal)?;
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    drop(permit);
    Ok(response)
}

/// Returns the page after `since` at `version`, which was read after the request arrived, or at a later one. Returns
/// `None` if the changes are not known.
async fn find_page(app: &App, client: Client, query: &ChangesQuery, version: Version) -> Result<Option<PermittedPage>> {
    let Some(since) = SyncToken::parse(&query.since) else { return Ok(None) };
    let present = SyncToken::of(version);
    if since == present {
        return Ok(Some((Arc::new(empty_page(since)), None)));
    }
    let shared = app.change_pages.latest(since).filter(|page| page.token == present && query.limit >= DEFAULT_LIMIT);
    if let Some(page) = shared {
        return Ok(Some((page, None)));
    }
    let read = read_page(app, client, since, query.limit).await?;
    Ok(read.map(|(page, permit)| (Arc::new(page), permit)))
}

async fn respond(
    app: &App,
    request: &Request,
    client: Client,
    version: Version,
    page: &ChangePage,
) -> Result<Response> {
    let (json, accepts_gzip) = (page.json.clone(), request.accepts_gzip());
    let render = move || {
        let identity = Entry::identity(version, json, Headers::default());
        if accepts_gzip { identity.gzip() } else { identity }
    };
    let entry = blocking_if_large(page.json.len(), render).await?;
    let body = if response::is_not_modified(request, &entry.etag) {
        Body::Empty
    } else {
        let bytes = app.response_budget.reserve(client, &entry.bytes);
        Body::Full(bytes.ok_or_else(|| Error::unavailable("response budget exhausted"))?)
    };
    Ok(response::conditional_json(request, &entry.etag, entry.representation, body))
}
