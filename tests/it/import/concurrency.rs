//! Imports beside other writers: the outcome equals that of some serial order.

use std::collections::BTreeSet;

use futures_util::future::join;
use serde_json::json;

use super::{report, transactions::wait_for_lock_waiter};
use crate::harness::{TestApp, TestResponse, connect};

/// The import reads its rows in batches of 1000.
const PRODUCTS: i32 = 3000;

/// Inserts [`PRODUCTS`] products at 10, and makes the server wait for an advisory lock when it reads one in the second
/// batch of an import.
pub(super) async fn seed_with_pause(app: &TestApp) {
    app.seed_products(PRODUCTS).await;
    app.batch_execute(
        "update products set price = 10;
         create function pause_at(bigint) returns boolean language plpgsql as
             'begin if $1 = 1500 then perform pg_advisory_xact_lock_shared(42); end if; return true; end';
         alter table products enable row level security;
         create policy pause on products using (pause_at(id)) with check (true)",
    )
    .await;
}

/// Returns the rows of all products at 10, with names that begin with `name`.
pub(super) fn rows(name: &str) -> String {
    let row = |id| format!("{id},{name} {id},Number {id},Sport,10,2023-08-08T12:00:00Z,\"eco, new\"\n");
    (1..=PRODUCTS).map(row).collect()
}

/// Runs an import, and `meanwhile` when the import has read its first batch and the snapshot of the second.
pub(super) async fn import_while(
    app: &TestApp,
    importing: impl Future<Output = TestResponse>,
    meanwhile: impl Future<Output = ()>,
) -> TestResponse {
    let session = connect(app.database_url()).await;
    session.batch_execute("select pg_advisory_lock(42)").await.unwrap();
    let writing = async {
        wait_for_lock_waiter(app).await;
        meanwhile.await;
        session.batch_execute("select pg_advisory_unlock(42)").await.unwrap();
    };
    join(importing, writing).await.0
}

/// Returns the different values of an SQL expression over all products.
async fn distinct(app: &TestApp, expression: &str) -> BTreeSet<String> {
    let rows = app.sql.query(&format!("select distinct ({expression})::text from products"), &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn import_beside_bulk_transaction_equals_serial_order() {
    for (renaming, status, prices) in [
        ("", 200, ["10.00"]),
        ("update tags set name = 'green' where name = 'eco'", 200, ["10.00"]),
        // the file names a category that does not exist any more
        ("update categories set name = 'Sports'", 400, ["20.00"]),
        ("delete from product_tags where product_id = 3", 200, ["10.00"]),
    ] {
        let app = TestApp::spawn().await;
        seed_with_pause(&app).await;
        let staff = app.create_staff("sam").await;
        let bulk = format!("begin; update products set price = 20; {renaming}; commit");
        let file = rows("Product");
        let response = import_while(&app, staff.import_csv("", &file), app.batch_execute(&bulk)).await;
        assert_eq!(response.status, status, "{renaming}: {}", response.text());
        assert_eq!(distinct(&app, "price").await, prices.map(str::to_owned).into(), "{renaming}");
        if status == 200 {
            let tags = "select string_agg(name, ', ' order by name) from tags join product_tags on id = tag_id
                         where product_id = products.id";
            assert_eq!(distinct(&app, tags).await, BTreeSet::from(["eco, new".to_owned()]), "{renaming}");
        }
    }
}

#[tokio::test]
async fn skipped_rows_are_checked_again() {
    let app = TestApp::spawn().await;
    seed_with_pause(&app).await;
    let staff = app.create_staff("sam").await;
    // the first batch names a product and a category that appear together with the new prices
    let file = "5000,New,,Sport,10,2023-08-08T12:00:00Z,\n,Other,,Books,10,,\n".to_owned() + &rows("Product");
    let bulk = "begin; update products set price = 20; insert into categories (name) values ('Books');
                insert into products (id, category_id, name, price) values (5000, 1, 'New', 20); commit";
    let response = import_while(&app, staff.import_csv("?on_error=skip", &file), app.batch_execute(bulk)).await;
    let report = response.json();
    assert_eq!((&report["created"], &report["skipped"]), (&json!(1), &json!(0)), "{report}");
    assert_eq!(distinct(&app, "price").await, BTreeSet::from(["10.00".to_owned()]));
}

#[tokio::test]
async fn unchanged_rows_are_those_of_one_moment() {
    let app = TestApp::spawn().await;
    seed_with_pause(&app).await;
    let staff = app.create_staff("sam").await;
    // each batch equals what is stored when it is read, but all of them never are at the same time
    let price = |id| if id <= 2000 { 10 } else { 20 };
    let row = |id| format!("{id},Product {id},Number {id},Sport,{},2023-08-08T12:00:00Z,\"eco, new\"\n", price(id));
    let file: String = (1..=PRODUCTS).map(row).collect();
    let bulk = "update products set price = 20";
    let response = import_while(&app, staff.import_csv("", &file), app.batch_execute(bulk)).await;
    assert_eq!(response.status_and_json(), (200, report(0, 2000, 1000)));
    let version = "select max(version) from catalogue_versions";
    let before: i64 = app.sql.query_one(version, &[]).await.unwrap().get(0);
    assert_eq!(staff.import_csv("", &file).await.status_and_json(), (200, report(0, 0, 3000)));
    let after: i64 = app.sql.query_one(version, &[]).await.unwrap().get(0);
    assert_eq!(before, after, "an import without changes writes nothing");
}

#[tokio::test]
async fn running_import_blocks_no_writer_of_its_products() {
    let app = TestApp::spawn().await;
    seed_with_pause(&app).await;
    let staff = app.create_staff("sam").await;
    let file = rows("Imported");
    let writes = async {
        for id in [1, 700, 2900] {
            let response = staff.patch(&format!("/api/products/{id}/"), json!({"description": "Patched"})).await;
            assert_eq!(response.status, 200, "{}", response.text());
        }
    };
    let response = import_while(&app, staff.import_csv("", &file), writes).await;
    assert_eq!(response.json()["updated"], PRODUCTS, "{}", response.text());
    assert_eq!(distinct(&app, "description = 'Number ' || id").await, BTreeSet::from(["true".to_owned()]));
}

#[tokio::test]
async fn parallel_imports_of_same_rows_all_succeed() {
    let app = TestApp::spawn().await;
    app.seed_products(300).await;
    // one user may run half of the imports of an instance
    let staff = [app.create_staff("sam").await, app.create_staff("pam").await];
    let other = app.start_instance().await;
    let imports = ["one", "two", "three", "four"].into_iter().enumerate().map(|(index, name)| {
        let staff = &staff[index / 2];
        let staff = if index % 2 == 0 { staff.clone() } else { staff.on_instance(other.address) };
        let row = |id| format!("{id},{name},{name},Sport,10,2023-08-08T12:00:00Z,{name}\n");
        let (forwards, backwards): (String, String) =
            ((1..=300).map(row).collect(), (1..=300).rev().map(row).collect());
        async move { staff.import_csv("", if index < 2 { &forwards } else { &backwards }).await }
    });
    for response in futures_util::future::join_all(imports).await {
        assert_eq!(response.json()["updated"], 300, "{}", response.text());
    }
    assert_eq!(distinct(&app, "name || description").await.len(), 1);
}
