//! Loads the list of all products in chunks: from the list of an earlier version and the products that have changed
//! since, or from all products.

use std::{sync::Arc, time::Duration};

use futures_util::{
    TryStreamExt,
    future::{join, join3},
    pin_mut,
};
use tokio::time::timeout;
use tokio_postgres::RowStream;

use super::{changed_rows::ChangedRows, list_request::product_rows};
use crate::{
    cache::{ChunkedEntry, ChunkedFill, ChunkedList, FillContent, FillLimit, FillResult, Previous, RowChange},
    db::{
        Connection, Database, DbError, Statement, Transaction, TxError,
        statements::{PRODUCTS_CHANGED, PRODUCTS_LIST, VERSIONS_CATALOGUE},
    },
    error::Result,
    lists::{
        REPLICA_TIMEOUT, load_on_primary,
        snapshot::{BEGIN_SNAPSHOT_SQL, ReadSources, begin_at_version, version_of},
    },
    products::{
        changed::{ChangeRange, ChangedProducts, Changes},
        fields::Fields,
        product::Product,
    },
    versions::Version,
};

/// With more changed products, all products are read: they are in most of the chunks.
const MAX_CHANGED: i64 = 10_000;
const STATEMENTS: [&Statement; 3] = [&VERSIONS_CATALOGUE, &PRODUCTS_CHANGED, &PRODUCTS_LIST];

/// Loads the list on the replica or the primary.
pub(super) async fn load_chunked(
    sources: ReadSources,
    version: Version,
    limit: FillLimit,
    previous: Previous,
) -> Result<FillResult> {
    let load = ChunkedLoad { limit, previous, timeout: sources.list_timeout() };
    // a list of a later version would be loaded completely on the replica
    if load.previous.as_ref().is_none_or(|previous| previous.version.number <= version.number) {
        let on_replica = ChunkedLoad { timeout: REPLICA_TIMEOUT, ..load.clone() };
        let on_replica = |database| async move { on_replica.at_version(&database, version).await };
        if let Some(result) = sources.try_replica(on_replica).await? {
            return Ok(result);
        }
    }
    let on_primary = |database| {
        let load = load.clone();
        async move { load.current(&database).await }
    };
    load_on_primary(sources.primary(), on_primary).await
}

/// What a load reads.
enum Source {
    /// The products that have changed since this list.
    Changes(Arc<ChunkedList>, ChangedProducts),
    AllProducts(RowStream),
}

/// A load of the list on one database.
#[derive(Clone)]
struct ChunkedLoad {
    limit: FillLimit,
    previous: Previous,
    /// The time to open the snapshot, and the time to wait for each row.
    timeout: Duration,
}

impl ChunkedLoad {
    /// Loads the current state. The first statements are pipelined.
    async fn current(self, database: &Database) -> Result<FillResult, TxError> {
        let transaction = Transaction::acquire(database, &STATEMENTS).await?;
        let connection = transaction.connection();
        let begin = transaction.run_command(BEGIN_SNAPSHOT_SQL);
        let (version, source) = if let Some(previous) = &self.previous {
            let (begun, source) = join(begin, self.changes(connection, previous)).await;
            begun?;
            source?
        } else {
            let version = transaction.rows(&VERSIONS_CATALOGUE, &[]);
            let (begun, version, rows) = join3(begin, version, self.query_all(connection)).await;
            begun?;
            (version_of(&version?)?, Source::AllProducts(rows?))
        };
        let result = self.load(transaction, version, source).await?;
        Ok(FillResult { is_current: true, ..result })
    }

    /// Loads the state at exactly this version. Returns `None` if the database shows another one.
    async fn at_version(self, database: &Database, version: Version) -> Result<Option<FillResult>, TxError> {
        let open = async {
            let transaction = Transaction::acquire(database, &STATEMENTS).await?;
            if begin_at_version(transaction.connection(), version).await?.is_none() {
                transaction.release();
                return Ok(None);
            }
            let source = match &self.previous {
                Some(previous) => self.changes(transaction.connection(), previous).await?.1,
                None => Source::AllProducts(self.query_all(transaction.connection()).await?),
            };
            Ok::<_, TxError>(Some((transaction, source)))
        };
        let Some((transaction, source)) = timeout(self.timeout, open).await.map_err(|_| self.timed_out())?? else {
            return Ok(None);
        };
        self.load(transaction, version, source).await.map(Some)
    }

