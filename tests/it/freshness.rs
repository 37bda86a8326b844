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

use crate::harness::{Caller, Plan, Shop, needed};

/// Both instances show this in their very next list, whether they have it cached or not.
async fn both_show(callers: &[Caller; 2], what: &str, holds: impl Fn(&str) -> bool) {
    for (number, caller) in callers.iter().enumerate() {
        let list = caller.get("/api/products/").await;
        assert!(holds(&list.text()), "{what}, instance {number}: {}", list.text());
    }
}

async fn warm(callers: &[Caller; 2]) {
    for caller in callers {
        caller.get("/api/products/").await;
        let hit = caller.get("/api/products/").await;
        assert!(hit.header("cache-status").starts_with("TestShop; hit"), "{}", hit.header("cache-status"));
    }
}

#[tokio::test]
async fn every_cause_of_staleness_is_seen_in_the_very_next_list_of_every_instance() {
    let shop = Shop::open().await;
    shop.stock(3).await;
    let other = shop.another_instance().await;
    let staff = shop.staff("sam").await;
    let callers = [staff.clone(), staff.at(other.address)];
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
        shop.script(sql).await;
        both_show(&callers, sql, there(what)).await;
    }
    warm(&callers).await;
    shop.script("insert into product_tags select id, 1 from products on conflict do nothing").await;
    both_show(&callers, "links", |list| list.matches("psql tag").count() == list.matches("\"id\":").count()).await;
    warm(&callers).await;
    shop.script("truncate product_tags").await;
    both_show(&callers, "truncate links", |list| !list.contains("psql tag")).await;
    warm(&callers).await;
    shop.script("truncate products cascade").await;
    both_show(&callers, "truncate", |list| list == "[]").await;
}

#[tokio::test]
async fn rows_that_arrive_by_replication_count_like_any_other() {
    let shop = Shop::open().await;
    shop.stock(2).await;
    let user = shop.user("ann").await;
    user.get("/api/products/").await;
    // as the apply worker of a subscription runs: ordinary triggers stay silent
    shop.script("set session_replication_role = replica").await;
    for (sql, what) in [
        ("update products set name = 'replicated' where id = 1", "replicated"),
        ("update categories set name = 'other category'", "other category"),
        ("update tags set name = 'other tag' where id = 1", "other tag"),
    ] {
        shop.script(sql).await;
        assert!(user.get("/api/products/").await.text().contains(what), "{sql}");
    }
    shop.script("truncate product_tags").await;
    assert!(!user.get("/api/products/").await.text().contains("other tag"));
    shop.script("update users set is_active = false").await;
    assert_eq!(user.get("/api/products/").await.status, 401);
}

#[tokio::test]
async fn a_write_that_was_rolled_back_moves_nothing() {
    let shop = Shop::open().await;
    shop.stock(2).await;
    let user = shop.user("ann").await;
    user.get("/api/products/").await;
    let version = "select version::text || token from versions where name = 'catalogue'";
    let before: String = shop.value(version).await;
    shop.script("begin; update products set name = 'never'; rollback").await;
    assert_eq!(shop.value::<String>(version).await, before);
    let answer = user.get("/api/products/").await;
    assert_eq!(answer.header("cache-status"), "TestShop; hit; detail=memory");
    assert!(!answer.text().contains("never"));
}

#[tokio::test]
async fn a_write_is_invisible_until_its_commit_and_visible_after() {
    let shop = Shop::open().await;
    shop.stock(1).await;
    let user = shop.user("ann").await;
    user.get("/api/products/").await;
    shop.script("begin; update products set name = 'Later'").await;
    let during = user.get("/api/products/").await;
    assert!(!during.text().contains("Later"));
    assert_eq!(
        during.header("cache-status"),
        "TestShop; hit; detail=memory",
        "and an open write costs nobody the cache"
    );
    shop.script("commit").await;
    assert!(user.get("/api/products/").await.text().contains("Later"));
}

#[tokio::test]
async fn a_hit_costs_no_row_query_and_no_call_to_redis() {
    let shop = Shop::open().await;
    shop.stock(10).await;
    let user = shop.user("ann").await;
    shop.forget_calls().await;
    let miss = user.get("/api/products/").await;
    assert_eq!(miss.header("cache-status"), "TestShop; fwd=miss; stored");
    assert_eq!(shop.calls("%from products%").await, 1, "a miss costs one statement for the rows");
    assert_eq!(shop.calls("%from product_tags%").await, 1, "the same one");
    crate::harness::until("the fill is shared", async || shop.metric("testshop_redis_calls_total").await >= 2.0).await;

    shop.forget_calls().await;
    let redis = shop.metric("testshop_redis_calls_total").await;
    for _ in 0..20 {
        let hit = user.get("/api/products/").await;
        assert_eq!(hit.header("cache-status"), "TestShop; hit; detail=memory");
        assert_eq!(hit.body, miss.body);
    }
    assert_eq!(shop.calls("%product%").await, 0);
    assert_eq!(shop.calls("%users%").await, 0);
    assert_eq!(shop.metric("testshop_redis_calls_total").await, redis);
    let reads = shop.calls("%from versions catalogue%").await;
    assert!((20..=24).contains(&reads), "one version read each, and a heartbeat at most: {reads}");
}

