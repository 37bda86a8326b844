//! Loads a list of products for the cache: its JSON and headers, read from one snapshot, and the version that the
//! snapshot shows.

use std::time::Duration;

use futures_util::{
    TryStreamExt,
    future::{join3, join4},
    pin_mut,
};
use tokio_postgres::{Row, RowStream};

use super::{
    chunked::load_chunked,
    ids::Ids,
    list_request::{ListRequest, product_rows},
    pagination_headers::pagination_headers,
    query::{ListQuery, Paging},
    sql::{SqlQuery, is_backwards},
    strategy::Strategy,
};
use crate::{
    cache::{FillContent, FillLimit, FillResult, ListBuffer, Previous},
    db::{
        Database, DbError, Statement, Transaction, TxError,
        statements::{CATEGORIES_BY_NAMES, PRODUCTS_PAGE, TAGS_BY_NAMES, VERSIONS_CATALOGUE},
    },
    error::{Error, FieldErrors, Result},
    lists::{
        ListSource, RowList, WriteRow, load_from_any,
        snapshot::{BEGIN_SNAPSHOT_SQL, ReadSources, Snapshot, begin_at_version, version_of},
    },
    products::fields::Fields,
    versions::Version,
};

/// The statements of a query with parameters that are prepared.
const STATEMENTS: [&Statement; 3] = [&VERSIONS_CATALOGUE, &CATEGORIES_BY_NAMES, &TAGS_BY_NAMES];

impl ListSource for ListRequest {
    fn rows(&self) -> RowList<impl WriteRow> {
        product_rows(self.query.fields)
    }

    async fn load(
        self,
        sources: ReadSources,
        version: Version,
        limit: FillLimit,
        previous: Previous,
    ) -> Result<FillResult> {
        if self.query.is_unfiltered() {
            if self.query.fields == Fields::ALL {
                return load_chunked(sources, version, limit, previous).await;
            }
            return self.rows().load(sources, version, limit).await;
        }
        let request = &self;
        let of_replica = limit.clone();
        let on_replica = |database| async move { load_at_version(&database, version, request, of_replica).await };
        let on_primary = |database| load_current(database, request, limit.clone());
        load_from_any(sources, on_replica, on_primary).await
    }

    async fn open(&self, database: &Database, timeout: Duration) -> Result<Snapshot, TxError> {
        ListRequest::open(self, database, timeout).await
    }
}

/// Loads the current state of a query with parameters in one snapshot.
async fn load_current(database: Database, request: &ListRequest, limit: FillLimit) -> Result<FillResult, TxError> {
    let transaction = Transaction::acquire(&database, &STATEMENTS).await?;
    if request.is_single_round_trip() {
        return load_page_pipelined(transaction, request, limit).await;
    }
    let (begun, version, ids) = join3(
        transaction.run_command(BEGIN_SNAPSHOT_SQL),
        transaction.rows(&VERSIONS_CATALOGUE, &[]),
        Ids::look_up(transaction.connection(), &request.query),
    )
    .await;
    begun?;
    let version = version_of(&version?)?;
    load_query(transaction, version, ids?, request, limit).await
}

/// Loads a page whose statement depends on no other one, in a single round trip.
async fn load_page_pipelined(
    transaction: Transaction,
    request: &ListRequest,
    limit: FillLimit,
) -> Result<FillResult, TxError> {
    let (query, connection) = (&*request.query, transaction.connection());
    let page = async {
        let rows = SqlQuery::page(query, &Ids::default(), 1, Strategy::Planned).send(connection).await?;
        Page::read(rows, request.rows(), limit).await
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

/// Loads the state of a query with parameters at exactly this version. Returns `None` if the database shows another
/// one.
async fn load_at_version(
    database: &Database,
    version: Version,
    request: &ListRequest,
    limit: FillLimit,
) -> Result<Option<FillResult>, TxError> {
    let transaction = Transaction::acquire(database, &STATEMENTS).await?;
    if begin_at_version(transaction.connection(), version).await?.is_none() {
        transaction.release();
        return Ok(None);
    }
    let ids = Ids::look_up(transaction.connection(), &request.query).await?;
    load_query(transaction, version, ids, request, limit).await.map(Some)
}

/// Loads a query with parameters in the open snapshot.
async fn load_query(
    transaction: Transaction,
    version: Version,
    ids: Ids,
    request: &ListRequest,
    limit: FillLimit,
) -> Result<FillResult, TxError> {
    let connection = transaction.connection();
    let query = &*request.query;
    let total = match request.total(connection, version, &ids).await {
        Ok(total) => total,
        Err(TxError::App(error)) => {
            // the error is the client's; the connection is reusable
            transaction.run_command("rollback").await?;
            transaction.release();
            return Err(error.into());
        }
        Err(error) => return Err(error),
    };
    let mut strategy = Strategy::select(connection, query, &ids, total).await?;
    let page = loop {
        let rows = SqlQuery::page(query, &ids, 1, strategy).send(connection).await?;
        if let Paging::Unpaged = query.paging {
            return request.rows().render_and_commit(transaction, version, rows, limit).await;
        }
        let page = Page::read(rows, request.rows(), limit.clone()).await?;
        match strategy.next(connection, query, &ids, page.ends.len()).await? {
            // dropped before the next page is read, since a large one holds the permit of large fills
            Some(next) => strategy = next,
            None => break page,
        }
    };
    transaction.end_read();
    Ok(page.finish(query, version, total))
}

/// A page that is rendered while its rows arrive.
struct Page {
    /// The first two rows and the last two, which determine the headers.
    rows: Vec<Row>,
    list: ListBuffer,
    /// The offset in the JSON at which each row ends.
    ends: Vec<usize>,
}

impl Page {
    /// Fails with a 400 if the page is too large.
    async fn read(rows: RowStream, row_list: RowList<impl WriteRow>, limit: FillLimit) -> Result<Self, TxError> {
        let max_bytes = limit.max_page_bytes();
        let mut page = Self { rows: Vec::new(), list: limit.buffer(max_bytes), ends: Vec::new() };
        page.list.json.push(b'[');
        pin_mut!(rows);
        while let Some(row) = rows.try_next().await.map_err(|error| DbError::statement(&PRODUCTS_PAGE, error))? {
            row_list.push_json(&row, &mut page.list.json);
            if !page.list.fits().await? {
                let message = format!("The page is larger than {max_bytes} bytes. Ask for fewer products.");
                return Err(Error::from(FieldErrors::single("page_size", message)).into());
            }
            page.ends.push(page.list.json.len());
            if page.rows.len() == 4 {
                page.rows.remove(2);
            }
            page.rows.push(row);
        }
        Ok(page)
    }

    /// Returns the page with its headers. Removes the lookahead row of a keyset page, which shows that a further page
    /// exists.
    fn finish(mut self, query: &ListQuery, version: Version, total: Option<i64>) -> FillResult {
        let Self { rows, list: ListBuffer { json, .. }, ends } = &mut self;
        let mut has_more = false;
        if let Paging::Keyset { size, .. } = query.paging
            && i64::try_from(ends.len()).is_ok_and(|count| count > size)
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
        let (bytes, permit) = self.list.finish();
        FillResult { headers, permit, ..FillResult::new(version, FillContent::Json(bytes)) }
    }
}
