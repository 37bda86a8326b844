//! Concurrent transactions: they do not fail because of each other's versions, versions are numbered in the order in
//! which they become visible, and a long snapshot slows nothing down.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use testshop::db::statements;
use tokio_postgres::{Client, error::SqlState};

use super::{logged_since, newest};
use crate::harness::{TestApp, connect, wait_until};

/// Enough products that the first and the last one are on different pages of every index.
const PRODUCTS: i32 = 5_000;

async fn spawn() -> TestApp {
    let app = TestApp::spawn().await;
    app.seed_products(PRODUCTS).await;
    app.batch_execute("analyze").await;
    app
}

#[tokio::test]
async fn writers_of_different_rows_commit_at_every_isolation_level() {
    let app = spawn().await;
    let (one, two) = (connect(app.database_url()).await, connect(app.database_url()).await);
    let bulk = "do $$ begin for i in 1..500 loop update products set price = price + 1 where id = i; end loop; end $$";
    for (level, writes) in [
        (
            "read committed",
            ["update products set price = 7 where id = 1", "update products set price = 7 where id = 5000"],
        ),
        (
            "repeatable read",
            ["update products set price = 8 where id = 1", "update products set price = 8 where id = 5000"],
        ),
        (
            "serializable",
            ["update products set price = 9 where id = 1", "update products set price = 9 where id = 5000"],
        ),
        ("serializable", [bulk, "update products set price = 3 where id = 5000"]),
        (
            "serializable",
            ["insert into categories (name) values ('Books')", "insert into tags (name) values ('third')"],
        ),
    ] {
        let version = newest(&app.sql).await;
        for (client, write) in [(&one, writes[0]), (&two, writes[1])] {
            // the snapshot is taken before the other transaction commits
            let begin = format!("begin isolation level {level}; select from products where id = 2500; {write}");
            client.batch_execute(&begin).await.unwrap();
        }
        for client in [&one, &two] {
            let committed = client.batch_execute("commit").await;
            assert!(committed.is_ok(), "{level}, {writes:?}: {committed:?}");
        }
        assert_eq!(logged_since(&app.sql, version).await.len(), 2, "{level}, {writes:?}");
    }
}

/// Updates products one at a time, each in its own transaction, until it is told to stop.
async fn write_until(stop: Arc<AtomicBool>, sql: Client, id: usize) -> usize {
    let mut commits = 0;
    while !stop.load(SeqCst) {
        let level = ["read committed", "repeatable read", "serializable"][commits % 3];
        // every fourth transaction draws no number or throws it away
        let end = if commits.is_multiple_of(4) { "set constraints all immediate; rollback" } else { "commit" };
        sql.batch_execute(&format!(
            "begin isolation level {level}; update products set price = price + 1 where id = {id}; {end}"
        ))
        .await
        .unwrap();
        commits += 1;
    }
    commits
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_numbered_in_the_order_in_which_they_become_visible() {
    let app = spawn().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for id in 1..=6 {
        let sql = connect(app.database_url()).await;
        writers.push(tokio::spawn(write_until(stop.clone(), sql, id * 700)));
    }
    let (mut last, mut seen): (i64, i64) = (newest(&app.sql).await, 0);
    let first = last;
    while seen < 1_500 {
        let row = app
            .sql
            .query_one(
                "select count(*) filter (where version <= $1), count(*), max(version)
                   from catalogue_versions where version > $2",
                &[&last, &first],
            )
            .await
            .unwrap();
        assert_eq!(row.get::<_, i64>(0), seen, "a version appeared below version {last}, which had been visible");
        seen = row.get(1);
        last = row.get::<_, Option<i64>>(2).unwrap_or(last);
    }
    stop.store(true, SeqCst);
    for writer in writers {
        assert!(writer.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn deferred_trigger_that_waits_at_the_commit_ends_in_a_detected_deadlock() {
    let app = spawn().await;
    app.batch_execute(
        "create function update_second() returns trigger language plpgsql
             as 'begin update products set price = 77 where id = 2; return null; end';
         create constraint trigger update_second after insert on categories deferrable initially deferred
             for each row execute function update_second()",
    )
    .await;
    let (first, second) = (connect(app.database_url()).await, connect(app.database_url()).await);
    second.batch_execute("begin; update products set price = 55 where id = 2").await.unwrap();
    let version = newest(&app.sql).await;
    // takes the commit lock, and then waits for the row of the other transaction, which waits for the commit lock
    let committing = first.batch_execute(
        "begin; update products set price = 99 where id = 1; insert into categories (name) values ('Books'); commit",
    );
    let answering = async {
        let waiting = "select count(*) from pg_stat_activity
                        where wait_event_type = 'Lock' and datname = current_database()";
        wait_until("the first one waits", async || app.query_scalar::<i64>(waiting).await == 1).await;
        second.batch_execute("commit").await
    };
    let outcomes = tokio::join!(committing, answering);
    let failures: Vec<_> =
        [&outcomes.0, &outcomes.1].into_iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert_eq!(failures[0].code(), Some(&SqlState::T_R_DEADLOCK_DETECTED));
    let committed = if outcomes.0.is_ok() { "categories 2, products 1 2" } else { "products 2" };
    assert_eq!(logged_since(&app.sql, version).await, [committed]);
}

/// Returns the number of pages that a version read touches.
pub(super) async fn pages_of_version_read(app: &TestApp) -> u64 {
    let explain = format!("explain (analyze, buffers) {}", statements::VERSIONS_READ.sql);
    let rows = app.sql.query(&explain, &[]).await.unwrap();
    let lines: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    // the first line with buffers is that of the whole plan
    let buffers = lines.iter().find_map(|line| line.trim().strip_prefix("Buffers: shared "));
    let counts = buffers.unwrap_or_else(|| panic!("no buffers in {lines:?}")).split(' ');
    counts.filter_map(|count| count.split_once('=')).map(|(_, pages)| pages.parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn version_read_takes_one_index_access_beside_an_open_snapshot() {
    let app = spawn().await;
    let snapshot = connect(app.database_url()).await;
    snapshot.batch_execute("begin isolation level repeatable read; select count(*) from products").await.unwrap();
    let first = newest(&app.sql).await;
    app.batch_execute(
        "do $$ begin
             for i in 1..3000 loop update products set price = i % 7 where id = i; commit; end loop;
         end $$",
    )
    .await;
    assert!(newest(&app.sql).await >= first + 2_900);
    let pages = pages_of_version_read(&app).await;
    assert!(pages <= 8, "{pages} pages");
    snapshot.batch_execute("commit").await.unwrap();
}
