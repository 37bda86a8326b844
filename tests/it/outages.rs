//! What is left when PostgreSQL or Redis goes away, and how all of it comes back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use crate::harness::{Caller, Line, Plan, Proxy, Services, Shop, connect, host_of, needed, until};

async fn database_line() -> Proxy {
    Proxy::to(host_of(&needed("DATABASE_URL")).to_owned()).await
}

async fn redis_line() -> Proxy {
    Proxy::to(host_of(&needed("REDIS_URL")).to_owned()).await
}

const UNAVAILABLE: &str = "{\"detail\":\"Service temporarily unavailable.\"}";

async fn is_unavailable(caller: &Caller, path: &str) {
    let answer = caller.get(path).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (503, UNAVAILABLE), "{path}");
    assert!(!answer.header("retry-after").is_empty(), "{path}");
}

async fn comes_back(shop: &Shop, caller: &Caller) {
    let began = Instant::now();
    until("the list is fresh again", async || {
        let answer = caller.get("/api/products/").await;
        answer.status == 200 && !answer.header("cache-status").ends_with("detail=stale")
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(shop.anyone().get("/readyz").await.json()["database"], "ok");
}

#[tokio::test]
async fn while_nobody_can_tell_whether_a_token_is_in_force_it_reads_lists_and_nothing_else() {
    let shop = Shop::open().await;
    shop.stock(3).await;
    let staff = shop.staff("sam").await;
    assert_eq!(staff.get("/api/products/").await.status, 200);
    // everything but the versions, and with them what was revoked, can be had
    let other = connect(shop.database_url()).await;
    other.batch_execute("begin; lock table versions in access exclusive mode").await.unwrap();
    let list = staff.get("/api/products/").await;
    assert_eq!((list.status.as_u16(), list.header("cache-status")), (200, "TestShop; hit; detail=stale"));
    for path in ["/api/me/", "/api/products/1/", "/api/categories/"] {
        is_unavailable(&staff, path).await;
    }
    assert_eq!(staff.patch("/api/products/1/", json!({"name": "Renamed"})).await.status, 503);
    other.batch_execute("rollback").await.unwrap();
    comes_back(&shop, &staff).await;
    assert_eq!(shop.value::<i64>("select count(*) from products where name = 'Renamed'").await, 0);
}

#[tokio::test]
async fn while_the_database_is_away_the_last_list_is_served_and_labelled() {
    for outage in [Line::Cut, Line::Silent] {
        let line = database_line().await;
        let shop = Plan::default().database_over(&line).open().await;
        shop.stock(3).await;
        let user = shop.user("ann").await;
        let stranger = shop.user("bob").await;
        let before = user.get("/api/products/").await;
        line.set(outage);
        let stale = user.get("/api/products/").await;
        assert_eq!((stale.status.as_u16(), stale.header("cache-status")), (200, "TestShop; hit; detail=stale"));
        assert_eq!(stale.body, before.body);
        let not_modified = user.with("if-none-match", before.header("etag")).get("/api/products/").await;
        let label = not_modified.header("cache-status");
        assert_eq!((not_modified.status.as_u16(), label), (304, "TestShop; hit; detail=stale"));
        is_unavailable(&user, "/api/products/1/").await;
        is_unavailable(&stranger, "/api/products/").await;
        let write = user.post("/api/logout/", json!({})).await;
        assert_eq!(write.status, 503);
        let login = shop.anyone().post("/api/login/", json!({"username": "ann", "password": "x"})).await;
        assert_eq!(login.status, 503);
        assert_eq!(shop.anyone().get("/healthz").await.status, 200);
        let ready = shop.anyone().get("/readyz").await;
        assert_eq!((ready.status.as_u16(), &ready.json()["database"]), (503, &json!("down")));
        // meanwhile, where the shop cannot see it
        shop.run("update products set name = 'Meanwhile'", &[]).await;
        line.set(Line::Open);
        comes_back(&shop, &user).await;
        assert!(user.get("/api/products/").await.text().contains("Meanwhile"));
    }
}

#[tokio::test]
async fn without_stale_if_error_an_outage_is_a_503() {
    let line = database_line().await;
    let shop = Plan::default().database_over(&line).with("stale-if-error", "0s").open().await;
    shop.stock(1).await;
    let user = shop.user("ann").await;
    user.get("/api/products/").await;
    line.set(Line::Cut);
    is_unavailable(&user, "/api/products/").await;
    line.set(Line::Open);
    comes_back(&shop, &user).await;
}

#[tokio::test]
async fn a_list_grows_too_old_to_be_served() {
    let line = database_line().await;
    let shop = Plan::default().database_over(&line).with("stale-if-error", "4s").open().await;
    shop.stock(1).await;
    let user = shop.user("ann").await;
    user.get("/api/products/").await;
    line.set(Line::Cut);
    assert_eq!(user.get("/api/products/").await.header("cache-status"), "TestShop; hit; detail=stale");
    until("it is too old", async || user.get("/api/products/").await.status == 503).await;
}

#[tokio::test]
async fn a_server_starts_without_its_database_and_serves_when_it_is_there() {
    let line = database_line().await;
    let shop = Plan::default().database_over(&line).open().await;
    shop.stock(1).await;
    let user = shop.user("ann").await;
    line.set(Line::Cut);
    let other = shop.another_instance().await;
    let user = user.at(other.address);
    is_unavailable(&user, "/api/products/").await;
    assert_eq!(user.get("/healthz").await.status, 200);
    line.set(Line::Open);
    comes_back(&shop, &user).await;
}

#[tokio::test]
async fn no_fault_of_redis_costs_an_answer() {
    let line = redis_line().await;
    let shop = Plan::default().redis_over(&line).with("rate-limit", "on").open().await;
    shop.stock(50).await;
    let user = shop.user("ann").await;
    for fault in [Line::Cut, Line::Silent, Line::Open, Line::Cut] {
        line.set(fault);
        let began = Instant::now();
        for version in 0..20 {
            shop.run("update products set description = $1", &[&format!("{fault:?} {version}")]).await;
            let answer = user.get("/api/products/").await;
            assert_eq!(answer.status, 200);
            assert!(answer.text().contains(&format!("{fault:?} {version}")));
        }
        assert!(began.elapsed() < Duration::from_secs(6), "{fault:?}: {:?}", began.elapsed());
        shop.login("ann").await;
    }
    let down = shop.anyone().get("/readyz").await;
    assert_eq!((down.status.as_u16(), &down.json()["cache"]), (200, &json!("down")));
    line.set(Line::Open);
    until("the cache is back", async || shop.anyone().get("/readyz").await.json()["cache"] == "ok").await;
}

#[tokio::test]
async fn a_redis_that_forgets_everything_costs_nothing_but_a_fill() {
    let shop = Shop::open().await;
    shop.stock(5).await;
    let user = shop.user("ann").await;
    let before = user.get("/api/products/").await;
    let client = redis::Client::open(needed("REDIS_URL")).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    // the keys of this shop only: other tests share the server
    let pattern = format!("{}:*", shop.setting("redis-prefix"));
    let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await.unwrap();
    for key in keys {
        redis::cmd("DEL").arg(key).query_async::<()>(&mut redis).await.unwrap();
    }
    assert_eq!(user.get("/api/products/").await.body, before.body);
    let other = shop.another_instance().await;
    assert_eq!(user.at(other.address).get("/api/products/").await.body, before.body);
}

#[tokio::test]
async fn without_redis_nothing_is_missing() {
    let shop = Plan::default().with("redis-url", "").open().await;
    shop.stock(5).await;
    let user = shop.user("ann").await;
    user.get("/api/products/").await;
    assert_eq!(user.get("/api/products/").await.header("cache-status"), "TestShop; hit; detail=memory");
    assert_eq!(shop.anyone().get("/readyz").await.told(), (200, json!({"database": "ok", "cache": "off"})));
}

#[tokio::test]
async fn a_schema_change_under_running_servers_costs_no_request() {
    let shop = Shop::open().await;
    shop.stock(3).await;
    let staff = shop.staff("sam").await;
    for change in [
        "alter table products alter column description type varchar(5000)",
        "alter table products alter column description type text",
        "alter table products add column weight int not null default 1",
    ] {
        // every connection of the pool has its plans
        let one = (0..30).map(|_| staff.get("/api/products/1/"));
        futures_util::future::join_all(one).await;
        shop.script(change).await;
        let reading = futures_util::future::join_all((0..10).map(|_| staff.get("/api/products/1/")));
        let writing = futures_util::future::join_all(
            (0..10).map(|price| staff.patch("/api/products/1/", json!({"price": price}))),
        );
        let (read, written) = tokio::join!(reading, writing);
        assert!(read.iter().chain(&written).all(|answer| answer.status == 200), "{change}");
        let etag = staff.get("/api/products/1/").await.header("etag").to_owned();
        let conditional = staff.with("if-match", &etag).patch("/api/products/1/", json!({"price": 77})).await;
        assert_eq!(conditional.status, 200, "{change}");
        assert_eq!(staff.get("/api/products/").await.status, 200, "{change}");
    }
}

#[tokio::test]
async fn killed_connections_are_replaced() {
    let shop = Shop::open().await;
    shop.stock(3).await;
    let user = shop.user("ann").await;
    for _ in 0..5 {
        user.get("/api/products/1/").await;
        let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                     where datname = current_database() and pid <> pg_backend_pid()";
        assert!(shop.value::<i64>(kill).await >= 1);
        until("it is served again", async || user.get("/api/products/1/").await.status == 200).await;
        assert_eq!(user.get("/api/products/").await.status, 200);
    }
}

#[tokio::test]
async fn an_export_whose_database_goes_away_is_a_clear_503() {
    let line = database_line().await;
    let shop = Plan::default().database_over(&line).open().await;
    shop.stock(1).await;
    // one row that takes for ever, where the snapshot is already open
    shop.script(
        "create function slow(bigint) returns bigint language plpgsql as 'begin perform pg_sleep(60); return $1; end';
         alter table products rename to products_stored;
         create view products as select slow(id) as id, category_id, name, description, price, created_at from products_stored;
         grant select on products to public",
    )
    .await;
    let user = shop.user("ann").await;
    let asking = tokio::spawn(async move { user.get("/api/products/export/").await });
    let running = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()";
    until("the export runs", async || shop.value::<i64>(running).await > 0).await;
    line.set(Line::Cut);
    let answer = asking.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (503, UNAVAILABLE));
}

/// PostgreSQL itself, restarted without a word, under load: only 503 and labelled answers, and no connection is leaked.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_postgresql_under_load_gives_only_503_or_labelled_answers() {
    // a server of its own: the others' tests go on
    let services = Services::up("restart");
    let shop = Plan::default().on(&services.database_url).open().await;
    let user = shop.user("ann").await;
    user.get("/api/products/").await;

    let stop = Arc::new(AtomicBool::new(false));
    let (fine, turned_away) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let (user, stop) = (user.clone(), Arc::clone(&stop));
            let (fine, turned_away) = (Arc::clone(&fine), Arc::clone(&turned_away));
            let path = if number % 2 == 0 { "/api/products/" } else { "/api/categories/" };
            tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    let answer = user.get(path).await;
                    match answer.status.as_u16() {
                        200 => fine.fetch_add(1, SeqCst),
                        503 => turned_away.fetch_add(1, SeqCst),
                        other => panic!("{other} {}", answer.text()),
                    };
                }
            })
        })
        .collect();
    until("there is load", async || fine.load(SeqCst) > 100).await;
    services.kill_database();
    services.start();
    let back = Instant::now();
    until("it is healthy", async || {
        let answer = user.get("/api/categories/").await;
        answer.status == 200 && user.get("/api/products/").await.header("cache-status") != "TestShop; hit; detail=stale"
    })
    .await;
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    stop.store(true, SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert!(turned_away.load(SeqCst) > 0, "the outage was noticed");
    let client = connect(&services.database_url).await;
    let open = "select count(*) from pg_stat_activity where application_name = 'testshop'";
    let open: i64 = client.query_one(open, &[]).await.unwrap().get(0);
    assert!(open <= 8 + 2, "{open} connections: a pool of 8 and two that read versions");
}
