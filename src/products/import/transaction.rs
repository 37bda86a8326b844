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

use std::pin::pin;

use tokio::sync::mpsc;
use tokio_postgres::{
    Client,
    binary_copy::BinaryCopyInWriter,
    types::{ToSql, Type},
};

use super::{
    budget::MemoryBudget, cancel::CancelOnDrop, categories::Categories, content::Content, diff::Change,
    options::ImportOptions, reader, report::Report, seen_ids::SeenIds, upload::Upload,
};
use crate::{
    db::{
        DbError, TxError,
        pool::Queryable,
        statements::{
            IMPORTS_ADVANCE_SEQUENCE, IMPORTS_COPY, IMPORTS_LOCK, IMPORTS_MERGE, IMPORTS_READS, IMPORTS_STAGE,
            VERSIONS_CATALOGUE,
        },
    },
    error::{Error, Result},
    http::response::IfMatch,
    lists::snapshot::version_of,
    products::{export::is_current_etag, files::format::FileFormat, idempotency::Key, input::ProductInput},
    versions::Version,
};

/// Batches that wait between the reader and the database.
const QUEUED_BATCHES: usize = 2;
/// Other transactions hold row locks for the duration of a request at most.
const LOCK_TIMEOUT_MS: u32 = 10_000;
/// Takes the advisory lock that imports of one database hold. Other locks of this program have keys of one number.
const WAIT_FOR_IMPORTS: &str = "select pg_advisory_xact_lock(1953720691, 1);";
/// The columns of sql/imports/copy.sql.
const STAGED_TYPES: [Type; 9] = [
    Type::INT8,
    Type::BOOL,
    Type::INT8,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TIMESTAMPTZ,
    Type::TEXT_ARRAY,
];

/// Each entity tag of `If-Match` costs a query; further ones are not compared.
const MAX_COMPARED_ETAGS: usize = 4;

