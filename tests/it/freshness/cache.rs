//! How lists are cached: what hits and misses cost, ETags, encodings, cache modes and invalid entries.

use std::{io::Read, time::Instant};

use flate2::bufread::GzDecoder;
use serde_json::json;

use super::redis_values::{connect_to_redis, wait_for_redis_entries};
use crate::harness::{TestApp, TestAppBuilder, wait_until};

/// The statement that reads the versions.
const VERSION_READ: &str = "%from catalogue_versions%accounts_versions%";

/// Returns the maximum number of version reads since `start` that no request has caused: each of the server's two
/// readers sends one when it has been idle for 5 s.
fn max_heartbeats(start: Instant) -> i64 {
    2 * (1 + start.elapsed().as_secs().cast_signed() / 5)
}

#[tokio::test]
async fn cache_hit_reads_no_rows_and_does_not_call_redis() {
    let app = TestApp::spawn().await;
    app.seed_products(10).await;
    let user = app.create_user("ann").await;
    app.reset_statement_stats().await;
    let miss = user.get("/api/products/").await;
    assert_eq!(miss.header("cache-status"), "TestShop; fwd=miss; stored");
    assert_eq!(app.statement_calls("%from products%").await, 1, "a miss reads the rows in one statement");
    assert_eq!(app.statement_calls("%from product_tags%").await, 1, "the same statement reads the tags");
    wait_until("the entry is in Redis", async || app.metric("testshop_redis_calls_total").await >= 2.0).await;

    let start = Instant::now();
    app.reset_statement_stats().await;
    let redis_calls = app.metric("testshop_redis_calls_total").await;
    for _ in 0..20 {
        let hit = user.get("/api/products/").await;
        assert_eq!(hit.header("cache-status"), "TestShop; hit; detail=memory");
        assert_eq!(hit.body, miss.body);
    }
    assert_eq!(app.statement_calls("%product%").await, 0);
    assert_eq!(app.statement_calls("%users%").await, 0);
    assert_eq!(app.metric("testshop_redis_calls_total").await, redis_calls);
    let reads = app.statement_calls(VERSION_READ).await;
    let maximum = 20 + max_heartbeats(start);
    assert!((20..=maximum).contains(&reads), "each request causes one version read: {reads}");
}

#[tokio::test]
async fn concurrent_requests_share_version_reads() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let user = app.create_user("ann").await;
    user.get("/api/products/").await;
    let start = Instant::now();
    app.reset_statement_stats().await;
    // version reads wait for this lock, and the requests that arrive meanwhile share the next ones
    app.batch_execute("begin; lock table catalogue_versions in access exclusive mode").await;
    let requests = (0..100).map(|_| {
        let user = user.clone();
        async move { user.get("/api/products/").await.status.as_u16() }
    });
    let release = async {
        let connections = "testshop_http_connections";
        wait_until("all clients are connected", async || app.metric(connections).await >= 100.0).await;
        app.batch_execute("commit").await;
    };
    let (statuses, ()) = tokio::join!(futures_util::future::join_all(requests), release);
    assert!(statuses.iter().all(|status| *status == 200));
    let reads = app.statement_calls(VERSION_READ).await;
    assert!(reads <= 6 + max_heartbeats(start), "{reads} reads for 100 requests");
}

#[tokio::test]
async fn concurrent_misses_are_coalesced() {
    let app = TestApp::spawn().await;
    app.seed_products(2000).await;
    let user = app.create_user("ann").await;
    user.get("/api/me/").await;
    app.reset_statement_stats().await;
    let requests = (0..50).map(|_| {
        let user = user.clone();
        async move { user.get("/api/products/").await }
    });
    let responses = futures_util::future::join_all(requests).await;
    assert!(responses.iter().all(|response| response.status == 200 && response.body == responses[0].body));
    assert_eq!(app.statement_calls("%from products p%").await, 1);
}

#[tokio::test]
async fn redis_entry_is_shared_across_instances() {
    let app = TestApp::spawn().await;
    app.seed_products(100).await;
    let other = app.start_instance().await;
    let user = app.create_user("ann").await;
    let first = user.get("/api/products/").await;
    // the first instance stores the entry in Redis after it has sent the response
    wait_for_redis_entries(&app, &connect_to_redis().await).await;
    let second = user.on_instance(other.address).get("/api/products/").await;
    assert_eq!(second.header("cache-status"), "TestShop; hit; detail=redis");
    assert_eq!((second.body.clone(), second.header("etag")), (first.body.clone(), first.header("etag")));
}

