//! The products that differ between two versions of the catalogue, from the log of its changes.

use std::pin::Pin;

use futures_util::{TryStreamExt, future::join};
use tokio_postgres::{Row, RowStream};

use super::product::Product;
use crate::{
    db::{
        Connection, DbError, TxError,
        pool::{Params, Queryable},
        statements::PRODUCTS_CHANGED,
    },
    error::{Error, Result},
    versions::Version,
};

/// What to read from the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChangeRange {
    /// The version before the changes.
    pub(crate) since: Version,
    /// The last version of the range; `None` is that of the snapshot.
    pub(crate) until: Option<Version>,
    /// Only products with larger ids.
    pub(crate) after_id: i64,
    pub(crate) max_products: i64,
    /// Whether to return the first products if there are more than `max_products`, instead of none.
    pub(crate) is_page: bool,
}

/// Only indexes serve the statement, whatever the size of the log was when it was planned: the plan is kept while the log
/// grows.
const USE_INDEXES_SQL: &str = "set local enable_seqscan = off";

/// The current version, and what the log says about a range.
pub(crate) struct Changes {
    pub(crate) current: Version,
    /// `None` if the log does not know them: it has been pruned, it is of another history, or too much has changed at once.
    pub(crate) products: Option<ChangedProducts>,
}

/// The products that a range of versions has changed or deleted, as they arrive from the database.
pub(crate) struct ChangedProducts {
    /// Whether the range has changed more products than [`ChangeRange::max_products`].
    pub(crate) has_more: bool,
    first: Option<Row>,
    rows: Pin<Box<RowStream>>,
}

/// A product after the changes.
pub(crate) struct ChangedProduct(Row);

impl Changes {
    /// Reads the changes of a range in the open snapshot, which then prefers indexes (`enable_seqscan`).
    pub(crate) async fn read(connection: &Connection, range: ChangeRange) -> Result<Self, TxError> {
        #[cfg(feature = "trust-pruned-log")]
        let range = ChangeRange { since: oldest_known(connection, range.since).await?, ..range };
        let ChangeRange { since, until, after_id, max_products, is_page } = range;
        let (until_number, until_token) = (until.map(|version| version.number), until.map(|version| version.token));
        let params: Params =
            &[&since.number, &since.token, &until_number, &until_token, &after_id, &max_products, &is_page];
        let statement = connection.prepare_cached(PRODUCTS_CHANGED.sql).await.map_err(error)?;
        let querying = connection.query_raw(&statement, params.iter().copied());
        // pipelined
        let (set, rows) = join(connection.run_command(USE_INDEXES_SQL), querying).await;
        set?;
        let mut rows = Box::pin(rows.map_err(error)?);
        let first = rows.try_next().await.map_err(error)?;
        let first = first.ok_or_else(|| Error::internal("products/changed returned no row"))?;
        let is_known: bool = first.get("is_known");
        let has_more = first.get("has_more");
        let has_product = first.get::<_, Option<i64>>(CHANGED_ID).is_some();
        let current = Version { number: first.get("version"), token: first.get("token") };
        let products = ChangedProducts { has_more, first: has_product.then_some(first), rows };
        Ok(Self { current, products: is_known.then_some(products) })
    }
}

impl ChangedProducts {
    /// Returns the next product, in the order of the ids.
    pub(crate) async fn next(&mut self) -> Result<Option<ChangedProduct>, DbError> {
        let row = match self.first.take() {
            Some(row) => Some(row),
            None => self.rows.try_next().await.map_err(error)?,
        };
        Ok(row.map(ChangedProduct))
    }
}

/// The index of the column with the id. The columns of the product follow.
const CHANGED_ID: usize = 4;
const PRODUCT: usize = CHANGED_ID + 1;

impl ChangedProduct {
    pub(crate) fn id(&self) -> i64 {
        self.0.get(CHANGED_ID)
    }

    /// Returns the product, or `None` if it was deleted.
    pub(crate) fn product(&self) -> Option<Product<'_>> {
        let is_deleted = self.0.get::<_, Option<i64>>(PRODUCT).is_none();
        (!is_deleted).then(|| Product::from_columns(&self.0, PRODUCT))
    }
}

fn error(error: tokio_postgres::Error) -> DbError {
    DbError::statement(&PRODUCTS_CHANGED, error)
}

/// A mutant for the tests: a version that is missing from the log counts as the oldest one in it, so the changes of
/// pruned versions are missed.
#[cfg(feature = "trust-pruned-log")]
async fn oldest_known(connection: &Connection, version: Version) -> Result<Version, TxError> {
    let sql = "select version, token from catalogue_versions where version >= $1 order by version limit 1";
    let row = connection.query_one(sql, &[&version.number]).await.map_err(Error::internal)?;
    Ok(Version { number: row.get(0), token: row.get(1) })
}
