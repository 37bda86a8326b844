//! Throttles against those who try to get past them: many guesses at once, over all instances, under addresses that they
//! make up, with Redis and without.

use hyper::StatusCode;
use serde_json::json;

use super::seen;
use crate::harness::{Caller, Plan, Services};

/// At once.
const GUESSES: usize = 60;
/// What an account has.
const BURST: usize = 5;

/// So many guesses at one account, each under an address of its own making; those that were looked at.
async fn guess(instances: &[Caller], account: &str) -> usize {
    let guesses = (0..GUESSES).map(|number| {
        let caller = instances[number % instances.len()].with("x-forwarded-for", &format!("198.51.100.{number}"));
        let body = json!({"username": account, "password": format!("guess {number}")});
        async move { caller.post("/api/login/", body).await.status }
    });
    let statuses = futures_util::future::join_all(guesses).await;
    let known = |status: &StatusCode| [401, 429].contains(&status.as_u16());
    assert!(statuses.iter().all(known), "{statuses:?}");
    statuses.iter().filter(|status| **status == 401).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn throttles_hold_whoever_comes_from_wherever() {
    let services = Services::redis("throttles");
    let shop = Plan::default().with("rate-limit", "on").with("redis-url", &services.redis_url).open().await;
    let (second, third) = (shop.another_instance().await, shop.another_instance().await);
    let instances = [&shop.server, &second, &third].map(|server| Caller::new(server.address));
    let shared = guess(&instances, "ann").await;
    assert_eq!(shared, BURST, "all instances together");
    services.kill_redis();
    let alone = guess(&instances, "bob").await;
    assert_eq!(alone, BURST * instances.len(), "each instance by itself");
    seen(
        "throttles hold, whoever comes from wherever",
        &format!(
            "{GUESSES} guesses at once over {} instances, each with a made-up X-Forwarded-For: {shared} were looked at, {alone} with Redis away",
            instances.len()
        ),
    );
}
