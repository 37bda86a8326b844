//! The promise: a read that starts after a write was acknowledged, by whatever way, never shows an older state. And what
//! a hit costs.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::json;

use crate::harness::{TestApp, TestAppBuilder, TestClient, required_env};

/// Both instances show this in their very next list, whether they have it cached or not.
async fn both_show(callers: &[TestClient; 2], what: &str, holds: impl Fn(&str) -> bool) {
    for (number, caller) in callers.iter().enumerate() {
        let list = caller.get("/api/products/").await;
        assert!(holds(&list.text()), "{what}, instance {number}: {}", list.text());
    }
}

async fn warm(callers: &[TestClient; 2]) {
    for caller in callers {
        caller.get("/api/products/").await;
        let hit = caller.get("/api/products/").await;
        assert!(hit.header("cache-status").starts_with("TestShop; hit"), "{}", hit.header("cache-status"));
    }
}

#[tokio::test]
async fn all_writes_are_visible_in_next_list_on_all_instances() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let other = app.start_instance().await;
    let staff = app.create_staff("sam").await;
    let callers = [staff.clone(), staff.on_instance(other.address)];
    let there = |text: &'static str| move |list: &str| list.contains(text);
    let gone = |text: &'static str| move |list: &str| !list.contains(text);

    warm(&callers).await;
    staff.post("/api/products/", json!({"name": "Created", "price": 1, "category_id": 1})).await;
    both_show(&callers, "create", there("Created")).await;
    warm(&callers).await;
    callers[1].patch("/api/products/1/", json!({"name": "Changed"})).await;
    both_show(&callers, "update, through the other instance", there("Changed")).await;
    warm(&callers).await;
    staff.delete("/api/products/2/").await;
    both_show(&callers, "delete", gone("Product 2")).await;
    warm(&callers).await;
    staff.put("/api/categories/1/", json!({"name": "Games"})).await;
    both_show(&callers, "category renamed", there("Games")).await;
    warm(&callers).await;
    staff.patch("/api/products/1/", json!({"tags": ["added"]})).await;
    both_show(&callers, "tag added to a product", there("\"added\"")).await;
    warm(&callers).await;
    let tags = staff.get("/api/tags/").await.json();
    let added = tags.as_array().unwrap().iter().find(|tag| tag["name"] == "added").unwrap()["id"].clone();
    staff.put(&format!("/api/tags/{added}/"), json!({"name": "renamed"})).await;
    both_show(&callers, "tag renamed", there("\"renamed\"")).await;
    warm(&callers).await;
    staff.delete(&format!("/api/tags/{added}/")).await;
    both_show(&callers, "tag deleted", gone("renamed")).await;

    // somebody who has never heard of the shop
    for (sql, what) in [
        ("insert into products (category_id, name, price) values (1, 'psql insert', 1)", "psql insert"),
        ("update products set name = 'psql update' where name = 'psql insert'", "psql update"),
        ("update products set description = 'psql bulk'", "psql bulk"),
        ("update categories set name = 'psql category'", "psql category"),
        ("update tags set name = 'psql tag' where id = 1", "psql tag"),
        ("begin; update products set name = 'psql commit' where id = 1; commit", "psql commit"),
        ("copy tags (name) from program 'echo unused'; update tags set name = 'psql copy' where id = 2", "psql copy"),
    ] {
        warm(&callers).await;
        app.batch_execute(sql).await;
        both_show(&callers, sql, there(what)).await;
    }
    warm(&callers).await;
    app.batch_execute("insert into product_tags select id, 1 from products on conflict do nothing").await;
    both_show(&callers, "links", |list| list.matches("psql tag").count() == list.matches("\"id\":").count()).await;
    warm(&callers).await;
    app.batch_execute("truncate product_tags").await;
    both_show(&callers, "truncate links", |list| !list.contains("psql tag")).await;
    warm(&callers).await;
    app.batch_execute("truncate products cascade").await;
    both_show(&callers, "truncate", |list| list == "[]").await;
}

#[tokio::test]
async fn logical_replication_bumps_versions() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let user = app.create_user("ann").await;
    user.get("/api/products/").await;
    // as the apply worker of a subscription runs: ordinary triggers stay silent
    app.batch_execute("set session_replication_role = replica").await;
    for (sql, what) in [
        ("update products set name = 'replicated' where id = 1", "replicated"),
        ("update categories set name = 'other category'", "other category"),
        ("update tags set name = 'other tag' where id = 1", "other tag"),
    ] {
        app.batch_execute(sql).await;
        assert!(user.get("/api/products/").await.text().contains(what), "{sql}");
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
    let version = "select version::text || token from versions where name = 'catalogue'";
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
    assert_eq!(
        during.header("cache-status"),
        "TestShop; hit; detail=memory",
        "and an open write costs nobody the cache"
    );
    app.batch_execute("commit").await;
    assert!(user.get("/api/products/").await.text().contains("Later"));
}

