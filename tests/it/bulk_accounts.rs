//! Bulk changes of accounts: linear in their number, without blocking other transactions, and effective at once.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{TestApp, TestClient, connect};

/// Inserts accounts without a usable password.
pub async fn add_accounts(app: &TestApp, count: i32) {
    app.execute(
        "insert into users (username, email, password)
         select 'bulk' || i, 'bulk' || i || '@example.com', '!' from generate_series(1, $1) i",
        &[&count],
    )
    .await;
    app.batch_execute("analyze users").await;
}

/// Executes a statement; returns how long it took and how many revocations it left.
async fn timed(app: &TestApp, statement: &str) -> (Duration, i64) {
    let count = "select count(*) from revocations";
    let before: i64 = app.query_scalar(count).await;
    let began = Instant::now();
    app.batch_execute(statement).await;
    (began.elapsed(), app.query_scalar::<i64>(count).await - before)
}

async fn assert_linear(app: &TestApp, (small, large): (i32, i32), statement: &str) -> (Duration, Duration) {
    let limited = |accounts: i32| format!("{statement} where username like 'bulk%' and id % {large} < {accounts}");
    let (short, revocations) = timed(app, &limited(small)).await;
    assert_eq!(revocations, 1, "one row stands for all accounts");
    let (long, revocations) = timed(app, &limited(large)).await;
    assert_eq!(revocations, 1, "one row stands for all accounts");
    let factor = f64::from(large / small);
    let limit = short.mul_f64(factor * 3.0) + Duration::from_secs(1);
    assert!(long < limit, "{small} accounts take {short:?}, {large} take {long:?}");
    (short, long)
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_change_is_linear_and_revokes_all_tokens() {
    let app = TestApp::spawn().await;
    let other = app.start_instance().await;
    add_accounts(&app, 20_000).await;
    let (ann, bob) = (app.create_user("ann").await, app.create_user("bob").await);
    for client in [&ann, &bob] {
        assert_eq!(client.on_instance(other.address).get("/api/me/").await.status, 200);
    }
    let bump = "update users set token_generation = token_generation + 1";
    let (short, long) = assert_linear(&app, (5_000, 20_000), bump).await;
    println!("5,000 accounts {short:?}, 20,000 accounts {long:?}");
    assert_eq!(ann.get("/api/me/").await.status, 200, "the statements did not concern ann");
    timed(&app, bump).await;
    for client in [&ann, &bob] {
        assert_eq!(client.get("/api/me/").await.status, 401);
        assert_eq!(client.on_instance(other.address).get("/api/me/").await.status, 401);
    }
    let carl = app.create_user("carl").await;
    let (_, revocations) = timed(&app, "delete from users where username <> 'carl'").await;
    assert_eq!(revocations, 1);
    assert_eq!(carl.on_instance(other.address).get("/api/me/").await.status, 200);
}

#[tokio::test]
async fn few_changed_accounts_are_revoked_one_by_one() {
    let app = TestApp::spawn().await;
    add_accounts(&app, 1_002).await;
    let bump = "update users set token_generation = token_generation + 1 where id <= ";
    assert_eq!(timed(&app, &format!("{bump} 1000")).await.1, 1_000);
    assert_eq!(timed(&app, &format!("{bump} 1001")).await.1, 1);
    assert_eq!(timed(&app, "update users set email = 'x' || email").await.1, 0, "no token depends on the email");
    let (before, after) = ("select max(version) from accounts_versions", "select max(seq) from revocations");
    assert_eq!(app.query_scalar::<i64>(before).await, app.query_scalar::<i64>(after).await);
    // several statements of one transaction are numbered together
    let several = "begin; update users set is_staff = true where id = 1; delete from users where id = 2;
                   insert into revocations (token_id) values ('a'), ('b'); savepoint s;
                   update users set is_staff = true where id = 3; rollback to s; commit";
    assert_eq!(timed(&app, several).await.1, 4);
    let distinct: i64 = app.query_scalar("select count(distinct seq) from revocations").await;
    assert_eq!(distinct, app.query_scalar::<i64>("select max(version) from accounts_versions").await);
    assert_eq!(app.query_scalar::<i64>("select count(*) from pending_revocations").await, 0);
    assert_eq!(app.query_scalar::<i64>("select count(*) from pending_version_bumps").await, 0);
}

#[tokio::test]
async fn replicated_changes_are_revoked_together() {
    let app = TestApp::spawn().await;
    let other = app.start_instance().await;
    add_accounts(&app, 5_000).await;
    let ann = app.create_user("ann").await;
    assert_eq!(ann.on_instance(other.address).get("/api/me/").await.status, 200);
    // the triggers that fire where rows arrive by logical replication
    let replicated = "begin; set local session_replication_role = replica;
                      update users set is_active = false; commit";
    assert_eq!(timed(&app, replicated).await.1, 1);
    assert_eq!(ann.on_instance(other.address).get("/api/me/").await.status, 401);
}

/// Logs sessions out one after the other; returns the longest time.
async fn log_out(clients: &[TestClient]) -> Duration {
    let mut longest = Duration::ZERO;
    for client in clients {
        let began = Instant::now();
        assert_eq!(client.post("/api/logout/", json!({})).await.status, 204);
        longest = longest.max(began.elapsed());
        assert_eq!(client.get("/api/me/").await.status, 401);
    }
    longest
}

#[tokio::test(flavor = "multi_thread")]
async fn open_bulk_change_does_not_block_logout() {
    let app = TestApp::spawn().await;
    add_accounts(&app, 5_000).await;
    let mut clients = vec![app.create_user("ann").await];
    clients.push(app.login("ann").await);
    let sql = connect(app.database_url()).await;
    // the transaction stays open: before, it held the lock that every revocation needs
    sql.batch_execute(
        "begin; update users set token_generation = token_generation + 1 where username like 'bulk%';
         delete from users where username like 'bulk1%'",
    )
    .await
    .unwrap();
    let longest = log_out(&clients).await;
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    sql.batch_execute("commit").await.unwrap();
    assert_eq!(app.login("ann").await.get("/api/me/").await.status, 200);
}

#[tokio::test]
async fn instance_starts_and_reconnects_without_reading_old_revocations() {
    let app = TestApp::spawn().await;
    let (ann, bob) = (app.create_user("ann").await, app.create_user("bob").await);
    assert_eq!(ann.post("/api/logout/", json!({})).await.status, 204);
    app.batch_execute("insert into revocations (token_id) select gen_random_uuid() from generate_series(1, 20000)")
        .await;
    app.reset_statement_stats().await;
    let started_later = app.start_instance().await;
    assert_eq!(ann.on_instance(started_later.address).get("/api/me/").await.status, 401);
    assert_eq!(bob.on_instance(started_later.address).get("/api/me/").await.status, 200);
    let terminate = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                      where datname = current_database() and pid <> pg_backend_pid()";
    app.query_scalar::<i64>(terminate).await;
    crate::harness::wait_until("the servers are connected again", async || bob.get("/api/me/").await.status == 200)
        .await;
    assert_eq!(ann.get("/api/me/").await.status, 401);
    let rows: i64 = app
        .query_scalar(
            "select coalesce(max(rows / calls), 0) from pg_stat_statements
              where query like '%is_continuous%' and query not like '%pg_stat_statements%'
                and dbid = (select oid from pg_database where datname = current_database())",
        )
        .await;
    assert!(rows <= 1, "{rows} revocations were read");
}
