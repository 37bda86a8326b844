//! Leased reads and writers in SQL: who waits, for how long, and when no lease is granted.

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use super::{DURATION, newest_accounts_wait, newest_wait, read_leased, set_duration, spawn, timed};
use crate::harness::{TestApp, as_serving_role, connect, wait_until};

const DEACTIVATE: &str = "update users set is_active = not is_active where username = 'ann'";

#[tokio::test]
async fn new_schema_grants_no_leases_and_writers_do_not_wait() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let serving = connect(&as_serving_role(app.database_url())).await;
    for _ in 0..2 {
        assert_eq!(read_leased(&serving).await.duration, Duration::ZERO);
        app.batch_execute("update products set price = price + 1").await;
        assert_eq!(newest_wait(&app).await, Duration::ZERO);
    }
    assert!(!app.query_scalar::<bool>("select is_called from lease_tickets").await, "no ticket was drawn");
}

#[tokio::test]
async fn writer_waits_once_for_the_leases_before_it() {
    let (app, serving) = spawn().await;
    let write = "update products set price = price + 1 where id = 1";
    app.batch_execute(write).await;
    assert_eq!(newest_wait(&app).await, Duration::ZERO, "no lease was granted");

    let leased = read_leased(&serving).await;
    let newest: i64 = app.query_scalar("select max(version) from catalogue_versions").await;
    assert_eq!((leased.catalogue, leased.duration), (newest, DURATION));
    assert!(timed(&app.sql, write).await >= DURATION);
    assert_eq!(newest_wait(&app).await, DURATION);
    app.batch_execute(write).await;
    assert_eq!(newest_wait(&app).await, Duration::ZERO, "the lease has expired");

    read_leased(&serving).await;
    assert!(timed(&app.sql, DEACTIVATE).await >= DURATION, "the lease covers the accounts as well");
    assert_eq!(newest_accounts_wait(&app).await, DURATION);
    app.batch_execute(write).await;
    assert_eq!(newest_wait(&app).await, Duration::ZERO, "a writer of the accounts has waited");
}

#[tokio::test]
async fn no_lease_is_granted_on_versions_younger_than_the_reader_asks_for() {
    let (app, serving) = spawn().await;
    let lease = async |min_age_ms: i32| {
        let row = serving.query_one("select lease_ms from read_versions_leased($1)", &[&min_age_ms]).await.unwrap();
        row.get::<_, Option<i32>>(0)
    };
    for log in ["catalogue_versions", "accounts_versions"] {
        let age = |seconds| format!("update {log} set changed_at = now() - interval '{seconds} s'");
        app.batch_execute("update catalogue_versions set changed_at = now() - interval '100 s'").await;
        app.batch_execute("update accounts_versions set changed_at = now() - interval '100 s'").await;
        app.batch_execute(&age(20)).await;
        assert_eq!((lease(60_000).await, lease(10_000).await), (Some(0), Some(300)), "{log}");
    }
    let writer = connect(app.database_url()).await;
    writer.batch_execute("begin; set constraints all immediate; update products set price = 7").await.unwrap();
    assert_eq!(lease(0).await, None);
}

#[tokio::test]
async fn no_lease_is_granted_while_a_writer_commits() {
    let (app, serving) = spawn().await;
    for write in ["update products set price = 7 where id = 1", DEACTIVATE] {
        let writer = connect(app.database_url()).await;
        writer.batch_execute(&format!("begin; {write}")).await.unwrap();
        let before = read_leased(&serving).await;
        assert_eq!(before.duration, DURATION, "an open transaction that does not commit yet keeps no lease away");
        let waiting = tokio::spawn(async move { timed(&writer, "commit").await });
        let sleeping = "select count(*) from pg_stat_activity
                         where wait_event = 'PgSleep' and datname = current_database()";
        wait_until("the writer waits", async || app.query_scalar::<i64>(sleeping).await == 1).await;
        // the versions are read without waiting
        let during = read_leased(&serving).await;
        assert_eq!((during.catalogue, during.accounts), (before.catalogue, before.accounts));
        assert_eq!(during.duration, Duration::ZERO);
        assert!(waiting.await.unwrap() >= DURATION);
        let after = read_leased(&serving).await;
        assert_eq!(after.catalogue + after.accounts, before.catalogue + before.accounts + 1);
        assert_eq!(after.duration, DURATION);
    }
}

