//! The log of the catalogue's versions: each commit that changes a value adds one version and what it changed, or the
//! commit fails. The submodules test what statements log, concurrent transactions, pruning and replication.

mod accounts;
mod isolation;
mod retention;
mod server;
mod statements;

use serde_json::json;
use tokio_postgres::Client;

use crate::harness::{TestApp, connect, product_names};

/// Returns a text per version after $1: the sorted ids of each kind that its transaction has logged.
const LOGGED_SQL: &str = "
    select coalesce((select string_agg(kind || ids, ', ' order by kind)
                       from (select kind, string_agg(' ' || id, '' order by id) as ids
                               from (select distinct change.kind, change.id
                                       from catalogue_changes c
                                      cross join lateral (select 'products', unnest(c.products)
                                                           union all
                                                          select 'categories', unnest(c.categories)
                                                           union all
                                                          select 'tags', unnest(c.tags)
                                                           union all
                                                          select 'everything', 0 where c.everything
                                                         ) change (kind, id)
                                      where c.transaction = v.transaction) changes
                              group by kind) kinds),
                    'nothing')
      from catalogue_versions v
     where version > $1
     order by version";

/// Returns the number of the newest version.
async fn newest(sql: &Client) -> i64 {
    sql.query_one("select max(version) from catalogue_versions", &[]).await.unwrap().get(0)
}

/// Returns what each version after `version` has logged, in the order of the versions.
async fn logged_since(sql: &Client, version: i64) -> Vec<String> {
    let rows = sql.query(LOGGED_SQL, &[&version]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

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
}

#[tokio::test]
async fn write_fails_when_version_cannot_be_inserted() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    let other = connect(app.database_url()).await;
    other.batch_execute("begin; select from catalogue_commit_lock for update").await.unwrap();
    // the statements themselves succeed and the commit fails
    let product = json!({"name": "New", "price": 1, "category_id": 1});
    assert_eq!(staff.post("/api/products/", product.clone()).await.status, 503);
    assert_eq!(staff.with_header("idempotency-key", "k").post("/api/products/", product).await.status, 503);
    assert_eq!(staff.patch("/api/products/1/", json!({"name": "Other"})).await.status, 503);
    assert_eq!(staff.delete("/api/products/1/").await.status, 503);
    assert_eq!(staff.patch("/api/categories/1/", json!({"name": "Other"})).await.status, 503);
    // a write that changes nothing needs no version
    assert_eq!(staff.patch("/api/products/1/", json!({"name": "Product 1"})).await.status, 200);
    other.batch_execute("rollback").await.unwrap();
    let list = staff.get("/api/products/").await.json();
    assert_eq!((product_names(&list), &list[0]["category_name"]), (vec!["Product 1"], &json!("Sport")));
    app.batch_execute("delete from catalogue_commit_lock").await;
    let error = app.sql.batch_execute("update products set name = 'Unseen'").await.unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("lists would go stale"), "{error:?}");
}

#[tokio::test]
async fn emptied_log_fails_reads_until_next_write() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    let user = app.create_user("ann").await;
    assert_eq!(user.get("/api/products/").await.status, 200);
    app.batch_execute("delete from catalogue_versions").await;
    assert_eq!(user.get("/api/products/").await.status, 503);
    app.batch_execute("update products set name = 'Seen'").await;
    assert_eq!(product_names(&user.get("/api/products/").await.json()), ["Seen"]);
}

#[tokio::test]
async fn request_that_changes_no_value_leaves_cached_lists_valid() {
    let app = TestApp::spawn().await;
    app.seed_products(2).await;
    let staff = app.create_staff("sam").await;
    let same_product = json!({"name": "Product 1", "description": "Number 1", "price": "1.99", "category_id": 1,
                              "tags": ["new", "eco"]});
    let lists = ["/api/products/", "/api/categories/", "/api/tags/"];
    let mut before = Vec::new();
    for path in lists {
        before.push(staff.get(path).await);
    }
    let version = newest(&app.sql).await;
    for (path, body) in [
        ("/api/products/1/", json!({})),
        ("/api/products/1/", json!({"price": 1.99})),
        ("/api/products/1/", json!({"tags": ["eco", "new"], "category_name": "Sport"})),
        ("/api/products/1/", same_product.clone()),
        ("/api/categories/1/", json!({"name": "Sport"})),
        ("/api/tags/2/", json!({"name": "eco"})),
    ] {
        let response = staff.patch(path, body.clone()).await;
        assert_eq!(response.status, 200, "PATCH {path} {body}: {}", response.text());
        if body.as_object().is_some_and(|body| body.contains_key("name")) {
            assert_eq!(staff.put(path, body.clone()).await.status, 200, "PUT {path} {body}");
        }
        assert_eq!(logged_since(&app.sql, version).await, [""; 0], "{path} {body}");
    }
    for (path, before) in lists.iter().zip(&before) {
        let after = staff.get(path).await;
        assert_eq!(after.header("cache-status"), "TestShop; hit; detail=memory", "{path}");
        assert_eq!(after.header("etag"), before.header("etag"), "{path}");
    }
    assert_eq!(staff.patch("/api/products/1/", json!({"price": 2})).await.status, 200);
    assert_eq!(logged_since(&app.sql, version).await, ["products 1"]);
}
