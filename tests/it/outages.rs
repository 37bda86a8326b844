//! Outages of PostgreSQL and Redis: which requests are still served, and recovery.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use serde_json::{Value, json};
use testshop::server::Server;

use crate::harness::{
    LinkState, PASSWORD, Proxy, Services, TestApp, TestAppBuilder, TestClient, connect, host_and_port, required_env,
    wait_until,
};

/// Starts a proxy in front of the shared PostgreSQL.
async fn database_proxy() -> Proxy {
    Proxy::start(host_and_port(&required_env("DATABASE_URL")).to_owned()).await
}

/// Starts a proxy in front of the shared Redis.
async fn redis_proxy() -> Proxy {
    Proxy::start(host_and_port(&required_env("REDIS_URL")).to_owned()).await
}

const UNAVAILABLE: &str = "{\"detail\":\"Service temporarily unavailable.\"}";

async fn assert_unavailable(client: &TestClient, path: &str) {
    let response = client.get(path).await;
    assert_eq!((response.status.as_u16(), response.text().as_str()), (503, UNAVAILABLE), "{path}");
    assert!(!response.header("retry-after").is_empty(), "{path}");
}

/// Version reads that may be in flight, one per reader.
const MAX_READS_IN_FLIGHT: f64 = 2.0;

/// Asserts that the server serves fresh lists now that the database is available again.
///
/// Only reads that were in flight may still fail. A read fails after at most 2 s and is repeated after 50 ms, so the
/// limit on failures also limits the time until the recovery.
async fn assert_recovers(app: &TestApp, client: &TestClient, server: &Server) {
    let failures = async || app.metric_on(server, "testshop_version_read_failures_total").await;
    let before = failures().await;
    wait_until("the list is fresh again", async || {
        let response = client.get("/api/products/").await;
        response.status == 200 && !response.header("cache-status").ends_with("detail=stale")
    })
    .await;
    let failed = failures().await - before;
    assert!(failed <= MAX_READS_IN_FLIGHT, "{failed} version reads failed after the recovery of the database");
    assert_eq!(app.anonymous().get("/readyz").await.json()["database"], "ok");
}

#[tokio::test]
async fn only_lists_are_served_when_revocations_unverifiable() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let staff = app.create_staff("sam").await;
    for path in ["/api/products/", "/api/tags/"] {
        assert_eq!(staff.get(path).await.status, 200);
    }
    // the table that every version read uses cannot be read; all others can
    let other = connect(app.database_url()).await;
    other.batch_execute("begin; lock table catalogue_versions in access exclusive mode").await.unwrap();
    for path in ["/api/products/", "/api/tags/"] {
        let list = staff.get(path).await;
        assert_eq!((list.status.as_u16(), list.header("cache-status")), (200, "TestShop; hit; detail=stale"));
    }
    for path in ["/api/me/", "/api/products/1/", "/api/tags/1/"] {
        assert_unavailable(&staff, path).await;
    }
    assert_eq!(staff.patch("/api/products/1/", json!({"name": "Renamed"})).await.status, 503);
    other.batch_execute("rollback").await.unwrap();
    assert_recovers(&app, &staff, &app.server).await;
    assert_eq!(app.query_scalar::<i64>("select count(*) from products where name = 'Renamed'").await, 0);
}

