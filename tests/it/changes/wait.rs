//! Requests that wait for changes.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{changes_since, ids_of, list_token, spawn_with_products, token_of};
use crate::harness::{TestApp, TestClient, TestResponse, wait_until};

/// Sends a request that prefers to wait, and returns when the server has it.
async fn start_waiting(
    app: &TestApp,
    user: &TestClient,
    preference: &str,
    token: &str,
) -> tokio::task::JoinHandle<TestResponse> {
    let before = app.metric("testshop_change_listeners").await;
    let (user, token) = (user.with_header("prefer", preference), token.to_owned());
    let waiting = tokio::spawn(async move { changes_since(&user, &token).await });
    wait_until("the request waits", async || app.metric("testshop_change_listeners").await > before).await;
    waiting
}

#[tokio::test]
async fn request_waits_until_a_product_changes() {
    let (app, user) = spawn_with_products(3).await;
    let token = list_token(&user).await;
    let waiting = start_waiting(&app, &user, "respond-async, Wait=\"55\"; x", &token).await;
    let other = start_waiting(&app, &user, "wait=1000", &token).await;
    // a version that changes no product ends no wait
    app.execute("insert into categories (name) values ('Empty')", &[]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished());
    app.execute("delete from products where id = 2", &[]).await;
    let response = waiting.await.unwrap();
    assert_eq!(ids_of(&response.json()), (vec![], vec![2]));
    assert_eq!(response.header("preference-applied"), "wait=55");
    assert_eq!(other.await.unwrap().header("preference-applied"), "wait=60");
    wait_until("nobody waits", async || app.metric("testshop_change_listeners").await == 0.0).await;
}

#[tokio::test]
async fn wait_ends_with_an_empty_answer() {
    let (app, user) = spawn_with_products(1).await;
    let token = list_token(&user).await;
    for (preference, applied, is_waiting) in
        [("wait=1", "wait=1", true), ("wait=0", "wait=0", false), ("wait=x", "", false), ("wait=-1", "", false)]
    {
        let began = Instant::now();
        let response = changes_since(&user.with_header("prefer", preference), &token).await;
        assert_eq!(response.status_and_json(), (200, json!({"token": token, "changed": [], "deleted": []})));
        assert_eq!(response.header("preference-applied"), applied, "{preference}");
        assert_eq!(began.elapsed() >= Duration::from_secs(1), is_waiting, "{preference}");
    }
    let etag = changes_since(&user, &token).await.header("etag").to_owned();
    let conditional = user.with_header("if-none-match", &etag).with_header("prefer", "wait=1");
    assert_eq!(changes_since(&conditional, &token).await.status, 304);
    // what has changed already is answered at once, and an expired token too
    app.execute("update products set price = 1", &[]).await;
    let waiting = user.with_header("prefer", "wait=60");
    assert_eq!(ids_of(&changes_since(&waiting, &token).await.json()), (vec![1], vec![]));
    assert_eq!(changes_since(&waiting, "nonsense").await.status, 410);
    let token = list_token(&user).await;
    let waiting = start_waiting(&app, &user, "wait=60", &token).await;
    app.batch_execute("truncate product_tags").await;
    assert_eq!(waiting.await.unwrap().status, 410);
}

#[tokio::test]
async fn waiting_request_takes_no_connection_and_ends_at_shutdown_and_logout() {
    let (app, user) = spawn_with_products(2).await;
    let token = list_token(&user).await;
    let other = app.start_instance_with("db-pool-size", 2).await;
    let user_of_other = user.on_instance(other.address);
    let listeners = async || app.metric_on(&other, "testshop_change_listeners").await;
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let (user, token) = (user_of_other.with_header("prefer", "wait=60"), token.clone());
            tokio::spawn(async move { changes_since(&user, &token).await })
        })
        .collect();
    wait_until("all wait", async || listeners().await == 10.0).await;
    assert_eq!(user_of_other.get("/api/products/1/").await.status, 200);
    assert!(other.stop().await, "the drain ends in time");
    for response in waiting {
        let response = response.await.unwrap();
        assert_eq!((response.status.as_u16(), token_of(&response.json())), (200, token.as_str()));
    }

    let ann = app.login("ann").await;
    let waiting = start_waiting(&app, &ann, "wait=60", &token).await;
    assert_eq!(ann.post("/api/logout/", json!({})).await.status, 204);
    app.execute("update products set price = 1", &[]).await;
    assert_eq!(waiting.await.unwrap().status, 401);
}
