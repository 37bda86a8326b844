//! `If-Match` on the import: the entity tag of the export that the file was made from.

use serde_json::json;

use super::{
    concurrency::{import_while, rows, seed_with_pause},
    report,
};
use crate::harness::{TestApp, product_names};

/// A change of the first product.
const ROW: &str = "1,Renamed,Number 1,Sport,1.99,2023-08-08T12:00:00Z,\"eco, new\"\n";

#[tokio::test]
async fn import_with_etag_of_outdated_export_changes_nothing() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let staff = app.create_staff("sam").await;
    let mut etags = Vec::new();
    // the last ones do not show the product that is changed below
    for query in [
        "",
        "?format=csv",
        "?format=csv&bom=true&price_max=5&ordering=-name",
        "?tag=eco&id=1&id=2&fields=id,price",
        "?page_size=1&page=2",
        "?search=product&created_after=2020-01-01&category=Sport",
        "?price_max=2",
        "?page_size=1&fields=id,name,price",
        "?category=Nowhere",
    ] {
        let etag = staff.get(&format!("/api/products/export/{query}")).await.header("etag").to_owned();
        let response = staff.with_header("if-match", &etag).import_csv("?dry_run=true", ROW).await;
        assert_eq!(response.status_and_json(), (200, report(0, 1, 0)), "{query}");
        etags.push(etag);
    }
    let long = format!("/api/products/export/?{}", (1..100).map(|id| format!("id={id}&")).collect::<String>());
    let uncheckable = staff.get(&long).await.header("etag").to_owned();
    assert_eq!(staff.with_header("if-none-match", &uncheckable).get(&long).await.status, 304);
    assert_eq!(staff.with_header("if-match", &uncheckable).import_csv("", ROW).await.status, 412);

    assert_eq!(staff.patch("/api/products/2/", json!({"price": 7})).await.status, 200);
    let current = etags.split_off(6);
    let outdated = etags;
    for etag in &current {
        let response = staff.with_header("if-match", etag).import_csv("?dry_run=true", ROW).await;
        assert_eq!(response.status_and_json(), (200, report(0, 1, 0)), "{etag}");
    }
    let weak = format!("W/{}", staff.get("/api/products/export/").await.header("etag"));
    let list = staff.get("/api/products/").await;
    let other_resource = list.header("etag").to_owned();
    for etag in outdated.iter().map(String::as_str).chain(["\"nonsense\"", "nonsense", "", &weak, &other_resource]) {
        for query in ["", "?dry_run=true", "?on_error=skip"] {
            let response = staff.with_header("if-match", etag).import_csv(query, ROW).await;
            let expected = (412, json!({"detail": "Precondition failed."}));
            assert_eq!(response.status_and_json(), expected, "{etag} {query}");
        }
    }
    assert_eq!(staff.get("/api/products/").await.body, list.body);

    let current = staff.get("/api/products/export/?format=csv").await.header("etag").to_owned();
    let any_of = format!("{}, {current}", outdated[0]);
    assert_eq!(staff.with_header("if-match", &any_of).import_csv("", ROW).await.status, 200);
    assert_eq!(staff.with_header("if-match", &current).import_csv("", ROW).await.status, 412, "the import itself");
    assert_eq!(staff.with_header("if-match", "*").import_csv("", ROW).await.status_and_json(), (200, report(0, 0, 1)));
}

#[tokio::test]
async fn catalogue_that_moves_during_conditional_import_rejects_it() {
    let app = TestApp::spawn().await;
    seed_with_pause(&app).await;
    let staff = app.create_staff("sam").await;
    let etag = staff.get("/api/products/export/").await.header("etag").to_owned();
    let (conditional, file) = (staff.with_header("if-match", &etag), rows("Imported"));
    // a product that the file does not name
    let change = "insert into products (category_id, name, price) values (1, 'Inserted', 1)";
    let response = import_while(&app, conditional.import_csv("", &file), app.batch_execute(change)).await;
    assert_eq!(response.status, 412, "{}", response.text());
    let list = staff.get("/api/products/").await.json();
    let names = product_names(&list);
    assert!(names.iter().all(|name| !name.starts_with("Imported")), "nothing was imported");
}

#[tokio::test]
async fn import_with_any_etag_succeeds_while_catalogue_moves() {
    let app = TestApp::spawn().await;
    seed_with_pause(&app).await;
    let staff = app.create_staff("sam").await.with_header("if-match", "*");
    let file = rows("Imported");
    for query in ["?dry_run=true", ""] {
        // each attempt reads another version at its end than at its beginning
        let writing = async {
            loop {
                app.batch_execute("insert into tags (name) values (gen_random_uuid())").await;
            }
        };
        let response = tokio::select! {
            response = staff.import_csv(query, &file) => response,
            () = writing => unreachable!("the writer does not end"),
        };
        assert_eq!(response.status, 200, "{query}: {}", response.text());
    }
}