    /// Reads the current version and what has changed since the previous one. Sends the statement of all products if the
    /// log does not know the changes, or if there are too many.
    async fn changes(&self, connection: &Connection, previous: &ChunkedEntry) -> Result<(Version, Source), TxError> {
        let (since, max_products) = (previous.version, MAX_CHANGED);
        let range = ChangeRange { since, until: None, after_id: i64::MIN, max_products, is_page: false };
        let Changes { current, products } = Changes::read(connection, range).await?;
        let source = match products.filter(|products| !products.has_more) {
            Some(products) => Source::Changes(Arc::clone(&previous.list), products),
            None => Source::AllProducts(self.query_all(connection).await?),
        };
        Ok((current, source))
    }

    /// Loads the list in the open snapshot, which it closes.
    async fn load(self, transaction: Transaction, version: Version, source: Source) -> Result<FillResult, TxError> {
        match source {
            Source::AllProducts(rows) => self.load_all(transaction, version, rows).await,
            Source::Changes(list, changed) => self.load_changes(transaction, version, list, changed).await,
        }
    }

    /// Reads the products that have changed since `list`.
    async fn load_changes(
        self,
        transaction: Transaction,
        version: Version,
        list: Arc<ChunkedList>,
        mut changed: ChangedProducts,
    ) -> Result<FillResult, TxError> {
        let mut rows = ChangedRows::new(list, self.limit.clone());
        while let Some(changed) = self.next(changed.next()).await? {
            let json = changed.product().map(|product| product.to_json().into());
            rows.push(RowChange { id: changed.id(), json }).await?;
        }
        transaction.end_read();
        let (content, permit) = rows.finish().await?;
        Ok(FillResult { permit, is_incremental: true, ..FillResult::new(version, content) })
    }

    /// Reads all products. The list shares the chunks of the previous one that have the same rows.
    async fn load_all(
        self,
        transaction: Transaction,
        version: Version,
        rows: RowStream,
    ) -> Result<FillResult, TxError> {
        let previous = self.previous.as_ref().map(|entry| Arc::clone(&entry.list));
        let mut list = ChunkedFill::new(self.limit.clone(), previous);
        let rows = rows.map_err(|error| DbError::statement(&PRODUCTS_LIST, error));
        pin_mut!(rows);
        while let Some(row) = self.next(rows.try_next()).await? {
            if !list.push(row.get(0), |json| Product::from_columns(&row, 0).write_json(json)).await? {
                // the transaction is dropped, which closes the connection: reading the remaining rows costs more than a
                // new connection
                return Ok(FillResult::new(version, FillContent::too_large(list.json_bytes())));
            }
        }
        transaction.end_read();
        let (list, permit) = list.finish().await?;
        Ok(FillResult { permit, ..FillResult::new(version, FillContent::chunked(Arc::new(list), &self.limit)) })
    }

    /// Sends the statement of all products, whose time limit is that of a list instead of a usual statement.
    async fn query_all(&self, connection: &Connection) -> Result<RowStream, TxError> {
        let timeout = self.timeout.as_millis();
        let set_timeout = format!("set local statement_timeout = {timeout}; set local enable_seqscan = on");
        let querying = async { product_rows(Fields::ALL).query(connection).await };
        let (set, rows) = join(connection.batch_execute(&set_timeout), querying).await;
        set.map_err(|error| DbError::postgres("set local statement_timeout", error))?;
        Ok(rows?)
    }

    /// Waits for the next row.
    async fn next<T>(&self, next: impl Future<Output = Result<Option<T>, DbError>>) -> Result<Option<T>, DbError> {
        timeout(self.timeout, next).await.map_err(|_| self.timed_out())?
    }

    fn timed_out(&self) -> DbError {
        DbError::timed_out("list", self.timeout)
    }
}
