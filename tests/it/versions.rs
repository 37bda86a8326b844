//! When versions move: with the commit of whoever wrote, or not at all.

use serde_json::json;

use crate::harness::{Shop, connect, names};

#[tokio::test]
async fn a_transaction_that_is_left_open_keeps_no_other_writer_waiting() {
    let shop = Shop::open().await;
    shop.stock(2).await;
    let staff = shop.staff("sam").await;
    let before = staff.get("/api/products/").await;
    let other = connect(shop.database_url()).await;
    let left_open =
        "begin; update products set name = 'Theirs' where id = 1; insert into tags (name) values ('theirs')";
    other.batch_execute(left_open).await.unwrap();
    let made = json!({"name": "Ours", "price": 1, "category_id": 1});
    assert_eq!(staff.post("/api/products/", made).await.status, 201);
    assert_eq!(staff.patch("/api/products/2/", json!({"price": 5})).await.status, 200);
    let etag = staff.get("/api/products/2/").await.header("etag").to_owned();
    let tagged = json!({"price": 5, "tags": ["ours"]});
    assert_eq!(staff.with("if-match", &etag).patch("/api/products/2/", tagged).await.status, 200);
    let meanwhile = staff.get("/api/products/").await;
    assert_eq!(names(&meanwhile.json()), ["Product 1", "Product 2", "Ours"]);
    other.batch_execute("commit").await.unwrap();
    let after = staff.get("/api/products/").await;
    assert_eq!(names(&after.json()), ["Theirs", "Product 2", "Ours"]);
    assert!(before.header("etag") != meanwhile.header("etag") && meanwhile.header("etag") != after.header("etag"));
    assert_eq!(shop.value::<i64>("select count(*) from pending_version_bumps").await, 0);
}

#[tokio::test]
async fn a_write_whose_version_cannot_move_was_not_made() {
    let shop = Shop::open().await;
    shop.stock(1).await;
    let staff = shop.staff("sam").await;
    let other = connect(shop.database_url()).await;
    other.batch_execute("begin; select from versions where name = 'catalogue' for update").await.unwrap();
    // the statements themselves succeed: what fails is the commit behind them
    let made = json!({"name": "New", "price": 1, "category_id": 1});
    assert_eq!(staff.post("/api/products/", made.clone()).await.status, 503);
    assert_eq!(staff.with("idempotency-key", "k").post("/api/products/", made).await.status, 503);
    assert_eq!(staff.patch("/api/products/1/", json!({"name": "Other"})).await.status, 503);
    assert_eq!(staff.delete("/api/products/1/").await.status, 503);
    assert_eq!(staff.patch("/api/categories/1/", json!({"name": "Other"})).await.status, 503);
    other.batch_execute("rollback").await.unwrap();
    let list = staff.get("/api/products/").await.json();
    assert_eq!((names(&list), &list[0]["category_name"]), (vec!["Product 1"], &json!("Sport")));
    shop.script("delete from versions where name = 'catalogue'").await;
    let lost = shop.sql.batch_execute("update products set name = 'Unseen'").await.unwrap_err();
    assert!(lost.to_string().contains("db error"), "{lost}");
}
