//! `Idempotency-Key` on the import.

use serde_json::json;

use super::{report, transactions::wait_for_lock_waiter};
use crate::harness::{TestApp, connect};

const ROWS: &str = ",New,,Sport,1,,\n1,Renamed,Number 1,Sport,1.99,,\"eco, new\"\n";

#[tokio::test]
async fn repeated_import_replays_first_report() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    let keyed = staff.with_header("idempotency-key", "one");
    let etag = staff.get("/api/products/export/").await.header("etag").to_owned();
    let first = keyed.with_header("if-match", &etag).import_csv("?on_error=skip&dry_run=false", ROWS).await;
    assert_eq!((first.header("idempotent-replayed"), first.status_and_json()), ("", (200, report(1, 1, 0))));
    // also for a condition that the import itself has made false, and parameters in another order
    for client in [&keyed, &keyed.with_header("if-match", &etag)] {
        let replayed = client.import_csv("?dry_run=false&on_error=skip", ROWS).await;
        assert_eq!((replayed.header("idempotent-replayed"), &replayed.body), ("true", &first.body));
        assert_eq!(replayed.header("content-type"), first.header("content-type"));
    }
    assert_eq!(app.query_scalar::<i64>("select count(*) from products").await, 2);

    let reused = (422, json!({"detail": "This Idempotency-Key was used with another request body."}));
    assert_eq!(keyed.import_csv("?on_error=skip&dry_run=false", ",Other,,Sport,1,,\n").await.status_and_json(), reused);
    assert_eq!(keyed.import_csv("?on_error=skip", ROWS).await.status_and_json(), reused, "other parameters");
    assert_eq!(keyed.import_csv("?on_error=skip&dry_run=false", "x,,\n").await.status_and_json(), reused, "invalid");
    let body = json!({"name": "Kettle", "price": 1, "category_name": "Sport"});
    assert_eq!(keyed.post("/api/products/", body).await.status_and_json(), reused, "another route");
    // each user has own keys, and keys expire after a day
    let bob = app.create_staff("bob").await.with_header("idempotency-key", "one");
    assert_eq!(bob.import_csv("", ROWS).await.header("idempotent-replayed"), "");
    app.execute("update idempotency_keys set created_at = now() - interval '25 hours'", &[]).await;
    assert_eq!(keyed.import_csv("", ROWS).await.status_and_json(), (200, report(1, 0, 1)));
}

#[tokio::test]
async fn failed_import_can_be_retried_with_same_key() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await.with_header("idempotency-key", "one");
    assert_eq!(staff.import_csv("", ",New,,Books,1,,\n").await.status, 400);
    assert_eq!(staff.with_header("if-match", "\"other\"").import_csv("", ROWS).await.status, 412);
    assert_eq!(staff.import("", "text/csv", "Nonsense\n").await.status, 400);
    assert_eq!(app.query_scalar::<i64>("select count(*) from idempotency_keys").await, 0);
    assert_eq!(staff.import_csv("", ROWS).await.header("idempotent-replayed"), "");
    let invalid = staff.with_header("idempotency-key", "").import_csv("", ROWS).await;
    assert_eq!((invalid.status.as_u16(), invalid.json()["Idempotency-Key"].is_array()), (400, true));
}

#[tokio::test]
async fn import_without_changes_and_dry_run_store_their_report_only() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    let etag = staff.get("/api/products/export/").await.header("etag").to_owned();
    let unchanged = "1,Product 1,Number 1,Sport,1.99,,\"eco, new\"\n";
    for (key, query, rows, expected) in
        [("one", "?dry_run=true", ROWS, report(1, 1, 0)), ("two", "", unchanged, report(0, 0, 1))]
    {
        let keyed = staff.with_header("idempotency-key", key);
        for replayed in ["", "true"] {
            let response = keyed.import_csv(query, rows).await;
            assert_eq!(response.status_and_json(), (200, expected.clone()), "{key}");
            assert_eq!(response.header("idempotent-replayed"), replayed, "{key}");
        }
    }
    let current = staff.get("/api/products/export/").await;
    assert_eq!(current.header("etag"), etag, "the version of the catalogue is the same");
}

#[tokio::test]
async fn concurrent_imports_with_one_key_import_once() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let other_instance = app.start_instance().await;
    let staff = app.create_staff("sam").await.with_header("idempotency-key", "one");
    // the first import waits for this lock, and the second for the first
    let other = connect(app.database_url()).await;
    other.batch_execute("begin; update products set price = 2").await.unwrap();
    let import = |staff: crate::harness::TestClient| tokio::spawn(async move { staff.import_csv("", ROWS).await });
    let first = import(staff.clone());
    wait_for_lock_waiter(&app).await;
    let second = import(staff.on_instance(other_instance.address));
    let waiting = "select count(*) from pg_stat_activity
                    where datname = current_database() and wait_event_type = 'Lock'";
    crate::harness::wait_until("both wait", async || app.query_scalar::<i64>(waiting).await == 2).await;
    other.batch_execute("rollback").await.unwrap();
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!((first.text(), first.header("idempotent-replayed")), (second.text(), ""));
    assert_eq!(second.header("idempotent-replayed"), "true");
    assert_eq!(app.query_scalar::<i64>("select count(*) from products").await, 2);
}
