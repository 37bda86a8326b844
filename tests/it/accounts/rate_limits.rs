//! Rate limits of login attempts, and the bounded queue of the password hashing threads.

use std::{net::SocketAddr, pin::pin, time::Instant};

use futures_util::future::{Either, join_all, select};
use serde_json::json;
use testshop::{db::statements, server::Server};

use crate::harness::{PASSWORD, TestApp, TestAppBuilder, TestClient, TestResponse, wait_until};

/// The limit of an address permits a burst of 20 attempts, then one per interval.
const ADDRESS_INTERVAL_SECONDS: u64 = 3;
/// The limit of an account permits a burst of 5 attempts, then one per interval.
const ACCOUNT_INTERVAL_SECONDS: u64 = 36;

fn with_rate_limit() -> TestAppBuilder {
    TestAppBuilder::default().with("rate-limit", "on")
}

async fn attempt_login(client: &TestClient, username: &str, password: &str) -> TestResponse {
    client.post("/api/login/", json!({"username": username, "password": password})).await
}

/// Attempts logins until the address gets 429, and checks the number of those before.
///
/// `began` is a time before the burst began: the limit permits one more attempt for each interval that passes.
async fn assert_attempts_left(expected: u64, began: Instant, mut attempt: impl AsyncFnMut(u64) -> u16) {
    let mut permitted = 0;
    let status = loop {
        match attempt(permitted).await {
            401 => permitted += 1,
            status => break status,
        }
    };
    assert_eq!(status, 429);
    let intervals = began.elapsed().as_secs() / ADDRESS_INTERVAL_SECONDS;
    assert!((expected..=expected + intervals).contains(&permitted), "{permitted} attempts, {intervals} intervals");
}

#[tokio::test]
async fn login_attempts_are_rate_limited_across_instances() {
    let app = with_rate_limit().spawn().await;
    let other = app.start_instance().await;
    let began = Instant::now();
    app.create_user("ann").await;
    let attempt = async |address: SocketAddr, username: &str| {
        attempt_login(&app.anonymous().on_instance(address), username, "not hers").await
    };
    for number in 0..5 {
        let address = if number % 2 == 0 { app.server.address } else { other.address };
        assert_eq!(attempt(address, "ann").await.status, 401);
    }
    let rejected = attempt(other.address, "ANN").await;
    assert_eq!(rejected.status, 429);
    let seconds: u64 = rejected.header("retry-after").parse().unwrap();
    let elapsed = began.elapsed().as_secs() + 1;
    assert!(
        (ACCOUNT_INTERVAL_SECONDS.saturating_sub(elapsed)..=ACCOUNT_INTERVAL_SECONDS).contains(&seconds),
        "{seconds}"
    );
    let detail = format!("Request was throttled. Expected available in {seconds} seconds.");
    assert_eq!(rejected.json(), json!({ "detail": detail }));
    // the login of `create_user` and five attempts count, the rejected attempt does not: 14 of 20 are left
    let unknown_account = async |number| attempt(app.server.address, &format!("nobody{number}")).await.status.as_u16();
    assert_attempts_left(14, began, unknown_account).await;
}

#[tokio::test]
async fn rate_limit_does_not_reveal_account_existence() {
    // pairs of names that the database compares as equal or as different
    for (attempted, stored) in [("adm\u{130}n", "admin"), ("ΟΔΟΣ", "οδος"), ("STRASSE", "straße")] {
        let mut statuses = Vec::new();
        for exists in [true, false] {
            let app = with_rate_limit().spawn().await;
            if exists {
                let insert = "insert into users (username, email, password) values ($1, 'a@example.com', '!')";
                app.execute(insert, &[&stored]).await;
            }
            for _ in 0..5 {
                attempt_login(&app.anonymous(), attempted, "a guess").await;
            }
            statuses.push(attempt_login(&app.anonymous(), stored, "a guess").await.status);
        }
        assert_eq!(statuses[0], statuses[1], "{attempted} and {stored}");
    }
}

#[tokio::test]
async fn successful_logins_reset_rate_limit() {
    let app = with_rate_limit().spawn().await;
    app.create_user("ann").await;
    for _ in 0..8 {
        app.login("ann").await;
    }
}

