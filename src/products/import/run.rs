//! Runs an import, and repeats it when it conflicts with concurrent changes.

use std::time::Duration;

use tokio_postgres::Client;

use super::{options::ImportOptions, report::Report, transaction::ImportTransaction, upload::Upload};
use crate::{
    db::{Database, DbError, TxError},
    error::{Error, Result},
};

/// Attempts of an import that conflicts with concurrent changes of what it reads.
const MAX_ATTEMPTS: usize = 5;
/// Attempts that lock no product before the last statement. Further ones lock all products of the file.
const OPTIMISTIC_ATTEMPTS: usize = 3;

/// The result of an import.
pub(crate) enum Outcome {
    /// The report, also when an invalid row rejects the file.
    Imported(Report),
    /// The report, as JSON, of an earlier import with the same key.
    Replayed(String),
}

/// Imports a file.
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
) -> Result<Outcome> {
    for attempt in 0..MAX_ATTEMPTS {
        let client = begin(database, timeout).await?;
        // before the condition: the import itself has made it false for its own repetition
        if let Some(key) = &upload.key
            && let Some(response) = key.claim(&client).await?
        {
            return Ok(Outcome::Replayed(response));
        }
        let mut transaction = ImportTransaction::new(client, upload, options).await?;
        transaction.locks_batches = attempt >= OPTIMISTIC_ATTEMPTS && !options.dry_run;
        match transaction.run(&upload.content, permit.clone(), &progress).await {
            Ok(Some(report)) => return Ok(Outcome::Imported(report)),
            Ok(None) => {}
            Err(TxError::Db(error)) if is_conflict(database, &error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::unavailable(format!("import conflicts with concurrent changes after {MAX_ATTEMPTS} attempts")))
}

/// Begins a transaction on a connection of its own.
async fn begin(database: &Database, timeout: Duration) -> Result<Client, DbError> {
    let client = database.dedicated().await?;
    let timeout = timeout.as_millis();
    // the transaction is idle while the reader parses, and waits for other imports
    let begin = format!(
        "begin; set local statement_timeout = {timeout}; set local lock_timeout = {timeout};
         set local idle_in_transaction_session_timeout = {timeout}"
    );
    client.batch_execute(&begin).await.map_err(|error| DbError::postgres("begin", error))?;
    Ok(client)
}

/// Returns whether an attempt failed because of a concurrent transaction.
fn is_conflict(database: &Database, error: &DbError) -> bool {
    database.should_retry(error) || error.constraint() == Some("products_category_id_fkey")
}
