//! One statement that revokes the tokens of a million accounts, with two million revoked tokens in the database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use super::record_result;
use crate::{
    bulk_accounts::add_accounts,
    harness::{Process, TestApp, TestClient, connect},
};

const ACCOUNTS: i32 = 1_000_000;
const REVOCATIONS: i32 = 2_000_000;

/// Logs in and out until `stop` is set; returns the times of the logouts. The account is not changed meanwhile.
async fn log_in_and_out(app: &TestApp, stop: &AtomicBool) -> Vec<Duration> {
    let mut times = Vec::new();
    while !stop.load(SeqCst) {
        let client = app.login("ann").await;
        let began = Instant::now();
        assert_eq!(client.post("/api/logout/", json!({})).await.status, 204);
        times.push(began.elapsed());
        assert_eq!(client.get("/api/me/").await.status, 401);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    times
}

/// Returns the time from the start of a process to its first response to a client with a token.
async fn time_to_serve(app: &TestApp, client: &TestClient, revoked: &TestClient) -> Duration {
    let began = Instant::now();
    let server = Process::serve(app, &[]);
    assert_eq!(client.on_instance(server.address).get("/api/me/").await.status, 200);
    let elapsed = began.elapsed();
    assert_eq!(revoked.on_instance(server.address).get("/api/me/").await.status, 401);
    elapsed
}

#[ignore = "minutes: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn million_accounts_are_revoked_in_linear_time() {
    let app = Arc::new(TestApp::spawn().await);
    add_accounts(&app, ACCOUNTS).await;
    app.create_user("ann").await;
    let (bob, carl) = (app.create_user("bob").await, app.create_user("carl").await);
    assert_eq!(carl.post("/api/logout/", json!({})).await.status, 204);
    app.execute(
        "insert into revocations (token_id) select gen_random_uuid() from generate_series(1, $1)",
        &[&REVOCATIONS],
    )
    .await;
    let ready = time_to_serve(&app, &bob, &carl).await;
    assert!(ready < Duration::from_secs(1), "{ready:?}");

    let bump = "update users set token_generation = token_generation + 1 where username <> 'ann'";
    let began = Instant::now();
    app.batch_execute(&format!("{bump} and username like 'bulk%' and id % 10 = 0")).await;
    let tenth = began.elapsed();
    let stop = Arc::new(AtomicBool::new(false));
    let logouts = tokio::spawn({
        let (app, stop) = (Arc::clone(&app), Arc::clone(&stop));
        async move { log_in_and_out(&app, &stop).await }
    });
    let sql = connect(app.database_url()).await;
    let began = Instant::now();
    sql.batch_execute(bump).await.unwrap();
    let all = began.elapsed();
    assert_eq!(bob.get("/api/me/").await.status, 401);
    stop.store(true, SeqCst);
    let mut times = logouts.await.unwrap();
    times.sort();
    let p99 = times[times.len() * 99 / 100];
    assert!(all < tenth * 30 && p99 < Duration::from_secs(1), "{tenth:?}, {all:?}, {p99:?}");
    let observed = format!(
        "100,000 accounts {:.1} s, 1,000,000 {:.1} s; p99 of {} logouts meanwhile {} ms; an instance serves {} ms \
         after its start with 2,000,000 revoked tokens",
        tenth.as_secs_f64(),
        all.as_secs_f64(),
        times.len(),
        p99.as_millis(),
        ready.as_millis(),
    );
    record_result("bulk changes of accounts are linear and block nobody", &observed);
}