#[tokio::test]
async fn attacker_cannot_lock_out_owner_on_known_address() {
    for redis in [true, false] {
        let builder = with_rate_limit().with("trusted-proxies", "127.0.0.0/8");
        let app = if redis { builder } else { builder.with("redis-url", "") }.spawn().await;
        app.create_user("ann").await;
        let login_from = async |address: &str, password: &str| {
            let client = app.anonymous().with_header("x-forwarded-for", address);
            attempt_login(&client, "ann", password).await.status.as_u16()
        };
        let (known, unknown) = ("198.51.100.7", "203.0.113.9");
        assert_eq!(login_from(known, PASSWORD).await, 200);
        for number in 0..5 {
            assert_eq!(login_from(&format!("192.0.2.{number}"), "a guess").await, 401);
        }
        assert_eq!(
            login_from("192.0.2.99", "a guess").await,
            429,
            "attempts from all unknown addresses count together"
        );
        assert_eq!(login_from(unknown, PASSWORD).await, 429, "the limit applies before the password is checked");
        assert_eq!(login_from(known, PASSWORD).await, 200);
        // a known address has a limit of its own
        for _ in 0..5 {
            assert_eq!(login_from(known, "a guess").await, 401);
        }
        assert_eq!(login_from(known, PASSWORD).await, 429);
    }
}

#[tokio::test]
async fn known_address_survives_restart_redis_flush_and_secret_rotation() {
    let app = with_rate_limit().with("trusted-proxies", "127.0.0.0/8").spawn().await;
    app.create_user("ann").await;
    let login_from = async |server: &Server, address: &str, password: &str| {
        let client = app.anonymous().on_instance(server.address).with_header("x-forwarded-for", address);
        attempt_login(&client, "ann", password).await.status.as_u16()
    };
    let (known, unknown) = ("198.51.100.7", "203.0.113.9");
    assert_eq!(login_from(&app.server, known, PASSWORD).await, 200);
    app.flush_redis().await;
    let rotated = format!("a new secret of more than 32 bytes......, {}", app.setting("jwt-secret"));
    let restarted = app.start_instance_with("jwt-secret", rotated).await;
    for number in 0..5 {
        assert_eq!(login_from(&restarted, &format!("192.0.2.{number}"), "a guess").await, 401);
    }
    assert_eq!(login_from(&restarted, unknown, PASSWORD).await, 429);
    assert_eq!(login_from(&restarted, known, PASSWORD).await, 200);

    // the table reveals neither the address nor which accounts share it
    let rows = "select count(*) from trusted_addresses where length(digest) = 32";
    assert_eq!(app.query_scalar::<i64>(rows).await, 3, "of the registration, and by both secrets");
    app.create_user("bob").await;
    assert_eq!(app.query_scalar::<i64>("select count(distinct digest) from trusted_addresses").await, 4);

    // an address is trusted for 30 days
    app.batch_execute("update trusted_addresses set last_login_at = now() - interval '29 days 23 hours'").await;
    assert_eq!(login_from(&restarted, known, "a guess").await, 401);
    app.batch_execute("update trusted_addresses set last_login_at = now() - interval '30 days 1 second'").await;
    assert_eq!(login_from(&restarted, known, PASSWORD).await, 429);
    assert_eq!(app.execute(statements::TRUSTED_ADDRESSES_PRUNE.sql, &[]).await, 4);
}

#[tokio::test]
async fn account_has_at_most_32_trusted_addresses() {
    let app = with_rate_limit().with("trusted-proxies", "127.0.0.0/8").spawn().await;
    app.create_user("ann").await;
    app.batch_execute(
        "delete from trusted_addresses;
         insert into trusted_addresses
         select 1, sha256(int4send(i)), now() - make_interval(days => i) from generate_series(1, 32) i",
    )
    .await;
    let client = app.anonymous().with_header("x-forwarded-for", "198.51.100.7");
    let stored = "select concat(count(*), ' ', min(last_login_at)::date - now()::date) from trusted_addresses";
    for _ in 0..2 {
        assert_eq!(attempt_login(&client, "ann", PASSWORD).await.status, 200);
        assert_eq!(app.query_scalar::<String>(stored).await, "32 -31", "the oldest has been replaced");
    }
}

#[tokio::test]
async fn rate_limits_hold_without_redis() {
    let app = with_rate_limit().with("redis-url", "").spawn().await;
    let attempt = async || attempt_login(&app.anonymous(), "ann", "x").await.status.as_u16();
    for _ in 0..5 {
        assert_eq!(attempt().await, 401);
    }
    assert_eq!(attempt().await, 429);
}

