//! What each kind of statement and transaction logs.

use super::{logged_since, newest};
use crate::harness::TestApp;

/// Executes each text, which may contain several statements, and compares what it logs: one text per version.
async fn assert_logged(app: &TestApp, cases: &[(&str, &[&str])]) {
    for (sql, expected) in cases {
        let version = newest(&app.sql).await;
        app.batch_execute(sql).await;
        assert_eq!(logged_since(&app.sql, version).await, *expected, "{sql}");
    }
}

/// An app with products 1, 2 and 3, a product 4 without tags, category 1, and tags 1 (new) and 2 (eco).
async fn spawn() -> TestApp {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    app.batch_execute("insert into products (category_id, name, price) values (1, 'Untagged', 1)").await;
    app
}

#[tokio::test]
async fn statements_log_rows_whose_values_change() {
    let app = spawn().await;
    assert_logged(
        &app,
        &[
            ("update products set price = 5 where id = 2", &["products 2"]),
            ("update products set price = 5 where id = 2", &[]),
            ("update products set price = 5 where id < 4", &["products 1 3"]),
            ("update products set price = price, name = name, created_at = created_at", &[]),
            ("update products set price = 9 where false", &[]),
            ("update products set description = 'other' where id = 1", &["products 1"]),
            ("update products set created_at = created_at + interval '1 microsecond' where id = 1", &["products 1"]),
            ("update products set id = 40 where id = 4", &["products 4 40"]),
            ("insert into products (id, category_id, name, price) values (50, 1, 'New', 1)", &["products 50"]),
            ("insert into products select * from products where false", &[]),
            ("insert into products select * from products on conflict do nothing", &[]),
            (
                "insert into products select * from products where id < 3 on conflict (id) do update set price = 6",
                &["products 1 2"],
            ),
            (
                "merge into products using (values (1), (60)) wanted (id) on products.id = wanted.id
                 when matched then update set name = 'Merged'
                 when not matched then insert (id, category_id, name, price) values (wanted.id, 1, 'New', 1)",
                &["products 1 60"],
            ),
            ("delete from products where id in (50, 60, 70)", &["products 50 60"]),
            ("delete from products where id = 70", &[]),
            (
                "copy products (id, category_id, name, price) from program 'printf ''80\\t1\\tCopied\\t1\\n'''",
                &["products 80"],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn names_and_links_are_logged_by_tag_category_and_product() {
    let app = spawn().await;
    assert_logged(
        &app,
        &[
            ("update categories set name = 'Games' where id = 1", &["categories 1"]),
            ("update categories set name = name", &[]),
            ("insert into categories (name) values ('Books')", &["categories 2"]),
            ("update categories set id = 3 where id = 2", &["categories 2 3"]),
            ("delete from categories where id = 3", &["categories 3"]),
            ("update tags set name = 'old' where id = 1", &["tags 1"]),
            ("update tags set created_at = created_at - interval '1 day'", &[]),
            ("insert into tags (name) values ('eco') on conflict do nothing", &[]),
            ("insert into tags (name) values ('eco') on conflict (name) do update set created_at = now()", &[]),
            ("insert into tags (id, name) values (9, 'third')", &["tags 9"]),
            ("insert into product_tags values (1, 9), (2, 9)", &["products 1 2"]),
            ("insert into product_tags values (1, 9) on conflict do nothing", &[]),
            ("update product_tags set tag_id = tag_id", &[]),
            ("update product_tags set product_id = 4 where product_id = 2 and tag_id = 9", &["products 2 4"]),
            ("delete from product_tags where tag_id = 9 and product_id = 4", &["products 4"]),
            ("delete from product_tags where tag_id = 9 and product_id = 4", &[]),
            ("delete from tags where id = 9", &["products 1, tags 9"]),
            ("delete from tags", &["products 1 2 3, tags 1 2"]),
            // one transaction
            (
                "insert into tags (id, name) values (5, 'last'); insert into product_tags values (3, 5)",
                &["products 3, tags 5"],
            ),
            ("delete from products where id = 3", &["products 3"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn transactions_add_one_version_with_what_they_commit() {
    let app = spawn().await;
    app.batch_execute(
        "create function rename_first() returns trigger language plpgsql
             as 'begin update products set name = name || ''!'' where id = 1; return null; end';
         create constraint trigger rename_first after insert on categories deferrable initially deferred
             for each row execute function rename_first()",
    )
    .await;
    let (one, two) = ("update products set price = price + 1 where id = 1;", "update tags set name = name || '+';");
    let cases: &[(String, &[&str])] = &[
        (
            format!("begin; {one} {two} {one} insert into product_tags values (4, 1); commit"),
            &["products 1 4, tags 1 2"],
        ),
        (format!("begin; {one} {two} rollback"), &[]),
        (format!("begin; savepoint s; {one} {two} rollback to s; commit"), &[]),
        (format!("begin; {one} savepoint s; {two} rollback to s; commit"), &["products 1"]),
        (format!("begin; {one} savepoint s; {two} release s; commit"), &["products 1, tags 1 2"]),
        (format!("begin; savepoint s; {one} rollback to s; {one} commit"), &["products 1"]),
        (format!("begin; savepoint s; savepoint t; {one} release t; rollback to s; {two} commit"), &["tags 1 2"]),
        (format!("begin; savepoint s; truncate product_tags; rollback to s; {one} commit"), &["products 1"]),
        (
            format!("do $$ begin {one} begin {two} raise 'x'; exception when others then null; end; end $$"),
            &["products 1"],
        ),
        (format!("begin; set constraints all immediate; {one} {two} commit"), &["products 1, tags 1 2"]),
        (format!("begin; {one} set constraints all immediate; {two} commit"), &["products 1, tags 1 2"]),
        (format!("begin; {one} set constraints all immediate; rollback"), &[]),
        (
            format!("begin; savepoint s; {one} set constraints all immediate; rollback to s; {two} commit"),
            &["tags 1 2"],
        ),
        (
            format!("begin; {one} savepoint s; set constraints all immediate; rollback to s; {two} commit"),
            &["products 1, tags 1 2"],
        ),
        // the settings with what has been logged are lost
        (format!("begin; {one} reset all; {one} {two} commit"), &["products 1, tags 1 2"]),
        // another program's deferred trigger writes at the commit: before the version is inserted, and after that
        ("insert into categories (id, name) values (8, 'a')".to_owned(), &["categories 8, products 1"]),
        (
            format!("begin; {two} insert into categories (id, name) values (9, 'b'); commit"),
            &["categories 9, products 1, tags 1 2"],
        ),
        ("truncate product_tags".to_owned(), &["everything 0"]),
        (format!("begin; {one} truncate product_tags; {two} commit"), &["everything 0, products 1"]),
        ("truncate products cascade".to_owned(), &["everything 0"]),
    ];
    for (sql, expected) in cases {
        assert_logged(&app, &[(sql.as_str(), *expected)]).await;
    }
}

#[tokio::test]
async fn replicated_rows_are_logged() {
    let app = spawn().await;
    // the apply worker of a subscription runs in this mode, in which ordinary triggers do not fire
    app.batch_execute("set session_replication_role = replica").await;
    assert_logged(
        &app,
        &[
            ("update products set price = 5 where id = 2", &["products 2"]),
            ("update products set price = price", &[]),
            ("update products set id = 40 where id = 4", &["products 4 40"]),
            ("insert into products (id, category_id, name, price) values (50, 1, 'New', 1)", &["products 50"]),
            ("delete from products where id = 50", &["products 50"]),
            ("update categories set name = 'Games'", &["categories 1"]),
            ("update tags set name = 'old' where id = 1", &["tags 1"]),
            ("update tags set created_at = now()", &[]),
            ("delete from product_tags where tag_id = 1", &["products 1 2 3"]),
            ("update product_tags set product_id = 40 where product_id = 3", &["products 3 40"]),
            ("truncate product_tags", &["everything 0"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn more_than_thousand_ids_are_logged_as_everything() {
    let app = TestApp::spawn().await;
    app.batch_execute(
        "insert into categories (name) values ('Sport');
         insert into products (category_id, name, price) select 1, 'Product ' || i, 1 from generate_series(1, 3000) i",
    )
    .await;
    let loop_over =
        |statement: &str, count: i32| format!("do $$ begin for i in 1..{count} loop {statement}; end loop; end $$");
    let create = "insert into products (category_id, name, price) select 1, 'New', 1 from generate_series(1, ";
    let linked = "with tag as (insert into tags (name) values (random()) returning id)
                  insert into product_tags select p.id, tag.id from products p, tag where p.id <= ";
    // the number of ids, or none for everything
    for (sql, expected) in [
        ("update products set price = 2 where id <= 1000".to_owned(), Some(1_000)),
        ("update products set price = 3 where id <= 1001".to_owned(), None),
        ("update products set price = 3 where id <= 1500".to_owned(), Some(499)),
        ("update products set price = 3 where id <= 2000".to_owned(), Some(500)),
        ("update products set price = 4".to_owned(), None),
        ("update products set price = price".to_owned(), Some(0)),
        ("update products set price = price + case when id = 7 then 1 else 0 end".to_owned(), Some(1)),
        (format!("{create} 1000)"), Some(1_000)),
        (format!("{create} 1001)"), None),
        (format!("{linked} 999"), Some(1_000)),
        (format!("{linked} 1000"), None),
        // counted per transaction, each id once
        (format!("begin; {create} 500); {create} 500); commit"), Some(1_000)),
        (format!("begin; {create} 500); {create} 501); commit"), None),
        (loop_over("update products set price = i + 10 where id = i", 1_000), Some(1_000)),
        (loop_over("update products set price = i + 20 where id = i", 1_001), None),
        (loop_over("update products set price = i where id = 1", 3_000), Some(1)),
        (loop_over("update products set price = 5 + i % 2 where id <= 1000", 3), Some(1_000)),
        ("begin; savepoint s; update products set price = 9; rollback to s; update products set price = 9 where id = 1; \
          commit".to_owned(), Some(1)),
        ("delete from products where id <= 1000".to_owned(), Some(1_000)),
        ("delete from products".to_owned(), None),
    ] {
        let version = newest(&app.sql).await;
        app.batch_execute(&sql).await;
        let counted = app
            .sql
            .query_one(
                "select count(*), coalesce(bool_or(c.everything), false),
                        coalesce(sum(cardinality(products || categories || tags)), 0)
                   from catalogue_versions
                   left join catalogue_changes c using (transaction)
                  where version > $1",
                &[&version],
            )
            .await
            .unwrap();
        let (rows, everything, ids): (i64, bool, i64) = (counted.get(0), counted.get(1), counted.get(2));
        assert_eq!((!everything).then_some(ids), expected, "{sql}");
        assert!(rows <= 1_001, "{sql}: {rows} rows");
    }
}