#[tokio::test]
async fn database_outage_serves_labelled_stale_list() {
    for outage in [LinkState::Cut, LinkState::Silent] {
        let proxy = database_proxy().await;
        let app = TestAppBuilder::default().database_via_proxy(&proxy).spawn().await;
        app.seed_products(3).await;
        let user = app.create_user("ann").await;
        let unverified = app.create_user("bob").await;
        let before = user.get("/api/products/").await;
        proxy.set_state(outage);
        let stale = user.get("/api/products/").await;
        assert_eq!((stale.status.as_u16(), stale.header("cache-status")), (200, "TestShop; hit; detail=stale"));
        assert_eq!(stale.body, before.body);
        let not_modified = user.with_header("if-none-match", before.header("etag")).get("/api/products/").await;
        let label = not_modified.header("cache-status");
        assert_eq!((not_modified.status.as_u16(), label), (304, "TestShop; hit; detail=stale"));
        assert_unavailable(&user, "/api/products/1/").await;
        assert_unavailable(&unverified, "/api/products/").await;
        let write = user.post("/api/logout/", json!({})).await;
        assert_eq!(write.status, 503);
        let login = app.anonymous().post("/api/login/", json!({"username": "ann", "password": "x"})).await;
        assert_eq!(login.status, 503);
        assert_eq!(app.anonymous().get("/healthz").await.status, 200);
        let ready = app.anonymous().get("/readyz").await;
        assert_eq!((ready.status.as_u16(), &ready.json()["database"]), (503, &json!("down")));
        assert_eq!(ready.header("retry-after"), "1");
        // a write that the server cannot see yet
        app.execute("update products set name = 'Written'", &[]).await;
        proxy.set_state(LinkState::Open);
        assert_recovers(&app, &user, &app.server).await;
        assert!(user.get("/api/products/").await.text().contains("Written"));
    }
}

/// A request that revokes tokens of its caller.
struct Revoking {
    path: &'static str,
    body: Value,
    /// Whether it revokes the tokens of the user's other logins as well.
    revokes_all: bool,
}

#[tokio::test]
async fn revoked_tokens_read_no_stale_list_during_outage() {
    let revoking = |path, body, revokes_all| Revoking { path, body, revokes_all };
    for redis in [true, false] {
        for revoking in [
            revoking("/api/logout/", json!({}), false),
            revoking("/api/logout/all/", json!({}), true),
            revoking("/api/password/", json!({"old_password": PASSWORD, "new_password": "a fine password"}), true),
            revoking("/api/token/refresh/", json!({}), false),
        ] {
            assert_revocation_holds_during_outage(redis, revoking).await;
        }
    }
}

/// Asserts that a revocation which was committed just before an outage holds on the instance that committed it and,
/// through Redis, on another one.
async fn assert_revocation_holds_during_outage(redis: bool, revoking: Revoking) {
    let proxy = database_proxy().await;
    let builder = TestAppBuilder::default().database_via_proxy(&proxy).with("refresh-grace", "0s");
    let app = if redis { builder } else { builder.with("redis-url", "") }.spawn().await;
    let other = app.start_instance().await;
    app.seed_products(1).await;
    app.create_user("ann").await;
    let login = app.anonymous().post("/api/login/", json!({"username": "ann", "password": PASSWORD})).await.json();
    let (user, second) = (app.anonymous().with_token(login["token"].as_str().unwrap()), app.login("ann").await);
    let mut body = revoking.body;
    if revoking.path == "/api/token/refresh/" {
        body = json!({"refresh": login["refresh"]});
        assert_eq!(user.post(revoking.path, body.clone()).await.status, 200, "the token is spent");
    }
    for client in [&user, &second, &user.on_instance(other.address)] {
        assert_eq!(client.get("/api/products/").await.status, 200);
    }
    let answer = user.post(revoking.path, body).await.status.as_u16();
    assert_eq!(answer, if revoking.path == "/api/token/refresh/" { 401 } else { 204 });
    proxy.set_state(LinkState::Cut);
    let other = redis.then_some(other.address);
    for address in [app.server.address].into_iter().chain(other) {
        let revoked = user.on_instance(address).get("/api/products/").await;
        assert_eq!(revoked.status, 401, "{} redis: {redis} {address}", revoking.path);
        assert_eq!(revoked.json()["code"], "token_not_valid");
        let expected = if revoking.revokes_all { 401 } else { 200 };
        if address == app.server.address {
            let status = second.get("/api/products/").await.status;
            assert_eq!(status, expected, "{} redis: {redis}: another login", revoking.path);
        }
    }
}

