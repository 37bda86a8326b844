//! Reads the list of a named resource, or one of its rows, for the cache.

use std::{marker::PhantomData, time::Duration};

use futures_util::future::join4;
use tokio_postgres::Row;

use super::resource::{NamedResource, to_json, write_json};
use crate::{
    cache::{FillContent, FillLimit, FillResult, Previous},
    db::{Database, Transaction, TxError, statements::VERSIONS_CATALOGUE},
    error::{Error, Result},
    lists::{
        ListSource, RowList, WriteRow, load_from_any,
        snapshot::{BEGIN_SNAPSHOT_SQL, OpenSnapshot, ReadSources, Snapshot, begin_at_version, version_of},
    },
    versions::Version,
};

/// All rows, ordered by id.
#[derive(Debug, Clone, Copy)]
pub(super) struct AllRows<N>(PhantomData<N>);

impl<N> AllRows<N> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<N: NamedResource> ListSource for AllRows<N> {
    fn rows(&self) -> RowList<impl WriteRow> {
        RowList { statement: &N::DEF.list, write_json }
    }

    async fn load(self, sources: ReadSources, version: Version, limit: FillLimit, _: Previous) -> Result<FillResult> {
        self.rows().load(sources, version, limit).await
    }

    async fn open(&self, database: &Database, timeout: Duration) -> Result<Snapshot, TxError> {
        let snapshot = OpenSnapshot::current(database, timeout).await?;
        let rows = self.rows().send(&snapshot.client).await?;
        Ok(snapshot.with_rows(rows))
    }
}

/// One row, as an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct OneRow<N> {
    id: i64,
    resource: PhantomData<N>,
}

impl<N: NamedResource> OneRow<N> {
    pub(super) fn new(id: i64) -> Self {
        Self { id, resource: PhantomData }
    }

    /// Loads the row and the version in one snapshot and one round trip.
    async fn load_current(self, database: &Database) -> Result<FillResult, TxError> {
        let transaction = Transaction::acquire(database, &[&VERSIONS_CATALOGUE, &N::DEF.by_id]).await?;
        let (begun, version, rows, committed) = join4(
            transaction.run_command(BEGIN_SNAPSHOT_SQL),
            transaction.rows(&VERSIONS_CATALOGUE, &[]),
            transaction.rows(&N::DEF.by_id, &[&self.id]),
            transaction.run_command("commit"),
        )
        .await;
        begun?;
        let (version, rows) = (version_of(&version?)?, rows?);
        committed?;
        transaction.release();
        Self::fill_result(version, &rows)
    }

    async fn load_at_version(self, database: &Database, version: Version) -> Result<Option<FillResult>, TxError> {
        let transaction = Transaction::acquire(database, &[&VERSIONS_CATALOGUE, &N::DEF.by_id]).await?;
        if begin_at_version(transaction.connection(), version).await?.is_none() {
            transaction.release();
            return Ok(None);
        }
        let rows = transaction.rows_and_commit(&N::DEF.by_id, &[&self.id]).await?;
        transaction.release();
        Self::fill_result(version, &rows).map(Some)
    }

    fn fill_result(version: Version, rows: &[Row]) -> Result<FillResult, TxError> {
        let row = rows.first().ok_or(N::DEF.not_found())?;
        Ok(FillResult::new(version, FillContent::Json(to_json(row).into())))
    }
}

impl<N: NamedResource> ListSource for OneRow<N> {
    fn rows(&self) -> RowList<impl WriteRow> {
        RowList { statement: &N::DEF.by_id, write_json }
    }

    async fn load(self, sources: ReadSources, version: Version, _: FillLimit, _: Previous) -> Result<FillResult> {
        let on_replica = |database| async move { self.load_at_version(&database, version).await };
        let on_primary = |database| async move { self.load_current(&database).await };
        load_from_any(sources, on_replica, on_primary).await
    }

    async fn open(&self, _: &Database, _: Duration) -> Result<Snapshot, TxError> {
        Err(Error::internal("a row is never too large for the cache").into())
    }
}