#[tokio::test]
async fn cache_hit_reads_no_rows_and_does_not_call_redis() {
    let app = TestApp::spawn().await;
    app.seed_products(10).await;
    let user = app.create_user("ann").await;
    app.reset_statement_stats().await;
    let miss = user.get("/api/products/").await;
    assert_eq!(miss.header("cache-status"), "TestShop; fwd=miss; stored");
    assert_eq!(app.statement_calls("%from products%").await, 1, "a miss costs one statement for the rows");
    assert_eq!(app.statement_calls("%from product_tags%").await, 1, "the same one");
    crate::harness::wait_until("the fill is shared", async || app.metric("testshop_redis_calls_total").await >= 2.0)
        .await;

    app.reset_statement_stats().await;
    let redis = app.metric("testshop_redis_calls_total").await;
    for _ in 0..20 {
        let hit = user.get("/api/products/").await;
        assert_eq!(hit.header("cache-status"), "TestShop; hit; detail=memory");
        assert_eq!(hit.body, miss.body);
    }
    assert_eq!(app.statement_calls("%product%").await, 0);
    assert_eq!(app.statement_calls("%users%").await, 0);
    assert_eq!(app.metric("testshop_redis_calls_total").await, redis);
    let reads = app.statement_calls("%from versions catalogue%").await;
    assert!((20..=24).contains(&reads), "one version read each, and a heartbeat at most: {reads}");
}

#[tokio::test]
async fn concurrent_requests_share_version_reads() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let user = app.create_user("ann").await;
    user.get("/api/products/").await;
    app.reset_statement_stats().await;
    // held up by a lock, all that arrive share the reads that follow
    app.batch_execute("begin; lock table versions in access exclusive mode").await;
    let reading = (0..100).map(|_| {
        let user = user.clone();
        async move { user.get("/api/products/").await.status.as_u16() }
    });
    let release = async {
        let asked = "testshop_http_connections";
        crate::harness::wait_until("all have arrived", async || app.metric(asked).await >= 100.0).await;
        app.batch_execute("commit").await;
    };
    let (statuses, ()) = tokio::join!(futures_util::future::join_all(reading), release);
    assert!(statuses.iter().all(|status| *status == 200));
    let reads = app.statement_calls("%from versions catalogue%").await;
    assert!(reads <= 6, "{reads} reads for 100 requests");
}

#[tokio::test]
async fn concurrent_misses_are_coalesced() {
    let app = TestApp::spawn().await;
    app.seed_products(2000).await;
    let user = app.create_user("ann").await;
    user.get("/api/me/").await;
    app.reset_statement_stats().await;
    let reading = (0..50).map(|_| {
        let user = user.clone();
        async move { user.get("/api/products/").await }
    });
    let responses = futures_util::future::join_all(reading).await;
    assert!(responses.iter().all(|response| response.status == 200 && response.body == responses[0].body));
    assert_eq!(app.statement_calls("%from products p%").await, 1);
}

