//! `GET /api/products/export/`: the catalogue, or what the query asks of it, as a workbook or as CSV.
//!
//! The file is made once per version and then served from disk. It is finished before its first byte leaves: a client
//! that reads slowly, or never, holds neither a snapshot nor a thread, and a failure is a clear 503 and no torn file.
//! (The workbook's rows are spooled to disk in any case before the first byte of the zip can be written.)

use std::{io, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use tokio::sync::mpsc;

use super::build::{Output, build_on_any};
use crate::{
    app::App,
    auth::{User, UserAllowStale},
    cache::{File, Layer, cache_status},
    error::{Error, Result},
    http::{
        Body, Representation, Request, Response,
        body::{Chunk, FRAME_BYTES},
        etag::{content_id, etag},
        response::{self, CACHE_STATUS},
    },
    limits::{PERMIT_TIMEOUT, Permit},
    products::{
        files::format::{FileFormat, XLSX},
        list::{
            params::ONCE,
            query::ListQuery,
            snapshot::{ListRequest, ReadSources},
        },
    },
    versions::Version,
};

const FORMAT: &str = "format";
/// Bytes read from disk at a time.
const READ_BYTES: usize = 2 * FRAME_BYTES;

/// The format that the query names; a workbook unless it says otherwise.
fn format_of(request: &Request) -> Result<FileFormat> {
    let mut values = request.query().filter(|(name, _)| name == FORMAT).map(|(_, value)| value);
    match (values.next().as_deref(), values.next()) {
        (_, Some(_)) => Err(Error::field(FORMAT, ONCE)),
        (None | Some("xlsx" | ""), _) => Ok(FileFormat::Xlsx),
        (Some("csv"), _) => Ok(FileFormat::Csv),
        (Some(other), _) => Err(Error::field(FORMAT, format!("\"{other}\" is not a valid choice."))),
    }
}

fn headers(format: FileFormat) -> [(HeaderName, HeaderValue); 2] {
    let (content_type, disposition) = match format {
        FileFormat::Xlsx => (XLSX, "attachment; filename=\"products.xlsx\""),
        FileFormat::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"products.csv\""),
    };
    [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static(disposition)),
    ]
}

/// What the query asks for, at the present version, as a file.
pub(crate) async fn export(app: &App, request: Request, UserAllowStale(user): UserAllowStale) -> Result<Response> {
    let selection = ListQuery::of(&request, &[FORMAT])?;
    let format = format_of(&request)?;
    let version = user.reading.versions().catalogue;
    let name = file_name(version, &selection, format);
    if let Some(file) = app.files.get(&name) {
        let turn = if response::client_has(&request, &tag(&name)) { None } else { Some(download(app, &user).await?) };
        return Ok(serve(&request, file, turn, format, cache_status(Layer::Memory, &user.reading)));
    }
    let turn = download(app, &user).await?;
    let wanted = ListRequest { selection: Arc::new(selection), counts: Arc::clone(&app.counts) };
    let (turns, sources) = (Arc::clone(&app.exports), ReadSources::of(app));
    let (folder, timeout) = (app.files.folder().to_owned(), app.config.export_timeout);
    let make = move || async move {
        let permit = turns.try_take(user.id).ok_or_else(|| Error::unavailable("too many exports at a time"))?;
        let place = Output { folder, format };
        let making = build_on_any(&sources, version, &wanted, place, timeout, permit);
        let made = tokio::time::timeout(timeout, making).await;
        let (version, file) = made.map_err(|_| Error::unavailable(format!("no export within {timeout:?}")))??;
        Ok((file_name(version, &wanted.selection, format), file))
    };
    let file = app.files.get_or_make(name, make).await?;
    Ok(serve(&request, file, Some(turn), format, cache_status(Layer::Database, &user.reading)))
}

/// What a version's file is called. The writer's own version is part of it: another one may write other bytes.
fn file_name(version: Version, selection: &ListQuery, format: FileFormat) -> String {
    let Version { number, token } = version;
    format!("{number}-{token}-{}-{}.{}", env!("CARGO_PKG_VERSION"), selection.key(), format.extension())
}

fn tag(name: &str) -> HeaderValue {
    etag(&content_id(name.as_bytes()), Representation::Identity)
}

/// A turn at reading an export.
async fn download(app: &App, user: &User) -> Result<Permit> {
    let turn = app.downloads.take(user.id, PERMIT_TIMEOUT).await;
    turn.ok_or_else(|| Error::unavailable("too many exports are read at a time"))
}

fn serve(
    request: &Request,
    file: Arc<File>,
    turn: Option<Permit>,
    format: FileFormat,
    cache_status: &'static str,
) -> Response {
    let mut reply = response::cached(request, tag(&file.name), || {
        let bytes = file.bytes;
        let (chunks, body) = mpsc::channel(1);
        tokio::spawn(async move {
            let _turn = turn;
            read_out(file, chunks).await;
        });
        let mut reply = Response::new(Body::Stream { chunks: body, remaining: Some(bytes) });
        reply.headers_mut().extend(headers(format));
        reply
    });
    reply.headers_mut().insert(CACHE_STATUS, HeaderValue::from_static(cache_status));
    reply
}

/// Sends a file, at the client's pace.
async fn read_out(file: Arc<File>, chunks: mpsc::Sender<Chunk>) {
    let mut place = 0;
    while place < file.bytes {
        let reading = {
            let file = Arc::clone(&file);
            tokio::task::spawn_blocking(move || read_at(&file, place)).await
        };
        let Ok(Ok(mut bytes)) = reading else {
            tracing::warn!("an export file could not be read");
            return;
        };
        place += bytes.len() as u64;
        while !bytes.is_empty() {
            let frame = bytes.split_to(bytes.len().min(FRAME_BYTES));
            if chunks.send(Chunk::Data(frame)).await.is_err() {
                return;
            }
        }
    }
    let _ = chunks.send(Chunk::End).await;
}

fn read_at(file: &File, place: u64) -> io::Result<Bytes> {
    let left = usize::try_from(file.bytes - place).unwrap_or(usize::MAX);
    let mut bytes = vec![0; left.min(READ_BYTES)];
    file.file.read_exact_at(&mut bytes, place)?;
    Ok(bytes.into())
}
