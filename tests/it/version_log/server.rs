//! Prepared transactions, and logical replication, which needs a PostgreSQL server of its own.

use tokio_postgres::error::SqlState;

use super::{logged_since, newest};
use crate::harness::{Services, TestApp, TestAppBuilder, connect, product_names, wait_until};

/// Starts a server that allows logical replication.
async fn start_server() -> Services {
    let services = Services::up("versionlog");
    let sql = connect(&services.database_url).await;
    sql.batch_execute("alter system set wal_level = logical").await.unwrap();
    drop(sql);
    services.crash_database();
    services.start();
    services
}

/// Starts an app with products 1, 2 and 3, category 1, and tags 1 and 2.
async fn spawn(services: &Services) -> TestApp {
    let app = TestAppBuilder::default().on_server(&services.database_url).spawn().await;
    app.seed_products(3).await;
    app
}

async fn test_prepared_transactions(app: &TestApp) {
    let user = app.create_user("ann").await;
    assert_eq!(user.get("/api/products/").await.status, 200);
    let version = newest(&app.sql).await;
    app.batch_execute("begin; update products set name = 'Prepared' where id = 1; prepare transaction 'p'").await;
    assert_eq!(product_names(&user.get("/api/products/").await.json())[0], "Product 1");
    // its version has been numbered: a later one must not become visible first
    let other = connect(app.database_url()).await;
    let blocked = other.batch_execute("set lock_timeout = '200ms'; update tags set name = 'x' where id = 1").await;
    assert_eq!(blocked.unwrap_err().code(), Some(&SqlState::LOCK_NOT_AVAILABLE));
    app.batch_execute("commit prepared 'p'").await;
    assert_eq!(product_names(&user.get("/api/products/").await.json())[0], "Prepared");
    app.batch_execute("begin; update products set name = 'Never' where id = 2; prepare transaction 'q'").await;
    app.batch_execute("rollback prepared 'q'").await;
    other.batch_execute("update tags set name = 'later' where id = 1").await.unwrap();
    assert_eq!(logged_since(&app.sql, version).await, ["products 1", "tags 1"]);
}

/// Publishes the catalogue of one database to another one of the same server.
async fn subscribe(publisher: &TestApp, subscriber: &TestApp) {
    let publication = "create publication catalogue for table categories, tags, products, product_tags";
    publisher.batch_execute(publication).await;
    publisher.batch_execute("select pg_create_logical_replication_slot('catalogue', 'pgoutput')").await;
    let url = publisher.database_url();
    subscriber
        .batch_execute(&format!(
            "create subscription catalogue connection '{url}' publication catalogue
               with (create_slot = false, slot_name = 'catalogue', copy_data = false)"
        ))
        .await;
}

async fn test_logical_replication(publisher: &TestApp, subscriber: &TestApp) {
    subscribe(publisher, subscriber).await;
    for (sql, expected) in [
        ("update products set price = 7 where id = 2", "products 2"),
        ("update products set price = price + 1; update tags set name = name || '!' where id = 2", "products 1 2 3"),
        ("insert into products (category_id, name, price) values (1, 'New', 1)", "products 4"),
        ("delete from tags where id = 2", "products 1 2 3, tags 2"),
        ("update categories set name = 'Games'", "categories 1"),
        ("truncate product_tags", "everything 0"),
    ] {
        let version = newest(&subscriber.sql).await;
        publisher.batch_execute(&format!("begin; {sql}; commit")).await;
        wait_until("the change is replicated", async || newest(&subscriber.sql).await > version).await;
        let logged = logged_since(&subscriber.sql, version).await;
        assert!(logged.len() == 1 && logged[0].starts_with(expected), "{sql}: {logged:?}");
    }
    // an update without changes is replicated before the next one, and logs nothing
    let version = newest(&subscriber.sql).await;
    publisher.batch_execute("update products set price = price; update products set price = 1 where id = 3").await;
    wait_until("the change is replicated", async || newest(&subscriber.sql).await > version).await;
    assert_eq!(logged_since(&subscriber.sql, version).await, ["products 3"]);
    let end = "alter subscription catalogue disable; alter subscription catalogue set (slot_name = none)";
    subscriber.batch_execute(end).await;
    subscriber.batch_execute("drop subscription catalogue").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_transactions_and_logical_replication_are_logged() {
    let services = start_server().await;
    let publisher = spawn(&services).await;
    let subscriber = spawn(&services).await;
    test_prepared_transactions(&publisher).await;
    test_logical_replication(&publisher, &subscriber).await;
    drop((publisher, subscriber, services));
}