#[tokio::test]
async fn version_reads_are_shared_by_all_that_wait() {
    let shop = Shop::open().await;
    shop.stock(1).await;
    let user = shop.user("ann").await;
    user.get("/api/products/").await;
    shop.forget_calls().await;
    // held up by a lock, all that arrive share the reads that follow
    shop.script("begin; lock table versions in access exclusive mode").await;
    let reading = (0..100).map(|_| {
        let user = user.clone();
        async move { user.get("/api/products/").await.status.as_u16() }
    });
    let release = async {
        let asked = "testshop_http_connections";
        crate::harness::until("all have arrived", async || shop.metric(asked).await >= 100.0).await;
        shop.script("commit").await;
    };
    let (statuses, ()) = tokio::join!(futures_util::future::join_all(reading), release);
    assert!(statuses.iter().all(|status| *status == 200));
    let reads = shop.calls("%from versions catalogue%").await;
    assert!(reads <= 6, "{reads} reads for 100 requests");
}

#[tokio::test]
async fn many_misses_at_once_cost_one_fill() {
    let shop = Shop::open().await;
    shop.stock(2000).await;
    let user = shop.user("ann").await;
    user.get("/api/me/").await;
    shop.forget_calls().await;
    let reading = (0..50).map(|_| {
        let user = user.clone();
        async move { user.get("/api/products/").await }
    });
    let answers = futures_util::future::join_all(reading).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    assert_eq!(shop.calls("%from products p%").await, 1);
}

#[tokio::test]
async fn one_instance_fills_what_the_others_serve() {
    let shop = Shop::open().await;
    shop.stock(100).await;
    let other = shop.another_instance().await;
    let user = shop.user("ann").await;
    shop.forget_calls().await;
    let first = user.get("/api/products/").await;
    let mut second = user.at(other.address).get("/api/products/").await;
    // the first instance shares its entry after it has answered
    if second.header("cache-status") == "TestShop; fwd=miss; stored" {
        shop.run("update products set name = name", &[]).await;
        user.get("/api/products/").await;
        crate::harness::until("it is shared", async || shop.metric("testshop_redis_calls_total").await >= 4.0).await;
        second = user.at(other.address).get("/api/products/").await;
    }
    assert_eq!(second.header("cache-status"), "TestShop; hit; detail=redis");
    assert_eq!((second.body.clone(), second.header("etag")), (first.body.clone(), first.header("etag")));
}

#[tokio::test]
async fn etags_are_equal_for_equal_bytes_everywhere_and_differ_by_encoding() {
    let shop = Shop::open().await;
    shop.stock(50).await;
    let other = shop.another_instance().await;
    let user = shop.user("ann").await;
    let gzip = user.with("accept-encoding", "br;q=1, gzip;q=0.5");
    let (plain, packed) = (user.get("/api/products/").await, gzip.get("/api/products/").await);
    assert_eq!((plain.header("content-encoding"), packed.header("content-encoding")), ("", "gzip"));
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&*packed.body).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    assert!(packed.body.len() < plain.body.len() / 3);
    assert_ne!(plain.header("etag"), packed.header("etag"));
    assert!(plain.header("etag").starts_with('"'), "strong");
    assert_eq!(gzip.at(other.address).get("/api/products/").await.header("etag"), packed.header("etag"));

    // a change and its opposite: the same bytes under another version
    shop.run("update products set name = 'x' where id = 1", &[]).await;
    assert_ne!(user.get("/api/products/").await.header("etag"), plain.header("etag"));
    shop.run("update products set name = 'Product 1' where id = 1", &[]).await;
    assert_eq!(user.at(other.address).get("/api/products/").await.header("etag"), plain.header("etag"));

    for (caller, etag) in [(&user, plain.header("etag")), (&gzip, packed.header("etag"))] {
        for condition in [etag, &format!("\"x\", W/{etag}"), "*"] {
            let answer = caller.with("if-none-match", condition).get("/api/products/").await;
            assert_eq!((answer.status.as_u16(), answer.body.len()), (304, 0), "{condition}");
            assert_eq!(answer.header("etag"), etag);
            assert_eq!(answer.header("cache-control"), "private, no-cache");
            assert_eq!(answer.header("vary"), "Accept-Encoding, Authorization");
            assert!(answer.header("cache-status").starts_with("TestShop; "));
        }
    }
    assert_eq!(user.with("if-none-match", packed.header("etag")).get("/api/products/").await.status, 200);
    for refused in ["identity", "gzip;q=0", "*;q=0", "gzip;q=0, *"] {
        let answer = user.with("accept-encoding", refused).get("/api/products/").await;
        assert_eq!(answer.header("content-encoding"), "", "{refused}");
    }
}

