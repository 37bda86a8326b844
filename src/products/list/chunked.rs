//! Loads the list of all products in chunks: from the list of an earlier version and the products that have changed
//! since, or from all products.

use std::{sync::Arc, time::Duration};

use futures_util::{
    TryStreamExt,
    future::{join, join3},
    pin_mut,
};
use tokio::time::timeout;
use tokio_postgres::{Row, RowStream};

use super::{changed_rows::ChangedRows, list_request::product_rows};
use crate::{
    cache::{ChunkedFill, FillContent, FillLimit, FillResult, Previous},
    db::{
        Connection, Database, DbError, Statement, Transaction, TxError,
        statements::{PRODUCTS_BY_IDS, PRODUCTS_CHANGED_IDS, PRODUCTS_LIST, VERSIONS_CATALOGUE},
    },
    error::Result,
    lists::{
        REPLICA_TIMEOUT, load_on_primary,
        snapshot::{BEGIN_SNAPSHOT_SQL, ReadSources, begin_at_version, version_of},
    },
    products::{
        changed_ids::{ChangeRange, read_changed_ids},
        fields::Fields,
        product::Product,
    },
    versions::Version,
};

/// A smaller list is read completely, which takes one round trip less and no more time.
const MIN_BYTES: usize = 64 << 10;
/// With more changed products, all products are read: they are in most of the chunks.
const MAX_CHANGED_IDS: i64 = 10_000;
const STATEMENTS: [&Statement; 4] = [&VERSIONS_CATALOGUE, &PRODUCTS_CHANGED_IDS, &PRODUCTS_BY_IDS, &PRODUCTS_LIST];

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
    /// The products that have changed since the previous version.
    Changes(ChangedRows),
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
        let (begun, version, source) = join3(
            transaction.run_command(BEGIN_SNAPSHOT_SQL),
            transaction.rows(&VERSIONS_CATALOGUE, &[]),
            self.source(transaction.connection()),
        )
        .await;
        begun?;
        let version = version_of(&version?)?;
        let result = self.load(transaction, version, source?).await?;
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
            let source = self.source(transaction.connection()).await?;
            Ok::<_, TxError>(Some((transaction, source)))
        };
        let Some((transaction, source)) = timeout(self.timeout, open).await.map_err(|_| self.timed_out())?? else {
            return Ok(None);
        };
        self.load(transaction, version, source).await.map(Some)
    }

    /// Reads what has changed since the previous version. Sends the statement of all products if there is no previous
    /// version or a small one, if the log does not know the changes, or if there are too many.
    async fn source(&self, connection: &Connection) -> Result<Source, TxError> {
        if let Some(previous) = self.previous.as_ref().filter(|previous| previous.list.json_bytes() >= MIN_BYTES) {
            let since = previous.version;
            let range = ChangeRange { since, until: None, after_id: i64::MIN, max_ids: MAX_CHANGED_IDS };
            let changed = read_changed_ids(connection, range).await?;
            if let Some(changed) = changed.filter(|changed| !changed.has_more) {
                let list = Arc::clone(&previous.list);
                return Ok(Source::Changes(ChangedRows::new(list, changed.ids, self.limit.clone())));
            }
        }
        self.query_all(connection).await.map(Source::AllProducts)
    }

    /// Loads the list in the open snapshot, and commits.
    async fn load(self, transaction: Transaction, version: Version, source: Source) -> Result<FillResult, TxError> {
        let changes = match source {
            Source::AllProducts(rows) => return self.load_all(transaction, version, rows).await,
            Source::Changes(changes) => changes,
        };
        let loading = self.load_changes(transaction.connection(), changes);
        let (loaded, committed) = join(loading, transaction.run_command("commit")).await;
        let (content, permit) = loaded?.finish();
        committed?;
        transaction.release();
        Ok(FillResult { permit, is_incremental: true, ..FillResult::new(version, content) })
    }

    /// Reads the changed products.
    async fn load_changes(&self, connection: &Connection, mut changes: ChangedRows) -> Result<ChangedRows, TxError> {
        if !changes.ids().is_empty() {
            let error = |error| DbError::statement(&PRODUCTS_BY_IDS, error);
            let statement = connection.prepare_cached(PRODUCTS_BY_IDS.sql).await.map_err(error)?;
            let rows = connection.query_raw(&statement, [changes.ids()]).await.map_err(error)?;
            pin_mut!(rows);
            while let Some(row) = self.next(rows.try_next(), &PRODUCTS_BY_IDS).await? {
                changes.push(row.get(0), |json| Product::from_columns(&row, 0).write_json(json)).await?;
            }
        }
        changes.apply_rest().await?;
        Ok(changes)
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
        pin_mut!(rows);
        while let Some(row) = self.next(rows.try_next(), &PRODUCTS_LIST).await? {
            if !list.push(row.get(0), |json| Product::from_columns(&row, 0).write_json(json)).await? {
                // the transaction is dropped, which closes the connection: reading the remaining rows costs more than a
                // new connection
                return Ok(FillResult::new(version, FillContent::too_large(list.json_bytes())));
            }
        }
        let (list, permit) = list.finish().await?;
        transaction.run_command("commit").await?;
        transaction.release();
        Ok(FillResult { permit, ..FillResult::new(version, FillContent::chunked(Arc::new(list), &self.limit)) })
    }

    /// Sends the statement of all products, whose time limit is that of a list instead of a usual statement.
    async fn query_all(&self, connection: &Connection) -> Result<RowStream, TxError> {
        let set_timeout = format!("set local statement_timeout = {}", self.timeout.as_millis());
        let querying = async { product_rows(Fields::ALL).query(connection).await };
        let (set, rows) = join(connection.batch_execute(&set_timeout), querying).await;
        set.map_err(|error| DbError::postgres("set local statement_timeout", error))?;
        Ok(rows?)
    }

    async fn next(
        &self,
        next: impl Future<Output = Result<Option<Row>, tokio_postgres::Error>>,
        statement: &'static Statement,
    ) -> Result<Option<Row>, TxError> {
        let row = timeout(self.timeout, next).await.map_err(|_| self.timed_out())?;
        row.map_err(|error| DbError::statement(statement, error).into())
    }

    fn timed_out(&self) -> DbError {
        DbError::timed_out("list", self.timeout)
    }
}
