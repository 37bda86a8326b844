//! Lists that are too large for the cache: streamed from a database snapshot to the client in bounded memory.

use std::sync::Arc;

use bytes::BytesMut;
use futures_util::{StreamExt, pin_mut};
use hyper::{StatusCode, header::HeaderValue};
use tokio::sync::mpsc;

use super::{
    load::{RowList, WriteRow},
    snapshot::Snapshot,
    source::ListSource,
};
use crate::{
    app::App,
    auth::User,
    cache::{Cache, Layer, List, cache_status},
    db::pool::Queryable,
    error::{Error, Result},
    http::{
        Body, Representation, Request, Response,
        body::{Chunk, FRAME_BYTES},
        etag::{FORMAT_VERSION, content_id, etag},
        response::{self, CACHE_STATUS},
    },
    limits::{PERMIT_TIMEOUT, Permit},
    versions::{SyncToken, Version, VersionRead, X_SYNC_TOKEN},
};

const STREAMED: &str = "TestShop; fwd=miss; detail=streamed";

/// Responds with the list as it is read from the database.
pub(crate) async fn stream<S: ListSource>(
    app: &App,
    request: &Request,
    user: &User,
    source: &S,
    list: List,
) -> Result<Response> {
    // a 304 needs no rows
    let current_etag = list_etag(user.versions.versions().catalogue, &list);
    if response::is_not_modified(request, &current_etag) {
        let mut response = response::conditional(request, current_etag, Response::default);
        set_sync_token(&mut response, &list, user.versions.versions().catalogue);
        return Ok(match user.versions {
            VersionRead::Verified(_) => with_cache_status(response, STREAMED),
            VersionRead::Stale(_) => with_cache_status(response, cache_status(Layer::Memory, &user.versions)),
        });
    }
    let permit = app.stream_permits.acquire(app.client(user, request), PERMIT_TIMEOUT).await;
    let permit = permit.ok_or_else(|| Error::unavailable("too many concurrent streamed lists"))?;
    // from the primary: on a replica, the replay of a change may cancel a long query and truncate the list
    let snapshot = source.open(&app.database, app.config.files.export_timeout).await?;
    let (chunks, body) = mpsc::channel(4);
    let (version, streamed_list) = (snapshot.version, list.clone());
    let mut response = response::conditional(request, list_etag(version, &list), || {
        let sending = send_rows(source.rows(), snapshot, chunks, Arc::clone(&app.cache), list, permit);
        tokio::spawn(tokio::time::timeout(app.config.files.export_timeout, sending));
        response::json_bytes(StatusCode::OK, Body::Stream { chunks: body, remaining: None })
    });
    set_sync_token(&mut response, &streamed_list, version);
    Ok(with_cache_status(response, STREAMED))
}

/// Adds the sync token of `version` to a response that shows the list of all products.
fn set_sync_token(response: &mut Response, list: &List, version: Version) {
    if list.is_chunked() {
        response.headers_mut().insert(X_SYNC_TOKEN, SyncToken::of(version).header_value());
    }
}

fn with_cache_status(mut response: Response, status: &'static str) -> Response {
    response.headers_mut().insert(CACHE_STATUS, HeaderValue::from_static(status));
    response
}

/// Returns the entity tag of a streamed list. It is derived from format, version and list, because the complete bytes
/// are never in memory to be hashed.
fn list_etag(version: Version, List { collection, query }: &List) -> HeaderValue {
    let Version { number, token } = version;
    let name = format!("{FORMAT_VERSION}/{}/{number}/{token}/{query}", collection.name());
    etag(&content_id(name.as_bytes()), Representation::Identity)
}

/// Sends the rows as JSON. Ends without [`Chunk::End`] when the database fails, which aborts the response.
async fn send_rows(
    row_list: RowList<impl WriteRow>,
    snapshot: Snapshot,
    chunks: mpsc::Sender<Chunk>,
    cache: Arc<Cache>,
    list: List,
    permit: Permit,
) {
    let Snapshot { client, rows, .. } = snapshot;
    let mut json = Vec::with_capacity(FRAME_BYTES + 4096);
    let mut sent_bytes = 0;
    json.push(b'[');
    pin_mut!(rows);
    while let Some(row) = rows.next().await {
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                tracing::warn!(error = %row_list.error(error), "streamed list aborted");
                return;
            }
        };
        if sent_bytes + json.len() > 1 {
            json.push(b',');
        }
        (row_list.write_json)(&row, &mut json);
        if json.len() >= FRAME_BYTES {
            sent_bytes += json.len();
            if chunks.send(Chunk::Data(BytesMut::from(&*json).freeze())).await.is_err() {
                return;
            }
            json.clear();
        }
    }
    json.push(b']');
    cache.record_size(&list, sent_bytes + json.len());
    if chunks.send(Chunk::Data(json.into())).await.is_ok() {
        let _ = chunks.send(Chunk::End).await;
    }
    // the client has all rows; the commit only ends the snapshot cleanly
    let _ = client.run_command("commit").await;
    drop(permit);
}
