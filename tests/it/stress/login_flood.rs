//! Logins do not starve reads: password hashing has its own threads with low priority and a short queue, and logins
//! that cannot be hashed in time are rejected. The clients here ignore `Retry-After` and send the next login at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use hyper::Method;
use serde_json::json;
use tokio::{
    runtime,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{record_result, stress_duration};
use crate::harness::{KeepAliveClient, PASSWORD, Process, TestApp, TestClient, process::serve_command, wait_until};

const LISTS_PER_SECOND: u32 = 100;
/// Time after a flood within which latencies are as before.
const RECOVERY_TIME: Duration = Duration::from_secs(5);

/// Requests lists at a constant rate, and returns the time of each from when it was due to its response. Runs on a
/// thread of its own: on the runtime of the flooding clients the measurement would include their work.
async fn measure_lists(user: &TestClient, duration: Duration) -> Vec<Duration> {
    let (user, runtime) = (user.clone(), runtime::Builder::new_current_thread().enable_all().build().unwrap());
    tokio::task::spawn_blocking(move || runtime.block_on(measure_lists_on_runtime(&user, duration))).await.unwrap()
}

async fn measure_lists_on_runtime(user: &TestClient, duration: Duration) -> Vec<Duration> {
    let mut due = interval(Duration::from_secs(1) / LISTS_PER_SECOND);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (began, mut calls) = (Instant::now(), Vec::new());
    while began.elapsed() < duration {
        let due_at = due.tick().await;
        let user = user.clone();
        calls.push(tokio::spawn(async move {
            let response = user.get("/api/products/").await;
            assert_eq!(response.status, 200);
            due_at.elapsed()
        }));
    }
    futures_util::future::join_all(calls).await.into_iter().map(Result::unwrap).collect()
}

/// Returns a percentile of some durations in milliseconds.
fn percentile_ms(values: &[Duration], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)].as_secs_f64() * 1e3
}

/// A flood: how many clients log in, how expensive a hash is, and how long lists are measured.
struct Flood {
    clients: usize,
    iterations: u32,
    duration: Duration,
    /// Duration of the measurements before and after.
    baseline: Duration,
    /// Time from the end of the flood to the measurement after it.
    recovery_time: Duration,
}

/// Times of lists, and outcomes of the logins.
struct FloodResult {
    before: Vec<Duration>,
    during: Vec<Duration>,
    after: Vec<Duration>,
    /// From the end of the flood to the next successful login.
    recovered: Duration,
    logged_in: usize,
    rejected: usize,
}

#[derive(Default)]
struct LoginCounts {
    logged_in: AtomicUsize,
    rejected: AtomicUsize,
}

/// Sends logins without a pause until `stop` is set.
async fn log_in_repeatedly(user: TestClient, counts: Arc<LoginCounts>, stop: Arc<AtomicBool>) {
    let mut keep_alive = KeepAliveClient::default();
    while !stop.load(SeqCst) {
        match login(&mut keep_alive, &user).await {
            (200, _) => counts.logged_in.fetch_add(1, SeqCst),
            (503, Some(_)) => counts.rejected.fetch_add(1, SeqCst),
            (status, retry_after) => panic!("a login got {status} with Retry-After {retry_after:?}"),
        };
    }
}

/// Returns the status and the seconds of `Retry-After`.
async fn login(keep_alive: &mut KeepAliveClient, client: &TestClient) -> (u16, Option<u32>) {
    let body = json!({"username": "ann", "password": PASSWORD});
    let response = keep_alive.send(client, Method::POST, "/api/login/", Some(body)).await.expect("a response");
    (response.status.as_u16(), response.header("retry-after").parse().ok())
}

async fn run_flood(flood: Flood) -> FloodResult {
    let app = TestApp::spawn().await;
    app.seed_products(100).await;
    let token = app.create_user("ann").await.token().to_owned();
    let mut serve = serve_command(app.setting("database-url"));
    let server = Process::start(serve.env("RATE_LIMIT", "off").env("PBKDF2_ITERATIONS", flood.iterations.to_string()));
    let user = TestClient::new(server.address).with_token(&token);
    // replaces the stored hash by one with the configured iterations
    assert_eq!(login(&mut KeepAliveClient::default(), &user).await.0, 200);

    measure_lists(&user, Duration::from_secs(1)).await;
    let before = measure_lists(&user, flood.baseline).await;
    let (counts, stop) = (Arc::new(LoginCounts::default()), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..flood.clients)
        .map(|_| tokio::spawn(log_in_repeatedly(user.clone(), Arc::clone(&counts), Arc::clone(&stop))))
        .collect();
    let during = measure_lists(&user, flood.duration).await;
    // on a busy machine the threads of low priority may not have hashed a password yet
    wait_until("a login succeeds and a login is rejected", async || {
        counts.logged_in.load(SeqCst) > 0 && counts.rejected.load(SeqCst) > 0
    })
    .await;
    stop.store(true, SeqCst);
    let ended = Instant::now();
    let mut keep_alive = KeepAliveClient::default();
    let logged_in = async { while login(&mut keep_alive, &user).await.0 != 200 {} };
    timeout(Duration::from_secs(60), logged_in).await.expect("a login succeeds after the flood");
    let recovered = ended.elapsed();
    // some logins are still queued or delayed
    for client in clients {
        client.await.unwrap();
    }
    tokio::time::sleep(flood.recovery_time.saturating_sub(ended.elapsed())).await;
    let after = measure_lists(&user, flood.baseline).await;
    let (logged_in, rejected) = (counts.logged_in.load(SeqCst), counts.rejected.load(SeqCst));
    FloodResult { before, during, after, recovered, logged_in, rejected }
}

#[tokio::test(flavor = "multi_thread")]
async fn login_flood_does_not_starve_reads() {
    let result = run_flood(Flood {
        clients: 400,
        iterations: 20_000,
        duration: Duration::from_secs(2),
        baseline: Duration::from_millis(300),
        recovery_time: Duration::ZERO,
    })
    .await;
    assert!(result.logged_in > 0 && result.rejected > 0, "{} {}", result.logged_in, result.rejected);
}

#[ignore = "minutes, and nothing may run beside it: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn login_flood_stress() {
    let result = run_flood(Flood {
        clients: 500,
        iterations: 600_000,
        duration: stress_duration(60),
        baseline: Duration::from_secs(15),
        recovery_time: RECOVERY_TIME,
    })
    .await;
    let [before, during, after] =
        [&result.before, &result.during, &result.after].map(|values| percentile_ms(values, 99));
    let observed = format!(
        "500 clients that log in without a pause: list p99 {during:.1} ms, {before:.1} ms before and {after:.1} ms \
         from {RECOVERY_TIME:?} after the flood; median {:.1} and {:.1} ms; {} logins succeeded, {} rejected with \
         Retry-After, 0 others; a login succeeds {:.1} s after the end",
        percentile_ms(&result.during, 50),
        percentile_ms(&result.before, 50),
        result.logged_in,
        result.rejected,
        result.recovered.as_secs_f64(),
    );
    assert!(during <= 2.0 * before, "{observed}");
    assert!(after <= 2.0 * before && result.recovered < RECOVERY_TIME, "{observed}");
    record_result("a login flood does not starve reads", &observed);
}
