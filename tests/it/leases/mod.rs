//! Leases: the functions and triggers of the database, and instances that use them.

mod database;
mod isolation;
mod restart;
mod server;
mod settings;
mod surrender;

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::harness::{TestApp, as_serving_role, connect};

/// The duration of the leases of these tests: long enough that a wait is not mistaken for anything else.
const DURATION: Duration = Duration::from_millis(300);

/// What a leased read returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LeasedRead {
    catalogue: i64,
    accounts: i64,
    /// 0: no lease was granted.
    duration: Duration,
}

async fn read_leased(sql: &Client) -> LeasedRead {
    let row = sql.query_one("select * from read_versions_leased(0)", &[]).await.unwrap();
    let millis = row.get::<_, Option<i32>>("lease_ms").unwrap_or(0).try_into().unwrap();
    LeasedRead {
        catalogue: row.get("catalogue_version"),
        accounts: row.get("accounts_version"),
        duration: Duration::from_millis(millis),
    }
}

async fn set_duration(sql: &Client, duration: Duration) {
    let millis = i32::try_from(duration.as_millis()).unwrap();
    sql.execute("select set_lease_duration($1)", &[&millis]).await.unwrap();
}

/// Starts an app with two products and an account, in whose database leases have [`DURATION`], and a connection of the
/// serving role. No ticket is left to wait for.
async fn spawn() -> (TestApp, Client) {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    app.create_user("ann").await;
    set_duration(&app.sql, DURATION).await;
    // the first writer waits
    app.batch_execute("update products set price = 1 where id = 1").await;
    let serving = connect(&as_serving_role(app.database_url())).await;
    (app, serving)
}

/// Runs a statement, and returns how long it took.
async fn timed(sql: &Client, statement: &str) -> Duration {
    let began = Instant::now();
    sql.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    began.elapsed()
}

/// Returns how long the writer of the newest version of the catalogue has waited for leases.
async fn newest_wait(app: &TestApp) -> Duration {
    let sql = "select lease_wait_ms from catalogue_versions order by version desc limit 1";
    Duration::from_millis(app.query_scalar::<i32>(sql).await.try_into().unwrap())
}

/// Returns how long the writer of the newest version of the accounts has waited for leases.
async fn newest_accounts_wait(app: &TestApp) -> Duration {
    let sql = "select lease_wait_ms from accounts_versions order by version desc limit 1";
    Duration::from_millis(app.query_scalar::<i32>(sql).await.try_into().unwrap())
}
