//! Register, login, me, logout, and what ends an account.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{PASSWORD, TestApp, TestAppBuilder, required_env};

const WRONG: &str = "No active account found with the given credentials";

fn account(username: &str, email: &str, password: &str) -> Value {
    json!({"username": username, "email": email, "password": password})
}

#[tokio::test]
async fn registered_user_can_log_in_and_read_profile() {
    let app = TestApp::spawn().await;
    let registered =
        app.anonymous().post("/api/register/", account("user123", "user@example.com", "securepassword")).await;
    assert_eq!(registered.status_and_json(), (201, json!({"message": "User registered successfully."})));
    let login = app.anonymous().post("/api/login/", json!({"username": "user123", "password": "securepassword"})).await;
    assert_eq!(login.status, 200);
    let told = login.json();
    assert_eq!(told["expires_in"], 3600);
    assert!(told["refresh"].as_str().unwrap().len() > 40);
    assert_eq!(told.as_object().unwrap().len(), 3, "nothing else: {told}");

    let me = app.anonymous().with_token(told["token"].as_str().unwrap()).get("/api/me/").await.json();
    assert_eq!((&me["id"], &me["username"], &me["email"]), (&json!(1), &json!("user123"), &json!("user@example.com")));
    assert_eq!(me["is_staff"], false);
    assert!(me["date_joined"].as_str().unwrap().ends_with('Z'));
    assert_eq!(me.as_object().unwrap().len(), 5, "nothing else: {me}");
}

#[tokio::test]
async fn registration_errors_are_returned_together() {
    let app = TestApp::spawn().await;
    app.create_user("ann").await;
    let faults = async |body: Value| app.anonymous().post("/api/register/", body).await.status_and_json();
    let required = json!(["This field is required."]);
    assert_eq!(faults(json!({})).await, (400, json!({"username": required, "email": required, "password": required})));
    assert_eq!(
        faults(json!({"username": "  ", "email": null, "password": true})).await,
        (
            400,
            json!({
                "username": ["This field may not be blank."],
                "email": ["This field may not be null."],
                "password": ["Not a valid string."],
            })
        )
    );
    assert_eq!(
        faults(account("not allowed!", "nobody", "8675309867530")).await,
        (
            400,
            json!({
                "username": ["Enter a valid username. This value may contain only letters, numbers, and @/./+/-/_ characters."],
                "email": ["Enter a valid email address."],
                "password": ["This password is entirely numeric."],
            })
        )
    );
    assert_eq!(
        faults(account("ANN", "Ann@Example.com", "sh0rt!x")).await,
        (
            400,
            json!({
                "username": ["A user with that username already exists."],
                "email": ["A user with that email already exists."],
                "password": ["Ensure this field has at least 8 characters."],
            })
        ),
        "taken without regard to case, and with the other faults"
    );
    assert_eq!(
        faults(account(&"x".repeat(151), &format!("{}@example.com", "x".repeat(250)), "a\u{0}bcdefghi")).await,
        (
            400,
            json!({
                "username": ["Ensure this field has no more than 150 characters."],
                "email": ["Ensure this field has no more than 254 characters."],
                "password": ["Null characters are not allowed."],
            })
        )
    );
    // one letter that NFKC makes three of
    assert_eq!(
        faults(account(&"ﬃ".repeat(51), "long@example.com", PASSWORD)).await,
        (400, json!({"username": ["Ensure this field has no more than 150 characters."]}))
    );
    assert_eq!(app.query_scalar::<i64>("select count(*) from users").await, 1);
}

#[tokio::test]
async fn usernames_and_emails_are_trimmed_and_passwords_are_not() {
    let app = TestApp::spawn().await;
    let response =
        app.anonymous().post("/api/register/", account("  ann ", " ann@example.com ", " spaces around ")).await;
    assert_eq!(response.status, 201, "{}", response.text());
    assert_eq!(app.query_scalar::<String>("select username || '|' || email from users").await, "ann|ann@example.com");
    let login = async |password: &str| {
        app.anonymous().post("/api/login/", json!({"username": "Ann", "password": password})).await.status.as_u16()
    };
    assert_eq!(login(" spaces around ").await, 200, "and the username's case does not matter");
    assert_eq!(login("spaces around").await, 401);
}

#[tokio::test]
async fn concurrent_registrations_of_one_name_have_one_winner() {
    let app = TestApp::spawn().await;
    let racing =
        (0..8).map(|number| {
            let anonymous = app.anonymous();
            let username = if number % 2 == 0 { "racer" } else { "RACER" };
            async move {
                anonymous.post("/api/register/", account(username, &format!("r{number}@example.com"), PASSWORD)).await
            }
        });
    let responses = futures_util::future::join_all(racing).await;
    let won = responses.iter().filter(|response| response.status == 201).count();
    assert_eq!(won, 1);
    for lost in responses.iter().filter(|response| response.status != 201) {
        assert_eq!(lost.status_and_json(), (400, json!({"username": ["A user with that username already exists."]})));
    }
}

