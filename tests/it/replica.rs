//! A streaming replica takes large reads and weakens nothing; several hosts survive a fail-over.

use serde_json::json;

use crate::harness::{
    LinkState, Proxy, Services, TestApp, TestAppBuilder, as_serving_role, connect, host_and_port, product_names,
    wait_until, with_database,
};

/// A shop on a primary with a replica, and a way to ask the replica.
async fn replicated(purpose: &str) -> (Services, Services, TestApp, tokio_postgres::Client) {
    let primary = Services::up(purpose);
    let replica = primary.replica();
    let app = TestAppBuilder::default().on_server(&primary.database_url).spawn().await;
    let copy = with_database(&replica.database_url, app.database_name());
    wait_until("the database has arrived at the replica", async || arrives(&copy).await).await;
    let follower = connect(&copy).await;
    (primary, replica, app, follower)
}

async fn arrives(url: &str) -> bool {
    let connected = tokio_postgres::connect(url, tokio_postgres::NoTls).await;
    let Ok((client, connection)) = connected else { return false };
    tokio::spawn(connection);
    client.query_one("select version from versions where name = 'catalogue'", &[]).await.is_ok()
}

/// The replica shows what the primary shows.
async fn caught_up(app: &TestApp, follower: &tokio_postgres::Client) {
    let version = "select version::text || token from versions where name = 'catalogue'";
    let there: String = app.query_scalar(version).await;
    wait_until("the replica has caught up", async || {
        follower.query_one(version, &[]).await.unwrap().get::<_, String>(0) == there
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_reads_use_replica_and_are_fresh() {
    let (primary, replica, app, follower) = replicated("replicated").await;
    let url = as_serving_role(&with_database(&replica.database_url, app.database_name()));
    let reading = app.start_instance_with("database-replica-url", &url).await;
    let streaming = app
        .start_instance_with_settings(&[("database-replica-url", &url), ("cache-entry-bytes", "10"), ("redis-url", "")])
        .await;
    let user = app.create_user("ann").await;
    let staff = app.create_staff("sam").await;
    let reader = user.on_instance(reading.address);
    let served = async || app.metric_on(&reading, "testshop_replica_reads_total").await;
    let behind = async || app.metric_on(&reading, "testshop_replica_behind_total").await;
    let failures = async || app.metric_on(&reading, "testshop_replica_failures_total").await;

    app.seed_products(50).await;
    caught_up(&app, &follower).await;
    let list = reader.get("/api/products/").await;
    assert_eq!(product_names(&list.json()).len(), 50);
    assert_eq!(served().await, 1.0, "the list was filled from the replica");
    let export = reader.get("/api/products/export/").await;
    assert_eq!((export.status.as_u16(), served().await), (200, 2.0), "the export too");
    let streamed = user.on_instance(streaming.address).get("/api/products/").await;
    assert_eq!(streamed.body, list.body);
    let streamed = app.metric_on(&streaming, "testshop_replica_reads_total").await;
    assert_eq!(streamed, 1.0, "tried as an entry, then streamed from the primary");

    // a replica that stands still: the primary is asked, and no write is missed by anybody
    follower.batch_execute("select pg_wal_replay_pause()").await.unwrap();
    let written = staff.patch("/api/products/7/", json!({"name": "Changed"})).await;
    assert_eq!(written.status, 200, "{}", written.text());
    assert_eq!(product_names(&reader.get("/api/products/").await.json())[6], "Changed");
    assert_eq!((served().await, behind().await), (2.0, 1.0));
    let export = reader.get("/api/products/export/").await;
    assert_eq!((export.status.as_u16(), behind().await), (200, 2.0));
    let streamed = user.on_instance(streaming.address).get("/api/products/").await;
    assert_eq!(product_names(&streamed.json())[6], "Changed");
    follower.batch_execute("select pg_wal_replay_resume()").await.unwrap();

    // it goes and comes, and each read after a write shows the write
    for round in 1..=30 {
        let name = format!("Round {round}");
        assert_eq!(staff.patch("/api/products/1/", json!({"name": name})).await.status, 200);
        assert_eq!(product_names(&reader.get("/api/products/").await.json())[0], name);
    }
    assert!(served().await > 2.0, "it was close enough behind to be used");

    // a replica that is gone costs nobody an answer, and is not asked again at once
    replica.kill_database();
    for round in 1..=3 {
        let name = format!("Gone {round}");
        assert_eq!(staff.patch("/api/products/1/", json!({"name": name})).await.status, 200);
        assert_eq!(product_names(&reader.get("/api/products/").await.json())[0], name);
    }
    assert_eq!(failures().await, 1.0);
    assert_eq!(reader.get("/api/products/export/").await.status, 200);

    // and is used again when it is there
    replica.start();
    let before = served().await;
    wait_until("the replica serves again", async || {
        app.execute("update products set price = price + 0.01 where id = 2", &[]).await;
        reader.get("/api/products/").await.status == 200 && served().await > before
    })
    .await;
    drop((reading, streaming, app, replica, primary));
}

#[tokio::test(flavor = "multi_thread")]
async fn primary_is_found_among_hosts_before_and_after_failover() {
    let (primary, replica, app, follower) = replicated("failover").await;
    let own = as_serving_role(&with_database(&primary.database_url, app.database_name()));
    let both = own.replacen(
        host_and_port(&own),
        &format!("{},{}", host_and_port(&replica.database_url), host_and_port(&primary.database_url)),
        1,
    );
    // the standby stands first, and is not taken for the primary
    let server = app.start_instance_with("database-url", &both).await;
    let staff = app.create_staff("sam").await.on_instance(server.address);
    let new = json!({"name": "First", "price": 1, "category_id": 1});
    app.seed_products(1).await;
    assert_eq!(staff.post("/api/products/", new.clone()).await.status, 201);
    caught_up(&app, &follower).await;

    // the primary goes on alone for one more write, and dies with it
    follower.batch_execute("alter system set primary_conninfo = ''").await.unwrap();
    follower.batch_execute("select pg_reload_conf()").await.unwrap();
    let receivers = "select count(*) from pg_stat_wal_receiver";
    wait_until("nothing is streamed any more", async || {
        follower.query_one(receivers, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    assert_eq!(staff.post("/api/products/", json!({"name": "Lost", "price": 1, "category_id": 1})).await.status, 201);
    assert_eq!(product_names(&staff.get("/api/products/").await.json()), ["Product 1", "First", "Lost"]);
    primary.kill_database();
    follower.query_one("select pg_promote()", &[]).await.unwrap();

    // the numbers of versions are dealt a second time, and no list of the other history is served for one of this
    wait_until("writes are taken again", async || {
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
    let own = as_serving_role(app.database_url());
    let silent = Proxy::start(host_and_port(&own).to_owned()).await;
    silent.set_state(LinkState::Silent);
    let both = own.replacen(host_and_port(&own), &format!("{},{}", silent.address, host_and_port(&own)), 1);
    let server = app.start_instance_with("database-url", &both).await;
    let user = app.create_user("ann").await.on_instance(server.address);
    let began = std::time::Instant::now();
    assert_eq!(user.get("/api/products/").await.status, 200);
    assert!(began.elapsed() < std::time::Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn unresponsive_replica_delays_once_and_fails_no_request() {
    let (primary, replica, app, follower) = replicated("silent").await;
    let url = as_serving_role(&with_database(&replica.database_url, app.database_name()));
    let line = Proxy::start(host_and_port(&url).to_owned()).await;
    let over_line = url.replacen(host_and_port(&url), &line.address.to_string(), 1);
    let server = app.start_instance_with_settings(&[("database-replica-url", &over_line), ("redis-url", "")]).await;
    app.seed_products(5).await;
    let staff = app.create_staff("sam").await.on_instance(server.address);
    caught_up(&app, &follower).await;
    assert_eq!(staff.get("/api/products/").await.status, 200);
    let served = app.metric_on(&server, "testshop_replica_reads_total").await;
    assert_eq!(served, 1.0);

    line.set_state(LinkState::Silent);
    let began = std::time::Instant::now();
    assert_eq!(staff.patch("/api/products/1/", json!({"name": "Seen"})).await.status, 200);
    assert_eq!(product_names(&staff.get("/api/products/").await.json())[0], "Seen");
    assert_eq!(staff.get("/api/products/export/").await.status, 200);
    assert!(began.elapsed() < std::time::Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(app.metric_on(&server, "testshop_replica_failures_total").await, 1.0);
    drop((server, app, replica, primary));
}
