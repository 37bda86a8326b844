//! `POST /api/products/import/`: the catalogue from a file as the export writes it.
//!
//! A file goes through four hands: `upload` puts it on disk, `rows` reads it on a thread of its own (`sheets` and `package`
//! for workbooks), `changes` tells what a row would change of the product that it names, and this file gathers the changes
//! in a temporary table and merges them in one statement. All of it is one transaction: an import that breaks off, for
//! whatever reason, has changed nothing.
//!
//! A cell that holds what the export would write of the stored product is no change, be it a text that was cut or one that
//! no client could send today: the export of any catalogue comes back as unchanged.

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
    cancel::Cancel,
    diff::{Change, id_of, judge},
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

/// Batches on their way from the reader.
const BATCHES: usize = 2;
/// Others hold rows for the time of a request at most.
const LOCK_MILLISECONDS: u32 = 10_000;
/// A transaction that meets others' changes of the same rows begins anew so often.
const TRIES: usize = 3;
const STAGED: [Type; 7] =
    [Type::INT8, Type::INT8, Type::TEXT, Type::TEXT, Type::TEXT, Type::TIMESTAMPTZ, Type::TEXT_ARRAY];

/// Makes of the catalogue what a file says. `timeout` bounds each statement; `permit` is held as long as a thread reads,
/// which goes on for a moment when this is dropped; `progress` hears which part of the file, from 0 to 1, has been read.
/// Tells what was done or, when a faulty row refused all, what is wrong.
pub(crate) async fn run(
    database: &Database,
    file: &Arc<File>,
    format: FileFormat,
    wish: ImportOptions,
    timeout: Duration,
    permit: impl Clone + Send + 'static,
    progress: impl Fn(f64),
) -> Result<Report> {
    for _ in 0..TRIES {
        let attempt = ImportTransaction::begin(database, format, wish, timeout).await?;
        match attempt.run(file, permit.clone(), &progress).await {
            Ok(Some(report)) => return Ok(report),
            Ok(None) => {}
            Err(TxError::DbError(failure)) if moved(database, &failure) => {}
            Err(undone) => return Err(undone.into()),
        }
    }
    Err(Error::unavailable("an import met others' changes of the same rows again and again"))
}

/// Whether a failure means that others changed what an import had looked at.
fn moved(database: &Database, failure: &DbError) -> bool {
    database.may_pass(failure) || failure.constraint() == Some("products_category_id_fkey")
}

/// Stops the reader when nobody waits for it any more.
#[derive(Default)]
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.now();
    }
}

/// One transaction. Dropped before its end, its connection is closed and nothing was done.
struct ImportTransaction {
    client: Client,
    format: FileFormat,
    wish: ImportOptions,
    report: Report,
    seen: HashSet<i64>,
    categories: HashMap<String, i64>,
}

/// What a row changes, if anything, or what is wrong with it.
type Verdict = Result<Option<Change>, FieldErrors>;

impl ImportTransaction {
    async fn begin(
        database: &Database,
        format: FileFormat,
        wish: ImportOptions,
        timeout: Duration,
    ) -> Result<Self, DbError> {
        let client = database.dedicated().await?;
        // a dry run asks the database little while it reads
        let timeout = timeout.as_millis();
        let bounds = format!(
            "begin; set local statement_timeout = {timeout}; set local lock_timeout = {LOCK_MILLISECONDS};
             set local idle_in_transaction_session_timeout = {timeout}"
        );
        client.batch_execute(&bounds).await.map_err(|error| DbError::of(&IMPORTS_STAGE, error))?;
        client.rows(&IMPORTS_STAGE, &[]).await?;
        Ok(Self { client, format, wish, report: Report::default(), seen: HashSet::new(), categories: HashMap::new() })
    }