#[tokio::test]
async fn failed_logins_are_indistinguishable() {
    let app = TestApp::spawn().await;
    app.create_user("ann").await;
    app.create_user("gone").await;
    app.execute("update users set is_active = false where username = 'gone'", &[]).await;
    let broken = "insert into users (username, email, password) values ('broken', 'b@example.com', 'pbkdf2_sha256$x')";
    app.execute(broken, &[]).await;
    for (username, password) in [("ann", "not hers"), ("nobody", PASSWORD), ("gone", PASSWORD), ("broken", PASSWORD)] {
        let response = app.anonymous().post("/api/login/", json!({"username": username, "password": password})).await;
        assert_eq!(response.status_and_json(), (401, json!({"detail": WRONG})), "{username}");
        assert_eq!(response.header("www-authenticate"), "Bearer realm=\"api\"");
    }
    let nul = app.anonymous().post("/api/login/", json!({"username": "a\u{0}", "password": "x"})).await;
    assert_eq!(nul.status_and_json(), (400, json!({"username": ["Null characters are not allowed."]})));
}

#[tokio::test]
async fn django_hashes_verify_and_outdated_hashes_are_rehashed() {
    let app = TestAppBuilder::default().with("pbkdf2-iterations", 20_000).spawn().await;
    // hashlib.pbkdf2_hmac('sha256', b'lètmein', b'seasalt', 10000)
    let stored = "pbkdf2_sha256$10000$seasalt$CWWFdHOWwPnki7HvkcqN9iA2T3KLW1cf2uZ5kvArtVY=";
    app.execute("insert into users (username, email, password) values ('old', 'old@example.com', $1)", &[&stored])
        .await;
    let login = json!({"username": "old", "password": "lètmein"});
    let first = app.anonymous().post("/api/login/", login.clone()).await;
    assert_eq!(first.status, 200);
    let renewed: String = app.query_scalar("select password from users where username = 'old'").await;
    assert!(renewed.starts_with("pbkdf2_sha256$20000$"), "{renewed}");
    assert_eq!(app.anonymous().post("/api/login/", login).await.status, 200);
    let token = first.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(app.anonymous().with_token(&token).get("/api/me/").await.status, 200, "a renewal logs nobody out");
    assert_eq!(app.query_scalar::<String>("select password from users where username = 'old'").await, renewed);
}

#[tokio::test]
async fn logout_applies_on_all_instances_at_once() {
    let app = TestApp::spawn().await;
    let other = app.start_instance().await;
    let ann = app.create_user("ann").await;
    let second_login = app.login("ann").await;
    assert_eq!(ann.on_instance(other.address).get("/api/me/").await.status, 200);
    assert_eq!(ann.post("/api/logout/", json!({})).await.status, 204);
    for address in [other.address, app.server.address] {
        let refused = ann.on_instance(address).get("/api/products/").await;
        assert_eq!(refused.status, 401);
        assert_eq!(refused.json()["code"], "token_not_valid");
        assert_eq!(refused.json()["messages"][0]["message"], "Token is invalid");
    }
    assert_eq!(second_login.on_instance(other.address).get("/api/me/").await.status, 200, "another login goes on");
    assert_eq!(
        app.query_scalar::<i64>("select count(*) from sessions").await,
        1,
        "the session can no longer be renewed"
    );
    assert_eq!(ann.post("/api/logout/", json!({})).await.status, 401);

    let late = app.start_instance().await;
    assert_eq!(
        ann.on_instance(late.address).get("/api/me/").await.status,
        401,
        "also on an instance that starts later"
    );
}

#[tokio::test]
async fn deactivated_or_deleted_account_is_rejected_at_next_request() {
    let app = TestApp::spawn().await;
    let other = app.start_instance().await;
    for (name, end) in [
        ("ann", "update users set is_active = false where username = 'ann'"),
        ("bob", "delete from users where username = 'bob'"),
    ] {
        let caller = app.create_user(name).await;
        assert_eq!(caller.on_instance(other.address).get("/api/me/").await.status, 200);
        app.execute(end, &[]).await;
        assert_eq!(caller.on_instance(other.address).get("/api/me/").await.status, 401, "{end}");
        assert_eq!(caller.get("/api/products/").await.status, 401, "{end}");
    }
    let ann = app.create_user("carl").await;
    app.execute("update users set is_active = false where username = 'carl'", &[]).await;
    app.execute("update users set is_active = true where username = 'carl'", &[]).await;
    assert_eq!(ann.get("/api/me/").await.status, 401, "what was ended stays ended");
    assert_eq!(app.login("carl").await.get("/api/me/").await.status, 200);
    let dora = app.create_user("dora").await;
    app.batch_execute("truncate users cascade").await;
    assert_eq!(dora.get("/api/me/").await.status, 401);
}

