//! Whether an account exists, is active or has an odd hash is told by no login: neither by its words nor by its time.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;

use super::{Rng, record_result};
use crate::harness::{
    KeepAliveClient, Process, TestApp, TestClient,
    process::{command, serve_command},
};

const CLASSES: [&str; 5] = ["unknown", "wrong", "inactive", "malformed", "few"];

const NO_ACTIVE_ACCOUNT: &str = "No active account found with the given credentials";

/// An account of each class but the first.
async fn create_accounts(app: &TestApp) {
    for name in &CLASSES[1..] {
        app.create_user(name).await;
    }
    app.batch_execute("update users set is_active = false where username = 'inactive'").await;
    app.batch_execute("update users set password = 'pbkdf2_sha256$many$salt$hash' where username = 'malformed'").await;
}

/// The times of each class's logins, one of each class a round, and those of hashing alone in between.
async fn measure_logins(iterations: u32, rounds: usize) -> ([Vec<f64>; 5], Vec<f64>) {
    let app = TestApp::spawn().await;
    create_accounts(&app).await;
    let mut serve = serve_command(app.setting("database-url"));
    let server = Process::start(serve.env("RATE_LIMIT", "off").env("PBKDF2_ITERATIONS", iterations.to_string()));
    // with as many iterations as are asked for now; `few` keeps what it was made with
    for name in ["wrong", "inactive"] {
        let mut set = command(&["set-password", name]);
        set.env("DATABASE_URL", app.database_url()).env("PBKDF2_ITERATIONS", iterations.to_string());
        let mut set = set.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
        std::io::Write::write_all(set.stdin.as_mut().unwrap(), b"another passphrase").unwrap();
        assert!(set.wait().unwrap().success());
    }

    let (caller, mut keep_alive, mut rng) = (TestClient::new(server.address), KeepAliveClient::default(), Rng(31));
    let (mut measure_logins, mut hashing): ([Vec<f64>; 5], Vec<f64>) = Default::default();
    for round in 0..rounds + 10 {
        // each class once a round, in another order each time
        let mut order: Vec<usize> = (0..CLASSES.len()).collect();
        for place in (1..order.len()).rev() {
            order.swap(place, usize::try_from(rng.below(place as u64 + 1)).unwrap());
        }
        for class in order {
            let body = json!({"username": CLASSES[class], "password": "is not this one"});
            let began = Instant::now();
            let response = keep_alive.send(&caller, Method::POST, "/api/login/", Some(body)).await.expect("an answer");
            let took = began.elapsed();
            assert_eq!(response.status_and_json(), (401, json!({"detail": NO_ACTIVE_ACCOUNT})), "{}", CLASSES[class]);
            if round >= 10 {
                measure_logins[class].push(took.as_secs_f64());
            }
        }
        if round % 20 == 0 {
            hashing.push(time_hash(iterations).as_secs_f64());
        }
    }
    (measure_logins, hashing)
}

fn time_hash(iterations: u32) -> Duration {
    let (began, mut out) = (Instant::now(), [0; 32]);
    let iterations = iterations.try_into().unwrap();
    ring::pbkdf2::derive(ring::pbkdf2::PBKDF2_HMAC_SHA256, iterations, b"salt", b"password", &mut out);
    began.elapsed()
}

fn median(measure_logins: impl IntoIterator<Item = f64>) -> f64 {
    let mut measure_logins: Vec<f64> = measure_logins.into_iter().collect();
    measure_logins.sort_by(f64::total_cmp);
    measure_logins[measure_logins.len() / 2]
}

#[tokio::test]
async fn login_response_is_uniform() {
    let app = TestApp::spawn().await;
    create_accounts(&app).await;
    for class in CLASSES {
        let before = app.metric("testshop_passwords_total").await;
        let login = json!({"username": class, "password": "is not this one"});
        assert_eq!(
            app.anonymous().post("/api/login/", login).await.status_and_json(),
            (401, json!({"detail": NO_ACTIVE_ACCOUNT})),
            "{class}"
        );
        assert_eq!(app.metric("testshop_passwords_total").await, before + 1.0, "{class}");
    }
}

#[ignore = "minutes, and nothing may run beside it: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn login_timing_is_uniform() {
    let (measure_logins, hashing) = measure_logins(20_000, 5_000).await;
    let hashing = median(hashing);
    // against the unknown name of the same round: a machine shared with others drifts by half within a minute, and with it
    // the plain medians by a hundredth
    let distances = measure_logins
        .each_ref()
        .map(|class| median(class.iter().zip(&measure_logins[0]).map(|(one, unknown)| one - unknown)));
    let told: Vec<_> = CLASSES
        .iter()
        .zip(&measure_logins)
        .zip(distances)
        .map(|((class, measure_logins), distance)| {
            let plain = median(measure_logins.iter().copied()) * 1e3;
            format!("{class} {plain:.2} ms and {:+.2} %", distance / hashing * 100.0)
        })
        .collect();
    let numbers = format!(
        "5,000 interleaved logins each; median, and median distance from the unknown name beside it in {:.2} ms of hashing: {}",
        hashing * 1e3,
        told.join(", ")
    );
    assert!(distances.iter().all(|distance| distance.abs() <= 0.01 * hashing), "{numbers}");
    record_result("an account is told by no login", &numbers);
}
