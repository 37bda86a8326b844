//! Loads a list for the cache: its JSON and headers, read from one snapshot, and the version that the snapshot shows.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{
    TryStreamExt,
    future::{join, join3, join4},
    pin_mut,
};
use tokio_postgres::{Row, RowStream};

use super::{
    pagination_headers::pagination_headers,
    query::{ListQuery, Paging},
    snapshot::{BEGIN_SNAPSHOT_SQL, ListRequest, NO_PARAMS, ReadSources, begin_at_version, version_of},
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

/// Time for the replica to return the list; a slower one counts as failed, and the primary still has time to answer.
const REPLICA_TIMEOUT: Duration = Duration::from_secs(3);

/// Loads a list at `version` or, from the primary, at a later version. A transient failure of the primary, such as a
/// statement invalidated by a schema change, is retried once.
pub(crate) async fn load(
    sources: ReadSources,
    version: Version,
    request: ListRequest,
    max_bytes: usize,
) -> Result<FillResult> {
    let replica_request = request.clone();
    let load_from_replica = |database: Database| async move {
        let loading = load_at_version(&database, version, &replica_request, max_bytes);
        let loaded = tokio::time::timeout(REPLICA_TIMEOUT, loading).await;
        loaded.map_err(|_| DbError::timed_out(PRODUCTS_LIST.name, REPLICA_TIMEOUT))?
    };
    if let Some(result) = sources.try_replica(load_from_replica).await? {
        return Ok(result);
    }
    let result = match load_current(sources.primary(), &request, max_bytes).await {
        Err(TxError::Db(error)) if sources.primary().should_retry(&error) => {
            load_current(sources.primary(), &request, max_bytes).await?
        }
        outcome => outcome?,
    };
    // a mutant for the tests: like most caches, it reads the version after the rows, so rows that a concurrent write
    // has replaced are cached under the new version
    #[cfg(feature = "naive-fill")]
    let result =
        FillResult { version: version_of(&sources.primary().rows(&VERSIONS_CATALOGUE, &[]).await?)?, ..result };
    Ok(result)
}

/// Loads the current state in one snapshot. For the full list, the statements are pipelined: one round trip before the
/// rows.
async fn load_current(database: &Database, request: &ListRequest, max_bytes: usize) -> Result<FillResult, TxError> {
    let transaction = Transaction::acquire(database, statements(request)).await?;
    if request.query.is_unfiltered() {
        let (begun, version, rows) = join3(
            transaction.run_command(BEGIN_SNAPSHOT_SQL),
            transaction.rows(&VERSIONS_CATALOGUE, &[]),
            query_all(transaction.connection()),
        )
        .await;
        begun?;
        let version = version_of(&version?)?;
        return render_and_commit(transaction, version, rows?, max_bytes).await;
    }
    if request.is_single_round_trip() {
        return load_page_pipelined(transaction, request).await;
    }
    let (begun, version) =
        join(transaction.run_command(BEGIN_SNAPSHOT_SQL), transaction.rows(&VERSIONS_CATALOGUE, &[])).await;
    begun?;
    let version = version_of(&version?)?;
    load_query(transaction, version, request, max_bytes).await
}

/// Loads a page whose statement depends on no other one, in a single round trip.
async fn load_page_pipelined(transaction: Transaction, request: &ListRequest) -> Result<FillResult, TxError> {
    let (query, connection) = (&*request.query, transaction.connection());
    let page = async {
        let rows = SqlQuery::page(query, &Ids::default(), 1).send(connection).await?;
        Page::read(rows).await
    };
    let (begun, version, page, committed) = join4(
        transaction.run_command(BEGIN_SNAPSHOT_SQL),
        transaction.rows(&VERSIONS_CATALOGUE, &[]),
        page,
        transaction.run_command("commit"),
    )
    .await;
    begun?;
    let (version, page) = (version_of(&version?)?, page?);
    committed?;
    transaction.release();
    Ok(page.finish(query, version, None))
}

/// Loads the state at exactly this version. Returns `None` if the database shows another one.
async fn load_at_version(
    database: &Database,
    version: Version,
    request: &ListRequest,
    max_bytes: usize,
) -> Result<Option<FillResult>, TxError> {
    let transaction = Transaction::acquire(database, statements(request)).await?;
    if begin_at_version(transaction.connection(), version).await?.is_none() {
        transaction.release();
        return Ok(None);
    }
    if request.query.is_unfiltered() {
        let rows = query_all(transaction.connection()).await?;
        return render_and_commit(transaction, version, rows, max_bytes).await.map(Some);
    }
    load_query(transaction, version, request, max_bytes).await.map(Some)
}

/// Returns the statements that a load prepares.
fn statements(request: &ListRequest) -> &'static [&'static Statement] {
    if request.query.is_unfiltered() {
        &[&VERSIONS_CATALOGUE, &PRODUCTS_LIST]
    } else {
        &[&VERSIONS_CATALOGUE, &CATEGORIES_BY_NAMES, &TAGS_BY_NAMES]
    }
}

