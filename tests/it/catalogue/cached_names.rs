//! Categories and tags are served like the product list: from the cache, within the response budget.

use std::io::Read;

use flate2::read::GzDecoder;
use hyper::Method;
use serde_json::json;
use testshop::limits::Client;

use crate::harness::{TestApp, TestAppBuilder, wait_until};

const LISTS: [(&str, &str); 2] = [("/api/categories/", "%from categories%"), ("/api/tags/", "%from tags%")];
const MEMORY_HIT: &str = "TestShop; hit; detail=memory";

#[tokio::test]
async fn concurrent_requests_for_names_share_one_fill() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    app.batch_execute(
        "insert into tags (name) select 'tag ' || i from generate_series(1, 5000) i;
         insert into categories (name) select 'category ' || i from generate_series(1, 5000) i",
    )
    .await;
    let user = app.create_user("ann").await;
    user.get("/api/me/").await;
    for (path, statement) in LISTS {
        app.reset_statement_stats().await;
        let requests = (0..30).map(|_| {
            let user = user.clone();
            async move { user.get(path).await }
        });
        let responses = futures_util::future::join_all(requests).await;
        assert!(responses.iter().all(|response| response.status == 200 && response.body == responses[0].body));
        assert!(responses[0].json().as_array().unwrap().len() >= 5000, "{path}");
        let hit = user.get(path).await;
        assert_eq!(hit.header("cache-status"), MEMORY_HIT, "{path}");
        assert_eq!(app.statement_calls(statement).await, 1, "{path}: 31 requests");
    }
}

#[tokio::test]
async fn names_have_the_headers_of_the_product_list() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let other = app.start_instance().await;
    let user = app.create_user("ann").await;
    let gzip = user.with_header("accept-encoding", "gzip");
    for path in ["/api/categories/", "/api/tags/", "/api/categories/1/", "/api/tags/1/"] {
        let (identity, compressed) = (user.get(path).await, gzip.get(path).await);
        assert_eq!(compressed.header("content-encoding"), "gzip", "{path}");
        let mut decompressed = Vec::new();
        GzDecoder::new(&*compressed.body).read_to_end(&mut decompressed).unwrap();
        assert_eq!(decompressed, identity.body, "{path}");
        for (client, response) in [(&user, &identity), (&gzip, &compressed)] {
            let etag = response.header("etag");
            assert!(etag.starts_with('"'), "{path}: a strong tag: {etag}");
            assert_eq!(client.on_instance(other.address).get(path).await.header("etag"), etag, "{path}");
            let not_modified = client.with_header("if-none-match", etag).get(path).await;
            assert_eq!((not_modified.status.as_u16(), not_modified.body.len()), (304, 0), "{path}");
            let head = client.send(Method::HEAD, path, None).await;
            assert_eq!((head.status.as_u16(), head.header("etag"), head.body.len()), (200, etag, 0), "{path}");
            assert_eq!(head.header("content-length"), response.body.len().to_string(), "{path}");
            for response in [response, &not_modified, &head] {
                assert_eq!(response.header("cache-control"), "private, no-cache", "{path}");
                assert_eq!(response.header("vary"), "Accept-Encoding, Authorization", "{path}");
                assert!(response.header("cache-status").starts_with("TestShop; "), "{path}");
            }
        }
        assert_ne!(identity.header("etag"), compressed.header("etag"), "{path}");
        assert_eq!(user.with_header("if-none-match", compressed.header("etag")).get(path).await.status, 200, "{path}");
    }
    assert_eq!(app.metric("testshop_cache_compressions_total").await, 4.0);
}

#[tokio::test]
async fn names_are_fresh_on_all_instances() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let other = app.start_instance().await;
    let staff = app.create_staff("sam").await;
    let instances = [staff.clone(), staff.on_instance(other.address)];
    for (collection, table) in [("/api/categories/", "categories"), ("/api/tags/", "tags")] {
        let row = format!("{collection}1/");
        for (number, client) in instances.iter().enumerate() {
            client.get(collection).await;
            client.get(&row).await;
            instances[1 - number].patch(&row, json!({"name": format!("api {number}")})).await;
            assert_eq!(client.get(collection).await.json()[0]["name"], format!("api {number}"));
            assert_eq!(client.get(&row).await.json()["name"], format!("api {number}"));
            app.execute(&format!("update {table} set name = 'sql {number}' where id = 1"), &[]).await;
            assert_eq!(client.get(collection).await.json()[0]["name"], format!("sql {number}"));
            assert_eq!(client.get(&row).await.json()["name"], format!("sql {number}"));
        }
    }
}

#[tokio::test]
async fn oversized_names_are_streamed_complete_and_fresh() {
    let app = TestAppBuilder::default().with("cache-entry-bytes", 10_000).spawn().await;
    app.batch_execute("insert into tags (name) select 'tag ' || i from generate_series(1, 5000) i").await;
    let user = app.create_user("ann").await;
    for _ in 0..2 {
        let response = user.get("/api/tags/").await;
        assert_eq!(response.header("cache-status"), "TestShop; fwd=miss; detail=streamed");
        assert_eq!(response.json().as_array().unwrap().len(), 5000);
        let again = user.with_header("if-none-match", response.header("etag")).get("/api/tags/").await;
        assert_eq!(again.status, 304);
        // the complete lists of two collections at the same version have different tags
        assert_ne!(user.get("/api/categories/").await.header("etag"), response.header("etag"));
    }
    app.execute("update tags set name = 'Fresh' where id = 5000", &[]).await;
    assert_eq!(user.get("/api/tags/").await.json()[4999]["name"], "Fresh");
    app.execute("delete from tags where id > 10", &[]).await;
    user.get("/api/tags/").await;
    wait_until("the list is cached", async || user.get("/api/tags/").await.header("cache-status") == MEMORY_HIT).await;
}

#[tokio::test]
async fn names_count_towards_response_budget() {
    // the list does not fit into memory, so a response cannot be copied from there
    let app = TestAppBuilder::default().with("cache-bytes", 0).with("redis-url", "").spawn().await;
    app.batch_execute("insert into tags (name) select repeat('x', 90) || i from generate_series(1, 1000) i").await;
    let (ann, bob) = (app.create_user("ann").await, app.create_user("bob").await);
    let id = ann.user_id().await;
    let large_body = vec![b' '; 64 << 20].into();
    let reservation = app.server.app.response_budget.reserve(Client::new(id, None), &large_body).unwrap();
    assert_eq!(ann.get("/api/tags/").await.status, 503);
    drop(reservation);
    assert_eq!(ann.get("/api/tags/").await.status, 200);
    assert_eq!(bob.get("/api/tags/").await.status, 200);
}
