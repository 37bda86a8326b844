//! One state of the catalogue for a large read, from wherever it may come: the replica if it shows the very version that
//! is asked for, else the primary. Freshness is the same from both; only the load is elsewhere.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{TryStreamExt, future::join};
use jiff::Timestamp;
use tokio_postgres::{Client, Row, RowStream, types::ToSql};

use super::{
    query::{ListQuery, Paging},
    sql::{Ids, SqlQuery},
};
use crate::{
    app::App,
    cache::CountCache,
    db::{
        Database, DbError, TxError,
        pool::Queryable,
        replica::Replica,
        statements::{PRODUCTS_LIST, PRODUCTS_PAGE, VERSIONS_CATALOGUE},
    },
    error::{Error, Result},
    versions::Version,
};

/// A transaction in which several statements see one state.
pub(crate) const SNAPSHOT: &str = "begin isolation level repeatable read read only";
pub(crate) const NO_PARAMS: [&(dyn ToSql + Sync); 0] = [];
/// A replica is a moment behind; it is waited for so long.
const PATIENCE: Duration = Duration::from_millis(50);
const POLL: Duration = Duration::from_millis(5);
/// A replica that has not said by then what it shows counts as failed.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Where large reads come from.
#[derive(Debug, Clone)]
pub(crate) struct ReadSources {
    primary: Database,
    replica: Option<Arc<Replica>>,
}

impl ReadSources {
    pub(crate) fn of(app: &App) -> Self {
        Self { primary: app.database.clone(), replica: app.replica.clone() }
    }

    pub(crate) fn primary(&self) -> &Database {
        &self.primary
    }

    /// What `read` gives on the replica: nothing when the replica shows another state or fails, or when there is none.
    pub(crate) async fn on_replica<T, F>(&self, read: impl FnOnce(Database) -> F) -> Result<Option<T>>
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
                replica.counters.behind.inc();
                Ok(None)
            }
            Err(TxError::DbError(failure)) => {
                replica.failed(&failure);
                Ok(None)
            }
            Err(TxError::Refused(error)) => Err(error),
        }
    }
}

/// The list's rows in a snapshot, on a connection of its own.
pub(crate) struct Snapshot {
    /// The connection; the snapshot is open until it commits.
    pub(crate) client: Client,
    /// What the snapshot shows.
    pub(crate) version: Version,
    /// When this version was made.
    pub(crate) changed: Timestamp,
    pub(crate) rows: RowStream,
}

impl Snapshot {
    /// The present state of this database. `timeout` bounds the statement.
    pub(crate) async fn open(database: &Database, wanted: &ListRequest, timeout: Duration) -> Result<Self, TxError> {
        let client = database.dedicated().await?;
        client.command(SNAPSHOT).await?;
        let version = client.rows(&VERSIONS_CATALOGUE, &[]).await?;
        Self::of(client, &version, wanted, timeout).await
    }

    /// The state at this very version, if the database shows it.
    pub(crate) async fn open_at(
        database: &Database,
        version: Version,
        wanted: &ListRequest,
        timeout: Duration,
    ) -> Result<Option<Self>, TxError> {
        let beginning = async {
            let client = database.dedicated().await?;
            let version = begin_at(&client, version).await?;
            Ok::<_, TxError>(version.map(|version| (client, version)))
        };
        let begun = tokio::time::timeout(BEGIN_TIMEOUT, beginning).await;
        let begun = begun.map_err(|_| DbError::timed_out(VERSIONS_CATALOGUE.name, BEGIN_TIMEOUT))??;
        let Some((client, version)) = begun else { return Ok(None) };
        Self::of(client, &version, wanted, timeout).await.map(Some)
    }

    async fn of(client: Client, shown: &[Row], wanted: &ListRequest, timeout: Duration) -> Result<Self, TxError> {
        let failed = |error| DbError::of(&PRODUCTS_LIST, error);
        let version = version_of(shown)?;
        let bound = format!("set local statement_timeout = {}", timeout.as_millis());
        client.batch_execute(&bound).await.map_err(failed)?;
        let rows = if wanted.selection.is_everything() {
            client.query_raw(PRODUCTS_LIST.sql, NO_PARAMS).await.map_err(failed)?
        } else {
            let prepared = wanted.prepare(&client, version).await?;
            SqlQuery::page(&wanted.selection, &prepared.ids, 0).send(&client).await?
        };
        Ok(Self { client, version, changed: shown[0].get(2), rows })
    }
}

/// What is to be read, and what is known about it already.
#[derive(Clone, Default)]
pub(crate) struct ListRequest {
    /// Which products.
    pub(crate) selection: Arc<ListQuery>,
    /// How many there are, by version.
    pub(crate) counts: Arc<CountCache>,
}

/// What has to be known before the rows are asked for.
pub(crate) struct Resolved {
    pub(crate) ids: Ids,
    /// How many products the filter lets through; of numbered pages only.
    pub(crate) total: Option<i64>,
}

impl ListRequest {
    /// Whether rows can be asked for without looking anything up: no name, and no number of pages.
    pub(crate) fn needs_nothing_first(&self) -> bool {
        let filter = &self.selection.filter;
        let is_keyset = matches!(self.selection.paging, Paging::Keyset { .. });
        is_keyset && filter.categories.is_empty() && filter.tags.is_empty()
    }

    /// Looks up names and, for a numbered page, counts. A page beyond the end is an error.
    pub(crate) async fn prepare(&self, connection: &impl Queryable, version: Version) -> Result<Resolved, TxError> {
        let selection = &self.selection;
        let ids = Ids::of(connection, selection).await?;
        let Paging::Numbered { page, size } = selection.paging else { return Ok(Resolved { ids, total: None }) };
        let filter = selection.filter.key();
        let total = if let Some(total) = self.counts.get(version, &filter) {
            total
        } else {
            let rows = SqlQuery::count(selection, &ids).send(connection).await?;
            let rows: Vec<Row> = rows.try_collect().await.map_err(|error| DbError::of(&PRODUCTS_PAGE, error))?;
            let total = rows.first().map_or(0, |row| row.get(0));
            self.counts.put(version, filter.into(), total);
            total
        };
        if page > 1 && (page - 1).saturating_mul(size) >= total {
            return Err(Error::InvalidPage.into());
        }
        Ok(Resolved { ids, total: Some(total) })
    }
}

/// Begins a snapshot that shows this very version, and gives the rows of `versions/catalogue`. Nothing, and no snapshot,
/// when the database does not show it within [`PATIENCE`], or shows a later one, or one of another history.
pub(crate) async fn begin_at(connection: &impl Queryable, wanted: Version) -> Result<Option<Vec<Row>>, TxError> {
    let patience = Instant::now() + PATIENCE;
    loop {
        let (begun, rows) = join(connection.command(SNAPSHOT), connection.rows(&VERSIONS_CATALOGUE, &[])).await;
        begun?;
        let rows = rows?;
        let shown = version_of(&rows)?;
        if shown == wanted {
            return Ok(Some(rows));
        }
        connection.command("rollback").await?;
        if shown.number >= wanted.number || Instant::now() >= patience {
            return Ok(None);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The version in the rows of `versions/catalogue`.
pub(crate) fn version_of(rows: &[Row]) -> Result<Version> {
    let row = rows.first().ok_or_else(|| Error::internal("the catalogue has no version"))?;
    Ok(Version { number: row.get(0), token: row.get(1) })
}