async fn query_all(connection: &Connection) -> Result<RowStream, DbError> {
    let db_error = |error| DbError::statement(&PRODUCTS_LIST, error);
    let statement = connection.prepare_cached(PRODUCTS_LIST.sql).await.map_err(db_error)?;
    connection.query_raw(&statement, NO_PARAMS).await.map_err(db_error)
}

/// Loads a query with parameters in the open snapshot.
async fn load_query(
    transaction: Transaction,
    version: Version,
    request: &ListRequest,
    max_bytes: usize,
) -> Result<FillResult, TxError> {
    let connection = transaction.connection();
    let query = &*request.query;
    let resolved = match request.resolve(connection, version).await {
        Ok(resolved) => resolved,
        Err(TxError::App(error)) => {
            // the error is the client's; the connection is reusable
            transaction.run_command("rollback").await?;
            transaction.release();
            return Err(error.into());
        }
        Err(error) => return Err(error),
    };
    let rows = SqlQuery::page(query, &resolved.ids, 1).send(connection).await?;
    if let Paging::Unpaged = query.paging {
        return render_and_commit(transaction, version, rows, max_bytes).await;
    }
    let page = Page::read(rows).await?;
    transaction.run_command("commit").await?;
    transaction.release();
    Ok(page.finish(query, version, resolved.total))
}

/// A page that is rendered while its rows arrive.
struct Page {
    rows: Vec<Row>,
    json: Vec<u8>,
    /// The offset in the JSON at which each row ends.
    ends: Vec<usize>,
}

impl Page {
    async fn read(rows: RowStream) -> Result<Self, DbError> {
        let mut page = Self { rows: Vec::new(), json: vec![b'['], ends: Vec::new() };
        pin_mut!(rows);
        while let Some(row) = rows.try_next().await.map_err(|error| DbError::statement(&PRODUCTS_PAGE, error))? {
            push_json(&row, &mut page.json);
            page.ends.push(page.json.len());
            page.rows.push(row);
        }
        Ok(page)
    }

    /// Returns the page with its headers. Removes the lookahead row of a keyset page, which shows that a further page
    /// exists.
    fn finish(mut self, query: &ListQuery, version: Version, total: Option<i64>) -> FillResult {
        let Self { rows, json, ends } = &mut self;
        let mut has_more = false;
        if let Paging::Keyset { size, .. } = query.paging
            && i64::try_from(rows.len()).is_ok_and(|count| count > size)
        {
            has_more = true;
            if is_backwards(query) {
                rows.remove(0);
                // including the comma that follows the row
                json.drain(1..=ends[0]);
            } else {
                rows.pop();
                json.truncate(ends[ends.len() - 2]);
            }
        }
        json.push(b']');
        let headers = pagination_headers(query, rows, has_more, total);
        FillResult { version, bytes: Some(self.json.into()), headers }
    }
}

async fn render_and_commit(
    transaction: Transaction,
    version: Version,
    rows: RowStream,
    max_bytes: usize,
) -> Result<FillResult, TxError> {
    let Some(bytes) = render(rows, max_bytes).await? else {
        // the transaction is dropped, which closes the connection: reading the remaining rows costs more than a new
        // connection
        return Ok(FillResult { version, bytes: None, headers: Headers::default() });
    };
    transaction.run_command("commit").await?;
    transaction.release();
    Ok(FillResult { version, bytes: Some(bytes), headers: Headers::default() })
}

/// Renders the rows as a JSON array. Returns `None` if it exceeds `max_bytes`.
async fn render(rows: RowStream, max_bytes: usize) -> Result<Option<Bytes>, DbError> {
    let mut json = vec![b'['];
    pin_mut!(rows);
    while let Some(row) = rows.try_next().await.map_err(|error| DbError::statement(&PRODUCTS_LIST, error))? {
        push_json(&row, &mut json);
        if json.len() > max_bytes {
            return Ok(None);
        }
    }
    json.push(b']');
    Ok(Some(json.into()))
}

fn push_json(row: &Row, json: &mut Vec<u8>) {
    if json.len() > 1 {
        json.push(b',');
    }
    Product::from_columns(row, 0).write_json(json);
}
