//! `GET /api/products/export/`: the products that the query selects, as XLSX or CSV.
//!
//! A file is built once per version, query and format, and then served from disk. It is complete before its first byte
//! is sent: a slow client holds neither a snapshot nor a thread, and a failure is a 503 instead of a truncated file.
//! (The workbook writer spools all rows to disk before it can write the first byte of the zip anyway.)

use std::{io, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use tokio::sync::mpsc;

use super::{
    build::{Built, Output, build_on_any},
    etag::export_etag,
    request::ExportRequest,
};
use crate::{
    app::App,
    auth::UserAllowStale,
    cache::{File, Layer, NewFile, cache_status},
    error::{Error, Result},
    http::{
        Body, Request, Response,
        body::{Chunk, FRAME_BYTES},
        response::{self, CACHE_STATUS},
    },
    limits::{Client, PERMIT_TIMEOUT, Permit},
    lists::snapshot::ReadSources,
    products::{
        files::format::{FileFormat, OCTET_STREAM_MEDIA_TYPE, XLSX_MEDIA_TYPE},
        list::list_request::ListRequest,
    },
    versions::Version,
};

/// Returns whether the client accepts the file as bytes of any format only. The clients of some generators read a
/// response as bytes only if it is declared as `application/octet-stream`.
fn accepts_only_octet_stream(request: &Request, format: FileFormat) -> bool {
    request.header(&header::ACCEPT).is_some_and(|accepted| {
        accepted.contains(OCTET_STREAM_MEDIA_TYPE) && !accepted.contains('*') && !accepted.contains(format.media_type())
    })
}

fn headers(request: &Request, format: FileFormat) -> [(HeaderName, HeaderValue); 2] {
    let (content_type, disposition) = match format {
        FileFormat::Xlsx => (XLSX_MEDIA_TYPE, "attachment; filename=\"products.xlsx\""),
        FileFormat::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"products.csv\""),
    };
    let content_type = if accepts_only_octet_stream(request, format) { OCTET_STREAM_MEDIA_TYPE } else { content_type };
    [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static(disposition)),
    ]
}

pub(crate) async fn export(app: &App, request: Request, UserAllowStale(user): UserAllowStale) -> Result<Response> {
    let export = ExportRequest::parse(request.query())?;
    let (text, layout) = (export.text(), export.layout);
    let (version, client) = (user.versions.versions().catalogue, app.client(&user, &request));
    let name = file_name(version, &text);
    if let Some(file) = app.export_cache.get(&name) {
        let is_not_modified = response::is_not_modified(&request, &file.etag);
        let permit = if is_not_modified { None } else { Some(download_permit(app, client).await?) };
        return Ok(respond(&request, file, permit, layout.format, cache_status(Layer::Memory, &user.versions)));
    }
    let permit = download_permit(app, client).await?;
    let wanted = ListRequest { query: Arc::new(export.query), count_cache: Arc::clone(&app.count_cache) };
    let (build_permits, sources) = (Arc::clone(&app.export_permits), ReadSources::new(app));
    let (dir, timeout) = (app.export_cache.dir().to_owned(), app.config.files.export_timeout);
    let build = move || async move {
        let permit =
            build_permits.try_acquire(client).ok_or_else(|| Error::unavailable("too many concurrent exports"))?;
        let building = build_on_any(&sources, version, &wanted, Output { dir, layout }, timeout, permit);
        let built = tokio::time::timeout(timeout, building).await;
        let Built { version, rows, file } =
            built.map_err(|_| Error::unavailable(format!("export not built within {timeout:?}")))??;
        Ok(NewFile { name: file_name(version, &text), etag: export_etag(&rows, &text), file })
    };
    let file = app.export_cache.get_or_create(name, build).await?;
    Ok(respond(&request, file, Some(permit), layout.format, cache_status(Layer::Database, &user.versions)))
}

/// Returns the cache key of a file: the version that it shows, and the normalised request.
fn file_name(Version { number, token }: Version, request: &str) -> String {
    format!("{number}-{token}?{request}")
}

async fn download_permit(app: &App, client: Client) -> Result<Permit> {
    let permit = app.download_permits.acquire(client, PERMIT_TIMEOUT).await;
    permit.ok_or_else(|| Error::unavailable("too many concurrent export downloads"))
}

/// Returns the file, or 304 when the client has it. `permit` is held until the file is sent.
fn respond(
    request: &Request,
    file: Arc<File>,
    permit: Option<Permit>,
    format: FileFormat,
    cache_status: &'static str,
) -> Response {
    let mut response = response::conditional(request, file.etag.clone(), || {
        let bytes = file.bytes;
        let (sender, chunks) = mpsc::channel(1);
        tokio::spawn(async move {
            let _permit = permit;
            stream_file(file, sender).await;
        });
        let mut response = Response::new(Body::Stream { chunks, remaining: Some(bytes) });
        response.headers_mut().extend(headers(request, format));
        response
    });
    let headers = response.headers_mut();
    headers.insert(CACHE_STATUS, HeaderValue::from_static(cache_status));
    headers.insert(header::VARY, const { HeaderValue::from_static("Accept, Accept-Encoding, Authorization") });
    response
}

/// Sends a file at the pace of the client.
async fn stream_file(file: Arc<File>, chunks: mpsc::Sender<Chunk>) {
    let mut offset = 0;
    while offset < file.bytes {
        let reading = {
            let file = Arc::clone(&file);
            tokio::task::spawn_blocking(move || read_at(&file, offset))
        };
        let bytes = match reading.await.map_err(io::Error::from).flatten() {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(%error, "reading an export file failed");
                return;
            }
        };
        offset += bytes.len() as u64;
        if chunks.send(Chunk::Data(bytes)).await.is_err() {
            return;
        }
    }
    let _ = chunks.send(Chunk::End).await;
}

/// Returns at most [`FRAME_BYTES`].
fn read_at(file: &File, offset: u64) -> io::Result<Bytes> {
    let remaining = usize::try_from(file.bytes - offset).unwrap_or(usize::MAX);
    let mut bytes = vec![0; remaining.min(FRAME_BYTES)];
    file.file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes.into())
}
