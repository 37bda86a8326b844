//! `REFRESH_GRACE`: for a short time, a refresh token is accepted again after its first use.

use futures_util::future::join_all;
use serde_json::json;

use crate::{
    harness::{TestApp, TestAppBuilder, TestClient, TestResponse, connect, wait_until},
    sessions::{login_with_refresh_token, refresh, token_not_valid},
};

/// Refreshes successfully; returns a client with the access token, and the refresh token.
async fn refreshed(client: &TestClient, token: &str) -> (TestClient, String) {
    tokens_of(client, &refresh(client, token).await)
}

fn tokens_of(client: &TestClient, response: &TestResponse) -> (TestClient, String) {
    assert_eq!(response.status, 200, "{}", response.text());
    let tokens = response.json();
    (client.with_token_only(tokens["token"].as_str().unwrap()), tokens["refresh"].as_str().unwrap().to_owned())
}

/// Ten seconds pass since each replacement of a refresh token.
async fn end_grace(app: &TestApp) {
    let shift = "update sessions set spent_at = array(select at - interval '10 seconds' from unnest(spent_at) at)";
    app.execute(shift, &[]).await;
}

async fn revocations(app: &TestApp) -> (i64, f64) {
    let count = app.query_scalar("select count(*) from revocations").await;
    (count, app.metric("testshop_refresh_token_reuses_total").await)
}

#[tokio::test]
async fn spent_refresh_token_gets_further_pairs_within_grace_only() {
    let app = TestApp::spawn().await;
    let other = app.start_instance().await;
    app.create_user("ann").await;
    let (user, first) = login_with_refresh_token(&app, "ann").await;
    let (front, back) = (app.anonymous(), app.anonymous().on_instance(other.address));

    let (second_tab, second) = refreshed(&front, &first).await;
    let (third_tab, third) = refreshed(&back, &first).await;
    let (fourth_tab, fourth) = refreshed(&front, &second).await;
    let (fifth_tab, fifth) = refreshed(&back, &first).await;
    let tabs = [&user, &second_tab, &third_tab, &fourth_tab, &fifth_tab];
    for tab in tabs {
        for address in [app.server.address, other.address] {
            assert_eq!(tab.on_instance(address).get("/api/me/").await.status, 200);
        }
    }
    let mut issued = vec![first, second, third, fourth.clone(), fifth.clone()];
    issued.sort_unstable();
    issued.dedup();
    assert_eq!(issued.len(), 5, "every token is new");
    assert_eq!(revocations(&app).await, (0, 0.0));

    // the latest token stays valid, and replaces itself; an older one has been copied
    end_grace(&app).await;
    let (_, latest) = refreshed(&front, &fifth).await;
    assert_eq!(refresh(&back, &fourth).await.status_and_json(), token_not_valid());
    for token in [&latest, &fifth] {
        assert_eq!(refresh(&front, token).await.status_and_json(), token_not_valid());
    }
    for tab in tabs {
        assert_eq!(tab.get("/api/me/").await.status_and_json(), token_not_valid());
    }
    assert_eq!(app.metric_on(&other, "testshop_refresh_token_reuses_total").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_refreshes_within_grace_keep_session() {
    let app = TestApp::spawn().await;
    let other = app.start_instance().await;
    app.create_user("ann").await;
    let (_, first) = login_with_refresh_token(&app, "ann").await;
    // every refresh waits for the lock of the session, and sees the tokens that were replaced meanwhile
    let locking = connect(app.database_url()).await;
    locking.batch_execute("begin; select from sessions for update").await.unwrap();
    let clients = [app.anonymous(), app.anonymous().on_instance(other.address)];
    let refreshes = (0..6).map(|number| {
        let (client, token) = (clients[number % 2].clone(), first.clone());
        tokio::spawn(async move { refresh(&client, &token).await })
    });
    let refreshes: Vec<_> = refreshes.collect();
    let waiting =
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
    wait_until("all wait for the lock", async || app.query_scalar::<i64>(waiting).await == 6).await;
    locking.batch_execute("commit").await.unwrap();
    let responses = join_all(refreshes).await.into_iter().map(Result::unwrap);
    let tabs: Vec<_> = responses.map(|response| tokens_of(&clients[0], &response)).collect();
    let again = join_all(tabs.iter().map(|(_, token)| refresh(&clients[1], token))).await;
    for (tab, _) in tabs.iter().cloned().chain(again.iter().map(|response| tokens_of(&clients[1], response))) {
        assert_eq!(tab.get("/api/me/").await.status, 200);
    }
    assert_eq!(revocations(&app).await, (0, 0.0));
}

#[tokio::test]
async fn session_that_ends_within_grace_stays_ended() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();
    app.create_user("ann").await;
    let (_, first) = login_with_refresh_token(&app, "ann").await;
    let (second_tab, second) = refreshed(&anonymous, &first).await;
    let (third_tab, third) = refreshed(&anonymous, &first).await;
    assert_eq!(second_tab.post("/api/logout/", json!({})).await.status, 204);
    for token in [&first, &second, &third] {
        assert_eq!(refresh(&anonymous, token).await.status_and_json(), token_not_valid());
    }
    assert_eq!(third_tab.get("/api/me/").await.status_and_json(), token_not_valid());

    // a session that expires revokes no access token
    app.execute("delete from revocations", &[]).await;
    for end in ["expires_at = now()", "started_at = now() - interval '90 days'"] {
        let (_, first) = login_with_refresh_token(&app, "ann").await;
        let (user, second) = refreshed(&anonymous, &first).await;
        app.execute(&format!("update sessions set {end}"), &[]).await;
        for token in [&first, &second] {
            assert_eq!(refresh(&anonymous, token).await.status_and_json(), token_not_valid(), "{end}");
        }
        assert_eq!(user.get("/api/me/").await.status, 200, "{end}");
    }
    assert_eq!(revocations(&app).await, (0, 0.0));
}

#[tokio::test]
async fn session_records_replaced_tokens_of_grace_up_to_limit() {
    let app = TestAppBuilder::default().with("refresh-grace", "5s").spawn().await;
    app.create_user("ann").await;
    // the session of the login that created the user
    app.execute("delete from sessions", &[]).await;
    let (_, first) = login_with_refresh_token(&app, "ann").await;
    let sizes = "select cardinality(spent_hashes) || ' ' || cardinality(spent_at) from sessions";
    app.execute(
        "update sessions
            set spent_hashes = array(select int8send(i) from generate_series(1, 300) i),
                spent_at = array(select now() - i * interval '1 millisecond' from generate_series(1, 300) i)",
        &[],
    )
    .await;
    let (_, second) = refreshed(&app.anonymous(), &first).await;
    assert_eq!(app.query_scalar::<String>(sizes).await, "256 256");
    let (_, third) = refreshed(&app.anonymous(), &first).await;
    end_grace(&app).await;
    let (_, latest) = refreshed(&app.anonymous(), &third).await;
    assert_eq!(app.query_scalar::<String>(sizes).await, "1 1", "those before the grace are deleted");
    assert_eq!(refresh(&app.anonymous(), &second).await.status_and_json(), token_not_valid());
    assert_eq!(refresh(&app.anonymous(), &latest).await.status_and_json(), token_not_valid());
}
