//! Sessions: refresh tokens, logout from all sessions, password changes.

use serde_json::{Value, json};
use testshop::db::statements;

use crate::harness::{PASSWORD, TestApp, TestAppBuilder, TestClient, TestResponse, wait_until};

/// Logs in, and returns a client with the access token, and the refresh token.
pub(crate) async fn login_with_refresh_token(app: &TestApp, name: &str) -> (TestClient, String) {
    let response = app.anonymous().post("/api/login/", json!({"username": name, "password": PASSWORD})).await;
    assert_eq!(response.header("cache-control"), "no-store");
    assert_eq!(response.status, 200, "{}", response.text());
    let tokens = response.json();
    (app.anonymous().with_token(tokens["token"].as_str().unwrap()), tokens["refresh"].as_str().unwrap().to_owned())
}

pub(crate) async fn refresh(client: &TestClient, token: &str) -> TestResponse {
    client.post("/api/token/refresh/", json!({"refresh": token})).await
}

/// A server that accepts a refresh token once.
fn without_grace() -> TestAppBuilder {
    TestAppBuilder::default().with("refresh-grace", "0s")
}

/// The response to a revoked or expired refresh token and to a revoked access token.
pub(crate) fn token_not_valid() -> (u16, Value) {
    (
        401,
        json!({
            "detail": "Given token not valid for any token type", "code": "token_not_valid",
            "messages": [{"token_class": "AccessToken", "token_type": "access", "message": "Token is invalid"}],
        }),
    )
}

#[tokio::test]
async fn refresh_token_works_once() {
    let app = TestApp::spawn().await;
    app.create_user("ann").await;
    let (user, first) = login_with_refresh_token(&app, "ann").await;
    let refreshed = refresh(&app.anonymous(), &first).await;
    assert_eq!(refreshed.status, 200, "{}", refreshed.text());
    let tokens = refreshed.json();
    assert_eq!(tokens["expires_in"], 3600);
    let (second, token) = (tokens["refresh"].as_str().unwrap(), tokens["token"].as_str().unwrap());
    assert!(second != first && token != user.token());
    let next = app.anonymous().with_token(token);
    assert_eq!(next.get("/api/me/").await.json()["username"], "ann");
    assert_eq!(user.get("/api/me/").await.status, 200, "the previous access token stays valid until it expires");
    assert_eq!(refresh(&app.anonymous(), second).await.status, 200);

    // the table holds hashes, from which no token can be derived
    let stored: i64 = app.query_scalar("select count(*) from sessions where length(refresh_hash) = 32").await;
    assert_eq!(stored, 2);
    let plain_text = format!("select count(*) from sessions s where s::text like '%{}%'", &second[33..]);
    assert_eq!(app.query_scalar::<i64>(&plain_text).await, 0);
}

#[tokio::test]
async fn refresh_token_reuse_revokes_family() {
    let app = without_grace().spawn().await;
    let other = app.start_instance().await;
    app.create_user("ann").await;
    let (user, first) = login_with_refresh_token(&app, "ann").await;
    let (other_session, other_refresh) = login_with_refresh_token(&app, "ann").await;
    let tokens = refresh(&app.anonymous(), &first).await.json();
    let (second, token) = (tokens["refresh"].as_str().unwrap(), tokens["token"].as_str().unwrap());
    let next = app.anonymous().with_token(token);
    assert_eq!(next.on_instance(other.address).get("/api/me/").await.status, 200);

    assert_eq!(refresh(&app.anonymous(), &first).await.status_and_json(), token_not_valid());
    assert_eq!(
        refresh(&app.anonymous(), second).await.status_and_json(),
        token_not_valid(),
        "reuse revokes the current token"
    );
    for client in [&user, &next, &next.on_instance(other.address)] {
        assert_eq!(client.get("/api/me/").await.status_and_json(), token_not_valid());
    }
    assert_eq!(other_session.get("/api/me/").await.status, 200);
    assert_eq!(refresh(&app.anonymous(), &other_refresh).await.status, 200);
    assert_eq!(app.metric("testshop_refresh_token_reuses_total").await, 1.0, "the reuse is counted once");
}

