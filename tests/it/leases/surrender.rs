//! Surrendered leases: an instance that serves a write gives its lease up before, and the write does not wait for it.

use std::time::Duration;

use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use super::{
    DURATION, newest_accounts_wait, newest_wait,
    server::{LIST, spawn as spawn_with_leases, wait_until_leased},
    spawn, timed,
};
use crate::harness::{PASSWORD, TestApp, TestAppBuilder, product_names};

const WRITE: &str = "update products set price = price + 1 where id = 1";

/// The ticket of a lease.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    pub number: i64,
    pub epoch: Uuid,
}

pub async fn draw_ticket(serving: &Client) -> Ticket {
    let row = serving.query_one("select ticket, epoch from read_versions_leased(0)", &[]).await.unwrap();
    Ticket { number: row.get(0), epoch: row.get(1) }
}

/// Surrenders the tickets from number `first` on, and returns whether they were all.
pub async fn surrender(serving: &Client, first: i64, last: Ticket) -> bool {
    let call = "select surrender_leases($1, $2, $3)";
    serving.query_one(call, &[&first, &last.number, &last.epoch]).await.unwrap().get(0)
}

/// Writes, and returns how long the writer has waited for leases.
async fn write(app: &TestApp) -> Duration {
    timed(&app.sql, WRITE).await;
    newest_wait(app).await
}

#[tokio::test]
async fn writer_does_not_wait_for_surrendered_leases() {
    let (app, serving) = spawn().await;
    let (first, last) = (draw_ticket(&serving).await, draw_ticket(&serving).await);
    assert!(surrender(&serving, first.number, last).await);
    assert_eq!(write(&app).await, Duration::ZERO);
    // the message arrives again, after another lease was granted
    let later = draw_ticket(&serving).await;
    assert!(!surrender(&serving, first.number, last).await);
    assert_eq!(write(&app).await, DURATION);
    // all tickets up to `later` have expired
    let last = draw_ticket(&serving).await;
    assert!(surrender(&serving, later.number + 1, last).await);
    assert_eq!(write(&app).await, Duration::ZERO);
}

#[tokio::test]
async fn writer_waits_for_the_leases_of_others_and_of_other_epochs() {
    let (app, serving) = spawn().await;
    for is_other_first in [true, false] {
        let (first, second) = (draw_ticket(&serving).await, draw_ticket(&serving).await);
        let own = if is_other_first { second } else { first };
        assert!(!surrender(&serving, own.number, own).await);
        assert_eq!(write(&app).await, DURATION, "{is_other_first}");
    }
    let ticket = draw_ticket(&serving).await;
    assert!(!surrender(&serving, ticket.number, Ticket { epoch: Uuid::nil(), ..ticket }).await);
    assert_eq!(write(&app).await, DURATION);
}

#[tokio::test]
async fn single_instance_does_not_wait_for_its_own_leases() {
    let app = spawn_with_leases(TestAppBuilder::default()).await;
    let (user, staff) = (app.create_user("ann").await, app.create_staff("sam").await);
    // the first writer waits
    app.batch_execute(WRITE).await;
    wait_until_leased(&user, app.server.admin_address).await;
    let changed = staff.patch("/api/products/1/", json!({"name": "Written"})).await;
    assert_eq!(changed.status, 200);
    assert_eq!(product_names(&user.get(LIST).await.json())[0], "Written");
    assert_eq!(newest_wait(&app).await, Duration::ZERO);
    wait_until_leased(&user, app.server.admin_address).await;
    let product = json!({"name": "Created", "price": 1, "category_id": 1});
    assert_eq!(staff.post(LIST, product).await.status, 201);
    assert_eq!(product_names(&user.get(LIST).await.json()).last(), Some(&"Created"));
    assert_eq!(newest_wait(&app).await, Duration::ZERO);
    wait_until_leased(&user, app.server.admin_address).await;
    assert_eq!(user.post("/api/logout/", json!({})).await.status, 204);
    assert_eq!(user.get(LIST).await.status, 401);
    assert_eq!(newest_accounts_wait(&app).await, Duration::ZERO);
    assert_eq!(app.metric("testshop_leases_surrendered_total").await, 3.0);
}

#[tokio::test]
async fn write_waits_for_the_leases_of_other_instances() {
    let app = spawn_with_leases(TestAppBuilder::default()).await;
    let other = app.start_instance().await;
    let (user, staff) = (app.create_user("ann").await, app.create_staff("sam").await);
    let on_other = user.on_instance(other.address);
    app.batch_execute(WRITE).await;
    wait_until_leased(&user, app.server.admin_address).await;
    wait_until_leased(&on_other, other.admin_address).await;
    assert_eq!(staff.patch("/api/products/1/", json!({"name": "Written"})).await.status, 200);
    for client in [&user, &on_other] {
        assert_eq!(product_names(&client.get(LIST).await.json())[0], "Written");
    }
    assert_ne!(newest_wait(&app).await, Duration::ZERO, "the other instance held a lease");
}

/// Neither reads nor logins take leases away.
#[tokio::test]
async fn requests_that_change_no_version_surrender_nothing() {
    let app = spawn_with_leases(TestAppBuilder::default()).await;
    let user = app.create_user("ann").await;
    app.batch_execute(WRITE).await;
    wait_until_leased(&user, app.server.admin_address).await;
    let login = json!({"username": "ann", "password": PASSWORD});
    assert_eq!(app.anonymous().post("/api/login/", login).await.status, 200);
    app.batch_execute(WRITE).await;
    assert_ne!(newest_wait(&app).await, Duration::ZERO, "the lease was held");
    assert_eq!(app.metric("testshop_leases_surrendered_total").await, 0.0);
}
