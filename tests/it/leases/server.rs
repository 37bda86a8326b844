//! Instances that use leases: hits without version reads, and writes and revocations that hold at once everywhere.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::json;

use super::{newest_accounts_wait, newest_wait, set_duration};
use crate::harness::{
    LinkState, Process, Proxy, TestApp, TestAppBuilder, TestClient, host_and_port, metric, product_names, required_env,
    wait_until,
};

pub const LIST: &str = "/api/products/";
const DURATION: Duration = Duration::from_millis(200);

/// Starts an app with leases and two products.
pub async fn spawn(builder: TestAppBuilder) -> TestApp {
    let app = builder.with("lease", "200ms").spawn().await;
    set_duration(&app.sql, DURATION).await;
    app.seed_products(2).await;
    app
}

/// Sends requests until one of them uses a lease.
pub async fn wait_until_leased(client: &TestClient, admin_address: SocketAddr) {
    let hits = async || metric(admin_address, "testshop_lease_hits_total").await;
    let before = hits().await;
    wait_until("a request uses a lease", async || {
        for _ in 0..5 {
            assert_eq!(client.get(LIST).await.status, 200);
        }
        hits().await > before
    })
    .await;
}

#[tokio::test]
async fn hits_under_a_lease_read_no_versions() {
    let app = spawn(TestAppBuilder::default()).await;
    let user = app.create_user("ann").await;
    wait_until_leased(&user, app.server.admin_address).await;
    let began = Instant::now();
    let before = app.metric("testshop_version_reads_total").await;
    for _ in 0..300 {
        assert_eq!(user.get(LIST).await.header("cache-status"), "TestShop; hit; detail=memory");
    }
    let reads = app.metric("testshop_version_reads_total").await - before;
    // two for each duration of a lease; a busy machine may lose a lease
    let durations = began.elapsed().as_secs_f64() / DURATION.as_secs_f64();
    assert!(reads <= 10.0 + 3.0 * durations, "{reads} reads in {durations} durations");
    assert!(app.metric("testshop_leases_granted_total").await > 0.0);
}

#[tokio::test]
async fn write_by_another_program_shows_in_the_next_request_of_each_instance() {
    let app = spawn(TestAppBuilder::default()).await;
    let other = app.start_instance().await;
    let user = app.create_user("ann").await;
    let on_other = user.on_instance(other.address);
    for name in ["First", "Second"] {
        wait_until_leased(&user, app.server.admin_address).await;
        wait_until_leased(&on_other, other.admin_address).await;
        app.execute("update products set name = $1 where id = 1", &[&name]).await;
        for client in [&user, &on_other] {
            assert_eq!(product_names(&client.get(LIST).await.json())[0], name);
        }
        assert_eq!(newest_wait(&app).await, DURATION, "leases were held");
    }
}

#[tokio::test]
async fn logout_holds_on_other_instances_at_once() {
    let app = spawn(TestAppBuilder::default()).await;
    let other = app.start_instance().await;
    let user = app.create_user("ann").await;
    let on_other = user.on_instance(other.address);
    wait_until_leased(&on_other, other.admin_address).await;
    assert_eq!(user.post("/api/logout/", json!({})).await.status, 204);
    assert_eq!(on_other.get(LIST).await.status, 401);
    assert_eq!(newest_accounts_wait(&app).await, DURATION, "a lease was held");
}

#[tokio::test]
async fn instance_without_the_setting_requests_no_lease() {
    let app = TestApp::spawn().await;
    set_duration(&app.sql, DURATION).await;
    app.seed_products(2).await;
    let user = app.create_user("ann").await;
    app.reset_statement_stats().await;
    let before = app.metric("testshop_version_reads_total").await;
    for _ in 0..50 {
        assert_eq!(user.get(LIST).await.status, 200);
    }
    assert!(app.metric("testshop_version_reads_total").await >= before + 50.0);
    assert_eq!(app.statement_calls("%read_versions_leased%").await, 0);
    assert!(!app.query_scalar::<bool>("select is_called from lease_tickets").await);
}

