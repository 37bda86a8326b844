//! Reads and writes of products by one client.

use serde_json::json;

use crate::harness::{TestApp, product_names};

#[tokio::test]
async fn list_is_array_with_keys_in_order() {
    let app = TestApp::spawn().await;
    app.batch_execute(
        "insert into categories (name) values ('Sport');
         insert into tags (name) values ('yes'), ('no'), ('example'), ('Zebra');
         insert into products (category_id, name, description, price, created_at) values
             (1, 'Example Product 1', 'This is the first example product.', 19.99, '2023-08-08T12:00:00Z'),
             (1, '<b>Żółw & \"co\"</b>', '', 0.1, '2023-08-08T14:00:00.000123+02'),
             (1, 'Dear', '', 9999999999.99, '2023-08-08T12:00:00Z');
         insert into product_tags select 1, id from tags",
    )
    .await;
    let response = app.create_user("ann").await.get("/api/products/").await;
    assert_eq!(
        response.text(),
        concat!(
            r#"[{"id":1,"name":"Example Product 1","description":"This is the first example product.","#,
            r#""category_name":"Sport","price":19.99,"created_at":"2023-08-08T12:00:00Z","#,
            r#""tags":["Zebra","example","no","yes"]},"#,
            r#"{"id":2,"name":"<b>Żółw & \"co\"</b>","description":"","category_name":"Sport","#,
            r#""price":0.10,"created_at":"2023-08-08T12:00:00.000123Z","tags":[]},"#,
            r#"{"id":3,"name":"Dear","description":"","category_name":"Sport","#,
            r#""price":9999999999.99,"created_at":"2023-08-08T12:00:00Z","tags":[]}]"#,
        )
    );
    assert_eq!(response.header("content-type"), "application/json");
    assert_eq!(response.header("cache-control"), "private, no-cache");
    assert_eq!(response.header("vary"), "Accept-Encoding, Authorization");
}

#[tokio::test]
async fn empty_list_is_empty_array() {
    let app = TestApp::spawn().await;
    let response = app.create_user("ann").await.get("/api/products/").await;
    assert_eq!(response.text(), "[]");
}

#[tokio::test]
async fn product_detail_matches_list_entry_and_has_etag() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let user = app.create_user("ann").await;
    let product = user.get("/api/products/2/").await;
    let list = user.get("/api/products/").await.json();
    assert_eq!(product.json(), list[1]);
    let etag = product.header("etag");
    assert!(etag.starts_with('"') && etag.ends_with('"'), "not a strong ETag: {etag}");
    let unchanged = user.with_header("if-none-match", etag).get("/api/products/2/").await;
    assert_eq!((unchanged.status.as_u16(), unchanged.body.len(), unchanged.header("etag")), (304, 0, etag));
    app.execute("update tags set name = 'newer' where name = 'new'", &[]).await;
    assert_eq!(user.with_header("if-none-match", etag).get("/api/products/2/").await.status, 200);
    for id in ["3", "0", "99999999999999999999999"] {
        let response = user.get(&format!("/api/products/{id}/")).await;
        assert_eq!(response.status_and_json(), (404, json!({"detail": "No Product matches the given query."})), "{id}");
    }
}

#[tokio::test]
async fn product_is_created_with_tags() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    let created = staff
        .post(
            "/api/products/",
            json!({"name": " Ball ", "price": "19.9", "category_name": "Sport", "tags": ["new", "round", "new"]}),
        )
        .await;
    assert_eq!(created.status, 201, "{}", created.text());
    assert_eq!(created.header("location"), "/api/products/2/");
    let product = created.json();
    assert_eq!(
        (&product["name"], &product["description"], &product["tags"]),
        (&json!("Ball"), &json!(""), &json!(["new", "round"]))
    );
    assert!(created.text().contains("\"price\":19.90,"), "{}", created.text());
    let read = staff.get("/api/products/2/").await;
    assert_eq!((read.text(), read.header("etag")), (created.text(), created.header("etag")));
    assert_eq!(staff.get("/api/products/").await.json()[1], product, "the next list contains it");

    let by_id =
        staff.post("/api/products/", json!({"name": "Bat", "price": 5, "category_id": 1, "description": "d"})).await;
    assert_eq!(by_id.status, 201);
    assert!(by_id.text().contains("\"price\":5.00,"));
}