#[tokio::test]
async fn database_outage_returns_503_without_stale_if_error() {
    let proxy = database_proxy().await;
    let app = TestAppBuilder::default().database_via_proxy(&proxy).with("stale-if-error", "0s").spawn().await;
    app.seed_products(1).await;
    let user = app.create_user("ann").await;
    user.get("/api/products/").await;
    proxy.set_state(LinkState::Cut);
    assert_unavailable(&user, "/api/products/").await;
    proxy.set_state(LinkState::Open);
    assert_recovers(&app, &user, &app.server).await;
}

#[tokio::test]
async fn stale_list_expires_after_stale_if_error() {
    let proxy = database_proxy().await;
    let app = TestAppBuilder::default().database_via_proxy(&proxy).with("stale-if-error", "4s").spawn().await;
    app.seed_products(1).await;
    let user = app.create_user("ann").await;
    user.get("/api/products/").await;
    proxy.set_state(LinkState::Cut);
    assert_eq!(user.get("/api/products/").await.header("cache-status"), "TestShop; hit; detail=stale");
    wait_until("the list has expired", async || user.get("/api/products/").await.status == 503).await;
}

#[tokio::test]
async fn server_starts_without_database_and_recovers() {
    let proxy = database_proxy().await;
    let app = TestAppBuilder::default().database_via_proxy(&proxy).spawn().await;
    app.seed_products(1).await;
    let user = app.create_user("ann").await;
    proxy.set_state(LinkState::Cut);
    let other = app.start_instance().await;
    let user = user.on_instance(other.address);
    assert_unavailable(&user, "/api/products/").await;
    assert_eq!(user.get("/healthz").await.status, 200);
    proxy.set_state(LinkState::Open);
    assert_recovers(&app, &user, &other).await;
}

#[tokio::test]
async fn redis_failures_do_not_fail_requests() {
    let proxy = redis_proxy().await;
    let app = TestAppBuilder::default().redis_via_proxy(&proxy).with("rate-limit", "on").spawn().await;
    app.seed_products(50).await;
    let user = app.create_user("ann").await;
    for state in [LinkState::Cut, LinkState::Silent, LinkState::Open, LinkState::Cut] {
        proxy.set_state(state);
        let failures = async || app.metric("testshop_redis_failures_total").await;
        let before = failures().await;
        for version in 0..20 {
            app.execute("update products set description = $1", &[&format!("{state:?} {version}")]).await;
            let response = user.get("/api/products/").await;
            assert_eq!(response.status, 200);
            assert!(response.text().contains(&format!("{state:?} {version}")));
        }
        // requests do not wait for a Redis that is known to be unavailable
        let failed = failures().await - before;
        assert!(state == LinkState::Open || failed <= 2.0, "{state:?}: {failed} calls failed");
        app.login("ann").await;
    }
    let down = app.anonymous().get("/readyz").await;
    assert_eq!((down.status.as_u16(), &down.json()["cache"]), (200, &json!("down")));
    proxy.set_state(LinkState::Open);
    wait_until("the cache is connected again", async || app.anonymous().get("/readyz").await.json()["cache"] == "ok")
        .await;
}

#[tokio::test]
async fn redis_flush_causes_only_a_refill() {
    let app = TestApp::spawn().await;
    app.seed_products(5).await;
    let user = app.create_user("ann").await;
    let before = user.get("/api/products/").await;
    app.flush_redis().await;
    assert_eq!(user.get("/api/products/").await.body, before.body);
    let other = app.start_instance().await;
    assert_eq!(user.on_instance(other.address).get("/api/products/").await.body, before.body);
}

#[tokio::test]
async fn server_works_without_redis() {
    let app = TestAppBuilder::default().with("redis-url", "").spawn().await;
    app.seed_products(5).await;
    let user = app.create_user("ann").await;
    user.get("/api/products/").await;
    assert_eq!(user.get("/api/products/").await.header("cache-status"), "TestShop; hit; detail=memory");
    assert_eq!(
        app.anonymous().get("/readyz").await.status_and_json(),
        (200, json!({"database": "ok", "cache": "off"}))
    );
}

