//! Register, login, me, logout, and what ends an account.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{PASSWORD, Plan, Shop, needed};

const WRONG: &str = "No active account found with the given credentials";

fn account(username: &str, email: &str, password: &str) -> Value {
    json!({"username": username, "email": email, "password": password})
}

#[tokio::test]
async fn who_registers_can_log_in_and_see_their_account() {
    let shop = Shop::open().await;
    let registered =
        shop.anyone().post("/api/register/", account("user123", "user@example.com", "securepassword")).await;
    assert_eq!(registered.told(), (201, json!({"message": "User registered successfully."})));
    let login = shop.anyone().post("/api/login/", json!({"username": "user123", "password": "securepassword"})).await;
    assert_eq!(login.status, 200);
    let told = login.json();
    assert_eq!(told["expires_in"], 3600);
    assert!(told["refresh"].as_str().unwrap().len() > 40);
    assert_eq!(told.as_object().unwrap().len(), 3, "nothing else: {told}");

    let me = shop.anyone().bearing(told["token"].as_str().unwrap()).get("/api/me/").await.json();
    assert_eq!((&me["id"], &me["username"], &me["email"]), (&json!(1), &json!("user123"), &json!("user@example.com")));
    assert_eq!(me["is_staff"], false);
    assert!(me["date_joined"].as_str().unwrap().ends_with('Z'));
    assert_eq!(me.as_object().unwrap().len(), 5, "nothing else: {me}");
}

#[tokio::test]
async fn all_faults_of_a_registration_are_told_at_once() {
    let shop = Shop::open().await;
    shop.user("ann").await;
    let faults = async |body: Value| shop.anyone().post("/api/register/", body).await.told();
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
    assert_eq!(shop.value::<i64>("select count(*) from users").await, 1);
}

#[tokio::test]
async fn usernames_and_emails_are_trimmed_and_passwords_never() {
    let shop = Shop::open().await;
    let answer = shop.anyone().post("/api/register/", account("  ann ", " ann@example.com ", " spaces around ")).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(shop.value::<String>("select username || '|' || email from users").await, "ann|ann@example.com");
    let login = async |password: &str| {
        shop.anyone().post("/api/login/", json!({"username": "Ann", "password": password})).await.status.as_u16()
    };
    assert_eq!(login(" spaces around ").await, 200, "and the username's case does not matter");
    assert_eq!(login("spaces around").await, 401);
}

#[tokio::test]
async fn a_race_for_one_name_has_one_winner() {
    let shop = Shop::open().await;
    let racing =
        (0..8).map(|number| {
            let anyone = shop.anyone();
            let username = if number % 2 == 0 { "racer" } else { "RACER" };
            async move {
                anyone.post("/api/register/", account(username, &format!("r{number}@example.com"), PASSWORD)).await
            }
        });
    let answers = futures_util::future::join_all(racing).await;
    let won = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(won, 1);
    for lost in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!(lost.told(), (400, json!({"username": ["A user with that username already exists."]})));
    }
}

#[tokio::test]
async fn a_wrong_login_never_says_what_was_wrong() {
    let shop = Shop::open().await;
    shop.user("ann").await;
    shop.user("gone").await;
    shop.run("update users set is_active = false where username = 'gone'", &[]).await;
    let broken = "insert into users (username, email, password) values ('broken', 'b@example.com', 'pbkdf2_sha256$x')";
    shop.run(broken, &[]).await;
    for (username, password) in [("ann", "not hers"), ("nobody", PASSWORD), ("gone", PASSWORD), ("broken", PASSWORD)] {
        let answer = shop.anyone().post("/api/login/", json!({"username": username, "password": password})).await;
        assert_eq!(answer.told(), (401, json!({"detail": WRONG})), "{username}");
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"api\"");
    }
    let nul = shop.anyone().post("/api/login/", json!({"username": "a\u{0}", "password": "x"})).await;
    assert_eq!(nul.told(), (400, json!({"username": ["Null characters are not allowed."]})));
}

#[tokio::test]
async fn djangos_hashes_log_in_and_old_ones_are_renewed() {
    let shop = Plan::default().with("pbkdf2-iterations", 20_000).open().await;
    // hashlib.pbkdf2_hmac('sha256', b'lètmein', b'seasalt', 10000)
    let stored = "pbkdf2_sha256$10000$seasalt$CWWFdHOWwPnki7HvkcqN9iA2T3KLW1cf2uZ5kvArtVY=";
    shop.run("insert into users (username, email, password) values ('old', 'old@example.com', $1)", &[&stored]).await;
    let login = json!({"username": "old", "password": "lètmein"});
    let first = shop.anyone().post("/api/login/", login.clone()).await;
    assert_eq!(first.status, 200);
    let renewed: String = shop.value("select password from users where username = 'old'").await;
    assert!(renewed.starts_with("pbkdf2_sha256$20000$"), "{renewed}");
    assert_eq!(shop.anyone().post("/api/login/", login).await.status, 200);
    let token = first.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(shop.anyone().bearing(&token).get("/api/me/").await.status, 200, "a renewal logs nobody out");
    assert_eq!(shop.value::<String>("select password from users where username = 'old'").await, renewed);
}

