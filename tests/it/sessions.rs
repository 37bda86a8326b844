//! Logins that are renewed and ended, and passwords that are changed: what is refused from then on, and what is not.

use serde_json::{Value, json};

use crate::harness::{PASSWORD, TestApp, TestAppBuilder, TestClient, TestResponse, wait_until};

async fn logged_in(app: &TestApp, name: &str) -> (TestClient, String) {
    let response = app.anonymous().post("/api/login/", json!({"username": name, "password": PASSWORD})).await;
    assert_eq!(response.header("cache-control"), "no-store");
    assert_eq!(response.status, 200, "{}", response.text());
    let told = response.json();
    (app.anonymous().with_token(told["token"].as_str().unwrap()), told["refresh"].as_str().unwrap().to_owned())
}

async fn refresh(caller: &TestClient, token: &str) -> TestResponse {
    caller.post("/api/token/refresh/", json!({"refresh": token})).await
}

fn dead() -> (u16, Value) {
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
    let (user, first) = logged_in(&app, "ann").await;
    let renewed = refresh(&app.anonymous(), &first).await;
    assert_eq!(renewed.status, 200, "{}", renewed.text());
    let told = renewed.json();
    assert_eq!(told["expires_in"], 3600);
    let (second, token) = (told["refresh"].as_str().unwrap(), told["token"].as_str().unwrap());
    assert!(second != first && token != user.token());
    let next = app.anonymous().with_token(token);
    assert_eq!(next.get("/api/me/").await.json()["username"], "ann");
    assert_eq!(user.get("/api/me/").await.status, 200, "the token before lives as long as it was said to");
    assert_eq!(refresh(&app.anonymous(), second).await.status, 200);

    // only what cannot be turned into a token is stored
    let stored: i64 = app.query_scalar("select count(*) from sessions where length(refresh_hash) = 32").await;
    assert_eq!(stored, 2);
    let copies = format!("select count(*) from sessions s where s::text like '%{}%'", &second[33..]);
    assert_eq!(app.query_scalar::<i64>(&copies).await, 0);
}

#[tokio::test]
async fn refresh_token_reuse_revokes_family() {
    let app = TestApp::spawn().await;
    let other = app.start_instance().await;
    app.create_user("ann").await;
    let (stolen_from, first) = logged_in(&app, "ann").await;
    let (elsewhere, kept) = logged_in(&app, "ann").await;
    let renewed = refresh(&app.anonymous(), &first).await.json();
    let (second, token) = (renewed["refresh"].as_str().unwrap(), renewed["token"].as_str().unwrap());
    let next = app.anonymous().with_token(token);
    assert_eq!(next.on_instance(other.address).get("/api/me/").await.status, 200);

    assert_eq!(refresh(&app.anonymous(), &first).await.status_and_json(), dead());
    assert_eq!(refresh(&app.anonymous(), second).await.status_and_json(), dead(), "the one in force died with it");
    for caller in [&stolen_from, &next, &next.on_instance(other.address)] {
        assert_eq!(caller.get("/api/me/").await.status_and_json(), dead());
    }
    assert_eq!(elsewhere.get("/api/me/").await.status, 200);
    assert_eq!(refresh(&app.anonymous(), &kept).await.status, 200);
    let counted = app.anonymous().on_instance(app.server.admin_address).get("/metrics").await.text();
    assert!(counted.contains("testshop_sessions_copied_total 1\n"), "operators hear of it, once: {counted}");
}

#[tokio::test]
async fn concurrent_refresh_revokes_session() {
    let app = TestApp::spawn().await;
    app.create_user("ann").await;
    for _ in 0..5 {
        let (_, token) = logged_in(&app, "ann").await;
        let anonymous = app.anonymous();
        let (one, two) = tokio::join!(refresh(&anonymous, &token), refresh(&anonymous, &token));
        let mut statuses = [one.status.as_u16(), two.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 401]);
        let winner = if one.status == 200 { one } else { two };
        let next = winner.json()["refresh"].as_str().unwrap().to_owned();
        assert_eq!(refresh(&anonymous, &next).await.status, 401, "nobody knows which of the two was the thief");
    }
}

