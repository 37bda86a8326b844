//! What the cache keeps of a list: its bytes, made from one snapshot, with the version that the snapshot shows.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{
    TryStreamExt,
    future::{join, join3, join4},
    pin_mut,
};
use tokio_postgres::{Row, RowStream};

use super::{
    pagination_headers::links,
    query::{ListQuery, Paging},
    snapshot::{ListRequest, NO_PARAMS, ReadSources, SNAPSHOT, begin_at, version_of},
    sql::{Ids, SqlQuery, is_backwards},
};
use crate::{
    cache::{FillResult, Headers},
    db::{
        Connection, Database, DbError, Statement, Transaction, TxError,
        statements::{CATEGORIES_BY_NAMES, PRODUCTS_LIST, PRODUCTS_PAGE, TAGS_BY_NAMES, VERSIONS_CATALOGUE},
    },
    error::Result,
    products::product::Product,
    versions::Version,
};

/// A replica that has not given the list by then counts as failed: the primary still has time for it.
const REPLICA_TIMEOUT: Duration = Duration::from_secs(3);

/// What was asked for, and the version that it shows: `version` or, from the primary, a later one; also right after a
/// change of the schema.
pub(crate) async fn fill(
    sources: ReadSources,
    version: Version,
    wanted: ListRequest,
    limit: usize,
) -> Result<FillResult> {
    let asked = wanted.clone();
    let on_replica = |database: Database| async move {
        let filling = tokio::time::timeout(REPLICA_TIMEOUT, fill_at(&database, version, &asked, limit)).await;
        filling.map_err(|_| DbError::timed_out(PRODUCTS_LIST.name, REPLICA_TIMEOUT))?
    };
    if let Some(filled) = sources.on_replica(on_replica).await? {
        return Ok(filled);
    }
    let filled = match fill_now(sources.primary(), &wanted, limit).await {
        Err(TxError::DbError(failure)) if sources.primary().may_pass(&failure) => {
            fill_now(sources.primary(), &wanted, limit).await?
        }
        outcome => outcome?,
    };
    // what most caches do: rows that were written meanwhile are then kept under the version of their successors
    #[cfg(feature = "naive-fill")]
    let filled =
        FillResult { version: version_of(&sources.primary().rows(&VERSIONS_CATALOGUE, &[]).await?)?, ..filled };
    Ok(filled)
}

/// The present state, in one snapshot. Of the whole list, four messages that travel together.
async fn fill_now(database: &Database, wanted: &ListRequest, limit: usize) -> Result<FillResult, TxError> {
    let transaction = Transaction::on(database, statements(wanted)).await?;
    if wanted.selection.is_everything() {
        let (begun, version, rows) = join3(
            transaction.command(SNAPSHOT),
            transaction.rows(&VERSIONS_CATALOGUE, &[]),
            whole(transaction.connection()),
        )
        .await;
        begun?;
        let version = version_of(&version?)?;
        return finish(transaction, version, rows?, limit).await;
    }
    if wanted.needs_nothing_first() {
        return at_once(transaction, wanted).await;
    }
    let (begun, version) = join(transaction.command(SNAPSHOT), transaction.rows(&VERSIONS_CATALOGUE, &[])).await;
    begun?;
    let version = version_of(&version?)?;
    select(transaction, version, wanted, limit).await
}

/// A page for which nothing has to be known beforehand: four messages that travel together.
async fn at_once(transaction: Transaction, wanted: &ListRequest) -> Result<FillResult, TxError> {
    let (selection, connection) = (&*wanted.selection, transaction.connection());
    let page = async {
        let rows = SqlQuery::page(selection, &Ids::default(), 1).send(connection).await?;
        Page::read(rows).await
    };
    let (begun, version, page, committed) = join4(
        transaction.command(SNAPSHOT),
        transaction.rows(&VERSIONS_CATALOGUE, &[]),
        page,
        transaction.command("commit"),
    )
    .await;
    begun?;
    let (version, page) = (version_of(&version?)?, page?);
    committed?;
    transaction.finish();
    Ok(page.finish(selection, version, None))
}

/// The state at this very version, if the database shows it.
async fn fill_at(
    database: &Database,
    version: Version,
    wanted: &ListRequest,
    limit: usize,
) -> Result<Option<FillResult>, TxError> {
    let transaction = Transaction::on(database, statements(wanted)).await?;
    if begin_at(transaction.connection(), version).await?.is_none() {
        transaction.finish();
        return Ok(None);
    }
    if wanted.selection.is_everything() {
        let rows = whole(transaction.connection()).await?;
        return finish(transaction, version, rows, limit).await.map(Some);
    }
    select(transaction, version, wanted, limit).await.map(Some)
}

