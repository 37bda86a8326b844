//! Logins cannot starve reads: hashing has its own threads, of low priority and with a short queue, and what it cannot do
//! in time is turned away. Those who storm here do not listen to `Retry-After`: they ask again as soon as they are answered.

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
    time::{MissedTickBehavior, interval},
};

use super::{record_result, stress_duration};
use crate::harness::{KeepAliveClient, PASSWORD, Process, TestApp, TestClient, process::serve_command};

/// Lists a second.
const LISTS_PER_SECOND: u32 = 100;
/// So long after a storm all is as before.
const RECOVERY_TIME: Duration = Duration::from_secs(5);

/// Lists at a constant rate: how long each took from when it was due. Asked for from a thread of their own, or they would
/// wait for those who storm in this process, and not for the server.
async fn measure_lists(user: &TestClient, long: Duration) -> Vec<Duration> {
    let (user, here) = (user.clone(), runtime::Builder::new_current_thread().enable_all().build().unwrap());
    tokio::task::spawn_blocking(move || here.block_on(measure_lists_on_runtime(&user, long))).await.unwrap()
}

async fn measure_lists_on_runtime(user: &TestClient, long: Duration) -> Vec<Duration> {
    let mut due = interval(Duration::from_secs(1) / LISTS_PER_SECOND);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (began, mut calls) = (Instant::now(), Vec::new());
    while began.elapsed() < long {
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

/// The value below which so many of a hundred are.
fn percentile(values: &[Duration], percent: usize) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// What a storm of so many did.
struct FloodResult {
    before: Vec<Duration>,
    during: Vec<Duration>,
    /// When it should have settled.
    after: Vec<Duration>,
    /// From its end to the next login that is served.
    recovered: Duration,
    logged_in: usize,
    rejected: usize,
}

async fn flood(clients: usize, iterations: u32, quiet: Duration, long: Duration, settled: Duration) -> FloodResult {
    let app = TestApp::spawn().await;
    app.seed_products(100).await;
    let token = app.create_user("ann").await.token().to_owned();
    let mut serve = serve_command(app.setting("database-url"));
    let server = Process::start(serve.env("RATE_LIMIT", "off").env("PBKDF2_ITERATIONS", iterations.to_string()));
    let user = TestClient::new(server.address).with_token(&token);
    // the hash has as many iterations as are asked for now
    assert_eq!(login(&mut KeepAliveClient::default(), &user).await.0, 200);

    measure_lists(&user, Duration::from_secs(1)).await;
    let before = measure_lists(&user, quiet).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (logged_in, rejected) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let flooding: Vec<_> = (0..clients)
        .map(|_| {
            let (user, stop) = (user.clone(), Arc::clone(&stop));
            let (logged_in, rejected) = (Arc::clone(&logged_in), Arc::clone(&rejected));
            tokio::spawn(async move {
                let mut keep_alive = KeepAliveClient::default();
                while !stop.load(SeqCst) {
                    match login(&mut keep_alive, &user).await {
                        (200, _) => logged_in.fetch_add(1, SeqCst),
                        (503, Some(_)) => rejected.fetch_add(1, SeqCst),
                        (status, _) => panic!("a login was answered {status}"),
                    };
                }
            })
        })
        .collect();
    let during = measure_lists(&user, long).await;
    stop.store(true, SeqCst);
    let ended = Instant::now();
    let mut keep_alive = KeepAliveClient::default();
    while login(&mut keep_alive, &user).await.0 != 200 {}
    let recovered = ended.elapsed();
    // some still wait to hear that they are refused
    for client in flooding {
        client.await.unwrap();
    }
    tokio::time::sleep(settled.saturating_sub(ended.elapsed())).await;
    let after = measure_lists(&user, quiet).await;
    FloodResult { before, during, after, recovered, logged_in: logged_in.load(SeqCst), rejected: rejected.load(SeqCst) }
}

/// The status, and after how many seconds to come again if that was told.
async fn login(keep_alive: &mut KeepAliveClient, caller: &TestClient) -> (u16, Option<u32>) {
    let body = json!({"username": "ann", "password": PASSWORD});
    let response = keep_alive.send(caller, Method::POST, "/api/login/", Some(body)).await.expect("an answer");
    (response.status.as_u16(), response.header("retry-after").parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn login_flood_does_not_starve_reads() {
    let flood = flood(400, 20_000, Duration::from_millis(300), Duration::from_secs(2), Duration::ZERO).await;
    assert!(flood.logged_in > 0 && flood.rejected > 0, "{} {}", flood.logged_in, flood.rejected);
}

#[ignore = "minutes, and nothing may run beside it: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn login_flood_stress() {
    let flood = flood(500, 600_000, Duration::from_secs(15), stress_duration(60), RECOVERY_TIME).await;
    let p99 = |values: &[Duration]| percentile(values, 99).as_secs_f64() * 1e3;
    let (before, during, after) = (p99(&flood.before), p99(&flood.during), p99(&flood.after));
    let numbers = format!(
        "500 at once that never wait: list's p99 {during:.1} ms, {before:.1} ms before and {after:.1} ms from {RECOVERY_TIME:?} after; median {:.1} and {:.1} ms; {} logged in, {} told to come later, 0 others; a login is served {:.1} s after the end",
        percentile(&flood.during, 50).as_secs_f64() * 1e3,
        percentile(&flood.before, 50).as_secs_f64() * 1e3,
        flood.logged_in,
        flood.rejected,
        flood.recovered.as_secs_f64(),
    );
    assert!(during <= 2.0 * before, "{numbers}");
    assert!(after <= 2.0 * before && flood.recovered < RECOVERY_TIME, "{numbers}");
    record_result("a storm of logins does not starve those who read", &numbers);
}
