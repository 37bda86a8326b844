//! The transaction of an import: stages the changes of all rows, then merges them.
//!
//! An import equals one that reads and writes everything at one moment, the snapshot of its last statement
//! (sql/imports/merge.sql). What its rows were compared with is recorded together with the rows: the digest of every
//! product that the file names, also of those that it does not change, and the id of every category. Before the last
//! statement, the products to change are locked, and their categories and tags against renaming, so nobody changes
//! them between its snapshot and the commit. The statement applies the changes only if everything recorded is the same
//! in its snapshot. Otherwise the import starts again. A product that the file names but does not change is not locked:
//! a transaction that changes it after the snapshot counts as later than the import. So other writers wait only for
//! the products that change, and only while they are being merged.
//!
//! If an import has failed repeatedly because its products keep changing, it locks each batch of products before it
//! compares them. Imports of one database wait for each other.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::TryStreamExt;
use tokio::sync::mpsc;
use tokio_postgres::{Client, binary_copy::BinaryCopyInWriter, types::Type};

use super::{
    budget::MemoryBudget,
    cancel::CancelOnDrop,
    diff::{Change, InvalidRow, Target, diff, row_id},
    options::ImportOptions,
    reader,
    report::Report,
    seen_ids::SeenIds,
    table::{Batch, Row},
};
use crate::{
    db::{
        Database, DbError, TxError,
        pool::Queryable,
        statements::{
            IMPORTS_CATEGORIES, IMPORTS_COPY, IMPORTS_LOCK, IMPORTS_LOCK_PRODUCTS, IMPORTS_MERGE, IMPORTS_PRODUCTS,
            IMPORTS_READS, IMPORTS_STAGE, VERSIONS_CATALOGUE,
        },
    },
    error::{Error, FieldErrors, Result},
    http::response::IfMatch,
    limits::ImportPool,
    lists::snapshot::version_of,
    products::{export::is_etag_of_version, files::format::FileFormat, input::{ProductInput, category_name_not_found}, product::Product},
    versions::Version,
};

/// Batches that wait between the reader and the database.
const QUEUED_BATCHES: usize = 2;
/// Other transactions hold row locks for the duration of a request at most.
const LOCK_TIMEOUT_MS: u32 = 10_000;
/// Attempts of an import that conflicts with concurrent changes of what it reads.
const MAX_ATTEMPTS: usize = 5;
/// Attempts that lock no product before the last statement. Further ones lock all products of the file.
const OPTIMISTIC_ATTEMPTS: usize = 3;
/// Key of the advisory lock that imports of one database hold. Other locks of this program have keys of one number.
const IMPORT_LOCK_KEY: &str = "1953720691, 1";
/// Ids of categories that are kept in memory, besides those of the present batch.
const MAX_CACHED_CATEGORIES: usize = 4096;
/// The columns of sql/imports/copy.sql.
const STAGED_TYPES: [Type; 7] =
    [Type::INT8, Type::INT8, Type::TEXT, Type::TEXT, Type::TEXT, Type::TIMESTAMPTZ, Type::TEXT_ARRAY];

/// A file to import.
pub(crate) struct Upload {
    pub(crate) file: Arc<File>,
    pub(crate) format: FileFormat,
    /// Entity tags of exports. The import fails with 412 if the catalogue has changed since. `*` is always true.
    pub(crate) if_match: Option<IfMatch>,
    /// The memory that this import shares with the others of the process.
    pub(crate) memory: Arc<ImportPool>,
}