#[tokio::test]
async fn malformed_refresh_tokens_are_rejected() {
    let app = TestApp::spawn().await;
    let (user, token) = {
        app.create_user("ann").await;
        logged_in(&app, "ann").await
    };
    let anonymous = app.anonymous();
    let foreign = format!("{}.{}", "0".repeat(32), &token[33..]);
    // whoever has seen an access token knows the session's name
    let made_up = format!("{}.{}", &token[..32], "A".repeat(token.len() - 33));
    let damaged = format!("{}{}", &token[..token.len() - 4], "AAAA");
    for wrong in
        ["", " ", "x", ".", "a.b", &token[..32], &foreign, &made_up, &damaged, user.token(), &"9".repeat(512), "ё.ё"]
    {
        let response = refresh(&anonymous, wrong).await;
        let status = if wrong.trim().is_empty() { 400 } else { 401 };
        assert_eq!(response.status, status, "{wrong}: {}", response.text());
    }
    for (body, told) in [
        (json!({}), json!({"refresh": ["This field is required."]})),
        (json!({"refresh": null}), json!({"refresh": ["This field may not be null."]})),
        (json!({"refresh": [token]}), json!({"refresh": ["Not a valid string."]})),
        (
            json!({"refresh": "9".repeat(513)}),
            json!({"refresh": ["Ensure this field has no more than 512 characters."]}),
        ),
    ] {
        assert_eq!(anonymous.post("/api/token/refresh/", body).await.status_and_json(), (400, told));
    }
    assert_eq!(refresh(&anonymous, &token).await.status, 200, "none of it did any harm");
}

#[tokio::test]
async fn session_ends_at_expiry_logout_deactivation_and_revocation() {
    let app = TestAppBuilder::default().with("refresh-token-ttl", "10d").spawn().await;
    let anonymous = app.anonymous();
    app.create_user("ann").await;
    let (_, token) = logged_in(&app, "ann").await;
    let days: i32 =
        app.query_scalar("select round(extract(epoch from max(expires_at) - now()) / 86400)::int from sessions").await;
    assert_eq!(days, 10);
    app.execute("update sessions set expires_at = now()", &[]).await;
    assert_eq!(refresh(&anonymous, &token).await.status_and_json(), dead());

    let (user, token) = logged_in(&app, "ann").await;
    assert_eq!(user.post("/api/logout/", json!({})).await.status, 204);
    assert_eq!(refresh(&anonymous, &token).await.status_and_json(), dead());

    // deactivated by somebody else, and activated again: what was ended stays ended
    let (_, token) = logged_in(&app, "ann").await;
    app.execute("update users set is_active = false", &[]).await;
    app.execute("update users set is_active = true", &[]).await;
    assert_eq!(refresh(&anonymous, &token).await.status_and_json(), dead());

    let (_, token) = logged_in(&app, "ann").await;
    app.execute("delete from users", &[]).await;
    assert_eq!(refresh(&anonymous, &token).await.status_and_json(), dead());
}

#[tokio::test]
async fn session_ttl_caps_refreshes() {
    let app = TestAppBuilder::default().with("session-ttl", "20d").spawn().await;
    let anonymous = app.anonymous();
    app.create_user("ann").await;
    let (user, first) = logged_in(&app, "ann").await;
    app.execute("update sessions set started_at = now() - interval '15 days'", &[]).await;
    let renewed = refresh(&anonymous, &first).await;
    assert_eq!(renewed.status, 200, "{}", renewed.text());
    let days = "select round(extract(epoch from min(expires_at) - now()) / 86400)::int from sessions";
    assert_eq!(app.query_scalar::<i32>(days).await, 5, "14 more days would be too many");

    // also where the operator allowed more when its last token was issued
    app.execute("update sessions set started_at = now() - interval '20 days'", &[]).await;
    assert_eq!(refresh(&anonymous, renewed.json()["refresh"].as_str().unwrap()).await.status_and_json(), dead());
    assert_eq!(user.get("/api/me/").await.status_and_json(), dead());

    let app = TestAppBuilder::default().with("session-ttl", "3d").spawn().await;
    app.create_user("ann").await;
    logged_in(&app, "ann").await;
    assert_eq!(app.query_scalar::<i32>(days).await, 3);
}

