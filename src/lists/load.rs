//! Loads a list for the cache: its JSON, read from one snapshot, and the version that the snapshot shows.

use std::time::Duration;

use futures_util::{TryStreamExt, future::join3, pin_mut};
use tokio_postgres::{Client, Row, RowStream};

use super::snapshot::{BEGIN_SNAPSHOT_SQL, NO_PARAMS, ReadSources, begin_at_version, version_of};
use crate::{
    cache::{FillContent, FillLimit, FillResult},
    db::{Connection, Database, DbError, Statement, Transaction, TxError, statements::VERSIONS_CATALOGUE},
    error::Result,
    versions::Version,
};

/// Time for the replica to return a list; a slower one counts as failed, and the primary still has time to answer.
pub(crate) const REPLICA_TIMEOUT: Duration = Duration::from_secs(3);

/// Loads a list on the replica if that shows `version`, otherwise on the primary.
pub(crate) async fn load_from_any<R, P>(
    sources: ReadSources,
    on_replica: impl FnOnce(Database) -> R,
    on_primary: impl Fn(Database) -> P,
) -> Result<FillResult>
where
    R: Future<Output = Result<Option<FillResult>, TxError>>,
    P: Future<Output = Result<FillResult, TxError>>,
{
    let within_timeout = |database: Database| async move {
        let loaded = tokio::time::timeout(REPLICA_TIMEOUT, on_replica(database)).await;
        loaded.map_err(|_| DbError::timed_out("list", REPLICA_TIMEOUT))?
    };
    if let Some(result) = sources.try_replica(within_timeout).await? {
        return Ok(result);
    }
    load_on_primary(sources.primary(), on_primary).await
}

/// Loads a list on the primary. A transient failure, such as a statement invalidated by a schema change, is retried
/// once.
pub(crate) async fn load_on_primary<P>(primary: &Database, on_primary: impl Fn(Database) -> P) -> Result<FillResult>
where
    P: Future<Output = Result<FillResult, TxError>>,
{
    let result = match on_primary(primary.clone()).await {
        Err(TxError::Db(error)) if primary.should_retry(&error) => on_primary(primary.clone()).await?,
        outcome => outcome?,
    };
    // a mutant for the tests: like most caches, it reads the version after the rows, so rows that a concurrent write
    // has replaced are cached under the new version
    #[cfg(feature = "naive-fill")]
    let result = FillResult { version: version_of(&primary.rows(&VERSIONS_CATALOGUE, &[]).await?)?, ..result };
    Ok(result)
}

/// Appends the JSON of a row.
pub(crate) trait WriteRow: Fn(&Row, &mut Vec<u8>) + Copy + Send + Sync + 'static {}

impl<F: Fn(&Row, &mut Vec<u8>) + Copy + Send + Sync + 'static> WriteRow for F {}

/// The statement of a complete collection, without parameters, and the rendering of its rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowList<W> {
    pub(crate) statement: &'static Statement,
    pub(crate) write_json: W,
}

impl<W: WriteRow> RowList<W> {
    /// Loads the list on the replica or the primary.
    pub(crate) async fn load(self, sources: ReadSources, version: Version, limit: FillLimit) -> Result<FillResult> {
        let of_replica = limit.clone();
        let on_replica = |database| async move { self.load_at_version(&database, version, of_replica).await };
        let on_primary = |database| {
            let limit = limit.clone();
            async move { self.load_current(&database, limit).await }
        };
        load_from_any(sources, on_replica, on_primary).await
    }

    /// Loads the current state in one snapshot. The statements are pipelined: one round trip before the rows.
    async fn load_current(self, database: &Database, limit: FillLimit) -> Result<FillResult, TxError> {
        let transaction = Transaction::acquire(database, &[&VERSIONS_CATALOGUE, self.statement]).await?;
        let (begun, version, rows) = join3(
            transaction.run_command(BEGIN_SNAPSHOT_SQL),
            transaction.rows(&VERSIONS_CATALOGUE, &[]),
            self.query(transaction.connection()),
        )
        .await;
        begun?;
        let version = version_of(&version?)?;
        self.render_and_commit(transaction, version, rows?, limit).await
    }

    /// Loads the state at exactly this version. Returns `None` if the database shows another one.
    async fn load_at_version(
        self,
        database: &Database,
        version: Version,
        limit: FillLimit,
    ) -> Result<Option<FillResult>, TxError> {
        let transaction = Transaction::acquire(database, &[&VERSIONS_CATALOGUE, self.statement]).await?;
        if begin_at_version(transaction.connection(), version).await?.is_none() {
            transaction.release();
            return Ok(None);
        }
        let rows = self.query(transaction.connection()).await?;
        self.render_and_commit(transaction, version, rows, limit).await.map(Some)
    }

    /// Sends the statement on a pooled connection.
    pub(crate) async fn query(self, connection: &Connection) -> Result<RowStream, DbError> {
        let statement = connection.prepare_cached(self.statement.sql).await.map_err(|error| self.error(error))?;
        connection.query_raw(&statement, NO_PARAMS).await.map_err(|error| self.error(error))
    }

    /// Sends the statement on a dedicated connection.
    pub(crate) async fn send(self, client: &Client) -> Result<RowStream, DbError> {
        client.query_raw(self.statement.sql, NO_PARAMS).await.map_err(|error| self.error(error))
    }

    /// Renders the rows of a list, of this statement or of another one with the same columns, as a JSON array, and
    /// commits.
    pub(crate) async fn render_and_commit(
        self,
        transaction: Transaction,
        version: Version,
        rows: RowStream,
        limit: FillLimit,
    ) -> Result<FillResult, TxError> {
        let max_bytes = limit.max_bytes();
        let mut list = limit.buffer(max_bytes);
        list.json.push(b'[');
        pin_mut!(rows);
        while let Some(row) = rows.try_next().await.map_err(|error| self.error(error))? {
            self.push_json(&row, &mut list.json);
            if !list.fits().await? {
                // the transaction is dropped, which closes the connection: reading the remaining rows costs more than a
                // new connection
                return Ok(FillResult::new(version, FillContent::TooLarge { fitting_bytes: max_bytes }));
            }
        }
        list.json.push(b']');
        let (bytes, permit) = list.finish();
        transaction.end_read();
        Ok(FillResult { permit, ..FillResult::new(version, FillContent::Json(bytes)) })
    }

    /// Appends a row to a JSON array that begins with `[`.
    pub(crate) fn push_json(self, row: &Row, json: &mut Vec<u8>) {
        if json.len() > 1 {
            json.push(b',');
        }
        (self.write_json)(row, json);
    }

    pub(crate) fn error(self, error: tokio_postgres::Error) -> DbError {
        DbError::statement(self.statement, error)
    }
}
