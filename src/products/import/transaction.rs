//! The transaction of an import: stages the changes of all rows, then merges them.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_postgres::{Client, Row as PgRow, binary_copy::BinaryCopyInWriter, types::Type};

use super::{
    cancel::CancelOnDrop,
    diff::{Change, diff, row_id},
    options::ImportOptions,
    reader,
    report::Report,
    table::{Batch, Row},
};
use crate::{
    db::{
        Database, DbError, TxError,
        pool::Queryable,
        statements::{CATEGORIES_BY_NAMES, IMPORTS_COPY, IMPORTS_LOCK, IMPORTS_MERGE, IMPORTS_STAGE, PRODUCTS_BY_IDS},
    },
    error::{Error, FieldErrors, Result},
    products::{files::format::FileFormat, input::ProductInput, product::Product},
};

/// Batches that wait between the reader and the database.
const QUEUED_BATCHES: usize = 2;
/// Other transactions hold row locks for the duration of a request at most.
const LOCK_TIMEOUT_MS: u32 = 10_000;
/// Attempts of an import that conflicts with concurrent changes of the same rows.
const MAX_ATTEMPTS: usize = 3;
/// The columns of sql/imports/copy.sql.
const STAGED_TYPES: [Type; 7] =
    [Type::INT8, Type::INT8, Type::TEXT, Type::TEXT, Type::TEXT, Type::TIMESTAMPTZ, Type::TEXT_ARRAY];

