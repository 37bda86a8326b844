//! Whether an account exists, is active or has an odd hash is told by no login: neither by its words nor by its time.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;

use super::{Dice, seen};
use crate::harness::{
    Caller, Kept, Process, Shop,
    process::{command, serving},
};

const CLASSES: [&str; 5] = ["unknown", "wrong", "inactive", "malformed", "few"];

const REFUSED: &str = "No active account found with the given credentials";

/// An account of each class but the first.
async fn stock(shop: &Shop) {
    for name in &CLASSES[1..] {
        shop.user(name).await;
    }
    shop.script("update users set is_active = false where username = 'inactive'").await;
    shop.script("update users set password = 'pbkdf2_sha256$many$salt$hash' where username = 'malformed'").await;
}

/// The times of each class's logins, one of each class a round, and those of hashing alone in between.
async fn times(iterations: u32, rounds: usize) -> ([Vec<f64>; 5], Vec<f64>) {
    let shop = Shop::open().await;
    stock(&shop).await;
    let mut serve = serving(shop.setting("database-url"));
    let server = Process::start(serve.env("RATE_LIMIT", "off").env("PBKDF2_ITERATIONS", iterations.to_string()));
    // with as many iterations as are asked for now; `few` keeps what it was made with
    for name in ["wrong", "inactive"] {
        let mut set = command(&["set-password", name]);
        set.env("DATABASE_URL", shop.database_url()).env("PBKDF2_ITERATIONS", iterations.to_string());
        let mut set = set.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
        std::io::Write::write_all(set.stdin.as_mut().unwrap(), b"another passphrase").unwrap();
        assert!(set.wait().unwrap().success());
    }

    let (caller, mut kept, mut dice) = (Caller::new(server.address), Kept::default(), Dice(31));
    let (mut times, mut hashing): ([Vec<f64>; 5], Vec<f64>) = Default::default();
    for round in 0..rounds + 10 {
        // each class once a round, in another order each time
        let mut order: Vec<usize> = (0..CLASSES.len()).collect();
        for place in (1..order.len()).rev() {
            order.swap(place, usize::try_from(dice.below(place as u64 + 1)).unwrap());
        }
        for class in order {
            let body = json!({"username": CLASSES[class], "password": "is not this one"});
            let began = Instant::now();
            let answer = kept.send(&caller, Method::POST, "/api/login/", Some(body)).await.expect("an answer");
            let took = began.elapsed();
            assert_eq!(answer.told(), (401, json!({"detail": REFUSED})), "{}", CLASSES[class]);
            if round >= 10 {
                times[class].push(took.as_secs_f64());
            }
        }
        if round % 20 == 0 {
            hashing.push(hash(iterations).as_secs_f64());
        }
    }
    (times, hashing)
}

fn hash(iterations: u32) -> Duration {
    let (began, mut out) = (Instant::now(), [0; 32]);
    let iterations = iterations.try_into().unwrap();
    ring::pbkdf2::derive(ring::pbkdf2::PBKDF2_HMAC_SHA256, iterations, b"salt", b"password", &mut out);
    began.elapsed()
}

fn median(times: impl IntoIterator<Item = f64>) -> f64 {
    let mut times: Vec<f64> = times.into_iter().collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[tokio::test]
async fn an_account_is_told_by_no_word_and_by_no_hashing_left_out() {
    let shop = Shop::open().await;
    stock(&shop).await;
    for class in CLASSES {
        let before = shop.metric("testshop_passwords_total").await;
        let login = json!({"username": class, "password": "is not this one"});
        assert_eq!(shop.anyone().post("/api/login/", login).await.told(), (401, json!({"detail": REFUSED})), "{class}");
        assert_eq!(shop.metric("testshop_passwords_total").await, before + 1.0, "{class}");
    }
}

#[ignore = "minutes, and nothing may run beside it: make hard"]
#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_told_by_no_time_at_length() {
    let (times, hashing) = times(20_000, 5_000).await;
    let hashing = median(hashing);
    // against the unknown name of the same round: a machine shared with others drifts by half within a minute, and with it
    // the plain medians by a hundredth
    let distances =
        times.each_ref().map(|class| median(class.iter().zip(&times[0]).map(|(one, unknown)| one - unknown)));
    let told: Vec<_> = CLASSES
        .iter()
        .zip(&times)
        .zip(distances)
        .map(|((class, times), distance)| {
            let plain = median(times.iter().copied()) * 1e3;
            format!("{class} {plain:.2} ms and {:+.2} %", distance / hashing * 100.0)
        })
        .collect();
    let numbers = format!(
        "5,000 interleaved logins each; median, and median distance from the unknown name beside it in {:.2} ms of hashing: {}",
        hashing * 1e3,
        told.join(", ")
    );
    assert!(distances.iter().all(|distance| distance.abs() <= 0.01 * hashing), "{numbers}");
    seen("an account is told by no login", &numbers);
}
