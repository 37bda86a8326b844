//! Snapshots of the catalogue for large reads: from the replica if it shows exactly the requested version, else from
//! the primary. Both return the same state; the replica only takes load off the primary.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join;
use tokio_postgres::{Client, Row, RowStream, types::ToSql};

use crate::{
    app::App,
    db::{Database, DbError, TxError, pool::Queryable, replica::Replica, statements::VERSIONS_CATALOGUE},
    error::{Error, Result},
    versions::Version,
};

/// Begins a transaction whose statements all read the same state.
pub(crate) const BEGIN_SNAPSHOT_SQL: &str = "begin isolation level repeatable read read only";
pub(crate) const NO_PARAMS: [&(dyn ToSql + Sync); 0] = [];
/// Time for the replica to replay up to the requested version.
const REPLICA_CATCHUP_TIMEOUT: Duration = Duration::from_millis(50);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Time for the replica to open a snapshot; a slower one counts as failed.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The databases that large reads use.
#[derive(Debug, Clone)]
pub(crate) struct ReadSources {
    primary: Database,
    replica: Option<Arc<Replica>>,
    list_timeout: Duration,
}

impl ReadSources {
    pub(crate) fn new(app: &App) -> Self {
        let list_timeout = app.config.files.export_timeout;
        Self { primary: app.database.clone(), replica: app.replica.clone(), list_timeout }
    }

    /// Returns the time limit of a statement that reads a complete collection.
    pub(crate) fn list_timeout(&self) -> Duration {
        self.list_timeout
    }

    pub(crate) fn primary(&self) -> &Database {
        &self.primary
    }

    /// Runs `read` on the replica. Returns `None` if there is no replica, if it shows another version, or if it fails.
    pub(crate) async fn try_replica<T, F>(&self, read: impl FnOnce(Database) -> F) -> Result<Option<T>>
    where
        F: Future<Output = Result<Option<T>, TxError>>,
    {
        let Some(replica) = &self.replica else { return Ok(None) };
        let Some(database) = replica.database() else { return Ok(None) };
        match read(database.clone()).await {
            Ok(Some(value)) => {
                replica.counters.served.inc();
                Ok(Some(value))
            }
            Ok(None) => {
                replica.counters.lagging.inc();
                Ok(None)
            }
            Err(TxError::Db(error)) => {
                replica.mark_failed(&error);
                Ok(None)
            }
            Err(TxError::App(error)) => Err(error),
        }
    }
}

/// A snapshot on a dedicated connection, before its rows are queried.
pub(crate) struct OpenSnapshot {
    pub(crate) client: Client,
    pub(crate) version: Version,
}

/// The rows of a list in a snapshot, on a dedicated connection.
pub(crate) struct Snapshot {
    /// The snapshot stays open until this connection commits.
    pub(crate) client: Client,
    /// The version that the snapshot shows.
    pub(crate) version: Version,
    pub(crate) rows: RowStream,
}

impl OpenSnapshot {
    /// Opens a snapshot of the current state. `timeout` limits its statements.
    pub(crate) async fn current(database: &Database, timeout: Duration) -> Result<Self, TxError> {
        let client = database.dedicated().await?;
        client.run_command(BEGIN_SNAPSHOT_SQL).await?;
        let version_rows = client.rows(&VERSIONS_CATALOGUE, &[]).await?;
        Self::new(client, &version_rows, timeout).await
    }

    /// Opens a snapshot of exactly this version. Returns `None` if the database shows another one.
    pub(crate) async fn at_version(
        database: &Database,
        version: Version,
        timeout: Duration,
    ) -> Result<Option<Self>, TxError> {
        let beginning = async {
            let client = database.dedicated().await?;
            let version_rows = begin_at_version(&client, version).await?;
            Ok::<_, TxError>(version_rows.map(|rows| (client, rows)))
        };
        let begun = tokio::time::timeout(BEGIN_TIMEOUT, beginning).await;
        let begun = begun.map_err(|_| DbError::timed_out(VERSIONS_CATALOGUE.name, BEGIN_TIMEOUT))??;
        let Some((client, version_rows)) = begun else { return Ok(None) };
        Self::new(client, &version_rows, timeout).await.map(Some)
    }

    async fn new(client: Client, version_rows: &[Row], timeout: Duration) -> Result<Self, TxError> {
        let version = version_of(version_rows)?;
        let set_timeout = format!("set local statement_timeout = {}", timeout.as_millis());
        let outcome = client.batch_execute(&set_timeout).await;
        outcome.map_err(|error| DbError::postgres("set local statement_timeout", error))?;
        Ok(Self { client, version })
    }

    /// Adds the rows that a statement on its connection returns.
    pub(crate) fn with_rows(self, rows: RowStream) -> Snapshot {
        let Self { client, version } = self;
        Snapshot { client, version, rows }
    }
}

/// Begins a snapshot of exactly this version and returns the rows of `versions/catalogue`.
///
/// Returns `None`, with no transaction open, if the database does not reach the version within
/// [`REPLICA_CATCHUP_TIMEOUT`], or shows a later version or one of another history.
pub(crate) async fn begin_at_version(
    connection: &impl Queryable,
    version: Version,
) -> Result<Option<Vec<Row>>, TxError> {
    let deadline = Instant::now() + REPLICA_CATCHUP_TIMEOUT;
    loop {
        let (begun, rows) =
            join(connection.run_command(BEGIN_SNAPSHOT_SQL), connection.rows(&VERSIONS_CATALOGUE, &[])).await;
        begun?;
        let rows = rows?;
        let shown = version_of(&rows)?;
        if shown == version {
            return Ok(Some(rows));
        }
        connection.run_command("rollback").await?;
        if shown.number >= version.number || Instant::now() >= deadline {
            return Ok(None);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Returns the version in the rows of `versions/catalogue`.
pub(crate) fn version_of(rows: &[Row]) -> Result<Version> {
    let row = rows.first().ok_or_else(|| Error::internal("versions/catalogue returned no row"))?;
    Ok(Version { number: row.get("version"), token: row.get("token") })
}
