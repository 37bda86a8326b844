//! The version triggers: a version is bumped by the commit of the writing transaction, or the commit fails.

use serde_json::json;

use crate::harness::{TestApp, connect, product_names};

#[tokio::test]
async fn open_transaction_does_not_block_other_writers() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let staff = app.create_staff("sam").await;
    let before = staff.get("/api/products/").await;
    let other = connect(app.database_url()).await;
    let open_transaction =
        "begin; update products set name = 'Theirs' where id = 1; insert into tags (name) values ('theirs')";
    other.batch_execute(open_transaction).await.unwrap();
    let product = json!({"name": "Ours", "price": 1, "category_id": 1});
    assert_eq!(staff.post("/api/products/", product).await.status, 201);
    assert_eq!(staff.patch("/api/products/2/", json!({"price": 5})).await.status, 200);
    let etag = staff.get("/api/products/2/").await.header("etag").to_owned();
    let tagged = json!({"price": 5, "tags": ["ours"]});
    assert_eq!(staff.with_header("if-match", &etag).patch("/api/products/2/", tagged).await.status, 200);
    let meanwhile = staff.get("/api/products/").await;
    assert_eq!(product_names(&meanwhile.json()), ["Product 1", "Product 2", "Ours"]);
    other.batch_execute("commit").await.unwrap();
    let after = staff.get("/api/products/").await;
    assert_eq!(product_names(&after.json()), ["Theirs", "Product 2", "Ours"]);
    assert!(before.header("etag") != meanwhile.header("etag") && meanwhile.header("etag") != after.header("etag"));
    assert_eq!(app.query_scalar::<i64>("select count(*) from pending_version_bumps").await, 0);
}

#[tokio::test]
async fn write_fails_when_version_cannot_be_bumped() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    let other = connect(app.database_url()).await;
    other.batch_execute("begin; select from versions where name = 'catalogue' for update").await.unwrap();
    // the statements themselves succeed and the commit fails
    let product = json!({"name": "New", "price": 1, "category_id": 1});
    assert_eq!(staff.post("/api/products/", product.clone()).await.status, 503);
    assert_eq!(staff.with_header("idempotency-key", "k").post("/api/products/", product).await.status, 503);
    assert_eq!(staff.patch("/api/products/1/", json!({"name": "Other"})).await.status, 503);
    assert_eq!(staff.delete("/api/products/1/").await.status, 503);
    assert_eq!(staff.patch("/api/categories/1/", json!({"name": "Other"})).await.status, 503);
    other.batch_execute("rollback").await.unwrap();
    let list = staff.get("/api/products/").await.json();
    assert_eq!((product_names(&list), &list[0]["category_name"]), (vec!["Product 1"], &json!("Sport")));
    app.batch_execute("delete from versions where name = 'catalogue'").await;
    let error = app.sql.batch_execute("update products set name = 'Unseen'").await.unwrap_err();
    assert!(error.to_string().contains("db error"), "{error}");
}
