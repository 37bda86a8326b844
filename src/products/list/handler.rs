//! `GET /api/products/`: all products, or those that the query asks for.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};
use tokio::sync::mpsc;

use super::{
    load::fill,
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

/// The list: bytes that stand under the version which the database gave after this request had arrived.
pub(crate) async fn list(app: &App, request: Request, UserAllowStale(user): UserAllowStale) -> Result<Response> {
    let selection = ListQuery::of(&request, &[])?;
    let representation = if request.accepts_gzip() { Representation::Gzip } else { Representation::Identity };
    let version = user.reading.versions().catalogue;
    let query: Arc<str> = if selection.is_everything() { Arc::default() } else { selection.key().into() };
    let key = Key { version, query, representation };
    if let Some(entry) = app.cache.hit(&key) {
        return kept(app, &request, &user, &key.query, &entry, Layer::Memory);
    }
    // a future of its own: a hit does not pay for the room that a miss needs
    Box::pin(missed(app, request, user, selection, key)).await
}

async fn missed(app: &App, request: Request, user: User, selection: ListQuery, key: Key) -> Result<Response> {
    let (version, query) = (key.version, Arc::clone(&key.query));
    let turn = turn(app, &user, &selection).await?;
    let wanted = ListRequest { selection: Arc::new(selection), counts: Arc::clone(&app.counts) };
    let (sources, limit, asked) = (ReadSources::of(app), app.cache.entry_limit(), wanted.clone());
    let fill = move || {
        let (turn, filling) = (turn.clone(), fill(sources.clone(), version, asked.clone(), limit));
        Box::pin(async move {
            let _turn = turn;
            filling.await
        }) as _
    };
    match app.cache.get(key, fill).await? {
        (Outcome::Entry(entry), layer) => kept(app, &request, &user, &query, &entry, layer),
        (Outcome::TooLarge, _) => stream(app, &request, &user, wanted, query).await,
    }
}

/// A turn at asking the database for something that only this user may want, which may take it seconds; the whole list, which
/// all wait for, needs none.
async fn turn(app: &App, user: &User, selection: &ListQuery) -> Result<Option<Arc<Permit>>> {
    if selection.is_everything() {
        return Ok(None);
    }
    let turn = app.fills.take(user.id, PERMIT_TIMEOUT).await;
    turn.map(|turn| Some(Arc::new(turn))).ok_or_else(|| Error::unavailable("too many lists are made at a time"))
}

fn kept(app: &App, request: &Request, user: &User, query: &str, entry: &Arc<Entry>, layer: Layer) -> Result<Response> {
    let body = if response::client_has(request, &entry.etag) { Body::Empty } else { body(app, user, query, entry)? };
    let mut reply = response::cached(request, entry.etag.clone(), || {
        let mut reply = response::json_bytes(StatusCode::OK, body);
        if entry.representation == Representation::Gzip {
            reply.headers_mut().insert(header::CONTENT_ENCODING, const { HeaderValue::from_static("gzip") });
        }
        reply
    });
    for (name, value) in entry.headers.iter() {
        reply.headers_mut().insert(name.clone(), value.clone());
    }
    reply.headers_mut().insert(CACHE_STATUS, HeaderValue::from_static(cache_status(layer, &user.reading)));
    Ok(reply)
}

/// An entry's bytes. Where too many large lists are on their way already, they are sent as long as the cache has them: a list
/// that changes meanwhile breaks off, and takes no memory.
fn body(app: &App, user: &User, query: &str, entry: &Arc<Entry>) -> Result<Body> {
    if let Some(bytes) = app.lent.lend(user.id, entry) {
        return Ok(Body::Full(bytes));
    }
    if !app.cache.keeps(query, entry) {
        return Err(Error::unavailable("too many lists are read at a time"));
    }
    let (chunks, body) = mpsc::channel(1);
    tokio::spawn(send(Arc::downgrade(entry), chunks));
    Ok(Body::Stream { chunks: body, remaining: Some(entry.bytes.len() as u64) })
}

/// Ends without [`Chunk::End`] when nobody has the list any more.
async fn send(entry: Weak<Entry>, chunks: mpsc::Sender<Chunk>) {
    for place in 0.. {
        // a copy, made at once: a part of it would hold all of it
        let copied = |entry: Arc<Entry>| entry.bytes.chunks(FRAME_BYTES).nth(place).map(Bytes::copy_from_slice);
        let Some(frame) = entry.upgrade().map(copied) else { return };
        let Some(frame) = frame else { break };
        if chunks.send(Chunk::Data(frame)).await.is_err() {
            return;
        }
    }
    let _ = chunks.send(Chunk::End).await;
}