/// Imports a file and returns the report, also when an invalid row rejects the file.
///
/// `timeout` applies to each statement. The blocking reader holds `permit`; it ends shortly after this future is
/// dropped. `progress` receives the fraction of the file that has been processed, from 0 to 1.
pub(crate) async fn run(
    database: &Database,
    upload: &Upload,
    options: ImportOptions,
    timeout: Duration,
    permit: impl Clone + Send + 'static,
    progress: impl Fn(f64),
) -> Result<Report> {
    for attempt in 0..MAX_ATTEMPTS {
        let mut transaction = ImportTransaction::begin(database, upload, options, timeout).await?;
        transaction.locks_batches = attempt >= OPTIMISTIC_ATTEMPTS && !options.dry_run;
        match transaction.run(&upload.file, permit.clone(), &progress).await {
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

/// Returns whether the condition holds for a catalogue of this version.
fn is_current(if_match: &IfMatch, version: Version) -> bool {
    if_match.matches_any(|etag| is_etag_of_version(etag, version))
}

/// One attempt. Dropping it closes the connection, which rolls the transaction back.
struct ImportTransaction {
    client: Client,
    format: FileFormat,
    options: ImportOptions,
    /// The version of the catalogue before the first read.
    version: Version,
    /// Whether the import fails when the catalogue has another version at its end.
    is_conditional: bool,
    /// Whether the products of a batch are locked before they are read.
    locks_batches: bool,
    report: Report,
    budget: MemoryBudget,
    seen_ids: SeenIds,
    /// Ids by name.
    categories: HashMap<String, i64>,
}

/// The change of a row, `None` for an unchanged one, or its validation errors.
type RowResult = Result<Option<Change>, InvalidRow>;

impl ImportTransaction {
    /// Begins the transaction, waits for other imports and checks `If-Match`.
    async fn begin(
        database: &Database,
        upload: &Upload,
        options: ImportOptions,
        timeout: Duration,
    ) -> Result<Self, TxError> {
        let client = database.dedicated().await?;
        let timeout = timeout.as_millis();
        // the transaction is idle while the reader parses
        let begin = format!(
            "begin; set local statement_timeout = {timeout}; set local idle_in_transaction_session_timeout = {timeout}"
        );
        // two imports of the same rows would otherwise fail each other's comparison
        let wait = format!("set local lock_timeout = {timeout}; select pg_advisory_xact_lock({IMPORT_LOCK_KEY})");
        let lock_timeout = format!("set local lock_timeout = {LOCK_TIMEOUT_MS}");
        let commands = if options.dry_run { vec![begin, lock_timeout] } else { vec![begin, wait, lock_timeout] };
        let begun = client.batch_execute(&commands.join("; ")).await;
        begun.map_err(|error| DbError::statement(&IMPORTS_STAGE, error))?;
        client.rows(&IMPORTS_STAGE, &[]).await?;
        client.rows(&IMPORTS_READS, &[]).await?;
        let version = version_of(&client.rows(&VERSIONS_CATALOGUE, &[]).await?)?;
        if upload.if_match.as_ref().is_some_and(|if_match| !is_current(if_match, version)) {
            return Err(Error::PreconditionFailed.into());
        }
        let budget = MemoryBudget::new(&upload.memory);
        Ok(Self {
            client,
            format: upload.format,
            options,
            version,
            is_conditional: upload.if_match.as_ref().is_some_and(|if_match| !if_match.is_any()),
            locks_batches: false,
            report: Report::default(),
            seen_ids: SeenIds::new(&budget),
            budget,
            categories: HashMap::new(),
        })
    }

    /// Returns `None` when a concurrent transaction changed what the import has read and it must start again.
    async fn run(
        mut self,
        file: &Arc<File>,
        permit: impl Send + 'static,
        progress: &impl Fn(f64),
    ) -> Result<Option<Report>, TxError> {
        let (sender, mut receiver) = mpsc::channel(QUEUED_BATCHES);
        let (file, format, budget) = (Arc::clone(file), self.format, self.budget.clone());
        let cancel_on_drop = CancelOnDrop::default();
        let token = cancel_on_drop.token();
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            reader::read(&file, format, sender, &budget, &token)
        });
        while let Some(batch) = receiver.recv().await {
            self.process_batch(&batch).await?;
            progress(batch.progress);
        }
        reading.await.map_err(Error::internal)??;

        if self.report.is_rejected(self.options) {
            self.report.mark_rolled_back();
            return Ok(Some(self.report));
        }
        if self.options.dry_run {
            let is_valid = !self.is_conditional || self.has_same_version().await?;
            return Ok(is_valid.then_some(self.report));
        }
        if !self.merge().await? {
            return Ok(None);
        }
        // without changes, the merge has only compared; a commit would change the version of the catalogue
        if self.report.created + self.report.updated > 0 {
            self.client.run_command("commit").await?;
        }
        Ok(Some(self.report))
    }

    async fn has_same_version(&self) -> Result<bool, TxError> {
        Ok(version_of(&self.client.rows(&VERSIONS_CATALOGUE, &[]).await?)? == self.version)
    }

    /// Merges the staged rows. Returns whether exactly the reported rows were created and updated.
    async fn merge(&self) -> Result<bool, DbError> {
        self.client.run_command("analyze staged, reads").await?;
        let locked = self.client.rows(&IMPORTS_LOCK, &[]).await?;
        let count = |rows: &[tokio_postgres::Row], column| {
            rows.first().map_or(0, |row| row.get::<_, i64>(column).unsigned_abs())
        };
        if count(&locked, "products") != self.report.updated {
            return Ok(false);
        }
        let Version { number, token } = &self.version;
        let merged = self.client.rows(&IMPORTS_MERGE, &[number, token, &self.is_conditional]).await?;
        let is_valid = merged.first().is_some_and(|row| row.get("is_valid"));
        let counts = (count(&merged, "created"), count(&merged, "updated"));
        Ok(is_valid && counts == (self.report.created, self.report.updated))
    }

    /// Validates the rows of a batch and stages their changes.
    async fn process_batch(&mut self, Batch { rows, .. }: &Batch) -> Result<(), TxError> {
        let results = self.diff_rows(rows).await?;
        let results: Vec<_> = rows.iter().zip(results).collect();
        self.load_categories(&results).await?;
        let mut changes = Vec::new();
        for (row, result) in results {
            match result {
                Ok(None) => self.report.unchanged += 1,
                Ok(Some(change)) => match self.with_category_id(change) {
                    Ok(change) => changes.push(change),
                    Err(errors) => self.report.add_errors(row, errors),
                },
                Err(InvalidRow { errors, category_name }) => {
                    let unknown = category_name.filter(|name| !self.categories.contains_key(name));
                    let errors = unknown.map(|name| category_name_not_found(&name)).unwrap_or_default().merge(errors);
                    self.report.add_errors(row, errors);
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
        named.sort_unstable();
        let ids: Vec<i64> = named.iter().map(|(id, _)| *id).collect();
        if ids.is_empty() {
            return Ok(results);
        }
        if self.locks_batches {
            self.client.rows(&IMPORTS_LOCK_PRODUCTS, &[&ids]).await?;
        }
        // one product at a time: a thousand of them can take any amount of memory
        let db_error = |error| DbError::statement(&IMPORTS_PRODUCTS, error);
        let mut stored = pin!(self.client.query_raw(IMPORTS_PRODUCTS.sql, [&ids]).await.map_err(db_error)?);
        while let Some(row) = stored.try_next().await.map_err(db_error)? {
            let product = Product::from_columns(&row, 0);
            let first = named.partition_point(|(id, _)| *id < product.id);
            let of_product = named[first..].iter().take_while(|(id, _)| *id == product.id);
            for (_, index) in of_product {
                results[*index] = if self.seen_ids.insert(product.id)? {
                    diff(&rows[*index], self.format, Target::Stored(&product))
                } else {
                    Err(FieldErrors::single("id", "An earlier row has this id.").into())
                };
            }
        }
        Ok(results)
    }

    /// Loads the ids of the categories that `results` name and that are not in memory.
    async fn load_categories(&mut self, results: &[(&Row, RowResult)]) -> Result<(), DbError> {
        if self.categories.len() > MAX_CACHED_CATEGORIES {
            self.categories.clear();
        }
        let names = results.iter().filter_map(|(_, result)| match result {
            Ok(change) => change.as_ref()?.input.category_name.as_deref(),
            Err(invalid) => invalid.category_name.as_deref(),
        });
        let unknown: HashSet<&str> = names.filter(|name| !self.categories.contains_key(*name)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown: Vec<&str> = unknown.into_iter().collect();
        let found = self.client.rows(&IMPORTS_CATEGORIES, &[&unknown]).await?;
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
            for Change { id, is_new: _, input, created_at } in changes {
                let ProductInput { name, description, price, category_id, category_name: _, tags } = input;
                writer.as_mut().write(&[id, category_id, name, description, price, created_at, tags]).await?;
            }
            writer.finish().await
        };
        copying.await.map(drop).map_err(|error| DbError::statement(&IMPORTS_COPY, error))
    }
}
