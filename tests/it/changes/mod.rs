//! The change feed: pages of changes, sync tokens, requests that wait, and event streams.

mod events;
pub mod follower;
mod pages;
mod readme;
mod stream;
mod tokens;
mod wait;

use serde_json::Value;

use crate::harness::{TestApp, TestClient, TestResponse};

/// Starts an app with products 1 to `count` in category 1, each with tags 1 and 2.
async fn spawn_with_products(count: i32) -> (TestApp, TestClient) {
    let app = TestApp::spawn().await;
    app.seed_products(count).await;
    let user = app.create_user("ann").await;
    (app, user)
}

/// Returns the sync token of the whole list.
async fn list_token(client: &TestClient) -> String {
    client.get("/api/products/").await.header("x-sync-token").to_owned()
}

async fn changes_since(client: &TestClient, token: &str) -> TestResponse {
    client.get(&format!("/api/products/changes/?since={token}")).await
}

/// Returns the ids of the changed products and those of the deleted ones.
fn ids_of(page: &Value) -> (Vec<i64>, Vec<i64>) {
    let changed = page["changed"].as_array().unwrap().iter().map(|product| product["id"].as_i64().unwrap()).collect();
    let deleted = page["deleted"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
    (changed, deleted)
}

fn token_of(page: &Value) -> &str {
    page["token"].as_str().unwrap()
}

/// The response to a token whose changes are not known.
fn expired() -> (u16, Value) {
    let detail = "The sync token has expired. Load the whole list again.";
    (410, serde_json::json!({"detail": detail, "code": "sync_token_expired"}))
}
