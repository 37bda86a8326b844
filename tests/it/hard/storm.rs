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

use super::{duration, seen};
use crate::harness::{Caller, Kept, PASSWORD, Process, Shop, process::serving};

/// Lists a second.
const RATE: u32 = 100;
/// So long after a storm all is as before.
const NORMAL: Duration = Duration::from_secs(5);

/// Lists at a constant rate: how long each took from when it was due. Asked for from a thread of their own, or they would
/// wait for those who storm in this process, and not for the server.
async fn lists(user: &Caller, long: Duration) -> Vec<Duration> {
    let (user, here) = (user.clone(), runtime::Builder::new_current_thread().enable_all().build().unwrap());
    tokio::task::spawn_blocking(move || here.block_on(lists_here(&user, long))).await.unwrap()
}

async fn lists_here(user: &Caller, long: Duration) -> Vec<Duration> {
    let mut due = interval(Duration::from_secs(1) / RATE);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (began, mut calls) = (Instant::now(), Vec::new());
    while began.elapsed() < long {
        let due_at = due.tick().await;
        let user = user.clone();
        calls.push(tokio::spawn(async move {
            let answer = user.get("/api/products/").await;
            assert_eq!(answer.status, 200);
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
struct Storm {
    before: Vec<Duration>,
    during: Vec<Duration>,
    /// When it should have settled.
    after: Vec<Duration>,
    /// From its end to the next login that is served.
    recovered: Duration,
    logged_in: usize,
    turned_away: usize,
}

async fn storm(clients: usize, iterations: u32, quiet: Duration, long: Duration, settled: Duration) -> Storm {
    let shop = Shop::open().await;
    shop.stock(100).await;
    let token = shop.user("ann").await.token().to_owned();
    let mut serve = serving(shop.setting("database-url"));
    let server = Process::start(serve.env("RATE_LIMIT", "off").env("PBKDF2_ITERATIONS", iterations.to_string()));
    let user = Caller::new(server.address).bearing(&token);
    // the hash has as many iterations as are asked for now
    assert_eq!(login(&mut Kept::default(), &user).await.0, 200);

    lists(&user, Duration::from_secs(1)).await;
    let before = lists(&user, quiet).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (logged_in, turned_away) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let storming: Vec<_> = (0..clients)
        .map(|_| {
            let (user, stop) = (user.clone(), Arc::clone(&stop));
            let (logged_in, turned_away) = (Arc::clone(&logged_in), Arc::clone(&turned_away));
            tokio::spawn(async move {
                let mut kept = Kept::default();
                while !stop.load(SeqCst) {
                    match login(&mut kept, &user).await {
                        (200, _) => logged_in.fetch_add(1, SeqCst),
                        (503, Some(_)) => turned_away.fetch_add(1, SeqCst),
                        (status, _) => panic!("a login was answered {status}"),
                    };
                }
            })
        })
        .collect();
    let during = lists(&user, long).await;
    stop.store(true, SeqCst);
    let ended = Instant::now();
    let mut kept = Kept::default();
    while login(&mut kept, &user).await.0 != 200 {}
    let recovered = ended.elapsed();
    // some still wait to hear that they are refused
    for client in storming {
        client.await.unwrap();
    }
    tokio::time::sleep(settled.saturating_sub(ended.elapsed())).await;
    let after = lists(&user, quiet).await;
    Storm { before, during, after, recovered, logged_in: logged_in.load(SeqCst), turned_away: turned_away.load(SeqCst) }
}

/// The status, and after how many seconds to come again if that was told.
async fn login(kept: &mut Kept, caller: &Caller) -> (u16, Option<u32>) {
    let body = json!({"username": "ann", "password": PASSWORD});
    let answer = kept.send(caller, Method::POST, "/api/login/", Some(body)).await.expect("an answer");
    (answer.status.as_u16(), answer.header("retry-after").parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_logins_is_turned_away_and_every_list_is_answered() {
    let storm = storm(400, 20_000, Duration::from_millis(300), Duration::from_secs(2), Duration::ZERO).await;
    assert!(storm.logged_in > 0 && storm.turned_away > 0, "{} {}", storm.logged_in, storm.turned_away);
}

#[ignore = "minutes, and nothing may run beside it: make hard"]
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_logins_at_length() {
    let storm = storm(500, 600_000, Duration::from_secs(15), duration(60), NORMAL).await;
    let p99 = |values: &[Duration]| percentile(values, 99).as_secs_f64() * 1e3;
    let (before, during, after) = (p99(&storm.before), p99(&storm.during), p99(&storm.after));
    let numbers = format!(
        "500 at once that never wait: list's p99 {during:.1} ms, {before:.1} ms before and {after:.1} ms from {NORMAL:?} after; median {:.1} and {:.1} ms; {} logged in, {} told to come later, 0 others; a login is served {:.1} s after the end",
        percentile(&storm.during, 50).as_secs_f64() * 1e3,
        percentile(&storm.before, 50).as_secs_f64() * 1e3,
        storm.logged_in,
        storm.turned_away,
        storm.recovered.as_secs_f64(),
    );
    assert!(during <= 2.0 * before, "{numbers}");
    assert!(after <= 2.0 * before && storm.recovered < NORMAL, "{numbers}");
    seen("a storm of logins does not starve those who read", &numbers);
}
