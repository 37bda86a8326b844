//! Freshness: a read that starts after a write was acknowledged never returns an older state, however the write was
//! made. The submodules test how responses are cached, what a cached response costs, and that values in Redis are
//! authenticated.

mod cache;
mod redis_values;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
};

use serde_json::json;

use crate::harness::{TestApp, TestClient, wait_until};

/// Asserts that the next list of each instance has the expected content, whether or not the instance has a cached list.
async fn assert_list_on_both(clients: &[TestClient; 2], write: &str, is_expected: impl Fn(&str) -> bool) {
    for (instance, client) in clients.iter().enumerate() {
        let list = client.get("/api/products/").await;
        assert!(is_expected(&list.text()), "{write}, instance {instance}: {}", list.text());
    }
}

async fn warm_caches(clients: &[TestClient; 2]) {
    for client in clients {
        client.get("/api/products/").await;
        let hit = client.get("/api/products/").await;
        assert!(hit.header("cache-status").starts_with("TestShop; hit"), "{}", hit.header("cache-status"));
    }
}

#[tokio::test]
async fn all_writes_are_visible_in_next_list_on_all_instances() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let other = app.start_instance().await;
    let staff = app.create_staff("sam").await;
    let clients = [staff.clone(), staff.on_instance(other.address)];
    let contains = |text: &'static str| move |list: &str| list.contains(text);
    let lacks = |text: &'static str| move |list: &str| !list.contains(text);

    warm_caches(&clients).await;
    staff.post("/api/products/", json!({"name": "Created", "price": 1, "category_id": 1})).await;
    assert_list_on_both(&clients, "create", contains("Created")).await;
    warm_caches(&clients).await;
    clients[1].patch("/api/products/1/", json!({"name": "Changed"})).await;
    assert_list_on_both(&clients, "update through the other instance", contains("Changed")).await;
    warm_caches(&clients).await;
    staff.delete("/api/products/2/").await;
    assert_list_on_both(&clients, "delete", lacks("Product 2")).await;
    warm_caches(&clients).await;
    staff.put("/api/categories/1/", json!({"name": "Games"})).await;
    assert_list_on_both(&clients, "category renamed", contains("Games")).await;
    warm_caches(&clients).await;
    staff.patch("/api/products/1/", json!({"tags": ["added"]})).await;
    assert_list_on_both(&clients, "tag added to a product", contains("\"added\"")).await;
    warm_caches(&clients).await;
    let tags = staff.get("/api/tags/").await.json();
    let tag_id = tags.as_array().unwrap().iter().find(|tag| tag["name"] == "added").unwrap()["id"].clone();
    staff.put(&format!("/api/tags/{tag_id}/"), json!({"name": "renamed"})).await;
    assert_list_on_both(&clients, "tag renamed", contains("\"renamed\"")).await;
    warm_caches(&clients).await;
    staff.delete(&format!("/api/tags/{tag_id}/")).await;
    assert_list_on_both(&clients, "tag deleted", lacks("renamed")).await;

    // writes by other programs
    for (sql, text) in [
        ("insert into products (category_id, name, price) values (1, 'psql insert', 1)", "psql insert"),
        ("update products set name = 'psql update' where name = 'psql insert'", "psql update"),
        ("update products set description = 'psql bulk'", "psql bulk"),
        ("update categories set name = 'psql category'", "psql category"),
        ("update tags set name = 'psql tag' where id = 1", "psql tag"),
        ("begin; update products set name = 'psql commit' where id = 1; commit", "psql commit"),
        ("copy tags (name) from program 'echo unused'; update tags set name = 'psql copy' where id = 2", "psql copy"),
    ] {
        warm_caches(&clients).await;
        app.batch_execute(sql).await;
        assert_list_on_both(&clients, sql, contains(text)).await;
    }
    warm_caches(&clients).await;
    app.batch_execute("insert into product_tags select id, 1 from products on conflict do nothing").await;
    assert_list_on_both(&clients, "insert into product_tags", |list| {
        list.matches("psql tag").count() == list.matches("\"id\":").count()
    })
    .await;
    warm_caches(&clients).await;
    app.batch_execute("truncate product_tags").await;
    assert_list_on_both(&clients, "truncate product_tags", |list| !list.contains("psql tag")).await;
    warm_caches(&clients).await;
    app.batch_execute("truncate products cascade").await;
    assert_list_on_both(&clients, "truncate products", |list| list == "[]").await;
}

