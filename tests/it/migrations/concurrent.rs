//! Migrations while requests are under way: they wait for each other, and neither fails.

use std::path::Path;

use refinery::{Migration, Runner, Target};
use testshop::db::statements;
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

/// Creates a database with the schema before leases, a product and an account.
async fn create_database_without_leases() -> String {
    let url = create_empty_database("").await;
    migrate_to(&url, 12).await;
    let rows = "insert into categories (name) values ('Sport');
                insert into products (category_id, name, price) values (1, 'First', 1);
                insert into users (username, email, password) values ('ann', 'ann@example.com', 'x')";
    connect(&url).await.batch_execute(rows).await.unwrap();
    url
}

/// Connects as the server does: a statement that waits for a lock for this long fails.
async fn connect_with_lock_timeout(url: &str) -> Client {
    let client = connect(url).await;
    client.batch_execute("set lock_timeout = '2s'").await.unwrap();
    client
}

/// A change of the catalogue and one of the accounts.
const CHANGES: [&str; 2] = ["update products set price = price + 1", "update users set is_active = not is_active"];

async fn both_versions(client: &Client) -> i64 {
    client.query_one("select sum(version)::bigint from versions", &[]).await.unwrap().get(0)
}

/// A commit that went on in a former function would not wait for leases.
#[tokio::test(flavor = "multi_thread")]
async fn commit_ends_before_the_migration_to_leases_replaces_the_functions_that_it_runs() {
    for change in CHANGES {
        let url = create_database_without_leases().await;
        let (writing, blocking, observer) =
            (connect_with_lock_timeout(&url).await, connect(&url).await, connect(&url).await);
        writing.batch_execute(&format!("begin; {change}")).await.unwrap();
        // V13 replaces this function after it has locked its tables
        blocking.batch_execute("begin; alter function insert_catalogue_version() cost 1000").await.unwrap();
        let before = both_versions(&observer).await;
        let migrations = start_migrations(&url, &observer).await;
        writing.batch_execute("commit").await.unwrap_or_else(|error| panic!("{change}: {error:?}"));
        blocking.batch_execute("rollback").await.unwrap();
        migrations.await.unwrap();
        assert_eq!(both_versions(&observer).await, before + 1, "{change}");
    }
}

/// Its locks last until it ends, which nobody but its own program knows.
#[tokio::test(flavor = "multi_thread")]
async fn migration_to_leases_waits_for_prepared_writers_and_requests_go_on() {
    for change in CHANGES {
        let url = create_database_without_leases().await;
        let (preparing, observer) = (connect(&url).await, connect(&url).await);
        let name = url.rsplit_once('/').unwrap().1;
        preparing.batch_execute(&format!("begin; {change}; prepare transaction '{name}'")).await.unwrap();
        let before = both_versions(&observer).await;
        let migrations = start_migrations(&url, &observer).await;
        let serving = connect_with_lock_timeout(&url).await;
        let other = CHANGES.iter().find(|other| **other != change).unwrap();
        serving.batch_execute(other).await.unwrap();
        assert_eq!(both_versions(&serving).await, before + 1, "{change}");
        assert!(!migrations.is_finished());
        serving.batch_execute(&format!("commit prepared '{name}'")).await.unwrap();
        migrations.await.unwrap();
        assert_eq!(both_versions(&serving).await, before + 2, "{change}");
    }
}

/// A long list, an export or a dump holds its locks for minutes.
#[tokio::test(flavor = "multi_thread")]
async fn requests_go_on_while_the_migration_to_leases_waits_for_a_long_snapshot() {
    let url = create_database_without_leases().await;
    let (snapshot, observer) = (connect(&url).await, connect(&url).await);
    snapshot
        .batch_execute(
            "begin isolation level repeatable read;
             select from catalogue_versions; select from accounts_versions; select from catalogue_changes",
        )
        .await
        .unwrap();
    let migrations = start_migrations(&url, &observer).await;
    let serving = connect_with_lock_timeout(&url).await;
    let before = both_versions(&serving).await;
    for round in 1..=5 {
        for statement in CHANGES.into_iter().chain([
            statements::VERSIONS_READ.sql,
            statements::VERSIONS_PRUNE.sql,
            // the previous release
            "update versions set pruned_through = 0 where name = 'accounts'",
        ]) {
            serving.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
        assert_eq!(both_versions(&serving).await, before + 2 * round);
    }
    assert!(!migrations.is_finished());
    snapshot.batch_execute("select from products, users; commit").await.unwrap();
    migrations.await.unwrap();
}

/// The column with the duration of leases is added to the row that they lock, which they see as it was.
#[tokio::test]
async fn writers_whose_snapshots_are_older_than_the_migration_to_leases_commit() {
    for level in ["repeatable read", "serializable"] {
        let url = create_database_without_leases().await;
        let [first, second] = [connect(&url).await, connect(&url).await];
        for writer in [&first, &second] {
            writer.batch_execute(&format!("begin isolation level {level}; select from categories")).await.unwrap();
        }
        let before = both_versions(&connect(&url).await).await;
        migrate_to(&url, i32::MAX).await;
        for (writer, change) in [first, second].into_iter().zip(CHANGES) {
            let written = writer.batch_execute(&format!("{change}; commit")).await;
            written.unwrap_or_else(|error| panic!("{level}: {change}: {error:?}"));
        }
        assert_eq!(both_versions(&connect(&url).await).await, before + 2, "{level}");
    }
}

/// A reader locks the view before the tables that it selects from.
#[tokio::test(flavor = "multi_thread")]
async fn reader_of_the_versions_and_migrations_do_not_deadlock() {
    // statements that lock only the view, or the last table that it selects from, or what a prune deletes from
    for (level, locked) in [
        (11, "create temp view reader as select * from versions"),
        (12, "select from accounts_versions"),
        (12, "select prune_accounts_versions()"),
    ] {
        let url = create_empty_database("").await;
        migrate_to(&url, level).await;
        let (reading, observer) = (connect(&url).await, connect(&url).await);
        reading.batch_execute(&format!("begin; {locked}")).await.unwrap();
        let migrations = start_migrations(&url, &observer).await;
        let read = reading.batch_execute("select * from versions; select prune_catalogue_versions(); commit").await;
        migrations.await.unwrap();
        read.unwrap_or_else(|error| panic!("{locked}: {error:?}"));
        assert_eq!(accounts_version(&observer).await, 0, "{locked}");
    }
}
