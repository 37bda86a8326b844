//! Compares the rows of a batch with the stored products, and stages what they change.

use std::{collections::HashSet, pin::pin};

use futures_util::TryStreamExt;

use super::{
    diff::{Change, InvalidRow, Target, diff, row_id},
    row::{Batch, Row},
    transaction::ImportTransaction,
};
use crate::{
    db::{
        DbError, TxError,
        pool::Queryable,
        statements::{IMPORTS_LOCK_PRODUCTS, IMPORTS_PRODUCTS},
    },
    error::{FieldErrors, Result},
    products::{input::category_name_not_found, product::Product},
};

/// The limit of the absolute value of an id that the file chooses for a new product. The sequence of ids advances past
/// inserted ids up to this one (sql/migrations/V3__catalogue.sql), so that it never generates an id that exists.
const MAX_NEW_ID: i64 = (1 << 52) - 1;

/// The change of a row, `None` for an unchanged one, or its validation errors.
type RowResult = Result<Option<Change>, InvalidRow>;

impl ImportTransaction {
    /// Validates the rows of a batch and stages their changes.
    pub(super) async fn process_batch(&mut self, Batch { rows, .. }: &Batch) -> Result<(), TxError> {
        let results = self.diff_rows(rows).await?;
        let names = results.iter().filter_map(|result| match result {
            Ok(change) => change.as_ref()?.input.category_name.as_deref(),
            Err(invalid) => invalid.category_name.as_deref(),
        });
        self.categories.load(&self.client, names).await?;
        let mut changes = Vec::new();
        for (row, result) in rows.iter().zip(results) {
            match result {
                Ok(None) => self.report.unchanged += 1,
                Ok(Some(mut change)) => {
                    if self.categories.resolve(&mut change)? {
                        changes.push(change);
                    } else {
                        self.report.add_errors(row, change.input.category_not_found());
                    }
                }
                Err(InvalidRow { errors, category_name }) => {
                    let unknown = category_name.filter(|name| !self.categories.accepts(name));
                    let unknown = unknown.map(|name| category_name_not_found(&name)).unwrap_or_default();
                    self.report.add_errors(row, errors.merge(unknown));
                }
            }
        }
        Ok(self.stage(&changes).await?)
    }

    /// Compares each row with the stored product of its id.
    async fn diff_rows(&mut self, rows: &[Row]) -> Result<Vec<RowResult>, TxError> {
        let mut results = Vec::with_capacity(rows.len());
        let mut named = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            results.push(match row_id(row, self.format) {
                Ok(None) => diff(row, self.format, Target::New(None)),
                Ok(Some(id)) => {
                    named.push((id, index));
                    Err(FieldErrors::single("id", format!("Invalid pk \"{id}\" - object does not exist.")).into())
                }
                Err(errors) => Err(errors.into()),
            });
        }
        if !named.is_empty() {
            named.sort_unstable();
            let found = self.diff_stored(rows, &named, &mut results).await?;
            if self.options.create_missing_ids {
                named.retain(|(id, _)| !found.contains(id));
                self.diff_missing(rows, &named, &mut results)?;
            }
        }
        Ok(results)
    }

    /// Compares the rows with these ids and indexes, sorted, with the products that exist. Returns the ids of these.
    async fn diff_stored(
        &mut self,
        rows: &[Row],
        named: &[(i64, usize)],
        results: &mut [RowResult],
    ) -> Result<HashSet<i64>, TxError> {
        let ids: Vec<i64> = named.iter().map(|(id, _)| *id).collect();
        if self.locks_batches {
            self.client.rows(&IMPORTS_LOCK_PRODUCTS, &[&ids]).await?;
        }
        let mut found = HashSet::new();
        // one product at a time: a thousand of them can take any amount of memory
        let db_error = |error| DbError::statement(&IMPORTS_PRODUCTS, error);
        let mut stored = pin!(self.client.query_raw(IMPORTS_PRODUCTS.sql, [&ids]).await.map_err(db_error)?);
        while let Some(row) = stored.try_next().await.map_err(db_error)? {
            let product = Product::from_columns(&row, 0);
            found.insert(product.id);
            let first = named.partition_point(|(id, _)| *id < product.id);
            let of_product = named[first..].iter().take_while(|(id, _)| *id == product.id);
            for (_, index) in of_product {
                results[*index] = if self.seen_ids.insert(product.id)? {
                    diff(&rows[*index], self.format, Target::Stored(&product))
                } else {
                    Err(repeated_id())
                };
            }
        }
        Ok(found)
    }

    /// Reads the rows with these ids and indexes as new products.
    fn diff_missing(&mut self, rows: &[Row], named: &[(i64, usize)], results: &mut [RowResult]) -> Result<()> {
        for (id, index) in named {
            results[*index] = if id.unsigned_abs() > MAX_NEW_ID.unsigned_abs() {
                let (bound, limit) = if *id > 0 { ("less", MAX_NEW_ID) } else { ("greater", -MAX_NEW_ID) };
                let message = format!("Ensure this value is {bound} than or equal to {limit}.");
                Err(FieldErrors::single("id", message).into())
            } else if self.seen_ids.insert(*id)? {
                diff(&rows[*index], self.format, Target::New(Some(*id)))
            } else {
                Err(repeated_id())
            };
        }
        Ok(())
    }
}

fn repeated_id() -> InvalidRow {
    FieldErrors::single("id", "An earlier row has this id.").into()
}