#[tokio::test]
async fn instance_without_the_privilege_reads_versions_as_before() {
    let app = spawn(TestAppBuilder::default()).await;
    app.batch_execute(
        "do $$ begin
             execute format('revoke execute on function read_versions_leased(integer) from %I',
                 (select grantee from information_schema.routine_privileges
                   where routine_name = 'read_versions_leased' and grantee <> current_user));
         end $$",
    )
    .await;
    let user = app.create_user("ann").await;
    wait_until("a lease is refused", async || {
        for _ in 0..5 {
            assert_eq!(user.get(LIST).await.status, 200);
        }
        app.metric("testshop_leases_refused_total").await > 0.0
    })
    .await;
    app.batch_execute("update products set name = 'Written' where id = 1").await;
    assert_eq!(product_names(&user.get(LIST).await.json())[0], "Written");
    assert_eq!(app.metric("testshop_lease_hits_total").await, 0.0);
}

#[tokio::test]
async fn lease_expires_on_an_instance_that_the_database_cannot_reach() {
    for outage in [LinkState::Cut, LinkState::Silent] {
        let proxy = Proxy::start(host_and_port(&required_env("DATABASE_URL")).to_owned()).await;
        let app = spawn(TestAppBuilder::default().database_via_proxy(&proxy)).await;
        let user = app.create_user("ann").await;
        wait_until_leased(&user, app.server.admin_address).await;
        proxy.set_state(outage);
        app.batch_execute("update products set name = 'Written' where id = 1").await;
        let stale = user.get(LIST).await;
        assert_eq!((stale.status.as_u16(), stale.header("cache-status")), (200, "TestShop; hit; detail=stale"));
        assert_eq!(user.get("/api/me/").await.status, 503);
        proxy.set_state(LinkState::Open);
        wait_until("the list is fresh again", async || {
            let list = user.get(LIST).await;
            let is_stale = list.header("cache-status").ends_with("detail=stale");
            assert!(is_stale || list.text().contains("Written"), "{}", list.header("cache-status"));
            !is_stale
        })
        .await;
        wait_until_leased(&user, app.server.admin_address).await;
    }
}

/// The lease counts from before the read was sent: when the response arrives, it has ended.
#[tokio::test]
async fn response_that_is_slower_than_the_lease_grants_nothing() {
    let proxy = Proxy::start(host_and_port(&required_env("DATABASE_URL")).to_owned()).await;
    let app = TestAppBuilder::default().with("lease", "50ms").database_via_proxy(&proxy).spawn().await;
    set_duration(&app.sql, Duration::from_millis(50)).await;
    app.seed_products(1).await;
    let user = app.create_user("ann").await;
    proxy.set_state(LinkState::Slow);
    let granted = async || app.metric("testshop_leases_granted_total").await;
    wait_until("leases were granted", async || {
        join_all((0..5).map(|_| user.get(LIST))).await;
        granted().await >= 2.0
    })
    .await;
    assert_eq!(app.metric("testshop_lease_hits_total").await, 0.0);
    proxy.set_state(LinkState::Open);
    wait_until_leased(&user, app.server.admin_address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_expires_while_the_process_is_stopped() {
    let app = spawn(TestAppBuilder::default()).await;
    let process = Process::serve(&app, &["--lease=200ms"]);
    let user = app.create_user("ann").await.on_instance(process.address);
    wait_until_leased(&user, process.admin_address).await;
    process.signal(Signal::STOP);
    app.batch_execute("update products set name = 'Written' where id = 1").await;
    let request = tokio::spawn(async move { user.get(LIST).await });
    process.signal(Signal::CONT);
    assert_eq!(product_names(&request.await.unwrap().json())[0], "Written");
    assert_eq!(newest_wait(&app).await, DURATION, "a lease was held");
}

#[tokio::test]
async fn series_of_writes_waits_once() {
    let app = spawn(TestAppBuilder::default()).await;
    let user = app.create_user("ann").await;
    wait_until_leased(&user, app.server.admin_address).await;
    let before: i64 = app.query_scalar("select max(version) from catalogue_versions").await;
    for price in 1..=20 {
        app.execute("update products set price = $1::int where id = 1", &[&price]).await;
        // traffic goes on
        for _ in 0..3 {
            assert_eq!(user.get(LIST).await.status, 200);
        }
    }
    let waited = format!("select count(*) from catalogue_versions where version > {before} and lease_wait_ms > 0");
    assert_eq!(app.query_scalar::<i64>(&waited).await, 1);
}