#[tokio::test]
async fn concurrent_refresh_without_grace_revokes_session() {
    let app = without_grace().spawn().await;
    app.create_user("ann").await;
    for _ in 0..5 {
        let (_, token) = login_with_refresh_token(&app, "ann").await;
        let anonymous = app.anonymous();
        let (first, second) = tokio::join!(refresh(&anonymous, &token), refresh(&anonymous, &token));
        let mut statuses = [first.status.as_u16(), second.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 401]);
        let accepted = if first.status == 200 { first } else { second };
        let next = accepted.json()["refresh"].as_str().unwrap().to_owned();
        assert_eq!(refresh(&anonymous, &next).await.status, 401, "either of the two may have used a stolen token");
    }
}

#[tokio::test]
async fn malformed_refresh_tokens_are_rejected() {
    let app = TestApp::spawn().await;
    let (user, token) = {
        app.create_user("ann").await;
        login_with_refresh_token(&app, "ann").await
    };
    let anonymous = app.anonymous();
    let foreign = format!("{}.{}", "0".repeat(32), &token[33..]);
    // the session id is part of each access token, so it is no secret
    let forged = format!("{}.{}", &token[..32], "A".repeat(token.len() - 33));
    let damaged = format!("{}{}", &token[..token.len() - 4], "AAAA");
    for wrong in
        ["", " ", "x", ".", "a.b", &token[..32], &foreign, &forged, &damaged, user.token(), &"9".repeat(8000), "ё.ё"]
    {
        let response = refresh(&anonymous, wrong).await;
        let status = if wrong.trim().is_empty() { 400 } else { 401 };
        assert_eq!(response.status, status, "{wrong}: {}", response.text());
    }
    for (body, errors) in [
        (json!({}), json!({"refresh": ["This field is required."]})),
        (json!({"refresh": null}), json!({"refresh": ["This field may not be null."]})),
        (json!({"refresh": [token]}), json!({"refresh": ["Not a valid string."]})),
    ] {
        assert_eq!(anonymous.post("/api/token/refresh/", body).await.status_and_json(), (400, errors));
    }
    assert_eq!(refresh(&anonymous, &token).await.status, 200, "rejected tokens leave the session unchanged");
}

#[tokio::test]
async fn session_ends_at_expiry_logout_deactivation_and_revocation() {
    let app = TestAppBuilder::default().with("refresh-token-ttl", "10d").spawn().await;
    let anonymous = app.anonymous();
    app.create_user("ann").await;
    let (_, token) = login_with_refresh_token(&app, "ann").await;
    let days: i32 =
        app.query_scalar("select round(extract(epoch from max(expires_at) - now()) / 86400)::int from sessions").await;
    assert_eq!(days, 10);
    app.execute("update sessions set expires_at = now()", &[]).await;
    assert_eq!(refresh(&anonymous, &token).await.status_and_json(), token_not_valid());

    let (user, token) = login_with_refresh_token(&app, "ann").await;
    assert_eq!(user.post("/api/logout/", json!({})).await.status, 204);
    assert_eq!(refresh(&anonymous, &token).await.status_and_json(), token_not_valid());

    // reactivation restores no session
    let (_, token) = login_with_refresh_token(&app, "ann").await;
    app.execute("update users set is_active = false", &[]).await;
    app.execute("update users set is_active = true", &[]).await;
    assert_eq!(refresh(&anonymous, &token).await.status_and_json(), token_not_valid());

    let (_, token) = login_with_refresh_token(&app, "ann").await;
    app.execute("delete from users", &[]).await;
    assert_eq!(refresh(&anonymous, &token).await.status_and_json(), token_not_valid());
}

