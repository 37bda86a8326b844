//! `GET /api/products/`: all products, from the cache, or from one statement.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, future::join3, pin_mut};
use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_postgres::RowStream;

use super::{
    product::Product,
    snapshot::{NO_PARAMS, ReadError, SNAPSHOT, Snapshot, Sources, begin_at, version_of},
};
use crate::{
    app::App,
    auth::User,
    cache::{
        Cache, Entry, Filled, Found, Key, Layer, Reading, Representation, Version,
        entry::{content_id, etag},
    },
    db::{
        Connection, Database, Failure, Transaction,
        pool::Verbs,
        statements::{PRODUCTS_LIST, VERSIONS_CATALOGUE},
    },
    error::{Error, Result},
    http::{
        Body, Reply, Request,
        body::{Chunk, FRAME_BYTES},
        reply::{self, CACHE_STATUS},
    },
};

/// A replica that has not given the list by then counts as failed: the primary still has time for it.
const REPLICA_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3);
/// How long a request waits for its turn to stream.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// The list: bytes that stand under the version which the database gave after this request had arrived.
pub async fn list(app: &App, request: Request, user: User) -> Result<Reply> {
    request.no_parameters()?;
    let representation = if request.accepts_gzip() { Representation::Gzip } else { Representation::Identity };
    let key = Key { version: user.reading.versions().catalogue, query: Arc::default(), representation };
    let (sources, wanted, limit) = (Sources::of(app), key.version, app.cache.entry_limit());
    let fill = move || Box::pin(fill(sources.clone(), wanted, limit)) as _;
    match app.cache.get(key, fill).await? {
        (Found::Entry(entry), layer) => Ok(kept(&request, &entry, cache_status(layer, &user.reading))),
        (Found::TooLarge, _) => stream(app, &request, &user).await,
    }
}

fn kept(request: &Request, entry: &Entry, cache_status: &'static str) -> Reply {
    let mut reply = reply::cached(request, entry.etag.clone(), || {
        let mut reply = reply::json_bytes(StatusCode::OK, Body::Full(entry.bytes.clone()));
        if entry.representation == Representation::Gzip {
            reply.headers_mut().insert(header::CONTENT_ENCODING, const { HeaderValue::from_static("gzip") });
        }
        reply
    });
    reply.headers_mut().insert(CACHE_STATUS, HeaderValue::from_static(cache_status));
    reply
}

/// Where the answer came from (RFC 9211).
pub(super) fn cache_status(layer: Layer, reading: &Reading) -> &'static str {
    match (reading, layer) {
        (Reading::Unverified(_), _) => "TestShop; hit; detail=stale",
        (_, Layer::Memory) => "TestShop; hit; detail=memory",
        (_, Layer::Redis) => "TestShop; hit; detail=redis",
        (_, Layer::Database) => "TestShop; fwd=miss; stored",
        (_, Layer::Bypass) => "TestShop; fwd=bypass",
    }
}

/// The whole list and the version that it shows: `wanted` or, from the primary, a later one; also right after a change
/// of the schema.
async fn fill(sources: Sources, wanted: Version, limit: usize) -> Result<Filled> {
    let on_replica = |database: Database| async move {
        let filling = tokio::time::timeout(REPLICA_TIMEOUT, fill_at(&database, wanted, limit)).await;
        filling.map_err(|_| Failure::timed_out(PRODUCTS_LIST.name, REPLICA_TIMEOUT))?
    };
    if let Some(filled) = sources.on_replica(on_replica).await? {
        return Ok(filled);
    }
    match fill_now(sources.primary(), limit).await {
        Err(ReadError::Failure(failure)) if sources.primary().may_pass(&failure) => {
            Ok(fill_now(sources.primary(), limit).await?)
        }
        outcome => Ok(outcome?),
    }
}

/// The present state, in one snapshot: four messages that travel together.
async fn fill_now(database: &Database, limit: usize) -> Result<Filled, ReadError> {
    let transaction = Transaction::on(database, &[&VERSIONS_CATALOGUE, &PRODUCTS_LIST]).await?;
    let (begun, version, rows) = join3(
        transaction.command(SNAPSHOT),
        transaction.rows(&VERSIONS_CATALOGUE, &[]),
        list_rows(transaction.connection()),
    )
    .await;
    begun?;
    let version = version_of(&version?)?;
    finish(transaction, version, rows?, limit).await
}