#[tokio::test]
async fn a_logout_holds_on_every_instance_from_the_next_request() {
    let shop = Shop::open().await;
    let other = shop.another_instance().await;
    let ann = shop.user("ann").await;
    let second_login = shop.login("ann").await;
    assert_eq!(ann.at(other.address).get("/api/me/").await.status, 200);
    assert_eq!(ann.post("/api/logout/", json!({})).await.status, 204);
    for address in [other.address, shop.server.address] {
        let refused = ann.at(address).get("/api/products/").await;
        assert_eq!(refused.status, 401);
        assert_eq!(refused.json()["code"], "token_not_valid");
        assert_eq!(refused.json()["messages"][0]["message"], "Token is invalid");
    }
    assert_eq!(second_login.at(other.address).get("/api/me/").await.status, 200, "another login goes on");
    assert_eq!(shop.value::<i64>("select count(*) from sessions").await, 1, "the session can no longer be renewed");
    assert_eq!(ann.post("/api/logout/", json!({})).await.status, 401);

    let late = shop.another_instance().await;
    assert_eq!(ann.at(late.address).get("/api/me/").await.status, 401, "also on an instance that starts later");
}

#[tokio::test]
async fn a_deactivated_or_deleted_account_is_refused_at_its_next_request() {
    let shop = Shop::open().await;
    let other = shop.another_instance().await;
    for (name, end) in [
        ("ann", "update users set is_active = false where username = 'ann'"),
        ("bob", "delete from users where username = 'bob'"),
    ] {
        let caller = shop.user(name).await;
        assert_eq!(caller.at(other.address).get("/api/me/").await.status, 200);
        shop.run(end, &[]).await;
        assert_eq!(caller.at(other.address).get("/api/me/").await.status, 401, "{end}");
        assert_eq!(caller.get("/api/products/").await.status, 401, "{end}");
    }
    let ann = shop.user("carl").await;
    shop.run("update users set is_active = false where username = 'carl'", &[]).await;
    shop.run("update users set is_active = true where username = 'carl'", &[]).await;
    assert_eq!(ann.get("/api/me/").await.status, 401, "what was ended stays ended");
    assert_eq!(shop.login("carl").await.get("/api/me/").await.status, 200);
    let dora = shop.user("dora").await;
    shop.script("truncate users cascade").await;
    assert_eq!(dora.get("/api/me/").await.status, 401);
}

#[tokio::test]
async fn staff_may_write_from_the_request_after_they_became_staff_and_not_after() {
    let shop = Shop::open().await;
    let ann = shop.user("ann").await;
    let create = async |name: &str| ann.post("/api/tags/", json!({"name": name})).await.status.as_u16();
    assert_eq!(create("a").await, 403);
    shop.run("update users set is_staff = true", &[]).await;
    assert_eq!(create("b").await, 201);
    shop.run("update users set is_staff = false", &[]).await;
    assert_eq!(create("c").await, 403);
}

#[tokio::test]
async fn revocations_that_expired_are_forgotten_and_the_others_are_not() {
    let shop = Shop::open().await;
    let (ann, bob) = (shop.user("ann").await, shop.user("bob").await);
    ann.post("/api/logout/", json!({})).await;
    shop.run("insert into revocations (token_id, expires_at) values ('long ago', now() - interval '1 second')", &[])
        .await;
    let prune = testshop::db::statements::REVOCATIONS_PRUNE.sql;
    shop.run(prune, &[]).await;
    assert_eq!(shop.value::<i64>("select count(*) from revocations where token_id = 'long ago'").await, 0);
    shop.server.app.gate.revocations.start_over();
    assert_eq!(ann.get("/api/me/").await.status, 401);
    assert_eq!(bob.get("/api/me/").await.status, 200);
    // an instance that slept through a revocation that was pruned meanwhile starts over
    bob.post("/api/logout/", json!({})).await;
    assert_eq!(bob.get("/api/me/").await.status, 401);
}

#[tokio::test]
async fn attempts_to_log_in_are_throttled_across_instances() {
    let shop = Plan::default().with("rate-limit", "on").open().await;
    let other = shop.another_instance().await;
    shop.user("ann").await;
    let attempt = async |address, username: &str, password: &str| {
        shop.anyone().at(address).post("/api/login/", json!({"username": username, "password": password})).await
    };
    for number in 0..5 {
        let address = if number % 2 == 0 { shop.server.address } else { other.address };
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
        let answer = attempt(shop.server.address, &format!("nobody{number}"), "x").await;
        assert_eq!(answer.status, 401, "{number}");
    }
    assert_eq!(attempt(shop.server.address, "nobody", "x").await.status, 429);
}

