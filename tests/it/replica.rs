//! A streaming replica serves large reads that are as fresh as those of the primary. With several hosts in the URL, the
//! server finds the primary before and after a failover.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Instant,
};

use futures_util::future::join_all;
use serde_json::json;
use tokio::net::TcpListener;

use crate::harness::{
    LinkState, Proxy, Services, TestApp, TestAppBuilder, as_serving_role, connect, host_and_port, product_names,
    via_proxy, wait_until, with_database,
};

/// The server does not use the replica for this time after a failure.
const BACKOFF_SECONDS: u64 = 5;

/// Asserts that the replica has failed once, or once more for each backoff that has passed since `began`.
fn assert_one_failure_per_backoff(failures: f64, began: Instant) {
    let backoffs = u32::try_from(began.elapsed().as_secs() / BACKOFF_SECONDS).unwrap();
    assert!((1.0..=f64::from(1 + backoffs)).contains(&failures), "{failures} failures, {backoffs} backoffs");
}

/// Starts a primary, a replica and an app on the primary. Returns also a connection to the replica.
async fn spawn_with_replica(purpose: &str) -> (Services, Services, TestApp, tokio_postgres::Client) {
    let primary = Services::up(purpose);
    let replica = primary.replica();
    let app = TestAppBuilder::default().on_server(&primary.database_url).spawn().await;
    let url = with_database(&replica.database_url, app.database_name());
    wait_until("the replica has the database", async || has_versions(&url).await).await;
    let standby = connect(&url).await;
    (primary, replica, app, standby)
}

async fn has_versions(url: &str) -> bool {
    let connected = tokio_postgres::connect(url, tokio_postgres::NoTls).await;
    let Ok((client, connection)) = connected else { return false };
    tokio::spawn(connection);
    client.query_one("select version from catalogue_versions limit 1", &[]).await.is_ok()
}