/// Returns whether the condition holds in the open transaction, for a catalogue of this version.
async fn is_true(if_match: &IfMatch, client: &Client, version: Version) -> Result<bool, TxError> {
    if if_match.is_any() {
        return Ok(true);
    }
    for etag in if_match.etags().take(MAX_COMPARED_ETAGS) {
        if is_current_etag(client, etag, version).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One attempt. Dropping it closes the connection, which rolls the transaction back.
pub(super) struct ImportTransaction {
    pub(super) client: Client,
    pub(super) format: FileFormat,
    pub(super) options: ImportOptions,
    /// The version of the catalogue before the first read.
    version: Version,
    /// Whether the import fails when the catalogue has another version at its end.
    is_conditional: bool,
    key: Option<Key>,
    /// Whether the products of a batch are locked before they are read.
    pub(super) locks_batches: bool,
    pub(super) report: Report,
    budget: MemoryBudget,
    pub(super) seen_ids: SeenIds,
    pub(super) categories: Categories,
}

impl ImportTransaction {
    /// Waits for other imports in the transaction that the client has begun, and checks `If-Match`.
    pub(super) async fn new(client: Client, upload: &Upload, options: ImportOptions) -> Result<Self, TxError> {
        // two imports of the same rows would otherwise fail each other's comparison
        let wait = if options.dry_run { "" } else { WAIT_FOR_IMPORTS };
        let prepared = client.batch_execute(&format!("{wait} set local lock_timeout = {LOCK_TIMEOUT_MS}")).await;
        prepared.map_err(|error| DbError::statement(&IMPORTS_STAGE, error))?;
        client.rows(&IMPORTS_STAGE, &[]).await?;
        client.rows(&IMPORTS_READS, &[]).await?;
        let version = version_of(&client.rows(&VERSIONS_CATALOGUE, &[]).await?)?;
        if let Some(if_match) = &upload.if_match
            && !is_true(if_match, &client, version).await?
        {
            return Err(Error::PreconditionFailed.into());
        }
        let budget = MemoryBudget::new(&upload.memory);
        Ok(Self {
            client,
            format: upload.content.format,
            options,
            version,
            is_conditional: upload.if_match.as_ref().is_some_and(|if_match| !if_match.is_any()),
            key: upload.key.clone(),
            locks_batches: false,
            report: Report::default(),
            seen_ids: SeenIds::new(&budget),
            categories: Categories::new(options.create_categories, &budget),
            budget,
        })
    }

    /// Returns `None` when a concurrent transaction changed what the import has read and it must start again.
    pub(super) async fn run(
        mut self,
        content: &Content,
        permit: impl Send + 'static,
        progress: &impl Fn(f64),
    ) -> Result<Option<Report>, TxError> {
        let (sender, mut receiver) = mpsc::channel(QUEUED_BATCHES);
        let (content, unknown_columns, budget) = (content.clone(), self.options.unknown_columns, self.budget.clone());
        let cancel_on_drop = CancelOnDrop::default();
        let token = cancel_on_drop.token();
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            reader::read(&content, unknown_columns, sender, &budget, &token)
        });
        while let Some(batch) = receiver.recv().await {
            self.process_batch(&batch).await?;
            progress(batch.progress);
        }
        reading.await.map_err(Error::internal)??;
        self.report.categories_created = self.categories.missing();

        if self.report.is_rejected(self.options) {
            self.report.mark_rolled_back();
            return Ok(Some(self.report));
        }
        let is_valid = if self.options.dry_run {
            !self.is_conditional || self.has_same_version().await?
        } else {
            self.merge().await?
        };
        if !is_valid {
            return Ok(None);
        }
        self.commit().await?;
        Ok(Some(self.report))
    }

    /// Commits the changes, and the response under the key.
    async fn commit(&self) -> Result<(), TxError> {
        if let Some(key) = &self.key {
            let response = serde_json::to_string(&self.report).map_err(Error::internal)?;
            key.complete(&self.client, &response).await?;
        }
        self.client.run_command("commit").await.map_err(TxError::Db)
    }

    async fn has_same_version(&self) -> Result<bool, TxError> {
        Ok(version_of(&self.client.rows(&VERSIONS_CATALOGUE, &[]).await?)? == self.version)
    }

    /// Merges the staged rows. Returns whether exactly the reported rows and categories were created and updated.
    async fn merge(&self) -> Result<bool, DbError> {
        self.client.run_command("analyze staged, reads").await?;
        let locked = self.client.rows(&IMPORTS_LOCK, &[]).await?;
        let count = |rows: &[tokio_postgres::Row], column| {
            rows.first().map_or(0, |row| row.get::<_, i64>(column).unsigned_abs())
        };
        if count(&locked, "products") != self.report.updated {
            return Ok(false);
        }
        if self.options.create_missing_ids {
            self.client.rows(&IMPORTS_ADVANCE_SEQUENCE, &[]).await?;
        }
        let Version { number, token } = &self.version;
        let merged = self.client.rows(&IMPORTS_MERGE, &[number, token, &self.is_conditional]).await?;
        let is_valid = merged.first().is_some_and(|row| row.get("is_valid"));
        let counts = ["created", "updated", "categories_created"].map(|column| count(&merged, column));
        let Report { created, updated, categories_created, .. } = self.report;
        Ok(is_valid && counts == [created, updated, categories_created])
    }

    /// Counts the changes and copies them to the temporary table.
    pub(super) async fn stage(&mut self, changes: &[Change]) -> Result<(), DbError> {
        let created = changes.iter().filter(|change| change.is_new).count() as u64;
        self.report.created += created;
        self.report.updated += changes.len() as u64 - created;
        if changes.is_empty() || self.options.dry_run {
            return Ok(());
        }
        let copying = async {
            let sink = self.client.copy_in(IMPORTS_COPY.sql).await?;
            let mut writer = pin!(BinaryCopyInWriter::new(sink, &STAGED_TYPES));
            for Change { id, is_new, input, created_at } in changes {
                let ProductInput { name, description, price, category_id, category_name, tags } = input;
                let new_category = category_name.as_ref().filter(|_| category_id.is_none());
                let columns: [&(dyn ToSql + Sync); STAGED_TYPES.len()] =
                    [id, is_new, category_id, &new_category, name, description, price, created_at, tags];
                writer.as_mut().write(&columns).await?;
            }
            writer.finish().await
        };
        copying.await.map(drop).map_err(|error| DbError::statement(&IMPORTS_COPY, error))
    }
}
