//! Login, logout, and account changes that revoke access.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;

use crate::harness::{PASSWORD, TestApp, TestAppBuilder, required_env};

#[tokio::test]
async fn failed_logins_are_indistinguishable() {
    let app = TestApp::spawn().await;
    app.create_user("ann").await;
    app.create_user("inactive").await;
    app.execute("update users set is_active = false where username = 'inactive'", &[]).await;
    let malformed_hash =
        "insert into users (username, email, password) values ('malformed', 'm@example.com', 'pbkdf2_sha256$x')";
    app.execute(malformed_hash, &[]).await;
    let credentials = [("ann", "not hers"), ("unknown", PASSWORD), ("inactive", PASSWORD), ("malformed", PASSWORD)];
    for (username, password) in credentials {
        let response = app.anonymous().post("/api/login/", json!({"username": username, "password": password})).await;
        let detail = "No active account found with the given credentials";
        assert_eq!(response.status_and_json(), (401, json!({ "detail": detail })), "{username}");
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
    let rehashed: String = app.query_scalar("select password from users where username = 'old'").await;
    assert!(rehashed.starts_with("pbkdf2_sha256$20000$"), "{rehashed}");
    assert_eq!(app.anonymous().post("/api/login/", login).await.status, 200);
    let token = first.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(app.anonymous().with_token(&token).get("/api/me/").await.status, 200, "a rehash revokes no token");
    assert_eq!(app.query_scalar::<String>("select password from users where username = 'old'").await, rehashed);
}

/// The stored form of a password with another number of iterations than the server's.
fn stored_password(password: &str, iterations: u32) -> String {
    let mut hash = [0; 32];
    let algorithm = ring::pbkdf2::PBKDF2_HMAC_SHA256;
    ring::pbkdf2::derive(algorithm, iterations.try_into().unwrap(), b"seasalt", password.as_bytes(), &mut hash);
    format!("pbkdf2_sha256${iterations}$seasalt${}", BASE64_STANDARD.encode(hash))
}

#[tokio::test]
async fn every_login_costs_as_much_as_the_most_expensive_stored_password() {
    let app = TestApp::spawn().await;
    for name in ["ann", "inactive", "malformed", "few"] {
        app.create_user(name).await;
    }
    let insert = "insert into users (username, email, password) values ($1, $1::varchar || '@example.com', $2)";
    let many = stored_password(PASSWORD, 5000);
    app.execute(insert, &[&"many", &many]).await;
    app.batch_execute("update users set is_active = false where username = 'inactive'").await;
    app.batch_execute("update users set password = 'pbkdf2_sha256$x' where username = 'malformed'").await;
    app.execute("update users set password = $1 where username = 'few'", &[&stored_password(PASSWORD, 10)]).await;
    let iterations = async || app.metric("testshop_password_iterations_total").await;
    let cost = async |name: &str, password: &str, status: u16| {
        let before = iterations().await;
        let login = json!({"username": name, "password": password});
        assert_eq!(app.anonymous().post("/api/login/", login).await.status, status, "{name}");
        iterations().await - before
    };
    for name in ["ann", "inactive", "malformed", "few", "many", "unknown"] {
        assert_eq!(cost(name, "a guess", 401).await, 5000.0, "{name}");
    }
    assert_eq!(cost("ann", PASSWORD, 200).await, 5000.0);
    assert_eq!(cost("few", PASSWORD, 200).await, 6000.0, "the renewed hash takes 1000 more");
    assert_eq!(cost("many", PASSWORD, 200).await, 5000.0);
    assert_eq!(app.query_scalar::<String>("select password from users where username = 'many'").await, many);
    let before = iterations().await;
    let guess = json!({"old_password": "a guess", "new_password": "a fine password"});
    assert_eq!(app.login("ann").await.post("/api/password/", guess).await.status, 400);
    assert_eq!(iterations().await - before, 10_000.0, "a login and a password change");

    // a running server applies a change at once, and only valid hashes count
    app.execute("update users set password = $1 where username = 'many'", &[&stored_password(PASSWORD, 3000)]).await;
    let too_many = many.replace("$5000$", "$10000001$");
    for (name, stored) in [("a", too_many.as_str()), ("b", "pbkdf2_sha256$9999999$salt$AAAA"), ("c", "md5$9999999$a$b")]
    {
        app.execute(insert, &[&name, &stored]).await;
        assert_eq!(cost(name, "a guess", 401).await, 3000.0, "{stored}");
    }
    app.batch_execute("delete from users where username in ('many', 'a')").await;
    assert_eq!(cost("unknown", "a guess", 401).await, 1000.0);
}

#[tokio::test]
async fn largest_number_of_iterations_is_read_from_an_index() {
    let app = TestApp::spawn().await;
    app.batch_execute(&format!(
        "insert into users (username, email, password)
         select 'user' || i, 'user' || i || '@example.com', '{}' from generate_series(1, 20000) i; analyze users",
        stored_password(PASSWORD, 10)
    ))
    .await;
    let explain = "explain select max(password_iterations(password::text)) from users";
    let plan: Vec<String> = app.sql.query(explain, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(plan.join("\n").contains("users_password_iterations_idx"), "{plan:#?}");
    assert_eq!(app.query_scalar::<i32>("select max_password_iterations()").await, 10);
}

#[tokio::test]
async fn logout_applies_on_all_instances_at_next_request() {
    let app = TestApp::spawn().await;
    let other = app.start_instance().await;
    let ann = app.create_user("ann").await;
    let second_login = app.login("ann").await;
    assert_eq!(ann.on_instance(other.address).get("/api/me/").await.status, 200);
    assert_eq!(ann.post("/api/logout/", json!({})).await.status, 204);
    for address in [other.address, app.server.address] {
        let response = ann.on_instance(address).get("/api/products/").await;
        assert_eq!(response.status, 401);
        assert_eq!(response.json()["code"], "token_not_valid");
        assert_eq!(response.json()["messages"][0]["message"], "Token is invalid");
    }
    assert_eq!(second_login.on_instance(other.address).get("/api/me/").await.status, 200, "other sessions stay valid");
    assert_eq!(app.query_scalar::<i64>("select count(*) from sessions").await, 1, "logout deletes its session");
    assert_eq!(ann.post("/api/logout/", json!({})).await.status, 401);

    let started_later = app.start_instance().await;
    assert_eq!(ann.on_instance(started_later.address).get("/api/me/").await.status, 401);
}

#[tokio::test]
async fn deactivated_or_deleted_account_is_rejected_at_next_request() {
    let app = TestApp::spawn().await;
    let other = app.start_instance().await;
    for (name, change) in [
        ("ann", "update users set is_active = false where username = 'ann'"),
        ("bob", "delete from users where username = 'bob'"),
    ] {
        let user = app.create_user(name).await;
        assert_eq!(user.on_instance(other.address).get("/api/me/").await.status, 200);
        app.execute(change, &[]).await;
        assert_eq!(user.on_instance(other.address).get("/api/me/").await.status, 401, "{change}");
        assert_eq!(user.get("/api/products/").await.status, 401, "{change}");
    }
    let carl = app.create_user("carl").await;
    app.execute("update users set is_active = false where username = 'carl'", &[]).await;
    app.execute("update users set is_active = true where username = 'carl'", &[]).await;
    assert_eq!(carl.get("/api/me/").await.status, 401, "reactivation restores no token");
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
    app.execute("insert into revocations (token_id, expires_at) values ('expired', now() - interval '1 second')", &[])
        .await;
    let prune = testshop::db::statements::REVOCATIONS_PRUNE.sql;
    app.execute(prune, &[]).await;
    assert_eq!(app.query_scalar::<i64>("select count(*) from revocations where token_id = 'expired'").await, 0);
    assert_eq!(ann.get("/api/me/").await.status, 401);
    assert_eq!(bob.get("/api/me/").await.status, 200);
    // the feed still delivers new revocations
    bob.post("/api/logout/", json!({})).await;
    assert_eq!(bob.get("/api/me/").await.status, 401);
}

#[tokio::test]
async fn passwords_and_tokens_are_not_stored_in_plain_text() {
    let app = TestApp::spawn().await;
    let ann = app.create_user("ann").await;
    assert!(required_env("DATABASE_URL").starts_with("postgres"));
    let rows = "select coalesce(string_agg(t::text, ' '), '') from (select users::text from users
                union all select sessions::text from sessions union all select revocations::text from revocations) t";
    ann.post("/api/logout/", json!({})).await;
    let stored: String = app.query_scalar(rows).await;
    assert!(!stored.contains(PASSWORD) && !stored.contains(ann.token()), "{stored}");
}
