//! Schema migrations: numbered files, each applied once, under an advisory lock.

use anyhow::Context;
use refinery::{Migration, Runner};
use tokio_postgres::Client;

mod embedded {
    refinery::embed_migrations!("sql/migrations");
}
use embedded::migrations;

/// Key of the advisory lock that serializes migrations ("testshop" in ASCII).
pub(crate) const MIGRATION_LOCK_KEY: i64 = 0x7465_7374_7368_6f70;

const PRE_RELEASE: &str = "a version before the first release created this schema, and it cannot be migrated";
/// Uses `pg_dump` because `testshop export` writes products only. The revocations are moved so that revoked tokens stay
/// revoked.
const MIGRATION_INSTRUCTIONS: &str =
    "To move its data (OLD and NEW are the URLs of this database and of a new, empty one):

  testshop migrate --database-url NEW
  pg_dump --data-only -t users -t revocations -t categories -t tags -t products -t product_tags OLD |
    psql --single-transaction -v ON_ERROR_STOP=1 NEW

Stop the server first. Accounts, passwords, products and all ids are kept; users have to log in again.";

/// Applies the pending migrations and returns their names.
///
/// Fails when an applied migration has changed since or is unknown to this program, and when a version before the first
/// release created the schema.
pub async fn migrate(client: &mut Client) -> anyhow::Result<Vec<String>> {
    // a schema change may take any time
    client.batch_execute("set statement_timeout = 0; set lock_timeout = 0").await?;
    client.execute("select pg_advisory_lock($1)", &[&MIGRATION_LOCK_KEY]).await?;
    let outcome = apply(client).await;
    client.execute("select pg_advisory_unlock($1)", &[&MIGRATION_LOCK_KEY]).await?;
    outcome
}

async fn apply(client: &mut Client) -> anyhow::Result<Vec<String>> {
    let runner = migrations::runner();
    let applied = read_history(&runner, client).await?;
    anyhow::ensure!(!is_pre_release(&runner, &applied), "{PRE_RELEASE}.\n{MIGRATION_INSTRUCTIONS}");
    let report = runner.run_async(client).await.context("the migrations could not be applied")?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}

/// Returns the names of the migrations that the database lacks.
///
/// Fails when a version before the first release created the schema.
pub(crate) async fn pending(client: &mut Client) -> anyhow::Result<Vec<String>> {
    let runner = migrations::runner();
    let applied = read_history(&runner, client).await?;
    anyhow::ensure!(
        !is_pre_release(&runner, &applied),
        "{PRE_RELEASE}: `testshop migrate` prints how to move its data"
    );
    let is_pending = |migration: &&Migration| !applied.iter().any(|done| done.version() == migration.version());
    Ok(runner.get_migrations().iter().filter(is_pending).map(ToString::to_string).collect())
}

async fn read_history(runner: &Runner, client: &mut Client) -> anyhow::Result<Vec<Migration>> {
    let history = client.query_one("select to_regclass('refinery_schema_history')::text", &[]).await?;
    match history.get::<_, Option<String>>(0) {
        Some(_) => Ok(runner.get_applied_migrations_async(client).await?),
        None => Ok(Vec::new()),
    }
}

/// Returns whether the database has the history from before the baseline of the first release: its first migration has
/// the version of the baseline's and another checksum. Migrations do not change after a release.
fn is_pre_release(runner: &Runner, applied: &[Migration]) -> bool {
    let differs = |ours: &Migration| applied.iter().any(|done| done.version() == ours.version() && done != ours);
    runner.get_migrations().iter().min().is_some_and(differs)
}
