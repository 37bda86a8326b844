//! Lists too large to keep: straight from a snapshot to the client, in bounded memory.

use std::sync::Arc;

use bytes::BytesMut;
use futures_util::{StreamExt, pin_mut};
use hyper::{StatusCode, header::HeaderValue};
use tokio::sync::mpsc;

use super::snapshot::{ListRequest, Snapshot};
use crate::{
    app::App,
    auth::User,
    cache::{Cache, Layer, cache_status},
    db::{DbError, pool::Queryable, statements::PRODUCTS_LIST},
    error::{Error, Result},
    http::{
        Body, Representation, Request, Response,
        body::{Chunk, FRAME_BYTES},
        etag::{content_id, etag},
        response::{self, CACHE_STATUS},
    },
    limits::{PERMIT_TIMEOUT, Permit},
    products::product::Product,
    versions::{Version, VersionRead},
};

const STREAMED: &str = "TestShop; fwd=miss; detail=streamed";
/// Everything that was asked for, as it is read.
pub(crate) async fn stream(
    app: &App,
    request: &Request,
    user: &User,
    wanted: ListRequest,
    query: Arc<str>,
) -> Result<Response> {
    // a 304 needs no row
    let known = tag(user.reading.versions().catalogue, &query);
    if response::client_has(request, &known) {
        let reply = response::cached(request, known, Response::default);
        return Ok(match user.reading {
            VersionRead::Current(_) => marked(reply, STREAMED),
            VersionRead::Unverified(_) => marked(reply, cache_status(Layer::Memory, &user.reading)),
        });
    }
    let turn = app.streams.take(user.id, PERMIT_TIMEOUT).await;
    let turn = turn.ok_or_else(|| Error::unavailable("too many large lists at a time"))?;
    // from the primary: on a replica, a replayed change may cancel what has run for long, and the list would be torn
    let snapshot = Snapshot::open(&app.database, &wanted, app.config.export_timeout).await?;
    let (chunks, body) = mpsc::channel(4);
    let reply = response::cached(request, tag(snapshot.version, &query), || {
        let sending = send(snapshot, chunks, Arc::clone(&app.cache), query, turn);
        tokio::spawn(tokio::time::timeout(app.config.export_timeout, sending));
        response::json_bytes(StatusCode::OK, Body::Stream { chunks: body, remaining: None })
    });
    Ok(marked(reply, STREAMED))
}

/// Says where the answer came from.
fn marked(mut reply: Response, from: &'static str) -> Response {
    reply.headers_mut().insert(CACHE_STATUS, HeaderValue::from_static(from));
    reply
}

/// The entity tag of a list that is never whole in one place: by its version, and what it is of it.
fn tag(version: Version, query: &str) -> HeaderValue {
    let name = format!("{}/{}/{query}", version.number, version.token);
    etag(&content_id(name.as_bytes()), Representation::Identity)
}

/// Ends without [`Chunk::End`] when the database fails, and so breaks the connection to the client off.
async fn send(snapshot: Snapshot, chunks: mpsc::Sender<Chunk>, cache: Arc<Cache>, query: Arc<str>, turn: Permit) {
    let Snapshot { client, rows, .. } = snapshot;
    let mut json = Vec::with_capacity(FRAME_BYTES + 4096);
    let mut sent = 0;
    json.push(b'[');
    pin_mut!(rows);
    while let Some(row) = rows.next().await {
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                tracing::warn!(failure = %DbError::of(&PRODUCTS_LIST, error), "a streamed list broke off");
                return;
            }
        };
        if sent + json.len() > 1 {
            json.push(b',');
        }
        Product::from_columns(&row, 0).write_json(&mut json);
        if json.len() >= FRAME_BYTES {
            sent += json.len();
            if chunks.send(Chunk::Data(BytesMut::from(&*json).freeze())).await.is_err() {
                return;
            }
            json.clear();
        }
    }
    json.push(b']');
    cache.note_size(&query, sent + json.len());
    if chunks.send(Chunk::Data(json.into())).await.is_ok() {
        let _ = chunks.send(Chunk::End).await;
    }
    // what comes too late for the client is still the tidy end of a snapshot
    let _ = client.command("commit").await;
    drop(turn);
}
