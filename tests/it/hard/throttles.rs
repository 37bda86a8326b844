//! Throttles against those who try to get past them: many guesses at once, over all instances, under addresses that they
//! make up, with Redis and without. And those whom throttles must not keep out.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use super::seen;
use crate::harness::{Caller, PASSWORD, Plan, Services, Shop};

/// At once.
const GUESSES: usize = 60;
/// What an account has, and an address, and how soon an address has one more.
const BURST: usize = 5;
const BURST_OF_ADDRESS: usize = 20;
const INTERVAL_OF_ADDRESS: Duration = Duration::from_secs(3);
/// Registrations of an address.
const REGISTRATIONS: usize = 30;

/// How many were looked at, of so many requests at once, each under an address of its own making; the others are told to
/// come later. The answers of those that were looked at all have one status.
async fn looked_at(instances: &[Caller], path: &str, status: u16, body: impl Fn(usize) -> serde_json::Value) -> usize {
    let asked = (0..GUESSES).map(|number| {
        let caller = instances[number % instances.len()].with("x-forwarded-for", &format!("198.51.100.{number}"));
        let body = body(number);
        async move { caller.post(path, body).await }
    });
    let answers = join_all(asked).await;
    let throttled = answers.iter().filter(|answer| answer.status == 429);
    assert!(throttled.clone().all(|answer| !answer.header("retry-after").is_empty()));
    let count = answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!(
        count + throttled.count(),
        GUESSES,
        "{:?}",
        answers.iter().map(|answer| answer.status).collect::<Vec<_>>()
    );
    count
}

async fn guesses(instances: &[Caller], name: impl Fn(usize) -> String) -> usize {
    looked_at(instances, "/api/login/", 401, |number| json!({"username": name(number), "password": "a guess"})).await
}

/// How many attempts an address has got back since then, at most.
fn come_back(began: Instant) -> usize {
    usize::try_from(began.elapsed().as_millis().div_ceil(INTERVAL_OF_ADDRESS.as_millis())).unwrap()
}

/// Accounts that nobody has entered from anywhere.
async fn accounts(shop: &Shop, names: &[&str]) {
    for name in names {
        let insert = "insert into users (username, email, password) values ($1::text, $1::text || '@example.com', '!')";
        shop.run(insert, &[name]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn throttles_hold_whoever_comes_from_wherever() {
    let services = Services::redis("throttles");
    let shop = Plan::default().with("rate-limit", "on").with("redis-url", &services.redis_url).open().await;
    accounts(&shop, &["ann", "bob"]).await;
    let (second, third) = (shop.another_instance().await, shop.another_instance().await);
    let instances = [&shop.server, &second, &third].map(|server| Caller::new(server.address));
    let alone = instances.len();

    let began = Instant::now();
    let of_account = guesses(&instances, |_| "ann".to_owned()).await;
    assert_eq!(of_account, BURST, "all instances together");
    // each of another account; some of what the address has is spent, and a little comes back
    let of_address = guesses(&instances, |number| format!("nobody {number}")).await;
    let back = come_back(began);
    let left = BURST_OF_ADDRESS - BURST;
    assert!((left..=left + back).contains(&of_address), "{of_address} in {:?}", began.elapsed());
    let account = |number| json!({"username": format!("new{number}"), "email": format!("new{number}@example.com"), "password": PASSWORD});
    assert_eq!(looked_at(&instances, "/api/register/", 201, account).await, REGISTRATIONS);

    services.kill_redis();
    let began = Instant::now();
    let of_account_alone = guesses(&instances, |_| "bob".to_owned()).await;
    // each instance by itself; one of them may have let through before all that the address has
    assert!((BURST * (alone - 1)..=BURST * alone).contains(&of_account_alone), "{of_account_alone}");
    // each remembers what it let through before
    let of_address_alone = guesses(&instances, |number| format!("anybody {number}")).await;
    let back = come_back(began);
    let spent = of_account + of_address + of_account_alone;
    let left = (BURST_OF_ADDRESS * alone).saturating_sub(spent);
    assert!((left..=left + back * alone).contains(&of_address_alone), "{of_address_alone} of {left}");
    let numbers = format!(
        "{GUESSES} at once over {alone} instances, each with a made-up X-Forwarded-For: of guesses at one account {of_account} were looked at, at {GUESSES} names {of_address}, of registrations {REGISTRATIONS}; with Redis away {of_account_alone} and {of_address_alone}"
    );
    seen("throttles hold, whoever comes from wherever", &numbers);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_enters_while_sixty_guess_at_their_account_from_elsewhere() {
    let shop = Plan::default().with("rate-limit", "on").with("trusted-proxies", "127.0.0.0/8").open().await;
    shop.user("ann").await;
    let second = shop.another_instance().await;
    let from = |number: usize, address: &str| {
        let at = if number.is_multiple_of(2) { shop.server.address } else { second.address };
        Caller::new(at).with("x-forwarded-for", address)
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
    assert_eq!(guessed.iter().filter(|status| **status == 401).count(), BURST, "{guessed:?}");
    assert_eq!(entered, [200; 4]);
    assert_eq!(enter(4).await, 200, "and after it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_somebody_put_into_redis_keeps_nobody_out_for_ever() {
    let services = Services::redis("throttles-forged");
    let shop = Plan::default().with("rate-limit", "on").with("redis-url", &services.redis_url).open().await;
    accounts(&shop, &["ann"]).await;
    let attempt = async || shop.anyone().post("/api/login/", json!({"username": "ann", "password": "a guess"})).await;
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