#[tokio::test]
async fn staff_status_changes_apply_at_next_request() {
    let app = TestApp::spawn().await;
    let ann = app.create_user("ann").await;
    let create = async |name: &str| ann.post("/api/tags/", json!({"name": name})).await.status.as_u16();
    assert_eq!(create("a").await, 403);
    app.execute("update users set is_staff = true", &[]).await;
    assert_eq!(create("b").await, 201);
    app.execute("update users set is_staff = false", &[]).await;
    assert_eq!(create("c").await, 403);
}

#[tokio::test]
async fn expired_revocations_are_pruned() {
    let app = TestApp::spawn().await;
    let (ann, bob) = (app.create_user("ann").await, app.create_user("bob").await);
    ann.post("/api/logout/", json!({})).await;
    app.execute("insert into revocations (token_id, expires_at) values ('long ago', now() - interval '1 second')", &[])
        .await;
    let prune = testshop::db::statements::REVOCATIONS_PRUNE.sql;
    app.execute(prune, &[]).await;
    assert_eq!(app.query_scalar::<i64>("select count(*) from revocations where token_id = 'long ago'").await, 0);
    app.server.app.gate.revocations.start_over();
    assert_eq!(ann.get("/api/me/").await.status, 401);
    assert_eq!(bob.get("/api/me/").await.status, 200);
    // an instance that slept through a revocation that was pruned meanwhile starts over
    bob.post("/api/logout/", json!({})).await;
    assert_eq!(bob.get("/api/me/").await.status, 401);
}

#[tokio::test]
async fn login_attempts_are_rate_limited_across_instances() {
    let app = TestAppBuilder::default().with("rate-limit", "on").spawn().await;
    let other = app.start_instance().await;
    app.create_user("ann").await;
    let attempt = async |address, username: &str, password: &str| {
        app.anonymous()
            .on_instance(address)
            .post("/api/login/", json!({"username": username, "password": password}))
            .await
    };
    for number in 0..5 {
        let address = if number % 2 == 0 { app.server.address } else { other.address };
        assert_eq!(attempt(address, "ann", "not hers").await.status, 401);
    }
    let throttled = attempt(other.address, "ANN", "not hers").await;
    assert_eq!(throttled.status, 429);
    let seconds: u32 = throttled.header("retry-after").parse().unwrap();
    assert!((30..=36).contains(&seconds), "{seconds}");
    let words = format!("Request was throttled. Expected available in {seconds} seconds.");
    assert_eq!(throttled.json(), json!({"detail": words}));
    // 1 of ann's own, 5 wrong: the address has 14 left
    for number in 0..14 {
        let response = attempt(app.server.address, &format!("nobody{number}"), "x").await;
        assert_eq!(response.status, 401, "{number}");
    }
    assert_eq!(attempt(app.server.address, "nobody", "x").await.status, 429);
}

#[tokio::test]
async fn rate_limit_does_not_reveal_account_existence() {
    // each pair is one name to the database, or two
    for (one, other) in [("adm\u{130}n", "admin"), ("ΟΔΟΣ", "οδος"), ("STRASSE", "straße")] {
        let mut responses = Vec::new();
        for exists in [true, false] {
            let app = TestAppBuilder::default().with("rate-limit", "on").spawn().await;
            if exists {
                app.execute(
                    "insert into users (username, email, password) values ($1, 'a@example.com', '!')",
                    &[&other],
                )
                .await;
            }
            let attempt = async |name: &str| {
                let body = json!({"username": name, "password": "a guess"});
                app.anonymous().post("/api/login/", body).await.status.as_u16()
            };
            for _ in 0..5 {
                attempt(one).await;
            }
            responses.push(attempt(other).await);
        }
        assert_eq!(responses[0], responses[1], "{one} and {other}");
    }
}

#[tokio::test]
async fn successful_logins_reset_rate_limit() {
    let app = TestAppBuilder::default().with("rate-limit", "on").spawn().await;
    app.create_user("ann").await;
    for _ in 0..8 {
        app.login("ann").await;
    }
}

