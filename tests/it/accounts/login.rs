//! Login, logout, and account changes that revoke access.

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
