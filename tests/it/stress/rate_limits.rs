//! Rate limits hold against concurrent guesses over several instances and from forged addresses, with Redis and
//! without. They do not lock out the owner of an account.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use testshop::server::Server;

use super::record_result;
use crate::harness::{PASSWORD, Services, TestApp, TestAppBuilder, TestClient};

/// Concurrent requests.
const GUESSES: usize = 60;
/// Burst sizes of the limits per account and per address, and the time in which an address regains one attempt.
const ACCOUNT_BURST: usize = 5;
const ADDRESS_BURST: usize = 20;
const ADDRESS_INTERVAL: Duration = Duration::from_secs(3);
/// Registrations per address.
const REGISTRATION_BURST: usize = 30;
/// Attempts to check the shared limits without a failed call to Redis.
const MAX_ATTEMPTS: usize = 5;

/// Sends concurrent requests, each with a forged address. Returns how many got `status`; all others must get 429 with
/// `Retry-After`.
async fn count_accepted(
    instances: &[TestClient],
    path: &str,
    status: u16,
    body: impl Fn(usize) -> serde_json::Value,
) -> usize {
    let requests = (0..GUESSES).map(|number| {
        let client =
            instances[number % instances.len()].with_header("x-forwarded-for", &format!("198.51.100.{number}"));
        let body = body(number);
        async move { client.post(path, body).await }
    });
    let responses = join_all(requests).await;
    let limited = responses.iter().filter(|response| response.status == 429);
    assert!(limited.clone().all(|response| !response.header("retry-after").is_empty()));
    let accepted = responses.iter().filter(|response| response.status == status).count();
    let statuses: Vec<_> = responses.iter().map(|response| response.status).collect();
    assert_eq!(accepted + limited.count(), GUESSES, "{statuses:?}");
    accepted
}

async fn count_guesses(instances: &[TestClient], name: impl Fn(usize) -> String) -> usize {
    count_accepted(instances, "/api/login/", 401, |number| json!({"username": name(number), "password": "a guess"}))
        .await
}

/// Returns the number of attempts that an address can have regained since `began`.
fn max_regained(began: Instant) -> usize {
    usize::try_from(began.elapsed().as_millis().div_ceil(ADDRESS_INTERVAL.as_millis())).unwrap()
}

/// Creates accounts that have never logged in.
async fn create_accounts(app: &TestApp, names: &[&str]) {
    for name in names {
        let insert = "insert into users (username, email, password) values ($1::text, $1::text || '@example.com', '!')";
        app.execute(insert, &[name]).await;
    }
}

/// Three instances that share their limits in Redis, and the guesses that they have accepted together.
struct SharedLimits {
    _app: TestApp,
    _others: [Server; 2],
    instances: [TestClient; 3],
    /// When the first guess was sent.
    began: Instant,
    of_account: usize,
    of_address: usize,
}

