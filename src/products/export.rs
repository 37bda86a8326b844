//! `GET /api/products/export/`: the catalogue, or what the query asks of it, as a workbook or as CSV.
//!
//! The file is made once per version and then served from disk. It is finished before its first byte leaves: a client
//! that reads slowly, or never, holds neither a snapshot nor a thread, and a failure is a clear 503 and no torn file.
//! (The workbook's rows are spooled to disk in any case before the first byte of the zip can be written.)

use std::{fs::File as DiskFile, io, os::unix::fs::FileExt, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{TryStreamExt, pin_mut};
use hyper::header::{self, HeaderName, HeaderValue};
use jiff::Timestamp;
use rust_xlsxwriter::XlsxError;
use tokio::sync::mpsc;
use tokio_postgres::Row;

use super::{
    csv_table::ProductCsv,
    format::{Format, XLSX},
    list::cache_status,
    parameters::ONCE,
    product::Product,
    selection::Selection,
    snapshot::{Snapshot, Sources, Wanted},
    stream::PATIENCE,
    workbook::{ProductWorkbook, SHEET_ROWS},
};
use crate::{
    app::App,
    auth::{Reader, Turn, User},
    cache::{
        Layer, Representation, Version,
        entry::{content_id, etag},
        files::File,
    },
    db::{Database, Failure, Undone, pool::Verbs, statements::PRODUCTS_LIST},
    error::{Error, Result},
    http::{
        Body, Reply, Request,
        body::{Chunk, FRAME_BYTES},
        reply::{self, CACHE_STATUS},
    },
};

const FORMAT: &str = "format";
/// Rows that travel together from the database to the workbook.
const BATCH_ROWS: usize = 256;
/// Batches on their way.
const BATCHES: usize = 4;
/// A database that sends nothing for so long counts as failed.
const SILENCE: Duration = Duration::from_secs(10);
/// Bytes read from disk at a time.
const READ_BYTES: usize = 2 * FRAME_BYTES;

/// The format that the query names; a workbook unless it says otherwise.
fn format_of(request: &Request) -> Result<Format> {
    let mut values = request.query().filter(|(name, _)| name == FORMAT).map(|(_, value)| value);
    match (values.next().as_deref(), values.next()) {
        (_, Some(_)) => Err(Error::field(FORMAT, ONCE)),
        (None | Some("xlsx" | ""), _) => Ok(Format::Xlsx),
        (Some("csv"), _) => Ok(Format::Csv),
        (Some(other), _) => Err(Error::field(FORMAT, format!("\"{other}\" is not a valid choice."))),
    }
}

fn headers(format: Format) -> [(HeaderName, HeaderValue); 2] {
    let (content_type, disposition) = match format {
        Format::Xlsx => (XLSX, "attachment; filename=\"products.xlsx\""),
        Format::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"products.csv\""),
    };
    [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static(disposition)),
    ]
}

/// What the query asks for, at the present version, as a file.
pub async fn export(app: &App, request: Request, Reader(user): Reader) -> Result<Reply> {
    let selection = Selection::of(&request, &[FORMAT])?;
    let format = format_of(&request)?;
    let version = user.reading.versions().catalogue;
    let name = file_name(version, &selection, format);
    if let Some(file) = app.files.get(&name) {
        let turn = if reply::client_has(&request, &tag(&name)) { None } else { Some(download(app, &user).await?) };
        return Ok(serve(&request, file, turn, format, cache_status(Layer::Memory, &user.reading)));
    }
    let turn = download(app, &user).await?;
    let wanted = Wanted { selection: Arc::new(selection), counts: Arc::clone(&app.counts) };
    let (turns, sources) = (Arc::clone(&app.exports), Sources::of(app));
    let (folder, timeout) = (app.files.folder().to_owned(), app.config.export_timeout);
    let make = move || async move {
        let permit = turns.try_take(user.id).ok_or_else(|| Error::unavailable("too many exports at a time"))?;
        let place = Place { folder, format };
        let making = make_anywhere(&sources, version, &wanted, place, timeout, permit);
        let made = tokio::time::timeout(timeout, making).await;
        let (version, file) = made.map_err(|_| Error::unavailable(format!("no export within {timeout:?}")))??;
        Ok((file_name(version, &wanted.selection, format), file))
    };
    let file = app.files.get_or_make(name, make).await?;
    Ok(serve(&request, file, Some(turn), format, cache_status(Layer::Database, &user.reading)))
}

/// What a version's file is called. The writer's own version is part of it: another one may write other bytes.
fn file_name(version: Version, selection: &Selection, format: Format) -> String {
    let Version { number, token } = version;
    format!("{number}-{token}-{}-{}.{}", env!("CARGO_PKG_VERSION"), selection.key(), format.extension())
}

