//! Builds an export file from one snapshot of the database.

use std::{fs::File as DiskFile, io, path::PathBuf, sync::Arc, time::Duration};

use futures_util::{TryStreamExt, pin_mut};
use jiff::Timestamp;
use rust_xlsxwriter::XlsxError;
use tokio::sync::mpsc;
use tokio_postgres::Row;

use crate::{
    db::{Database, DbError, TxError, pool::Queryable, statements::PRODUCTS_LIST},
    error::{Error, Result},
    limits::Permit,
    products::{
        files::{
            csv::ProductCsv,
            format::FileFormat,
            xlsx::{ProductWorkbook, SHEET_ROWS},
        },
        list::snapshot::{ListRequest, ReadSources, Snapshot},
        product::Product,
    },
    versions::Version,
};

/// Rows that travel together from the database to the workbook.
const BATCH_ROWS: usize = 256;
/// Batches on their way.
const BATCHES: usize = 4;
/// Bytes written to disk at a time.
const WRITE_BYTES: usize = 128 * 1024;
/// A database that sends nothing for so long counts as failed.
const SILENCE: Duration = Duration::from_secs(10);

/// What travels to the thread that writes the workbook.
enum Batch {
    Rows(Vec<Row>),
    /// All rows were sent. Without this word the sender has failed.
    End,
}

/// Where a file is made, and what it becomes.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// The folder, for the file and for what its making needs meanwhile.
    pub(crate) folder: PathBuf,
    /// What it becomes.
    pub(crate) format: FileFormat,
}

/// Makes the file of `version` or, from the primary, of a later one.
pub(crate) async fn build_on_any(
    sources: &ReadSources,
    version: Version,
    wanted: &ListRequest,
    place: Output,
    timeout: Duration,
    permit: Permit,
) -> Result<(Version, DiskFile)> {
    let permit = Arc::new(permit);
    let (here, held) = (place.clone(), Arc::clone(&permit));
    let on_replica = |database: Database| async move {
        let Some(snapshot) = Snapshot::open_at(&database, version, wanted, timeout).await? else { return Ok(None) };
        build(snapshot, here, held, |_| ()).await.map(Some)
    };
    if let Some(made) = sources.on_replica(on_replica).await? {
        return Ok(made);
    }
    let snapshot = Snapshot::open(sources.primary(), wanted, timeout).await?;
    Ok(build(snapshot, place, permit, |_| ()).await?)
}

/// Makes the file of one snapshot, on a thread of its own, and gives the version that it shows. `permit` is held as
/// long as the thread works, which nobody can stop half way; `progress` hears the number of rows from time to time.
pub(crate) async fn build(
    snapshot: Snapshot,
    place: Output,
    permit: impl Send + 'static,
    progress: impl Fn(u64),
) -> Result<(Version, DiskFile), TxError> {
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
            let next = next.map_err(|_| DbError::timed_out(PRODUCTS_LIST.name, SILENCE))?;
            let Some(row) = next.map_err(|error| DbError::of(&PRODUCTS_LIST, error))? else { break };
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
        Ok::<_, DbError>(())
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

fn write(inbox: mpsc::Receiver<Batch>, place: &Output, changed: Timestamp) -> Result<DiskFile> {
    let Output { folder, format } = place;
    if *format == FileFormat::Csv {
        let file = tempfile::tempfile_in(folder).map_err(failed)?;
        let mut table = ProductCsv::new(io::BufWriter::with_capacity(WRITE_BYTES, &file)).map_err(failed)?;
        each_row(inbox, |product| table.write(product).map_err(failed))?;
        table.finish().map_err(failed)?;
        return Ok(file);
    }
    let mut workbook = ProductWorkbook::new(folder, changed, SHEET_ROWS).map_err(failed)?;
    each_row(inbox, |product| workbook.write(product).map_err(failed))?;
    let file = tempfile::tempfile_in(folder).map_err(failed)?;
    let mut buffered = io::BufWriter::with_capacity(WRITE_BYTES, &file);
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
