//! The statement registry matches the SQL files and the migrated schema.

use std::{collections::BTreeSet, fs, path::Path};

use testshop::db::statements;

use crate::harness::TestApp;

fn registered() -> impl Iterator<Item = &'static statements::Statement> {
    statements::PREPARED.iter().chain(statements::IMPORTS)
}

#[tokio::test]
async fn every_statement_prepares_on_migrated_schema() {
    let app = TestApp::spawn().await;
    app.batch_execute(&format!("begin; {}; {}", statements::IMPORTS_STAGE.sql, statements::IMPORTS_READS.sql)).await;
    for statement in registered() {
        let prepared = app.sql.prepare(statement.sql).await;
        assert!(prepared.is_ok(), "{}: {:?}", statement.name, prepared.err());
    }
}

#[test]
fn every_statement_file_is_registered_and_states_its_purpose() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    let mut files = BTreeSet::new();
    let entries = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path());
    // only directories: roles.sql beside them is a script, which `roles.rs` reads
    for directory in entries.filter(|entry| entry.is_dir()) {
        for file in fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
            let name = file.strip_prefix(&root).unwrap().with_extension("").to_str().unwrap().to_owned();
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.starts_with("-- "), "{name} does not start with a comment");
            if !name.starts_with("migrations/") {
                files.insert(name);
            }
        }
    }
    let names: BTreeSet<_> = registered().map(|statement| statement.name.to_owned()).collect();
    assert_eq!(files, names);
    assert_eq!(names.len(), registered().count(), "names are unique");
}

#[tokio::test]
async fn constraints_named_in_code_exist() {
    let app = TestApp::spawn().await;
    let sql = "select conname::text from pg_constraint union select relname::text from pg_class where relkind = 'i'";
    let rows = app.sql.query(sql, &[]).await.unwrap();
    let existing: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    for name in [
        "users_username_key",
        "users_email_key",
        "categories_name_key",
        "tags_name_key",
        "products_category_id_fkey",
        "products_pkey",
        "products_price_check",
        "products_created_at_check",
        "users_date_joined_check",
    ] {
        assert!(existing.contains(name), "{name}");
    }
}

#[tokio::test]
async fn schema_rejects_unrepresentable_values() {
    let app = TestApp::spawn().await;
    app.seed_products(1).await;
    for value in [
        "price = 'NaN'",
        "price = -0.01",
        "created_at = 'infinity'",
        "created_at = '-infinity'",
        "created_at = '9999-12-31'",
    ] {
        let outcome = app.sql.execute(&format!("update products set {value}"), &[]).await;
        assert!(outcome.is_err(), "{value}");
    }
    let infinite = "insert into users (username, email, password, date_joined) values ('a', 'b', '!', 'infinity')";
    assert!(app.sql.execute(infinite, &[]).await.is_err());
}

#[tokio::test]
async fn inserts_work_with_default_columns() {
    let app = TestApp::spawn().await;
    app.batch_execute(
        "insert into categories (name) values ('Sport');
         insert into products (category_id, name, price) values (1, 'Ball', 5);
         insert into tags (name) values ('new');
         insert into product_tags (product_id, tag_id) values (1, 1);
         insert into users (username, email, password) values ('ann', 'ann@example.com', '!')",
    )
    .await;
    let list = app.create_user("bob").await.get("/api/products/").await.json();
    assert_eq!(list[0]["description"], "");
    assert_eq!(list[0]["tags"][0], "new");
}