/// Waits until the replica shows the version of the primary.
async fn wait_until_caught_up(app: &TestApp, standby: &tokio_postgres::Client) {
    let version = "select version::text || token from catalogue_versions order by version desc limit 1";
    let current: String = app.query_scalar(version).await;
    wait_until("the replica has caught up", async || {
        standby.query_one(version, &[]).await.unwrap().get::<_, String>(0) == current
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_reads_use_replica_and_are_fresh() {
    let (primary, replica, app, standby) = spawn_with_replica("replicated").await;
    let url = as_serving_role(&with_database(&replica.database_url, app.database_name()));
    let caching = app.start_instance_with("database-replica-url", &url).await;
    let streaming = app
        .start_instance_with_settings(&[
            ("database-replica-url", &url),
            ("cache-bytes", "0"),
            ("cache-entry-bytes", "10"),
            ("redis-url", ""),
        ])
        .await;
    let user = app.create_user("ann").await;
    let staff = app.create_staff("sam").await;
    let reader = user.on_instance(caching.address);
    let served = async || app.metric_on(&caching, "testshop_replica_reads_total").await;
    let lagging = async || app.metric_on(&caching, "testshop_replica_lagging_reads_total").await;
    let failures = async || app.metric_on(&caching, "testshop_replica_failures_total").await;

    app.seed_products(50).await;
    // larger than a list that is always read completely
    app.execute("update products set description = repeat('x', 2000)", &[]).await;
    wait_until_caught_up(&app, &standby).await;
    let list = reader.get("/api/products/").await;
    assert_eq!(product_names(&list.json()).len(), 50);
    assert_eq!(served().await, 1.0, "the list is loaded from the replica");
    let export = reader.get("/api/products/export/").await;
    assert_eq!((export.status.as_u16(), served().await), (200, 2.0), "the export is read from the replica");
    let streamed = user.on_instance(streaming.address).get("/api/products/").await;
    assert_eq!(streamed.body, list.body);
    let streamed = app.metric_on(&streaming, "testshop_replica_reads_total").await;
    assert_eq!(streamed, 1.0, "the replica is tried for a cache entry; the list is streamed from the primary");

    // while the replica lags, the primary serves, and every write is visible
    standby.batch_execute("select pg_wal_replay_pause()").await.unwrap();
    let written = staff.patch("/api/products/7/", json!({"name": "Changed"})).await;
    assert_eq!(written.status, 200, "{}", written.text());
    assert_eq!(product_names(&reader.get("/api/products/").await.json())[6], "Changed");
    assert_eq!((served().await, lagging().await), (2.0, 1.0));
    let export = reader.get("/api/products/export/").await;
    assert_eq!((export.status.as_u16(), lagging().await), (200, 2.0));
    let streamed = user.on_instance(streaming.address).get("/api/products/").await;
    assert_eq!(product_names(&streamed.json())[6], "Changed");
    standby.batch_execute("select pg_wal_replay_resume()").await.unwrap();

    // each read after a write shows the write, wherever it is served
    for round in 1..=30 {
        let name = format!("Round {round}");
        assert_eq!(staff.patch("/api/products/1/", json!({"name": name})).await.status, 200);
        assert_eq!(product_names(&reader.get("/api/products/").await.json())[0], name);
    }
    wait_until("the replica serves a read after a write", async || {
        app.execute("update products set price = price + 0.01 where id = 2", &[]).await;
        reader.get("/api/products/").await.status == 200 && served().await > 2.0
    })
    .await;
    assert!(app.metric_on(&caching, "testshop_cache_incremental_fills_total").await >= 31.0, "only changes are read");

    // no request fails when the replica is down, and the server does not retry it before the backoff ends
    let began = Instant::now();
    replica.kill_database();
    for round in 1..=3 {
        let name = format!("Down {round}");
        assert_eq!(staff.patch("/api/products/1/", json!({"name": name})).await.status, 200);
        assert_eq!(product_names(&reader.get("/api/products/").await.json())[0], name);
    }
    assert_one_failure_per_backoff(failures().await, began);
    assert_eq!(reader.get("/api/products/export/").await.status, 200);

    // the server uses the replica again after its restart
    replica.start();
    let before = served().await;
    wait_until("the replica serves again", async || {
        app.execute("update products set price = price + 0.01 where id = 2", &[]).await;
        reader.get("/api/products/").await.status == 200 && served().await > before
    })
    .await;
    drop((caching, streaming, app, replica, primary));
}

#[tokio::test(flavor = "multi_thread")]
async fn primary_is_found_among_hosts_before_and_after_failover() {
    let (primary, replica, app, standby) = spawn_with_replica("failover").await;
    let url = as_serving_role(&with_database(&primary.database_url, app.database_name()));
    let both = url.replacen(
        host_and_port(&url),
        &format!("{},{}", host_and_port(&replica.database_url), host_and_port(&primary.database_url)),
        1,
    );
    // the standby is the first host, and the server does not use it as the primary
    let server = app.start_instance_with("database-url", &both).await;
    let staff = app.create_staff("sam").await.on_instance(server.address);
    let first = json!({"name": "First", "price": 1, "category_id": 1});
    app.seed_products(1).await;
    assert_eq!(staff.post("/api/products/", first).await.status, 201);
    wait_until_caught_up(&app, &standby).await;

    // one more write reaches the primary only, which then crashes
    standby.batch_execute("alter system set primary_conninfo = ''").await.unwrap();
    standby.batch_execute("select pg_reload_conf()").await.unwrap();
    let receivers = "select count(*) from pg_stat_wal_receiver";
    wait_until("replication has stopped", async || {
        standby.query_one(receivers, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    assert_eq!(staff.post("/api/products/", json!({"name": "Lost", "price": 1, "category_id": 1})).await.status, 201);
    assert_eq!(product_names(&staff.get("/api/products/").await.json()), ["Product 1", "First", "Lost"]);
    primary.kill_database();
    standby.query_one("select pg_promote()", &[]).await.unwrap();

    // the new primary assigns the same version numbers again, and must not serve a list of the old history for them
    wait_until("writes succeed again", async || {
        staff.post("/api/products/", json!({"name": "Second", "price": 1, "category_id": 1})).await.status == 201
    })
    .await;
    let list = staff.get("/api/products/").await;
    assert_eq!(product_names(&list.json()), ["Product 1", "First", "Second"], "{}", list.header("cache-status"));
    drop((server, app, replica, primary));
}

#[tokio::test]
async fn unresponsive_host_is_skipped() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let url = as_serving_role(app.database_url());
    // accepts connections and never responds
    let unresponsive = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hosts = format!("{},{}", unresponsive.local_addr().unwrap(), host_and_port(&url));
    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&attempts);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((socket, _)) = unresponsive.accept().await {
            counter.fetch_add(1, SeqCst);
            open.push(socket);
        }
    });
    let server = app.start_instance_with("database-url", url.replacen(host_and_port(&url), &hosts, 1)).await;
    let user = app.create_user("ann").await.on_instance(server.address);
    assert_eq!(user.get("/api/products/").await.status, 200);
    // connections that are opened later go to the responsive host at once
    let before = attempts.load(SeqCst);
    assert!(before > 0);
    let responses = join_all((0..16).map(|_| user.get("/api/products/1/"))).await;
    assert!(responses.iter().all(|response| response.status == 200));
    assert!(app.metric_on(&server, "testshop_db_pool_connections").await > 1.0);
    assert_eq!(attempts.load(SeqCst), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn unresponsive_replica_delays_once_and_fails_no_request() {
    let (primary, replica, app, standby) = spawn_with_replica("silent").await;
    let url = as_serving_role(&with_database(&replica.database_url, app.database_name()));
    let proxy = Proxy::start(host_and_port(&url).to_owned()).await;
    let proxied_url = via_proxy(&url, proxy.address);
    let server = app.start_instance_with_settings(&[("database-replica-url", &proxied_url), ("redis-url", "")]).await;
    app.seed_products(5).await;
    let staff = app.create_staff("sam").await.on_instance(server.address);
    wait_until_caught_up(&app, &standby).await;
    assert_eq!(staff.get("/api/products/").await.status, 200);
    let served = app.metric_on(&server, "testshop_replica_reads_total").await;
    assert_eq!(served, 1.0);

    proxy.set_state(LinkState::Silent);
    let began = Instant::now();
    assert_eq!(staff.patch("/api/products/1/", json!({"name": "Seen"})).await.status, 200);
    assert_eq!(product_names(&staff.get("/api/products/").await.json())[0], "Seen");
    assert_eq!(staff.get("/api/products/export/").await.status, 200);
    // only a request that tries the replica waits for it, and each such request counts as a failure
    assert_one_failure_per_backoff(app.metric_on(&server, "testshop_replica_failures_total").await, began);
    drop((server, app, replica, primary));
}