/// Starts instances and checks the limits that they share. Returns `None` when a call to Redis failed, as on a busy
/// machine: the instances use their own limits then.
async fn check_shared_limits(redis_url: &str) -> Option<SharedLimits> {
    let app = TestAppBuilder::default().with("rate-limit", "on").with("redis-url", redis_url).spawn().await;
    create_accounts(&app, &["ann", "bob"]).await;
    let others = [app.start_instance().await, app.start_instance().await];
    let servers = [&app.server, &others[0], &others[1]];
    let instances = servers.map(|server| TestClient::new(server.address));

    let began = Instant::now();
    let of_account = count_guesses(&instances, |_| "ann".to_owned()).await;
    let of_address = count_guesses(&instances, |number| format!("unknown {number}")).await;
    let (regained, elapsed) = (max_regained(began), began.elapsed());
    let account = |number| {
        let (name, email) = (format!("new{number}"), format!("new{number}@example.com"));
        json!({"username": name, "email": email, "password": PASSWORD})
    };
    let registrations = count_accepted(&instances, "/api/register/", 201, account).await;
    for server in servers {
        if app.metric_on(server, "testshop_redis_failures_total").await > 0.0 {
            return None;
        }
    }
    assert_eq!(of_account, ACCOUNT_BURST, "the instances share the limit of an account");
    // the guesses at the account count against the address too
    let left = ADDRESS_BURST - ACCOUNT_BURST;
    assert!((left..=left + regained).contains(&of_address), "{of_address} in {elapsed:?}");
    assert_eq!(registrations, REGISTRATION_BURST);
    Some(SharedLimits { _app: app, _others: others, instances, began, of_account, of_address })
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limits_hold_across_instances_and_addresses() {
    let services = Services::redis("throttles");
    let mut checked = None;
    for _ in 0..MAX_ATTEMPTS {
        checked = check_shared_limits(&services.redis_url).await;
        if checked.is_some() {
            break;
        }
    }
    let limits = checked.expect("an attempt without failed calls to Redis");
    let SharedLimits { instances, began, of_account, of_address, .. } = &limits;
    let instance_count = instances.len();

    services.kill_redis();
    let of_account_alone = count_guesses(instances, |_| "bob".to_owned()).await;
    // each instance has its own limits; one of them may have accepted all attempts of the address before
    let expected = ACCOUNT_BURST * (instance_count - 1)..=ACCOUNT_BURST * instance_count;
    assert!(expected.contains(&of_account_alone), "{of_account_alone}");
    // each instance also counts the attempts that it has accepted itself
    let of_address_alone = count_guesses(instances, |number| format!("other {number}")).await;
    let spent = of_account + of_address + of_account_alone;
    let left = (ADDRESS_BURST * instance_count).saturating_sub(spent);
    let expected = left..=left + max_regained(*began) * instance_count;
    assert!(expected.contains(&of_address_alone), "{of_address_alone} of {left}");
    let observed = format!(
        "{GUESSES} concurrent requests over {instance_count} instances, each with a forged X-Forwarded-For: \
         {of_account} guesses at one account were checked, {of_address} at {GUESSES} names, {REGISTRATION_BURST} \
         registrations were accepted; without Redis {of_account_alone} and {of_address_alone} guesses"
    );
    record_result("rate limits hold across instances and addresses", &observed);
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_can_log_in_during_distributed_guessing() {
    let app = TestAppBuilder::default().with("rate-limit", "on").with("trusted-proxies", "127.0.0.0/8").spawn().await;
    app.create_user("ann").await;
    let second = app.start_instance().await;
    let attempt = async |number: usize, address: &str, password: &str| {
        let instance = if number.is_multiple_of(2) { app.server.address } else { second.address };
        let client = TestClient::new(instance).with_header("x-forwarded-for", address);
        client.post("/api/login/", json!({"username": "ann", "password": password})).await.status.as_u16()
    };
    let owner_login = async |number| attempt(number, "192.0.2.1", PASSWORD).await;
    assert_eq!(owner_login(0).await, 200, "before the guesses");
    let addresses: Vec<_> = (0..GUESSES).map(|number| format!("198.51.100.{number}")).collect();
    let guesses = join_all(addresses.iter().enumerate().map(|(number, address)| attempt(number, address, "a guess")));
    let owner_logins =
        async { [owner_login(0).await, owner_login(1).await, owner_login(2).await, owner_login(3).await] };
    let (guesses, owner_logins) = tokio::join!(guesses, owner_logins);
    assert_eq!(guesses.iter().filter(|status| **status == 401).count(), ACCOUNT_BURST, "{guesses:?}");
    assert_eq!(owner_logins, [200; 4]);
    assert_eq!(owner_login(4).await, 200, "after the guesses");
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
    assert_eq!(keys.len(), 2, "the account and the address: {keys:?}");
    for key in keys {
        redis::cmd("SET").arg(key).arg("1e18").query_async::<()>(&mut redis).await.unwrap();
    }
    let response = attempt().await;
    assert_eq!(response.status, 429);
    let retry_after: u32 = response.header("retry-after").parse().unwrap();
    assert!(retry_after <= 36, "{retry_after}");
}
