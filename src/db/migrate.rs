//! Brings the schema up to date: numbered migrations, applied once, under a lock.

use anyhow::Context;
use tokio_postgres::Client;

mod embedded {
    refinery::embed_migrations!("sql/migrations");
}
use embedded::migrations;

/// The advisory lock that keeps two instances from migrating at once; the number says nothing.
pub(crate) const LOCK: i64 = 0x7465_7374_7368_6f70;

/// Applies what is missing and gives the names of what it applied.
///
/// Fails when a migration that was applied before has changed since, or when the database knows one that this program
/// does not.
pub async fn migrate(client: &mut Client) -> anyhow::Result<Vec<String>> {
    // a schema change may take as long as it takes
    client.batch_execute("set statement_timeout = 0; set lock_timeout = 0").await?;
    client.execute("select pg_advisory_lock($1)", &[&LOCK]).await?;
    let report = migrations::runner().run_async(client).await;
    client.execute("select pg_advisory_unlock($1)", &[&LOCK]).await?;
    let report = report.context("the migrations could not be applied")?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}

/// The numbers of the migrations that the database lacks.
pub(crate) async fn missing(client: &mut Client) -> anyhow::Result<Vec<String>> {
    let runner = migrations::runner();
    let known = client.query_opt("select to_regclass('refinery_schema_history')::text", &[]).await?;
    let applied = match known.and_then(|row| row.get::<_, Option<String>>(0)) {
        Some(_) => runner.get_applied_migrations_async(client).await?,
        None => Vec::new(),
    };
    let lacks = |migration: &&refinery::Migration| !applied.iter().any(|done| done.version() == migration.version());
    Ok(runner.get_migrations().iter().filter(lacks).map(ToString::to_string).collect())
}