#[tokio::test]
async fn logical_replication_bumps_versions() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let user = app.create_user("ann").await;
    user.get("/api/products/").await;
    // the apply worker of a subscription runs in this mode, in which ordinary triggers do not fire
    app.batch_execute("set session_replication_role = replica").await;
    for (sql, text) in [
        ("update products set name = 'replicated' where id = 1", "replicated"),
        ("update categories set name = 'other category'", "other category"),
        ("update tags set name = 'other tag' where id = 1", "other tag"),
    ] {
        app.batch_execute(sql).await;
        assert!(user.get("/api/products/").await.text().contains(text), "{sql}");
    }
    app.batch_execute("truncate product_tags").await;
    assert!(!user.get("/api/products/").await.text().contains("other tag"));
    app.batch_execute("update users set is_active = false").await;
    assert_eq!(user.get("/api/products/").await.status, 401);
}

#[tokio::test]
async fn rollback_does_not_bump_version() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let user = app.create_user("ann").await;
    user.get("/api/products/").await;
    let version = "select version::text || token from catalogue_versions order by version desc limit 1";
    let before: String = app.query_scalar(version).await;
    app.batch_execute("begin; update products set name = 'never'; rollback").await;
    assert_eq!(app.query_scalar::<String>(version).await, before);
    let response = user.get("/api/products/").await;
    assert_eq!(response.header("cache-status"), "TestShop; hit; detail=memory");
    assert!(!response.text().contains("never"));
}

#[tokio::test]
async fn write_is_visible_only_after_commit() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let user = app.create_user("ann").await;
    user.get("/api/products/").await;
    app.batch_execute("begin; update products set name = 'Later'").await;
    let during = user.get("/api/products/").await;
    assert!(!during.text().contains("Later"));
    assert_eq!(during.header("cache-status"), "TestShop; hit; detail=memory", "an open transaction evicts nothing");
    app.batch_execute("commit").await;
    assert!(user.get("/api/products/").await.text().contains("Later"));
}

#[tokio::test]
async fn reads_include_acknowledged_writes_under_load() {
    let app = TestApp::spawn().await;
    app.seed_products(20).await;
    app.execute("update products set description = '0'", &[]).await;
    let other = app.start_instance().await;
    let staff = app.create_staff("sam").await;
    let acknowledged = Arc::new(AtomicI64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for number in 0..6 {
        let address = if number % 2 == 0 { app.server.address } else { other.address };
        let client =
            staff.on_instance(address).with_header("accept-encoding", if number % 3 == 0 { "identity" } else { "" });
        let (acknowledged, stop) = (Arc::clone(&acknowledged), Arc::clone(&stop));
        readers.push(tokio::spawn(async move {
            let mut reads = 0;
            while !stop.load(SeqCst) {
                let minimum = acknowledged.load(SeqCst);
                let list = client.get("/api/products/").await.json();
                let read: i64 = list[0]["description"].as_str().unwrap().parse().unwrap();
                assert!(read >= minimum, "{read} was read after {minimum} had been acknowledged");
                // each statement changes all products, so a list with two values mixes two states
                let products = list.as_array().unwrap();
                assert!(
                    products.iter().all(|product| product["description"] == products[0]["description"]),
                    "the list mixes two states"
                );
                reads += 1;
            }
            reads
        }));
    }
    for write in 1..=150 {
        if write % 3 == 0 {
            // writes through the API do not disturb the other reads
            staff.on_instance(other.address).patch("/api/products/2/", json!({"price": write})).await;
        }
        app.execute("update products set description = $1", &[&write.to_string()]).await;
        acknowledged.store(write, SeqCst);
    }
    stop.store(true, SeqCst);
    let mut reads = 0;
    for reader in readers {
        reads += reader.await.unwrap();
    }
    assert!(reads > 100, "{reads} reads");
}

#[tokio::test]
async fn client_disconnect_leaves_write_complete_or_absent() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    // the write waits for a lock while its client disconnects
    app.batch_execute("begin; select from categories where id = 1 for update").await;
    let request = {
        let staff = staff.clone();
        tokio::spawn(async move {
            let body = json!({"name": "Disconnected", "price": 1, "category_id": 1, "tags": ["disconnected"]});
            staff.post("/api/products/", body).await
        })
    };
    let lock_waiters =
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
    wait_until("the write waits for the lock", async || app.query_scalar::<i64>(lock_waiters).await > 0).await;
    request.abort();
    let _ = request.await;
    app.batch_execute("commit").await;
    wait_until("the write is complete", async || {
        let list = staff.get("/api/products/").await.json();
        list.as_array()
            .unwrap()
            .iter()
            .any(|product| product["name"] == "Disconnected" && product["tags"] == json!(["disconnected"]))
    })
    .await;
}