    /// Nothing when others were faster and all has to be looked at anew.
    async fn run(
        mut self,
        file: &Arc<File>,
        permit: impl Send + 'static,
        progress: &impl Fn(f64),
    ) -> Result<Option<Report>, TxError> {
        let (batches, mut inbox) = mpsc::channel(BATCHES);
        let (file, format, waiting) = (Arc::clone(file), self.format, CancelOnDrop::default());
        let cancel = waiting.0.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            reader::read(&file, format, batches, &cancel)
        });
        while let Some(Batch { rows, read }) = inbox.recv().await {
            self.take(&rows).await?;
            progress(read);
        }
        reading.await.map_err(Error::internal)??;

        if self.report.is_refused(self.wish) {
            self.report.nothing_taken();
        } else if !self.wish.dry_run && self.report.created + self.report.updated > 0 {
            if !self.merge().await? {
                return Ok(None);
            }
            self.client.command("commit").await?;
        }
        // whatever did not commit goes with the connection
        Ok(Some(self.report))
    }

    /// Whether all staged rows have become part of the catalogue.
    async fn merge(&mut self) -> Result<bool, DbError> {
        self.client.command("analyze staged").await?;
        let locked = self.client.rows(&IMPORTS_LOCK, &[]).await?;
        if locked.len() as u64 != self.report.updated {
            return Ok(false);
        }
        let merged = self.client.rows(&IMPORTS_MERGE, &[]).await?;
        let count = |column| merged.first().map_or(0, |row| row.get::<_, i64>(column).unsigned_abs());
        Ok((count(0), count(1)) == (self.report.created, self.report.updated))
    }

    /// Looks at some rows and stages what they change.
    async fn take(&mut self, rows: &[Row]) -> Result<(), TxError> {
        let ids: Vec<_> = rows.iter().map(|row| id_of(row, self.format)).collect();
        let wanted: Vec<i64> = ids.iter().filter_map(|id| *id.as_ref().ok()?).collect();
        let stored =
            if wanted.is_empty() { Vec::new() } else { self.client.rows(&PRODUCTS_BY_IDS, &[&wanted]).await? };
        let stored: HashMap<i64, &PgRow> = stored.iter().map(|row| (row.get(0), row)).collect();

        let mut verdicts = Vec::with_capacity(rows.len());
        for (row, id) in rows.iter().zip(ids) {
            verdicts.push((row, self.judge(row, id, &stored)));
        }
        self.find_categories(&verdicts).await?;
        let mut changes = Vec::new();
        for (row, verdict) in verdicts {
            match verdict.and_then(|change| change.map(|change| self.with_category(change)).transpose()) {
                Ok(None) => self.report.unchanged += 1,
                Ok(Some(change)) => changes.push(change),
                Err(errors) => self.report.fault(row, errors),
            }
        }
        Ok(self.stage(&changes).await?)
    }

    fn judge(&mut self, row: &Row, id: Result<Option<i64>, FieldErrors>, stored: &HashMap<i64, &PgRow>) -> Verdict {
        let id = id?;
        let product = match id {
            None => None,
            Some(id) => Some(self.stored_once(id, stored).map_err(|words| FieldErrors::of("id", words))?),
        };
        judge(row, self.format, product.as_ref())
    }

    fn stored_once<'a>(&mut self, id: i64, stored: &HashMap<i64, &'a PgRow>) -> Result<Product<'a>, String> {
        let row = stored.get(&id).ok_or_else(|| format!("Invalid pk \"{id}\" - object does not exist."))?;
        if !self.seen.insert(id) {
            return Err("An earlier row has this id.".to_owned());
        }
        Ok(Product::from_columns(row, 0))
    }

    async fn find_categories(&mut self, verdicts: &[(&Row, Verdict)]) -> Result<(), DbError> {
        let changes = verdicts.iter().filter_map(|(_, verdict)| verdict.as_ref().ok()?.as_ref());
        let named = changes.filter_map(|change| change.input.category_name.as_deref());
        let unknown: HashSet<&str> = named.filter(|name| !self.categories.contains_key(*name)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown: Vec<&str> = unknown.into_iter().collect();
        let found = self.client.rows(&CATEGORIES_BY_NAMES, &[&unknown]).await?;
        self.categories.extend(found.iter().map(|row| (row.get(1), row.get(0))));
        Ok(())
    }

    fn with_category(&self, mut change: Change) -> Result<Change, FieldErrors> {
        if let Some(name) = &change.input.category_name {
            let id = self.categories.get(name).ok_or_else(|| change.no_such_category())?;
            change.input.category_id = Some(*id);
        }
        Ok(change)
    }

    async fn stage(&mut self, changes: &[Change]) -> Result<(), DbError> {
        let changed = changes.iter().filter(|change| change.id.is_some()).count() as u64;
        self.report.updated += changed;
        self.report.created += changes.len() as u64 - changed;
        if changes.is_empty() || self.wish.dry_run {
            return Ok(());
        }
        let copying = async {
            let sink = self.client.copy_in(IMPORTS_COPY.sql).await?;
            let mut writer = pin!(BinaryCopyInWriter::new(sink, &STAGED));
            for Change { id, input, created_at } in changes {
                let ProductInput { name, description, price, category_id, category_name: _, tags } = input;
                writer.as_mut().write(&[id, category_id, name, description, price, created_at, tags]).await?;
            }
            writer.finish().await
        };
        copying.await.map(drop).map_err(|error| DbError::of(&IMPORTS_COPY, error))
    }
}
