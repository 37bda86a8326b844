//! Throttles against those who try to get past them: many guesses at once, over all instances, under addresses that they
//! make up, with Redis and without. And those whom throttles must not keep out.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use super::record_result;
use crate::harness::{PASSWORD, Services, TestApp, TestAppBuilder, TestClient};

/// At once.
const GUESSES: usize = 60;
/// What an account has, and an address, and how soon an address has one more.
const ACCOUNT_BURST: usize = 5;
const ADDRESS_BURST: usize = 20;
const ADDRESS_INTERVAL: Duration = Duration::from_secs(3);
/// Registrations of an address.
const REGISTRATION_BURST: usize = 30;

/// How many were looked at, of so many requests at once, each under an address of its own making; the others are told to
/// come later. The answers of those that were looked at all have one status.
async fn count_accepted(
    instances: &[TestClient],
    path: &str,
    status: u16,
    body: impl Fn(usize) -> serde_json::Value,
) -> usize {
    let asked = (0..GUESSES).map(|number| {
        let caller =
            instances[number % instances.len()].with_header("x-forwarded-for", &format!("198.51.100.{number}"));
        let body = body(number);
        async move { caller.post(path, body).await }
    });
    let responses = join_all(asked).await;
    let throttled = responses.iter().filter(|response| response.status == 429);
    assert!(throttled.clone().all(|response| !response.header("retry-after").is_empty()));
    let count = responses.iter().filter(|response| response.status == status).count();
    assert_eq!(
        count + throttled.count(),
        GUESSES,
        "{:?}",
        responses.iter().map(|response| response.status).collect::<Vec<_>>()
    );
    count
}

async fn count_guesses(instances: &[TestClient], name: impl Fn(usize) -> String) -> usize {
    count_accepted(instances, "/api/login/", 401, |number| json!({"username": name(number), "password": "a guess"}))
        .await
}

/// How many attempts an address has got back since then, at most.
fn replenished(began: Instant) -> usize {
    usize::try_from(began.elapsed().as_millis().div_ceil(ADDRESS_INTERVAL.as_millis())).unwrap()
}

/// Accounts that nobody has entered from anywhere.
async fn create_accounts(app: &TestApp, names: &[&str]) {
    for name in names {
        let insert = "insert into users (username, email, password) values ($1::text, $1::text || '@example.com', '!')";
        app.execute(insert, &[name]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limits_hold_across_instances_and_addresses() {
    let services = Services::redis("throttles");
    let app = TestAppBuilder::default().with("rate-limit", "on").with("redis-url", &services.redis_url).spawn().await;
    create_accounts(&app, &["ann", "bob"]).await;
    let (second, third) = (app.start_instance().await, app.start_instance().await);
    let instances = [&app.server, &second, &third].map(|server| TestClient::new(server.address));
    let alone = instances.len();

    let began = Instant::now();
    let of_account = count_guesses(&instances, |_| "ann".to_owned()).await;
    assert_eq!(of_account, ACCOUNT_BURST, "all instances together");
    // each of another account; some of what the address has is spent, and a little comes back
    let of_address = count_guesses(&instances, |number| format!("nobody {number}")).await;
    let back = replenished(began);
    let left = ADDRESS_BURST - ACCOUNT_BURST;
    assert!((left..=left + back).contains(&of_address), "{of_address} in {:?}", began.elapsed());
    let account = |number| json!({"username": format!("new{number}"), "email": format!("new{number}@example.com"), "password": PASSWORD});
    assert_eq!(count_accepted(&instances, "/api/register/", 201, account).await, REGISTRATION_BURST);

    services.kill_redis();
    let began = Instant::now();
    let of_account_alone = count_guesses(&instances, |_| "bob".to_owned()).await;
    // each instance by itself; one of them may have let through before all that the address has
    assert!((ACCOUNT_BURST * (alone - 1)..=ACCOUNT_BURST * alone).contains(&of_account_alone), "{of_account_alone}");
    // each remembers what it let through before
    let of_address_alone = count_guesses(&instances, |number| format!("anybody {number}")).await;
    let back = replenished(began);
    let spent = of_account + of_address + of_account_alone;
    let left = (ADDRESS_BURST * alone).saturating_sub(spent);
    assert!((left..=left + back * alone).contains(&of_address_alone), "{of_address_alone} of {left}");
    let numbers = format!(
        "{GUESSES} at once over {alone} instances, each with a made-up X-Forwarded-For: of guesses at one account {of_account} were looked at, at {GUESSES} names {of_address}, of registrations {REGISTRATION_BURST}; with Redis away {of_account_alone} and {of_address_alone}"
    );
    record_result("throttles hold, whoever comes from wherever", &numbers);
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_can_log_in_during_distributed_guessing() {
    let app = TestAppBuilder::default().with("rate-limit", "on").with("trusted-proxies", "127.0.0.0/8").spawn().await;
    app.create_user("ann").await;
    let second = app.start_instance().await;
    let from = |number: usize, address: &str| {
        let at = if number.is_multiple_of(2) { app.server.address } else { second.address };
        TestClient::new(at).with_header("x-forwarded-for", address)
    };
    let enter = async |number| {
        let body = json!({"username": "ann", "password": PASSWORD});
        from(number, "192.0.2.1").post("/api/login/", body).await.status.as_u16()
    };
    assert_eq!(enter(0).await, 200, "nobody guesses yet");
    let guessing =
        join_all((0..GUESSES).map(|number| {
            let caller = from(number, &format!("198.51.100.{number}"));
            async move {
                caller.post("/api/login/", json!({"username": "ann", "password": "a guess"})).await.status.as_u16()
            }
        }));
    let entering = async { [enter(0).await, enter(1).await, enter(2).await, enter(3).await] };
    let (guessed, entered) = tokio::join!(guessing, entering);
    assert_eq!(guessed.iter().filter(|status| **status == 401).count(), ACCOUNT_BURST, "{guessed:?}");
    assert_eq!(entered, [200; 4]);
    assert_eq!(enter(4).await, 200, "and after it");
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_rate_limit_value_in_redis_does_not_lock_out() {
    let services = Services::redis("throttles-forged");
    let app = TestAppBuilder::default().with("rate-limit", "on").with("redis-url", &services.redis_url).spawn().await;
    create_accounts(&app, &["ann"]).await;
    let attempt = async || app.anonymous().post("/api/login/", json!({"username": "ann", "password": "a guess"})).await;
    assert_eq!(attempt().await.status, 401);
    let client = redis::Client::open(services.redis_url.as_str()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*throttle*").query_async(&mut redis).await.unwrap();
    assert_eq!(keys.len(), 2, "of the account and of the address: {keys:?}");
    for key in keys {
        redis::cmd("SET").arg(key).arg("1e18").query_async::<()>(&mut redis).await.unwrap();
    }
    let refused = attempt().await;
    assert_eq!(refused.status, 429);
    let seconds: u32 = refused.header("retry-after").parse().unwrap();
    assert!(seconds <= 36, "{seconds}");
}