#[tokio::test]
async fn schema_change_under_load_loses_no_request() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let staff = app.create_staff("sam").await;
    for change in [
        "alter table products alter column description type varchar(5000)",
        "alter table products alter column description type text",
        "alter table products add column weight int not null default 1",
    ] {
        // each pooled connection has cached plans
        let requests = (0..30).map(|_| staff.get("/api/products/1/"));
        futures_util::future::join_all(requests).await;
        app.batch_execute(change).await;
        let reading = futures_util::future::join_all((0..10).map(|_| staff.get("/api/products/1/")));
        let writing = futures_util::future::join_all(
            (0..10).map(|price| staff.patch("/api/products/1/", json!({"price": price}))),
        );
        let (reads, writes) = tokio::join!(reading, writing);
        assert!(reads.iter().chain(&writes).all(|response| response.status == 200), "{change}");
        let etag = staff.get("/api/products/1/").await.header("etag").to_owned();
        let conditional = staff.with_header("if-match", &etag).patch("/api/products/1/", json!({"price": 77})).await;
        assert_eq!(conditional.status, 200, "{change}");
        assert_eq!(staff.get("/api/products/").await.status, 200, "{change}");
    }
}

#[tokio::test]
async fn killed_database_connections_are_replaced() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let user = app.create_user("ann").await;
    for _ in 0..5 {
        user.get("/api/products/1/").await;
        let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                     where datname = current_database() and pid <> pg_backend_pid()";
        assert!(app.query_scalar::<i64>(kill).await >= 1);
        wait_until("requests succeed again", async || user.get("/api/products/1/").await.status == 200).await;
        assert_eq!(user.get("/api/products/").await.status, 200);
    }
}

#[tokio::test]
async fn export_returns_503_when_database_is_lost() {
    let proxy = database_proxy().await;
    let app = TestAppBuilder::default().database_via_proxy(&proxy).spawn().await;
    app.seed_products(1).await;
    // the export has its snapshot and waits a minute for the first row
    app.delay_product_rows(60.0).await;
    let user = app.create_user("ann").await;
    let exporting = tokio::spawn(async move { user.get("/api/products/export/").await });
    app.wait_until_rows_are_delayed().await;
    proxy.set_state(LinkState::Cut);
    let response = exporting.await.unwrap();
    assert_eq!((response.status.as_u16(), response.text().as_str()), (503, UNAVAILABLE));
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_restart_under_load_causes_only_503_or_stale_responses() {
    // a PostgreSQL of its own: other tests use the shared one meanwhile
    let services = Services::up("restart");
    let app = TestAppBuilder::default().on_server(&services.database_url).spawn().await;
    let user = app.create_user("ann").await;
    user.get("/api/products/").await;

    let stop = Arc::new(AtomicBool::new(false));
    let (served, unavailable) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let (user, stop) = (user.clone(), Arc::clone(&stop));
            let (served, unavailable) = (Arc::clone(&served), Arc::clone(&unavailable));
            let path = if number % 2 == 0 { "/api/products/" } else { "/api/me/" };
            tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    let response = user.get(path).await;
                    match response.status.as_u16() {
                        200 => served.fetch_add(1, SeqCst),
                        503 => unavailable.fetch_add(1, SeqCst),
                        other => panic!("{other} {}", response.text()),
                    };
                }
            })
        })
        .collect();
    wait_until("there is load", async || served.load(SeqCst) > 100).await;
    services.kill_database();
    services.start();
    assert_recovers(&app, &user, &app.server).await;
    wait_until("other requests succeed", async || user.get("/api/me/").await.status == 200).await;
    stop.store(true, SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert!(unavailable.load(SeqCst) > 0, "no request failed during the outage");
    let client = connect(&services.database_url).await;
    let open = "select count(*) from pg_stat_activity where application_name = 'testshop'";
    // a pool of 8 and the version readers; more would be leaked, and would stay
    wait_until("at most 10 connections are open", async || {
        client.query_one(open, &[]).await.unwrap().get::<_, i64>(0) <= 8 + 2
    })
    .await;
}