#[tokio::test]
async fn expired_unused_refresh_token_revokes_nothing() {
    let app = without_grace().spawn().await;
    let anonymous = app.anonymous();
    app.create_user("ann").await;
    let (user, first) = login_with_refresh_token(&app, "ann").await;
    let second = refresh(&anonymous, &first).await.json()["refresh"].as_str().unwrap().to_owned();
    app.execute("update sessions set expires_at = now()", &[]).await;
    app.execute(statements::SESSIONS_PRUNE.sql, &[]).await;
    assert_eq!(refresh(&anonymous, &second).await.status_and_json(), token_not_valid());
    assert_eq!(user.get("/api/me/").await.status, 200, "the access token is valid until it expires");
    assert_eq!(app.query_scalar::<i64>("select count(*) from revocations").await, 0);
    assert_eq!(app.metric("testshop_refresh_token_reuses_total").await, 0.0);

    // reuse is detected as long as an access token of the session is valid
    assert_eq!(refresh(&anonymous, &first).await.status_and_json(), token_not_valid());
    assert_eq!(user.get("/api/me/").await.status_and_json(), token_not_valid());
    app.execute("update sessions set expires_at = now(), access_expires_at = now()", &[]).await;
    app.execute(statements::SESSIONS_PRUNE.sql, &[]).await;
    assert_eq!(app.query_scalar::<i64>("select count(*) from sessions").await, 0);
}

#[tokio::test]
async fn revocation_outlives_tokens_issued_under_longer_access_token_ttl() {
    let app = without_grace().with("access-token-ttl", "24h").spawn().await;
    let lowered = app.start_instance_with("access-token-ttl", "60s").await;
    app.create_user("ann").await;
    for reuse in [false, true] {
        let (old, first) = login_with_refresh_token(&app, "ann").await;
        let tokens = refresh(&app.anonymous().on_instance(lowered.address), &first).await.json();
        let newest = app.anonymous().on_instance(lowered.address).with_token(tokens["token"].as_str().unwrap());
        if reuse {
            assert_eq!(refresh(&newest, &first).await.status, 401);
        } else {
            assert_eq!(newest.post("/api/logout/", json!({})).await.status, 204);
        }
        // 23 hours pass; every pruned revocation is forgotten by an instance that starts
        app.execute("delete from revocations where expires_at < now() + interval '23 hours'", &[]).await;
        let restarted = app.start_instance_with("access-token-ttl", "60s").await;
        let response = old.on_instance(restarted.address).get("/api/me/").await;
        assert_eq!(response.status_and_json(), token_not_valid(), "reuse: {reuse}");
    }
}

#[tokio::test]
async fn session_ttl_caps_refreshes() {
    let app = TestAppBuilder::default().with("session-ttl", "20d").spawn().await;
    let anonymous = app.anonymous();
    app.create_user("ann").await;
    let (user, first) = login_with_refresh_token(&app, "ann").await;
    app.execute("update sessions set started_at = now() - interval '15 days'", &[]).await;
    let refreshed = refresh(&anonymous, &first).await;
    assert_eq!(refreshed.status, 200, "{}", refreshed.text());
    let days = "select round(extract(epoch from min(expires_at) - now()) / 86400)::int from sessions";
    assert_eq!(
        app.query_scalar::<i32>(days).await,
        5,
        "the refresh token lifetime of 14 days is cut to the session lifetime"
    );

    // a session lifetime that an operator has shortened applies to tokens issued before
    app.execute("update sessions set started_at = now() - interval '20 days'", &[]).await;
    assert_eq!(
        refresh(&anonymous, refreshed.json()["refresh"].as_str().unwrap()).await.status_and_json(),
        token_not_valid()
    );
    assert_eq!(user.get("/api/me/").await.status, 200, "the access token is valid until it expires");

    let app = TestAppBuilder::default().with("session-ttl", "3d").spawn().await;
    app.create_user("ann").await;
    login_with_refresh_token(&app, "ann").await;
    assert_eq!(app.query_scalar::<i32>(days).await, 3);
}

#[tokio::test]
async fn logout_all_ends_all_sessions_of_one_user() {
    let app = TestApp::spawn().await;
    let other = app.start_instance().await;
    let bob = app.create_user("bob").await;
    app.create_user("ann").await;
    let (first, first_refresh) = login_with_refresh_token(&app, "ann").await;
    let (second, second_refresh) = login_with_refresh_token(&app, "ann").await;
    assert_eq!(second.on_instance(other.address).get("/api/me/").await.status, 200);
    let response = first.post("/api/logout/all/", json!({})).await;
    assert_eq!((response.status.as_u16(), response.body.len()), (204, 0));
    for client in [&first, &second, &second.on_instance(other.address)] {
        assert_eq!(client.get("/api/me/").await.status_and_json(), token_not_valid());
    }
    for token in [first_refresh, second_refresh] {
        assert_eq!(refresh(&app.anonymous(), &token).await.status_and_json(), token_not_valid());
    }
    assert_eq!(bob.get("/api/me/").await.status, 200);
    let (new_session, _) = login_with_refresh_token(&app, "ann").await;
    assert_eq!(new_session.get("/api/me/").await.status, 200);
    assert_eq!(app.anonymous().post("/api/logout/all/", json!({})).await.status, 401);
}