fn statements(wanted: &ListRequest) -> &'static [&'static Statement] {
    if wanted.selection.is_everything() {
        &[&VERSIONS_CATALOGUE, &PRODUCTS_LIST]
    } else {
        &[&VERSIONS_CATALOGUE, &CATEGORIES_BY_NAMES, &TAGS_BY_NAMES]
    }
}

async fn whole(connection: &Connection) -> Result<RowStream, DbError> {
    let failed = |error| DbError::of(&PRODUCTS_LIST, error);
    let statement = connection.prepare_cached(PRODUCTS_LIST.sql).await.map_err(failed)?;
    connection.query_raw(&statement, NO_PARAMS).await.map_err(failed)
}

/// What is asked for with parameters, in the snapshot that is open.
async fn select(
    transaction: Transaction,
    version: Version,
    wanted: &ListRequest,
    limit: usize,
) -> Result<FillResult, TxError> {
    let connection = transaction.connection();
    let selection = &*wanted.selection;
    let prepared = match wanted.prepare(connection, version).await {
        Ok(prepared) => prepared,
        Err(TxError::Refused(error)) => {
            // nothing is wrong with the connection
            transaction.command("rollback").await?;
            transaction.finish();
            return Err(error.into());
        }
        Err(failure) => return Err(failure),
    };
    let rows = SqlQuery::page(selection, &prepared.ids, 1).send(connection).await?;
    if let Paging::Whole = selection.paging {
        return finish(transaction, version, rows, limit).await;
    }
    let page = Page::read(rows).await?;
    transaction.command("commit").await?;
    transaction.finish();
    Ok(page.finish(selection, version, prepared.total))
}

/// A page that is written while its rows arrive.
struct Page {
    rows: Vec<Row>,
    json: Vec<u8>,
    /// Where each row ends in the JSON.
    ends: Vec<usize>,
}

impl Page {
    async fn read(rows: RowStream) -> Result<Self, DbError> {
        let mut page = Self { rows: Vec::new(), json: vec![b'['], ends: Vec::new() };
        pin_mut!(rows);
        while let Some(row) = rows.try_next().await.map_err(|error| DbError::of(&PRODUCTS_PAGE, error))? {
            push(&row, &mut page.json);
            page.ends.push(page.json.len());
            page.rows.push(row);
        }
        Ok(page)
    }

    /// The page with its links; of a page by keyset, without the product too many that tells whether there are more.
    fn finish(mut self, selection: &ListQuery, version: Version, total: Option<i64>) -> FillResult {
        let Self { rows, json, ends } = &mut self;
        let mut more = false;
        if let Paging::Keyset { size, .. } = selection.paging
            && i64::try_from(rows.len()).is_ok_and(|count| count > size)
        {
            more = true;
            // it is on the far side
            if is_backwards(selection) {
                rows.remove(0);
                // with the comma behind it
                json.drain(1..=ends[0]);
            } else {
                rows.pop();
                json.truncate(ends[ends.len() - 2]);
            }
        }
        json.push(b']');
        let headers = links(selection, rows, more, total);
        FillResult { version, bytes: Some(self.json.into()), headers }
    }
}

async fn finish(
    transaction: Transaction,
    version: Version,
    rows: RowStream,
    limit: usize,
) -> Result<FillResult, TxError> {
    let Some(bytes) = render(rows, limit).await? else {
        // most of the rows are still on their way: the connection is not worth waiting for
        return Ok(FillResult { version, bytes: None, headers: Headers::default() });
    };
    transaction.command("commit").await?;
    transaction.finish();
    Ok(FillResult { version, bytes: Some(bytes), headers: Headers::default() })
}

/// The JSON array, unless it takes more than `limit` bytes.
async fn render(rows: RowStream, limit: usize) -> Result<Option<Bytes>, DbError> {
    let mut json = vec![b'['];
    pin_mut!(rows);
    while let Some(row) = rows.try_next().await.map_err(|error| DbError::of(&PRODUCTS_LIST, error))? {
        push(&row, &mut json);
        if json.len() > limit {
            return Ok(None);
        }
    }
    json.push(b']');
    Ok(Some(json.into()))
}

fn push(row: &Row, json: &mut Vec<u8>) {
    if json.len() > 1 {
        json.push(b',');
    }
    Product::from_columns(row, 0).write_json(json);
}
