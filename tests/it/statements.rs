//! The registry of statements against the files and the migrated schema.

use std::{collections::BTreeSet, fs, path::Path};

use testshop::db::statements;

use crate::harness::Shop;

fn registered() -> impl Iterator<Item = &'static statements::Statement> {
    statements::PREPARED.iter().chain(statements::IMPORTS)
}

#[tokio::test]
async fn every_statement_is_prepared_by_the_migrated_schema() {
    let shop = Shop::open().await;
    shop.script(&format!("begin; {}", statements::IMPORTS_STAGE.sql)).await;
    for statement in registered() {
        let prepared = shop.sql.prepare(statement.sql).await;
        assert!(prepared.is_ok(), "{}: {:?}", statement.name, prepared.err());
    }
}

#[test]
fn every_file_is_registered_and_opens_with_its_purpose() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    let mut files = BTreeSet::new();
    let entries = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path());
    // roles.sql beside the folders is a script, with `roles.rs` for a reader
    for folder in entries.filter(|entry| entry.is_dir()) {
        for file in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = file.strip_prefix(&root).unwrap().with_extension("").to_str().unwrap().to_owned();
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.starts_with("-- "), "{name} does not open with what it is for");
            if !name.starts_with("migrations/") {
                files.insert(name);
            }
        }
    }
    let names: BTreeSet<_> = registered().map(|statement| statement.name.to_owned()).collect();
    assert_eq!(files, names);
    assert_eq!(names.len(), registered().count(), "a name stands twice");
}

#[tokio::test]
async fn constraints_that_the_code_names_exist() {
    let shop = Shop::open().await;
    let sql = "select conname::text from pg_constraint union select relname::text from pg_class where relkind = 'i'";
    let rows = shop.sql.query(sql, &[]).await.unwrap();
    let known: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    for name in [
        "users_username_key",
        "users_email_key",
        "categories_name_key",
        "tags_name_key",
        "products_category_id_fkey",
        "products_price_check",
        "products_created_at_check",
        "users_date_joined_check",
    ] {
        assert!(known.contains(name), "{name}");
    }
}

#[tokio::test]
async fn the_schema_refuses_what_no_client_could_read() {
    let shop = Shop::open().await;
    shop.stock(1).await;
    for value in [
        "price = 'NaN'",
        "price = -0.01",
        "created_at = 'infinity'",
        "created_at = '-infinity'",
        "created_at = '9999-12-31'",
    ] {
        let refused = shop.sql.execute(&format!("update products set {value}"), &[]).await;
        assert!(refused.is_err(), "{value}");
    }
    let endless = "insert into users (username, email, password, date_joined) values ('a', 'b', '!', 'infinity')";
    assert!(shop.sql.execute(endless, &[]).await.is_err());
}

#[tokio::test]
async fn other_programs_need_only_the_public_columns() {
    let shop = Shop::open().await;
    shop.script(
        "insert into categories (name) values ('Sport');
         insert into products (category_id, name, price) values (1, 'Ball', 5);
         insert into tags (name) values ('new');
         insert into product_tags (product_id, tag_id) values (1, 1);
         insert into users (username, email, password) values ('ann', 'ann@example.com', '!')",
    )
    .await;
    let list = shop.user("bob").await.get("/api/products/").await.json();
    assert_eq!(list[0]["description"], "");
    assert_eq!(list[0]["tags"][0], "new");
}