/// Imports a file and returns the report, also when an invalid row rejects the file.
///
/// `timeout` applies to each statement. The blocking reader holds `permit`; it ends shortly after this future is
/// dropped. `progress` receives the fraction of the file that has been processed, from 0 to 1.
pub(crate) async fn run(
    database: &Database,
    file: &Arc<File>,
    format: FileFormat,
    options: ImportOptions,
    timeout: Duration,
    permit: impl Clone + Send + 'static,
    progress: impl Fn(f64),
) -> Result<Report> {
    for _ in 0..MAX_ATTEMPTS {
        let transaction = ImportTransaction::begin(database, format, options, timeout).await?;
        match transaction.run(file, permit.clone(), &progress).await {
            Ok(Some(report)) => return Ok(report),
            Ok(None) => {}
            Err(TxError::Db(error)) if is_conflict(database, &error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::unavailable(format!("import conflicts with concurrent changes after {MAX_ATTEMPTS} attempts")))
}

/// Returns whether an attempt failed because of a concurrent transaction.
fn is_conflict(database: &Database, error: &DbError) -> bool {
    database.should_retry(error) || error.constraint() == Some("products_category_id_fkey")
}

/// One attempt. Dropping it closes the connection, which rolls the transaction back.
struct ImportTransaction {
    client: Client,
    format: FileFormat,
    options: ImportOptions,
    report: Report,
    seen_ids: HashSet<i64>,
    /// Ids by name.
    categories: HashMap<String, i64>,
}

/// The change of a row, `None` for an unchanged one, or its validation errors.
type RowResult = Result<Option<Change>, FieldErrors>;

impl ImportTransaction {
    async fn begin(
        database: &Database,
        format: FileFormat,
        options: ImportOptions,
        timeout: Duration,
    ) -> Result<Self, DbError> {
        let client = database.dedicated().await?;
        // the transaction is idle while the reader parses
        let timeout = timeout.as_millis();
        let begin = format!(
            "begin; set local statement_timeout = {timeout}; set local lock_timeout = {LOCK_TIMEOUT_MS};
             set local idle_in_transaction_session_timeout = {timeout}"
        );
        client.batch_execute(&begin).await.map_err(|error| DbError::statement(&IMPORTS_STAGE, error))?;
        client.rows(&IMPORTS_STAGE, &[]).await?;
        let (report, seen_ids, categories) = (Report::default(), HashSet::new(), HashMap::new());
        Ok(Self { client, format, options, report, seen_ids, categories })
    }

    /// Returns `None` when a concurrent transaction changed the same rows and the import must start again.
    async fn run(
        mut self,
        file: &Arc<File>,
        permit: impl Send + 'static,
        progress: &impl Fn(f64),
    ) -> Result<Option<Report>, TxError> {
        let (sender, mut receiver) = mpsc::channel(QUEUED_BATCHES);
        let (file, format) = (Arc::clone(file), self.format);
        let cancel_on_drop = CancelOnDrop::default();
        let token = cancel_on_drop.token();
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            reader::read(&file, format, sender, &token)
        });
        while let Some(batch) = receiver.recv().await {
            self.process_batch(&batch).await?;
            progress(batch.progress);
        }
        reading.await.map_err(Error::internal)??;

        if self.report.is_rejected(self.options) {
            self.report.mark_rolled_back();
        } else if !self.options.dry_run && self.report.created + self.report.updated > 0 {
            if !self.merge().await? {
                return Ok(None);
            }
            self.client.run_command("commit").await?;
        }
        Ok(Some(self.report))
    }

    /// Merges the staged rows. Returns whether exactly the reported rows were created and updated.
    async fn merge(&mut self) -> Result<bool, DbError> {
        self.client.run_command("analyze staged").await?;
        let locked = self.client.rows(&IMPORTS_LOCK, &[]).await?;
        if locked.len() as u64 != self.report.updated {
            return Ok(false);
        }
        let merged = self.client.rows(&IMPORTS_MERGE, &[]).await?;
        let count = |column| merged.first().map_or(0, |row| row.get::<_, i64>(column).unsigned_abs());
        Ok((count("created"), count("updated")) == (self.report.created, self.report.updated))
    }

    /// Validates the rows of a batch and stages their changes.
    async fn process_batch(&mut self, Batch { rows, .. }: &Batch) -> Result<(), TxError> {
        let row_ids: Vec<_> = rows.iter().map(|row| row_id(row, self.format)).collect();
        let ids: Vec<i64> = row_ids.iter().filter_map(|id| *id.as_ref().ok()?).collect();
        let stored = if ids.is_empty() { Vec::new() } else { self.client.rows(&PRODUCTS_BY_IDS, &[&ids]).await? };
        let stored: HashMap<i64, &PgRow> = stored.iter().map(|row| (row.get("id"), row)).collect();

        let mut results = Vec::with_capacity(rows.len());
        for (row, id) in rows.iter().zip(row_ids) {
            results.push((row, self.diff_row(row, id, &stored)));
        }
        self.load_categories(&results).await?;
        let mut changes = Vec::new();
        for (row, result) in results {
            match result.and_then(|change| change.map(|change| self.with_category_id(change)).transpose()) {
                Ok(None) => self.report.unchanged += 1,
                Ok(Some(change)) => changes.push(change),
                Err(errors) => self.report.add_errors(row, errors),
            }
        }
        Ok(self.stage(&changes).await?)
    }

    fn diff_row(
        &mut self,
        row: &Row,
        id: Result<Option<i64>, FieldErrors>,
        stored: &HashMap<i64, &PgRow>,
    ) -> RowResult {
        let product = match id? {
            None => None,
            Some(id) => Some(self.take_stored(id, stored).map_err(|message| FieldErrors::single("id", message))?),
        };
        diff(row, self.format, product.as_ref())
    }

    /// Returns the stored product, once per import.
    fn take_stored<'a>(&mut self, id: i64, stored: &HashMap<i64, &'a PgRow>) -> Result<Product<'a>, String> {
        let row = stored.get(&id).ok_or_else(|| format!("Invalid pk \"{id}\" - object does not exist."))?;
        if !self.seen_ids.insert(id) {
            return Err("An earlier row has this id.".to_owned());
        }
        Ok(Product::from_columns(row, 0))
    }

    /// Loads the ids of the categories that `results` name and no earlier batch has named.
    async fn load_categories(&mut self, results: &[(&Row, RowResult)]) -> Result<(), DbError> {
        let changes = results.iter().filter_map(|(_, result)| result.as_ref().ok()?.as_ref());
        let names = changes.filter_map(|change| change.input.category_name.as_deref());
        let unknown: HashSet<&str> = names.filter(|name| !self.categories.contains_key(*name)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown: Vec<&str> = unknown.into_iter().collect();
        let found = self.client.rows(&CATEGORIES_BY_NAMES, &[&unknown]).await?;
        self.categories.extend(found.iter().map(|row| (row.get("name"), row.get("id"))));
        Ok(())
    }

    fn with_category_id(&self, mut change: Change) -> Result<Change, FieldErrors> {
        if let Some(name) = &change.input.category_name {
            let id = self.categories.get(name).ok_or_else(|| change.input.category_not_found())?;
            change.input.category_id = Some(*id);
        }
        Ok(change)
    }

    /// Counts the changes and copies them to the temporary table.
    async fn stage(&mut self, changes: &[Change]) -> Result<(), DbError> {
        let updated = changes.iter().filter(|change| change.id.is_some()).count() as u64;
        self.report.updated += updated;
        self.report.created += changes.len() as u64 - updated;
        if changes.is_empty() || self.options.dry_run {
            return Ok(());
        }
        let copying = async {
            let sink = self.client.copy_in(IMPORTS_COPY.sql).await?;
            let mut writer = pin!(BinaryCopyInWriter::new(sink, &STAGED_TYPES));
            for Change { id, input, created_at } in changes {
                let ProductInput { name, description, price, category_id, category_name: _, tags } = input;
                writer.as_mut().write(&[id, category_id, name, description, price, created_at, tags]).await?;
            }
            writer.finish().await
        };
        copying.await.map(drop).map_err(|error| DbError::statement(&IMPORTS_COPY, error))
    }
}