#[tokio::test]
async fn put_replaces_and_patch_updates_named_fields() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    app.execute("insert into categories (name) values ('Books')", &[]).await;
    let staff = app.create_staff("sam").await;
    let patched = staff.patch("/api/products/1/", json!({"price": "5"})).await;
    assert_eq!(patched.status, 200);
    let product = patched.json();
    assert_eq!((&product["name"], &product["tags"]), (&json!("Product 1"), &json!(["eco", "new"])));
    assert!(patched.text().contains("\"price\":5.00,"));
    let patched =
        staff.patch("/api/products/1/", json!({"tags": ["eco", "red"], "category_name": "Books"})).await.json();
    assert_eq!((&patched["tags"], &patched["category_name"]), (&json!(["eco", "red"]), &json!("Books")));
    assert_eq!(staff.patch("/api/products/1/", json!({})).await.json(), patched, "an empty PATCH changes nothing");
    assert_eq!(staff.patch("/api/products/1/", json!({"tags": []})).await.json()["tags"], json!([]));

    let replaced = staff.put("/api/products/2/", json!({"name": "Two", "price": 2, "category_id": 2})).await;
    assert_eq!(replaced.status, 200);
    let product = replaced.json();
    assert_eq!(
        (&product["description"], &product["tags"], &product["category_name"]),
        (&json!(""), &json!([]), &json!("Books"))
    );
    assert_eq!(staff.get("/api/products/2/").await.text(), replaced.text());
    let required = json!(["This field is required."]);
    let errors = json!({"name": required, "price": required, "category_id": required});
    assert_eq!(staff.put("/api/products/2/", json!({})).await.status_and_json(), (400, errors));
    let errors = json!({"category_id": ["Invalid pk \"9\" - object does not exist."]});
    assert_eq!(
        staff.patch("/api/products/2/", json!({"category_id": 9, "name": "Not written"})).await.status_and_json(),
        (400, errors)
    );
    assert_eq!(staff.get("/api/products/2/").await.text(), replaced.text());

    let not_found = (404, json!({"detail": "No Product matches the given query."}));
    assert_eq!(staff.patch("/api/products/9/", json!({"price": 1})).await.status_and_json(), not_found);
    assert_eq!(
        staff.patch("/api/products/9/", json!({"price": "x"})).await.status_and_json(),
        not_found,
        "404 takes precedence over validation errors"
    );
    assert_eq!(staff.patch("/api/products/9/", json!({"category_id": 9})).await.status_and_json(), not_found);
    assert_eq!(
        staff.put("/api/products/9/", json!({"name": "N", "price": 1, "category_id": 1})).await.status_and_json(),
        not_found
    );
}

#[tokio::test]
async fn deleted_product_returns_404() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let staff = app.create_staff("sam").await;
    let deleted = staff.delete("/api/products/1/").await;
    assert_eq!((deleted.status.as_u16(), deleted.body.len()), (204, 0));
    assert_eq!(staff.delete("/api/products/1/").await.status, 404);
    assert_eq!(product_names(&staff.get("/api/products/").await.json()), ["Product 2"]);
    assert_eq!(app.query_scalar::<i64>("select count(*) from product_tags").await, 2);
}

#[tokio::test]
async fn writes_use_one_statement_or_one_transaction() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    staff.get("/api/me/").await;
    app.reset_statement_stats().await;
    let body = json!({"name": "Ball", "price": 1, "category_id": 1, "tags": ["new", "created"]});
    assert_eq!(staff.post("/api/products/", body).await.status, 201);
    assert_eq!(app.statement_calls("%insert into products%").await, 1);
    assert_eq!(app.statement_calls("begin%").await, 0);
    assert_eq!(app.statement_calls("%from users%").await, 0, "the account is cached");
    app.reset_statement_stats().await;
    assert_eq!(staff.patch("/api/products/1/", json!({"price": 2})).await.status, 200);
    assert_eq!((app.statement_calls("begin%").await, app.statement_calls("commit%").await), (1, 1));
    assert_eq!(app.statement_calls("%products%").await, 2, "a lock and an update");
}
