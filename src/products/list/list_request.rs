//! A list of products as the cache, the stream and the export request it.

use std::{sync::Arc, time::Duration};

use tokio_postgres::{Client, Row, RowStream};

use super::{
    ids::Ids,
    query::{ListQuery, Paging},
    sql::SqlQuery,
    strategy::Strategy,
};
use crate::{
    cache::CountCache,
    db::{Database, TxError, pool::Queryable, statements::PRODUCTS_LIST},
    error::Error,
    lists::{
        RowList, WriteRow,
        snapshot::{OpenSnapshot, Snapshot},
    },
    products::{fields::Fields, product::Product},
    versions::Version,
};

/// A list query, with the cache of row counts that numbered pages use.
#[derive(Clone, Default)]
pub(crate) struct ListRequest {
    pub(crate) query: Arc<ListQuery>,
    pub(crate) count_cache: Arc<CountCache>,
}

/// Returns all products with these fields.
pub(crate) fn product_rows(fields: Fields) -> RowList<impl WriteRow> {
    let write_json = move |row: &Row, json: &mut Vec<u8>| {
        let product = Product::from_columns(row, 0);
        if fields == Fields::ALL { product.write_json(json) } else { product.write_json_fields(fields, json) }
    };
    RowList { statement: &PRODUCTS_LIST, write_json }
}

impl ListRequest {
    /// Whether the rows can be queried without resolving names, counting or testing rows first.
    pub(crate) fn is_single_round_trip(&self) -> bool {
        let filter = &self.query.filter;
        let is_keyset = matches!(self.query.paging, Paging::Keyset { .. });
        is_keyset && filter.categories.is_empty() && filter.tags.is_empty() && !filter.is_search_without_index()
    }

    /// Opens a snapshot of the current state and sends the statement of the list. `timeout` limits the statement.
    pub(crate) async fn open(&self, database: &Database, timeout: Duration) -> Result<Snapshot, TxError> {
        self.add_rows(OpenSnapshot::current(database, timeout).await?).await
    }

    /// Opens a snapshot of exactly this version. Returns `None` if the database shows another one.
    pub(crate) async fn open_at_version(
        &self,
        database: &Database,
        version: Version,
        timeout: Duration,
    ) -> Result<Option<Snapshot>, TxError> {
        match OpenSnapshot::at_version(database, version, timeout).await? {
            Some(snapshot) => self.add_rows(snapshot).await.map(Some),
            None => Ok(None),
        }
    }

    async fn add_rows(&self, snapshot: OpenSnapshot) -> Result<Snapshot, TxError> {
        let rows = self.send(&snapshot.client, snapshot.version).await?;
        Ok(snapshot.with_rows(rows))
    }

    /// Sends the statement of the list in an open transaction that shows this version.
    pub(crate) async fn send(&self, client: &Client, version: Version) -> Result<RowStream, TxError> {
        if self.query.is_unfiltered() {
            return Ok(product_rows(self.query.fields).send(client).await?);
        }
        let ids = Ids::look_up(client, &self.query).await?;
        // a page beyond the end is an error
        self.total(client, version, &ids).await?;
        Ok(SqlQuery::page(&self.query, &ids, 0, Strategy::Planned).send(client).await?)
    }

    /// Returns the number of products that match the filter, for a numbered page only. A page beyond the end is an error.
    pub(crate) async fn total(
        &self,
        connection: &impl Queryable,
        version: Version,
        ids: &Ids,
    ) -> Result<Option<i64>, TxError> {
        let query = &self.query;
        let Paging::Numbered { page, size } = query.paging else { return Ok(None) };
        let filter_key = query.filter.key();
        let total = if let Some(total) = self.count_cache.get(version, &filter_key) {
            total
        } else {
            let total = SqlQuery::count(query, ids).query_one(connection).await?.get("count");
            self.count_cache.put(version, filter_key.into(), total);
            total
        };
        if page > 1 && (page - 1).saturating_mul(size) >= total {
            return Err(Error::InvalidPage.into());
        }
        Ok(Some(total))
    }
}
