//! Builds an export file from one snapshot of the database.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures_util::{TryStreamExt, pin_mut};
use rust_xlsxwriter::XlsxError;
use tokio::sync::mpsc;
use tokio_postgres::{Client, Row, RowStream};

use super::{etag::RowsDigest, request::Layout};
use crate::{
    db::{Database, DbError, TxError, pool::Queryable, statements::PRODUCTS_LIST},
    error::{Error, Result},
    http::etag::ContentId,
    limits::Permit,
    lists::snapshot::{ReadSources, Snapshot},
    products::{
        fields::Fields,
        files::{
            csv::ProductCsv,
            format::FileFormat,
            xlsx::{MAX_SHEET_ROWS, ProductWorkbook},
        },
        list::list_request::ListRequest,
        product::Product,
    },
    versions::Version,
};

/// A batch is sent when it has this many rows or bytes.
const BATCH_ROWS: usize = 256;
const BATCH_BYTES: usize = 512 * 1024;
/// Batches that wait for the writer thread.
const QUEUED_BATCHES: usize = 4;
const WRITE_BUFFER_BYTES: usize = 128 * 1024;
/// Time that the database may take to send the next row.
const ROW_TIMEOUT: Duration = Duration::from_secs(10);

/// A message to the writer thread.
enum Batch {
    Rows(Vec<Row>),
    /// All rows were sent. A channel that closes without it means that the sender has failed.
    End,
}

/// The file to build.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// The directory of the file and of the temporary files of its writer.
    pub(crate) dir: PathBuf,
    pub(crate) layout: Layout,
}

/// A finished file.
#[derive(Debug)]
pub(crate) struct Built {
    /// The version that it shows.
    pub(crate) version: Version,
    /// The digest of its rows.
    pub(crate) rows: ContentId,
    pub(crate) file: File,
}

/// Builds the file of `version` on the replica if that shows this version, otherwise the file of the current version on
/// the primary.
pub(crate) async fn build_on_any(
    sources: &ReadSources,
    version: Version,
    wanted: &ListRequest,
    output: Output,
    timeout: Duration,
    permit: Permit,
) -> Result<Built> {
    let permit = Arc::new(permit);
    let (replica_output, replica_permit) = (output.clone(), Arc::clone(&permit));
    let on_replica = |database: Database| async move {
        let Some(snapshot) = wanted.open_at_version(&database, version, timeout).await? else {
            return Ok(None);
        };
        build(snapshot, replica_output, replica_permit, |_| ()).await.map(Some)
    };
    if let Some(built) = sources.try_replica(on_replica).await? {
        return Ok(built);
    }
    let snapshot = wanted.open(sources.primary(), timeout).await?;
    Ok(build(snapshot, output, permit, |_| ()).await?)
}

/// Builds the file of a snapshot.
///
/// A blocking thread writes the file. It cannot be cancelled, so it holds `permit` until it ends. `progress` receives
/// the number of rows sent so far.
pub(crate) async fn build(
    snapshot: Snapshot,
    output: Output,
    permit: impl Send + 'static,
    progress: impl Fn(u64),
) -> Result<Built, TxError> {
    let Snapshot { client, version, rows } = snapshot;
    let (sender, receiver) = mpsc::channel(QUEUED_BATCHES);
    let writing = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        write_file(receiver, &output)
    });
    let sent = send_rows(&client, rows, sender, progress).await;
    // rust_xlsxwriter panics when it cannot spool a row to a full disk
    let written =
        writing.await.map_err(|error| Error::unavailable(format!("the export's writer thread failed: {error}")))?;
    sent?;
    let (rows, file) = written?;
    Ok(Built { version, rows, file })
}

/// Sends all rows to the writer thread and commits the snapshot.
async fn send_rows(
    client: &Client,
    rows: RowStream,
    sender: mpsc::Sender<Batch>,
    progress: impl Fn(u64),
) -> Result<(), DbError> {
    let mut batch = Vec::with_capacity(BATCH_ROWS);
    let (mut count, mut batch_bytes) = (0, 0);
    pin_mut!(rows);
    loop {
        let next = tokio::time::timeout(ROW_TIMEOUT, rows.try_next()).await;
        let next = next.map_err(|_| DbError::timed_out(PRODUCTS_LIST.name, ROW_TIMEOUT))?;
        let Some(row) = next.map_err(|error| DbError::statement(&PRODUCTS_LIST, error))? else { break };
        batch_bytes += row.raw_size_bytes();
        batch.push(row);
        if batch.len() == BATCH_ROWS || batch_bytes >= BATCH_BYTES {
            count += batch.len() as u64;
            batch_bytes = 0;
            progress(count);
            let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH_ROWS));
            if sender.send(Batch::Rows(full)).await.is_err() {
                // the writer thread has failed and returns the cause
                return Ok(());
            }
        }
    }
    client.run_command("commit").await?;
    let _ = sender.send(Batch::Rows(batch)).await;
    let _ = sender.send(Batch::End).await;
    Ok(())
}

/// Returns the error of a file that cannot be written, for example on a full disk. Other requests are unaffected.
fn write_failed(error: impl Into<XlsxError>) -> Error {
    let error: XlsxError = error.into();
    Error::unavailable(format!("writing the export failed: {error}"))
}

/// Returns the digest of the rows and the file.
fn write_file(receiver: mpsc::Receiver<Batch>, output: &Output) -> Result<(ContentId, File)> {
    let Output { dir, layout: Layout { format, has_bom, fields } } = output;
    if *format == FileFormat::Csv {
        let file = tempfile::tempfile_in(dir).map_err(write_failed)?;
        let buffer = BufWriter::with_capacity(WRITE_BUFFER_BYTES, &file);
        let mut csv = ProductCsv::new(buffer, *has_bom, *fields).map_err(write_failed)?;
        let rows = for_each_row(receiver, *fields, |product| csv.write(product).map_err(write_failed))?;
        csv.finish().map_err(write_failed)?;
        return Ok((rows, file));
    }
    let mut workbook = ProductWorkbook::new(dir, MAX_SHEET_ROWS, *fields).map_err(write_failed)?;
    let rows = for_each_row(receiver, *fields, |product| workbook.write(product).map_err(write_failed))?;
    let file = tempfile::tempfile_in(dir).map_err(write_failed)?;
    let mut buffer = BufWriter::with_capacity(WRITE_BUFFER_BYTES, &file);
    workbook.save(&mut buffer).map_err(write_failed)?;
    buffer.flush().map_err(write_failed)?;
    drop(buffer);
    Ok((rows, file))
}

/// Calls `write` for each row until [`Batch::End`] arrives. Returns the digest of the rows.
fn for_each_row(
    mut receiver: mpsc::Receiver<Batch>,
    fields: Fields,
    mut write: impl FnMut(&Product<'_>) -> Result<()>,
) -> Result<ContentId> {
    let mut digest = RowsDigest::new(fields);
    loop {
        match receiver.blocking_recv() {
            Some(Batch::Rows(rows)) => {
                for row in &rows {
                    let product = Product::from_columns(row, 0);
                    digest.update(&product);
                    write(&product)?;
                }
            }
            Some(Batch::End) => return Ok(digest.finish()),
            None => return Err(Error::unavailable("the rows of an export are incomplete")),
        }
    }
}
