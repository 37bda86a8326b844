//! Migrations while requests are under way: they wait for each other, and neither fails.

use std::path::Path;

use refinery::{Migration, Runner, Target};
use tokio_postgres::Client;

use crate::harness::{connect, create_empty_database, wait_until};

/// Applies the migrations up to number `last`.
async fn migrate_to(url: &str, last: i32) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/migrations");
    let migrations: Vec<Migration> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            Migration::unapplied(name, &std::fs::read_to_string(&path).unwrap()).unwrap()
        })
        .collect();
    let mut client = connect(url).await;
    let runner = Runner::new(&migrations).set_target(Target::Version(last));
    runner.run_async(&mut client).await.expect("the migrations are applied");
}

/// Starts the migrations that follow, and returns once they wait for another transaction.
async fn start_migrations(url: &str, observer: &Client) -> tokio::task::JoinHandle<()> {
    let migrations = tokio::spawn({
        let url = url.to_owned();
        async move { migrate_to(&url, i32::MAX).await }
    });
    // a migration that does not get its locks at once sleeps between its attempts
    let waiting = "select exists (select from pg_stat_activity
                                   where datname = current_database()
                                     and pid <> pg_backend_pid()
                                     and (wait_event_type = 'Lock' or wait_event = 'PgSleep'))";
    wait_until("a migration waits", async || observer.query_one(waiting, &[]).await.unwrap().get(0)).await;
    migrations
}

async fn accounts_version(client: &Client) -> i64 {
    client.query_one("select version from versions where name = 'accounts'", &[]).await.unwrap().get(0)
}

/// The triggers of the commit run the functions that they find then, on the tables that they find then.
#[tokio::test(flavor = "multi_thread")]
async fn revocation_that_commits_during_migrations_is_numbered() {
    let url = create_empty_database("").await;
    migrate_to(&url, 10).await;
    let (revoking, blocking, observer) = (connect(&url).await, connect(&url).await, connect(&url).await);
    let before = accounts_version(&observer).await;
    revoking
        .batch_execute(
            "begin;
             insert into revocations (token_id, expires_at) values ('a', now() + interval '1 hour')",
        )
        .await
        .unwrap();
    // V11 drops this function after it has locked its tables
    let function = "begin; alter function bump_version() cost 1000";
    blocking.batch_execute(function).await.unwrap();
    let migrations = start_migrations(&url, &observer).await;
    let commit = tokio::spawn(async move { revoking.batch_execute("commit").await });
    wait_until("the commit has ended or waits", async || {
        let waiting = "select exists (select from pg_stat_activity
                                       where datname = current_database()
                                         and query = 'commit'
                                         and wait_event_type = 'Lock')";
        commit.is_finished() || observer.query_one(waiting, &[]).await.unwrap().get(0)
    })
    .await;
    blocking.batch_execute("rollback").await.unwrap();
    commit.await.unwrap().expect("the revocation is committed");
    migrations.await.unwrap();
    assert_eq!(accounts_version(&observer).await, before + 1);
    let numbered = "select count(*) from revocations join accounts_versions on version = seq and token = version_token";
    assert_eq!(observer.query_one(numbered, &[]).await.unwrap().get::<_, i64>(0), 1);
}

/// A reader locks the view before the tables that it selects from.
#[tokio::test(flavor = "multi_thread")]
async fn reader_of_the_versions_and_migrations_do_not_deadlock() {
    let url = create_empty_database("").await;
    migrate_to(&url, 11).await;
    let (reading, observer) = (connect(&url).await, connect(&url).await);
    // locks the view only
    reading.batch_execute("begin; create temp view reader as select * from versions").await.unwrap();
    let migrations = start_migrations(&url, &observer).await;
    let read = reading.batch_execute("select * from versions; commit").await;
    migrations.await.unwrap();
    read.expect("the reader gets the versions");
    assert_eq!(accounts_version(&observer).await, 0);
}
