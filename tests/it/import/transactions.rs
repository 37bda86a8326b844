//! Imports that are interrupted, conflict with other writes or exceed a limit.

use serde_json::json;
use testshop::limits::Client;
use tokio::io::AsyncWriteExt;

use super::{HEADER, PATH};
use crate::harness::{TestApp, TestAppBuilder, connect, product_names, wait_until};

/// The connections to the test's database that wait for a lock.
const LOCK_WAITERS: &str = "from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";

pub(super) async fn wait_for_lock_waiter(app: &TestApp) {
    let count = format!("select count(*) {LOCK_WAITERS}");
    wait_until("the import waits for a lock", async || app.query_scalar::<i64>(&count).await == 1).await;
}

#[tokio::test]
async fn aborted_import_changes_nothing() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: text/csv\r\n\
         content-length: 100000\r\n\r\n{HEADER},New,,Sport,1,,\n",
        staff.token()
    );
    let mut socket = tokio::net::TcpStream::connect(staff.address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let permits = &app.server.app.import_permits;
    wait_until("the import has begun", async || permits.available_permits() == 1).await;
    drop(socket);
    wait_until("the import has ended", async || permits.available_permits() == 2).await;
    assert_eq!(product_names(&staff.get("/api/products/").await.json()), ["Product 1"]);
}

#[tokio::test]
async fn import_changes_nothing_when_database_is_lost() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    // the import waits for this lock when its connection is terminated
    let other = connect(app.database_url()).await;
    other.batch_execute("begin; update products set price = 2").await.unwrap();
    let importing = tokio::spawn({
        let staff = staff.clone();
        async move { staff.import_csv("", "1,Renamed,Number 1,Sport,1.99,2023-08-08T12:00:00Z,\"eco, new\"\n").await }
    });
    wait_for_lock_waiter(&app).await;
    app.execute(&format!("select pg_terminate_backend(pid) {LOCK_WAITERS}"), &[]).await;
    assert_eq!(importing.await.unwrap().status, 503);
    other.batch_execute("rollback").await.unwrap();
    assert_eq!(product_names(&staff.get("/api/products/").await.json()), ["Product 1"]);
}

#[tokio::test]
async fn import_retries_on_conflict() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let staff = app.create_staff("sam").await;
    let other = connect(app.database_url()).await;
    let conflicting_write =
        "begin; delete from products where id = 2; update products set description = 'Conflicting' where id = 1";
    other.batch_execute(conflicting_write).await.unwrap();
    let importing = tokio::spawn({
        let staff = staff.clone();
        let rows = "1,Imported,Number 1,Sport,1.99,2023-08-08T12:00:00Z,\"eco, new\"\n\
                    2,Imported,Number 2,Sport,2.99,2023-08-08T12:00:00Z,\"eco, new\"\n";
        async move { staff.import_csv("?on_error=skip", rows).await }
    });
    wait_for_lock_waiter(&app).await;
    other.batch_execute("commit").await.unwrap();
    let report = importing.await.unwrap().json();
    let errors = json!([{"row": 3, "id": ["Invalid pk \"2\" - object does not exist."]}]);
    assert_eq!((&report["updated"], &report["errors"]), (&json!(1), &errors), "{report}");
    // the second attempt compares with the committed description, and overwrites it
    assert_eq!(staff.get("/api/products/1/").await.json()["description"], "Number 1");
}

#[tokio::test]
async fn concurrent_imports_and_writes_lose_nothing() {
    let app = TestApp::spawn().await;
    app.seed_products(50).await;
    let staff = app.create_staff("sam").await;
    let rows = |name: &str| -> String {
        (1..=50).map(|id| format!("{id},{name} {id},Number {id},Sport,{id}.99,2023-08-08T12:00:00Z,{name}\n")).collect()
    };
    // a user may run one of two imports
    let importers = [staff.clone(), app.create_staff("kim").await];
    let imports = ["one", "two"].iter().zip(importers).map(|(name, staff)| {
        let rows = rows(name) + &format!(",{name} new,,Sport,1,,shared\n");
        tokio::spawn(async move { staff.import_csv("", &rows).await })
    });
    let imports: Vec<_> = imports.collect();
    let writes = (0..20).map(|number| {
        let staff = staff.clone();
        let body = json!({
            "name": format!("posted {number}"), "price": 1, "category_id": 1, "tags": ["shared", "one", "two"],
        });
        async move {
            let created = staff.post("/api/products/", body).await.status.as_u16();
            let updated = staff.patch("/api/products/7/", json!({"price": 70})).await.status.as_u16();
            (created, updated)
        }
    });
    let statuses = futures_util::future::join_all(writes).await;
    assert!(statuses.iter().all(|statuses| *statuses == (201, 200)), "{statuses:?}");
    for import in imports {
        let response = import.await.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let list = staff.get("/api/products/").await.json();
    let (mut posted, mut imported) = (0, 0);
    for product in list.as_array().unwrap() {
        let name = product["name"].as_str().unwrap();
        posted += u64::from(name.starts_with("posted"));
        imported += u64::from(name.ends_with("new"));
        if product["id"].as_u64().unwrap() <= 50 {
            let (last_import, _) = name.split_once(' ').unwrap();
            assert_eq!(product["tags"], json!([last_import]), "{product}");
        }
    }
    assert_eq!((posted, imported), (20, 2));
}

#[tokio::test]
async fn imports_over_limit_are_rejected_and_full_disk_fails_only_imports() {
    let app = TestAppBuilder::default()
        .with("import-concurrency", 1)
        .with("export-dir", "/nowhere/to/be/found")
        .spawn()
        .await;
    let staff = app.create_staff("sam").await;
    let permit = app.server.app.import_permits.try_acquire(Client::new(0, None)).unwrap();
    assert_eq!(staff.import_csv("", "").await.status, 503);
    drop(permit);
    let response = staff.import_csv("", "").await;
    assert_eq!(
        response.status_and_json(),
        (503, json!({"detail": "Service temporarily unavailable."})),
        "the message contains no path"
    );
    assert_eq!(staff.get("/api/products/").await.status, 200);
}