#[tokio::test]
async fn password_change_revokes_all_tokens() {
    let app = TestApp::spawn().await;
    app.create_user("ann").await;
    let (user, token) = login_with_refresh_token(&app, "ann").await;
    let (other_session, _) = login_with_refresh_token(&app, "ann").await;
    let change = async |old: &str, new: &str| {
        user.post("/api/password/", json!({"old_password": old, "new_password": new})).await
    };
    let error = |field: &str, message: &str| (400, json!({field: [message]}));
    let wrong = change("not it", "a fine password").await;
    assert_eq!(wrong.status_and_json(), error("old_password", "Invalid password."));
    let both = json!({"old_password": ["Invalid password."], "new_password": ["This password is entirely numeric."]});
    assert_eq!(change("not it", "8675309867530").await.status_and_json(), (400, both));
    let short = change(PASSWORD, "q-8z").await;
    assert_eq!(short.status_and_json(), error("new_password", "Ensure this field has at least 8 characters."));
    assert_eq!(
        user.post("/api/password/", json!({"new_password": "Ann"})).await.status_and_json(),
        (
            400,
            json!({
                "old_password": ["This field is required."],
                "new_password": [
                    "Ensure this field has at least 8 characters.",
                    "This password is too common.",
                    "The password is too similar to the username.",
                ],
            })
        )
    );
    assert_eq!(user.get("/api/me/").await.status, 200, "a rejected change revokes no token");

    assert_eq!(change(PASSWORD, " a fine password ").await.status, 204);
    for client in [&user, &other_session] {
        assert_eq!(client.get("/api/me/").await.status_and_json(), token_not_valid());
    }
    assert_eq!(refresh(&app.anonymous(), &token).await.status_and_json(), token_not_valid());
    let login = async |password: &str| {
        app.anonymous().post("/api/login/", json!({"username": "ann", "password": password})).await.status.as_u16()
    };
    assert_eq!((login(PASSWORD).await, login("a fine password").await), (401, 401));
    assert_eq!(login(" a fine password ").await, 200, "passwords are not trimmed");
}

#[tokio::test]
async fn concurrent_password_changes_have_one_winner() {
    let app = TestApp::spawn().await;
    let user = app.create_user("ann").await;
    // the change by an operator holds the lock that the change by the user needs
    app.batch_execute("begin; update users set password = 'another' where username = 'ann'").await;
    let changing = tokio::spawn(async move {
        user.post("/api/password/", json!({"old_password": PASSWORD, "new_password": "a fine password"})).await
    });
    let waiting =
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
    wait_until("the user's change waits for the lock", async || app.query_scalar::<i64>(waiting).await > 0).await;
    app.batch_execute("commit").await;
    assert_eq!(changing.await.unwrap().status_and_json(), token_not_valid());
    assert_eq!(app.query_scalar::<String>("select password from users").await, "another");
}

#[tokio::test]
async fn password_change_is_rate_limited() {
    let app = TestAppBuilder::default().with("rate-limit", "on").spawn().await;
    let user = app.create_user("ann").await;
    let guess = json!({"old_password": "guess", "new_password": "a fine password"});
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(user.post("/api/password/", guess.clone()).await.status.as_u16());
    }
    assert_eq!(statuses[..4], [400; 4]);
    assert_eq!(statuses[5..], [429; 3]);
}

#[tokio::test]
async fn valid_old_password_resets_rate_limit() {
    let app = TestAppBuilder::default().with("rate-limit", "on").spawn().await;
    let user = app.create_user("ann").await;
    let invalid = json!({"old_password": PASSWORD, "new_password": "8675309867530"});
    for _ in 0..8 {
        let response = user.post("/api/password/", invalid.clone()).await.status_and_json();
        assert_eq!(response, (400, json!({"new_password": ["This password is entirely numeric."]})));
    }
}