#[tokio::test]
async fn attacker_cannot_lock_out_owner_on_known_address() {
    for redis in [true, false] {
        let plan = TestAppBuilder::default().with("rate-limit", "on").with("trusted-proxies", "127.0.0.0/8");
        let app = if redis { plan } else { plan.with("redis-url", "") }.spawn().await;
        app.create_user("ann").await;
        let from = async |address: &str, password: &str| {
            let caller = app.anonymous().with_header("x-forwarded-for", address);
            caller.post("/api/login/", json!({"username": "ann", "password": password})).await.status.as_u16()
        };
        let (home, elsewhere) = ("198.51.100.7", "203.0.113.9");
        assert_eq!(from(home, PASSWORD).await, 200);
        for guess in 0..5 {
            assert_eq!(from(&format!("192.0.2.{guess}"), "a guess").await, 401);
        }
        assert_eq!(from("192.0.2.99", "a guess").await, 429, "the guesses of all addresses count together");
        assert_eq!(from(elsewhere, PASSWORD).await, 429, "nobody can tell this one from a guess");
        assert_eq!(from(home, PASSWORD).await, 200);
        // and what is guessed there counts as well
        for _ in 0..5 {
            assert_eq!(from(home, "a guess").await, 401);
        }
        assert_eq!(from(home, PASSWORD).await, 429);
    }
}

#[tokio::test]
async fn rate_limits_hold_without_redis() {
    let app = TestAppBuilder::default().with("rate-limit", "on").with("redis-url", "").spawn().await;
    let attempt =
        async || app.anonymous().post("/api/login/", json!({"username": "ann", "password": "x"})).await.status.as_u16();
    for _ in 0..5 {
        assert_eq!(attempt().await, 401);
    }
    assert_eq!(attempt().await, 429);
}

#[tokio::test]
async fn forwarded_addresses_are_used_only_from_trusted_proxies() {
    let attempt = async |app: &TestApp, forwarded: &str, number: u32| {
        let caller = app.anonymous().with_header("x-forwarded-for", forwarded);
        caller.post("/api/login/", json!({"username": format!("n{number}"), "password": "x"})).await.status.as_u16()
    };
    let strict = TestAppBuilder::default().with("rate-limit", "on").spawn().await;
    for number in 0..20 {
        assert_eq!(attempt(&strict, &format!("192.0.2.{number}"), number).await, 401);
    }
    assert_eq!(attempt(&strict, "192.0.2.99", 99).await, 429, "nobody gets a bucket by saying so");

    let behind =
        TestAppBuilder::default().with("rate-limit", "on").with("trusted-proxies", "127.0.0.0/8").spawn().await;
    for number in 0..25 {
        assert_eq!(attempt(&behind, &format!("203.0.113.7, 192.0.2.{number}"), number).await, 401);
    }
    for number in 0..20 {
        attempt(&behind, "198.51.100.1, 192.0.2.200, 127.0.0.1", number + 100).await;
    }
    assert_eq!(
        attempt(&behind, "198.51.100.2, 192.0.2.200", 200).await,
        429,
        "the last hop that no proxy added counts"
    );
}

#[tokio::test]
async fn password_queue_overload_does_not_block_reads() {
    // one hash takes so long that the queue's two seconds pass before the second begins
    let app = TestAppBuilder::default().with("pbkdf2-iterations", 10_000_000).with("pbkdf2-threads", 1).spawn().await;
    app.execute("insert into users (username, email, password) values ('ann', 'ann@example.com', '!')", &[]).await;
    let storm = (0..12).map(|_| {
        let anonymous = app.anonymous();
        async move { anonymous.post("/api/login/", json!({"username": "ann", "password": "x"})).await }
    });
    let storm = futures_util::future::join_all(storm);
    let reading = async {
        let began = Instant::now();
        let response = app.anonymous().get("/readyz").await;
        (response.status.as_u16(), began.elapsed())
    };
    let (responses, (ready, took)) = tokio::join!(storm, reading);
    assert_eq!(ready, 200);
    assert!(took < Duration::from_secs(2), "{took:?}");
    let shed: Vec<_> = responses.iter().filter(|response| response.status == 503).collect();
    assert!(!shed.is_empty(), "{:?}", responses.iter().map(|response| response.status).collect::<Vec<_>>());
    assert!(shed.iter().all(|response| !response.header("retry-after").is_empty()));
}

#[tokio::test]
async fn passwords_and_tokens_are_not_stored_in_plain_text() {
    let app = TestApp::spawn().await;
    let ann = app.create_user("ann").await;
    assert!(required_env("DATABASE_URL").starts_with("postgres"));
    let rows = "select coalesce(string_agg(t::text, ' '), '') from (select users::text from users
                union all select sessions::text from sessions union all select revocations::text from revocations) t";
    ann.post("/api/logout/", json!({})).await;
    let all: String = app.query_scalar(rows).await;
    assert!(!all.contains(PASSWORD) && !all.contains(ann.token()), "{all}");
}