#[tokio::test]
async fn forwarded_addresses_are_used_only_from_trusted_proxies() {
    let attempt = async |app: &TestApp, forwarded: &str, number: u64| {
        let client = app.anonymous().with_header("x-forwarded-for", forwarded);
        attempt_login(&client, &format!("n{number}"), "x").await.status.as_u16()
    };
    let untrusted = with_rate_limit().spawn().await;
    let began = Instant::now();
    // a client cannot choose its address
    assert_attempts_left(20, began, async |number| attempt(&untrusted, &format!("192.0.2.{number}"), number).await)
        .await;

    let trusted = with_rate_limit().with("trusted-proxies", "127.0.0.0/8").spawn().await;
    for number in 0..25 {
        assert_eq!(attempt(&trusted, &format!("203.0.113.7, 192.0.2.{number}"), number).await, 401);
    }
    // the last address that is not a trusted proxy counts
    let began = Instant::now();
    let same_client = async |number: u64| {
        let forwarded = if number < 20 { "198.51.100.1, 192.0.2.200, 127.0.0.1" } else { "198.51.100.2, 192.0.2.200" };
        attempt(&trusted, forwarded, number + 100).await
    };
    assert_attempts_left(20, began, same_client).await;
}

#[tokio::test]
async fn forwarded_addresses_with_ports_brackets_and_zones_are_clients_of_their_own() {
    let app = with_rate_limit().with("trusted-proxies", "127.0.0.0/8").spawn().await;
    let attempt = async |forwarded: &str, number: u64| {
        let client = app.anonymous().with_header("x-forwarded-for", forwarded);
        attempt_login(&client, &format!("n{number}"), "x").await.status.as_u16()
    };
    for number in 0..25 {
        let forwarded = match number % 3 {
            0 => format!("192.0.2.{number}:{}", 1000 + number),
            1 => format!("[2001:db8:{number:x}::1]:443"),
            _ => format!("2001:db8:{number:x}::1%eth0, 127.0.0.1:80"),
        };
        assert_eq!(attempt(&forwarded, number).await, 401, "{forwarded}");
    }
    assert_eq!(app.metric("testshop_forwarded_unreadable_total").await, 0.0);
    // the port does not make another client
    let began = Instant::now();
    let same_client = async |number: u64| attempt(&format!("203.0.113.9:{number}"), number + 100).await;
    assert_attempts_left(20, began, same_client).await;
    assert_eq!(app.metric("testshop_forwarded_unreadable_total").await, 0.0);
    attempt("203.0.113.10, unknown", 200).await;
    assert_eq!(app.metric("testshop_forwarded_unreadable_total").await, 1.0);
    // loading a list and sending it are limited by address: still one entry
    let reader = app.create_user("reader").await.with_header("x-forwarded-for", "unknown");
    assert_eq!(reader.get("/api/products/?price_min=1").await.status, 200);
    assert_eq!(app.metric("testshop_forwarded_unreadable_total").await, 2.0);
}

#[tokio::test]
async fn password_queue_overload_does_not_block_reads() {
    // one hash takes longer than the 2 s for which a login may wait in the queue
    let app = TestAppBuilder::default().with("pbkdf2-iterations", 10_000_000).with("pbkdf2-threads", 1).spawn().await;
    app.execute("insert into users (username, email, password) values ('ann', 'ann@example.com', '!')", &[]).await;
    let logins = pin!(join_all((0..12).map(|_| {
        let anonymous = app.anonymous();
        async move { attempt_login(&anonymous, "ann", "x").await }
    })));
    let reading = pin!(async {
        wait_until("logins wait in the queue", async || app.metric("testshop_password_queue_length").await > 0.0).await;
        app.anonymous().get("/readyz").await
    });
    let (ready, logins) = match select(logins, reading).await {
        Either::Right(finished) => finished,
        Either::Left(_) => panic!("all logins were answered before the read"),
    };
    assert_eq!(ready.status, 200);
    let responses = logins.await;
    let rejected: Vec<_> = responses.iter().filter(|response| response.status == 503).collect();
    assert!(!rejected.is_empty(), "{:?}", responses.iter().map(|response| response.status).collect::<Vec<_>>());
    assert!(rejected.iter().all(|response| !response.header("retry-after").is_empty()));
}