#[tokio::test]
async fn immediate_constraints_keep_leases_away_until_the_transaction_or_savepoint_ends() {
    let (app, serving) = spawn().await;
    let write = "set constraints all immediate; update products set price = 7 where id = 1";
    for (begin, end) in [("begin", "commit"), ("begin", "rollback"), ("begin; savepoint s", "rollback to s")] {
        app.batch_execute("update products set price = 1 where id = 1").await;
        assert_eq!(read_leased(&serving).await.duration, DURATION);
        let writer = connect(app.database_url()).await;
        assert!(timed(&writer, &format!("{begin}; {write}")).await >= DURATION);
        assert_eq!(read_leased(&serving).await.duration, Duration::ZERO, "{begin}");
        // a later change of the transaction adds no wait
        if end == "commit" {
            writer.batch_execute("update products set price = 8 where id = 2").await.unwrap();
        }
        writer.batch_execute(end).await.unwrap();
        assert_eq!(read_leased(&serving).await.duration, DURATION, "{end}");
        writer.batch_execute("commit").await.unwrap();
    }
}

#[tokio::test]
async fn failed_and_killed_writers_leave_the_next_one_no_wait_or_the_whole_wait() {
    let (app, serving) = spawn().await;
    let write = "update products set price = price + 1 where id = 1";
    // after its wait
    read_leased(&serving).await;
    let rolled_back = format!("begin; set constraints all immediate; {write}; rollback");
    assert!(timed(&app.sql, &rolled_back).await >= DURATION);
    app.batch_execute(write).await;
    assert_eq!(newest_wait(&app).await, Duration::ZERO);
    // during its wait
    read_leased(&serving).await;
    let killed = connect(app.database_url()).await;
    let pid: i32 = killed.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let killed = tokio::spawn(async move { killed.batch_execute(write).await });
    let sleeping = format!("select coalesce(wait_event, '') from pg_stat_activity where pid = {pid}");
    wait_until("it waits", async || app.query_scalar::<String>(&sleeping).await == "PgSleep").await;
    app.execute("select pg_terminate_backend($1)", &[&pid]).await;
    assert!(killed.await.unwrap().is_err());
    app.batch_execute(write).await;
    assert_eq!(newest_wait(&app).await, DURATION);
}

#[tokio::test]
async fn killed_reader_does_not_shorten_the_wait() {
    let (app, serving) = spawn().await;
    let pid: i32 = serving.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    assert_eq!(read_leased(&serving).await.duration, DURATION);
    app.execute("select pg_terminate_backend($1)", &[&pid]).await;
    app.batch_execute("update products set price = 7 where id = 1").await;
    assert_eq!(newest_wait(&app).await, DURATION);
}

#[tokio::test]
async fn duration_changes_after_the_leases_of_the_former_one_have_expired() {
    let (app, serving) = spawn().await;
    let began = Instant::now();
    read_leased(&serving).await;
    let writer = connect(app.database_url()).await;
    let begin = "begin isolation level repeatable read; update products set price = 7 where id = 1";
    writer.batch_execute(begin).await.unwrap();
    set_duration(&app.sql, 2 * DURATION).await;
    assert!(began.elapsed() >= DURATION);
    assert_eq!(read_leased(&serving).await.duration, 2 * DURATION);
    // its snapshot shows the former duration
    let error = writer.batch_execute("commit").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE));
    app.batch_execute("update products set price = 8 where id = 1").await;
    assert_eq!(newest_wait(&app).await, 2 * DURATION);
    set_duration(&app.sql, Duration::ZERO).await;
    assert_eq!(read_leased(&serving).await.duration, Duration::ZERO);
    for millis in [-1, 1001] {
        let refused = app.sql.execute("select set_lease_duration($1)", &[&millis]).await.unwrap_err();
        assert_eq!(refused.code(), Some(&SqlState::CHECK_VIOLATION), "{millis}");
    }
}