#[tokio::test]
async fn logout_all_ends_all_sessions_of_one_user() {
    let app = TestApp::spawn().await;
    let other = app.start_instance().await;
    let bob = app.create_user("bob").await;
    app.create_user("ann").await;
    let (first, one) = logged_in(&app, "ann").await;
    let (second, two) = logged_in(&app, "ann").await;
    assert_eq!(second.on_instance(other.address).get("/api/me/").await.status, 200);
    let response = first.post("/api/logout/all/", json!({})).await;
    assert_eq!((response.status.as_u16(), response.body.len()), (204, 0));
    for caller in [&first, &second, &second.on_instance(other.address)] {
        assert_eq!(caller.get("/api/me/").await.status_and_json(), dead());
    }
    for token in [one, two] {
        assert_eq!(refresh(&app.anonymous(), &token).await.status_and_json(), dead());
    }
    assert_eq!(bob.get("/api/me/").await.status, 200);
    let (again, _) = logged_in(&app, "ann").await;
    assert_eq!(again.get("/api/me/").await.status, 200);
    assert_eq!(app.anonymous().post("/api/logout/all/", json!({})).await.status, 401);
}

#[tokio::test]
async fn password_change_revokes_all_tokens() {
    let app = TestApp::spawn().await;
    app.create_user("ann").await;
    let (user, token) = logged_in(&app, "ann").await;
    let (elsewhere, _) = logged_in(&app, "ann").await;
    let change = async |old: &str, new: &str| {
        user.post("/api/password/", json!({"old_password": old, "new_password": new})).await
    };
    let faults = |name: &str, words: &str| (400, json!({name: [words]}));
    assert_eq!(
        change("not it", "a fine password").await.status_and_json(),
        faults("old_password", "Invalid password.")
    );
    let both = json!({"old_password": ["Invalid password."], "new_password": ["This password is entirely numeric."]});
    assert_eq!(change("not it", "8675309867530").await.status_and_json(), (400, both));
    let short = change(PASSWORD, "q-8z").await;
    assert_eq!(short.status_and_json(), faults("new_password", "Ensure this field has at least 8 characters."));
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
    assert_eq!(user.get("/api/me/").await.status, 200, "what was refused changed nothing");

    assert_eq!(change(PASSWORD, " a fine password ").await.status, 204);
    for caller in [&user, &elsewhere] {
        assert_eq!(caller.get("/api/me/").await.status_and_json(), dead());
    }
    assert_eq!(refresh(&app.anonymous(), &token).await.status_and_json(), dead());
    let login = async |password: &str| {
        app.anonymous().post("/api/login/", json!({"username": "ann", "password": password})).await.status.as_u16()
    };
    assert_eq!((login(PASSWORD).await, login("a fine password").await), (401, 401));
    assert_eq!(login(" a fine password ").await, 200, "passwords are never trimmed");
}

#[tokio::test]
async fn concurrent_password_changes_have_one_winner() {
    let app = TestApp::spawn().await;
    let user = app.create_user("ann").await;
    // an operator's change, which the user's own has to wait for
    app.batch_execute("begin; update users set password = 'another' where username = 'ann'").await;
    let changing = tokio::spawn(async move {
        user.post("/api/password/", json!({"old_password": PASSWORD, "new_password": "a fine password"})).await
    });
    let waiting =
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
    wait_until("it waits", async || app.query_scalar::<i64>(waiting).await > 0).await;
    app.batch_execute("commit").await;
    assert_eq!(changing.await.unwrap().status_and_json(), dead());
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
    let poor = json!({"old_password": PASSWORD, "new_password": "8675309867530"});
    for _ in 0..8 {
        let told = user.post("/api/password/", poor.clone()).await.status_and_json();
        assert_eq!(told, (400, json!({"new_password": ["This password is entirely numeric."]})));
    }
}