#[tokio::test]
async fn redis_entry_is_shared_across_instances() {
    let app = TestApp::spawn().await;
    app.seed_products(100).await;
    let other = app.start_instance().await;
    let user = app.create_user("ann").await;
    app.reset_statement_stats().await;
    let first = user.get("/api/products/").await;
    let mut second = user.on_instance(other.address).get("/api/products/").await;
    // the first instance shares its entry after it has answered
    if second.header("cache-status") == "TestShop; fwd=miss; stored" {
        app.execute("update products set name = name", &[]).await;
        user.get("/api/products/").await;
        crate::harness::wait_until("it is shared", async || app.metric("testshop_redis_calls_total").await >= 4.0)
            .await;
        second = user.on_instance(other.address).get("/api/products/").await;
    }
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
    let (plain, packed) = (user.get("/api/products/").await, gzip.get("/api/products/").await);
    assert_eq!((plain.header("content-encoding"), packed.header("content-encoding")), ("", "gzip"));
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&*packed.body).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    assert!(packed.body.len() < plain.body.len() / 3);
    assert_ne!(plain.header("etag"), packed.header("etag"));
    assert!(plain.header("etag").starts_with('"'), "strong");
    assert_eq!(gzip.on_instance(other.address).get("/api/products/").await.header("etag"), packed.header("etag"));

    // a change and its opposite: the same bytes under another version
    app.execute("update products set name = 'x' where id = 1", &[]).await;
    assert_ne!(user.get("/api/products/").await.header("etag"), plain.header("etag"));
    app.execute("update products set name = 'Product 1' where id = 1", &[]).await;
    assert_eq!(user.on_instance(other.address).get("/api/products/").await.header("etag"), plain.header("etag"));

    for (caller, etag) in [(&user, plain.header("etag")), (&gzip, packed.header("etag"))] {
        for condition in [etag, &format!("\"x\", W/{etag}"), "*"] {
            let response = caller.with_header("if-none-match", condition).get("/api/products/").await;
            assert_eq!((response.status.as_u16(), response.body.len()), (304, 0), "{condition}");
            assert_eq!(response.header("etag"), etag);
            assert_eq!(response.header("cache-control"), "private, no-cache");
            assert_eq!(response.header("vary"), "Accept-Encoding, Authorization");
            assert!(response.header("cache-status").starts_with("TestShop; "));
        }
    }
    assert_eq!(user.with_header("if-none-match", packed.header("etag")).get("/api/products/").await.status, 200);
    for refused in ["identity", "gzip;q=0", "*;q=0", "gzip;q=0, *"] {
        let response = user.with_header("accept-encoding", refused).get("/api/products/").await;
        assert_eq!(response.header("content-encoding"), "", "{refused}");
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
async fn every_cache_mode_is_fresh_and_reports_cache_status() {
    for (mode, second) in [
        ("off", "TestShop; fwd=bypass"),
        ("redis", "TestShop; hit; detail=redis"),
        ("full", "TestShop; hit; detail=memory"),
    ] {
        let app = TestAppBuilder::default().with("cache-mode", mode).spawn().await;
        app.seed_products(5).await;
        let user = app.create_user("ann").await;
        let first = user.get("/api/products/").await;
        crate::harness::wait_until("the layer is warm", async || {
            user.get("/api/products/").await.header("cache-status") == second
        })
        .await;
        assert_eq!(user.get("/api/products/").await.body, first.body, "{mode}");
        app.execute("update products set name = 'Fresh'", &[]).await;
        assert!(user.get("/api/products/").await.text().contains("Fresh"), "{mode}");
        let gzip = user.with_header("accept-encoding", "gzip").get("/api/products/").await;
        assert_eq!(gzip.header("content-encoding"), "gzip", "{mode}");
    }
}

#[tokio::test]
async fn oversized_list_is_streamed_complete_and_fresh() {
    let app = TestAppBuilder::default().with("cache-entry-bytes", 100_000).spawn().await;
    app.seed_products(5000).await;
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
    // once it has shrunk it is kept again
    app.execute("delete from products where id > 10", &[]).await;
    user.get("/api/products/").await;
    crate::harness::wait_until("it is kept", async || {
        user.get("/api/products/").await.header("cache-status") == "TestShop; hit; detail=memory"
    })
    .await;
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
        let caller =
            staff.on_instance(address).with_header("accept-encoding", if number % 3 == 0 { "identity" } else { "" });
        let (acknowledged, stop) = (Arc::clone(&acknowledged), Arc::clone(&stop));
        readers.push(tokio::spawn(async move {
            let mut reads = 0;
            while !stop.load(SeqCst) {
                let least = acknowledged.load(SeqCst);
                let list = caller.get("/api/products/").await.json();
                let shown: i64 = list[0]["description"].as_str().unwrap().parse().unwrap();
                assert!(shown >= least, "{shown} was shown when {least} had been acknowledged");
                // one statement wrote all: rows of two states would be a torn list
                let all = list.as_array().unwrap();
                assert!(all.iter().all(|product| product["description"] == all[0]["description"]), "a torn list");
                reads += 1;
            }
            reads
        }));
    }
    for write in 1..=150 {
        if write % 3 == 0 {
            // through the API as well; it may not disturb what the others see
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
    // the write waits behind a lock while its client goes away
    app.batch_execute("begin; select from categories where id = 1 for update").await;
    let leaving = {
        let staff = staff.clone();
        tokio::spawn(async move {
            staff.post("/api/products/", json!({"name": "Left", "price": 1, "category_id": 1, "tags": ["left"]})).await
        })
    };
    let waiting =
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
    crate::harness::wait_until("the write waits", async || app.query_scalar::<i64>(waiting).await > 0).await;
    leaving.abort();
    let _ = leaving.await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    app.batch_execute("commit").await;
    crate::harness::wait_until("the write is whole", async || {
        staff
            .get("/api/products/")
            .await
            .json()
            .as_array()
            .unwrap()
            .iter()
            .any(|product| product["name"] == "Left" && product["tags"] == json!(["left"]))
    })
    .await;
}

#[tokio::test]
async fn garbage_in_redis_is_a_miss() {
    let app = TestApp::spawn().await;
    app.seed_products(5).await;
    let user = app.create_user("ann").await;
    let expected = user.get("/api/products/").await;
    let client = redis::Client::open(required_env("REDIS_URL")).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let pattern = format!("{}:list:*", app.setting("redis-prefix"));
    let mut keys: Vec<String> = Vec::new();
    crate::harness::wait_until("the entry is shared", async || {
        let found: Vec<String> = redis::cmd("KEYS").arg(&pattern).query_async(&mut redis.clone()).await.unwrap();
        found.iter().any(|key| !key.ends_with(":lock"))
    })
    .await;
    keys.extend(redis::cmd("KEYS").arg(&pattern).query_async::<Vec<String>>(&mut redis).await.unwrap());
    for key in &keys {
        redis::cmd("SET").arg(key).arg("garbage").query_async::<()>(&mut redis).await.unwrap();
    }
    let other = app.start_instance().await;
    let response = user.on_instance(other.address).get("/api/products/").await;
    assert_eq!((response.status.as_u16(), &response.body), (200, &expected.body));
}