/// The state at this very version, if the database shows it.
async fn fill_at(database: &Database, wanted: Version, limit: usize) -> Result<Option<Filled>, ReadError> {
    let transaction = Transaction::on(database, &[&VERSIONS_CATALOGUE, &PRODUCTS_LIST]).await?;
    if begin_at(transaction.connection(), wanted).await?.is_none() {
        transaction.finish();
        return Ok(None);
    }
    let rows = list_rows(transaction.connection()).await?;
    finish(transaction, wanted, rows, limit).await.map(Some)
}

async fn list_rows(connection: &Connection) -> Result<RowStream, Failure> {
    let failed = |error| Failure::of(&PRODUCTS_LIST, error);
    let statement = connection.prepare_cached(PRODUCTS_LIST.sql).await.map_err(failed)?;
    connection.query_raw(&statement, NO_PARAMS).await.map_err(failed)
}

async fn finish(
    transaction: Transaction,
    version: Version,
    rows: RowStream,
    limit: usize,
) -> Result<Filled, ReadError> {
    let Some(bytes) = render(rows, limit).await? else {
        // most of the rows are still on their way: the connection is not worth waiting for
        return Ok(Filled { version, bytes: None });
    };
    transaction.command("commit").await?;
    transaction.finish();
    Ok(Filled { version, bytes: Some(bytes) })
}

/// The JSON array, unless it takes more than `limit` bytes.
async fn render(rows: RowStream, limit: usize) -> Result<Option<Bytes>, Failure> {
    let mut json = vec![b'['];
    pin_mut!(rows);
    while let Some(row) = rows.try_next().await.map_err(|error| Failure::of(&PRODUCTS_LIST, error))? {
        if json.len() > 1 {
            json.push(b',');
        }
        Product::from_columns(&row, 0).write_json(&mut json);
        if json.len() > limit {
            return Ok(None);
        }
    }
    json.push(b']');
    Ok(Some(json.into()))
}

/// A list too large to keep: straight from a snapshot to the client, in bounded memory.
async fn stream(app: &App, request: &Request, user: &User) -> Result<Reply> {
    // a 304 needs no row
    let version = user.reading.versions().catalogue;
    if reply::client_has(request, &stream_tag(version)) {
        return Ok(reply::cached(request, stream_tag(version), Reply::default));
    }
    let permit = tokio::time::timeout(PATIENCE, Arc::clone(&app.streams).acquire_owned()).await;
    let Ok(Ok(permit)) = permit else { return Err(Error::unavailable("too many large lists at a time")) };
    // from the primary: on a replica, a replayed change may cancel what has run for long, and the list would be torn
    let snapshot = Snapshot::open(&app.database, app.config.export_timeout).await?;
    let (chunks, body) = mpsc::channel(4);
    let mut reply = reply::cached(request, stream_tag(snapshot.version), || {
        let sending = send(snapshot, chunks, Arc::clone(&app.cache), permit);
        tokio::spawn(tokio::time::timeout(app.config.export_timeout, sending));
        reply::json_bytes(StatusCode::OK, Body::Stream { chunks: body, remaining: None })
    });
    reply.headers_mut().insert(CACHE_STATUS, const { HeaderValue::from_static("TestShop; fwd=miss; detail=streamed") });
    Ok(reply)
}

/// The entity tag of a list that is never whole in one place: by its version.
fn stream_tag(version: Version) -> HeaderValue {
    etag(&content_id(format!("{}/{}", version.number, version.token).as_bytes()), Representation::Identity)
}

/// Ends without [`Chunk::End`] when the database fails, and so breaks the connection to the client off.
async fn send(snapshot: Snapshot, chunks: mpsc::Sender<Chunk>, cache: Arc<Cache>, permit: OwnedSemaphorePermit) {
    let Snapshot { client, rows, .. } = snapshot;
    let mut json = Vec::with_capacity(FRAME_BYTES + 4096);
    let mut sent = 0;
    json.push(b'[');
    pin_mut!(rows);
    while let Some(row) = rows.next().await {
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                tracing::warn!(failure = %Failure::of(&PRODUCTS_LIST, error), "a streamed list broke off");
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
    cache.note_size(sent + json.len());
    if chunks.send(Chunk::Data(json.into())).await.is_ok() {
        let _ = chunks.send(Chunk::End).await;
    }
    // what comes too late for the client is still the tidy end of a snapshot
    let _ = client.command("commit").await;
    drop(permit);
}