#[tokio::test]
async fn etags_match_across_instances_and_differ_by_encoding() {
    let app = TestApp::spawn().await;
    app.seed_products(50).await;
    let other = app.start_instance().await;
    let user = app.create_user("ann").await;
    let gzip = user.with_header("accept-encoding", "br;q=1, gzip;q=0.5");
    let (identity, compressed) = (user.get("/api/products/").await, gzip.get("/api/products/").await);
    assert_eq!((identity.header("content-encoding"), compressed.header("content-encoding")), ("", "gzip"));
    let mut decompressed = Vec::new();
    flate2::read::GzDecoder::new(&*compressed.body).read_to_end(&mut decompressed).unwrap();
    assert_eq!(decompressed, identity.body);
    assert!(compressed.body.len() < identity.body.len() / 3);
    assert_ne!(identity.header("etag"), compressed.header("etag"));
    assert!(identity.header("etag").starts_with('"'), "a strong ETag");
    assert_eq!(gzip.on_instance(other.address).get("/api/products/").await.header("etag"), compressed.header("etag"));

    // after a change was reverted, the list has the same bytes and another version
    app.execute("update products set name = 'x' where id = 1", &[]).await;
    assert_ne!(user.get("/api/products/").await.header("etag"), identity.header("etag"));
    app.execute("update products set name = 'Product 1' where id = 1", &[]).await;
    assert_eq!(user.on_instance(other.address).get("/api/products/").await.header("etag"), identity.header("etag"));

    for (client, etag) in [(&user, identity.header("etag")), (&gzip, compressed.header("etag"))] {
        for condition in [etag, &format!("\"x\", W/{etag}"), "*"] {
            let response = client.with_header("if-none-match", condition).get("/api/products/").await;
            assert_eq!((response.status.as_u16(), response.body.len()), (304, 0), "{condition}");
            assert_eq!(response.header("etag"), etag);
            assert_eq!(response.header("cache-control"), "private, no-cache");
            assert_eq!(response.header("vary"), "Accept-Encoding, Authorization");
            assert!(response.header("cache-status").starts_with("TestShop; "));
        }
    }
    assert_eq!(user.with_header("if-none-match", compressed.header("etag")).get("/api/products/").await.status, 200);
    for accepted in ["identity", "gzip;q=0", "*;q=0", "gzip;q=0, *"] {
        let response = user.with_header("accept-encoding", accepted).get("/api/products/").await;
        assert_eq!(response.header("content-encoding"), "", "{accepted}");
    }
}

#[tokio::test]
async fn list_is_compressed_once_per_version() {
    let app = TestApp::spawn().await;
    app.seed_products(500).await;
    let gzip = app.create_user("ann").await.with_header("accept-encoding", "gzip");
    for _ in 0..10 {
        gzip.get("/api/products/").await;
    }
    assert_eq!(app.metric("testshop_cache_compressions_total").await, 1.0);
    assert_eq!(app.metric("testshop_cache_fills_total").await, 1.0);
}

#[tokio::test]
async fn changed_list_is_compressed_when_a_client_accepts_gzip() {
    for products in [500, 2_000] {
        let app = TestApp::spawn().await;
        app.seed_products(products).await;
        let staff = app.create_staff("sam").await;
        let gzip = staff.with_header("accept-encoding", "gzip");
        let compressions = async || app.metric("testshop_cache_compressions_total").await;
        assert_eq!(staff.get("/api/products/").await.status, 200);
        assert_eq!(compressions().await, 1.0, "all chunks, while they are loaded");
        for price in 1..4 {
            assert_eq!(staff.patch("/api/products/7/", json!({"price": price})).await.status, 200);
            assert_eq!(
                staff.get("/api/products/").await.json()[6]["price"].as_f64(),
                Some(f64::from(price)),
                "{products} products"
            );
        }
        assert_eq!(compressions().await, 1.0, "no client has accepted gzip");
        let identity = staff.get("/api/products/").await;
        for _ in 0..3 {
            let compressed = gzip.get("/api/products/").await;
            let mut json = Vec::new();
            GzDecoder::new(&compressed.body[..]).read_to_end(&mut json).unwrap();
            assert!(json == identity.body, "{products} products");
        }
        assert_eq!(compressions().await, 2.0, "{products} products");
    }
}