#[tokio::test]
async fn a_list_is_compressed_once_a_version() {
    let shop = Shop::open().await;
    shop.stock(500).await;
    let gzip = shop.user("ann").await.with("accept-encoding", "gzip");
    for _ in 0..10 {
        gzip.get("/api/products/").await;
    }
    assert_eq!(shop.metric("testshop_cache_compressions_total").await, 1.0);
    assert_eq!(shop.metric("testshop_cache_fills_total").await, 1.0);
}

#[tokio::test]
async fn each_cache_mode_is_fresh_and_says_where_the_answer_came_from() {
    for (mode, second) in [
        ("off", "TestShop; fwd=bypass"),
        ("redis", "TestShop; hit; detail=redis"),
        ("full", "TestShop; hit; detail=memory"),
    ] {
        let shop = Plan::default().with("cache-mode", mode).open().await;
        shop.stock(5).await;
        let user = shop.user("ann").await;
        let first = user.get("/api/products/").await;
        crate::harness::until("the layer is warm", async || {
            user.get("/api/products/").await.header("cache-status") == second
        })
        .await;
        assert_eq!(user.get("/api/products/").await.body, first.body, "{mode}");
        shop.run("update products set name = 'Fresh'", &[]).await;
        assert!(user.get("/api/products/").await.text().contains("Fresh"), "{mode}");
        let gzip = user.with("accept-encoding", "gzip").get("/api/products/").await;
        assert_eq!(gzip.header("content-encoding"), "gzip", "{mode}");
    }
}

#[tokio::test]
async fn a_list_too_large_to_keep_is_streamed_whole_and_fresh() {
    let shop = Plan::default().with("cache-entry-bytes", 100_000).open().await;
    shop.stock(5000).await;
    let user = shop.user("ann").await;
    for _ in 0..2 {
        let answer = user.get("/api/products/").await;
        assert_eq!(answer.header("cache-status"), "TestShop; fwd=miss; detail=streamed");
        assert_eq!(answer.json().as_array().unwrap().len(), 5000);
        let again = user.with("if-none-match", answer.header("etag")).get("/api/products/").await;
        assert_eq!(again.status, 304);
    }
    shop.run("update products set name = 'Fresh' where id = 5000", &[]).await;
    assert_eq!(user.get("/api/products/").await.json()[4999]["name"], "Fresh");
    assert_eq!(shop.metric("testshop_cache_bytes").await, 0.0);
    // once it has shrunk it is kept again
    shop.run("delete from products where id > 10", &[]).await;
    user.get("/api/products/").await;
    crate::harness::until("it is kept", async || {
        user.get("/api/products/").await.header("cache-status") == "TestShop; hit; detail=memory"
    })
    .await;
}

#[tokio::test]
async fn readers_never_see_less_than_was_acknowledged_while_writers_write() {
    let shop = Shop::open().await;
    shop.stock(20).await;
    shop.run("update products set description = '0'", &[]).await;
    let other = shop.another_instance().await;
    let staff = shop.staff("sam").await;
    let acknowledged = Arc::new(AtomicI64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for number in 0..6 {
        let address = if number % 2 == 0 { shop.server.address } else { other.address };
        let caller = staff.at(address).with("accept-encoding", if number % 3 == 0 { "identity" } else { "" });
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
            staff.at(other.address).patch("/api/products/2/", json!({"price": write})).await;
        }
        shop.run("update products set description = $1", &[&write.to_string()]).await;
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
async fn a_client_that_leaves_in_the_middle_of_a_write_leaves_it_whole_or_absent() {
    let shop = Shop::open().await;
    shop.stock(1).await;
    let staff = shop.staff("sam").await;
    // the write waits behind a lock while its client goes away
    shop.script("begin; select from categories where id = 1 for update").await;
    let leaving = {
        let staff = staff.clone();
        tokio::spawn(async move {
            staff.post("/api/products/", json!({"name": "Left", "price": 1, "category_id": 1, "tags": ["left"]})).await
        })
    };
    let waiting =
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
    crate::harness::until("the write waits", async || shop.value::<i64>(waiting).await > 0).await;
    leaving.abort();
    let _ = leaving.await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    shop.script("commit").await;
    crate::harness::until("the write is whole", async || {
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
    let shop = Shop::open().await;
    shop.stock(5).await;
    let user = shop.user("ann").await;
    let expected = user.get("/api/products/").await;
    let client = redis::Client::open(needed("REDIS_URL")).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let pattern = format!("{}:list:*", shop.setting("redis-prefix"));
    let mut keys: Vec<String> = Vec::new();
    crate::harness::until("the entry is shared", async || {
        let found: Vec<String> = redis::cmd("KEYS").arg(&pattern).query_async(&mut redis.clone()).await.unwrap();
        found.iter().any(|key| !key.ends_with(":lock"))
    })
    .await;
    keys.extend(redis::cmd("KEYS").arg(&pattern).query_async::<Vec<String>>(&mut redis).await.unwrap());
    for key in &keys {
        redis::cmd("SET").arg(key).arg("garbage").query_async::<()>(&mut redis).await.unwrap();
    }
    let other = shop.another_instance().await;
    let answer = user.at(other.address).get("/api/products/").await;
    assert_eq!((answer.status.as_u16(), &answer.body), (200, &expected.body));
}
