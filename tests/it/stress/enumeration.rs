//! A login reveals neither by its response nor by its time whether an account exists, is active or has an unusual hash.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;

use super::{Rng, median, record_result};
use crate::harness::{
    KeepAliveClient, Process, TestApp, TestClient,
    process::{command, serve_command},
};

/// The user name of each class of logins, and the class in the results.
const CLASSES: [(&str, &str); 6] = [
    ("unknown", "unknown"),
    ("wrong", "wrong password"),
    ("inactive", "inactive"),
    ("malformed", "malformed hash"),
    ("few", "few iterations"),
    ("many", "many iterations"),
];
const MEASURED_ROUNDS: usize = 5_000;
const WARM_UP_ROUNDS: usize = 10;

const NO_ACTIVE_ACCOUNT: &str = "No active account found with the given credentials";

/// Creates an account of each class but the first.
async fn create_accounts(app: &TestApp) {
    for (name, _) in &CLASSES[1..] {
        app.create_user(name).await;
    }
    app.batch_execute("update users set is_active = false where username = 'inactive'").await;
    app.batch_execute("update users set password = 'pbkdf2_sha256$many$salt$hash' where username = 'malformed'").await;
}

fn set_password(app: &TestApp, name: &str, iterations: u32) {
    let mut set = command(&["set-password", name]);
    set.env("DATABASE_URL", app.database_url()).env("PBKDF2_ITERATIONS", iterations.to_string());
    let mut set = set.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(set.stdin.as_mut().unwrap(), b"another passphrase").unwrap();
    assert!(set.wait().unwrap().success());
}

/// The iterations of `many`, in the ratio of a migrated account with 1,000,000 to the default of 600,000.
const fn many(iterations: u32) -> u32 {
    iterations / 3 * 5
}

/// Measures logins of all classes, one of each per round in random order, and sometimes the hashing alone. Returns
/// seconds.
async fn measure_logins(iterations: u32) -> ([Vec<f64>; 6], Vec<f64>) {
    let app = TestApp::spawn().await;
    create_accounts(&app).await;
    let mut serve = serve_command(app.setting("database-url"));
    let server = Process::start(serve.env("RATE_LIMIT", "off").env("PBKDF2_ITERATIONS", iterations.to_string()));
    // these hashes get the iterations of the server; `few` keeps its lower number
    for name in ["wrong", "inactive"] {
        set_password(&app, name, iterations);
    }
    set_password(&app, "many", many(iterations));

    let (client, mut keep_alive, mut rng) = (TestClient::new(server.address), KeepAliveClient::default(), Rng(31));
    let (mut logins, mut hashing): ([Vec<f64>; 6], Vec<f64>) = Default::default();
    for round in 0..WARM_UP_ROUNDS + MEASURED_ROUNDS {
        let mut order: Vec<usize> = (0..CLASSES.len()).collect();
        for index in (1..order.len()).rev() {
            order.swap(index, rng.index(index + 1));
        }
        for class in order {
            let (name, _) = CLASSES[class];
            let body = json!({"username": name, "password": "is not this one"});
            let began = Instant::now();
            let response = keep_alive.send(&client, Method::POST, "/api/login/", Some(body)).await.expect("a response");
            let elapsed = began.elapsed();
            assert_eq!(response.status_and_json(), (401, json!({"detail": NO_ACTIVE_ACCOUNT})), "{name}");
            if round >= WARM_UP_ROUNDS {
                logins[class].push(elapsed.as_secs_f64());
            }
        }
        if round % 20 == 0 {
            hashing.push(time_hash(many(iterations)).as_secs_f64());
        }
    }
    (logins, hashing)
}

fn time_hash(iterations: u32) -> Duration {
    let (began, mut out) = (Instant::now(), [0; 32]);
    let iterations = iterations.try_into().unwrap();
    ring::pbkdf2::derive(ring::pbkdf2::PBKDF2_HMAC_SHA256, iterations, b"salt", b"password", &mut out);
    began.elapsed()
}

#[tokio::test]
async fn login_response_is_uniform() {
    let app = TestApp::spawn().await;
    create_accounts(&app).await;
    set_password(&app, "many", many(3000));
    for (name, _) in CLASSES {
        let iterations = app.metric("testshop_password_iterations_total").await;
        let before = app.metric("testshop_password_hashes_total").await;
        let login = json!({"username": name, "password": "is not this one"});
        assert_eq!(
            app.anonymous().post("/api/login/", login).await.status_and_json(),
            (401, json!({"detail": NO_ACTIVE_ACCOUNT})),
            "{name}"
        );
        assert_eq!(app.metric("testshop_password_hashes_total").await, before + 1.0, "{name}");
        assert_eq!(app.metric("testshop_password_iterations_total").await, iterations + 5000.0, "{name}");
    }
}

#[ignore = "minutes, and nothing may run beside it: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn login_timing_is_uniform() {
    let (logins, hashing) = measure_logins(20_000).await;
    let hashing = median(hashing);
    // Compares logins of the same round: on a shared machine the speed changes by half within a minute, which moves the
    // medians of all rounds by a hundredth.
    let differences = logins.each_ref().map(|class| {
        let pairs = class.iter().zip(&logins[0]);
        median(pairs.map(|(login, unknown)| login - unknown))
    });
    let classes: Vec<_> = CLASSES
        .iter()
        .zip(&logins)
        .zip(differences)
        .map(|(((_, class), logins), difference)| {
            let duration_ms = median(logins.iter().copied()) * 1e3;
            format!("{class} {duration_ms:.2} ms, {:+.2} %", difference / hashing * 100.0)
        })
        .collect();
    let observed = format!(
        "5,000 interleaved logins per class, hashing alone takes {:.2} ms; median duration, and median difference to \
         the unknown name of the same round in percent of the hashing time: {}",
        hashing * 1e3,
        classes.join("; ")
    );
    assert!(differences.iter().all(|difference| difference.abs() <= 0.01 * hashing), "{observed}");
    record_result("login responses and timing do not reveal whether an account exists", &observed);
}
