//! Schema migrations: numbered files, each applied once, under an advisory lock.

use std::time::Duration;

use anyhow::Context;
use tokio_postgres::Client;

use super::schema::{self, NewerSchema, Schema};

mod embedded {
    refinery::embed_migrations!("sql/migrations");
}
use embedded::migrations;

/// Key of the advisory lock that serializes migrations ("testshop" in ASCII).
pub(crate) const MIGRATION_LOCK_KEY: i64 = 0x7465_7374_7368_6f70;

/// Uses `pg_dump` because `testshop export` writes products only. The revocations are moved so that revoked tokens stay
/// revoked.
const MIGRATION_INSTRUCTIONS: &str =
    "To move its data (OLD and NEW are the URLs of this database and of a new, empty one):

  testshop migrate --database-url NEW
  pg_dump --data-only -t users -t revocations -t categories -t tags -t products -t product_tags OLD |
    psql --single-transaction -v ON_ERROR_STOP=1 NEW

Stop the server first. Accounts, passwords, products and all ids are kept; users have to log in again.";

/// The result of [`migrate`].
#[derive(Debug)]
pub struct Migrated {
    /// The names of the migrations that were applied.
    pub applied: Vec<String>,
    /// A newer program has migrated the schema, which works with this one.
    pub newer: Option<NewerSchema>,
}

/// Applies the pending migrations.
///
/// Fails when an applied migration has changed since, when a newer program created a schema that does not work with
/// this one, and when a version before the first release created it.
pub async fn migrate(client: &mut Client) -> anyhow::Result<Migrated> {
    // a schema change may take any time
    client.batch_execute("set statement_timeout = 0; set lock_timeout = 0").await?;
    client.execute("select pg_advisory_lock($1)", &[&MIGRATION_LOCK_KEY]).await?;
    let outcome = apply(client).await;
    client.execute("select pg_advisory_unlock($1)", &[&MIGRATION_LOCK_KEY]).await?;
    outcome
}

async fn apply(client: &mut Client) -> anyhow::Result<Migrated> {
    let runner = migrations::runner();
    let newer = match schema::compare(client, runner.get_migrations()).await? {
        Schema::Incompatible(reason) => anyhow::bail!(reason),
        Schema::PreRelease => anyhow::bail!("{}.\n{MIGRATION_INSTRUCTIONS}", schema::PRE_RELEASE),
        Schema::Newer(newer) => return Ok(Migrated { applied: Vec::new(), newer: Some(newer) }),
        Schema::UpToDate | Schema::Pending(_) => None,
    };
    // the comparison above accepts edited migrations, which the runner does not know
    let report =
        runner.set_abort_divergent(false).run_async(client).await.context("the migrations could not be applied")?;
    Ok(Migrated { applied: report.applied_migrations().iter().map(ToString::to_string).collect(), newer })
}

/// Sets the duration of leases on version reads in the database, and returns the former one. Waits until the leases of
/// the former duration have expired.
pub async fn set_lease_duration(client: &Client, duration: Duration) -> anyhow::Result<Duration> {
    let millis = i32::try_from(duration.as_millis())?;
    let row = client.query_one("select set_lease_duration($1)", &[&millis]).await.context("set_lease_duration")?;
    Ok(Duration::from_millis(row.get::<_, i32>(0).try_into()?))
}

/// Returns how the schema of the database relates to this program.
pub(crate) async fn schema(client: &mut Client) -> anyhow::Result<Schema> {
    schema::compare(client, migrations::runner().get_migrations()).await
}