fn tag(name: &str) -> HeaderValue {
    etag(&content_id(name.as_bytes()), Representation::Identity)
}

/// A turn at reading an export.
async fn download(app: &App, user: &User) -> Result<Turn> {
    let turn = app.downloads.take(user.id, PATIENCE).await;
    turn.ok_or_else(|| Error::unavailable("too many exports are read at a time"))
}

fn serve(request: &Request, file: Arc<File>, turn: Option<Turn>, format: Format, cache_status: &'static str) -> Reply {
    let mut reply = reply::cached(request, tag(&file.name), || {
        let bytes = file.bytes;
        let (chunks, body) = mpsc::channel(1);
        tokio::spawn(async move {
            let _turn = turn;
            read_out(file, chunks).await;
        });
        let mut reply = Reply::new(Body::Stream { chunks: body, remaining: Some(bytes) });
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

/// What travels to the thread that writes the workbook.
enum Batch {
    Rows(Vec<Row>),
    /// All rows were sent. Without this word the sender has failed.
    End,
}

/// Where a file is made, and what it becomes.
#[derive(Debug, Clone)]
pub struct Place {
    /// The folder, for the file and for what its making needs meanwhile.
    pub folder: PathBuf,
    /// What it becomes.
    pub format: Format,
}

/// Makes the file of `version` or, from the primary, of a later one.
async fn make_anywhere(
    sources: &Sources,
    version: Version,
    wanted: &Wanted,
    place: Place,
    timeout: Duration,
    permit: Turn,
) -> Result<(Version, DiskFile)> {
    let permit = Arc::new(permit);
    let (here, held) = (place.clone(), Arc::clone(&permit));
    let on_replica = |database: Database| async move {
        let Some(snapshot) = Snapshot::open_at(&database, version, wanted, timeout).await? else { return Ok(None) };
        make(snapshot, here, held, |_| ()).await.map(Some)
    };
    if let Some(made) = sources.on_replica(on_replica).await? {
        return Ok(made);
    }
    let snapshot = Snapshot::open(sources.primary(), wanted, timeout).await?;
    Ok(make(snapshot, place, permit, |_| ()).await?)
}

/// Makes the file of one snapshot, on a thread of its own, and gives the version that it shows. `permit` is held as
/// long as the thread works, which nobody can stop half way; `progress` hears the number of rows from time to time.
pub async fn make(
    snapshot: Snapshot,
    place: Place,
    permit: impl Send + 'static,
    progress: impl Fn(u64),
) -> Result<(Version, DiskFile), Undone> {
    let Snapshot { client, version, changed, rows } = snapshot;
    let (batches, inbox) = mpsc::channel(BATCHES);
    let writing = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        write(inbox, &place, changed)
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
fn failed(error: impl Into<XlsxError>) -> Error {
    let error: XlsxError = error.into();
    Error::unavailable(format!("the export could not be written: {error}"))
}

fn write(inbox: mpsc::Receiver<Batch>, place: &Place, changed: Timestamp) -> Result<DiskFile> {
    let Place { folder, format } = place;
    if *format == Format::Csv {
        let file = tempfile::tempfile_in(folder).map_err(failed)?;
        let mut table = ProductCsv::new(io::BufWriter::with_capacity(READ_BYTES, &file)).map_err(failed)?;
        each_row(inbox, |product| table.write(product).map_err(failed))?;
        table.finish().map_err(failed)?;
        return Ok(file);
    }
    let mut workbook = ProductWorkbook::new(folder, changed, SHEET_ROWS).map_err(failed)?;
    each_row(inbox, |product| workbook.write(product).map_err(failed))?;
    let file = tempfile::tempfile_in(folder).map_err(failed)?;
    let mut buffered = io::BufWriter::with_capacity(READ_BYTES, &file);
    workbook.save(&mut buffered).map_err(failed)?;
    io::Write::flush(&mut buffered).map_err(failed)?;
    drop(buffered);
    Ok(file)
}

/// Takes rows until the sender says that these were all.
fn each_row(mut inbox: mpsc::Receiver<Batch>, mut take: impl FnMut(&Product<'_>) -> Result<()>) -> Result<()> {
    loop {
        match inbox.blocking_recv() {
            Some(Batch::Rows(rows)) => rows.iter().try_for_each(|row| take(&Product::from_columns(row, 0)))?,
            Some(Batch::End) => return Ok(()),
            None => return Err(Error::unavailable("the rows of an export broke off")),
        }
    }
}