#[tokio::test]
async fn every_cache_mode_is_fresh_and_reports_cache_status() {
    for (mode, hit) in [
        ("off", "TestShop; fwd=bypass"),
        ("redis", "TestShop; hit; detail=redis"),
        ("full", "TestShop; hit; detail=memory"),
    ] {
        let app = TestAppBuilder::default().with("cache-mode", mode).spawn().await;
        app.seed_products(5).await;
        let user = app.create_user("ann").await;
        let first = user.get("/api/products/").await;
        wait_until("the list is cached", async || user.get("/api/products/").await.header("cache-status") == hit).await;
        assert_eq!(user.get("/api/products/").await.body, first.body, "{mode}");
        app.execute("update products set name = 'Fresh'", &[]).await;
        assert!(user.get("/api/products/").await.text().contains("Fresh"), "{mode}");
        let gzip = user.with_header("accept-encoding", "gzip").get("/api/products/").await;
        assert_eq!(gzip.header("content-encoding"), "gzip", "{mode}");
    }
}

#[tokio::test]
async fn oversized_list_is_compressed_in_memory() {
    let app = TestAppBuilder::default().with("cache-entry-bytes", 100_000).spawn().await;
    app.seed_products(5000).await;
    let user = app.create_user("ann").await;
    let first = user.get("/api/products/").await;
    assert_eq!(first.header("cache-status"), "TestShop; fwd=miss; stored");
    assert_eq!(first.json().as_array().unwrap().len(), 5000);
    app.reset_statement_stats().await;
    let all_products = "%pt on pt.product_id = p.id%";
    for encoding in ["identity", "gzip"] {
        let list = user.with_header("accept-encoding", encoding).get("/api/products/").await;
        assert_eq!(list.header("cache-status"), "TestShop; hit; detail=memory");
        let mut json = Vec::new();
        let _ = GzDecoder::new(&*list.body).read_to_end(&mut json);
        assert!(list.body == first.body || json == first.body, "{encoding}");
        let again = user.with_header("accept-encoding", encoding).with_header("if-none-match", list.header("etag"));
        assert_eq!(again.get("/api/products/").await.status, 304);
    }
    let bytes = app.metric("testshop_cache_bytes").await;
    #[expect(clippy::cast_precision_loss)]
    let json_bytes = first.body.len() as f64;
    assert!(bytes > json_bytes / 50.0 && bytes < json_bytes / 4.0, "{bytes} bytes for {json_bytes}");
    app.execute("update products set name = 'Fresh' where id = 5000", &[]).await;
    assert_eq!(user.get("/api/products/").await.json()[4999]["name"], "Fresh");
    assert_eq!(app.statement_calls(all_products).await, 0);
    // a list that has shrunk has its JSON in memory again
    app.execute("delete from products where id > 10", &[]).await;
    assert_eq!(user.get("/api/products/").await.json().as_array().unwrap().len(), 10);
}

#[tokio::test]
async fn list_larger_than_memory_is_streamed_complete_and_fresh() {
    let builder = TestAppBuilder::default().with("cache-bytes", 1 << 20).with("cache-entry-bytes", 100_000);
    let app = builder.spawn().await;
    app.seed_products(5000).await;
    // compressed it has more than half of the cache
    let text = "select string_agg(md5(id::text || i), '') from generate_series(1, 10) i";
    app.execute(&format!("update products set description = ({text})"), &[]).await;
    let user = app.create_user("ann").await;
    for _ in 0..2 {
        let response = user.get("/api/products/").await;
        assert_eq!(response.header("cache-status"), "TestShop; fwd=miss; detail=streamed");
        assert_eq!(response.json().as_array().unwrap().len(), 5000);
        let again = user.with_header("if-none-match", response.header("etag")).get("/api/products/").await;
        assert_eq!(again.status, 304);
    }
    app.execute("update products set name = 'Fresh' where id = 5000", &[]).await;
    assert_eq!(user.get("/api/products/").await.json()[4999]["name"], "Fresh");
    assert_eq!(app.metric("testshop_cache_bytes").await, 0.0);
    // a list that has shrunk is cached again
    app.execute("delete from products where id > 10", &[]).await;
    user.get("/api/products/").await;
    wait_until("the list is cached", async || {
        user.get("/api/products/").await.header("cache-status") == "TestShop; hit; detail=memory"
    })
    .await;
}