#[tokio::test]
async fn no_case_of_letters_tells_by_the_throttle_whether_an_account_exists() {
    // each pair is one name to the database, or two
    for (one, other) in [("adm\u{130}n", "admin"), ("ΟΔΟΣ", "οδος"), ("STRASSE", "straße")] {
        let mut answers = Vec::new();
        for exists in [true, false] {
            let shop = Plan::default().with("rate-limit", "on").open().await;
            if exists {
                shop.run("insert into users (username, email, password) values ($1, 'a@example.com', '!')", &[&other])
                    .await;
            }
            let attempt = async |name: &str| {
                let body = json!({"username": name, "password": "a guess"});
                shop.anyone().post("/api/login/", body).await.status.as_u16()
            };
            for _ in 0..5 {
                attempt(one).await;
            }
            answers.push(attempt(other).await);
        }
        assert_eq!(answers[0], answers[1], "{one} and {other}");
    }
}

#[tokio::test]
async fn the_rightful_owner_is_not_throttled_by_success() {
    let shop = Plan::default().with("rate-limit", "on").open().await;
    shop.user("ann").await;
    for _ in 0..8 {
        shop.login("ann").await;
    }
}

#[tokio::test]
async fn who_guesses_from_elsewhere_keeps_no_owner_out() {
    for redis in [true, false] {
        let plan = Plan::default().with("rate-limit", "on").with("trusted-proxies", "127.0.0.0/8");
        let shop = if redis { plan } else { plan.with("redis-url", "") }.open().await;
        shop.user("ann").await;
        let from = async |address: &str, password: &str| {
            let caller = shop.anyone().with("x-forwarded-for", address);
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
async fn throttles_hold_without_redis() {
    let shop = Plan::default().with("rate-limit", "on").with("redis-url", "").open().await;
    let attempt =
        async || shop.anyone().post("/api/login/", json!({"username": "ann", "password": "x"})).await.status.as_u16();
    for _ in 0..5 {
        assert_eq!(attempt().await, 401);
    }
    assert_eq!(attempt().await, 429);
}

#[tokio::test]
async fn forwarded_addresses_count_from_trusted_proxies_only() {
    let attempt = async |shop: &Shop, forwarded: &str, number: u32| {
        let caller = shop.anyone().with("x-forwarded-for", forwarded);
        caller.post("/api/login/", json!({"username": format!("n{number}"), "password": "x"})).await.status.as_u16()
    };
    let strict = Plan::default().with("rate-limit", "on").open().await;
    for number in 0..20 {
        assert_eq!(attempt(&strict, &format!("192.0.2.{number}"), number).await, 401);
    }
    assert_eq!(attempt(&strict, "192.0.2.99", 99).await, 429, "nobody gets a bucket by saying so");

    let behind = Plan::default().with("rate-limit", "on").with("trusted-proxies", "127.0.0.0/8").open().await;
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
async fn hashing_sheds_what_it_cannot_do_in_time_and_reads_go_on() {
    // one hash takes so long that the queue's two seconds pass before the second begins
    let shop = Plan::default().with("pbkdf2-iterations", 10_000_000).with("pbkdf2-threads", 1).open().await;
    shop.run("insert into users (username, email, password) values ('ann', 'ann@example.com', '!')", &[]).await;
    let storm = (0..12).map(|_| {
        let anyone = shop.anyone();
        async move { anyone.post("/api/login/", json!({"username": "ann", "password": "x"})).await }
    });
    let storm = futures_util::future::join_all(storm);
    let reading = async {
        let began = Instant::now();
        let answer = shop.anyone().get("/readyz").await;
        (answer.status.as_u16(), began.elapsed())
    };
    let (answers, (ready, took)) = tokio::join!(storm, reading);
    assert_eq!(ready, 200);
    assert!(took < Duration::from_secs(2), "{took:?}");
    let shed: Vec<_> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert!(!shed.is_empty(), "{:?}", answers.iter().map(|answer| answer.status).collect::<Vec<_>>());
    assert!(shed.iter().all(|answer| !answer.header("retry-after").is_empty()));
}

#[tokio::test]
async fn no_password_or_token_is_kept_in_plain() {
    let shop = Shop::open().await;
    let ann = shop.user("ann").await;
    assert!(needed("DATABASE_URL").starts_with("postgres"));
    let rows = "select coalesce(string_agg(t::text, ' '), '') from (select users::text from users
                union all select sessions::text from sessions union all select revocations::text from revocations) t";
    ann.post("/api/logout/", json!({})).await;
    let all: String = shop.value(rows).await;
    assert!(!all.contains(PASSWORD) && !all.contains(ann.token()), "{all}");
}
