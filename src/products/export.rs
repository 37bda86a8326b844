//! `GET /api/products/export/`: the whole catalogue as a workbook.
//!
//! The file is made once per version and then served from disk. It is finished before its first byte leaves: a client
//! that reads slowly, or never, holds neither a snapshot nor a thread, and a failure is a clear 503 and no torn file.
//! (The workbook's rows are spooled to disk in any case before the first byte of the zip can be written.)

use std::{fs::File as DiskFile, io, os::unix::fs::FileExt, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{TryStreamExt, pin_mut};
use hyper::header::{self, HeaderValue};
use jiff::Timestamp;
use rust_xlsxwriter::XlsxError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_postgres::Row;

use super::{
    list::cache_status,
    product::Product,
    selection::Selection,
    snapshot::{ReadError, Snapshot, Sources, Wanted},
    workbook::{ProductWorkbook, SHEET_ROWS},
};
use crate::{
    app::App,
    auth::User,
    cache::{
        Layer, Representation, Version,
        entry::{content_id, etag},
        files::File,
    },
    db::{Database, Failure, pool::Verbs, statements::PRODUCTS_LIST},
    error::{Error, Result},
    http::{
        Body, Reply, Request,
        body::{Chunk, FRAME_BYTES},
        reply::{self, CACHE_STATUS},
    },
};

const XLSX: HeaderValue = HeaderValue::from_static("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet");
const FILE_NAME: HeaderValue = HeaderValue::from_static("attachment; filename=\"products.xlsx\"");
/// Rows that travel together from the database to the workbook.
const BATCH_ROWS: usize = 256;
/// Batches on their way.
const BATCHES: usize = 4;
/// A database that sends nothing for so long counts as failed.
const SILENCE: Duration = Duration::from_secs(10);
/// Bytes read from disk at a time.
const READ_BYTES: usize = 4 * FRAME_BYTES;

/// The workbook of the present version.
pub async fn export(app: &App, request: Request, user: User) -> Result<Reply> {
    let selection = Selection::of(&request, &[])?;
    let version = user.reading.versions().catalogue;
    let name = file_name(version, &selection);
    if let Some(file) = app.files.get(&name) {
        return Ok(serve(&request, file, cache_status(Layer::Memory, &user.reading)));
    }
    let wanted = Wanted { selection: Arc::new(selection), counts: Arc::clone(&app.counts) };
    let (permits, sources) = (Arc::clone(&app.exports), Sources::of(app));
    let (folder, timeout) = (app.files.folder().to_owned(), app.config.export_timeout);
    let make = move || async move {
        let permit = permits.try_acquire_owned();
        let permit = permit.map_err(|_| Error::unavailable("too many exports at a time"))?;
        let making = make_anywhere(&sources, version, &wanted, folder, timeout, permit);
        let made = tokio::time::timeout(timeout, making).await;
        let (version, file) = made.map_err(|_| Error::unavailable(format!("no export within {timeout:?}")))??;
        Ok((file_name(version, &wanted.selection), file))
    };
    let file = app.files.get_or_make(name, make).await?;
    Ok(serve(&request, file, cache_status(Layer::Database, &user.reading)))
}

/// What a version's file is called. The writer's own version is part of it: another one may write other bytes.
fn file_name(version: Version, selection: &Selection) -> String {
    format!("{}-{}-{}-{}.xlsx", version.number, version.token, env!("CARGO_PKG_VERSION"), selection.key())
}

fn serve(request: &Request, file: Arc<File>, cache_status: &'static str) -> Reply {
    let etag = etag(&content_id(file.name.as_bytes()), Representation::Identity);
    let mut reply = reply::cached(request, etag, || {
        let bytes = file.bytes;
        let (chunks, body) = mpsc::channel(2);
        tokio::spawn(read_out(file, chunks));
        let mut reply = Reply::new(Body::Stream { chunks: body, remaining: Some(bytes) });
        reply.headers_mut().insert(header::CONTENT_TYPE, XLSX);
        reply.headers_mut().insert(header::CONTENT_DISPOSITION, FILE_NAME);
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

/// What travels to the thread that writes the workbook.
enum Batch {
    Rows(Vec<Row>),
    /// All rows were sent. Without this word the sender has failed.
    End,
}

/// Makes the workbook of `version` or, from the primary, of a later one.
async fn make_anywhere(
    sources: &Sources,
    version: Version,
    wanted: &Wanted,
    folder: PathBuf,
    timeout: Duration,
    permit: OwnedSemaphorePermit,
) -> Result<(Version, DiskFile)> {
    let permit = Arc::new(permit);
    let (place, held) = (folder.clone(), Arc::clone(&permit));
    let on_replica = |database: Database| async move {
        let Some(snapshot) = Snapshot::open_at(&database, version, wanted, timeout).await? else { return Ok(None) };
        make(snapshot, place, held, |_| ()).await.map(Some)
    };
    if let Some(made) = sources.on_replica(on_replica).await? {
        return Ok(made);
    }
    let snapshot = Snapshot::open(sources.primary(), wanted, timeout).await?;
    Ok(make(snapshot, folder, permit, |_| ()).await?)
}

/// Makes the workbook of one snapshot, on a thread of its own, and gives the version that it shows. `permit` is held as
/// long as the thread works, which nobody can stop half way; `progress` hears the number of rows from time to time.
pub async fn make(
    snapshot: Snapshot,
    folder: PathBuf,
    permit: impl Send + 'static,
    progress: impl Fn(u64),
) -> Result<(Version, DiskFile), ReadError> {
    let Snapshot { client, version, changed, rows } = snapshot;
    let (batches, inbox) = mpsc::channel(BATCHES);
    let writing = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        write(inbox, &folder, changed)
    });
    let sending = async {
        let mut batch = Vec::with_capacity(BATCH_ROWS);
        let mut count = 0;
        pin_mut!(rows);
        loop {
            let next = tokio::time::timeout(SILENCE, rows.try_next()).await;
            let next = next.map_err(|_| Failure::timed_out(PRODUCTS_LIST.name, SILENCE))?;
            let Some(row) = next.map_err(|error| Failure::of(&PRODUCTS_LIST, error))? else { break };
            batch.push(row);
            if batch.len() == BATCH_ROWS {
                count += BATCH_ROWS as u64;
                progress(count);
                let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH_ROWS));
                if batches.send(Batch::Rows(full)).await.is_err() {
                    // the writer gave up; its own word is the better one
                    return Ok(());
                }
            }
        }
        client.command("commit").await?;
        let _ = batches.send(Batch::Rows(batch)).await;
        let _ = batches.send(Batch::End).await;
        Ok::<_, Failure>(())
    };
    let sent = sending.await;
    drop(batches);
    // the library panics where a row finds no room on the disk
    let written =
        writing.await.map_err(|panic| Error::unavailable(format!("the workbook's writer gave up: {panic}")))?;
    sent?;
    Ok((version, written?))
}

/// The disk is full or may not be written, a row was no row: exports fail, all else goes on.
fn failed(error: XlsxError) -> Error {
    Error::unavailable(format!("the workbook could not be written: {error}"))
}

fn write(mut inbox: mpsc::Receiver<Batch>, folder: &std::path::Path, changed: Timestamp) -> Result<DiskFile> {
    let mut workbook = ProductWorkbook::new(folder, changed, SHEET_ROWS).map_err(failed)?;
    loop {
        match inbox.blocking_recv() {
            Some(Batch::Rows(rows)) => {
                for row in &rows {
                    workbook.write(&Product::from_columns(row, 0)).map_err(failed)?;
                }
            }
            Some(Batch::End) => break,
            None => return Err(Error::unavailable("the rows of an export broke off")),
        }
    }
    let file = tempfile::tempfile_in(folder).map_err(|error| failed(error.into()))?;
    let mut buffered = io::BufWriter::with_capacity(READ_BYTES, &file);
    workbook.save(&mut buffered).map_err(failed)?;
    io::Write::flush(&mut buffered).map_err(|error| failed(error.into()))?;
    drop(buffered);
    Ok(file)
}
